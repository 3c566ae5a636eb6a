//! Products over blocks with scales, as [`brolga_ir::structured::blocks`] builds them.
//!
//! ```text
//! stage { s = 0 }  loop(B) { stage reduce(L) { d = Σ … }  stage { s = fma(…, s) } }  epilogue…
//! ```

use super::super::contraction::is_sum;
use super::super::flat::{Flat, FlatRead, FlatStage, Node, Target, is_affine, stride_is_one};
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{BLOCK, Buf, Minima, Scales};
use brolga_ir::scalar::{Body, Builder};
use brolga_ir::structured::{IterKind, blocks};
use brolga_ir::{DType, Dim, Number, TileKind};

/// Scales, and what belongs to them.
#[derive(Clone)]
pub struct Scaled<'f> {
    /// Summed steps.
    pub depth: Dim,
    /// The scales and offsets of rows, and their totals where there are minima, at one index.
    of_rows: Vec<Buf>,
    row: &'f Ix,
    /// The scales of columns, and their minima where there are some.
    pub of_columns: Vec<(Buf, &'f Ix)>,
}

impl Scaled<'_> {
    /// The scales of a tile, where those of columns are panels of which its own begin at an index.
    pub fn of_tile(&self, block: Var, base: &dyn Fn(Var) -> Ix, b_index: Ix) -> Scales {
        let minimum = self.of_columns.get(1).zip(self.of_rows.get(2));
        Scales {
            a: self.of_rows[0],
            offset: self.of_rows[1],
            a_index: self.row.substitute(base, &Ix::reg),
            a_block: Ix::constant(self.row.stride(block).expect("affine")),
            b: self.of_columns[0].0,
            b_index,
            minima: minimum.map(|((b, _), total)| Minima { b: *b, total: *total }),
        }
    }
}

/// The stage that writes the sums.
pub const SUMMED: usize = 2;

/// Such a product.
pub struct Found<'f> {
    /// The kind of its tiles.
    pub kind: TileKind,
    /// The rows' integers.
    pub a: (Buf, &'f Ix),
    /// The columns' integers.
    pub b: (Buf, &'f Ix),
    /// The blocks, and the bytes of one.
    pub steps: Vec<(Var, Dim)>,
    /// The rest.
    pub scaled: Scaled<'f>,
}

/// The product that a kernel is.
pub fn find(flat: &Flat) -> Option<Found<'_>> {
    let [
        Node::Stage(0),
        Node::Loop {
            var,
            extent,
            needed,
            body,
        },
        behind @ ..,
    ] = &flat.tree[..]
    else {
        return None;
    };
    let inside = matches!(body[..], [Node::Stage(1), Node::Stage(2)]) && needed.is_empty();
    let epilogue = &flat.stages[flat.stages.len().min(3)..];
    let in_order = behind
        .iter()
        .zip(3..)
        .all(|(n, i)| matches!(n, Node::Stage(j) if *j == i));
    let plain = |s: &FlatStage| s.guard.is_empty() && s.checks.is_empty() && !s.scan && !s.scatter;
    let points = epilogue.iter().all(|s| s.dims.is_empty() && s.combine.is_none());
    if !(inside && in_order && behind.len() == epilogue.len() && points && flat.stages.iter().all(plain)) {
        return None;
    }
    let [zero, products, scaled] = [0, 1, 2].map(|i| &flat.stages[i]);
    // The sum starts from 0, in the local that the scaled blocks are added to.
    let starts = zero.reads.is_empty() && zero.body == zero_body() && zero.writes == scaled.writes;
    let bits = [8, 4]
        .into_iter()
        .find(|bits| products.body == blocks::products_body(*bits))?;
    let kind = if bits == 8 { TileKind::Q8 } else { TileKind::Q4 };
    let minima = [false, true]
        .into_iter()
        .find(|m| scaled.body == blocks::scaled_body(*m))?;
    let [(byte, dim)] = &products.dims[..] else { return None };
    let bytes = BLOCK / kind.packed();
    let sums = products.combine.as_ref().is_some_and(is_sum);
    if !starts || !sums || dim.kind != IterKind::Reduction || !dim.extent.is(bytes) || !scaled.dims.is_empty() {
        return None;
    }
    let operands: Vec<(Buf, &Ix)> = products.reads.iter().map(element).collect::<Option<_>>()?;
    let (w, rows) = operands.split_last()?;
    let a = rows[0];
    // The halves of a block lie one behind the other, as blocks do.
    let halves = (0..)
        .zip(rows)
        .all(|(i, (b, index))| *b == a.0 && **index == &a.1.clone() + &Dim::Const(i * bytes));
    let contiguous = stride_is_one(a.1, *byte) && a.1.stride(*var).is_some_and(|d| d.is(BLOCK));
    let reads: Vec<(Buf, &Ix)> = scaled.reads[2..].iter().map(element).collect::<Option<_>>()?;
    let locals = [&scaled.reads[0], &scaled.reads[1]].map(local);
    let own = locals == [scaled.writes[0].0, products.writes[0].0].map(Some);
    let &[scale, offset, w_scale, ..] = &reads[..] else {
        return None;
    };
    let mut of_rows = vec![scale, offset];
    let mut of_columns = vec![w_scale];
    if minima {
        of_rows.push(reads[3]);
        of_columns.push(reads[4]);
    }
    let together = of_rows.iter().all(|(_, index)| *index == scale.1);
    // Rows lie side by side in their scales, whatever dimension they are of, and each side has its own.
    let moves = |index: &Ix| -> Vec<Var> { flat.outer.iter().map(|(v, _)| *v).filter(|v| index.uses(*v)).collect() };
    let (row_dims, column_dims) = (moves(a.1), moves(w.1));
    let beside = row_dims.last().is_none_or(|v| stride_is_one(scale.1, *v));
    let apart = moves(scale.1) == row_dims && of_columns.iter().all(|(_, index)| moves(index) == column_dims);
    let affine = operands.iter().chain(&reads).all(|(_, index)| is_affine(index));
    if !(halves && contiguous && own && together && beside && apart && affine) {
        return None;
    }
    Some(Found {
        kind,
        a,
        b: *w,
        steps: vec![(*var, extent.clone()), (*byte, Dim::Const(bytes))],
        scaled: Scaled {
            depth: extent * BLOCK,
            of_rows: of_rows.iter().map(|(b, _)| *b).collect(),
            row: scale.1,
            of_columns,
        },
    })
}

/// A zero, in f32.
fn zero_body() -> Body {
    let mut b = Builder::new(&[]);
    let zero = b.constant(DType::F32, Number::Float(0.0));
    b.finish(&[zero])
}

/// An element of a buffer that is always there.
fn element(r: &FlatRead) -> Option<(Buf, &Ix)> {
    match r {
        FlatRead::Element {
            target: Target::Buffer(b),
            index,
            guard,
            ..
        } if guard.is_empty() => Some((*b, index)),
        _ => None,
    }
}

/// A local that is read.
fn local(r: &FlatRead) -> Option<Target> {
    match r {
        FlatRead::Element { target, .. } if target.buffer().is_none() => Some(*target),
        _ => None,
    }
}
