//! What a class of rules promises of two results, and whether they keep it.
//!
//! `exact`: equal bits, but for the bits of NaN. `reassociate`: NaN where the other is, the same infinities, zeros of the same
//! sign where both are zero, and finite numbers within the rounding of the operations that made them; without
//! `range`, that holds for huge and tiny operands too. Integers are always equal.

use super::counterexample::{Difference, shown};
use crate::eqsat::generate::Values;
use crate::eqsat::rules::{Allowance, Exactness, Rule};
use brolga_ir::ops::Role;
use brolga_ir::{DType, Def, Graph, Tensor, Value};

/// What two results have to have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// Every bit.
    Bits,
    /// NaN, infinities, and numbers within rounding; the sign of zeros where it is set.
    Rounding {
        /// Whether zeros have one sign.
        signed_zeros: bool,
    },
    /// A thousandth of the largest magnitude, where both are finite.
    Roughly,
    /// The type, and the value where it is an integer.
    Type,
}

impl Promise {
    /// What a class with its allowances promises on ordinary values.
    pub fn ordinary(exactness: Exactness, allows: &[Allowance]) -> Promise {
        match exactness {
            Exactness::Exact => Promise::Bits,
            Exactness::Reassociate => Promise::Rounding {
                signed_zeros: !allows.contains(&Allowance::Zero),
            },
            Exactness::Approximate => Promise::Roughly,
        }
    }
}

impl Rule {
    /// What the rule promises on values of a kind.
    pub fn promise(&self, values: Values) -> Promise {
        match self.exactness {
            Exactness::Reassociate if values == Values::Extreme && self.allows.contains(&Allowance::Range) => {
                Promise::Type
            }
            Exactness::Approximate if values != Values::Plain => Promise::Type,
            exactness => Promise::ordinary(exactness, &self.allows),
        }
    }
}

/// Evaluates a graph and compares two of its values.
///
/// # Errors
/// How they differ by more than they may, or why the graph cannot be evaluated.
pub fn sides(promise: Promise, g: &mut Graph, left: Value, right: Value, inputs: &[Tensor]) -> Result<(), Difference> {
    // All intermediate results tell how far rounding may go.
    let all = (0..g.values.len() as u32).map(Value);
    let values: Vec<Value> = [left, right].into_iter().chain(all).collect();
    g.outputs = values.iter().map(|v| (String::new(), *v)).collect();
    let results = g.eval(inputs).map_err(|e| e.to_string());
    g.outputs = vec![("left".into(), left), ("right".into(), right)];
    let whole = |text| Difference { text, tolerance: None };
    let results = results.map_err(whole)?;
    let (a, b) = (&results[0], &results[1]);
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        let ty = |t: &Tensor| format!("{}{:?}", t.dtype(), t.shape());
        return Err(whole(format!("left {}, right {}", ty(a), ty(b))));
    }
    let largest = || {
        let finite = a.iter().map(|x| x.f64().abs()).filter(|x| x.is_finite());
        finite.fold(0.0, f64::max)
    };
    let (difference, tolerance) = match promise {
        _ if !a.dtype().is_float() => (bits(a, b), None),
        Promise::Bits => (bits(a, b), None),
        Promise::Rounding { signed_zeros } => {
            let tolerance = rounding(g, &results);
            match near(a, b, tolerance, signed_zeros) {
                // Two zeros are apart by nothing but their bits.
                Some((i, text)) if a.get(i).f64() == b.get(i).f64() => (Some(text), None),
                found => (found.map(|(_, text)| text), Some(tolerance / largest())),
            }
        }
        Promise::Roughly => {
            let tolerance = 1e-3 * f64::max(1.0, largest());
            let differs = |i: &usize| (a.get(*i).f64() - b.get(*i).f64()).abs() > tolerance;
            let found = (0..a.len()).find(differs).map(|i| element(a, b, i));
            (found, Some(tolerance / largest()))
        }
        Promise::Type => (None, None),
    };
    let tolerance = tolerance.filter(|t| t.is_finite());
    difference.map_or(Ok(()), |text| Err(Difference { text, tolerance }))
}

/// The first element whose bits differ; NaN equals NaN.
pub fn bits(a: &Tensor, b: &Tensor) -> Option<String> {
    let same = |i: usize| {
        let (x, y) = (a.get(i), b.get(i));
        x.f64().is_nan() && y.f64().is_nan() || (x == y && x.f64().is_sign_negative() == y.f64().is_sign_negative())
    };
    (0..a.len()).find(|&i| !same(i)).map(|i| element(a, b, i))
}

/// The first element of which one side is NaN or infinite and the other is not so, is a zero of the other sign, or is
/// farther away than it may.
fn near(a: &Tensor, b: &Tensor, tolerance: f64, signed_zeros: bool) -> Option<(usize, String)> {
    let same = |i: usize| {
        let (x, y) = (a.get(i).f64(), b.get(i).f64());
        if x == 0.0 && y == 0.0 {
            return !signed_zeros || x.is_sign_negative() == y.is_sign_negative();
        }
        x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tolerance
    };
    (0..a.len())
        .find(|&i| !same(i))
        .map(|i| (i, format!("{} (may differ by {tolerance:e})", element(a, b, i))))
}

fn element(a: &Tensor, b: &Tensor, i: usize) -> String {
    format!("element {i}: left {}, right {}", shown(a.get(i)), shown(b.get(i)))
}

/// How far two ways to compute the same may be apart: a unit in the last place of the largest value on the way for every
/// rounding. `results` are those of `left`, of `right`, and of every value of the graph.
fn rounding(g: &Graph, results: &[Tensor]) -> f64 {
    let values = &results[2..];
    let mut unit = 0.0f64;
    let mut largest = f64::MIN_POSITIVE;
    for t in values.iter().filter(|t| t.dtype().is_float()) {
        unit = unit.max(match t.dtype() {
            DType::F64 => f64::EPSILON,
            DType::F32 => f32::EPSILON as f64,
            DType::F16 => 1.0 / 1024.0,
            _ => 1.0 / 128.0,
        });
        let finite = t.iter().map(|x| x.f64().abs()).filter(|x| x.is_finite());
        largest = finite.fold(largest, f64::max);
    }
    let steps = g.values.iter().enumerate().map(|(v, info)| match info.def {
        Def::Node(n, _) => roundings(g, n as usize, v),
        _ => 0.0,
    });
    unit * largest * steps.sum::<f64>()
}

/// The roundings of a node, in units in the last place.
fn roundings(g: &Graph, node: usize, value: usize) -> f64 {
    /// A sum of more terms than this rounds no worse: errors average out.
    const MOST_TERMS: usize = 64;
    let node = &g.nodes[node];
    match node.op.role() {
        Role::Map(f) => {
            let double = g.values[value].ty.dtype == DType::F64;
            return 1.0 + if double { f.bound.f64 } else { f.bound.f32 };
        }
        role if role.only_moves() => return 0.0,
        _ => {}
    }
    let terms = node.inputs.iter().filter_map(|v| g.ty(*v).len().as_const()).max();
    8.0 + terms.map_or(MOST_TERMS, |n| (n as usize).min(MOST_TERMS)) as f64
}
