//! Kernels that only move elements: packing, transposition, padding. Such a kernel runs here at the speed of memory, without
//! machine code, which takes longer to make than most weights take to be moved.
//!
//! ```text
//! for i0 parallel 0..2 {
//!   for i2 serial 0..40 {
//!     for i3 unrolled 0..2 {                                          40 × 32 elements, twice:
//!       for i4 vector 0..16 {                                   ──▶     from 1280*i0 in steps of 1 and 40
//!         r0: f32 = load b0[1280*i0 + i2 + 640*i3 + 40*i4]              to   1280*i0 in steps of 32 and 1
//!         store b1[1280*i0 + 32*i2 + 16*i3 + i4] = r0
//! ```
//!
//! Invariant: a kernel that is taken ([`Moves::of`]) leaves the bytes that the interpreter leaves. The loops around a store
//! change their order only where no two of their iterations write the same element.

#[cfg(test)]
mod tests;

use super::{Expr, Kernel, LoopKind, Scope, Stmt};
use crate::index::{Bound, BoundCode, Ix, IxCode, Reg, Slots, Src, Var};
use crate::{DType, Dim};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::ops::Range;

/// From how many blocks on they have to be worth it, and how many elements each has to have then.
const MANY_BLOCKS: i64 = 4096;
const WORTH_A_BLOCK: i64 = 8;

/// Steps of the dimension that is read in order, which are taken together in a transposition: two cache lines of f32.
const TOGETHER: usize = 32;

/// A kernel that only moves elements.
pub struct Moves {
    parts: Vec<Part>,
    vars: usize,
    /// Bytes of the parameters that are read, and of those that are written.
    lens: [Vec<usize>; 2],
}

enum Part {
    Loop { var: usize, extent: i64, body: Vec<Part> },
    Block(Block),
}

/// A store in a nest of loops over which all its indices have strides.
struct Block {
    from: Origin,
    /// The number of the parameter among those that are written.
    to: usize,
    index: IxCode,
    bytes: usize,
    /// From the outermost on.
    axes: Vec<Axis>,
}

enum Origin {
    /// Bits.
    Constant(u64),
    Load {
        /// The number of the parameter among those that are read.
        buffer: usize,
        index: IxCode,
        guard: Box<[BoundCode]>,
        fill: u64,
    },
}

/// A loop of a block.
#[derive(Clone)]
struct Axis {
    extent: i64,
    /// The strides of what is read, of what is written, and of the bounds' indices.
    from: i64,
    to: i64,
    bounds: SmallVec<[i64; 2]>,
}

impl Axis {
    /// An axis around another, as one axis, where they stride as one.
    fn merged(&self, inner: &Axis) -> Option<Axis> {
        let times = |a: i64, b: i64| b.checked_mul(inner.extent) == Some(a);
        let bounds = self.bounds.iter().zip(&inner.bounds).all(|(&a, &b)| times(a, b));
        let extent = self.extent.checked_mul(inner.extent)?;
        (times(self.from, inner.from) && times(self.to, inner.to) && bounds).then(|| Axis {
            extent,
            ..inner.clone()
        })
    }
}

/// A block under construction: indices are still expressions.
struct Draft<'k> {
    load: Result<(usize, &'k Ix, &'k [Bound], u64), u64>,
    to: usize,
    index: &'k Ix,
    dtype: DType,
    axes: Vec<Axis>,
}

enum Piece<'k> {
    Loop {
        var: Var,
        extent: i64,
        body: Vec<Piece<'k>>,
    },
    Block(Draft<'k>),
}

