//! Operators that map keys to values: `LabelEncoder`, `CategoryMapper`, `OneHotEncoder`.
//!
//! A key becomes its position among the known keys, one behind them where it is not known; the values are then elements of a table with
//! the default last. Positions are found by comparing with every key where these are few, in a table over the span of integers that lie
//! close together, and else by bisection of the sorted keys, so that nothing of it needs a host.

use super::super::super::tensor;
use super::*;
use brolga_ir::{Attr, DType, Number, Tensor};
use rustc_hash::FxHashSet;

/// Up to so many keys are compared with one by one.
const FEW: usize = 48;
/// A table over the span of the keys may have so many entries for each of them.
const SPARSE: i128 = 16;

impl Builder<'_> {
    /// The positions i64 of elements among the keys `[K]`, which are of the same dtype: of equal keys the first's, `K` for what is none
    /// of them. NaN is a key like others, where it may be one.
    ///
    /// # Errors
    /// When the dtype has no order.
    pub fn positions(&mut self, x: Value, keys: &Tensor, nan_too: bool) -> One {
        let n = keys.len();
        let dtype = self.dtype(x);
        if dtype == DType::Str {
            return self.by_number(x, keys);
        }
        let mut seen = FxHashSet::default();
        let bits = |k: Number| match k {
            Number::Float(f) if f.is_nan() => (1, f64::NAN.to_bits() as i128),
            // -0 is 0.
            Number::Float(f) => (1, (f + 0.0).to_bits() as i128),
            Number::Int(i) => (0, i),
        };
        let distinct: Vec<(Number, usize)> = keys.iter().zip(0..n).filter(|(k, _)| seen.insert(bits(*k))).collect();
        let (nan, mut known): (Vec<_>, Vec<_>) = distinct.into_iter().partition(|(k, _)| k.f64().is_nan());
        known.sort_by(|(a, _), (b, _)| a.f64().total_cmp(&b.f64()).then(a.int().cmp(&b.int())));
        let mut at = if known.len() <= FEW {
            self.compared(x, &known, n)?
        } else {
            match dtype.is_int().then(|| spanned(&known, n)).flatten() {
                Some((first, table)) => self.in_span(x, first, table)?,
                None => self.bisected(x, &known, n)?,
            }
        };
        if let Some((_, i)) = nan.first().filter(|_| nan_too) {
            let is = self.map("is_nan", &[x])?;
            let i = self.scalar(DType::I64, *i as i64);
            at = self.map("where", &[is, i, at])?;
        }
        Ok(at)
    }

    /// Of strings: the keys' numbers are known, and what has a higher one than all of them is none.
    fn by_number(&mut self, x: Value, keys: &Tensor) -> One {
        let numbers = keys.to_i64s();
        let beyond = numbers.iter().max().map_or(0, |m| m + 1);
        let mut table = vec![numbers.len() as i64; beyond as usize + 1];
        for (place, &number) in numbers.iter().enumerate().rev() {
            table[number as usize] = place as i64;
        }
        let table = self.dense(Tensor::from_i64(&[table.len()], &table));
        let number = self.op("bitcast", &[Attr::DType(DType::U32)], &[x])?;
        let number = self.map_num("min", number, beyond)?;
        self.gather(0, table, number)
    }

    /// By comparing with each key.
    fn compared(&mut self, x: Value, known: &[(Number, usize)], n: usize) -> One {
        let (dtype, axis) = (self.dtype(x), self.rank(x));
        if known.is_empty() {
            let shape = self.shape(x);
            return self.splat(DType::I64, &shape, n as i64);
        }
        let keys = self.dense(Tensor::from_fn(dtype, &[known.len()], |i| known[i].0));
        let places: Vec<i64> = known.iter().map(|k| k.1 as i64).collect();
        let places = self.dense(Tensor::from_i64(&[known.len()], &places));
        let x = self.unsqueeze(x, &[axis])?;
        let hit = self.map("equal", &[x, keys])?;
        let none = self.scalar(DType::I64, n as i64);
        let at = self.map("where", &[hit, places, none])?;
        let at = self.reduce("min", &[axis], at)?;
        self.squeeze(at, &[axis])
    }

    /// In a table over all integers from a first one on.
    fn in_span(&mut self, x: Value, first: i64, table: Vec<i64>) -> One {
        let len = table.len() as i64;
        let table = self.dense(Tensor::from_i64(&[table.len()], &table));
        let wide = self.cast(x, DType::I64)?;
        // Differences wrap around where numbers are far apart: what is inside is told before.
        let low = self.map_num("less", wide, first)?;
        let high = self.map_num("greater", wide, first + (len - 2))?;
        let outside = self.map("or", &[low, high])?;
        let place = self.map_num("sub", wide, first)?;
        let last = self.scalar(DType::I64, len - 1);
        let place = self.map("where", &[outside, last, place])?;
        self.gather(0, table, place)
    }

    /// By bisection of the sorted keys.
    fn bisected(&mut self, x: Value, known: &[(Number, usize)], n: usize) -> One {
        let (dtype, shape) = (self.dtype(x), self.shape(x));
        let len = known.len() as i64;
        let keys = self.dense(Tensor::from_fn(dtype, &[known.len()], |i| known[i].0));
        let places: Vec<i64> = known.iter().map(|k| k.1 as i64).chain([n as i64]).collect();
        let places = self.dense(Tensor::from_i64(&[places.len()], &places));
        let mut at = self.splat(DType::I64, &shape, 0)?;
        let mut step = (known.len().next_power_of_two() / 2) as i64;
        while step > 0 {
            let next = self.map_num("add", at, step)?;
            let last = self.scalar(DType::I64, len - 1);
            let there = self.map("min", &[next, last])?;
            let key = self.gather(0, keys, there)?;
            let below = self.map("less_or_equal", &[key, x])?;
            at = self.map("where", &[below, there, at])?;
            step /= 2;
        }
        let key = self.gather(0, keys, at)?;
        let hit = self.map("equal", &[key, x])?;
        let none = self.scalar(DType::I64, len);
        let at = self.map("where", &[hit, at, none])?;
        self.gather(0, places, at)
    }
}

