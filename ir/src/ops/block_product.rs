//! `block_product{bits}(q, scale, offset, w, w_scale[, total, w_minimum])`: the product of rows that
//! [`quantize_blocks`](super::quantize_blocks) made with weights of 8 or 4 bits in blocks of 32 elements of the inner dimension:
//! `y[m, n] = Σ_b scale[b, m] · w_scale[n, b] · (offset[b, m] + Σ_k q[m, 32 b + k] · w[n, b, k]) + total[b, m] · w_minimum[n, b]`.
//!
//! `q` is i8 `[M, K]`, `scale` and `total` f32 and `offset` i32 `[B, M]`; `w` u8 `[N, B, 32]`, or `[N, B, 16]` where a byte holds an element of
//! each half of its block, that of the first in its lower bits; `w_scale` and `w_minimum` f16 `[N, B]`. Blocks are summed in integers, and their
//! sums in f32 one after the other. Where rows were made with `zero`, an element of the weights is `w_scale · (w - zero) + w_minimum`.

use super::{Accuracy, Attr, AttrKind, InBlocks, Op, OpDef, OwnKernel, OwnStages, OwnWork, Role, Sample, SampleType};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::structured::build::{self, Reads};
use crate::structured::{Kernel, Local, Loop, Part, Place, blocks};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The extents of operands that fit.
struct Extents {
    rows: Dim,
    columns: Dim,
    blocks: Dim,
}

