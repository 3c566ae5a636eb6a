//! Every function that is no primitive. **One function, one row**: name, operands, which dtypes it takes, its expansion
//! into primitives, its error bound in ULP, a reference in f64 and the domain on which the bound holds.
//!
//! Expansions see only f32, f64, integers and bool: 16-bit floats are computed in f32 and rounded at the end. They are
//! branch-free (both sides, then a select), so that every back end vectorises them. Beyond its domain a function is
//! still total.

use super::{Body, Builder, Prim, V};
use crate::ops::{Attr, Sample, SignLaw, Signs};
use crate::{DType, Small, ops::SampleType};
use std::sync::{LazyLock, OnceLock};

mod activation;
mod arithmetic;
mod exponential;
pub(crate) use exponential::exp_weight;
mod hyperbolic;
mod trigonometric;
mod turns;

#[cfg(test)]
mod tests;

/// Which dtypes a function takes, and what it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Numbers (floats or integers) of one dtype; the same.
    Number,
    /// Floats of one dtype; the same.
    Float,
    /// Numbers of one dtype; bool.
    Order,
    /// Anything of one dtype, as numbers; bool.
    Equality,
    /// Floats of one dtype; bool.
    Test,
    /// Bools; bool.
    Logic,
    /// Integers of one dtype; the same.
    Bits,
    /// A bool and two of any one dtype; that.
    Where,
    /// One of any dtype; the target.
    Cast,
    /// One of any dtype but bool; a target of equal width.
    Bitcast,
}

/// How far a function's result may be from the reference.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound {
    /// In units in the last place of an f32 result; 0 when it is the reference rounded to nearest.
    pub f32: f64,
    /// The same for f64, the error of the reference (within 1 ULP, where std has the function) included.
    pub f64: f64,
    /// Results smaller than this are measured in units of this magnitude (0: always in their own units).
    pub floor: f64,
}

/// A scalar function.
pub struct Function {
    /// Its name, which is also the element-wise operator's.
    pub name: &'static str,
    /// The number of operands.
    pub arity: usize,
    /// The dtypes it takes.
    pub rule: Rule,
    /// The expansion, for operands of compute dtypes.
    expansion: fn(&mut Builder, &[V]) -> V,
    /// The stated error on floats.
    pub bound: Bound,
    /// The value on exact operands, better than f32 by far.
    pub reference: fn(&[f64]) -> f64,
    /// The range of every float operand on which the bound is stated.
    pub domain: &'static [(f64, f64)],
    /// What is known of the sign of a result.
    pub signs: SignLaw,
    /// What [`Function::cycles`] has found.
    cycles: OnceLock<f64>,
}

impl Function {
    /// The row with results of which none is -0, when that holds.
    fn never_minus_zero(mut self, when: fn(&mut dyn Signs) -> bool) -> Function {
        self.signs.never_minus_zero = when;
        self
    }

    /// The row with results of which none is below 0 or -0, when that holds.
    fn nonnegative(mut self, when: fn(&mut dyn Signs) -> bool) -> Function {
        self.signs.is_nonnegative = when;
        self
    }

    /// About how many cycles one evaluation takes where all units are busy, from the expansion for its usual operands: an
    /// instruction takes one, a division or root (which no CPU pipelines fully) four.
    pub fn cycles(&self) -> f64 {
        *self.cycles.get_or_init(|| {
            let usual = |i: usize| match self.rule {
                Rule::Where if i == 0 => DType::Bool,
                Rule::Logic => DType::Bool,
                Rule::Bits => DType::I32,
                _ => DType::F32,
            };
            let operands: Vec<DType> = (0..self.arity).map(usual).collect();
            let body = self.body(&operands, self.is_cast().then_some(DType::I32));
            body.map_or(1.0, |b| b.cycles().max(1.0))
        })
    }

    /// True for `cast` and `bitcast`, which have a target dtype.
    pub fn is_cast(&self) -> bool {
        matches!(self.rule, Rule::Cast | Rule::Bitcast)
    }

