//! Random instances of operators, for the check of rules.
//!
//! An instance is made from the operands up. What surrounds it may have fixed attributes and operands already, and may want
//! a type of the result: [`OpDef::draw`](super::OpDef::draw) asks for operands of types that fit, and draws the attributes that are
//! free. What does not fit in the end is no instance; another one is tried then.

use super::{Attr, Op};
use crate::{DType, Dim, Type, Value};

/// What an operator asks of what makes an instance of it. `None` everywhere means that this becomes no instance.
pub trait Draw {
    /// A number below `n`; 0 when `n` is.
    fn below(&mut self, n: usize) -> usize;
    /// True in so many percent of all cases.
    fn chance(&mut self, percent: usize) -> bool;
    /// A small extent.
    fn extent(&mut self) -> usize;
    /// A shape of a rank, or of any.
    fn shape(&mut self, rank: Option<usize>) -> Vec<Dim>;
    /// The dtype that the instance is about.
    fn dtype(&self) -> DType;
    /// What an attribute is already.
    fn fixed(&self, attr: usize) -> Option<Attr>;
    /// What an attribute is: what it is already, else `drawn`, which it is from now on.
    fn attr(&mut self, attr: usize, drawn: Attr) -> Option<Attr>;
    /// The number of operands; one for an operator of any number of them.
    fn arity(&self) -> usize;
    /// True when an operand has a type of its own, whatever is wanted.
    fn is_natural(&self, operand: usize) -> bool;
    /// An operand, of a type that is wanted.
    fn operand(&mut self, operand: usize, want: Option<&Type>) -> Option<Value>;
    /// The next operand of an operator of any number of them; `Some(None)` behind the last.
    fn next_operand(&mut self, want: Option<&Type>) -> Option<Option<Value>>;
    /// Lets an operand that is free hold positions below `n`.
    fn indexes(&mut self, operand: usize, n: usize);
    /// The type of an operand.
    fn ty(&self, v: Value) -> Type;
    /// The operator that made an operand, and the type of its first operand.
    fn maker(&self, v: Value) -> Option<(Op, Type)>;
}

/// Attributes and operands of an instance.
pub struct Drawn {
    /// In the definition's order.
    pub attrs: Vec<Attr>,
    /// In the definition's order.
    pub inputs: Vec<Value>,
}

/// One of some.
pub fn pick<T: Clone>(d: &mut dyn Draw, from: &[T]) -> T {
    from[d.below(from.len())].clone()
}

/// An attribute that is an axis of a rank.
pub fn axis(d: &mut dyn Draw, attr: usize, rank: usize) -> Option<usize> {
    let drawn = Attr::Int(d.below(rank) as i64);
    match d.attr(attr, drawn)? {
        Attr::Int(a) if (a as usize) < rank => Some(a as usize),
        _ => None,
    }
}

/// The dtypes of sums of products of [`Draw::dtype`]: what they are summed in, and that of the result. Seldom either is another one
/// than a model would have, which rules have to ask about.
pub fn sum_dtypes(d: &mut dyn Draw) -> (DType, DType) {
    let dtype = d.dtype();
    let acc = match dtype {
        DType::F32 => pick(
            d,
            &[DType::F32, DType::F32, DType::F32, DType::F32, DType::F32, DType::F64],
        ),
        t if t.is_float() => t.compute(),
        DType::I8 | DType::U8 | DType::I16 => pick(d, &[DType::I32, dtype]),
        t => t,
    };
    let out = match acc {
        DType::F32 | DType::F64 if d.chance(15) => pick(d, &DType::FLOATS),
        _ if acc == dtype || d.chance(70) => dtype,
        _ => acc,
    };
    (acc, out)
}

/// A permutation, now and then the identity.
pub fn permutation(d: &mut dyn Draw, rank: usize) -> Vec<i64> {
    let mut p: Vec<i64> = (0..rank as i64).collect();
    if d.chance(85) {
        for i in (1..rank).rev() {
            let j = d.below(i + 1);
            p.swap(i, j);
        }
    }
    p
}

