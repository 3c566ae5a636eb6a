//! One instance of a rule: the rule is matched in its e-graph, and both sides of every match are compared.

use super::compare;
use super::counterexample::Counterexample;
use crate::eqsat::apply::{NewTerm, Ref, Refusal, Replacement, replacement};
use crate::eqsat::build::{Built, build, rebuild};
use crate::eqsat::generate::Instance;
use crate::eqsat::lang::{EGraph, Term, dense_constant, scalar_value, splat_constant};
use crate::eqsat::matching::{MOST, matches_at};
use crate::eqsat::rules::{Law, Pat, Rule, RuleSet};
use crate::eqsat::saturate::{Limits, saturate};
use brolga_ir::{DType, Graph, Tensor, Value};
use egg::Id;
use rustc_hash::FxHashMap;
use std::sync::{Arc, LazyLock};

/// What came of an instance.
pub(super) enum Outcome {
    /// The rule does not match.
    NoMatch,
    /// The sides agree, whose result has this dtype and rank.
    Agrees { varied: bool, dtype: DType, rank: usize },
}

/// The only rule beside the one that is checked: fusion.
static FUSE: LazyLock<RuleSet> = LazyLock::new(|| {
    RuleSet::parse("fusion.rules", "rule fuse [exact] (load (store ?s)) => ?s").expect("it is a rule")
});

/// The e-graph of an instance, in which a rule is matched.
pub(super) struct Prepared {
    /// The graph, with the left sides as outputs.
    pub graph: Graph,
    built: Built,
    /// The streams of the left sides.
    roots: Vec<Id>,
}

/// Builds the e-graph of an instance; `None` where a compilation looks for no matches: a number is emitted as a constant, whatever
/// its terms.
///
/// # Errors
/// Why the e-graph cannot be built.
pub(super) fn prepare(law: &Law, instance: &Instance) -> Result<Option<Prepared>, String> {
    let mut graph = instance.graph.clone();
    graph.outputs = instance.lefts.iter().map(|v| (String::new(), *v)).collect();
    let mut built = build(&graph)?;
    let fuses = |left: &Pat| matches!(left, Pat::Load(_));
    if !law.sides.iter().any(|s| fuses(&s.left)) {
        let limits = Limits {
            iters: 4,
            nodes: 10_000,
            rewrites: usize::MAX,
        };
        saturate(&mut built.eg, &FUSE, limits).map_err(|e| e.to_string())?;
    }
    let eg = &built.eg;
    let mut roots = vec![];
    for (side, tensor) in law.sides.iter().zip(&built.roots) {
        let tensor = eg.find(*tensor);
        let root = match fuses(&side.left) {
            true => eg.lookup(Term::Load([tensor])),
            false => eg[tensor].nodes.iter().find_map(|t| match t {
                Term::Store([s]) => Some(eg.find(*s)),
                _ => None,
            }),
        };
        let Some(root) = root.filter(|&r| eg[r].data.splat.is_none()) else {
            return Ok(None);
        };
        roots.push(root);
    }
    Ok(Some(Prepared { graph, built, roots }))
}

impl Prepared {
    /// The right sides of every match at the left sides.
    ///
    /// # Errors
    /// Why a right side cannot be made.
    pub fn replacements(&self, law: &Law) -> Result<Vec<Replacement>, String> {
        let mut all = vec![];
        for m in matches_at(&self.built.eg, law, 0, self.roots[0], MOST).all {
            if m.roots[..] != self.roots[..] {
                continue;
            }
            match replacement(&self.built.eg, law, &m) {
                Ok(r) => all.push(r),
                Err(Refusal::NoMatch) => {}
                Err(Refusal::Wrong(e)) => return Err(e),
            }
        }
        Ok(all)
    }
}

/// Tells of the right sides that a rule makes whether they need no comparison.
pub(super) type Known<'a> = dyn FnMut(&Prepared, &[Replacement]) -> bool + 'a;

