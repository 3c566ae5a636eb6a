//! Operators that are stored at once: concatenation (one stage an operand), scan (a stage that visits its axis in order)
//! and scatter (a copy, then writes at positions that come from data). Their stages share no outer dimensions but a scan's.

use super::gather::wrapped;
use super::group::{Lowerer, RESULT, combiner};
use super::stage::StageBuilder;
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::structured::{IterDim, IterKind};
use brolga_ir::{Dim, Node};

/// Pushes the stages of a concatenation, scan or scatter.
pub fn lower(l: &mut Lowerer, node: &Node) -> Result<(), String> {
    match node.op.name() {
        "concat" => concat(l, node),
        "scan" => scan(l, node),
        _ => scatter(l, node),
    }
}

fn vars(n: usize) -> Vec<Ix> {
    (0..n).map(|d| Ix::var(Var(d as u32))).collect()
}

fn parallel(shape: &[Dim]) -> Vec<IterDim> {
    shape
        .iter()
        .map(|d| IterDim {
            extent: d.clone(),
            kind: IterKind::Parallel,
        })
        .collect()
}

fn concat(l: &mut Lowerer, node: &Node) -> Result<(), String> {
    let axis = node.op.axis("axis");
    let mut start = Dim::ZERO;
    for &x in &node.inputs {
        let shape = l.graph().ty(x).shape.clone();
        let at = vars(shape.len());
        let mut s = StageBuilder::default();
        let e = l.emit(&mut s, x, &at, &[])?;
        let mut to = at;
        to[axis] = &to[axis] + &start;
        l.push_stage(s, parallel(&shape), &[e], None, vec![(RESULT, to)])?;
        start = &start + &shape[axis];
    }
    Ok(())
}

fn scan(l: &mut Lowerer, node: &Node) -> Result<(), String> {
    let op = &node.op;
    let axis = op.axis("axis");
    let ty = l.graph().ty(node.inputs[0]).clone();
    let n = ty.rank() as u32;
    // Outer variables are the other dimensions; the scanned one comes last.
    let mut at = vec![];
    for (d, extent) in ty.shape.iter().enumerate() {
        if d == axis {
            let i = Ix::var(Var(n - 1));
            let backward = &i.scale(&Dim::Const(-1)) + &(extent - 1);
            at.push(if op.flag("reverse") { backward } else { i });
        } else {
            at.push(Ix::var(Var(l.kernel().outer.len() as u32)));
            l.kernel().outer.push(extent.clone());
        }
    }
    let (mut from, mut guard) = (at.clone(), vec![]);
    if op.flag("exclusive") {
        // The element before: the identity at the start.
        let back = if op.flag("reverse") { 1 } else { -1 };
        from[axis] = &from[axis] + &Dim::Const(back);
        guard.push(Bound {
            index: from[axis].clone(),
            extent: ty.shape[axis].clone(),
        });
    }
    let mut s = StageBuilder::default();
    let acc = ty.dtype;
    let combine = combiner(op.word("kind"), acc)?;
    let mut e = l.emit(&mut s, node.inputs[0], &from, &guard)?;
    if !guard.is_empty() {
        let inside = s.read(brolga_ir::structured::Read::InBounds(guard), brolga_ir::DType::Bool);
        let identity = brolga_ir::decode(acc, &combine.init[0].to_le_bytes()[..acc.bytes()]);
        let identity = s.constant(acc, identity);
        e = s.call("where", None, &[inside, e, identity])?;
    }
    let dims = vec![IterDim {
        extent: ty.shape[axis].clone(),
        kind: IterKind::Reduction,
    }];
    let stage = l.push_stage(s, dims, &[e], Some(combine), vec![(RESULT, at)])?;
    stage.scan = true;
    Ok(())
}

fn scatter(l: &mut Lowerer, node: &Node) -> Result<(), String> {
    let op = &node.op;
    let (data, indices, updates) = (node.inputs[0], node.inputs[1], node.inputs[2]);
    let (data_ty, index_ty) = (l.graph().ty(data).clone(), l.graph().ty(indices).clone());
    let update_shape = l.graph().ty(updates).shape.clone();
    let mut s = StageBuilder::default();
    let at = vars(data_ty.rank());
    let e = l.emit(&mut s, data, &at, &[])?;
    l.push_stage(s, parallel(&data_ty.shape), &[e], None, vec![(RESULT, at)])?;

    let mut s = StageBuilder::default();
    let at = vars(update_shape.len());
    let mut to = vec![];
    let mut push = |l: &mut Lowerer, s: &mut StageBuilder, at: &[Ix], axis: usize| -> Result<(), String> {
        to.push(Ix::reg(wrapped(l, s, node, at, &[], axis)?));
        Ok(())
    };
    if op.name() == "scatter_nd" {
        let q = index_ty.rank() - 1;
        let depth = index_ty.shape[q].as_const().ok_or("an index tuple of unknown size")?;
        for k in 0..depth {
            let tuple = [&at[..q], &[Ix::constant(k)]].concat();
            push(l, &mut s, &tuple, k as usize)?;
        }
        to.extend_from_slice(&at[q..]);
    } else {
        let axis = op.axis("axis");
        push(l, &mut s, &at, axis)?;
        let i = to.pop().expect("just pushed");
        to = at.clone();
        to[axis] = i;
    }
    let mut e = l.emit(&mut s, updates, &at, &[])?;
    let merge = match op.word("reduction") {
        "none" => None,
        kind => Some(kind),
    };
    if let Some(kind) = merge {
        let in_bounds = to.iter().zip(&data_ty.shape).map(|(i, d)| Bound {
            index: i.clone(),
            extent: d.clone(),
        });
        let old = s.element(RESULT, to.clone(), in_bounds.collect(), data_ty.dtype);
        e = s.call(kind, None, &[old, e])?;
    }
    let stage = l.push_stage(s, parallel(&update_shape), &[e], None, vec![(RESULT, to)])?;
    stage.scatter = true;
    Ok(())
}