/// Another shape of as many elements.
pub fn refactored(d: &mut dyn Draw, shape: &[Dim]) -> Option<Vec<Dim>> {
    let mut out: Vec<i64> = shape.iter().map(Dim::as_const).collect::<Option<_>>()?;
    for _ in 0..1 + d.below(2) {
        match d.below(3) {
            0 if out.len() >= 2 => {
                let i = d.below(out.len() - 1);
                let factor = out.remove(i + 1);
                out[i] *= factor;
            }
            1 => {
                let i = d.below(out.len() + 1);
                out.insert(i, 1);
            }
            _ if !out.is_empty() => {
                let i = d.below(out.len());
                if let Some(f) = (2..=out[i]).find(|f| out[i] % f == 0) {
                    out[i] /= f;
                    out.insert(i, f);
                }
            }
            _ => {}
        }
    }
    (out.len() <= 6).then(|| out.into_iter().map(Dim::Const).collect())
}

/// Spatial attributes and extents of windows.
#[derive(Default)]
pub struct DrawnWindows {
    /// Taps.
    pub kernel: Vec<i64>,
    /// Distance between windows.
    pub strides: Vec<i64>,
    /// Distance between taps.
    pub dilations: Vec<i64>,
    /// Padding in front.
    pub low: Vec<i64>,
    /// Padding behind.
    pub high: Vec<i64>,
    /// What the windows slide over.
    pub extents: Vec<i64>,
}

impl DrawnWindows {
    /// Taps as far apart as the extent is long, or half as far, with padding that keeps the extent, or one more on a side: what takes
    /// one side's for the other's is seen.
    fn push_sparse(&mut self, d: &mut dyn Draw) {
        let dilation = 4 + d.below(5) as i64;
        self.extents.push(8 + d.below(2) as i64);
        self.kernel.push(3);
        self.strides.push(1);
        self.dilations.push(dilation);
        self.low.push(dilation + d.below(2) as i64);
        self.high.push(dilation + d.below(2) as i64);
    }
}

/// Windows over `n` dimensions that fit.
pub fn windows(d: &mut dyn Draw, n: usize) -> DrawnWindows {
    let (unit, plain, dense, sparse) = (d.chance(30), d.chance(40), d.chance(50), d.chance(10));
    let mut out = DrawnWindows::default();
    for _ in 0..n {
        if sparse {
            out.push_sparse(d);
            continue;
        }
        let kernel = if unit { 1 } else { 1 + d.below(3) as i64 };
        let dilation = if dense { 1 } else { 1 + d.below(2) as i64 };
        let stride = if dense && d.chance(50) {
            1
        } else {
            1 + d.below(2) as i64
        };
        // Few windows begin or end inside of what they slide over.
        let crop = d.chance(10) as i64;
        let (low, high) = if plain {
            (0, 0)
        } else {
            (d.below(3) as i64 - crop, d.below(3) as i64 - crop)
        };
        let covered = (kernel - 1) * dilation + 1;
        out.extents.push((covered - low - high).max(1) + d.below(4) as i64);
        out.kernel.push(kernel);
        out.strides.push(stride);
        out.dilations.push(dilation);
        out.low.push(low);
        out.high.push(high);
    }
    out
}

/// A type of known extents.
pub fn known(dtype: DType, shape: &[i64]) -> Type {
    Type::new(dtype, shape.iter().map(|&e| Dim::Const(e)).collect::<Vec<_>>())
}

/// Every attribute in order, as it is or as drawn.
pub fn attrs(d: &mut dyn Draw, drawn: Vec<Attr>) -> Option<Vec<Attr>> {
    drawn.into_iter().enumerate().map(|(i, a)| d.attr(i, a)).collect()
}
