//! How far results are from those that are wanted.

use brolga_ir::Tensor;
use std::fmt;

/// How far they are off.
#[derive(Clone, PartialEq, Debug)]
pub enum Apart {
    /// By the largest difference over the largest magnitude that is wanted, of the result that is off most: 0 where all are equal, infinite
    /// where only one of both is finite.
    By(f64),
    /// There is nothing to subtract, and why.
    Unlike(String),
}

impl Apart {
    /// Whether that is accepted.
    pub fn is_within(&self, tolerance: f64) -> bool {
        matches!(self, Apart::By(x) if *x <= tolerance)
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Apart::By(x) => write!(f, "{x:.2e}"),
            Apart::Unlike(why) => f.write_str(why),
        }
    }
}

/// Compares results with those that are wanted, against at least this magnitude.
pub fn apart(found: Result<Vec<Tensor>, String>, wanted: &[Tensor], floor: f64) -> Apart {
    let found = match found {
        Ok(found) => found,
        Err(e) => return Apart::Unlike(e),
    };
    if found.len() != wanted.len() {
        return Apart::Unlike(format!("{} results, expected {}", found.len(), wanted.len()));
    }
    let mut most = 0f64;
    for (k, (f, w)) in found.iter().zip(wanted).enumerate() {
        if f.dtype() != w.dtype() || f.shape() != w.shape() {
            let (f, w) = (
                format!("{}{:?}", f.dtype(), f.shape()),
                format!("{}{:?}", w.dtype(), w.shape()),
            );
            return Apart::Unlike(format!("result {k} is {f}, expected {w}"));
        }
        most = most.max(relative(f, w, floor));
    }
    Apart::By(most)
}

fn relative(found: &Tensor, wanted: &Tensor, floor: f64) -> f64 {
    let finite = wanted.iter().map(|x| x.f64().abs()).filter(|x| x.is_finite());
    let scale = finite.fold(floor.max(f64::MIN_POSITIVE), f64::max);
    let one = |(f, w): (brolga_ir::Number, brolga_ir::Number)| match (f.f64(), w.f64()) {
        // Through f64, integers beyond 2^53 would be equal to their neighbours.
        _ if f == w => 0.0,
        (f, w) if f.is_nan() && w.is_nan() => 0.0,
        (f, w) if f.is_finite() && w.is_finite() => ((f - w).abs() / scale).max(f64::MIN_POSITIVE * f64::from(f != w)),
        _ => f64::INFINITY,
    };
    found.iter().zip(wanted.iter()).map(one).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_measured_against_the_largest() {
        let t = |x: &[f32]| Tensor::from_f32(&[x.len()], x);
        let by = |f: &[f32], w: &[f32]| apart(Ok(vec![t(f)]), &[t(w)], 0.0);
        assert_eq!(by(&[1.0, 2.0], &[1.0, 2.0]), Apart::By(0.0));
        assert_eq!(by(&[1.0, 4.0], &[2.0, 4.0]), Apart::By(0.25));
        assert_eq!(apart(Ok(vec![t(&[1.0])]), &[t(&[2.0])], 10.0), Apart::By(0.1));
        assert_eq!(by(&[f32::NAN], &[f32::NAN]), Apart::By(0.0));
        assert_eq!(by(&[f32::NAN], &[1.0]), Apart::By(f64::INFINITY));
        assert!(!by(&[1.0], &[1.0, 2.0]).is_within(1e9));
        assert_eq!(apart(Err("no".into()), &[], 0.0), Apart::Unlike("no".into()));
    }
}
