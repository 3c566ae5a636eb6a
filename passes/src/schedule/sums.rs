//! Long sums. A running sum of f32 loses what is small beside it: after 2^20 additions of one value it is 1 % off. So a
//! reduction that is long takes [`BLOCK`] steps or so from zero, and what they give is added in f64, whose own losses
//! vanish in the rounding at the end. The error is that of a block, however many there are.
//!
//! ```text
//! for i in n { acc = acc + x[i] }
//! -->
//! total = 0 (f64)
//! for o in ceil(n / 64) {
//!   part = 0
//!   for i in min(64, n - 64 o) { part = part + x[64 o + i] }
//!   total = total + part
//! }
//! acc = acc + total
//! ```

use super::flat::FlatStage;
use super::nest::{Domain, Nest, Point};
use brolga_ir::index::{Ix, Reg};
use brolga_ir::loops::{Expr, LoopKind, Stmt};
use brolga_ir::scalar::{Inst, Prim, V};
use brolga_ir::structured::Combine;
use brolga_ir::{DType, Dim};

/// Steps of a block.
const BLOCK: i64 = 64;

/// The longest sum that is left as it is: the windows of most convolutions are not longer, and as exact as they need be.
const PLAIN: i64 = 256;

/// One step of a loop nest: its statements, by the accumulators and what variables are there.
pub type Step<'a> = dyn FnMut(&mut Nest, &[Reg], &Point) -> Vec<Stmt> + 'a;

/// The loop of a nest that is cut into blocks, and how many of its iterations are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    level: usize,
    chunk: i64,
}

/// Where to cut loops of these extents, outermost first; nowhere when they are short.
fn cut(extents: &[Ix]) -> Option<Cut> {
    let mut inside = 1i64;
    for (level, e) in extents.iter().enumerate().rev() {
        match e.as_const() {
            Some(n) if n.saturating_mul(inside) <= PLAIN => inside *= n.max(1),
            _ => {
                let chunk = (BLOCK / inside).max(1);
                return Some(Cut { level, chunk });
            }
        }
    }
    None
}

/// True for the merging of a float sum.
fn is_sum(c: &Combine) -> bool {
    let float = matches!(c.body.inputs[..], [DType::F32, DType::F32] | [DType::F64, DType::F64]);
    float && matches!(c.body.insts[..], [Inst::Prim(Prim::Add, [V(0), V(1), _])])
}

/// True for reductions whose loops are not cut.
pub fn is_plain(stage: &FlatStage) -> bool {
    let extents: Vec<Ix> = stage.dims.iter().map(|(_, d)| Ix::constant(d.extent.clone())).collect();
    cut(&extents).is_none() || stage.combine.as_ref().is_none_or(|c| !is_sum(c))
}

/// Merges what a loop nest at a point computes into accumulators of `lanes` lanes: the loops, and one step of them,
/// which gets the accumulators and its own point. Statements on all lanes run in a vector loop over the
/// nest's lane.
pub fn reduce(
    nest: &mut Nest,
    out: &mut Vec<Stmt>,
    combine: &Combine,
    accs: &[Reg],
    lanes: u32,
    domain: Domain,
    step: &mut Step,
) {
    let loops = domain.loops;
    let extents: Vec<Ix> = loops.iter().map(|(_, e)| e.clone()).collect();
    let (Some(Cut { level, chunk }), true) = (cut(&extents), is_sum(combine)) else {
        let body = step(nest, accs, &|u| domain.inside(u));
        out.extend(Nest::serial(loops, body));
        return;
    };
    let dtype = combine.body.inputs[0];
    let (part, total) = (nest.reg(dtype, lanes), nest.reg(DType::F64, lanes));
    let (v, extent) = &loops[level];
    let (o, i) = (nest.var(), nest.var());
    let start = Ix::var(o).scale(&Dim::Const(chunk));
    let here = &start + &Ix::var(i);
    let body = step(nest, &[part], &|u| {
        if u == *v { here.clone() } else { domain.inside(u) }
    });
    let size = match extent.as_const() {
        Some(n) if n % chunk == 0 => Ix::constant(chunk),
        _ => (&start.scale(&Dim::Const(-1)) + extent).at_most(&Dim::Const(chunk)),
    };
    let inner = [&[(i, size)], &loops[level + 1..]].concat();
    let mut block = vec![Stmt::Set(part, Expr::Const(0))];
    block.extend(Nest::serial(&inner, body));
    let mut add = vec![];
    let wide = nest.set(&mut add, DType::F64, Expr::Prim(Prim::Cast(DType::F64), [part; 3]));
    let sum = nest.set(&mut add, DType::F64, Expr::Prim(Prim::Add, [total, wide, total]));
    add.push(Stmt::Set(total, Expr::Copy(sum)));
    block.extend(on_lanes(nest, lanes, add));
    let blocks = (extent + &Dim::Const(chunk - 1)).div(&Dim::Const(chunk));
    let outer = [&loops[..level], &[(o, blocks)]].concat();
    out.push(Stmt::Set(total, Expr::Const(0)));
    out.extend(Nest::serial(&outer, block));
    let mut last = vec![];
    let whole = nest.set(&mut last, dtype, Expr::Prim(Prim::Cast(dtype), [total; 3]));
    let sum = nest.set(&mut last, dtype, Expr::Prim(Prim::Add, [accs[0], whole, accs[0]]));
    last.push(Stmt::Set(accs[0], Expr::Copy(sum)));
    out.extend(on_lanes(nest, lanes, last));
}

/// Runs statements once for every lane.
pub fn on_lanes(nest: &Nest, lanes: u32, body: Vec<Stmt>) -> Vec<Stmt> {
    if lanes == 1 {
        return body;
    }
    vec![Stmt::For {
        var: nest.lane,
        kind: LoopKind::Vector,
        extent: Ix::constant(lanes as i64),
        body,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_loops_are_cut_where_a_block_is_full() {
        let at = |extents: &[i64]| cut(&extents.iter().map(|&n| Ix::constant(n)).collect::<Vec<_>>());
        assert_eq!(at(&[256]), None);
        assert_eq!(at(&[3, 3, 28]), None);
        assert_eq!(at(&[257]), Some(Cut { level: 0, chunk: 64 }));
        assert_eq!(at(&[512, 3, 3]), Some(Cut { level: 0, chunk: 7 }));
        assert_eq!(at(&[1000, 100]), Some(Cut { level: 0, chunk: 1 }));
        assert_eq!(at(&[2, 1 << 20]), Some(Cut { level: 1, chunk: 64 }));
        let n = Ix::constant(Dim::sym("n"));
        assert_eq!(cut(&[Ix::constant(4), n]), Some(Cut { level: 1, chunk: 64 }));
    }
}
