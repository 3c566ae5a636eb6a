//! Sorting by core operators: keys whose order as unsigned integers is the order that is asked for, positions by counting what
//! comes before, a network for long rows, and `TopK`.
//!
//! Rows are the last dimension of two. What comes first has the larger key; of equal keys the one of lower position comes
//! first.

use super::*;
use brolga_ir::{Attr, DType, Dim, Number, dim::product};

/// Rows of up to so many elements are sorted by comparing all pairs.
const PAIRS: i64 = 256;
/// So are those that were selected from longer ones, since there are few of them.
const PAIRS_SELECTED: i64 = 1024;

/// `TopK`: `k` is an attribute before version 10, an operand since. The results are always sorted.
///
/// Of long rows the `k` first are selected: the key of the last one of them is found bit by bit, by counting the keys that are
/// as large. They are then sorted.
pub fn top_k(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 2)?;
    let x = ctx.input(0)?;
    let rank = graph.rank(x);
    let axis = node::axis(ctx.int("axis", -1)?, rank)?;
    let n = graph.shape(x)[axis].clone();
    let k = match ctx.optional(1) {
        Some(v) => {
            let sizes = graph.sizes_operand(v, "k", &[Some(n.clone())])?;
            sizes.first().cloned().ok_or("an empty k")?
        }
        None => Dim::Const(ctx.opt_int("k")?.ok_or("k is missing")?),
    };
    graph
        .require_at_most(&Dim::ZERO, &k)
        .and_then(|()| graph.require_at_most(&k, &n))
        .map_err(|_| Fail::Bad(format!("k = {} of {} elements", k.brief(), n.brief())))?;
    let largest = ctx.flag("largest", true)?;
    // [rows, n].
    let mut order: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
    order.push(axis);
    let turned = graph.transpose(x, &order)?;
    let outer = graph.shape(turned)[..rank - 1].to_vec();
    let rows = graph.reshape(turned, vec![product(&outer), n])?;
    let key = graph.sort_key(rows, largest)?;
    let at = graph.first_positions(key, &k)?;
    let values = graph.op("gather_elements", &[Attr::Int(1)], &[rows, at])?;
    let mut back: Vec<usize> = (0..rank - 1).collect();
    back.insert(axis, rank - 1);
    let shape = [&outer[..], &[k]].concat();
    let mut results = vec![];
    for v in [values, at] {
        let v = graph.reshape(v, shape.clone())?;
        results.push(graph.transpose(v, &back)?);
    }
    Ok(results)
}

