//! `contract{lhs_batch, rhs_batch, lhs_contract, rhs_contract, acc, out}(lhs, rhs)`: sums of products over pairs of dimensions:
//! `out[b…, m…, n…] = Σ_k… lhs[b…, m…, k…] · rhs[b…, n…, k…]` with each operand's dimensions where the attributes say; the
//! result's are the batch dimensions (in the order of `lhs_batch`), then the free ones of lhs, then those of rhs, in order.
//! Products are summed in `acc` and converted to `out`. Source: XLA `DotGeneral`; ONNX `MatMul`, `Gemm` and `Einsum`.

use super::accumulate::{Accumulator, add_scaled, check_dtypes, load, store};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Sample, arity, shape};
use crate::{DType, Dim, Tensor, Type};
use std::num::Wrapping;

/// The operator's definition.
pub struct Def;

/// Which dimensions of an operand are what.
struct Sides {
    lhs: [Vec<usize>; 3],
    rhs: [Vec<usize>; 3],
}

/// Batch, free and contracted dimensions of both operands.
fn sides(op: &Op, ranks: [usize; 2]) -> Result<Sides, String> {
    let side = |batch: &str, contract: &str, rank: usize| {
        let both = [op.ints(batch), op.ints(contract)].concat();
        let both = shape::check_axes(&format!("{batch} and {contract}"), &both, rank)?;
        let (b, c) = both.split_at(op.ints(batch).len());
        let free = (0..rank).filter(|d| !both.contains(d)).collect();
        Ok::<_, String>([b.to_vec(), free, c.to_vec()])
    };
    let lhs = side("lhs_batch", "lhs_contract", ranks[0])?;
    let rhs = side("rhs_batch", "rhs_contract", ranks[1])?;
    shape::check_len("rhs_batch", rhs[0].len(), lhs[0].len())?;
    shape::check_len("rhs_contract", rhs[2].len(), lhs[2].len())?;
    Ok(Sides { lhs, rhs })
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "contract"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("lhs_batch", AttrKind::Ints),
            ("rhs_batch", AttrKind::Ints),
            ("lhs_contract", AttrKind::Ints),
            ("rhs_contract", AttrKind::Ints),
            ("acc", AttrKind::DType),
            ("out", AttrKind::DType),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 2)?;
        let (l, r) = (&inputs[0], &inputs[1]);
        check_dtypes(l, r, op.dtype("acc"), op.dtype("out"))?;
        let s = sides(op, [l.rank(), r.rank()])?;
        for part in [0, 2] {
            for (&a, &b) in s.lhs[part].iter().zip(&s.rhs[part]) {
                if l.shape[a] != r.shape[b] {
                    return Err(format!(
                        "dim {a} of {l} is paired with dim {b} of {r}, expected equal extents"
                    ));
                }
            }
        }
        let dims = |t: &Type, axes: &[usize]| axes.iter().map(|&a| t.shape[a].clone()).collect::<Vec<Dim>>();
        let out = [dims(l, &s.lhs[0]), dims(l, &s.lhs[1]), dims(r, &s.rhs[1])].concat();
        Ok(vec![Type::new(op.dtype("out"), out)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let s = sides(op, [inputs[0].shape().len(), inputs[1].shape().len()])?;
        match op.dtype("acc") {
            DType::F64 => product::<f64>(op, &s, inputs),
            DType::F32 => product::<f32>(op, &s, inputs),
            _ => product::<Wrapping<i64>>(op, &s, inputs),
        }
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{BF16, F16, F32, F64, I8, I32, U8};
        let s = |batch: [&[i64]; 2], contract: [&[i64]; 2], acc, out, l, r| {
            Sample::new(
                &[
                    Attr::ints(batch[0]),
                    Attr::ints(batch[1]),
                    Attr::ints(contract[0]),
                    Attr::ints(contract[1]),
                    Attr::DType(acc),
                    Attr::DType(out),
                ],
                &[l, r],
            )
        };
        vec![
            s([&[], &[]], [&[1], &[0]], F32, F32, (F32, &[3, 5]), (F32, &[5, 7])),
            s([&[], &[]], [&[0], &[1]], F64, F64, (F64, &[4, 2]), (F64, &[3, 4])),
            s(
                [&[0, 1], &[0, 1]],
                [&[3], &[3]],
                F32,
                F32,
                (F32, &[2, 3, 4, 5]),
                (F32, &[2, 3, 6, 5]),
            ),
            s(
                [&[2], &[0]],
                [&[0, 1], &[2, 1]],
                F32,
                F32,
                (F32, &[3, 4, 2]),
                (F32, &[2, 4, 3, 5]),
            ),
            s([&[], &[]], [&[0], &[0]], F32, F16, (F16, &[6]), (F16, &[6])),
            s([&[], &[]], [&[], &[]], F32, BF16, (BF16, &[2]), (BF16, &[1, 3])),
            s([&[0], &[0]], [&[1], &[1]], I32, I32, (U8, &[1, 4, 2]), (I8, &[1, 4, 3])),
            s([&[], &[]], [&[1], &[0]], F32, F32, (F32, &[2, 0]), (F32, &[0, 3])),
            s([&[], &[]], [&[1], &[0]], F32, F32, (F32, &[0, 3]), (F32, &[3, 2])),
        ]
    }
}

/// Both operands are brought to `[batch, free, contract]` and `[batch, contract, free]` order and multiplied row by row.
fn product<T: Accumulator>(op: &Op, s: &Sides, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let extents = |t: &Tensor, axes: &[usize]| axes.iter().map(|&a| t.shape()[a]).collect::<Vec<usize>>();
    let l = shape::permuted(&inputs[0], &s.lhs.concat());
    let r = shape::permuted(&inputs[1], &[&s.rhs[0][..], &s.rhs[2], &s.rhs[1]].concat());
    let (l, r) = (load::<T>(&l), load::<T>(&r));
    let (batch, free_l) = (extents(&inputs[0], &s.lhs[0]), extents(&inputs[0], &s.lhs[1]));
    let (free_r, inner) = (extents(&inputs[1], &s.rhs[1]), extents(&inputs[1], &s.rhs[2]));
    let shape = [&batch[..], &free_l, &free_r].concat();
    let count = |x: &[usize]| x.iter().product::<usize>();
    let (m, n, k) = (count(&free_l), count(&free_r), count(&inner));
    let mut sums = vec![T::ZERO; count(&shape)];
    if n > 0 {
        for (row, out) in sums.chunks_exact_mut(n).enumerate() {
            let b = row / m;
            for i in 0..k {
                add_scaled(out, &r[(b * k + i) * n..], 1, l[row * k + i]);
            }
        }
    }
    Ok(vec![store(&sums, op.dtype("acc"), op.dtype("out"), &shape)])
}
