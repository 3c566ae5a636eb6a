//! The automatic check of rules: every rule is instantiated with random types, attributes and values, both sides are
//! evaluated by the reference interpreter, and the results compared.
//!
//! An instance is made by walking the left side: operands first, with a wanted type where one is known (the second operand
//! of an addition has the type of the first), attributes drawn so that they fit. Then the rule itself is matched in the
//! e-graph of that instance, so conditions and right sides go the way that they go in a compilation. Instances that the
//! conditions refuse are thrown away; a rule for which too few remain is reported, as is one that gives another result.

use super::apply::{NewTerm, Ref, Refusal, Replacement, replacement};
use super::build::{build, rebuild};
use super::generate::Generator;
use super::lang::{EGraph, Term, splat_constant};
use super::matching::matches_at;
use super::rules::{Exactness, Law, Rule, RuleSet};
use super::saturate::{Limits, saturate};
use brolga_ir::{Attr, Def, Graph, Op, Tensor, Value};
use egg::Id;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Instances that a rule has to pass.
pub const INSTANCES: usize = 100;

/// Attempts at an instance before a rule counts as unreachable.
const ATTEMPTS: usize = 40_000;

/// The largest error of a `reassociate` rule, over the largest magnitude of the result.
const TOLERANCE: f64 = 2e-4;

/// What the check of a rule found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rule.
    pub rule: String,
    /// Instances that matched and agreed.
    pub accepted: usize,
    /// Attempts made.
    pub attempts: usize,
    /// True when an instance had rank 3 or more, an extent of 1, and extents that differ.
    pub varied: bool,
    /// The counterexample or the reason of failure, as text.
    pub failure: Option<String>,
}

/// Checks every rule of a set.
pub fn check_rules(set: &RuleSet, seed: u64) -> Vec<Report> {
    set.rules
        .iter()
        .filter(|r| !r.is_decompose())
        .map(|r| check_rule(r, seed))
        .collect()
}

/// Checks one rule.
pub fn check_rule(rule: &Rule, seed: u64) -> Report {
    let mut report = Report {
        rule: rule.name.clone(),
        accepted: 0,
        attempts: 0,
        varied: false,
        failure: None,
    };
    let Some(law) = &rule.law else { return report };
    let fuse = RuleSet::parse("fusion.rules", "rule fuse [exact] (load (store ?s)) => ?s").expect("it is a rule");
    while report.accepted < INSTANCES && report.attempts < ATTEMPTS {
        let mut generator = Generator::new(
            seed ^ (report.attempts as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            rule.exactness,
        );
        report.attempts += 1;
        match attempt(rule, law, &mut generator, &fuse) {
            Ok(None) => {}
            Ok(Some(varied)) => {
                report.accepted += 1;
                report.varied |= varied;
            }
            Err(e) => {
                report.failure = Some(e);
                return report;
            }
        }
    }
    if report.accepted < INSTANCES {
        report.failure = Some(format!(
            "only {} instances in {} attempts, expected {INSTANCES}",
            report.accepted, report.attempts
        ));
    }
    report
}

/// One instance: `None` when it was not made or the rule refused it, otherwise whether it was varied.
fn attempt(rule: &Rule, law: &Law, make: &mut Generator, fuse: &RuleSet) -> Result<Option<bool>, String> {
    let Some((mut g, left)) = make.instance(law) else {
        return Ok(None);
    };
    g.outputs.push(("left".into(), left));
    let mut built = build(&g)?;
    if rule.name != "fuse" {
        saturate(
            &mut built.eg,
            fuse,
            Limits {
                iters: 4,
                nodes: 10_000,
            },
        )
        .map_err(|e| e.to_string())?;
    }
    let eg = &built.eg;
    // The stream of the left side.
    let tensor = eg.find(built.outputs[0]);
    let Some(stream) = eg[tensor].nodes.iter().find_map(|t| match t {
        Term::Store([s]) => Some(eg.find(*s)),
        _ => None,
    }) else {
        return Ok(None);
    };
    let root = if rule.name == "fuse" {
        eg.lookup(Term::Load([tensor]))
    } else {
        Some(stream)
    };
    let Some(root) = root else { return Ok(None) };
    for m in matches_at(eg, law, root) {
        let made = match replacement(eg, law, root, &m) {
            Ok(r) => r,
            Err(Refusal::NoMatch) => continue,
            Err(Refusal::Wrong(e)) => return Err(format!("{e}\n{}", describe(&g))),
        };
        let classes = values_of_classes(&g, &built.tensors, eg);
        let mut both = g.clone();
        let right = add_to_graph(&mut both, eg, &made, &classes)?;
        both.outputs.push(("right".into(), right));
        let inputs = make.inputs();
        let results = both.eval(&inputs).map_err(|e| format!("{e}\n{}", describe(&both)))?;
        if let Some(e) = differ(rule.exactness, &results[0], &results[1]) {
            let shown: Vec<String> = inputs.iter().map(|t| format!("{t:?}")).collect();
            return Err(format!("{e}\n{}inputs: {}", describe(&both), shown.join("; ")));
        }
        // The rule fires: its right side is in the class of the left.
        let mut eg = built.eg;
        let id = made.add_to(&mut eg);
        eg.union(root, id);
        rebuild(&mut eg);
        return match eg.analysis.failure.take() {
            Some(e) => Err(format!("{e}\n{}", describe(&g))),
            None => Ok(Some(is_varied(&g))),
        };
    }
    Ok(None)
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

fn add_to_graph(g: &mut Graph, eg: &EGraph, r: &Replacement, classes: &FxHashMap<Id, Value>) -> Result<Value, String> {
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
                Some(g.dense(Tensor::scalar(*dtype, super::lang::scalar_value(*dtype, *bits))))
            }
            NewTerm::Number(_) => None,
            NewTerm::Op(op, operands) => {
                let operands: Result<Vec<Value>, String> = operands.iter().map(|r| of(g, &values, r)).collect();
                Some(g.add(op.clone(), &operands?, &origin).map_err(|e| e.to_string())?[0])
            }
        });
    }
    of(g, &values, &r.root)
}

