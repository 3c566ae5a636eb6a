//! `softmax{axis, zeros}(x)`: `exp(x - max) / Σ exp(x - max)`, maximum and sum along the axis; f16 and bf16 in f32, rounded at the
//! end. Which lines are zeros says the attribute ([`Zeros`]). Source: ONNX `Softmax` (opset 13); the shift by the maximum as
//! everywhere, against overflow.

use super::{Accuracy, Attr, AttrKind, Draw, Drawn, Merge, Op, OpDef, Role, Rows, Sample, Signs, arity, check_axis, compose, draw, shape};
use crate::{Build, DType, Number, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

/// Which lines of weights are zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zeros {
    /// None: where the quotient is NaN, so are they.
    Never,
    /// Those of scores that are all -∞, as ONNX `Attention` has it.
    Unseen,
    /// Those in which the quotient is NaN, as PyTorch's attention has it.
    Undefined,
}

impl Zeros {
    /// What the attribute `zeros` of an operator says.
    ///
    /// # Errors
    /// When it is another word.
    pub fn of(op: &Op) -> Result<Zeros, String> {
        match op.word("zeros") {
            "never" => Ok(Zeros::Never),
            "unseen" => Ok(Zeros::Unseen),
            "undefined" => Ok(Zeros::Undefined),
            w => Err(format!("zeros={w}, expected never, unseen or undefined")),
        }
    }
    /// Whether a line with these scores, largest of them, and sum of weights is zeros.
    pub fn holds(self, max: f64, sum: f64) -> bool {
        match self {
            Zeros::Never => false,
            Zeros::Unseen => max == f64::NEG_INFINITY,
            Zeros::Undefined => sum.is_nan(),
        }
    }
}

/// The weights of a line of scores, instead of these.
pub fn weigh(line: &mut [f64], zeros: Zeros) {
    let max = maximum(line);
    line.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f64 = line.iter().sum();
    match zeros.holds(max, sum) {
        true => line.fill(0.0),
        false => line.iter_mut().for_each(|x| *x /= sum),
    }
}

/// Checks the type that softmax and its logarithm accept.
///
/// # Errors
/// When it is no float or has no such axis.
pub fn check(op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
    arity(inputs, 1)?;
    shape::check_float("x", &inputs[0])?;
    check_axis(op.int("axis"), inputs[0].rank())?;
    Ok(inputs.to_vec())
}

/// Every line along the axis, as f64, replaced by what `f` makes of it.
pub fn by_line(op: &Op, x: &Tensor, f: impl Fn(&mut [f64])) -> Tensor {
    let (axis, strides) = (op.axis("axis"), shape::strides(x.shape()));
    let (n, step) = (x.shape()[axis], strides[axis] as usize);
    let mut lines = x.shape().to_vec();
    lines[axis] = n.min(1);
    let mut values = x.to_f64s();
    let mut line = vec![];
    shape::walk(&lines, 0, &strides, |base| {
        line.clear();
        line.extend((0..n).map(|i| values[base + i * step]));
        f(&mut line);
        line.iter().enumerate().for_each(|(i, &v)| values[base + i * step] = v);
    });
    Tensor::from_fn(x.dtype(), x.shape(), |p| Number::Float(values[p]))
}

/// `x - max`, and the maximum along the axis, in the computing dtype of `x`.
///
/// # Errors
/// When `x` has no such axis.
pub fn shifted(b: &mut dyn Build, x: Value, axis: usize) -> Result<(Value, Value), String> {
    let compute = b.type_of(x).dtype.compute();
    let x = compose::cast(b, x, compute)?;
    let max = compose::reduce(b, "max", x, &[axis])?;
    Ok((compose::with_spread(b, "sub", x, max)?, max))
}

/// The largest number of a line, or NaN when there is one.
pub fn maximum(line: &[f64]) -> f64 {
    line.iter()
        .fold(f64::NEG_INFINITY, |m, &x| if x.is_nan() || x > m { x } else { m })
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("axis", AttrKind::Int), ("zeros", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        Zeros::of(op)?;
        check(op, inputs)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let zeros = Zeros::of(op)?;
        Ok(vec![by_line(op, &inputs[0], |line| weigh(line, zeros))])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let (dtype, axis) = (b.type_of(inputs[0]).dtype, op.axis("axis"));
        let (x, max) = shifted(b, inputs[0], axis)?;
        let e = compose::map(b, "exp", &[x])?;
        let sum = compose::reduce(b, "sum", e, &[axis])?;
        let mut y = compose::with_spread(b, "div", e, sum)?;
        let nothing = match Zeros::of(op)? {
            Zeros::Never => None,
            Zeros::Unseen => Some(compose::with_number(b, "equal", max, f64::NEG_INFINITY)?),
            Zeros::Undefined => Some(compose::map(b, "is_nan", &[sum])?),
        };
        if let Some(nothing) = nothing {
            let ty = b.type_of(y);
            let nothing = b.spread(nothing, &ty.shape)?;
            let zero = b.splat(ty.dtype, &ty.shape, 0.0)?;
            y = compose::map(b, "where", &[nothing, zero, y])?;
        }
        Ok(Some(vec![compose::cast(b, y, dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Rows(&Def)
    }
    fn is_nonnegative(&self, _: &Op, _: &mut dyn Signs) -> bool {
        true
    }
    fn draw(&self, d: &mut dyn Draw, want: Option<&Type>) -> Option<Drawn> {
        let x = d.operand(0, want)?;
        let rank = d.ty(x).rank();
        let axis = if d.chance(60) { rank.saturating_sub(1) } else { d.below(rank) };
        let zeros = draw::pick(d, &["never", "unseen", "undefined"]);
        let attrs = draw::attrs(d, vec![Attr::Int(axis as i64), Attr::word(zeros)])?;
        let fits = matches!(attrs[0], Attr::Int(a) if (a as usize) < rank);
        fits.then(|| Drawn { attrs, inputs: vec![x] })
    }
    fn follows(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |axis, zeros, x| Sample::new(&[Attr::Int(axis), Attr::word(zeros)], &[x]);
        vec![
            s(1, "never", (DType::F32, &[3, 9])),
            s(1, "never", (DType::F32, &[2, 5, 3])),
            s(2, "never", (DType::F16, &[2, 1, 7])),
            s(0, "unseen", (DType::F64, &[4, 1])),
            s(1, "unseen", (DType::F32, &[2, 5])),
            s(1, "undefined", (DType::F32, &[2, 5])),
            s(1, "never", (DType::F32, &[3, 0])),
        ]
    }
}

impl Rows for Def {
    fn axes(&self, op: &Op, _: &Type) -> Vec<usize> {
        vec![op.axis("axis")]
    }
    fn merge(&self, _: &Op) -> Option<Merge> {
        None
    }
    fn operations(&self) -> f64 {
        25.0
    }
}