impl Moves {
    /// The moves that a kernel is, unless it does anything else, its sizes are not all known, or machine code is better.
    pub fn of(k: &Kernel) -> Option<Moves> {
        if k.buffers.iter().any(|b| !matches!(b.scope, Scope::In | Scope::Out)) {
            return None;
        }
        let mut reader = Reader {
            k,
            slots: FxHashMap::default(),
        };
        let pieces = reader.pieces(&k.body)?;
        let (blocks, elements) = count(&pieces);
        if blocks > MANY_BLOCKS && elements / blocks < WORTH_A_BLOCK {
            return None;
        }
        let parts = pieces.into_iter().map(|p| reader.part(p)).collect::<Option<_>>()?;
        let lens = |scope: Scope| {
            let params = k.params().filter(|b| b.scope == scope);
            let bytes = params.map(|b| usize::try_from(b.len.as_const()?).ok()?.checked_mul(b.dtype.bytes()));
            bytes.collect::<Option<Vec<usize>>>()
        };
        Some(Moves {
            parts,
            vars: reader.slots.len(),
            lens: [lens(Scope::In)?, lens(Scope::Out)?],
        })
    }

    /// Moves: `read` are the parameters that are only read, `written` those that are written, in their order.
    ///
    /// # Errors
    /// When they have not the sizes of the parameters, or the kernel leaves them.
    pub fn run(&self, read: &[&[u8]], written: &mut [&mut [u8]]) -> Result<(), String> {
        let fits = |found: &mut dyn Iterator<Item = usize>, expected: &[usize]| found.eq(expected.iter().copied());
        if !fits(&mut read.iter().map(|b| b.len()), &self.lens[0])
            || !fits(&mut written.iter().map(|b| b.len()), &self.lens[1])
        {
            return Err(format!("expected parameters of {:?} bytes", self.lens));
        }
        let mut vars = vec![0; self.vars];
        run(&self.parts, &mut vars, read, written)
    }
}

/// How many blocks run, and how many elements they write.
fn count(pieces: &[Piece]) -> (i64, i64) {
    pieces.iter().fold((0, 0), |(blocks, elements), p| {
        let (b, e) = match p {
            Piece::Loop { extent, body, .. } => {
                let (b, e) = count(body);
                (b.saturating_mul(*extent), e.saturating_mul(*extent))
            }
            Piece::Block(d) => (1, d.axes.iter().fold(1i64, |n, a| n.saturating_mul(a.extent))),
        };
        (blocks.saturating_add(b), elements.saturating_add(e))
    })
}

struct Reader<'k> {
    k: &'k Kernel,
    slots: FxHashMap<Var, usize>,
}

