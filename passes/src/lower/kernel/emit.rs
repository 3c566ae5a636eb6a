//! The scalar expression of a stream at a point.

use super::combine::NOWHERE;
use super::stage::{E, StageBuilder};
use super::{KernelBuilder, in_memory};
use brolga_ir::index::{Bound, Ix};
use brolga_ir::ops::{Access, Merge, Movement, Role};
use brolga_ir::structured::{Place, Read, bits};
use brolga_ir::{DType, Dim, Node, Number, Type, Value};

impl KernelBuilder<'_> {
    /// The expression of a value at a point.
    pub(super) fn emit(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        let key = (v, at.to_vec(), guard.to_vec());
        if let Some(&e) = s.memo.get(&key) {
            return Ok(e);
        }
        let e = self.emit_new(s, v, at, guard)?;
        s.memo.insert(key, e);
        Ok(e)
    }

    fn emit_new(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        let ty = self.graph.ty(v).clone();
        if let Some(memory) = in_memory(self.graph, v) {
            if let Some(x) = self.graph.as_constant(memory).and_then(|c| c.as_splat()) {
                return s.everywhere(x, guard, ty.dtype);
            }
            let place = self.operand(memory, ty.clone());
            return Ok(s.element(place, clamp_units(at, &ty), guard.to_vec(), ty.dtype));
        }
        if let Some(&local) = self.reduced.get(&v) {
            for (d, ix) in at.iter().enumerate() {
                let axis = self.anchored.get(d).copied().unwrap_or(d);
                if self.outer_of[axis].is_some_and(|o| *ix != Ix::var(o)) && !ty.shape[d].is(1) {
                    return Err("a reduction's result is read away from its own point".to_string());
                }
            }
            let dtype = self.kernel.locals[local as usize].dtype;
            let mut e = s.element(Place::Local(local), vec![], vec![], dtype);
            if self.is_position(v) {
                // Where there were no elements, the position is the first.
                let (nowhere, first) = (s.constant(dtype, NOWHERE), s.constant(dtype, Number::Int(0)));
                let none = s.call("equal", None, &[e, nowhere])?;
                e = s.call("where", None, &[none, first, e])?;
            }
            return s.cast(e, ty.dtype);
        }
        if let Some(&local) = self.rows.get(&v) {
            let inner: Vec<Ix> = self.axes.iter().map(|&a| at[a].clone()).collect();
            return Ok(s.element(Place::Local(local), inner, vec![], ty.dtype));
        }
        let node = self.node(v).expect("a stream is a node's result");
        let op = &node.op;
        match op.role() {
            Role::Map(f) => {
                let args = node.inputs.iter().map(|&i| self.emit(s, i, at, guard));
                let args: Vec<E> = args.collect::<Result<_, _>>()?;
                s.call(f.name, f.is_cast().then_some(ty.dtype), &args)
            }
            Role::Move(m) | Role::Reshape(m) => self.movement(s, node, m, at, guard),
            Role::Source(source) => {
                let mut e = None;
                for (bound, index) in source.element(op, at).into_iter().rev() {
                    let value = s.read(Read::Index(index), DType::I64);
                    e = match (e, bound) {
                        (Some(_), Some(b)) if b.index.as_const() == Some(0) => Some(value),
                        (Some(e), Some(b)) if b.index.as_const().is_some() => Some(e),
                        (Some(e), Some(b)) => {
                            let here = s.read(Read::InBounds(vec![b]), DType::Bool);
                            Some(s.call("where", None, &[here, value, e])?)
                        }
                        _ => Some(value),
                    };
                }
                let e = e.unwrap_or_else(|| s.constant(DType::I64, Number::Int(0)));
                s.cast(e, ty.dtype)
            }
            Role::Gather(gather) => self.gather(s, node, gather, at, guard),
            _ => Err(format!("`{}` is inside of another kernel", op.name())),
        }
    }

    /// True for the result of a reduction that keeps a position.
    fn is_position(&self, v: Value) -> bool {
        let merge = self.node(v).and_then(|n| match n.op.role() {
            Role::Rows(rows) => rows.merge(&n.op),
            _ => None,
        });
        matches!(merge, Some(Merge::Position { .. }))
    }

    fn movement(
        &mut self,
        s: &mut StageBuilder,
        node: &Node,
        m: &dyn Movement,
        at: &[Ix],
        guard: &[Bound],
    ) -> Result<E, String> {
        let (from, to) = (self.graph.ty(node.inputs[0]), self.graph.ty(node.outputs[0]));
        let Access { at, guard: bounds } = m.source(&node.op, from, to, at);
        if !m.fills() {
            return self.emit(s, node.inputs[0], &at, guard);
        }
        let fill = m.fill(&node.op).to(from.dtype);
        let all = [guard, &bounds].concat();
        let x = self.emit(s, node.inputs[0], &at, &all)?;
        if guard.is_empty()
            && let Some(e) = s.refill(x, &all, bits(from.dtype, fill))
        {
            return Ok(e);
        }
        let inside = s.read(Read::InBounds(bounds), DType::Bool);
        let fill = s.constant(from.dtype, fill);
        s.call("where", None, &[inside, x, fill])
    }
}

/// Index 0 wherever the extent is 1, so that equal reads look equal.
fn clamp_units(at: &[Ix], ty: &Type) -> Vec<Ix> {
    let unit = |ix: &Ix, d: &Dim| d.is(1) && ix.as_var().is_some();
    at.iter()
        .zip(&ty.shape)
        .map(|(ix, d)| if unit(ix, d) { Ix::constant(0) } else { ix.clone() })
        .collect()
}