/// How two results differ, when they do by more than a class of rules may.
fn differ(class: Exactness, a: &Tensor, b: &Tensor) -> Option<String> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Some(format!(
            "left {}{:?}, right {}{:?}",
            a.dtype(),
            a.shape(),
            b.dtype(),
            b.shape()
        ));
    }
    if class == Exactness::Exact || !a.dtype().is_float() {
        let same = |i: usize| {
            let (x, y) = (a.get(i), b.get(i));
            x.f64().is_nan() && y.f64().is_nan() || (x == y && x.f64().is_sign_negative() == y.f64().is_sign_negative())
        };
        let at = (0..a.len()).find(|&i| !same(i))?;
        return Some(format!("element {at}: left {:?}, right {:?}", a.get(at), b.get(at)));
    }
    let scale = a
        .iter()
        .map(|x| x.f64().abs())
        .filter(|x| x.is_finite())
        .fold(1.0f64, f64::max);
    let tolerance = match a.dtype() {
        brolga_ir::DType::F16 => 1e-2,
        brolga_ir::DType::BF16 => 6e-2,
        _ => TOLERANCE,
    };
    let near = |x: f64, y: f64| {
        x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * scale || (!x.is_finite() && !y.is_finite())
    };
    let at = (0..a.len()).find(|&i| !near(a.get(i).f64(), b.get(i).f64()))?;
    Some(format!("element {at}: left {:?}, right {:?}", a.get(at), b.get(at)))
}

/// True when the instance has rank 3 or more somewhere, an extent of 1, and extents that differ.
fn is_varied(g: &Graph) -> bool {
    let shapes: Vec<Vec<i64>> = g
        .values
        .iter()
        .map(|v| v.ty.shape.iter().filter_map(|d| d.as_const()).collect())
        .collect();
    shapes.iter().any(|s| s.len() >= 3)
        && shapes.iter().any(|s| s.contains(&1))
        && shapes.iter().any(|s| s.iter().any(|d| *d != s[0]))
}

/// The instance as text.
fn describe(g: &Graph) -> String {
    let mut out = String::new();
    for (i, v) in g.values.iter().enumerate() {
        let def = match v.def {
            Def::Input(k) => format!("input {k}"),
            Def::Const(k) => format!("constant {:?}", g.constants[k as usize].to_tensor()),
            Def::Node(n, _) => {
                let node = &g.nodes[n as usize];
                format!("{}{} {:?}", node.op.name(), attributes(&node.op), node.inputs)
            }
        };
        out += &format!("  %{i}: {} = {def}\n", v.ty);
    }
    for (name, v) in &g.outputs {
        out += &format!("  {name} = {v}\n");
    }
    out
}

fn attributes(op: &Op) -> String {
    let one = |((name, _), a): (&(&'static str, brolga_ir::ops::AttrKind), &Attr)| match a {
        Attr::Num(_) | Attr::Whole(_) => format!("{name}: {a}"),
        a => format!("{name}: {a:?}"),
    };
    let all: Vec<String> = op.def().attrs().iter().zip(op.attrs()).map(one).collect();
    format!("{{{}}}", all.join(", "))
}
