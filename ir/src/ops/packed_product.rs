//! `packed_product{bits, zero, few}(x, q, scale[, zeros])`: `y[m, n] = Σ_k x[m, k] · scale[n, b] · (q[n, k] - zeros[n, b])` for weights `q` of
//! 8, 4 or 2 bits, of which `scale` `[N, B]` and `zeros` have one number for each block `b` of `k`; where there are no `zeros`, all are
//! `zero`. `q` is `[N, B, L]` bytes, the lowest bits of a byte first; `x` `[M, B·V·L]` has its elements in the order in which the `V = 8 / bits`
//! values of all bytes of a block follow each other: `k = (b·V + v)·L + l`. f32; `zeros` are f32 or u8.
//!
//! The weights are read as they are packed, by every run; where there are `few` rows, by each of them. A decomposition would be dequantised when the model is compiled, into 8 times the
//! memory, and so there is none. Source: ONNX Runtime's `MatMulNBits`; Frantar et al., "GPTQ", arXiv 2210.17323.

mod kernel;

use super::{Accuracy, Attr, AttrKind, Op, OpDef, OwnKernel, OwnStages, OwnWork, Role, Sample, SampleType};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// Cycles to unpack a value on vectors of 128 bits: shift, mask, convert, shift and scale, and load, for 4 at a time.
const UNPACK_CYCLES: i64 = 2;

/// The extents of operands that fit.
struct Extents {
    rows: Dim,
    columns: Dim,
    blocks: Dim,
    /// Bytes of a block.
    bytes: Dim,
    /// Values in a byte.
    values: i64,
}

fn extents(op: &Op, inputs: &[Type]) -> Result<Extents, String> {
    if !(3..=4).contains(&inputs.len()) {
        return Err(format!("{} operands, expected 3 or 4", inputs.len()));
    }
    let bits = op.int("bits");
    if ![2, 4, 8].contains(&bits) {
        return Err(format!("{bits} bits, expected 2, 4 or 8"));
    }
    let (x, q) = (&inputs[0], &inputs[1]);
    if x.dtype != DType::F32 || x.rank() != 2 || q.dtype != DType::U8 || q.rank() != 3 {
        return Err(format!("x {x} and q {q}, expected f32 of rank 2 and u8 of rank 3"));
    }
    let e = Extents {
        rows: x.shape[0].clone(),
        columns: q.shape[0].clone(),
        blocks: q.shape[1].clone(),
        bytes: q.shape[2].clone(),
        values: 8 / bits,
    };
    let depth = &(&e.blocks * &e.bytes) * e.values;
    if x.shape[1] != depth {
        return Err(format!("x {x} for the weights {q}, expected {depth} columns"));
    }
    for (name, ty) in ["scale", "zeros"].into_iter().zip(&inputs[2..]) {
        let kind = ty.dtype == DType::F32 || name == "zeros" && ty.dtype == DType::U8;
        if !kind || ty.shape != [e.columns.clone(), e.blocks.clone()] {
            return Err(format!("{name} {ty} for the weights {q}, expected a number of each block"));
        }
    }
    if !op.num("zero").is_finite() {
        return Err(format!("zero {}, expected a number", op.num("zero")));
    }
    Ok(e)
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "packed_product"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("bits", AttrKind::Int), ("zero", AttrKind::Num), ("few", AttrKind::Bool)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let e = extents(op, inputs)?;
        Ok(vec![Type::new(DType::F32, vec![e.rows, e.columns])])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, q) = (inputs[0].to_f64s(), inputs[1].bytes());
        let scale = inputs[2].to_f64s();
        let zeros = inputs.get(3).map(Tensor::to_f64s);
        let &[columns, blocks, bytes] = inputs[1].shape() else {
            return Err("q has not rank 3".into());
        };
        let rows = inputs[0].shape()[0];
        let (bits, values) = (op.int("bits") as usize, 8 / op.int("bits") as usize);
        let depth = blocks * values * bytes;
        let weight = |n: usize, k: usize| {
            let (b, v, l) = (k / (values * bytes), k / bytes % values, k % bytes);
            let own = q[(n * blocks + b) * bytes + l] >> (v * bits);
            let own = f64::from(own & (0xff >> (8 - bits)));
            let zero = zeros.as_ref().map_or(op.num("zero"), |z| z[n * blocks + b]);
            scale[n * blocks + b] * (own - zero)
        };
        Ok(vec![Tensor::from_fn(DType::F32, &[rows, columns], |p| {
            let (m, n) = (p / columns, p % columns);
            Number::Float((0..depth).map(|k| x[m * depth + k] * weight(n, k)).sum())
        })])
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
        use DType::{F32, U8};
        let s = |bits: i64, zero: f64, few: bool, x: &[SampleType]| {
            Sample::new(&[Attr::Int(bits), Attr::num(zero), Attr::Bool(few)], x)
        };
        vec![
            s(4, 8.0, true, &[(F32, &[1, 96]), (U8, &[7, 3, 16]), (F32, &[7, 3])]),
            s(4, 0.0, true, &[(F32, &[1, 256]), (U8, &[70, 2, 64]), (F32, &[70, 2]), (U8, &[70, 2])]),
            s(4, 8.0, false, &[(F32, &[19, 64]), (U8, &[45, 2, 16]), (F32, &[45, 2]), (F32, &[45, 2])]),
            s(2, 2.0, false, &[(F32, &[9, 32]), (U8, &[5, 2, 4]), (F32, &[5, 2])]),
            s(8, 128.0, true, &[(F32, &[1, 32]), (U8, &[9, 1, 32]), (F32, &[9, 1]), (U8, &[9, 1])]),
            s(8, 128.0, false, &[(F32, &[40, 48]), (U8, &[33, 3, 16]), (F32, &[33, 3])]),
            s(2, 1.5, false, &[(F32, &[33, 64]), (U8, &[20, 4, 4]), (F32, &[20, 4]), (F32, &[20, 4])]),
            s(8, 0.0, true, &[(F32, &[2, 64]), (U8, &[18, 4, 16]), (F32, &[18, 4])]),
            s(4, 8.0, false, &[(F32, &[1, 32]), (U8, &[3, 1, 16]), (F32, &[3, 1])]),
            s(4, 8.0, true, &[(F32, &[0, 32]), (U8, &[3, 1, 16]), (F32, &[3, 1])]),
        ]
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        Ok(kernel::kernel(op, &extents(op, inputs)?, inputs, results))
    }
    fn is_fused(&self) -> bool {
        true
    }
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork {
        let e = extents(op, inputs).expect("the operands fit");
        let weights = &(&e.columns * &e.blocks) * &(&e.bytes * e.values);
        OwnWork {
            products: &e.rows * &weights,
            cycles: &weights * UNPACK_CYCLES,
        }
    }
}
