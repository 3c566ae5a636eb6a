//! Whether a candidate is faster than the incumbent, by pairs of times: as few as will do.
//!
//! Both are run in turn, so a pair has seen the same machine. Of a pair only counts whether the candidate won, by more than the
//! margin; so neither a stray millisecond nor the shape of the noise matters. The wins are a sequential probability ratio test
//! (Wald, "Sequential tests of statistical hypotheses", 1945): against a candidate that wins one pair in two, or fewer,
//! one that wins 80 % of them (65 % of whole models). A candidate that is no faster is taken for one that is with a probability of at most
//! [`ERROR`], however the times vary, as long as pairs do not depend on each other. What is undecided after [`MOST`] pairs is
//! no faster.

/// The share of pairs that a candidate wins which is worth having.
const WINS: f64 = 0.8;

/// The same of whole models.
const WINS_AT_HOME: f64 = 0.65;

/// How often a candidate that is no faster is accepted, at most.
pub const ERROR: f64 = 0.001;

/// How often one that wins that share of its pairs is not.
const MISSED: f64 = 0.1;

/// Pairs after which a candidate has not won.
pub const MOST: usize = 64;

/// A candidate that takes so many times as long in a pair cannot win.
const HOPELESS: f64 = 1.5;

/// By how much a candidate has to win: less is a tie, which the incumbent keeps.
pub const MARGIN: f64 = 0.02;

/// What is known of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is faster.
    Faster,
    /// It is not, by as much as would be worth it.
    NotFaster,
    /// More pairs decide.
    Open,
}

/// A candidate against the incumbent.
#[derive(Clone, PartialEq, Debug)]
pub struct Duel {
    /// By how much a pair has to be won.
    margin: f64,
    /// The share of pairs that a candidate wins which is worth having.
    wins: f64,
    /// Pairs after which it has not won.
    most: usize,
    /// The logarithm of how much likelier what was seen is of a candidate that is worth having.
    evidence: f64,
    /// Seconds of the incumbent and of the candidate.
    pairs: Vec<(f64, f64)>,
}

impl Default for Duel {
    fn default() -> Duel {
        Duel::new()
    }
}

impl Duel {
    /// A duel of kernels.
    pub fn new() -> Duel {
        Duel::of(MARGIN, WINS, MOST)
    }

    /// A duel of whole models, where a small gain is a gain: it takes more pairs to tell it from noise.
    pub fn at_home(most: usize) -> Duel {
        Duel::of(0.0, WINS_AT_HOME, most)
    }

    fn of(margin: f64, wins: f64, most: usize) -> Duel {
        Duel {
            margin,
            wins,
            most,
            evidence: 0.0,
            pairs: vec![],
        }
    }

    /// Adds the seconds of both. A time that is none counts against the candidate.
    pub fn pair(&mut self, incumbent: f64, candidate: f64) -> Verdict {
        let times = incumbent.is_finite() && candidate.is_finite() && incumbent > 0.0 && candidate > 0.0;
        let won = times && candidate * (1.0 + self.margin) < incumbent;
        self.evidence += match won {
            true => (self.wins / 0.5).ln(),
            false => ((1.0 - self.wins) / 0.5).ln(),
        };
        self.pairs.push((incumbent, candidate));
        let hopeless = self.pairs.len() == 1 && times && candidate > HOPELESS * incumbent;
        if hopeless || self.evidence <= (MISSED / (1.0 - ERROR)).ln() {
            Verdict::NotFaster
        } else if self.evidence >= ((1.0 - MISSED) / ERROR).ln() {
            Verdict::Faster
        } else if self.pairs.len() >= self.most {
            Verdict::NotFaster
        } else {
            Verdict::Open
        }
    }

    /// The pairs so far.
    pub fn pairs(&self) -> &[(f64, f64)] {
        &self.pairs
    }

    /// The candidate's time over the incumbent's: the median of the pairs; `None` without a pair of times.
    pub fn ratio(&self) -> Option<f64> {
        let good = |(a, b): &&(f64, f64)| a.is_finite() && b.is_finite() && *a > 0.0 && *b > 0.0;
        median(self.pairs.iter().filter(good).map(|(a, b)| b / a))
    }
}

/// The median, without what is no number.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which this share of the values lies.
pub fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut all: Vec<f64> = values.filter(|v| !v.is_nan()).collect();
    all.sort_by(f64::total_cmp);
    let last = all.len().checked_sub(1)?;
    Some(all[(last as f64 * share).round() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64 (Marsaglia, 2003).
    fn random(state: &mut u64) -> f64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The verdict on a candidate whose times are these.
    fn verdict(mut pair: impl FnMut() -> (f64, f64)) -> (Verdict, usize) {
        let mut duel = Duel::new();
        loop {
            let (a, b) = pair();
            match duel.pair(a, b) {
                Verdict::Open => {}
                v => return (v, duel.pairs().len()),
            }
        }
    }

    #[test]
    fn clear_cases_take_few_pairs() {
        assert_eq!(verdict(|| (1.0, 0.9)), (Verdict::Faster, 15));
        assert_eq!(verdict(|| (1.0, 1.0)), (Verdict::NotFaster, 3));
        assert_eq!(verdict(|| (1.0, 2.0)), (Verdict::NotFaster, 1));
    }

    #[test]
    fn ties_and_nonsense_are_no_faster() {
        assert_eq!(verdict(|| (1.0, 0.99)).0, Verdict::NotFaster);
        for t in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert_eq!(verdict(|| (1.0, t)).0, Verdict::NotFaster);
            assert_eq!(verdict(|| (t, 1.0)).0, Verdict::NotFaster);
        }
    }

    #[test]
    fn an_equal_candidate_is_accepted_as_rarely_as_is_said() {
        let mut state = 1;
        // Heavy tails: now and then a run takes ten times as long.
        let mut time = || {
            let u = random(&mut state);
            1.0 + 0.1 * u + if u > 0.9 { 10.0 * random(&mut state) } else { 0.0 }
        };
        const TRIALS: usize = 100_000;
        let accepted = (0..TRIALS)
            .filter(|_| verdict(|| (time(), time())).0 == Verdict::Faster)
            .count();
        assert!(accepted as f64 <= ERROR * TRIALS as f64, "{accepted} of {TRIALS}");
    }

    #[test]
    fn a_faster_candidate_is_found_in_noise() {
        let mut state = 7;
        let mut time = |t: f64| t * (1.0 + 0.1 * random(&mut state));
        let found = (0..1000)
            .filter(|_| verdict(|| (time(1.0), time(0.85))).0 == Verdict::Faster)
            .count();
        assert!(found > 950, "{found} of 1000");
    }

    #[test]
    fn the_median_pair_is_the_ratio() {
        let mut duel = Duel::new();
        for (a, b) in [(1.0, 0.5), (1.0, 0.6), (2.0, 1.4), (0.0, 1.0)] {
            duel.pair(a, b);
        }
        assert_eq!(duel.ratio(), Some(0.6));
        assert_eq!(Duel::new().ratio(), None);
    }
}