    /// The result's dtype.
    ///
    /// # Errors
    /// When the number or the dtypes of the operands do not fit, or a target is missing or too many.
    pub fn result(&self, operands: &[DType], to: Option<DType>) -> Result<DType, String> {
        let bad = |want: &str| {
            let found: Vec<_> = operands.iter().map(|d| d.name()).collect();
            Err(format!("`{}` of ({}), expected {want}", self.name, found.join(", ")))
        };
        if operands.len() != self.arity {
            return bad(&format!("{} operands", self.arity));
        }
        let t = operands[0];
        match (self.rule, to) {
            (Rule::Cast, Some(to)) if (t == DType::Str) != (to == DType::Str) => return bad("numbers, not strings"),
            (Rule::Cast, Some(to)) => return Ok(to),
            (Rule::Bitcast, Some(to)) => return Prim::Bitcast(to).result(operands),
            (Rule::Cast | Rule::Bitcast, None) => return bad("a target dtype"),
            (_, Some(_)) => return bad("no target dtype"),
            (_, None) => {}
        }
        if self.rule == Rule::Where {
            let fits = t == DType::Bool && operands[1] == operands[2];
            return if fits {
                Ok(operands[1])
            } else {
                bad("a bool and two of one dtype")
            };
        }
        if operands.iter().any(|&d| d != t) {
            return bad("equal dtypes");
        }
        if t.small().is_some() && self.rule != Rule::Equality {
            return bad("numbers to compute with: small types are cast first");
        }
        match self.rule {
            Rule::Number | Rule::Order if matches!(t, DType::Bool | DType::Str) => bad("numbers"),
            Rule::Float | Rule::Test if !t.is_float() => bad("floats"),
            Rule::Logic if t != DType::Bool => bad("bools"),
            Rule::Bits if !t.is_int() => bad("integers"),
            Rule::Order | Rule::Equality | Rule::Test => Ok(DType::Bool),
            _ => Ok(t),
        }
    }

    /// Expands the function in a body under construction.
    ///
    /// # Errors
    /// As [`Function::result`].
    pub fn expand(&self, b: &mut Builder, args: &[V], to: Option<DType>) -> Result<V, String> {
        let types: Vec<DType> = args.iter().map(|&v| b.dtype(v)).collect();
        let result = self.result(&types, to)?;
        match self.rule {
            Rule::Cast => return Ok(b.cast(result, args[0])),
            Rule::Bitcast => return Ok(b.bitcast(result, args[0])),
            Rule::Where if result.small().is_some() => {
                let [x, y] = [args[1], args[2]].map(|v| b.bitcast(result.stored(), v));
                let chosen = b.select(args[0], x, y);
                return Ok(b.bitcast(result, chosen));
            }
            _ => {}
        }
        let args: Vec<V> = args.iter().zip(&types).map(|(&v, d)| b.cast(d.compute(), v)).collect();
        let v = (self.expansion)(b, &args);
        Ok(b.cast(result, v))
    }

    /// The function as a body of its own.
    ///
    /// # Errors
    /// As [`Function::result`].
    pub fn body(&self, operands: &[DType], to: Option<DType>) -> Result<Body, String> {
        let mut b = Builder::new(operands);
        let args: Vec<V> = (0..operands.len()).map(|i| b.input(i)).collect();
        let v = self.expand(&mut b, &args, to)?;
        Ok(b.finish(&[v]))
    }

    /// A few instances of the element-wise operator, for the differential tests.
    pub fn samples(&self) -> Vec<Sample> {
        use DType::*;
        const SHAPES: [&[usize]; 3] = [&[3, 7], &[33], &[]];
        let all_of = |d: DType| vec![d; self.arity];
        let each = |all: &[&[DType]]| all.concat().into_iter().map(|d| (all_of(d), None)).collect();
        let cases: Vec<(Vec<DType>, Option<DType>)> = match self.rule {
            Rule::Number => each(&[&DType::FLOATS, &[I64, I32, I8, U8]]),
            Rule::Float => each(&[&DType::FLOATS]),
            Rule::Order => each(&[&[F32, F64, F16, I64, U32, I8]]),
            Rule::Equality => each(&[&DType::FLOATS, &[I32, U8, Bool, F8E4M3FNUZ, I4]]),
            Rule::Test => each(&[&[F32, F64, F16]]),
            Rule::Logic => vec![(all_of(Bool), None)],
            Rule::Bits => each(&[&[I64, I32, U16, I8, U8]]),
            Rule::Where => [F32, F16, F64, I64, U8, Bool, F8E5M2, I2]
                .map(|d| (vec![Bool, d, d], None))
                .into(),
            Rule::Cast => {
                let pairs = DType::ALL.into_iter().flat_map(|a| DType::ALL.map(|b| (a, b)));
                // Small types by way of others are left to a few.
                let direct = |a: DType, b: DType| {
                    let near = |s: Small| [F32, F16, I32, Bool, s.byte()].contains(&b);
                    a.small().is_none_or(near)
                };
                let pairs = pairs.filter(|&(a, b)| a != b && direct(a, b) && direct(b, a));
                let pairs = pairs.chain([(F8E4M3FN, U4), (I4, F4E2M1), (F8E5M2, F8E4M3FNUZ), (F64, F8E8M0)]);
                pairs.map(|(a, b)| (vec![a], Some(b))).collect()
            }
            Rule::Bitcast => [
                (F32, I32),
                (I32, F32),
                (F64, U64),
                (F16, U16),
                (BF16, F16),
                (I8, U8),
                (F8E4M3FN, U8),
            ]
            .map(|(a, b)| (vec![a], Some(b)))
            .into(),
        };
        let sample = |(i, (types, to)): (usize, (Vec<DType>, Option<DType>))| Sample {
            attrs: to.map(Attr::DType).into_iter().collect(),
            inputs: types
                .into_iter()
                .map(|d| -> SampleType { (d, SHAPES[i % SHAPES.len()]) })
                .collect(),
            indices: None,
        };
        cases.into_iter().enumerate().map(sample).collect()
    }
}