/// The first of sorted integers, and the positions over their span with that of none last, where they lie close together.
fn spanned(known: &[(Number, usize)], n: usize) -> Option<(i64, Vec<i64>)> {
    let (first, last) = (known.first()?.0.int(), known.last()?.0.int());
    let span = last - first + 1;
    if span > known.len() as i128 * SPARSE {
        return None;
    }
    let mut table = vec![n as i64; span as usize + 1];
    for (key, place) in known {
        table[(key.int() - first) as usize] = *place as i64;
    }
    Some((i64::try_from(first).ok()?, table))
}

/// Keys or values of a map: a list of an attribute, or a tensor.
fn list(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, kind: &str) -> Result<Option<Tensor>, Fail> {
    if let Some(t) = ctx.tensor(&format!("{kind}_tensor"))? {
        let t = tensor::constant(t, graph.files, graph.limit).map_err(|e| match e.starts_with("element type") {
            true => Fail::Unsupported(e),
            false => Fail::Bad(e),
        })?;
        let t = t.to_tensor();
        let n = t.len();
        return Ok(Some(t.reshaped(&[n])));
    }
    if let Some(x) = ctx.ints(&format!("{kind}_int64s"))? {
        return Ok(Some(Tensor::from_i64(&[x.len()], x)));
    }
    if let Some(x) = ctx.floats(&format!("{kind}_floats"))? {
        return Ok(Some(Tensor::from_f32(&[x.len()], x)));
    }
    if let Some(x) = ctx.strings(&format!("{kind}_strings"))? {
        return Ok(Some(graph.files.strings.tensor(&[x.len()], &x)?));
    }
    Ok(None)
}

/// A default among strings.
fn string(graph: &Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Number, Fail> {
    let s = ctx.string("default_string", "_Unused")?;
    Ok(Number::Int(graph.files.strings.number(s).into()))
}

impl Builder<'_> {
    /// The value of each key's position, the default behind them.
    fn values_at(&mut self, at: Value, values: &Tensor, default: Number) -> One {
        let n = values.len();
        let table = Tensor::from_fn(
            values.dtype(),
            &[n + 1],
            |i| if i < n { values.get(i) } else { default },
        );
        let table = self.dense(table);
        self.gather(0, table, at)
    }
}

