//! Which kernels are contractions, for CPUs and GPUs alike.
//!
//! A first stage that sums one product of two reads is a contraction, whatever operator it came from. The outer
//! dimensions sort themselves by which operand they move; what the kind of machine asks beyond that (contiguous panels, dtypes,
//! wide tiles) its own tiler says.

use super::flat::{Flat, FlatRead, Target};
use brolga_ir::index::{Bound, Ix, Var};
use brolga_ir::loops::Buf;
use brolga_ir::scalar::{Body, Inst, Prim, V};
use brolga_ir::structured::{Combine, IterKind};
use brolga_ir::{DType, Dim};

/// Which operands an outer dimension moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// The left one only: a row of the result.
    Left,
    /// The right one only: a column.
    Right,
    /// Both: a batch.
    Both,
    /// None: the same sum again.
    Neither,
}

impl Moves {
    /// Of a dimension that moves the left operand, and the right one, or not.
    pub const fn of(left: bool, right: bool) -> Moves {
        match (left, right) {
            (true, false) => Moves::Left,
            (false, true) => Moves::Right,
            (true, true) => Moves::Both,
            (false, false) => Moves::Neither,
        }
    }
}

/// An operand: a buffer, and where and under which conditions it is read. Where one fails, the value is 0.
#[derive(Clone, Copy)]
pub struct Access<'f> {
    /// The buffer.
    pub buffer: Buf,
    /// Flat index.
    pub index: &'f Ix,
    /// In-bounds conditions.
    pub guard: &'f [Bound],
}

impl Access<'_> {
    /// An operand that can be brought elsewhere before it is used: no gather, and 0 out of bounds.
    fn of(r: &FlatRead) -> Option<Access<'_>> {
        let FlatRead::Element {
            target: Target::Buffer(buffer),
            index,
            guard,
            fill,
        } = r
        else {
            return None;
        };
        let mut gathers = false;
        index.for_each_reg(&mut |_| gathers = true);
        guard.iter().for_each(|b| b.index.for_each_reg(&mut |_| gathers = true));
        (!gathers && (*fill == 0 || guard.is_empty())).then_some(Access {
            buffer: *buffer,
            index,
            guard,
        })
    }

    fn moved_by(&self, v: Var) -> bool {
        self.index.uses(v) || self.guard.iter().any(|b| b.index.uses(v))
    }
}

/// A contraction in a kernel's first stage.
pub struct Contraction<'f> {
    /// The left operand.
    pub left: Access<'f>,
    /// The right one.
    pub right: Access<'f>,
    /// The dtypes of the left operand, the right one and the sums. Operands are converted to the latter.
    pub dtypes: [DType; 3],
    /// The outer dimensions, in order.
    pub dims: Vec<(Var, Dim, Moves)>,
    /// The summed dimensions, in order.
    pub steps: Vec<(Var, Dim)>,
}

impl<'f> Contraction<'f> {
    /// The contraction whose left operand is this one of the product's two reads.
    ///
    /// # Errors
    /// Why it is none.
    pub fn of(flat: &'f Flat, left: i64) -> Result<Contraction<'f>, String> {
        let fail = |why: &str| Err(format!("no contraction: {why}"));
        let Some(s) = flat.stages.first() else {
            return fail("the kernel has no stages");
        };
        if !(0..=1).contains(&left) {
            return fail(&format!("left={left}, expected 0 or 1"));
        }
        if s.scan || s.scatter || s.dims.is_empty() || s.dims.iter().any(|(_, d)| d.kind != IterKind::Reduction) {
            return fail("the first stage does more than to reduce, or does not");
        }
        let Some(sum) = multiplied(&s.body) else {
            return fail("the first stage's values are no product of two values that are read");
        };
        if !s.combine.as_ref().is_some_and(is_sum) {
            return fail("the first stage does not sum from 0");
        }
        if flat.stages[1..]
            .iter()
            .any(|s| !s.dims.is_empty() || s.combine.is_some())
        {
            return fail("a later stage has dimensions of its own");
        }
        let at = left as usize;
        let (Some(left), Some(right)) = (Access::of(&s.reads[at]), Access::of(&s.reads[1 - at])) else {
            return fail("an operand is gathered, is no buffer, or is not 0 out of bounds");
        };
        let dims = flat.outer.iter().map(|(v, d)| {
            let moves = Moves::of(left.moved_by(*v), right.moved_by(*v));
            (*v, d.clone(), moves)
        });
        let inputs = &s.body.inputs;
        Ok(Contraction {
            left,
            right,
            dtypes: [inputs[at], inputs[1 - at], sum],
            dims: dims.collect(),
            steps: s.dims.iter().map(|(v, d)| (*v, d.extent.clone())).collect(),
        })
    }

    /// The outer dimensions that move these operands, in order.
    pub fn that(&self, moves: &[Moves]) -> Vec<(Var, Dim)> {
        let found = self.dims.iter().filter(|(_, _, m)| moves.contains(m));
        found.map(|(v, d, _)| (*v, d.clone())).collect()
    }
}

/// The dtype of the product of two values that are the inputs, or conversions of them that lose nothing.
pub fn multiplied(body: &Body) -> Option<DType> {
    let [out] = body.outputs[..] else { return None };
    let dtype = body.dtype(out);
    let source = |v: V| match body.inst(v) {
        None => Some(v),
        Some(Inst::Prim(Prim::Cast(to), [x, ..])) if to == dtype && body.inst(x).is_none() => Some(x),
        _ => None,
    };
    let Some(Inst::Prim(Prim::Mul, [a, b, _])) = body.inst(out) else {
        return None;
    };
    let both = matches!((source(a), source(b)), (Some(x), Some(y)) if x.0 + y.0 == 1);
    let exact = |d: &DType| match dtype {
        DType::F32 => d.compute() == DType::F32,
        _ => d.is_int() && dtype.is_int() && d.bits() < dtype.bits() || *d == dtype,
    };
    (body.inputs.len() == 2 && both && body.inputs.iter().all(exact)).then_some(dtype)
}

/// True for a plain sum from 0.
pub fn is_sum(c: &Combine) -> bool {
    c.init == [0] && matches!(&c.body.insts[..], [Inst::Prim(Prim::Add, [a, b, _])] if a.0 + b.0 == 1)
}