/// Every function, sorted by name.
pub fn functions() -> &'static [Function] {
    static ALL: LazyLock<Vec<Function>> = LazyLock::new(|| {
        let mut all = arithmetic::rows();
        all.extend(exponential::rows());
        all.extend(hyperbolic::rows());
        all.extend(trigonometric::rows());
        all.extend(activation::rows());
        all.sort_by_key(|f| f.name);
        all
    });
    &ALL
}

/// The function of a name.
pub fn lookup(name: &str) -> Option<&'static Function> {
    let all = functions();
    all.binary_search_by_key(&name, |f| f.name).ok().map(|i| &all[i])
}

/// Any float.
const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// The reference rounded to nearest.
const EXACT: Bound = Bound {
    f32: 0.0,
    f64: 0.0,
    floor: 0.0,
};

/// A row of an exact function.
fn exact(
    name: &'static str,
    arity: usize,
    rule: Rule,
    expansion: fn(&mut Builder, &[V]) -> V,
    reference: fn(&[f64]) -> f64,
) -> Function {
    Function {
        name,
        arity,
        rule,
        expansion,
        bound: EXACT,
        reference,
        domain: &[ANY; 3],
        signs: SignLaw::NONE,
        cycles: OnceLock::new(),
    }
}

/// A row of a function of one operand that rounds more than once.
fn approximate(
    name: &'static str,
    rule: Rule,
    expansion: fn(&mut Builder, &[V]) -> V,
    bound: Bound,
    reference: fn(&[f64]) -> f64,
    domain: &'static [(f64, f64)],
) -> Function {
    Function {
        name,
        arity: 1,
        rule,
        expansion,
        bound,
        reference,
        domain,
        signs: SignLaw::NONE,
        cycles: OnceLock::new(),
    }
}

fn is_double(b: &Builder, x: V) -> bool {
    b.dtype(x) == DType::F64
}

/// `c[0] + c[1] x + c[2] x^2 + …` by Horner's scheme.
fn poly(b: &mut Builder, x: V, c: &[f64]) -> V {
    let (last, rest) = c.split_last().expect("a polynomial has coefficients");
    let mut sum = b.lit(x, *last);
    for c in rest.iter().rev() {
        let c = b.lit(x, *c);
        sum = b.fma(sum, x, c);
    }
    sum
}

/// An f64 function on f64, or on f32 by way of f64, where it is right but for rare double roundings.
fn in_double(b: &mut Builder, x: V, f: fn(&mut Builder, V) -> V) -> V {
    let dtype = b.dtype(x);
    let wide = b.cast(DType::F64, x);
    let r = f(b, wide);
    b.cast(dtype, r)
}

/// The signed integer type of a float's width, on which bit tricks are done.
fn int_type(d: DType) -> DType {
    if d == DType::F64 { DType::I64 } else { DType::I32 }
}

/// A non-negative value with the sign of another one.
fn copy_sign(b: &mut Builder, magnitude: V, sign: V) -> V {
    let d = b.dtype(magnitude);
    let (m, s) = (b.bitcast(int_type(d), magnitude), b.bitcast(int_type(d), sign));
    let bit = b.int(s, 1 << (d.bits() - 1));
    let s = b.and(s, bit);
    let r = b.or(m, s);
    b.bitcast(d, r)
}
