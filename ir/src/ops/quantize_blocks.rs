//! `quantize_blocks{zero}(x) -> q, scale, offset, total`: rows of `x` f32 `[M, K]` as integers of 8 bits, in blocks of 32 elements along
//! `K` with a scale each, for [`block_product`](super::block_product). `x[m, k] ≈ scale[b, m] · q[m, k]` with `q` `[M, K]` from -127 to 127,
//! f32 `scale` `[B, M]` the block's largest magnitude over 127, and `k` in block `b = k / 32`. i32 `offset` `[B, M]` is `-zero` times the sum
//! of a block's `q`, f32 `total` `[B, M]` the scale times that sum.
//!
//! Source: Q8_1 of llama.cpp; ONNX Runtime's `MatMulNBits` with an accuracy level of 4.

use super::{Accuracy, Attr, AttrKind, InBlocks, Op, OpDef, OwnKernel, OwnStages, Role, Sample};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::scalar::Builder;
use crate::structured::build::{self, Reads, Reduction, parallel, reduction};
use crate::structured::{Kernel, Local, Part, Place, Stage};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// Magnitudes below this count as it, so that its inverse is a number.
const LEAST: f64 = 1e-30;

/// The largest integer.
const MOST: f64 = 127.0;

/// Rows, columns and blocks of an operand that fits.
fn extents(op: &Op, inputs: &[Type]) -> Result<[Dim; 3], String> {
    let [x] = inputs else {
        return Err(format!("{} operands, expected 1", inputs.len()));
    };
    if x.dtype != DType::F32 || x.rank() != 2 {
        return Err(format!("x {x}, expected f32 of rank 2"));
    }
    if !(0..=128).contains(&op.int("zero")) {
        return Err(format!("zero {}, expected 0 to 128", op.int("zero")));
    }
    let [rows, columns] = [0, 1].map(|i| x.shape[i].clone());
    match columns.exact_div(&Dim::Const(BLOCK)) {
        Some(blocks) => Ok([rows, columns, blocks]),
        None => Err(format!("x {x}, expected whole blocks of {BLOCK} columns")),
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "quantize_blocks"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("zero", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let [rows, columns, blocks] = extents(op, inputs)?;
        let each = |dtype| Type::new(dtype, vec![blocks.clone(), rows.clone()]);
        let q = Type::new(DType::I8, vec![rows.clone(), columns]);
        Ok(vec![q, each(DType::F32), each(DType::I32), each(DType::F32)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let x = inputs[0].to_f64s();
        let &[rows, columns] = inputs[0].shape() else {
            return Err("x has not rank 2".into());
        };
        let size = BLOCK as usize;
        let blocks = columns / size;
        // In f32, as the kernel does: an integer more or less is no rounding error.
        let most = |m: usize, b: usize| {
            let own = x[m * columns + b * size..][..size].iter();
            own.fold(LEAST as f32, |most, v| most.max(v.abs() as f32))
        };
        let whole = |m: usize, k: usize| {
            let by = MOST as f32 / most(m, k / size);
            i64::from((x[m * columns + k] as f32 * by).round_ties_even() as i8)
        };
        let sum = |m: usize, b: usize| (0..size).map(|k| whole(m, b * size + k)).sum::<i64>();
        let scale = |m: usize, b: usize| f64::from(most(m, b) / MOST as f32);
        let each = |dtype: DType, f: &dyn Fn(usize, usize) -> Number| {
            Tensor::from_fn(dtype, &[blocks, rows], |p| f(p % rows, p / rows))
        };
        Ok(vec![
            Tensor::from_fn(DType::I8, &[rows, columns], |p| {
                Number::Int(whole(p / columns, p % columns).into())
            }),
            each(DType::F32, &|m, b| Number::Float(scale(m, b))),
            each(DType::I32, &|m, b| Number::Int((-op.int("zero") * sum(m, b)).into())),
            each(DType::F32, &|m, b| Number::Float(scale(m, b) * sum(m, b) as f64)),
        ])
    }
    fn in_blocks(&self, _: &Op) -> Option<InBlocks> {
        Some(InBlocks::Activations)
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |zero: i64, shape: &'static [usize]| Sample::new(&[Attr::Int(zero)], &[(DType::F32, shape)]);
        vec![s(128, &[1, 64]), s(8, &[5, 96]), s(0, &[3, 32]), s(8, &[0, 32])]
    }
}

/// Where the block of a point is, and its row.
fn here() -> Vec<Ix> {
    vec![Ix::var(Var(1)), Ix::var(Var(0))]
}

/// Where the elements of the block are that the third variable counts.
fn inside() -> Vec<Ix> {
    let k = &Ix::var(Var(1)).scale(&Dim::Const(BLOCK)) + &Ix::var(Var(2));
    vec![Ix::var(Var(0)), k]
}

/// The largest magnitude.
fn largest() -> Stage {
    let mut reads = Reads::default();
    let x = reads.element(Place::Operand(0), inside(), DType::F32);
    let mut b = reads.body();
    let x = b.input(x);
    let size = b.abs(x);
    let most = Reduction {
        init: 0,
        combine: Builder::max,
        merge: Builder::max,
    };
    let dims = vec![reduction(&Dim::Const(BLOCK))];
    build::reduce(dims, reads, b.finish(&[size]), most, (Place::Local(0), vec![]))
}

/// The scale, and what elements are multiplied with.
fn scale() -> Stage {
    let mut reads = Reads::default();
    let most = reads.element(Place::Local(0), vec![], DType::F32);
    let mut b = reads.body();
    let most = b.input(most);
    let [least, range] = [LEAST, MOST].map(|x| b.constant(DType::F32, Number::Float(x)));
    let most = b.max(most, least);
    let scale = b.div(most, range);
    let by = b.div(range, most);
    let body = b.finish(&[scale, by]);
    let to = vec![(Place::Operand(2), here()), (Place::Local(1), vec![])];
    build::map(vec![], reads, body, to)
}

/// The integers.
fn integers() -> Stage {
    let mut reads = Reads::default();
    let x = reads.element(Place::Operand(0), inside(), DType::F32);
    let by = reads.element(Place::Local(1), vec![], DType::F32);
    let mut b = reads.body();
    let (x, by) = (b.input(x), b.input(by));
    let q = b.mul(x, by);
    let q = b.round(q);
    let q = b.cast(DType::I32, q);
    let small = b.cast(DType::I8, q);
    let body = b.finish(&[small, q]);
    let to = vec![
        (Place::Operand(1), inside()),
        (Place::Local(2), vec![Ix::var(Var(2))]),
    ];
    build::map(vec![parallel(&Dim::Const(BLOCK))], reads, body, to)
}

/// Their sum.
fn sum() -> Stage {
    let mut reads = Reads::default();
    let q = reads.element(Place::Local(2), vec![Ix::var(Var(2))], DType::I32);
    let b = reads.body();
    let q = b.input(q);
    let add = Reduction {
        init: 0,
        combine: Builder::add,
        merge: Builder::add,
    };
    let dims = vec![reduction(&Dim::Const(BLOCK))];
    build::reduce(dims, reads, b.finish(&[q]), add, (Place::Local(3), vec![]))
}

/// What follows from it.
fn sums(zero: i64) -> Stage {
    let mut reads = Reads::default();
    let sum = reads.element(Place::Local(3), vec![], DType::I32);
    let scale = reads.element(Place::Operand(2), here(), DType::F32);
    let mut b = reads.body();
    let (sum, scale) = (b.input(sum), b.input(scale));
    let zero = b.constant(DType::I32, Number::Int((-zero).into()));
    let offset = b.mul(sum, zero);
    let sum = b.cast(DType::F32, sum);
    let total = b.mul(sum, scale);
    let body = b.finish(&[offset, total]);
    let to = [3, 4].map(|o| (Place::Operand(o), here()));
    build::map(vec![], reads, body, to.to_vec())
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let [rows, _, blocks] = extents(op, inputs)?;
        let local = |dtype, shape: &[i64]| Local {
            dtype,
            shape: shape.iter().map(|&n| Dim::Const(n)).collect(),
        };
        let stages = [largest(), scale(), integers(), sum(), sums(op.int("zero"))];
        Ok(OwnStages {
            operands: vec![0],
            kernel: Kernel {
                locals: vec![
                    local(DType::F32, &[]),
                    local(DType::F32, &[]),
                    local(DType::I32, &[BLOCK]),
                    local(DType::I32, &[]),
                ],
                outer: vec![rows, blocks],
                parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
        })
    }
}