impl<'k> Reader<'k> {
    /// The moves of statements.
    fn pieces(&mut self, body: &'k [Stmt]) -> Option<Vec<Piece<'k>>> {
        let mut values: FxHashMap<Reg, &Expr> = FxHashMap::default();
        let mut out = vec![];
        for s in body {
            match s {
                Stmt::Set(r, e @ (Expr::Load { .. } | Expr::Const(_))) => {
                    values.insert(*r, e);
                }
                Stmt::Store { buffer, index, value } => {
                    out.push(Piece::Block(self.draft(
                        values.get(value)?,
                        buffer.0 as usize,
                        index,
                    )?));
                }
                Stmt::For {
                    var,
                    kind: LoopKind::Serial | LoopKind::Parallel(_) | LoopKind::Vector | LoopKind::Unrolled,
                    extent,
                    body,
                } => {
                    let extent = extent.as_const()?;
                    let inner = self.pieces(body)?;
                    if extent > 0 {
                        out.push(around(*var, extent, inner));
                    }
                }
                _ => return None,
            }
        }
        Some(out)
    }

    fn draft(&self, value: &'k Expr, to: usize, index: &'k Ix) -> Option<Draft<'k>> {
        let dtype = self.k.buffers[to].dtype;
        let load = match value {
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                let from = &self.k.buffers[buffer.0 as usize];
                if from.scope != Scope::In || from.dtype != dtype {
                    return None;
                }
                Ok((self.among(buffer.0 as usize), index, &guard[..], *fill))
            }
            Expr::Const(bits) => Err(*bits),
            _ => return None,
        };
        // A load of a bool makes 1 of every byte but 0.
        (dtype != DType::Bool).then(|| Draft {
            load,
            to: self.among(to),
            index,
            dtype,
            axes: vec![],
        })
    }

    /// The number of a parameter among those of its scope.
    fn among(&self, buffer: usize) -> usize {
        let scope = self.k.buffers[buffer].scope;
        self.k.buffers[..buffer].iter().filter(|b| b.scope == scope).count()
    }

    fn part(&mut self, p: Piece<'k>) -> Option<Part> {
        Some(match p {
            Piece::Loop { var, extent, body } => Part::Loop {
                var: self.slot(var),
                extent,
                body: body.into_iter().map(|p| self.part(p)).collect::<Option<_>>()?,
            },
            Piece::Block(d) => Part::Block(Block {
                from: match d.load {
                    Err(bits) => Origin::Constant(bits),
                    Ok((buffer, index, guard, fill)) => Origin::Load {
                        buffer,
                        index: self.lowered(|s| IxCode::new(index, s))?,
                        guard: self.lowered(|s| BoundCode::all(guard, s))?,
                        fill,
                    },
                },
                to: d.to,
                index: self.lowered(|s| IxCode::new(d.index, s))?,
                bytes: d.dtype.bytes(),
                axes: ordered(d.axes)?,
            }),
        })
    }

    fn slot(&mut self, v: Var) -> usize {
        let next = self.slots.len();
        *self.slots.entry(v).or_insert(next)
    }

    /// Lowers an expression over variables; one over registers or symbols is none of moves.
    fn lowered<T>(&mut self, lower: impl FnOnce(&mut Slots) -> Result<T, String>) -> Option<T> {
        let registers = std::cell::Cell::new(false);
        let mut slots = Slots {
            symbols: &|_| None,
            var: &mut |v| self.slot(v),
            reg: &|_| {
                registers.set(true);
                Src { base: 0, step: 0 }
            },
            lane: None,
        };
        lower(&mut slots).ok().filter(|_| !registers.get())
    }
}

/// A loop around pieces: an axis of the only block where all indices have a stride over it.
fn around<'k>(var: Var, extent: i64, mut inner: Vec<Piece<'k>>) -> Piece<'k> {
    if let [Piece::Block(d)] = &mut inner[..]
        && let Some(axis) = d.axis(var, extent)
    {
        d.axes.insert(0, axis);
        return inner.pop().expect("it is the only one");
    }
    Piece::Loop {
        var,
        extent,
        body: inner,
    }
}

impl Draft<'_> {
    fn axis(&self, var: Var, extent: i64) -> Option<Axis> {
        let stride = |e: &Ix| e.stride(var).as_ref().and_then(Dim::as_const);
        let (from, bounds) = match &self.load {
            Ok((_, index, guard, _)) => (
                stride(index)?,
                guard.iter().map(|b| stride(&b.index)).collect::<Option<_>>()?,
            ),
            Err(_) => (0, SmallVec::new()),
        };
        Some(Axis {
            extent,
            from,
            to: stride(self.index)?,
            bounds,
        })
    }
}

/// Axes in the order in which they are best walked: what is written in order innermost, around it what is read in order.
/// `None` where two iterations may write the same element.
fn ordered(axes: Vec<Axis>) -> Option<Vec<Axis>> {
    let mut merged: Vec<Axis> = vec![];
    for a in axes.into_iter().filter(|a| a.extent > 1) {
        match merged.last().and_then(|outer| outer.merged(&a)) {
            Some(one) => *merged.last_mut()? = one,
            None => merged.push(a),
        }
    }
    merged.sort_by_key(|a| std::cmp::Reverse(a.to));
    let mut reach = 0i64;
    for a in merged.iter().rev() {
        if a.to <= reach {
            return None;
        }
        reach = reach.checked_add(a.to.checked_mul(a.extent - 1)?)?;
    }
    if let Some(at) = merged.iter().position(|a| a.from == 1)
        && at + 2 < merged.len()
    {
        let a = merged.remove(at);
        merged.insert(merged.len() - 1, a);
    }
    Some(merged)
}

