//! Sizes in floating point: exporters cast a size to a float, scale it, and make a size of it again, or count up to it with
//! `Range`.
//!
//! A [`Ratio`] says what such a float is *exactly*; the float itself is computed as ever. Only arithmetic is followed whose
//! roundings change nothing for sizes below 2^18: in small multiples and fractions of powers of two, and one division by any
//! other integer whose quotient is made an integer right away. Everything else is a value that is computed from data.
//!
//! ```text
//! Range(0.0, Cast(Shape(x)[2]), 0.5)              -->  2*h values
//! Cast(Floor(Div(Cast(Shape(x)[2]), 16.0)), i64)  -->  the dim floordiv(h, 16)
//! ```

use super::builder::{Builder, SMALL};
use super::error::Fail;
use super::node::NodeCtx;
use super::ops;
use super::symbolic;
use brolga_ir::dim::Atom;
use brolga_ir::{DType, Dim, Value};

/// Numbers, and denominators, that are followed.
const MAX_PART: i64 = 1 << 20;
/// Multiples of a size that are followed: times 2^18, they are still integers in f32.
const MAX_SCALE: i64 = 1 << 6;

/// `num / den`, with a positive `den`.
#[derive(Clone, PartialEq, Debug)]
pub struct Ratio {
    /// The numerator.
    pub num: Dim,
    /// The denominator.
    pub den: i64,
}

impl Ratio {
    /// A dim.
    pub fn whole(num: Dim) -> Ratio {
        Ratio { num, den: 1 }
    }

    /// A number, when it is a fraction of integers up to a limit by a power of two.
    pub fn number(x: f64, limit: i64) -> Option<Ratio> {
        let mut den = 1;
        let mut num = x;
        while num.fract() != 0.0 {
            den *= 2;
            num *= 2.0;
            if den > limit {
                return None;
            }
        }
        (num.abs() <= limit as f64).then_some(Ratio {
            num: Dim::Const(num as i64),
            den,
        })
    }

    /// True when floats hold the value as it is, so that further arithmetic is exact too.
    pub fn is_dyadic(&self) -> bool {
        self.den.count_ones() == 1
    }

    fn reduced(num: Dim, den: i64) -> Option<Ratio> {
        let by = num.common_factor(&Dim::Const(den)).max(1);
        let (num, den) = (num.exact_div(&Dim::Const(by))?, den / by);
        let small = |(m, c): &(&[Atom], i64)| c.abs() <= if m.is_empty() { MAX_PART } else { MAX_SCALE };
        let follows = den <= MAX_PART && num.terms().iter().all(small);
        follows.then_some(Ratio { num, den })
    }

    /// The sum; the difference with `sign = -1`.
    pub fn plus(&self, o: &Ratio, sign: i64) -> Option<Ratio> {
        let num = &(&self.num * o.den) + &(&o.num * (sign * self.den));
        Ratio::reduced(num, self.den.checked_mul(o.den)?)
    }

    fn times(&self, o: &Ratio) -> Option<Ratio> {
        Ratio::reduced(&self.num * &o.num, self.den.checked_mul(o.den)?)
    }

    /// The quotient by a positive number.
    pub fn over(&self, o: &Ratio) -> Option<Ratio> {
        let by = o.num.as_const().filter(|&n| n > 0)?;
        Ratio::reduced(&self.num * o.den, self.den.checked_mul(by)?)
    }

    /// The integer below.
    pub fn floor(&self) -> Dim {
        self.num.floor_div(&Dim::Const(self.den))
    }

    /// The integer above.
    pub fn ceil(&self) -> Dim {
        self.num.ceil_div(&Dim::Const(self.den))
    }
}

impl Builder<'_> {
    /// What the elements of a small float are, when that is known exactly and depends on sizes (or is a small number).
    pub fn ratios_of(&mut self, v: Value) -> Option<Vec<Ratio>> {
        if let Some(r) = self.ratios.get(&v) {
            return Some(r.clone());
        }
        if !matches!(self.dtype(v), DType::F32 | DType::F64) {
            return None;
        }
        let t = self.contents(v)?;
        t.to_f64s().into_iter().map(|x| Ratio::number(x, MAX_PART)).collect()
    }

    fn ratio_operand(&mut self, v: Value) -> Option<(Vec<usize>, Vec<Ratio>)> {
        let shape = self.fixed_shape(v)?;
        let ratios = self.ratios_of(v)?;
        (ratios.len() == shape.iter().product::<usize>() && ratios.len() <= SMALL).then_some((shape, ratios))
    }

    /// Notes what the elements of a float are.
    fn note_ratios(&mut self, v: Value, ratios: Vec<Ratio>) {
        if matches!(self.dtype(v), DType::F32 | DType::F64) {
            self.ratios.insert(v, ratios);
        }
    }
}

