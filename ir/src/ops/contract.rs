//! `contract{lhs_batch, rhs_batch, lhs_contract, rhs_contract, acc, out}(lhs, rhs)`: sums of products over pairs of dimensions:
//! `out[b…, m…, n…] = Σ_k… lhs[b…, m…, k…] · rhs[b…, n…, k…]` with each operand's dimensions where the attributes say; the
//! result's are the batch dimensions (in the order of `lhs_batch`), then the free ones of lhs, then those of rhs, in order.
//! Operands, which may be of two dtypes, are converted to `acc`, in which products are summed, and sums to `out`. Source: XLA `DotGeneral`; ONNX `MatMul`, `Gemm` and `Einsum`.

use super::accumulate::{Accumulator, add_scaled, check_dtypes, load, store};
use super::{Access, Accuracy, Attr, AttrKind, Draw, Drawn, Op, OpDef, Products, Role, Sample, Sides, Weighing, WindowShape, arity, draw, shape};
use crate::index::{Ix, Var};
use crate::{DType, Dim, Tensor, Type, dim};
use std::num::Wrapping;

/// The operator's definition.
pub struct Def;

/// Which dimensions of an operand are what.
struct Parts {
    lhs: [Vec<usize>; 3],
    rhs: [Vec<usize>; 3],
}

/// Batch, free and contracted dimensions of both operands.
fn parts(op: &Op, ranks: [usize; 2]) -> Result<Parts, String> {
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
    Ok(Parts { lhs, rhs })
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
        let s = parts(op, [l.rank(), r.rank()])?;
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
        let s = parts(op, [inputs[0].shape().len(), inputs[1].shape().len()])?;
        match op.dtype("acc") {
            DType::F64 => product::<f64>(op, &s, inputs),
            DType::F32 => product::<f32>(op, &s, inputs),
            _ => product::<Wrapping<i64>>(op, &s, inputs),
        }
    }
    fn weighing(&self, op: &Op, [x, w]: [usize; 2]) -> Option<Weighing> {
        let plain = op.ints("lhs_batch").is_empty() && op.ints("lhs_contract").len() == 1 && w == 2;
        plain.then(|| {
            let inner = op.axes("rhs_contract")[0];
            Weighing {
                x: op.axes("lhs_contract")[0],
                inner,
                outer: 1 - inner,
                y: x - 1,
            }
        })
    }
    fn role(&self) -> Role {
        Role::Contract(&Def)
    }
    fn weights(&self) -> Option<usize> {
        Some(1)
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let ints = |d: &dyn Draw, i: usize| match d.fixed(i) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        };
        let count = |d: &dyn Draw, i: usize| ints(d, i).or_else(|| ints(d, i + 1)).map(|v| v.len());
        // A left operand with a type of its own decides extents, and often is a stack of matrices.
        let left = if d.is_natural(0) { Some(d.operand(0, None)?) } else { None };
        let given = left.map(|v| d.ty(v).shape);
        let matrices = given.as_ref().map(Vec::len).filter(|&r| r >= 2 && d.chance(70));
        // Else all of its axes are summed over, now and then.
        let whole = given.as_ref().map(Vec::len).filter(|_| matrices.is_none() && d.chance(40));
        let nb = count(d, 0).or(matrices.map(|r| r - 2)).or(whole.map(|_| 0)).unwrap_or_else(|| draw::pick(d, &[0, 0, 1, 1, 2]));
        let nc = count(d, 2).or(matrices.map(|_| 1)).or(whole).unwrap_or_else(|| draw::pick(d, &[1, 1, 1, 2]));
        let mut shared: Vec<Dim> = (0..nb + nc).map(|_| Dim::from(d.extent())).collect();
        let (mut types, mut batches, mut contracted) = (vec![], vec![], vec![]);
        for side in 0..2 {
            let given = given.as_ref().filter(|_| side == 0);
            let rank = given.map_or_else(|| nb + nc + draw::pick(d, &[1, 1, 1, 2, 0]), Vec::len);
            let (fixed_batch, fixed_contract) = (ints(d, side), ints(d, 2 + side));
            let mut places: Vec<i64> = (0..rank as i64).collect();
            if given.is_some() && matrices.is_some() {
                places.swap(rank - 2, rank - 1);
            } else if !d.chance(60) {
                places = draw::permutation(d, rank);
            }
            if rank < nb + nc {
                return None;
            }
            let batch = fixed_batch.unwrap_or_else(|| places[..nb].to_vec());
            places.retain(|p| !batch.contains(p));
            if !(given.is_some() && matrices.is_some()) && d.chance(40) {
                places.reverse();
            }
            let contract = fixed_contract.unwrap_or_else(|| places.iter().copied().take(nc).collect());
            let paired: Vec<i64> = batch.iter().chain(&contract).copied().collect();
            if paired.iter().any(|&p| p as usize >= rank) || batch.len() != nb || contract.len() != nc {
                return None;
            }
            if let Some(shape) = given {
                paired.iter().zip(&mut shared).for_each(|(&p, e)| *e = shape[p as usize].clone());
            }
            let mut shape: Vec<Dim> = (0..rank).map(|_| Dim::from(d.extent())).collect();
            paired.iter().zip(&shared).for_each(|(&p, e)| shape[p as usize] = e.clone());
            // A right operand may be stored in fewer bits.
            let narrow = side == 1 && d.dtype() == DType::F32 && d.chance(15);
            let dtype = if narrow { draw::pick(d, &DType::HALVES) } else { d.dtype() };
            types.push(Type::new(dtype, shape));
            batches.push(Attr::Ints(batch));
            contracted.push(Attr::Ints(contract));
        }
        let left = match left {
            Some(v) => v,
            None => d.operand(0, Some(&types[0]))?,
        };
        let inputs = vec![left, d.operand(1, Some(&types[1]))?];
        let (acc, out) = draw::sum_dtypes(d);
        let drawn = [batches, contracted, vec![Attr::DType(acc), Attr::DType(out)]].concat();
        Some(Drawn {
            attrs: draw::attrs(d, drawn)?,
            inputs,
        })
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
            s([&[], &[]], [&[1], &[0]], I32, I32, (U8, &[5, 11]), (I8, &[11, 35])),
            s([&[], &[]], [&[1], &[1]], F32, F16, (F16, &[4, 9]), (F16, &[33, 9])),
            s([&[], &[]], [&[1], &[0]], F32, BF16, (BF16, &[7, 6]), (BF16, &[6, 20])),
            s([&[], &[]], [&[1], &[1]], F32, F32, (F32, &[5, 9]), (F16, &[35, 9])),
            s([&[], &[]], [&[1], &[0]], F32, BF16, (F32, &[3, 6]), (BF16, &[6, 20])),
            s([&[0], &[0]], [&[2], &[1]], F32, F32, (F16, &[2, 3, 4]), (F32, &[2, 4, 6])),
            s([&[], &[]], [&[1], &[0]], F32, F32, (F32, &[2, 0]), (F32, &[0, 3])),
            s([&[], &[]], [&[1], &[0]], F32, F32, (F32, &[0, 3]), (F32, &[3, 2])),
        ]
    }
}

