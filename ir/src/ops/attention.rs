//! `attention{q_order, k_order, v_order, y_order, scale, softcap, hidden, causal, offset, zeros}(q, k, v[, bias][, mask])`:
//! `y = softmax{zeros}(s) v` with `s = scale · q kᵀ`, `s = softcap · tanh(s / softcap)` where that is above 0, `s += bias`,
//! `hidden` where the mask is false, and `-∞` where `causal` and a key lies behind `offset` + the query. In logical order `q` is
//! `[batch…, S, D]`, `k` `[batch…, K, D]`, `v` `[batch…, K, E]`, `y` `[batch…, S, E]` and `bias` and the mask (of bools)
//! `[batch…, S, K]`, each extent of them its own or 1; the last batch dimension of `k` and `v` may be a part of that of `q`, whose
//! neighbours share them. An order lists the axis of the tensor that each logical one is. f32 or f64.
//!
//! It is one kernel that has the scores of a few queries at a time, so that no matrix of them is in memory. Source: ONNX
//! `Attention`; Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022.

mod kernel;

use super::softmax::{Zeros, weigh};
use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Op, OpDef, OwnWork, Role, Sample, SampleType, TreeKernel, compose, draw, shape};
use crate::structured::Kernel;
use crate::{Build, DType, Dim, Number, Tensor, Type, Value, dim};

/// The operator's definition.
pub struct Def;

/// The largest known offset: beyond any sequence, and far from overflow.
const FARTHEST: i64 = 1 << 48;

/// Arithmetic on a score: what a softmax does, and the mask.
const SCORE_CYCLES: i64 = 12;

/// The same on what is kept of a query, for each block of keys.
const ROW_CYCLES: i64 = 400;

/// Queries below which products that read keys and values in place are faster.
const FEW: i64 = 4;

/// The same to pack an element of keys or values for tiles, which do one product with it or few.
const PACK_CYCLES: i64 = 8;

/// The logical extents of operands that fit.
struct Extents {
    batch: Vec<Dim>,
    /// The last batch extent of keys and values.
    shared: Option<Dim>,
    queries: Dim,
    keys: Dim,
    size: Dim,
    /// The size of values.
    out: Dim,
}

/// The extents of a type in logical order.
fn logical(op: &Op, order: &str, ty: &Type) -> Result<Vec<Dim>, String> {
    let axes = op.ints(order);
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if sorted.len() != ty.rank() || !sorted.iter().enumerate().all(|(i, &a)| a == i as i64) {
        return Err(format!("{order} {axes:?} of {ty}, expected a permutation"));
    }
    Ok(axes.iter().map(|&a| ty.shape[a as usize].clone()).collect())
}

fn extents(op: &Op, inputs: &[Type]) -> Result<Extents, String> {
    if !(3..=5).contains(&inputs.len()) {
        return Err(format!("{} operands, expected 3 to 5", inputs.len()));
    }
    if !matches!(inputs[0].dtype, DType::F32 | DType::F64) || inputs[0].rank() < 2 {
        return Err(format!("q is {}, expected f32 or f64 of rank 2 or more", inputs[0]));
    }
    let (q, k, v) = (
        logical(op, "q_order", &inputs[0])?,
        logical(op, "k_order", &inputs[1])?,
        logical(op, "v_order", &inputs[2])?,
    );
    let n = q.len() - 2;
    let shared = k.len().checked_sub(3).map(|i| k[i].clone());
    let batch = q[..n].to_vec();
    let parts = match (&shared, batch.last()) {
        (Some(few), Some(many)) => many.exact_div(few).is_some_and(|g| g.is_at_least(1)) && k.len() == q.len(),
        (None, None) => k.len() == 2,
        _ => false,
    };
    let rest = n.saturating_sub(1);
    if !parts || k[..rest] != batch[..rest] || v.len() != k.len() || v[..n] != k[..n] {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        return Err(format!("batch dimensions of q {q}, k {k} and v {v}, expected equal ones, or a multiple in q's last"));
    }
    if q[n + 1] != k[n + 1] || k[n] != v[n] {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        return Err(format!("q {q}, k {k} and v {v}, expected one size of heads and one number of keys"));
    }
    let added = Added::of(inputs);
    if inputs[1..].iter().enumerate().any(|(i, t)| t.dtype != inputs[0].dtype && added.mask != Some(i + 1)) {
        return Err(format!("operands of other types than {}", inputs[0].dtype));
    }
    for extra in &inputs[3..] {
        let want = batch.iter().chain([&q[n], &k[n]]);
        let fits = extra.rank() == q.len() && extra.shape.iter().zip(want).all(|(b, w)| b.is(1) || b == w);
        if !fits {
            return Err(format!("bias or mask {extra}, expected one that spreads over scores of q {}", inputs[0]));
        }
    }
    if added.bias.is_none() && added.mask.is_none() != (inputs.len() == 3) || inputs.len() == 5 && added.mask != Some(4) {
        return Err("operands beyond q, k and v, expected a bias, then a mask".into());
    }
    Zeros::of(op)?;
    match op.dims("offset") {
        [d] if d.as_const().is_none_or(|n| n.unsigned_abs() <= FARTHEST as u64) => {}
        [d] => return Err(format!("offset {d}, expected at most {FARTHEST} in magnitude")),
        d => return Err(format!("{} offsets, expected 1", d.len())),
    }
    if !op.num("scale").is_finite() || op.num("softcap").is_nan() || op.num("softcap") < 0.0 {
        return Err(format!("scale {} and softcap {}, expected numbers, the latter not below 0", op.num("scale"), op.num("softcap")));
    }
    Ok(Extents {
        batch,
        shared,
        queries: q[n].clone(),
        keys: k[n].clone(),
        size: q[n + 1].clone(),
        out: v[n + 1].clone(),
    })
}

