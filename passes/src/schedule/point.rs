//! All stages at one point of the outer domain, or at as many points as lanes, each in order.

use super::flat::{Flat, FlatStage, Target};
use super::nest::{Domain, Home, Nest, Point};
use super::sums::{self, on_lanes};
use brolga_ir::DType;
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::{Expr, Stmt};
use brolga_ir::scalar::Body;
use brolga_ir::structured::IterKind;

/// Checks that stages can run point by point.
///
/// # Errors
/// When the stages cannot run point by point.
pub fn check(flat: &Flat) -> Result<(), String> {
    if flat.stages.iter().any(|s| s.scatter) {
        return Err("a scatter runs in order".into());
    }
    if let Some(i) = (0..flat.locals.len()).find(|&i| !flat.locals[i].shape.is_empty() && flat.is_written(i)) {
        return Err(format!("l{i} is a row, which a point cannot keep"));
    }
    let mixed = |s: &FlatStage| s.dims.iter().any(|(_, d)| d.kind == IterKind::Parallel) && s.reduces();
    match flat.stages.iter().position(mixed) {
        Some(i) => Err(format!("stage {i} has several results of a reduction at one point")),
        None => Ok(()),
    }
}

/// All stages at a point (or at `lanes` points); at several such places side by side, the loops of a reduction then run once.
pub fn stages(nest: &mut Nest, out: &mut Vec<Stmt>, lanes: u32, points: &[&Point]) {
    let flat = nest.flat;
    // Each place has its own registers for what stages keep.
    let mut homes = vec![nest.homes.clone(); points.len()];
    for stage in &flat.stages {
        if points.len() > 1 && stage.reduces() && !stage.scan && sums::is_plain(stage) {
            together(nest, out, stage, lanes, points, &mut homes);
            continue;
        }
        for (home, at) in homes.iter_mut().zip(points) {
            std::mem::swap(&mut nest.homes, home);
            one_stage(nest, out, stage, lanes, at);
            std::mem::swap(&mut nest.homes, home);
        }
    }
    nest.homes = homes.pop().expect("there is a point");
}

/// A stage that reduces, at several places: its loops with a step of each inside.
fn together(
    nest: &mut Nest,
    out: &mut Vec<Stmt>,
    stage: &FlatStage,
    lanes: u32,
    points: &[&Point],
    homes: &mut [Vec<Option<Home>>],
) {
    let combine = stage.combine.as_ref().expect("a reducing stage has a combiner");
    let accs: Vec<Vec<Reg>> = points.iter().map(|_| accumulators(nest, out, stage, lanes)).collect();
    let mut body = vec![];
    for ((home, at), accs) in homes.iter_mut().zip(points).zip(&accs) {
        std::mem::swap(&mut nest.homes, home);
        let values = nest.values(&mut body, stage, at);
        merge(nest, &mut body, &combine.body, accs, &values);
        std::mem::swap(&mut nest.homes, home);
    }
    out.extend(Nest::serial(&loops_of(stage), on_lanes(nest, lanes, body)));
    for ((home, at), accs) in homes.iter_mut().zip(points).zip(&accs) {
        std::mem::swap(&mut nest.homes, home);
        finish(nest, out, stage, accs, lanes, at);
        std::mem::swap(&mut nest.homes, home);
    }
}

fn loops_of(stage: &FlatStage) -> Vec<(Var, Ix)> {
    let dims = stage.dims.iter();
    dims.map(|(v, d)| (*v, Ix::constant(d.extent.clone()))).collect()
}

fn one_stage(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32, at: &Point) {
    let loops = loops_of(stage);
    if !stage.reduces() {
        let mut body = vec![];
        let reads = nest.reads(&mut body, stage, at);
        let values = nest.body(&mut body, &stage.body, &reads);
        let values = keep_lanes(nest, &mut body, stage, values, lanes);
        nest.writes(&mut body, stage, &values, &reads, at);
        out.extend(Nest::serial(&loops, on_lanes(nest, lanes, body)));
        return;
    }
    if stage.scan {
        return scan(nest, out, stage, lanes, at);
    }
    let combine = stage.combine.as_ref().expect("a reducing stage has a combiner");
    let accs = accumulators(nest, out, stage, lanes);
    let domain = Domain { loops: &loops, at };
    sums::reduce(nest, out, combine, &accs, lanes, domain, &mut |nest, accs, at| {
        let mut body = vec![];
        let values = nest.values(&mut body, stage, at);
        merge(nest, &mut body, &combine.body, accs, &values);
        on_lanes(nest, lanes, body)
    });
    finish(nest, out, stage, &accs, lanes, at);
}

/// A scan at a point (or at `lanes` points).
pub fn scan(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32, at: &Point) {
    let combine = stage.combine.as_ref().expect("a scan has a combiner");
    let accs = accumulators(nest, out, stage, lanes);
    let loops = loops_of(stage);
    let inside = |u: Var| {
        if loops.iter().any(|(v, _)| *v == u) {
            Ix::var(u)
        } else {
            at(u)
        }
    };
    let mut body = vec![];
    let values = nest.values(&mut body, stage, &inside);
    merge(nest, &mut body, &combine.body, &accs, &values);
    nest.writes(&mut body, stage, &accs, &[], &inside);
    out.extend(Nest::serial(&loops, on_lanes(nest, lanes, body)));
}

/// Scalars that a later stage reads are kept in registers with lanes.
fn keep_lanes(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, values: Vec<Reg>, lanes: u32) -> Vec<Reg> {
    if lanes == 1 {
        return values;
    }
    let mut keep = |nest: &mut Nest, (w, v): (&(Target, Ix), Reg)| match w.0 {
        Target::Local(l) if nest.flat.locals[l as usize].shape.is_empty() => {
            let r = nest.reg(nest.kernel.reg(v).dtype, lanes);
            out.push(Stmt::Set(r, Expr::Copy(v)));
            r
        }
        _ => v,
    };
    stage.writes.iter().zip(values).map(|x| keep(nest, x)).collect()
}

/// Fresh accumulators of a reducing stage, with their initial values.
pub fn accumulators(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, lanes: u32) -> Vec<Reg> {
    let combine = stage.combine.as_ref().expect("a reducing stage has a combiner");
    let dtypes: Vec<DType> = combine.body.output_dtypes();
    let init = combine.init.iter().zip(dtypes).map(|(&bits, dtype)| {
        let r = nest.reg(dtype, lanes);
        out.push(Stmt::Set(r, Expr::Const(bits)));
        r
    });
    init.collect()
}

/// `accs = body(accs, values)`.
pub fn merge(nest: &mut Nest, out: &mut Vec<Stmt>, body: &Body, accs: &[Reg], values: &[Reg]) {
    let inputs = [accs, values].concat();
    let merged = nest.body(out, body, &inputs);
    for (&a, m) in accs.iter().zip(merged) {
        out.push(Stmt::Set(a, Expr::Copy(m)));
    }
}

/// Writes finished accumulators: to their locals' registers, or to memory.
pub fn finish(nest: &mut Nest, out: &mut Vec<Stmt>, stage: &FlatStage, accs: &[Reg], lanes: u32, at: &Point) {
    let mut body = vec![];
    nest.writes(&mut body, stage, accs, &[], at);
    if !body.is_empty() {
        out.extend(on_lanes(nest, lanes, body));
    }
}