/// Matches a rule in an instance and compares both sides of every match.
pub(super) fn attempt(
    rule: &Rule,
    law: &Law,
    instance: &Instance,
    known: &mut Known,
) -> Result<Outcome, Box<Counterexample>> {
    let wrong = |why: String| {
        let left = instance.lefts[0];
        Box::new(Counterexample::without_right(
            &instance.graph,
            left,
            &instance.inputs,
            why,
        ))
    };
    let Some(prepared) = prepare(law, instance).map_err(wrong)? else {
        return Ok(Outcome::NoMatch);
    };
    let replacements = prepared.replacements(law).map_err(wrong)?;
    if replacements.is_empty() {
        return Ok(Outcome::NoMatch);
    }
    let agrees = |g: &Graph| {
        let ty = g.ty(instance.lefts[0]);
        Outcome::Agrees {
            varied: is_varied(g),
            dtype: ty.dtype,
            rank: ty.rank(),
        }
    };
    if known(&prepared, &replacements) {
        return Ok(agrees(&prepared.graph));
    }
    let Prepared { graph: g, built, roots } = prepared;
    let classes = values_of_classes(&g, &built.tensors, &built.eg);
    for made in &replacements {
        let mut both = g.clone();
        let rights = add_to_graph(&mut both, &built.eg, made, &classes).map_err(wrong)?;
        for (&left, right) in instance.lefts.iter().zip(rights) {
            let promise = rule.promise(instance.values);
            compare::sides(promise, &mut both, left, right, &instance.inputs)
                .map_err(|difference| Counterexample::new(&both, left, right, &instance.inputs, difference))?;
        }
    }
    // The rule fires: its right sides are in the classes of the left ones.
    let mut eg = built.eg;
    for made in replacements {
        let ids = made.add_to(&mut eg);
        for (&root, id) in roots.iter().zip(ids) {
            eg.union(root, id);
        }
    }
    rebuild(&mut eg);
    match eg.analysis.failure.take() {
        Some(e) => Err(wrong(e)),
        None => Ok(agrees(&g)),
    }
}

/// A value for every class that a graph's values are in.
fn values_of_classes(g: &Graph, tensors: &[Id], eg: &EGraph) -> FxHashMap<Id, Value> {
    let mut out = FxHashMap::default();
    for (i, &t) in tensors.iter().enumerate() {
        let t = eg.find(t);
        let v = Value(i as u32);
        out.entry(t).or_insert(v);
        for term in &eg[t].nodes {
            if let Term::Store([s]) = term {
                out.entry(eg.find(*s)).or_insert(v);
            }
        }
        if let Some(load) = eg.lookup(Term::Load([t])) {
            out.entry(eg.find(load)).or_insert(v);
        }
    }
    debug_assert!(g.values.len() == tensors.len());
    out
}

/// Adds the right sides to a graph; gives the value of each.
fn add_to_graph(
    g: &mut Graph,
    eg: &EGraph,
    r: &Replacement,
    classes: &FxHashMap<Id, Value>,
) -> Result<Vec<Value>, String> {
    let needed = r.needed();
    let mut values: Vec<Option<Value>> = vec![];
    let origin: Arc<str> = "right".into();
    let of = |g: &mut Graph, values: &[Option<Value>], r: &Ref| match r {
        Ref::Class(id) => match (classes.get(&eg.find(*id)), &eg[*id].data) {
            (Some(v), _) => Ok(*v),
            // The e-graph's own form of a number.
            (None, d) if d.splat.is_some() => Ok(g.constant(splat_constant(d.ty(), d.splat.expect("it is a splat")))),
            _ => Err("a class that no value of the instance is in".to_string()),
        },
        Ref::New(i) => values[*i].ok_or("a term that was left out".to_string()),
    };
    for (i, (term, _)) in r.new.terms.iter().enumerate() {
        values.push(match term {
            _ if !needed[i] => None,
            NewTerm::Number(Term::Scalar(dtype, bits)) => {
                Some(g.dense(Tensor::scalar(*dtype, scalar_value(*dtype, *bits))))
            }
            NewTerm::Number(_) => None,
            NewTerm::Dense(x) => Some(g.constant(dense_constant(x.clone()))),
            NewTerm::Op(op, operands) => {
                let operands: Result<Vec<Value>, String> = operands.iter().map(|r| of(g, &values, r)).collect();
                Some(g.add(op.clone(), &operands?, &origin).map_err(|e| e.to_string())?[0])
            }
        });
    }
    r.roots.iter().map(|root| of(g, &values, root)).collect()
}

/// True when the instance has rank 3 or more somewhere, an extent of 1, and extents that differ.
pub(super) fn is_varied(g: &Graph) -> bool {
    let shapes: Vec<Vec<i64>> = g
        .values
        .iter()
        .map(|v| v.ty.shape.iter().filter_map(|d| d.as_const()).collect())
        .collect();
    shapes.iter().any(|s| s.len() >= 3)
        && shapes.iter().any(|s| s.contains(&1))
        && shapes.iter().any(|s| s.iter().any(|d| *d != s[0]))
}