/// The operands beside q, k and v, by position.
struct Added {
    bias: Option<usize>,
    mask: Option<usize>,
}

impl Added {
    fn of(inputs: &[Type]) -> Added {
        let mask = (3..inputs.len()).rfind(|&i| inputs[i].dtype == DType::Bool);
        Added {
            bias: (inputs.len() > 3 && mask != Some(3)).then_some(3),
            mask,
        }
    }
}

/// An operand that spreads over the scores, element by element.
fn spread(t: &Tensor, scores: &[usize]) -> Vec<f64> {
    let strides = shape::strides(t.shape());
    let steps: Vec<i64> = strides.iter().zip(t.shape()).map(|(s, n)| if *n == 1 { 0 } else { *s }).collect();
    let all = t.to_f64s();
    let mut out = vec![];
    shape::walk(scores, 0, &steps, |p| out.push(all[p]));
    out
}

/// The inverse of an order: the logical axis of each axis of the tensor.
fn inverse(order: &[i64]) -> Vec<i64> {
    let mut out = vec![0; order.len()];
    for (i, &a) in order.iter().enumerate() {
        out[a as usize] = i as i64;
    }
    out
}

/// A tensor's elements in logical order.
fn ordered(op: &Op, order: &str, t: &Tensor) -> Vec<f64> {
    let axes = op.axes(order);
    let strides = shape::strides(t.shape());
    let sizes: Vec<usize> = axes.iter().map(|&a| t.shape()[a]).collect();
    let steps: Vec<i64> = axes.iter().map(|&a| strides[a]).collect();
    let all = t.to_f64s();
    let mut out = Vec::with_capacity(all.len());
    shape::walk(&sizes, 0, &steps, |p| out.push(all[p]));
    out
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "attention"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[
            ("q_order", AttrKind::Ints),
            ("k_order", AttrKind::Ints),
            ("v_order", AttrKind::Ints),
            ("y_order", AttrKind::Ints),
            ("scale", AttrKind::Num),
            ("softcap", AttrKind::Num),
            ("hidden", AttrKind::Num),
            ("causal", AttrKind::Bool),
            ("offset", AttrKind::Dims),
            ("zeros", AttrKind::Word),
        ]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let e = extents(op, inputs)?;
        let all: Vec<Dim> = e.batch.iter().chain([&e.queries, &e.out]).cloned().collect();
        let order = op.ints("y_order");
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted.len() != all.len() || !sorted.iter().enumerate().all(|(i, &a)| a == i as i64) {
            return Err(format!("y_order {order:?}, expected a permutation of {} axes", all.len()));
        }
        let shape: Vec<Dim> = inverse(order).iter().map(|&i| all[i as usize].clone()).collect();
        Ok(vec![Type::new(inputs[0].dtype, shape)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let types: Vec<Type> = inputs.iter().map(|t| Type::fixed(t.dtype(), t.shape())).collect();
        let e = extents(op, &types)?;
        let size = |d: &Dim| d.as_const().expect("known") as usize;
        let (queries, keys, depth, out) = (size(&e.queries), size(&e.keys), size(&e.size), size(&e.out));
        let batch: Vec<usize> = e.batch.iter().map(size).collect();
        let sharing = match (&e.shared, batch.last()) {
            (Some(few), Some(many)) => many / size(few).max(1),
            _ => 1,
        };
        let (q, k, v) = (
            ordered(op, "q_order", &inputs[0]),
            ordered(op, "k_order", &inputs[1]),
            ordered(op, "v_order", &inputs[2]),
        );
        let scores_shape = [&batch[..], &[queries, keys]].concat();
        let added = Added::of(&types);
        let [bias, mask] = [added.bias, added.mask].map(|i| i.map(|i| spread(&inputs[i], &scores_shape)));
        let (cap, offset, zeros) = (op.num("softcap"), op.sizes("offset")[0], Zeros::of(op)?);
        let mut y = vec![];
        for b in 0..batch.iter().product::<usize>() {
            for i in 0..queries {
                let score = |j: usize| {
                    let (at, key) = ((b * queries + i) * depth, (b / sharing * keys + j) * depth);
                    let mut s: f64 = (0..depth).map(|d| q[at + d] * k[key + d]).sum::<f64>() * op.num("scale");
                    if cap > 0.0 {
                        s = cap * (s / cap).tanh();
                    }
                    let place = (b * queries + i) * keys + j;
                    s += bias.as_ref().map_or(0.0, |x| x[place]);
                    if mask.as_ref().is_some_and(|m| m[place] == 0.0) {
                        s = op.num("hidden");
                    }
                    let hidden = op.flag("causal") && j as i64 > offset + i as i64;
                    if hidden { f64::NEG_INFINITY } else { s }
                };
                let mut weights: Vec<f64> = (0..keys).map(score).collect();
                weigh(&mut weights, zeros);
                for c in 0..out {
                    let of = |j: usize| weights[j] * v[(b / sharing * keys + j) * out + c];
                    y.push((0..keys).fold(0.0, |sum, j| sum + of(j)));
                }
            }
        }
        // From logical order to that of the result.
        let order = op.axes("y_order");
        let logical_shape = [&batch[..], &[queries, out]].concat();
        let strides = shape::strides(&logical_shape);
        let back = inverse(op.ints("y_order"));
        let sizes: Vec<usize> = back.iter().map(|&i| logical_shape[i as usize]).collect();
        let steps: Vec<i64> = back.iter().map(|&i| strides[i as usize]).collect();
        debug_assert_eq!(order.len(), sizes.len());
        let mut places = vec![];
        shape::walk(&sizes, 0, &steps, |p| places.push(p));
        Ok(vec![Tensor::from_fn(inputs[0].dtype(), &sizes, |p| Number::Float(y[places[p]]))])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let types: Vec<Type> = inputs.iter().map(|&v| b.type_of(v)).collect();
        let e = extents(op, &types)?;
        let (n, dtype) = (e.batch.len(), types[0].dtype);
        let turned = |b: &mut dyn Build, v: Value, order: &[i64]| match order.is_sorted() {
            true => Ok(v),
            false => b.call("transpose", &[Attr::ints(order)], &[v]),
        };
        let q = turned(b, inputs[0], op.ints("q_order"))?;
        let mut sides = [turned(b, inputs[1], op.ints("k_order"))?, turned(b, inputs[2], op.ints("v_order"))?];
        if let (Some(few), Some(many)) = (&e.shared, e.batch.last())
            && few != many
        {
            let times = many.exact_div(few).ok_or("a number of heads that is no multiple")?;
            for side in &mut sides {
                let s = b.type_of(*side).shape;
                let apart = [&s[..n], &[Dim::ONE], &s[n..]].concat();
                let mut wide = apart.clone();
                wide[n] = times.clone();
                let v = b.reshaped(*side, &apart)?;
                let v = b.spread(v, &wide)?;
                *side = b.reshaped(v, &[&e.batch[..], &s[n..]].concat())?;
            }
        }
        let [k, v] = sides;
        let batch: Vec<usize> = (0..n).collect();
        let product = |b: &mut dyn Build, l: Value, r: Value, over: [usize; 2]| {
            let attrs = [
                Attr::axes(&batch),
                Attr::axes(&batch),
                Attr::axes(&[over[0]]),
                Attr::axes(&[over[1]]),
                Attr::DType(dtype),
                Attr::DType(dtype),
            ];
            b.call("contract", &attrs, &[l, r])
        };
        let mut s = product(b, q, k, [n + 1, n + 1])?;
        s = compose::with_number(b, "mul", s, op.num("scale"))?;
        let cap = op.num("softcap");
        if cap > 0.0 {
            s = compose::with_number(b, "div", s, cap)?;
            s = compose::map(b, "tanh", &[s])?;
            s = compose::with_number(b, "mul", s, cap)?;
        }
        let added = Added::of(&types);
        if let Some(i) = added.bias {
            s = compose::with_spread(b, "add", s, inputs[i])?;
        }
        let shape = b.type_of(s).shape;
        if let Some(i) = added.mask {
            let seen = b.spread(inputs[i], &shape)?;
            let hidden = b.splat(dtype, &shape, op.num("hidden"))?;
            s = compose::map(b, "where", &[seen, s, hidden])?;
        }
        if op.flag("causal") {
            let plane = Attr::Dims(vec![e.queries.clone(), e.keys.clone()]);
            let iota = |b: &mut dyn Build, axis: i64| {
                b.call("iota", &[Attr::DType(DType::I64), plane.clone(), Attr::Int(axis)], &[])
            };
            let (row, column) = (iota(b, 0)?, iota(b, 1)?);
            let offset = b.call("dims", &[Attr::Dims(op.dims("offset").to_vec())], &[])?;
            let row = compose::with_spread(b, "add", row, offset)?;
            let seen = compose::map(b, "less_or_equal", &[column, row])?;
            let seen = b.spread(seen, &shape)?;
            let never = b.splat(dtype, &shape, f64::NEG_INFINITY)?;
            s = compose::map(b, "where", &[seen, s, never])?;
        }
        let p = b.call("softmax", &[Attr::Int(n as i64 + 1), Attr::word(op.word("zeros"))], &[s])?;
        let y = product(b, p, v, [n + 1, n])?;
        let y = turned(b, y, &inverse(op.ints("y_order")))?;
        Ok(Some(vec![y]))
    }
    fn role(&self) -> Role {
        Role::Tree(&Def)
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn draw(&self, d: &mut dyn Draw, _: Option<&Type>) -> Option<Drawn> {
        let n = d.below(3);
        let batch: Vec<Dim> = d.shape(Some(n));
        let [queries, keys, size, out] = [(); 4].map(|()| Dim::from(d.extent()));
        let logical = [
            [&batch[..], &[queries.clone(), size.clone()]].concat(),
            [&batch[..], &[keys.clone(), size]].concat(),
            [&batch[..], &[keys.clone(), out]].concat(),
        ];
        let orders: Vec<Vec<i64>> = (0..4).map(|_| draw::permutation(d, n + 2)).collect();
        let mut attrs: Vec<Attr> = orders.iter().map(|o| Attr::ints(o)).collect();
        attrs.extend([draw::pick(d, &[1.0, 0.5]), draw::pick(d, &[0.0, 2.0]), f64::NEG_INFINITY].map(Attr::num));
        attrs.extend([Attr::Bool(d.chance(50)), Attr::dims(&[d.below(4) as i64 - 1])]);
        attrs.push(Attr::word(draw::pick(d, &["never", "unseen", "undefined"])));
        let attrs = draw::attrs(d, attrs)?;
        let scores: Vec<Dim> = [&batch[..], &[queries, keys]].concat();
        let types = orders.iter().zip(&logical).map(|(order, shape)| {
            let own = inverse(order).iter().map(|&i| shape[i as usize].clone()).collect::<Vec<Dim>>();
            Type::new(d.dtype(), own)
        });
        let beside = [d.dtype(), DType::Bool].map(|dtype| Type::new(dtype, scores.clone()));
        let all: Vec<Type> = types.collect::<Vec<_>>().into_iter().chain(beside).collect();
        let mut inputs = vec![];
        for ty in all.iter().map(Some).chain([None]) {
            match d.next_operand(ty)? {
                Some(v) => inputs.push(v),
                None => break,
            }
        }
        Some(Drawn { attrs, inputs })
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{Bool, F32, F64};
        let with = |orders: [&[i64]; 4], scale: f64, cap: f64, causal: Option<i64>, zeros: &str, x: &[SampleType]| {
            let mut attrs: Vec<Attr> = orders.iter().map(|o| Attr::ints(o)).collect();
            attrs.extend([
                Attr::num(scale),
                Attr::num(cap),
                Attr::num(-1000.0),
                Attr::Bool(causal.is_some()),
                Attr::dims(&[causal.unwrap_or(0)]),
                Attr::word(zeros),
            ]);
            Sample::new(&attrs, x)
        };
        let s = |orders, scale, cap, causal, x: &[SampleType]| with(orders, scale, cap, causal, "unseen", x);
        const PLAIN: &[i64] = &[0, 1, 2, 3];
        const HEADS: &[i64] = &[0, 2, 1, 3];
        vec![
            s([PLAIN; 4], 0.25, 0.0, None, &[
                (F32, &[1, 2, 5, 16]),
                (F32, &[1, 2, 7, 16]),
                (F32, &[1, 2, 7, 8]),
            ]),
            s([HEADS; 4], 0.5, 0.0, Some(2), &[
                (F32, &[2, 9, 4, 4]),
                (F32, &[2, 11, 2, 4]),
                (F32, &[2, 11, 2, 40]),
            ]),
            s([PLAIN, &[0, 1, 3, 2], PLAIN, HEADS], 0.125, 3.0, None, &[
                (F32, &[1, 3, 2, 8]),
                (F32, &[1, 3, 8, 150]),
                (F32, &[1, 3, 150, 8]),
                (F32, &[1, 1, 2, 150]),
            ]),
            s([&[0, 1]; 4], 1.0, 0.0, Some(0), &[(F64, &[3, 2]), (F64, &[4, 2]), (F64, &[4, 3]), (F64, &[3, 1])]),
            s([&[0, 1, 2]; 4], 1.0, 0.0, Some(-1), &[(F32, &[2, 20, 3]), (F32, &[2, 0, 3]), (F32, &[2, 0, 3])]),
            s([&[0, 1, 2]; 4], 0.5, 0.0, Some(-1), &[(F32, &[2, 20, 3]), (F32, &[2, 200, 3]), (F32, &[2, 200, 3])]),
            with([PLAIN; 4], 0.25, 0.0, None, "never", &[
                (F32, &[2, 2, 17, 8]),
                (F32, &[2, 1, 49, 8]),
                (F32, &[2, 1, 49, 8]),
                (F32, &[1, 2, 17, 49]),
                (Bool, &[2, 1, 1, 49]),
            ]),
            with([PLAIN; 4], 0.25, 0.0, None, "undefined", &[
                (F32, &[1, 2, 3, 4]),
                (F32, &[1, 2, 5, 4]),
                (F32, &[1, 2, 5, 4]),
                (Bool, &[1, 1, 3, 5]),
            ]),
            with([&[0, 1]; 4], 1.0, 0.0, None, "never", &[(F32, &[3, 2]), (F32, &[4100, 2]), (F32, &[4100, 1])]),
        ]
    }
}

impl TreeKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], result: &Type) -> Result<Kernel, String> {
        kernel::kernel(op, &extents(op, inputs)?, inputs, result)
    }
    fn work(&self, op: &Op, inputs: &[Type]) -> OwnWork {
        let e = extents(op, inputs).expect("the operands fit");
        let rows = &dim::product(&e.batch) * &e.queries;
        let scores = &dim::product(&e.batch) * &kernel::seen(op, &e);
        let products = &scores * &(&e.size + &e.out);
        let mut cycles = &(&scores * SCORE_CYCLES) + &(&(&rows * &kernel::blocks(op, &e)) * ROW_CYCLES);
        if e.queries.as_const().is_some_and(|n| n < FEW) {
            cycles = &cycles + &(&products * PACK_CYCLES);
        }
        OwnWork { products, cycles }
    }
    /// Keys and values, which are read for many queries in panels that have them computed, and for few in place.
    fn may_compute(&self, operand: usize) -> bool {
        matches!(operand, 1 | 2)
    }
}