impl Builder<'_> {
    /// Unsigned integers that are ordered as numbers are (`descending`: the largest one first). NaN counts as the largest
    /// number, -0 is 0.
    ///
    /// # Errors
    /// When the dtype has no order.
    pub fn sort_key(&mut self, x: Value, descending: bool) -> One {
        let key = match self.dtype(x) {
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => x,
            DType::Bool => self.cast(x, DType::U8)?,
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => self.flipped(x)?,
            _ => self.float_key(x)?,
        };
        match descending {
            true => Ok(key),
            false => self.op("bitwise_not", &[], &[key]),
        }
    }

    /// A signed integer with the sign bit turned over, as an unsigned one.
    fn flipped(&mut self, x: Value) -> One {
        let dtype = self.dtype(x);
        let unsigned = match dtype.bits() {
            8 => DType::U8,
            16 => DType::U16,
            32 => DType::U32,
            _ => DType::U64,
        };
        let least = -(1i128 << (dtype.bits() - 1)) as i64;
        let x = self.map_num("bitwise_xor", x, least)?;
        self.op("bitcast", &[Attr::DType(unsigned)], &[x])
    }

    /// The bits of a float, of which a negative one's are turned over but for the sign.
    fn float_key(&mut self, x: Value) -> One {
        let x = self.widen(x)?;
        let float = self.dtype(x);
        let (bits, magnitude) = match float {
            DType::F64 => (DType::I64, i64::MAX),
            DType::F32 => (DType::I32, i32::MAX as i64),
            d => return Err(Fail::Bad(format!("an order of {d}"))),
        };
        let zero = self.map_num("equal", x, 0.0)?;
        let plus = self.scalar(float, 0.0);
        let whole = self.map("where", &[zero, plus, x])?;
        let raw = self.op("bitcast", &[Attr::DType(bits)], &[whole])?;
        let turned = self.map_num("bitwise_xor", raw, magnitude)?;
        let below = self.map_num("less", raw, 0)?;
        let ordered = self.map("where", &[below, turned, raw])?;
        let nan = self.op("is_nan", &[], &[x])?;
        let top = self.scalar(bits, magnitude);
        let ordered = self.map("where", &[nan, top, ordered])?;
        self.flipped(ordered)
    }

    /// The positions [rows, k] of the first `k` keys of each row, in order.
    ///
    /// # Errors
    /// When an operator does not accept the operands.
    pub fn first_positions(&mut self, key: Value, k: &Dim) -> One {
        let shape = self.shape(key);
        let (rows, n) = (shape[0].clone(), shape[1].clone());
        if k.is(0) || n.is(0) {
            return self.splat(DType::I64, &[rows, k.clone()], 0);
        }
        if k.is(1) {
            return self.op(
                "arg_reduce",
                &[Attr::word("max"), Attr::Int(1), Attr::Bool(false)],
                &[key],
            );
        }
        let most = match (n.as_const(), k.as_const()) {
            (Some(n), _) if n <= PAIRS => None,
            // Where most are asked for, all are sorted.
            (Some(n), Some(k)) if n - k < k => None,
            _ if *k == n => None,
            _ => Some(self.leading(key, k)?),
        };
        let Some(at) = most else {
            let order = self.order(key, PAIRS)?;
            return self.slice_axis(order, 1, Dim::ZERO, k.clone());
        };
        let few = self.op("gather_elements", &[Attr::Int(1)], &[key, at])?;
        let order = self.order(few, PAIRS_SELECTED)?;
        self.op("gather_elements", &[Attr::Int(1)], &[at, order])
    }

    /// The positions of all keys of each row, in order.
    ///
    /// # Errors
    /// When an operator does not accept the operands.
    pub fn sorted_positions(&mut self, key: Value) -> One {
        self.order(key, PAIRS)
    }

    fn order(&mut self, key: Value, pairs: i64) -> One {
        match self.shape(key)[1].as_const() {
            Some(n) if n <= pairs => self.order_by_pairs(key),
            _ => self.order_by_network(key),
        }
    }

    /// By how many keys come before each one.
    fn order_by_pairs(&mut self, key: Value) -> One {
        let shape = self.shape(key);
        let n = shape[1].clone();
        let (this, other) = (self.unsqueeze(key, &[2])?, self.unsqueeze(key, &[1])?);
        let larger = self.map("greater", &[other, this])?;
        let equal = self.map("equal", &[other, this])?;
        let plane = [Dim::ONE, n.clone(), n];
        let (row, column) = (self.iota(DType::I32, &plane, 1)?, self.iota(DType::I32, &plane, 2)?);
        let earlier = self.map("less", &[column, row])?;
        let tie = self.map("and", &[equal, earlier])?;
        let before = self.map("or", &[larger, tie])?;
        let before = self.cast(before, DType::I32)?;
        let place = self.reduce("sum", &[2], before)?;
        let place = self.squeeze(place, &[2])?;
        self.scattered(place, &shape)
    }

    /// The positions of elements where their places say: `out[place[i]] = i`, in a tensor of a shape.
    fn scattered(&mut self, place: Value, shape: &[Dim]) -> One {
        let from = self.shape(place);
        let position = self.iota(DType::I64, &from, 1)?;
        let empty = self.splat(DType::I64, shape, 0)?;
        let attrs = [Attr::Int(1), Attr::word("none")];
        self.op("scatter_elements", &attrs, &[empty, place, position])
    }

    /// The positions of the first `k` keys of each row, in the order of positions.
    fn leading(&mut self, key: Value, k: &Dim) -> One {
        let dtype = self.dtype(key);
        let rows = self.shape(key)[0].clone();
        let wanted = self.dim_scalar(k, DType::I64)?;
        // The largest number that no fewer than k keys are as large as: the key of the last one.
        let none = self.splat(dtype, &[rows.clone(), Dim::ONE], 0)?;
        let top = self.scalar(dtype, Number::Int(1 << (dtype.bits() - 1)));
        let done = self.repeat_while(
            &[top, none],
            &[key, wanted],
            |b, v| b.map_num("greater", v[0], 0),
            |b, v| {
                let with = b.map("bitwise_or", &[v[1], v[0]])?;
                let as_large = b.map("greater_or_equal", &[v[2], with])?;
                let count = b.count(as_large)?;
                let enough = b.map("greater_or_equal", &[count, v[3]])?;
                let next = b.map("where", &[enough, with, v[1]])?;
                Ok(vec![b.map_num("shift_right", v[0], 1)?, next])
            },
        )?;
        let last = done[1];
        let larger = self.map("greater", &[key, last])?;
        let equal = self.map("equal", &[key, last])?;
        let surely = self.count(larger)?;
        let room = self.map("sub", &[wanted, surely])?;
        let before = self.running(equal)?;
        let fits = self.map("less", &[before, room])?;
        let fits = self.map("and", &[equal, fits])?;
        let taken = self.map("or", &[larger, fits])?;
        // What is not taken goes behind the others.
        let place = self.running(taken)?;
        let place = self.map("where", &[taken, place, wanted])?;
        let slots = self.scattered(place, &[rows, k + &Dim::ONE])?;
        self.slice_axis(slots, 1, Dim::ZERO, k.clone())
    }

    /// How many of a row are true, [rows, 1].
    fn count(&mut self, flags: Value) -> One {
        let flags = self.cast(flags, DType::I32)?;
        let count = self.reduce("sum", &[1], flags)?;
        self.cast(count, DType::I64)
    }

    /// How many of a row are true before each element.
    fn running(&mut self, flags: Value) -> One {
        let flags = self.cast(flags, DType::I64)?;
        let attrs = [Attr::word("sum"), Attr::Int(1), Attr::Bool(true), Attr::Bool(false)];
        self.op("scan", &attrs, &[flags])
    }

    /// By a network of comparisons for any number of elements, whose steps are those of a loop: merge exchange (Batcher,
    /// "Sorting networks and their applications", 1968; Knuth, "The art of computer programming", 5.2.2, algorithm M).
    fn order_by_network(&mut self, key: Value) -> One {
        let shape = self.shape(key);
        let n = shape[1].clone();
        let end = self.dim_scalar(&n, DType::I64)?;
        let one = self.scalar(DType::I64, 1);
        // The largest power of two below n, or 1.
        let top = match n.as_const() {
            Some(n) => {
                let top = (n.max(2) as u64 - 1).ilog2();
                self.scalar(DType::I64, 1i64 << top)
            }
            None => {
                let twice = |b: &mut Builder<'_>, v: Value| b.map_num("mul", v, 2);
                self.repeat_while(
                    &[one],
                    &[end],
                    |b, v| {
                        let next = twice(b, v[0])?;
                        b.map("less", &[next, v[1]])
                    },
                    |b, v| Ok(vec![twice(b, v[0])?]),
                )?[0]
            }
        };
        let zero = self.scalar(DType::I64, 0);
        let position = self.iota(DType::I64, &shape, 1)?;
        let done = self.repeat_while(
            &[top, top, zero, top, key, position],
            &[end, top],
            |b, v| b.map_num("greater", v[0], 0),
            |b, v| exchange(b, v, &n),
        )?;
        Ok(done[5])
    }
}

