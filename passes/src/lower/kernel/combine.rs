//! What reductions merge elements with.

use brolga_ir::scalar::{Body, Builder};
use brolga_ir::structured::{Combine, bits};
use brolga_ir::{DType, Number, ops};

/// The combiner of a reduction kind over one accumulator.
///
/// # Errors
/// When the kind is not defined on the dtype.
pub fn combiner(kind: ops::Combine, dtype: DType) -> Result<Combine, String> {
    use ops::Combine::{And, Max, Min, Or, Prod, Sum};
    // Not what the reference evaluation starts from, so that each is a check of the other.
    let init = match (kind, dtype.is_float()) {
        (Sum | Or, _) => Number::Int(0),
        (Prod | And, _) => Number::Int(1),
        (Max, true) => Number::Float(f64::NEG_INFINITY),
        (Min, true) => Number::Float(f64::INFINITY),
        (Max, false) => Number::Int(extreme(dtype, false)),
        (Min, false) => Number::Int(extreme(dtype, true)),
    };
    let mut b = Builder::new(&[dtype, dtype]);
    let (x, y) = (b.input(0), b.input(1));
    let z = b.call(kind.function(dtype), &[x, y], None)?;
    let body = b.finish(&[z]);
    Ok(Combine {
        init: vec![bits(dtype, init)],
        merge: body.clone(),
        body,
        free: true,
    })
}

/// The largest or smallest value of an integer type.
fn extreme(dtype: DType, largest: bool) -> i128 {
    let bits = if dtype == DType::Bool { 1 } else { dtype.bits() as u32 };
    match (dtype.is_signed(), largest) {
        (true, true) => (1i128 << (bits - 1)) - 1,
        (true, false) => -(1i128 << (bits - 1)),
        (false, true) => (1i128 << bits) - 1,
        (false, false) => 0,
    }
}

/// The position of an arg-reduction that has seen nothing yet.
pub const NOWHERE: Number = Number::Int(i64::MAX as i128);

/// (value, position) pairs: the better value wins, and of equal ones the lower (or, with `last`, the higher) position.
///
/// # Errors
/// When the dtype has no order.
pub fn arg_combiner(max: bool, last: bool, dtype: DType) -> Result<Combine, String> {
    let worst = match dtype.is_float() {
        true if max => Number::Float(f64::NEG_INFINITY),
        true => Number::Float(f64::INFINITY),
        false => Number::Int(extreme(dtype, !max)),
    };
    let body: Body = {
        let mut b = Builder::new(&[dtype, DType::I64, dtype, DType::I64]);
        let (a, i, x, j) = (b.input(0), b.input(1), b.input(2), b.input(3));
        // NaN is the extreme of both kinds, as in numpy.
        let ordered = if max {
            b.call("less", &[a, x], None)?
        } else {
            b.call("less", &[x, a], None)?
        };
        let same = b.call("equal", &[a, x], None)?;
        let (better, equal) = if dtype.is_float() {
            let (na, nx) = (b.call("is_nan", &[a], None)?, b.call("is_nan", &[x], None)?);
            let fresh = b.call("not", &[na], None)?;
            let first = b.call("and", &[nx, fresh], None)?;
            let both = b.call("and", &[na, nx], None)?;
            (
                b.call("or", &[ordered, first], None)?,
                b.call("or", &[same, both], None)?,
            )
        } else {
            (ordered, same)
        };
        let earlier = if last {
            b.call("less", &[i, j], None)?
        } else {
            b.call("less", &[j, i], None)?
        };
        let tie = b.call("and", &[equal, earlier], None)?;
        let take = b.call("or", &[better, tie], None)?;
        let value = b.call("where", &[take, x, a], None)?;
        let position = b.call("where", &[take, j, i], None)?;
        b.finish(&[value, position])
    };
    // A partial accumulator that saw nothing must lose every tie; position 0 is right when nothing beats the worst value.
    let nowhere = if last {
        Number::Int(0)
    } else {
        Number::Int(i64::MAX as i128)
    };
    Ok(Combine {
        init: vec![bits(dtype, worst), bits(DType::I64, nowhere)],
        merge: body.clone(),
        body,
        free: true,
    })
}