/// `LabelEncoder`. Before version 2 of its operator set there is one list of strings, whose positions are the integers.
pub fn label_encoder(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    if ctx.version < 2 {
        let classes = ctx.strings("classes_strings")?.unwrap_or_default();
        let classes = graph.files.strings.tensor(&[classes.len()], &classes)?;
        let places: Vec<i64> = (0..classes.len() as i64).collect();
        return one(between(
            graph,
            ctx,
            x,
            &Tensor::from_i64(&[places.len()], &places),
            &classes,
        ));
    }
    let keys = list(graph, ctx, "keys")?.ok_or("no keys")?;
    let values = list(graph, ctx, "values")?.ok_or("no values")?;
    if keys.len() != values.len() || keys.dtype() != graph.dtype(x) {
        return Err(Fail::Bad(format!(
            "{} for keys {keys:?} and values {values:?}, expected keys of its dtype and as many values",
            graph.ty(x)
        )));
    }
    let default = match ctx.tensor("default_tensor")? {
        Some(t) => {
            let t = tensor::constant(t, graph.files, graph.limit)?.to_tensor();
            match t.len() {
                1 => t.get(0),
                n => return Err(Fail::Bad(format!("a default of {n} elements, expected one"))),
            }
        }
        None if values.dtype() == DType::Str => string(graph, ctx)?,
        None if values.dtype().is_float() => Number::Float(ctx.float("default_float", -0.0)?),
        None => Number::Int(ctx.int("default_int64", -1)?.into()),
    };
    // Before version 4, NaN is equal to nothing.
    let at = graph.positions(x, &keys, ctx.version >= 4)?;
    one(graph.values_at(at, &values, default))
}

/// From strings to integers, or from integers to strings, whatever is given.
fn between(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, x: Value, ints: &Tensor, texts: &Tensor) -> One {
    if ints.len() != texts.len() {
        return Err(Fail::Bad(format!(
            "{} integers for {} strings",
            ints.len(),
            texts.len()
        )));
    }
    match graph.dtype(x) {
        DType::Str => {
            let at = graph.positions(x, texts, false)?;
            let default = Number::Int(ctx.int("default_int64", -1)?.into());
            graph.values_at(at, ints, default)
        }
        DType::I64 => {
            let at = graph.positions(x, ints, false)?;
            let default = string(graph, ctx)?;
            graph.values_at(at, texts, default)
        }
        _ => Err(Fail::Bad(format!("{}, expected i64 or strings", graph.ty(x)))),
    }
}

/// `CategoryMapper` between strings and integers.
pub fn category_mapper(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let ints = ctx.ints("cats_int64s")?.unwrap_or_default();
    let texts = ctx.strings("cats_strings")?.unwrap_or_default();
    let texts = graph.files.strings.tensor(&[texts.len()], &texts)?;
    one(between(
        graph,
        ctx,
        ctx.input(0)?,
        &Tensor::from_i64(&[ints.len()], ints),
        &texts,
    ))
}

/// `OneHotEncoder`: 1 at the position of the category, along a new last axis. What is no category is all 0, or with `zeros = 0` an error.
pub fn one_hot_encoder(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(1, 1)?;
    let x = ctx.input(0)?;
    let categories = match (ctx.ints("cats_int64s")?, ctx.strings("cats_strings")?) {
        (Some(c), _) if !c.is_empty() => Tensor::from_i64(&[c.len()], c),
        (_, Some(c)) => graph.files.strings.tensor(&[c.len()], &c)?,
        _ => return Err("no categories".into()),
    };
    let x = match graph.dtype(x) {
        DType::Str => x,
        _ => graph.cast(x, DType::I64)?,
    };
    if graph.dtype(x) != categories.dtype() {
        return Err(Fail::Bad(format!("{} for categories {categories:?}", graph.ty(x))));
    }
    let n = categories.len();
    let at = graph.positions(x, &categories, false)?;
    one(graph.one_hot(at, n, ctx.flag("zeros", true)?))
}

impl Builder<'_> {
    /// f32 1 at a position along a new last axis of extent `n`; a position beyond is all 0, or where it must not be, an error of the run.
    fn one_hot(&mut self, at: Value, n: usize, may_miss: bool) -> One {
        let axis = self.rank(at);
        let mut at = at;
        if !may_miss {
            let all: Vec<i64> = (0..n as i64).collect();
            let all = self.dense(Tensor::from_i64(&[n], &all));
            at = self.op("gather", &[Attr::Int(0)], &[all, at])?;
        }
        let at = self.unsqueeze(at, &[axis])?;
        let classes: Vec<i64> = (0..n as i64).collect();
        let classes = self.dense(Tensor::from_i64(&[n], &classes));
        let hit = self.map("equal", &[at, classes])?;
        self.cast(hit, DType::F32)
    }
}
