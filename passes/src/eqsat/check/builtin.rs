//! The check of what rewrites without being text.

use super::counterexample::Counterexample;
use super::instance::is_varied;
use super::{Check, Report, Verdict, compare, values_of};
use crate::eqsat::build::build;
use crate::eqsat::generate::Source;
use crate::eqsat::lang::splat_constant;
use crate::eqsat::rules::{Allowance, Rule};
use brolga_ir::ops::{self, OpDef, Sample};
use brolga_ir::{ConstData, Constant, Graph, GraphBuilder, Op, Type, Value};

/// Instances of each sample of an operator.
const ROUNDS: usize = 12;

/// Checks the built-in rule `decompose`: every operator that has a decomposition, in the forms of its samples.
pub(super) fn check_decompositions(rule: &Rule, check: Check) -> Report {
    let mut report = Report::new(rule);
    for (def, sample) in samples() {
        for round in 0..ROUNDS {
            report.attempts += 1;
            let mut draw = Source::new(check.seed ^ (report.attempts as u64) << 20, values_of(round, false));
            match decomposition(rule, def, &sample, &mut draw) {
                Ok(None) => break,
                Ok(Some((g, left))) => {
                    let ty = g.ty(left);
                    report.agreed(is_varied(&g), ty.dtype, ty.rank());
                }
                Err(found) => {
                    report.verdict = Verdict::Wrong(found);
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

/// One instance of a decomposition, with its first left side: `None` when the operator has none.
fn decomposition(
    rule: &Rule,
    def: &dyn OpDef,
    sample: &Sample,
    draw: &mut Source,
) -> Result<Option<(Graph, Value)>, Box<Counterexample>> {
    let mut g = Graph::new("instance");
    let (mut values, mut inputs) = (vec![], vec![]);
    let finite = rule.allows.contains(&Allowance::FiniteWeights);
    for (dtype, shape) in &sample.inputs {
        let ty = Type::fixed(*dtype, shape);
        // The operands behind the first are parameters.
        let x = draw.tensor(&ty, finite && !inputs.is_empty());
        inputs.push(x.expect("a sample is small"));
        values.push(g.input(&format!("x{}", inputs.len()), ty));
    }
    let op = Op::new(def.name(), &sample.attrs).expect("a sample's attributes are valid");
    let left = g.add(op.clone(), &values, &"left".into()).expect("so are its operands");
    let instance = g.clone();
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "right".into(),
    };
    let wrong = |e| Box::new(Counterexample::without_right(&instance, left[0], &inputs, e));
    let Some(right) = def.decompose(&op, &mut b, &values).map_err(wrong)? else {
        return Ok(None);
    };
    for (l, r) in left.iter().zip(right) {
        compare::sides(rule.promise(draw.values), &mut g, *l, r, &inputs)
            .map_err(|difference| Counterexample::new(&g, *l, r, &inputs, difference))?;
    }
    Ok(Some((g, left[0])))
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
            let mut draw = Source::new(seed ^ (k as u64) << 32 ^ round, values_of(round as usize, false));
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
                return Err(format!("{}: {}\n{g}", def.name(), e));
            }
        }
    }
    Ok(folded)
}