fn extents(op: &Op, inputs: &[Type]) -> Result<Extents, String> {
    if ![5, 7].contains(&inputs.len()) {
        return Err(format!("{} operands, expected 5 or 7", inputs.len()));
    }
    let bits = op.int("bits");
    if ![4, 8].contains(&bits) {
        return Err(format!("{bits} bits, expected 4 or 8"));
    }
    let (q, w) = (&inputs[0], &inputs[3]);
    if q.rank() != 2 || w.rank() != 3 {
        return Err(format!("q {q} and w {w}, expected ranks 2 and 3"));
    }
    let e = Extents {
        rows: q.shape[0].clone(),
        columns: w.shape[0].clone(),
        blocks: w.shape[1].clone(),
    };
    let of_rows = [e.blocks.clone(), e.rows.clone()];
    let of_columns = [e.columns.clone(), e.blocks.clone()];
    let expected: [(&str, DType, &[Dim]); 7] = [
        ("q", DType::I8, &[e.rows.clone(), &e.blocks * BLOCK]),
        ("scale", DType::F32, &of_rows),
        ("offset", DType::I32, &of_rows),
        ("w", DType::U8, &[e.columns.clone(), e.blocks.clone(), Dim::Const(BLOCK * bits / 8)]),
        ("w_scale", DType::F16, &of_columns),
        ("total", DType::F32, &of_rows),
        ("w_minimum", DType::F16, &of_columns),
    ];
    for (ty, (name, dtype, shape)) in inputs.iter().zip(expected) {
        super::shape::check_type(name, ty, dtype, shape)?;
    }
    Ok(e)
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "block_product"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("bits", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let e = extents(op, inputs)?;
        Ok(vec![Type::new(DType::F32, vec![e.rows, e.columns])])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let [rows, columns, blocks] = [inputs[0].shape()[0], inputs[3].shape()[0], inputs[3].shape()[1]];
        let q: Vec<i64> = inputs[0].iter().map(|x| x.int() as i64).collect();
        let offset: Vec<i64> = inputs[2].iter().map(|x| x.int() as i64).collect();
        let w = inputs[3].bytes();
        let [scale, w_scale] = [1, 4].map(|i: usize| inputs[i].to_f64s());
        let minima = (inputs.len() > 5).then(|| [5, 6].map(|i: usize| inputs[i].to_f64s()));
        let (size, values) = (BLOCK as usize, 8 / op.int("bits") as usize);
        let (bytes, bits) = (size / values, op.int("bits") as u32);
        let term = |m: usize, n: usize, b: usize| {
            let products = (0..size).map(|k| {
                let byte = i64::from(w[(n * blocks + b) * bytes + k % bytes]);
                q[m * blocks * size + b * size + k] * (byte >> ((k / bytes) as u32 * bits) & ((1 << bits) - 1))
            });
            let whole = (offset[b * rows + m] + products.sum::<i64>()) as f64;
            let least = minima.as_ref().map_or(0.0, |[total, least]| total[b * rows + m] * least[n * blocks + b]);
            whole * scale[b * rows + m] * w_scale[n * blocks + b] + least
        };
        Ok(vec![Tensor::from_fn(DType::F32, &[rows, columns], |p| {
            let (m, n) = (p / columns, p % columns);
            Number::Float((0..blocks).map(|b| term(m, n, b)).sum())
        })])
    }
    fn in_blocks(&self, _: &Op) -> Option<InBlocks> {
        Some(InBlocks::Product)
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32, I8, I32, U8};
        let s = |bits: i64, x: &[SampleType]| Sample::new(&[Attr::Int(bits)], x);
        vec![
            s(8, &[(I8, &[1, 64]), (F32, &[2, 1]), (I32, &[2, 1]), (U8, &[40, 2, 32]), (F16, &[40, 2])]),
            s(8, &[(I8, &[30, 96]), (F32, &[3, 30]), (I32, &[3, 30]), (U8, &[64, 3, 32]), (F16, &[64, 3])]),
            s(
                4,
                &[
                    (I8, &[7, 64]),
                    (F32, &[2, 7]),
                    (I32, &[2, 7]),
                    (U8, &[33, 2, 16]),
                    (F16, &[33, 2]),
                    (F32, &[2, 7]),
                    (F16, &[33, 2]),
                ],
            ),
            s(4, &[(I8, &[2, 32]), (F32, &[1, 2]), (I32, &[1, 2]), (U8, &[5, 1, 16]), (F16, &[5, 1])]),
            s(4, &[(I8, &[0, 32]), (F32, &[1, 0]), (I32, &[1, 0]), (U8, &[5, 1, 16]), (F16, &[5, 1])]),
        ]
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let e = extents(op, inputs)?;
        let sum = Place::Local(0);
        let zero = {
            let mut b = Reads::default().body();
            let zero = b.constant(DType::F32, Number::Float(0.0));
            build::map(vec![], Reads::default(), b.finish(&[zero]), vec![(sum, vec![])])
        };
        let written = {
            let mut reads = Reads::default();
            reads.element(sum, vec![], DType::F32);
            let b = reads.body();
            let y = b.input(0);
            let to = vec![Ix::var(Var(0)), Ix::var(Var(1))];
            build::map(vec![], reads, b.finish(&[y]), vec![(Place::Operand(inputs.len() as u32), to)])
        };
        let local = |dtype| Local { dtype, shape: vec![] };
        let block = [
            blocks::products(op.int("bits"), Place::Local(1)),
            blocks::scaled(inputs.len() > 5, Place::Local(1), sum),
        ];
        Ok(OwnStages {
            operands: (0..inputs.len()).collect(),
            kernel: Kernel {
                locals: vec![local(DType::F32), local(DType::I32)],
                outer: vec![e.rows, e.columns],
                parts: vec![
                    Part::Stage(zero),
                    Part::Loop(Loop {
                        extent: e.blocks,
                        needed: vec![],
                        body: block.into_iter().map(Part::Stage).collect(),
                    }),
                    Part::Stage(written),
                ],
..Kernel::of(inputs, results)
},
        })
    }
    fn is_fused(&self) -> bool {
        true
    }
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork {
        let e = extents(op, inputs).expect("the operands fit");
        let weights = &(&e.columns * &e.blocks) * BLOCK;
        OwnWork {
            products: &e.rows * &weights,
            cycles: Dim::ZERO,
        }
    }
}
