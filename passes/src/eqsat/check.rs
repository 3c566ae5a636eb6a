//! The automatic check of rules: every rule is instantiated with random types, attributes and values, both sides are
//! evaluated by the reference interpreter, and the results compared by what the rule's class promises ([`compare`]).
//!
//! An instance is made by walking the left side: operands first, with a wanted type where one is known (the second operand
//! of an addition has the type of the first), attributes drawn so that they fit. Then the rule itself is matched in the
//! e-graph of that instance, so conditions and right sides go the way that they go in a compilation; every match at the
//! left side is compared. Instances that the conditions refuse are thrown away; a rule for which too few remain counts as
//! unchecked. Half of the instances have ordinary values, a quarter zeros of both signs, infinities and NaN, a quarter huge
//! and tiny ones.
//!
//! What rewrites without being text is checked here too: the decompositions of operators ([`check_decompositions`]) and
//! the folding of what is one number everywhere ([`check_splats`]).

use super::apply::{NewTerm, Ref, Refusal, Replacement, replacement};
use super::build::{build, rebuild};
use super::generate::{Generator, Source, Values};
use super::lang::{EGraph, Term, splat_constant};
use super::matching::matches_at;
use super::rules::{Allowance, Law, Rule, RuleSet};
use super::saturate::{Limits, saturate};
use brolga_ir::ops::{self, OpDef, Sample};
use brolga_ir::{Attr, ConstData, Constant, DType, Def, Graph, GraphBuilder, Op, Tensor, Type, Value};
use egg::Id;
use rustc_hash::FxHashMap;
use std::sync::Arc;

pub mod compare;

/// Instances that a rule has to pass.
pub const INSTANCES: usize = 100;

/// Attempts at an instance before a rule counts as unreachable.
const ATTEMPTS: usize = 40_000;

/// Attempts without any instance after which the rest are spared.
const HOPELESS: usize = 4_000;

/// What the check of a rule found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It passed every instance.
    Sound,
    /// It is wrong: a counterexample, or the reason.
    Wrong(String),
    /// It could not be checked: the reason.
    Unknown(String),
}

/// The report on a rule.
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
    /// The dtypes of the results of the instances, sorted.
    pub dtypes: Vec<DType>,
    /// What was found.
    pub verdict: Verdict,
}

impl Report {
    /// The report on a rule of which no instance has been tried.
    fn new(rule: &Rule) -> Report {
        Report {
            rule: rule.name.clone(),
            accepted: 0,
            attempts: 0,
            varied: false,
            dtypes: vec![],
            verdict: Verdict::Sound,
        }
    }
}

/// Checks every rule of a set, `decompose` included.
pub fn check_rules(set: &RuleSet, seed: u64) -> Vec<Report> {
    set.rules.iter().map(|r| check_rule(r, seed)).collect()
}

/// The values of the n-th instance.
fn values_of(n: usize) -> Values {
    [Values::Plain, Values::Special, Values::Plain, Values::Extreme][n % 4]
}

