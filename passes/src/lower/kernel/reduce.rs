//! Reductions: stages that fill a local.

use super::KernelBuilder;
use super::combine::{arg_combiner, combiner};
use super::stage::{E, StageBuilder};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::ops::{self, Access, Merge, Products, Role, Rows, Window};
use brolga_ir::structured::{Combine, IterDim, IterKind, Place, Read};
use brolga_ir::{DType, Dim, Node, Type, Value};

/// What a stage reduces: the values of an element, the extents to reduce over, and how.
type Reduction = (Vec<E>, Vec<Dim>, Combine);

impl KernelBuilder<'_> {
    /// Pushes the stage that computes a reduction into a local.
    pub(super) fn reduction(&mut self, node: &Node) -> Result<(), String> {
        let mut s = StageBuilder::default();
        let (values, extents, combine) = match node.op.role() {
            Role::Rows(rows) => self.rows(&mut s, node, rows)?,
            Role::Window(window) => self.window(&mut s, node, window)?,
            Role::Contract(products) => self.products(&mut s, node, products)?,
            role => unreachable!("{role:?} reduces nothing"),
        };
        let locals: Vec<u32> = values.iter().map(|&e| self.local(s.dtype(e), vec![])).collect();
        let writes = locals.iter().map(|&l| (Place::Local(l), vec![])).collect();
        let combine = (!extents.is_empty()).then_some(combine);
        let dims = extents.into_iter().map(|extent| IterDim {
            extent,
            kind: IterKind::Reduction,
        });
        self.push_stage(s, dims.collect(), &values, combine, writes)?;
        // The result of an arg-reduction is its second accumulator.
        let result = *locals.last().expect("at least one accumulator");
        self.reduced.insert(node.outputs[0], result);
        Ok(())
    }

    fn rows(&mut self, s: &mut StageBuilder, node: &Node, rows: &dyn Rows) -> Result<Reduction, String> {
        let op = &node.op;
        let merge = rows.merge(op);
        let merge = merge.ok_or_else(|| format!("`{}` has no kernel of its own", op.name()))?;
        let at = self.row_coordinates();
        let ty = self.graph.ty(node.inputs[0]).clone();
        let x = self.emit(s, node.inputs[0], &at, &[])?;
        let extents = self.axes.iter().map(|&a| ty.shape[a].clone()).collect();
        let acc = ty.dtype.compute();
        let x = s.cast(x, acc)?;
        match merge {
            Merge::Fold(kind) => Ok((vec![x], extents, combiner(kind, acc)?)),
            Merge::Position { max, last } => {
                let i = s.read(Read::Index(at[self.axes[0]].clone()), DType::I64);
                Ok((vec![x, i], extents, arg_combiner(max, last, acc)?))
            }
        }
    }

    fn window(&mut self, s: &mut StageBuilder, node: &Node, window: &dyn Window) -> Result<Reduction, String> {
        let op = &node.op;
        let (x, out) = (self.graph.ty(node.inputs[0]), self.graph.ty(node.outputs[0]));
        let Access { at, guard } = self.at_point(window.access(op, x, out));
        let (kind, acc) = (window.combine(op), x.dtype.compute());
        let combine = combiner(kind, acc)?;
        let value = self.emit(s, node.inputs[0], &at, &guard)?;
        let value = identity_outside(s, value, x, guard, kind, combine.init[0])?;
        Ok((vec![value], window.extents(op), combine))
    }

    fn products(&mut self, s: &mut StageBuilder, node: &Node, products: &dyn Products) -> Result<Reduction, String> {
        let op = &node.op;
        let types: Vec<Type> = node.inputs.iter().map(|&v| self.graph.ty(v).clone()).collect();
        let sides = products.sides(op, &types, self.graph.ty(node.outputs[0]));
        let acc = op.dtype("acc");
        let mut factors = vec![];
        for (&v, read) in node.inputs.iter().zip(sides.reads) {
            let read = self.at_point(read);
            let e = self.side(s, v, &read.at, &read.guard)?;
            factors.push(s.cast(e, acc)?);
        }
        let product = s.call("mul", None, &factors)?;
        Ok((vec![product], sides.extents, combiner(ops::Combine::Sum, acc)?))
    }

    /// A read given for a point of the reduction's result, one variable an axis, over the kernel's variables: the outer
    /// dimensions are the axes of the kernel's result in the order in which it lies.
    fn at_point(&self, read: Access) -> Access {
        let outer = |v: Var| self.outer_of[*self.anchored.get(v.0 as usize)?];
        let var = |v: Var| Ix::var(outer(v).unwrap_or(v));
        let over = |ix: Ix| ix.substitute(&var, &Ix::reg);
        let bound = |b: Bound| Bound {
            index: over(b.index),
            ..b
        };
        Access {
            at: read.at.into_iter().map(over).collect(),
            guard: read.guard.into_iter().map(bound).collect(),
        }
    }

    /// One side of a contraction. It gets operands of its own, even where another read has the same memory: the schedule
    /// may replace the operand by its panels.
    fn side(&mut self, s: &mut StageBuilder, v: Value, at: &[Ix], guard: &[Bound]) -> Result<E, String> {
        self.own = self.inputs.len();
        let e = self.emit(s, v, at, guard)?;
        self.own = self.inputs.len();
        Ok(e)
    }
}

/// A guarded element in the computing dtype, the combination's identity where there is none.
fn identity_outside(
    s: &mut StageBuilder,
    value: E,
    ty: &Type,
    guard: Vec<Bound>,
    kind: ops::Combine,
    identity: u64,
) -> Result<E, String> {
    let acc = ty.dtype.compute();
    if guard.is_empty() || kind == ops::Combine::Sum && s.refill(value, &guard, 0).is_some() {
        return s.cast(value, acc);
    }
    if ty.dtype == acc
        && let Some(e) = s.refill(value, &guard, identity)
    {
        return Ok(e);
    }
    let value = s.cast(value, acc)?;
    let inside = s.read(Read::InBounds(guard), DType::Bool);
    let identity = brolga_ir::decode(acc, &identity.to_le_bytes()[..acc.bytes()]);
    let identity = s.constant(acc, identity);
    s.call("where", None, &[inside, value, identity])
}