/// The results of a node that makes floats of sizes, or sizes of floats; `None` where it does neither.
///
/// # Errors
/// When the node is wrong.
pub fn evaluate(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    let Some(&first) = ctx.inputs.iter().flatten().next() else {
        return Ok(None);
    };
    if ctx.op() == "Cast" && graph.known.contains_key(&first) && !is_integer(ctx)? {
        let dims = graph.known[&first].clone();
        let out = ops::apply(graph, ctx)?;
        graph.note_ratios(out[0], dims.into_iter().map(Ratio::whole).collect());
        return Ok(Some(out));
    }
    if !ctx.inputs.iter().flatten().any(|v| graph.ratios.contains_key(v)) {
        return Ok(None);
    }
    match ctx.op() {
        "Cast" => to_dims(graph, ctx),
        "Gather" | "Slice" | "Reshape" | "Squeeze" | "Unsqueeze" | "Identity" | "Transpose" | "Flatten" => {
            movement(graph, ctx, 1)
        }
        "Concat" => movement(graph, ctx, ctx.inputs.len()),
        "Add" | "Sub" | "Mul" | "Div" | "Floor" | "Ceil" | "Neg" => elementwise(graph, ctx),
        _ => Ok(None),
    }
}

fn is_integer(ctx: &NodeCtx<'_>) -> Result<bool, Fail> {
    Ok(super::tensor::dtype(ctx.int("to", 0)?).is_ok_and(|t| t.is_int()))
}

/// A cast of a float to an integer, which truncates.
fn to_dims(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    let to = super::tensor::dtype(ctx.int("to", 0)?);
    let Some((shape, ratios)) = graph.ratio_operand(ctx.input(0)?) else {
        return Ok(None);
    };
    match to {
        Ok(to) if to.is_int() => {
            let truncated = |r: &Ratio| match r.den {
                1 => Some(r.num.clone()),
                _ => r.num.is_nonnegative().then(|| r.floor()),
            };
            match ratios.iter().map(truncated).collect::<Option<Vec<Dim>>>() {
                Some(dims) => Ok(Some(vec![graph.dims_value(to, &shape, dims)?])),
                None => Ok(None),
            }
        }
        _ => {
            let out = ops::apply(graph, ctx)?;
            graph.note_ratios(out[0], ratios);
            Ok(Some(out))
        }
    }
}

fn movement(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, data: usize) -> Result<Option<Vec<Value>>, Fail> {
    let Some(moved) = symbolic::moved(graph, ctx, data, |graph, v| graph.ratio_operand(v))? else {
        return Ok(None);
    };
    let out = ops::apply(graph, ctx)?;
    for (&v, (_, ratios)) in out.iter().zip(moved) {
        graph.note_ratios(v, ratios);
    }
    Ok(Some(out))
}

fn elementwise(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Result<Option<Vec<Value>>, Fail> {
    let values = ctx.variadic()?;
    let mut operands = vec![];
    for &v in &values {
        match graph.ratio_operand(v) {
            Some(o) => operands.push(o),
            None => return Ok(None),
        }
    }
    let out = ops::apply(graph, ctx)?;
    if let Some(shape) = graph.fixed_shape(out[0])
        && let Some(ratios) = symbolic::pointwise(&shape, &operands, |args| function(ctx.op(), args))
    {
        graph.note_ratios(out[0], ratios);
    }
    Ok(Some(out))
}

fn function(op: &str, args: &[&Ratio]) -> Option<Ratio> {
    let (a, b) = (args[0], *args.last()?);
    match op {
        // Of a quotient that is no float only the integer beside it is known.
        "Floor" => return Some(Ratio::whole(a.floor())),
        "Ceil" => return Some(Ratio::whole(a.ceil())),
        _ if !(a.is_dyadic() && b.is_dyadic()) => return None,
        _ => {}
    }
    match op {
        "Add" => a.plus(b, 1),
        "Sub" => a.plus(b, -1),
        "Mul" => a.times(b),
        "Div" => a.over(b),
        "Neg" => Some(Ratio {
            num: &a.num * -1,
            den: a.den,
        }),
        _ => None,
    }
}