/// Checks one rule.
pub fn check_rule(rule: &Rule, seed: u64) -> Report {
    let Some(law) = &rule.law else {
        return check_decompositions(rule, seed);
    };
    let mut report = Report::new(rule);
    let fuse = RuleSet::parse("fusion.rules", "rule fuse [exact] (load (store ?s)) => ?s").expect("it is a rule");
    let mut made = 0;
    while report.accepted < INSTANCES && report.attempts < ATTEMPTS && (made > 0 || report.attempts < HOPELESS) {
        let seed = seed ^ (report.attempts as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut generator = Generator::new(seed, values_of(report.accepted), rule, law);
        report.attempts += 1;
        match attempt(rule, law, &mut generator, &fuse) {
            Ok(Outcome::NotMade) => {}
            Ok(Outcome::NoMatch) => made += 1,
            Ok(Outcome::Agrees { varied, dtype }) => {
                made += 1;
                report.accepted += 1;
                report.varied |= varied;
                if let Err(at) = report.dtypes.binary_search(&dtype) {
                    report.dtypes.insert(at, dtype);
                }
            }
            Err(e) => {
                report.verdict = Verdict::Wrong(e);
                return report;
            }
        }
    }
    if report.accepted < INSTANCES {
        report.verdict = Verdict::Unknown(if made == 0 {
            format!(
                "no instance of its left side could be made in {} attempts",
                report.attempts
            )
        } else {
            format!(
                "it matched only {} of {} instances of its left side, expected {INSTANCES}; do its conditions ever hold?",
                report.accepted, made
            )
        });
    }
    report
}

/// What came of an attempt at an instance.
enum Outcome {
    NotMade,
    NoMatch,
    Agrees { varied: bool, dtype: DType },
}

fn attempt(rule: &Rule, law: &Law, make: &mut Generator, fuse: &RuleSet) -> Result<Outcome, String> {
    let Some((mut g, left)) = make.instance(law) else {
        return Ok(Outcome::NotMade);
    };
    g.outputs.push(("left".into(), left));
    let mut built = build(&g)?;
    if rule.name != "fuse" {
        let limits = Limits {
            iters: 4,
            nodes: 10_000,
        };
        saturate(&mut built.eg, fuse, limits).map_err(|e| e.to_string())?;
    }
    let eg = &built.eg;
    // The stream of the left side.
    let tensor = eg.find(built.roots[0]);
    let Some(stream) = eg[tensor].nodes.iter().find_map(|t| match t {
        Term::Store([s]) => Some(eg.find(*s)),
        _ => None,
    }) else {
        return Ok(Outcome::NoMatch);
    };
    let root = if rule.name == "fuse" {
        eg.lookup(Term::Load([tensor]))
    } else {
        Some(stream)
    };
    // Where a compilation looks for no matches: a number is emitted as a constant, whatever its terms.
    let Some(root) = root.filter(|&r| eg[r].data.splat.is_none()) else {
        return Ok(Outcome::NoMatch);
    };
    let classes = values_of_classes(&g, &built.tensors, eg);
    let inputs = make.inputs();
    let mut replacements = vec![];
    for m in matches_at(eg, law, root).all {
        let made = match replacement(eg, law, root, &m) {
            Ok(r) => r,
            Err(Refusal::NoMatch) => continue,
            Err(Refusal::Wrong(e)) => return Err(format!("{e}\n{}", describe(&g))),
        };
        let mut both = g.clone();
        let right = add_to_graph(&mut both, eg, &made, &classes)?;
        compare::sides(rule.promise(make.values()), &mut both, left, right, &inputs).map_err(|e| {
            let shown: Vec<String> = inputs.iter().map(|t| format!("{t:?}")).collect();
            format!("{e}\n{}inputs: {}", describe(&both), shown.join("; "))
        })?;
        replacements.push(made);
    }
    if replacements.is_empty() {
        return Ok(Outcome::NoMatch);
    }
    // The rule fires: its right sides are in the class of the left.
    let mut eg = built.eg;
    for made in replacements {
        let id = made.add_to(&mut eg);
        eg.union(root, id);
    }
    rebuild(&mut eg);
    match eg.analysis.failure.take() {
        Some(e) => Err(format!("{e}\n{}", describe(&g))),
        None => Ok(Outcome::Agrees {
            varied: is_varied(&g),
            dtype: g.ty(left).dtype,
        }),
    }
}

/// Checks the built-in rule `decompose`: every operator that has a decomposition, in the forms of its samples.
pub fn check_decompositions(rule: &Rule, seed: u64) -> Report {
    const ROUNDS: usize = 12;
    let mut report = Report::new(rule);
    for (def, sample) in samples() {
        for round in 0..ROUNDS {
            report.attempts += 1;
            let mut draw = Source::new(seed ^ (report.attempts as u64) << 20, values_of(round));
            match decomposition(rule, def, &sample, &mut draw) {
                Ok(None) => break,
                Ok(Some(varied)) => {
                    report.accepted += 1;
                    report.varied |= varied;
                }
                Err(e) => {
                    report.verdict = Verdict::Wrong(format!("{}: {e}", def.name()));
                    return report;
                }
            }
        }
    }
    report
}

/// Every operator that may be a kernel, in each of its samples' forms.
fn samples() -> impl Iterator<Item = (&'static dyn OpDef, Sample)> {
    let kernels = ops::all().iter().filter(|d| !d.role().is_opaque());
    kernels.flat_map(|d| d.samples().into_iter().map(move |s| (*d, s)))
}

/// One instance of a decomposition: `None` when the operator has none.
fn decomposition(rule: &Rule, def: &dyn OpDef, sample: &Sample, draw: &mut Source) -> Result<Option<bool>, String> {
    let op = Op::new(def.name(), &sample.attrs)?;
    let mut g = Graph::new("instance");
    let (mut values, mut inputs) = (vec![], vec![]);
    let finite = rule.allows.contains(&Allowance::FiniteWeights);
    for (dtype, shape) in &sample.inputs {
        let ty = Type::fixed(*dtype, shape);
        // The operands behind the first are parameters.
        inputs.push(
            draw.tensor(&ty, finite && !inputs.is_empty())
                .ok_or("a sample is too large")?,
        );
        values.push(g.input(&format!("x{}", inputs.len()), ty));
    }
    let left = g.add(op.clone(), &values, &"left".into()).map_err(|e| e.to_string())?;
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "right".into(),
    };
    let Some(right) = def.decompose(&op, &mut b, &values)? else {
        return Ok(None);
    };
    for (l, r) in left.iter().zip(right) {
        compare::sides(rule.promise(draw.values), &mut g, *l, r, &inputs).map_err(|e| {
            let shown: Vec<String> = inputs.iter().map(|t| format!("{t:?}")).collect();
            format!("{e}\n{}inputs: {}", describe(&g), shown.join("; "))
        })?;
    }
    Ok(Some(is_varied(&g)))
}

/// Checks what the e-graph takes for one number everywhere: every operator on operands that are numbers, against its own
/// evaluation, bit for bit. Gives the number of instances that folded.
///
/// # Errors
/// The first difference.
pub fn check_splats(seed: u64) -> Result<usize, String> {
    const ROUNDS: u64 = 24;
    let mut folded = 0;
    for (k, (def, sample)) in samples().enumerate() {
        for round in 0..ROUNDS {
            let mut draw = Source::new(seed ^ (k as u64) << 32 ^ round, values_of(round as usize));
            let op = Op::new(def.name(), &sample.attrs)?;
            let mut g = Graph::new("instance");
            let operands: Vec<Value> = sample
                .inputs
                .iter()
                .map(|(dtype, shape)| {
                    let ty = Type::fixed(*dtype, shape);
                    let x = draw.number(*dtype, false);
                    g.constant(Constant {
                        ty,
                        data: ConstData::Splat(x),
                    })
                })
                .collect();
            let outs = g.add(op, &operands, &"node".into()).map_err(|e| e.to_string())?;
            g.outputs.push(("y".into(), outs[0]));
            let built = build(&g)?;
            let Some(x) = built.eg[built.roots[0]].data.splat else {
                continue;
            };
            folded += 1;
            let found = splat_constant(g.ty(outs[0]), x).to_tensor();
            // Operators on indices refuse some of these.
            let Ok(wanted) = g.eval(&[]) else { continue };
            if let Some(e) = compare::bits(&wanted[0], &found) {
                return Err(format!("{}: {e}\n{}", def.name(), describe(&g)));
            }
        }
    }
    Ok(folded)
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
