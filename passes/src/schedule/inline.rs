//! Computing a local again wherever it is read, instead of keeping it.
//!
//! ```text
//! stage parallel(n) { exp(x[i]) -> l0[i] }
//! stage reduce(n) { sum of l0[i] -> l1 }        -->      stage reduce(n) { sum of exp(x[i]) -> l1 }
//! stage parallel(n) { l0[i] / l1 -> y[i] }               stage parallel(n) { exp(x[i]) / l1 -> y[i] }
//! ```

use super::flat::{Flat, FlatRead, FlatStage, Target, look_up};
use super::nest::{Point, collapse};
use brolga_ir::DType;
use brolga_ir::Dim;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::scalar::{Body, Inst, V};
use brolga_ir::structured::Check;

/// The stage that computes a local, when it can be computed anywhere.
///
/// # Errors
/// Why it cannot.
pub fn maker(flat: &Flat, local: u32) -> Result<usize, String> {
    let target = Target::Local(local);
    let mut all = flat.stages.iter().enumerate();
    let found = all.find(|(_, s)| s.writes.iter().any(|w| w.0 == target));
    let (i, s) = found.ok_or_else(|| format!("l{local} cannot be computed again: no stage computes it"))?;
    if s.reduces() || s.writes.len() != 1 {
        return Err(format!(
            "l{local} cannot be computed again: its stage reduces, or has other results too"
        ));
    }
    Ok(i)
}

/// Computes locals again where they are read; their stages go.
///
/// # Errors
/// When one cannot be.
pub fn all(flat: &Flat, locals: &[u32]) -> Result<Flat, String> {
    let mut flat = flat.clone();
    locals.iter().try_for_each(|&l| inline(&mut flat, l))?;
    Ok(flat)
}

fn inline(flat: &mut Flat, local: u32) -> Result<(), String> {
    let target = Target::Local(local);
    let i = maker(flat, local)?;
    let maker = flat.stages.remove(i);
    let dims: Vec<(Var, Dim)> = maker.dims.iter().map(|(v, d)| (*v, d.extent.clone())).collect();
    for s in &mut flat.stages[i..] {
        while let Some((k, index)) = first_read(s, target) {
            let p = Var(u32::MAX);
            let map: Vec<(Var, Ix)> = collapse(&dims, p)
                .1
                .into_iter()
                .map(|(v, ix)| (v, ix.substitute(&|_| index.clone(), &Ix::reg)))
                .collect();
            let n = maker.reads.len() as u32;
            let mut reads: Vec<FlatRead> = maker.reads.iter().map(|r| moved(r, &|v| look_up(&map, v), 0)).collect();
            reads.extend(s.reads.iter().map(|r| moved(r, &Ix::var, n)));
            reads[k + n as usize] = FlatRead::Computed(maker.body.clone(), (0..n).collect());
            s.reads = reads;
            let own = s.checks.iter().map(|c| moved_check(c, &Ix::var, n));
            let makers = maker.checks.iter().map(|c| moved_check(c, &|v| look_up(&map, v), 0));
            s.checks = makers.chain(own).collect();
            s.body = shifted(&s.body, &maker.body.inputs);
        }
    }
    Ok(())
}

/// The first read of a target, and its index.
fn first_read(s: &FlatStage, wanted: Target) -> Option<(usize, Ix)> {
    let of = |(k, r): (usize, &FlatRead)| match r {
        FlatRead::Element { target, index, .. } if *target == wanted => Some((k, index.clone())),
        _ => None,
    };
    s.reads.iter().enumerate().find_map(of)
}

/// An index at another point, with the numbers of the reads that it uses moved up.
fn moved_index(ix: &Ix, at: &Point, by: u32) -> Ix {
    ix.substitute(at, &|Reg(k)| Ix::reg(Reg(k + by)))
}

fn moved_bounds(bounds: &[Bound], at: &Point, by: u32) -> Vec<Bound> {
    let one = |b: &Bound| Bound {
        index: moved_index(&b.index, at, by),
        extent: b.extent.clone(),
    };
    bounds.iter().map(one).collect()
}

fn moved_check(c: &Check, at: &Point, by: u32) -> Check {
    Check {
        number: c.number,
        bounds: moved_bounds(&c.bounds, at, by),
        guard: moved_bounds(&c.guard, at, by),
    }
}

fn moved(r: &FlatRead, at: &Point, by: u32) -> FlatRead {
    let place = |ix: &Ix| moved_index(ix, at, by);
    let bounds = |g: &[Bound]| moved_bounds(g, at, by);
    match r {
        FlatRead::Element {
            target,
            index,
            guard,
            fill,
        } => FlatRead::Element {
            target: *target,
            index: place(index),
            guard: bounds(guard),
            fill: *fill,
        },
        FlatRead::Index(ix) => FlatRead::Index(place(ix)),
        FlatRead::InBounds(b) => FlatRead::InBounds(bounds(b)),
        FlatRead::Computed(body, args) => FlatRead::Computed(body.clone(), args.iter().map(|a| a + by).collect()),
    }
}

/// The body with further inputs, which it ignores, before its own.
fn shifted(body: &Body, first: &[DType]) -> Body {
    let by = first.len() as u32;
    let up = |v: V| V(v.0 + by);
    let inst = |i: &Inst| match *i {
        Inst::Prim(p, args) => Inst::Prim(p, args.map(up)),
        constant => constant,
    };
    Body {
        inputs: [first, &body.inputs].concat(),
        insts: body.insts.iter().map(inst).collect(),
        outputs: body.outputs.iter().map(|&v| up(v)).collect(),
    }
}
