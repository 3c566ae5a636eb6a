//! The kernel: for few rows of `x`, sums whose terms unpack their weight, one for each of the values in a byte; else the weights of a column
//! unpacked once, and their products with all rows on tiles. A weight is `scale · q - scale · zero`, rounded once.
//!
//! ```text
//! outer(M, N) { stage reduce(B, L) { s[v] = Σ x[m, k] · scale · (q - zero) }  stage { y[m, n] = Σ s } }
//!
//! outer(N) {
//!   stage parallel(B, L) { w[k] = scale · (q - zero) }
//!   stage parallel(M) reduce(B·V·L) { s[m] = Σ w[k] · x[m, k] }
//!   stage parallel(M) { y[m, n] = s[m] }
//! }
//! ```

use super::Extents;
use crate::index::{Ix, Var};
use crate::ops::{Op, OwnStages};
use crate::scalar::{Builder, V};
use crate::structured::build::{self, Reads, parallel, reduction};
use crate::structured::{Combine, IterDim, Kernel, Local, Part, Place, Stage};
use crate::{DType, Dim, Number, Type};

/// The kernel for operands of these types.
pub(super) fn kernel(op: &Op, e: &Extents, inputs: &[Type], results: &[Type]) -> OwnStages {
    let result = Place::Operand(inputs.len() as u32);
    let depth = &(&e.blocks * &e.bytes) * e.values;
    let local = |shape: &[&Dim]| Local {
        dtype: DType::F32,
        shape: shape.iter().map(|&d| d.clone()).collect(),
    };
    let weights = |first: u32, together: i64| Weights {
        op,
        e,
        inputs,
        column: Ix::var(Var(first - 1)),
        first,
        together,
    };
    let (outer, locals, stages) = match op.flag("few") {
        true => {
            let pairs = e.values == 1 && e.blocks.modulo(&Dim::Const(2)).is(0);
            let w = weights(2, if pairs { 2 } else { 1 });
            let n = w.each().count();
            (
                vec![e.rows.clone(), e.columns.clone()],
                vec![local(&[]); n],
                vec![sums(&w), written(vec![], 0..n as u32, &[], result, [0, 1])],
            )
        }
        false => (
            vec![e.columns.clone()],
            vec![local(&[&depth]), local(&[&e.rows])],
            vec![
                unpacked(&weights(1, 1)),
                products(e, &depth),
                written(vec![parallel(&e.rows)], 1..2, &[Ix::var(Var(1))], result, [1, 0]),
            ],
        ),
    };
    OwnStages {
        operands: (0..inputs.len()).collect(),
        kernel: Kernel {
            locals,
            outer,
            parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
    }
}

/// Where a stage reads weights: some blocks of one column at a time, at the same byte of each.
struct Weights<'a> {
    op: &'a Op,
    e: &'a Extents,
    inputs: &'a [Type],
    column: Ix,
    /// The first variable of the stage's own.
    first: u32,
    /// Blocks at a time.
    together: i64,
}

impl Weights<'_> {
    /// Its dimensions: groups of blocks, bytes.
    fn dims(&self, dim: fn(&Dim) -> IterDim) -> Vec<IterDim> {
        let groups = self.e.blocks.floor_div(&Dim::Const(self.together));
        vec![dim(&groups), dim(&self.e.bytes)]
    }

    /// The block of this number in the group.
    fn block(&self, of: i64) -> Ix {
        let groups = Ix::var(Var(self.first)).scale(&Dim::Const(self.together));
        &groups + &Ix::constant(of)
    }

    fn byte(&self) -> Ix {
        Ix::var(Var(self.first + 1))
    }

    /// Where a value of the byte in that block is, in the order of `x`.
    fn place(&self, of: i64, value: i64) -> Ix {
        let (bytes, values) = (&self.e.bytes, self.e.values);
        let start = &self.block(of).scale(&(bytes * values)) + &Ix::constant(bytes * value);
        &start + &self.byte()
    }

    /// Numbers of blocks of the group, with those of the values in a byte.
    fn each(&self) -> impl Iterator<Item = (i64, i64)> + use<> {
        let values = self.e.values;
        (0..self.together).flat_map(move |of| (0..values).map(move |v| (of, v)))
    }

    /// Adds the reads of the weights, the values of a byte one after the other; gives what makes them of these.
    fn read(&self, reads: &mut Reads) -> impl Fn(&mut Builder) -> Vec<V> + use<> {
        let (bits, zero) = (self.op.int("bits"), self.op.num("zero"));
        let mut all = vec![];
        for of in 0..self.together {
            let own = || vec![self.column.clone(), self.block(of)];
            let byte = [&own()[..], &[self.byte()]].concat();
            let q = reads.element(Place::Operand(1), byte, DType::U8);
            let scale = reads.element(Place::Operand(2), own(), DType::F32);
            let zeros = self.inputs.get(3);
            let zeros = zeros.map(|ty| reads.element(Place::Operand(3), own(), ty.dtype));
            all.push((q, scale, zeros));
        }
        move |b| {
            let mut out = vec![];
            for &(q, scale, zeros) in &all {
                let (q, scale) = (b.input(q), b.input(scale));
                let zero = match zeros {
                    Some(z) => {
                        let z = b.input(z);
                        b.cast(DType::F32, z)
                    }
                    None => b.lit(scale, zero),
                };
                let zero = b.mul(zero, scale);
                let less = b.neg(zero);
                for v in 0..8 / bits {
                    let mut w = q;
                    if v > 0 {
                        let by = b.constant(DType::U8, Number::Int((v * bits).into()));
                        w = b.shr(w, by);
                    }
                    // The highest value has nothing above it.
                    if (v + 1) * bits < 8 {
                        let mask = b.constant(DType::U8, Number::Int((1 << bits) - 1));
                        w = b.and(w, mask);
                    }
                    let w = b.cast(DType::F32, w);
                    out.push(b.fma(w, scale, less));
                }
            }
            out
        }
    }
}