fn run(parts: &[Part], vars: &mut [i64], read: &[&[u8]], written: &mut [&mut [u8]]) -> Result<(), String> {
    for p in parts {
        match p {
            Part::Loop { var, extent, body } => {
                for i in 0..*extent {
                    vars[*var] = i;
                    run(body, vars, read, written)?;
                }
                // Blocks take the first element of their axes, whose variables stay 0.
                vars[*var] = 0;
            }
            Part::Block(b) => {
                let to = &mut *written[b.to];
                match b.bytes {
                    1 => b.run::<1>(vars, read, to),
                    2 => b.run::<2>(vars, read, to),
                    4 => b.run::<4>(vars, read, to),
                    _ => b.run::<8>(vars, read, to),
                }?;
            }
        }
    }
    Ok(())
}

impl Block {
    fn run<const N: usize>(&self, vars: &[i64], read: &[&[u8]], to: &mut [u8]) -> Result<(), String> {
        let to = to.as_chunks_mut::<N>().0;
        let t = self.index.at(vars, &[], 0);
        inside(t, self.axes.iter().map(|a| (a.extent, a.to)), to.len())?;
        match &self.from {
            Origin::Constant(bits) => fill(&self.axes, t, to, element(*bits)),
            Origin::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                let mut copy = Guarded {
                    from: read[*buffer].as_chunks::<N>().0,
                    to,
                    guard,
                    fill: element(*fill),
                };
                let first: SmallVec<[i64; 2]> = guard.iter().map(|b| b.parts().0.at(vars, &[], 0)).collect();
                copy.run(&self.axes, index.at(vars, &[], 0), t, &first)?;
            }
        }
        Ok(())
    }
}

fn element<const N: usize>(bits: u64) -> [u8; N] {
    std::array::from_fn(|i| bits.to_le_bytes()[i])
}

/// Fails unless all indices from `first` on, over loops of these extents and strides, are below `len`.
fn inside(first: i64, loops: impl Iterator<Item = (i64, i64)>, len: usize) -> Result<(), String> {
    let first = i128::from(first);
    let (least, most) = loops.fold((first, first), |(least, most), (extent, stride)| {
        let d = i128::from(extent - 1) * i128::from(stride);
        (least + d.min(0), most + d.max(0))
    });
    if least < 0 || most >= len as i128 {
        return Err(format!("elements {least} to {most} of {len}"));
    }
    Ok(())
}

/// A copy of a block whose loads have bounds.
struct Guarded<'a, const N: usize> {
    from: &'a [[u8; N]],
    to: &'a mut [[u8; N]],
    guard: &'a [BoundCode],
    fill: [u8; N],
}

