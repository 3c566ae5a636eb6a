//! The kernel: a point is a block of a column.
//!
//! ```text
//! outer(N, B) { stage reduce(32) { largest }  stage { scale }  stage parallel(32) { q } }
//!
//! outer(N, B) {
//!   stage reduce(32) { low, high, sum }  stage { what takes the range to 15 }
//!   stage reduce(32) { sums of first integers, of their squares, of their products with elements }  stage { scale, minimum }
//!   stage parallel(16) { q of both halves }
//! }
//! ```

use super::{FINEST, LARGEST, MOST, Matrix, SMALLEST};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::ops::OwnStages;
use crate::scalar::{Builder, V};
use crate::structured::build::{self, Binary, Reads, parallel, reduction};
use crate::structured::{Combine, Kernel, Local, Part, Place, Stage, bits};
use crate::{DType, Dim, Number, Type};

const F32: DType = DType::F32;

/// The kernel for operands of these types.
pub(super) fn kernel(m: &Matrix, inputs: &[Type], results: &[Type]) -> OwnStages {
    let dtype = inputs[0].dtype;
    let block = Block {
        from: From::Matrix { axis: m.axis },
        dtype,
        first: 0,
        scale: (Place::Operand(2), here()),
        q: (Place::Operand(1), [here(), vec![Ix::var(Var(2))]].concat()),
    };
    let (locals, stages) = match m.four {
        true => (8, block.four()),
        false => (2, block.eight()),
    };
    let scalar = Local {
        dtype: F32,
        shape: vec![],
    };
    OwnStages {
        operands: vec![0],
        kernel: Kernel {
            locals: vec![scalar; locals],
            outer: vec![m.columns.clone(), m.blocks.clone()],
            parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
    }
}

/// What is merged, of an element and of locals.
type Each<'a> = dyn Fn(&mut Builder, V, &[V]) -> Vec<V> + 'a;

/// How a block is read.
struct Block {
    /// The matrix and the axis of its blocks, or 32 elements.
    from: From,
    dtype: DType,
    /// The first of two locals that are used.
    first: u32,
    /// Where scales and integers of 8 bits go.
    scale: (Place, Vec<Ix>),
    q: (Place, Vec<Ix>),
}

/// Where elements are.
enum From {
    Matrix { axis: usize },
    Local(u32),
}

/// The stages that make 8 bits of a local with 32 elements in f32, with two scalars from local `first` on.
pub fn eight_of_local(from: u32, first: u32, scale: (Place, Vec<Ix>), q: (Place, Vec<Ix>)) -> Vec<Stage> {
    let block = Block {
        from: From::Local(from),
        dtype: F32,
        first,
        scale,
        q,
    };
    block.eight()
}

fn local(i: u32) -> (Place, Vec<Ix>) {
    (Place::Local(i), vec![])
}

/// The point of a result of blocks.
fn here() -> Vec<Ix> {
    vec![Ix::var(Var(0)), Ix::var(Var(1))]
}

fn number(b: &mut Builder, x: f32) -> V {
    b.constant(F32, Number::Float(x.into()))
}

/// A number as 16 bits hold it: those, and in f32 again.
pub fn half(b: &mut Builder, x: V) -> [V; 2] {
    let [low, high] = [-LARGEST, LARGEST].map(|x| number(b, x));
    let x = b.max(x, low);
    let x = b.min(x, high);
    let short = b.cast(DType::F16, x);
    [short, b.cast(F32, short)]
}

/// `1 / scale`, of one that is 0 too.
fn inverse(b: &mut Builder, scale: V) -> V {
    let [least, one] = [SMALLEST, 1.0].map(|x| number(b, x));
    let scale = b.max(scale, least);
    b.div(one, scale)
}

/// `round(x * by) + zero`, from 0 to the largest.
fn integer(b: &mut Builder, x: V, by: V, [zero, most]: [f32; 2]) -> V {
    let [zero, most, none] = [zero, most, 0.0].map(|x| number(b, x));
    let x = b.mul(x, by);
    let x = b.round(x);
    let x = b.add(x, zero);
    let x = b.max(x, none);
    b.min(x, most)
}

impl Block {
    /// Reads the element at this place of the block.
    fn element(&self, reads: &mut Reads, at: &Ix) -> usize {
        let axis = match self.from {
            From::Matrix { axis } => axis,
            From::Local(l) => return reads.element(Place::Local(l), vec![at.clone()], self.dtype),
        };
        let k = &Ix::var(Var(1)).scale(&Dim::Const(BLOCK)) + at;
        let mut place = vec![Ix::var(Var(0)), k];
        if axis == 0 {
            place.reverse();
        }
        reads.element(Place::Operand(0), place, self.dtype)
    }

    /// A stage that merges, over the elements of a block, what a body gives of each and of some locals.
    fn over(
        &self,
        of: &[u32],
        each: &Each<'_>,
        by: &[(f32, Binary)],
        first: u32,
    ) -> Stage {
        let mut reads = Reads::default();
        let x = self.element(&mut reads, &Ix::var(Var(2)));
        let of: Vec<usize> = of.iter().map(|&l| reads.element(Place::Local(l), vec![], F32)).collect();
        let mut b = reads.body();
        let x = b.input(x);
        let x = b.cast(F32, x);
        let of: Vec<V> = of.iter().map(|&i| b.input(i)).collect();
        let values = each(&mut b, x, &of);
        let n = by.len();
        let merge = || {
            let mut b = Builder::new(&vec![F32; 2 * n]);
            let both = |b: &mut Builder, i: usize| {
                let (x, y) = (b.input(i), b.input(n + i));
                by[i].1(b, x, y)
            };
            let out: Vec<V> = (0..n).map(|i| both(&mut b, i)).collect();
            b.finish(&out)
        };
        let combine = Combine {
            init: by.iter().map(|(x, _)| bits(F32, Number::Float((*x).into()))).collect(),
            body: merge(),
            free: true,
            merge: merge(),
        };
        let to = (first..first + n as u32).map(local).collect();
        Stage {
            combine: Some(combine),
            ..build::map(vec![reduction(&Dim::Const(BLOCK))], reads, b.finish(&values), to)
        }
    }

    fn eight(&self) -> Vec<Stage> {
        let [_, most] = MOST;
        let largest = self.over(&[], &|b, x, _| vec![b.abs(x)], &[(0.0, Builder::max)], self.first);
        let scale = {
            let mut reads = Reads::default();
            reads.element(Place::Local(self.first), vec![], F32);
            let mut b = reads.body();
            let (x, most) = (b.input(0), number(&mut b, most));
            let scale = b.div(x, most);
            let [short, scale] = half(&mut b, scale);
            let by = inverse(&mut b, scale);
            let to = vec![self.scale.clone(), local(self.first + 1)];
            build::map(vec![], reads, b.finish(&[short, by]), to)
        };
        let mut reads = Reads::default();
        let x = self.element(&mut reads, &Ix::var(Var(2)));
        let by = reads.element(Place::Local(self.first + 1), vec![], F32);
        let mut b = reads.body();
        let (x, by) = (b.input(x), b.input(by));
        let x = b.cast(F32, x);
        let q = integer(&mut b, x, by, [128.0, 255.0]);
        let q = b.cast(DType::I32, q);
        let q = b.cast(DType::U8, q);
        let to = vec![self.q.clone()];
        let integers = build::map(vec![parallel(&Dim::Const(BLOCK))], reads, b.finish(&[q]), to);
        vec![largest, scale, integers]
    }

    fn four(&self) -> Vec<Stage> {
        let [most, _] = MOST;
        // l0 low, l1 high, l2 mean, l3 what takes the range to the largest integer, l4.. sums; l1 and l2 are written again.
        let range = self.over(
            &[],
            &|_, x, _| vec![x, x, x],
            &[
                (f32::INFINITY, Builder::min),
                (f32::NEG_INFINITY, Builder::max),
                (0.0, Builder::add),
            ],
            0,
        );
        let first = {
            let mut reads = Reads::default();
            let all = [0, 1, 2].map(|l| reads.element(Place::Local(l), vec![], F32));
            let mut b = reads.body();
            let [low, high, sum] = all.map(|i| b.input(i));
            let [n, most, least] = [BLOCK as f32, most, SMALLEST * 16.0].map(|x| number(&mut b, x));
            let mean = b.div(sum, n);
            let range = b.sub(high, low);
            let range = b.max(range, least);
            let by = b.div(most, range);
            build::map(vec![], reads, b.finish(&[mean, by]), vec![local(3), local(4)])
        };
        let sums = self.over(
            &[0, 3, 4],
            &|b, x, of| {
                let &[low, mean, by] = of else {
                    unreachable!("three locals")
                };
                let up = b.sub(x, low);
                let q = integer(b, up, by, [0.0, most]);
                let away = b.sub(x, mean);
                vec![q, b.mul(q, q), b.mul(q, away)]
            },
            &[(0.0, Builder::add as Binary); 3],
            5,
        );
        let line = {
            let mut reads = Reads::default();
            let all = [3, 5, 6, 7].map(|l| reads.element(Place::Local(l), vec![], F32));
            let mut b = reads.body();
            let [mean, sum, squares, both] = all.map(|i| b.input(i));
            let [n, least, finest, zero] = [BLOCK as f32, SMALLEST, FINEST, 8.0].map(|x| number(&mut b, x));
            let middle = b.div(sum, n);
            let square = b.mul(middle, middle);
            let square = b.mul(square, n);
            let squares = b.sub(squares, square);
            let squares = b.max(squares, least);
            let scale = b.div(both, squares);
            let size = b.abs(mean);
            let finest = b.mul(size, finest);
            let scale = b.max(scale, finest);
            let [short, scale] = half(&mut b, scale);
            let off = b.sub(middle, zero);
            let off = b.mul(off, scale);
            let low = b.sub(mean, off);
            let [short_low, low] = half(&mut b, low);
            let by = inverse(&mut b, scale);
            let to = vec![(Place::Operand(2), here()), (Place::Operand(3), here()), local(1), local(2)];
            build::map(vec![], reads, b.finish(&[short, short_low, low, by]), to)
        };
        let mut reads = Reads::default();
        let halves = [0, BLOCK / 2].map(|at| self.element(&mut reads, &(&Ix::var(Var(2)) + &Dim::Const(at))));
        let [low, by] = [1, 2].map(|l| reads.element(Place::Local(l), vec![], F32));
        let mut b = reads.body();
        let (low, by) = (b.input(low), b.input(by));
        let [lower, upper] = halves.map(|x| {
            let x = b.input(x);
            let x = b.cast(F32, x);
            let up = b.sub(x, low);
            let q = integer(&mut b, up, by, [8.0, most]);
            let q = b.cast(DType::I32, q);
            b.cast(DType::U8, q)
        });
        let four = b.constant(DType::U8, Number::Int(4));
        let upper = b.shl(upper, four);
        let byte = b.or(lower, upper);
        let to = vec![(Place::Operand(1), [here(), vec![Ix::var(Var(2))]].concat())];
        let integers = build::map(vec![parallel(&Dim::Const(BLOCK / 2))], reads, b.finish(&[byte]), to);
        vec![range, first, sums, line, integers]
    }
}