/// Few rows: the sums of a point, as many as there are weights at a time.
fn sums(w: &Weights) -> Stage {
    let mut reads = Reads::default();
    let x: Vec<usize> = w
        .each()
        .map(|(of, v)| {
            let at = vec![Ix::var(Var(0)), w.place(of, v)];
            reads.element(Place::Operand(0), at, DType::F32)
        })
        .collect();
    let unpack = w.read(&mut reads);
    let mut b = reads.body();
    let weights = unpack(&mut b);
    let values: Vec<V> = x.iter().zip(weights).flat_map(|(&x, w)| [b.input(x), w]).collect();
    let n = x.len();
    let combiner = |values: usize, step: &dyn Fn(&mut Builder, usize) -> V| {
        let mut b = Builder::new(&vec![DType::F32; n + values]);
        let out: Vec<V> = (0..n).map(|i| step(&mut b, i)).collect();
        b.finish(&out)
    };
    let combine = Combine {
        init: vec![0; n],
        body: combiner(2 * n, &|b, i| {
            let (sum, x, w) = (b.input(i), b.input(n + 2 * i), b.input(n + 2 * i + 1));
            b.fma(x, w, sum)
        }),
        free: true,
        merge: combiner(n, &|b, i| {
            let (one, other) = (b.input(i), b.input(n + i));
            b.add(one, other)
        }),
    };
    let to = (0..n as u32).map(|i| (Place::Local(i), vec![])).collect();
    Stage {
        combine: Some(combine),
        ..build::map(w.dims(reduction), reads, b.finish(&values), to)
    }
}

/// The weights of a column.
fn unpacked(w: &Weights) -> Stage {
    let mut reads = Reads::default();
    let unpack = w.read(&mut reads);
    let mut b = reads.body();
    let weights = unpack(&mut b);
    let to = w.each().map(|(of, v)| (Place::Local(0), vec![w.place(of, v)]));
    build::map(w.dims(parallel), reads, b.finish(&weights), to.collect())
}

/// Their products with every row.
fn products(e: &Extents, depth: &Dim) -> Stage {
    let (m, k) = (Ix::var(Var(1)), Ix::var(Var(2)));
    let mut reads = Reads::default();
    reads.element(Place::Local(0), vec![k.clone()], DType::F32);
    reads.element(Place::Operand(0), vec![m.clone(), k], DType::F32);
    let dims = vec![parallel(&e.rows), reduction(depth)];
    build::products(dims, reads, (Place::Local(1), vec![m]))
}

/// What these locals hold at these variables, added up, as results.
fn written(dims: Vec<IterDim>, locals: std::ops::Range<u32>, at: &[Ix], result: Place, [row, column]: [u32; 2]) -> Stage {
    let mut reads = Reads::default();
    let all: Vec<usize> = locals.map(|l| reads.element(Place::Local(l), at.to_vec(), DType::F32)).collect();
    let mut b = reads.body();
    let y = all.iter().map(|&i| b.input(i)).collect::<Vec<V>>();
    let y = y.into_iter().reduce(|sum, x| b.add(sum, x)).expect("there is a local");
    let to = vec![Ix::var(Var(row)), Ix::var(Var(column))];
    build::map(dims, reads, b.finish(&[y]), vec![(result, to)])
}
