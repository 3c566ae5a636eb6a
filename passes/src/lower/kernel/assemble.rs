//! Operators that are stored at once: concatenation (one stage an operand), scan (a stage that visits its axis in order)
//! and scatter (a copy, then writes at positions that come from data). Their stages share no outer dimensions but a scan's.

use super::combine::combiner;
use super::stage::StageBuilder;
use super::{KernelBuilder, RESULT};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::ops::{Assemble, Assembly, Combine, Coordinate};
use brolga_ir::structured::{IterDim, IterKind, Read};
use brolga_ir::{DType, Dim, Node, Type};

impl KernelBuilder<'_> {
    /// Pushes the stages of a concatenation, scan or scatter.
    pub(super) fn assemble(&mut self, node: &Node, assemble: &dyn Assemble) -> Result<(), String> {
        match assemble.assembly(&node.op) {
            Assembly::Concat { axis } => self.concat(node, axis),
            Assembly::Scan {
                axis,
                combine,
                exclusive,
                reverse,
            } => self.scan(node, axis, combine, exclusive, reverse),
            Assembly::Scatter { combine } => self.scatter(node, assemble, combine),
        }
    }

    fn concat(&mut self, node: &Node, axis: usize) -> Result<(), String> {
        let mut start = Dim::ZERO;
        for &x in &node.inputs {
            let shape = self.graph.ty(x).shape.clone();
            let order = self.layout.order(shape.len());
            let at = vars(&order);
            let mut s = StageBuilder::default();
            let e = self.emit(&mut s, x, &at, &[])?;
            let mut to = at;
            to[axis] = &to[axis] + &start;
            self.push_stage(s, parallel(&shape, &order), &[e], None, vec![(RESULT, to)])?;
            start = &start + &shape[axis];
        }
        Ok(())
    }

    fn scan(&mut self, node: &Node, axis: usize, kind: Combine, exclusive: bool, reverse: bool) -> Result<(), String> {
        let ty = self.graph.ty(node.inputs[0]).clone();
        let n = ty.rank() as u32;
        // Outer variables are the other dimensions; the scanned one comes last.
        let mut at = vec![];
        for (d, extent) in ty.shape.iter().enumerate() {
            if d == axis {
                let i = Ix::var(Var(n - 1));
                let backward = &i.scale(&Dim::Const(-1)) + &(extent - 1);
                at.push(if reverse { backward } else { i });
            } else {
                at.push(Ix::var(Var(self.kernel.outer.len() as u32)));
                self.kernel.outer.push(extent.clone());
            }
        }
        let (mut from, mut guard) = (at.clone(), vec![]);
        if exclusive {
            // The element before: the identity at the start.
            let back = if reverse { 1 } else { -1 };
            from[axis] = &from[axis] + &Dim::Const(back);
            guard.push(Bound {
                index: from[axis].clone(),
                extent: ty.shape[axis].clone(),
            });
        }
        let mut s = StageBuilder::default();
        let acc = ty.dtype;
        let combine = combiner(kind, acc)?;
        let mut e = self.emit(&mut s, node.inputs[0], &from, &guard)?;
        if !guard.is_empty() {
            let inside = s.read(Read::InBounds(guard), DType::Bool);
            let identity = brolga_ir::decode(acc, &combine.init[0].to_le_bytes()[..acc.bytes()]);
            let identity = s.constant(acc, identity);
            e = s.call("where", None, &[inside, e, identity])?;
        }
        let dims = vec![IterDim {
            extent: ty.shape[axis].clone(),
            kind: IterKind::Reduction,
        }];
        let stage = self.push_stage(s, dims, &[e], Some(combine), vec![(RESULT, at)])?;
        stage.scan = true;
        Ok(())
    }

    /// A copy, and then writes at positions that come from data.
    fn scatter(&mut self, node: &Node, assemble: &dyn Assemble, combine: Option<Combine>) -> Result<(), String> {
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let [data, _, updates] = &types[..] else {
            return Err(format!("a scatter of {} operands, expected 3", types.len()));
        };
        let mut s = StageBuilder::default();
        let order = self.layout.order(data.rank());
        let at = vars(&order);
        let e = self.emit(&mut s, node.inputs[0], &at, &[])?;
        self.push_stage(s, parallel(&data.shape, &order), &[e], None, vec![(RESULT, at)])?;

        let mut s = StageBuilder::default();
        // In the order of the updates: the last one wins.
        let order: Vec<usize> = (0..updates.rank()).collect();
        let at = vars(&order);
        let mut to = vec![];
        for (axis, c) in assemble.coordinates(&node.op, &types, &at)?.into_iter().enumerate() {
            to.push(match c {
                Coordinate::At(ix) => ix,
                Coordinate::Indexed(at) => Ix::reg(self.wrapped(&mut s, node, &at, &[], axis)?.0),
            });
        }
        let mut e = self.emit(&mut s, node.inputs[2], &at, &[])?;
        if let Some(kind) = combine {
            let in_bounds = to.iter().zip(&data.shape).map(|(i, d)| Bound {
                index: i.clone(),
                extent: d.clone(),
            });
            let old = s.element(RESULT, to.clone(), in_bounds.collect(), data.dtype);
            e = s.call(kind.function(data.dtype), None, &[old, e])?;
        }
        let stage = self.push_stage(s, parallel(&updates.shape, &order), &[e], None, vec![(RESULT, to)])?;
        stage.scatter = true;
        Ok(())
    }
}

/// The variables of axes, by axis, when a stage's dimensions are these axes.
fn vars(order: &[usize]) -> Vec<Ix> {
    let mut at = vec![Ix::constant(0); order.len()];
    for (v, &axis) in (0..).zip(order) {
        at[axis] = Ix::var(Var(v));
    }
    at
}

fn parallel(shape: &[Dim], order: &[usize]) -> Vec<IterDim> {
    let dim = |&axis: &usize| IterDim {
        extent: shape[axis].clone(),
        kind: IterKind::Parallel,
    };
    order.iter().map(dim).collect()
}