impl Products for Def {
    fn sides(&self, op: &Op, inputs: &[Type], out: &Type) -> Sides {
        let (lc, rc) = (op.axes("lhs_contract"), op.axes("rhs_contract"));
        let access = |rank: usize, batch: &[usize], contract: &[usize], first_free: usize| {
            let mut free = first_free..;
            let along = |d| {
                let batch = batch.iter().position(|&x| x == d);
                let term = contract.iter().position(|&x| x == d).map(|i| out.rank() + i);
                let var = batch.or(term).or_else(|| free.next());
                Ix::var(Var(var.expect("there is no end of free ones") as u32))
            };
            Access::of((0..rank).map(along).collect())
        };
        let (lb, rb) = (op.axes("lhs_batch"), op.axes("rhs_batch"));
        let (l, r) = (&inputs[0], &inputs[1]);
        Sides {
            reads: [
                access(l.rank(), &lb, &lc, lb.len()),
                access(r.rank(), &rb, &rc, l.rank() - lc.len()),
            ],
            extents: lc.iter().map(|&d| l.shape[d].clone()).collect(),
        }
    }
    fn depth(&self, op: &Op, inputs: &[Type]) -> Dim {
        dim::product(op.axes("lhs_contract").iter().map(|&a| &inputs[0].shape[a]))
    }
    fn window(&self, _: &Op, _: &[Type]) -> Option<WindowShape> {
        None
    }
}

/// Both operands are brought to `[batch, free, contract]` and `[batch, contract, free]` order and multiplied row by row.
fn product<T: Accumulator>(op: &Op, s: &Parts, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
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
