//! How likely the model found a token: logarithms of the probabilities that its logits are, before penalties, biases, grammars and
//! temperatures.

use super::sampling::top;

/// A token that was chosen, and the likeliest ones in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The token.
    pub token: i64,
    /// The natural logarithm of its probability; NaN where the logits are no distribution.
    pub log: f32,
    /// The likeliest tokens and the logarithms of theirs, the likeliest first; of equal ones the first.
    pub best: Vec<(i64, f32)>,
}

impl Likelihood {
    /// Of a token by the logits that it was chosen of, one for each token of the vocabulary; with so many of the likeliest.
    pub fn of(logits: &[f32], token: i64, best: usize) -> Likelihood {
        // `max` passes over NaN.
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let known = logits.iter().filter(|x| !x.is_nan());
        let sum: f64 = known.map(|x| f64::from((x - most).exp())).sum();
        let log = |x: f32| (f64::from(x - most) - sum.ln()) as f32;
        let own = usize::try_from(token).ok().and_then(|t| logits.get(t));
        Likelihood {
            token,
            log: own.map_or(f32::NAN, |x| log(*x)),
            best: top(logits, best).into_iter().map(|(t, x)| (t, log(x))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_of_probabilities() {
        // Probabilities 1/2, 1/4, 1/8 and 1/8, whatever is added to their logarithms.
        let halves = [3.0f32, 2.0, 1.0, 1.0].map(|x| x * 2f32.ln() + 90.0);
        let found = Likelihood::of(&halves, 1, 3);
        let expected = [0.5f32, 0.25, 0.125].map(f32::ln);
        assert!((found.log - expected[1]).abs() < 1e-5);
        assert_eq!(found.best.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [0, 1, 2]);
        for ((_, log), expected) in found.best.iter().zip(expected) {
            assert!((log - expected).abs() < 1e-5, "{found:?}");
        }
        assert_eq!(Likelihood::of(&halves, 3, 9).best.len(), 4);
        assert_eq!(Likelihood::of(&halves, 3, 0).best, []);
        // What cannot follow, what is no number, and a token that there is not.
        let odd = [0.0, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(Likelihood::of(&odd, 0, 3).best, [(0, 0.0), (1, f32::NEG_INFINITY)]);
        assert_eq!(Likelihood::of(&odd, 1, 0).log, f32::NEG_INFINITY);
        assert!(Likelihood::of(&odd, 2, 0).log.is_nan() && Likelihood::of(&odd, 3, 0).log.is_nan());
    }
}