impl<const N: usize> Guarded<'_, N> {
    /// Copies from `f` on to `t` on; `first` are the values of the bounds' indices there.
    fn run(&mut self, axes: &[Axis], f: i64, t: i64, first: &[i64]) -> Result<(), String> {
        // The part of every axis in which all bounds hold.
        let mut valid: SmallVec<[Range<i64>; 8]> = axes.iter().map(|a| 0..a.extent).collect();
        let mut never = false;
        for (i, (b, &first_index)) in self.guard.iter().zip(first).enumerate() {
            let extent = b.parts().1;
            let strides = || axes.iter().map(|a| (a.extent, a.bounds[i]));
            if inside(first_index, strides(), usize::try_from(extent).unwrap_or(0)).is_ok() {
                continue;
            }
            let mut deciding = strides().enumerate().filter(|(_, (_, s))| *s != 0).map(|(at, _)| at);
            match (deciding.next(), deciding.next()) {
                (None, _) => never = true,
                (Some(at), None) => {
                    let holds = solutions(first_index, axes[at].bounds[i], extent);
                    valid[at] = valid[at].start.max(holds.start)..valid[at].end.min(holds.end);
                }
                // Where two axes decide, one is taken step by step.
                (Some(at), Some(_)) => {
                    let mut rest = axes.to_vec();
                    let a = rest.remove(at);
                    return (0..a.extent).try_for_each(|k| {
                        let moved = first
                            .iter()
                            .zip(&a.bounds)
                            .map(|(x, s)| x.wrapping_add(k.wrapping_mul(*s)));
                        let moved: SmallVec<[i64; 2]> = moved.collect();
                        self.run(&rest, f.wrapping_add(k.wrapping_mul(a.from)), t + k * a.to, &moved)
                    });
                }
            }
        }
        never |= valid.iter().any(Range::is_empty);
        if never || valid.iter().zip(axes).any(|(v, a)| *v != (0..a.extent)) {
            fill(axes, t, self.to, self.fill);
        }
        if never {
            return Ok(());
        }
        let (mut f, mut t) = (f, t);
        let mut part = axes.to_vec();
        for (a, v) in part.iter_mut().zip(&valid) {
            f = f.wrapping_add(v.start.wrapping_mul(a.from));
            t += v.start * a.to;
            a.extent = v.end - v.start;
        }
        inside(f, part.iter().map(|a| (a.extent, a.from)), self.from.len())?;
        copy(&part, f, t, self.from, self.to);
        Ok(())
    }
}

/// The numbers `k` with `0 <= first + k*stride < extent`; the stride is not 0.
fn solutions(first: i64, stride: i64, extent: i64) -> Range<i64> {
    let (first, by, extent) = (i128::from(first), i128::from(stride).abs(), i128::from(extent));
    let range = if stride > 0 {
        -first.div_euclid(by)..-(first - extent).div_euclid(by)
    } else {
        -(extent - 1 - first).div_euclid(by)..first.div_euclid(by) + 1
    };
    let clamp = |x: i128| x.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    clamp(range.start)..clamp(range.end)
}

/// Writes one element at every place of axes. All places are inside.
fn fill<const N: usize>(axes: &[Axis], t: i64, to: &mut [[u8; N]], x: [u8; N]) {
    match axes {
        [] => to[t as usize] = x,
        [a] if a.to == 1 => to[t as usize..][..a.extent as usize].fill(x),
        [a, rest @ ..] => (0..a.extent).for_each(|k| fill(rest, t + k * a.to, to, x)),
    }
}

/// Copies a block. All places are inside.
fn copy<const N: usize>(axes: &[Axis], f: i64, t: i64, from: &[[u8; N]], to: &mut [[u8; N]]) {
    match axes {
        [] => to[t as usize] = from[f as usize],
        [a] if (a.from, a.to) == (1, 1) => {
            let n = a.extent as usize;
            to[t as usize..][..n].copy_from_slice(&from[f as usize..][..n]);
        }
        [a] => (0..a.extent).for_each(|k| to[(t + k * a.to) as usize] = from[(f + k * a.from) as usize]),
        [a, b] if a.from == 1 => {
            // A transposition: what is read is contiguous for some steps, what is written stays in the cache meanwhile.
            for start in (0..a.extent as usize).step_by(TOGETHER) {
                let n = TOGETHER.min(a.extent as usize - start);
                for k in 0..b.extent {
                    let line = &from[(f + k * b.from) as usize + start..][..n];
                    let first = (t + k * b.to) as usize + start * a.to as usize;
                    let places = to[first..].iter_mut().step_by(a.to as usize);
                    places.zip(line).for_each(|(place, x)| *place = *x);
                }
            }
        }
        [a, rest @ ..] => (0..a.extent).for_each(|k| copy(rest, f + k * a.from, t + k * a.to, from, to)),
    }
}
