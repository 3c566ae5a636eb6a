//! The smallest counterexample: instances are drawn anew, small ones first, then their elements are made plain.
//!
//! Invariant: whatever is tried goes through the rule's own matching, conditions included, so that what is left is an instance of
//! the rule.

use super::counterexample::Counterexample;
use super::instance::attempt;
use super::{only_moves, seed_of, values_of};
use crate::eqsat::generate::{Generator, Instance, Size};
use crate::eqsat::rules::{Law, Rule};
use brolga_ir::{ConstData, Number, Tensor};

/// Sizes from the smallest on.
const SIZES: [Size; 5] = [
    Size {
        ranks: &[0, 1, 2],
        extents: &[1],
        empty: 0,
    },
    Size {
        ranks: &[0, 1, 1, 2],
        extents: &[1, 2],
        empty: 0,
    },
    Size {
        ranks: &[1, 2, 3],
        extents: &[1, 2],
        empty: 0,
    },
    Size {
        ranks: &[2, 3, 4],
        extents: &[1, 2, 3],
        empty: 0,
    },
    Size::ANY,
];

/// Instances that are drawn of each size.
const TRIES: usize = 400;

/// Elements that are plain, the plainest first.
const PLAIN: [f64; 5] = [0.0, 1.0, 2.0, -1.0, 0.5];

/// Most changes of elements that are tried.
const CHANGES: usize = 2_000;

/// The smallest counterexample that is found, from the first one.
pub(super) fn smallest(
    rule: &Rule,
    law: &Law,
    seed: u64,
    instance: Instance,
    found: Box<Counterexample>,
) -> Box<Counterexample> {
    let (mut instance, mut found) = (instance, found);
    let moves = only_moves(law);
    for size in SIZES {
        let mut smaller = false;
        for n in 0..TRIES {
            let generator = Generator::new(seed_of(seed, n), values_of(n, moves), size, rule, law);
            let Some(new) = generator.instance(law) else { continue };
            if let Err(other) = attempt(rule, law, &new, &mut |_, _| false)
                && other.size() < found.size()
            {
                (instance, found, smaller) = (new, other, true);
            }
        }
        if smaller {
            break;
        }
    }
    plain(rule, law, instance, found)
}

/// The counterexample with elements that are as plain as they can be.
fn plain(rule: &Rule, law: &Law, mut instance: Instance, mut found: Box<Counterexample>) -> Box<Counterexample> {
    let mut changes = 0;
    let tensors = instance.inputs.len() + instance.graph.constants.len();
    for t in 0..tensors {
        let Some(n) = tensor(&instance, t).map(|x| x.len()) else {
            continue;
        };
        // All elements at once first: most counterexamples need few that are not alike.
        for at in [None].into_iter().chain((0..n).map(Some)) {
            for &x in &PLAIN {
                let now = tensor(&instance, t).expect("it was there");
                let wanted = Number::Float(x).to(now.dtype());
                let is = |i: usize| same(now.get(i), wanted);
                if at.map_or((0..n).all(is), is) {
                    break;
                }
                changes += 1;
                if changes > CHANGES {
                    return found;
                }
                let changed = Tensor::from_fn(now.dtype(), now.shape(), |i| match at {
                    Some(at) if at != i => now.get(i),
                    _ => wanted,
                });
                let mut new = instance.clone();
                put(&mut new, t, changed);
                if let Err(other) = attempt(rule, law, &new, &mut |_, _| false) {
                    (instance, found) = (new, other);
                    break;
                }
            }
        }
    }
    found
}

/// Whether two numbers are the same, signs of zeros included.
fn same(a: Number, b: Number) -> bool {
    a == b && a.f64().is_sign_negative() == b.f64().is_sign_negative()
}

/// An input's value, or behind those a constant that is no number everywhere by its form.
fn tensor(instance: &Instance, t: usize) -> Option<Tensor> {
    let inputs = instance.inputs.len();
    match instance.inputs.get(t) {
        Some(x) => Some(x.clone()),
        None => match &instance.graph.constants[t - inputs].data {
            ConstData::Dense(x) => Some(x.clone()),
            _ => None,
        },
    }
}

/// Replaces what [`tensor`] gives.
fn put(instance: &mut Instance, t: usize, x: Tensor) {
    let inputs = instance.inputs.len();
    match instance.inputs.get_mut(t) {
        Some(old) => *old = x,
        None => instance.graph.constants[t - inputs].data = ConstData::Dense(x),
    }
}