/// One step of the network: pairs `d` apart whose first position has the bits `r` of `p`.
fn exchange(b: &mut Builder<'_>, v: &[Value], n: &Dim) -> Result<Vec<Value>, Fail> {
    let [p, q, r, d, key, at, end, top] = v[..] else {
        unreachable!("there are six values of state and two others");
    };
    let i = b.iota(DType::I64, &[Dim::ONE, n.clone()], 1)?;
    let in_step = |b: &mut Builder<'_>, i: Value| {
        let bits = b.map("bitwise_and", &[i, p])?;
        b.map("equal", &[bits, r])
    };
    let (after, before) = (b.map("add", &[i, d])?, b.map("sub", &[i, d])?);
    let first = in_step(b, i)?;
    let inside = b.map("less", &[after, end])?;
    let first = b.map("and", &[first, inside])?;
    let second = in_step(b, before)?;
    let inside = b.map_num("greater_or_equal", before, 0)?;
    let second = b.map("and", &[second, inside])?;
    let partner = b.map("where", &[second, before, i])?;
    let partner = b.map("where", &[first, after, partner])?;
    let partner = b.spread(partner, &b.shape(key))?;
    let take = |b: &mut Builder<'_>, x: Value| b.op("gather_elements", &[Attr::Int(1)], &[x, partner]);
    let (other, other_at) = (take(b, key)?, take(b, at)?);
    let larger = b.map("greater", &[key, other])?;
    let equal = b.map("equal", &[key, other])?;
    let earlier = b.map("less", &[at, other_at])?;
    let tie = b.map("and", &[equal, earlier])?;
    let leads = b.map("or", &[larger, tie])?;
    let trails = b.op("not", &[], &[leads])?;
    let (up, down) = (b.map("and", &[first, trails])?, b.map("and", &[second, leads])?);
    let moves = b.map("or", &[up, down])?;
    let key = b.map("where", &[moves, other, key])?;
    let at = b.map("where", &[moves, other_at, at])?;
    // The next distance within the merge, or the next merge.
    let again = b.map("not_equal", &[q, p])?;
    let half = |b: &mut Builder<'_>, x: Value| b.map_num("shift_right", x, 1);
    let (half_p, half_q) = (half(b, p)?, half(b, q)?);
    let apart = b.map("sub", &[q, p])?;
    let zero = b.scalar(DType::I64, 0);
    let mut choose = |x: Value, y: Value| b.map("where", &[again, x, y]);
    Ok(vec![
        choose(p, half_p)?,
        choose(half_q, top)?,
        choose(p, zero)?,
        choose(apart, half_p)?,
        key,
        at,
    ])
}
