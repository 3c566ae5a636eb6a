//! Programs timed in turn, and what is sure of their times.
//!
//! Every round runs each program once, in an order that a seed tells, so that all see the same machine and none runs always behind the same
//! other. Programs are compared by the ratios of the times of a round.
//!
//! Intervals are those of order statistics (David and Nagaraja, "Order Statistics", 2003, section 7.1): between the k-th smallest and the
//! k-th largest of n values lies the median of what they are drawn from with a probability that the binomial distribution of n throws of a coin
//! tells, whatever the distribution of the values. k is the largest for which it is at least [`CONFIDENCE`]; of fewer than six values it is 1, and
//! the probability is less.
//!
//! An interval is about one program. Which of many programs are faster is another question: of twenty that are not, one seems so at 95 %. It is
//! answered by the sign test ([`Measured::faster`]), corrected for how often it is asked ([`holm`]).

use crate::random::Random;
use crate::{Result, Session};
use brolga_runtime::{Buffer, View};
use std::time::Instant;

/// How sure an interval is to be.
pub const CONFIDENCE: f64 = 0.95;

/// Most rounds, so that probabilities are numbers that f64 can hold.
pub const MOST_ROUNDS: usize = 1000;

/// Rounds that are run however long they take.
const LEAST_ROUNDS: usize = 7;

/// Runs of each program before its times count.
const WARM: usize = 2;

/// The median of values, and where that of their distribution lies.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// The median of the values.
    pub median: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
    /// The probability that the median of the distribution lies there.
    pub confidence: f64,
}

impl Interval {
    /// That of some values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Interval> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let median = match n % 2 {
            _ if n == 0 => return None,
            1 => sorted[n / 2],
            _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
        };
        let (k, confidence) = rank(n.min(MOST_ROUNDS));
        Some(Interval {
            median,
            low: sorted[k - 1],
            high: sorted[n - k],
            confidence,
        })
    }
}

/// The rank of the ends of the interval among n values, counted from 1, and its confidence.
fn rank(n: usize) -> (usize, f64) {
    // The probability that fewer than k of n values are below the median, and that of exactly k - 1.
    let mut exactly = 0.5f64.powi(n as i32);
    let mut below = exactly;
    let mut best = (1, 1.0 - 2.0 * below);
    for k in 2..=n / 2 {
        exactly *= (n - k + 2) as f64 / (k - 1) as f64;
        below += exactly;
        if 1.0 - 2.0 * below < CONFIDENCE {
            break;
        }
        best = (k, 1.0 - 2.0 * below);
    }
    (best.0, best.1.max(0.0))
}

/// Which of some hypotheses are rejected, by their p-values, so that with a probability of [`CONFIDENCE`] none of them is true (Holm, "A simple
/// sequentially rejective multiple test procedure", 1979).
pub fn holm(values: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut rejected = vec![false; values.len()];
    for (left, i) in (1..=values.len()).rev().zip(order) {
        if values[i] > (1.0 - CONFIDENCE) / left as f64 {
            break;
        }
        rejected[i] = true;
    }
    rejected
}

/// The rounds that it takes for one of so many hypotheses to be rejected first, whatever they gave.
pub fn rounds_to_tell(hypotheses: usize) -> usize {
    (hypotheses as f64 / (1.0 - CONFIDENCE)).log2().ceil() as usize
}

/// The probability of at least k heads in n throws of a coin.
fn heads(k: usize, n: usize) -> f64 {
    let mut exactly = 0.5f64.powi(n as i32);
    let mut sum = exactly;
    for heads in (k..n).rev() {
        exactly *= (heads + 1) as f64 / (n - heads) as f64;
        sum += exactly;
    }
    sum.min(1.0)
}

/// How long programs are timed.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// So many rounds, at most [`MOST_ROUNDS`]; without it, as many as the time is enough for, and at least 7.
    pub rounds: Option<usize>,
    /// Seconds for all rounds together.
    pub seconds: f64,
    /// What the order in a round comes from.
    pub seed: u64,
}

/// What runs of programs gave.
pub struct Measured {
    /// Seconds of each program in each round.
    times: Vec<Vec<f64>>,
    /// The results of each program, in the model's order.
    pub outputs: Vec<Vec<Buffer>>,
}

impl Measured {
    /// Runs programs in turn on the same inputs, by name.
    ///
    /// # Errors
    /// When a run fails.
    pub fn new(programs: &[Session], inputs: &[(&str, View)], budget: Budget) -> Result<Measured> {
        let mut outputs = vec![];
        for p in programs {
            for _ in 1..WARM {
                p.run_named(inputs)?;
            }
            outputs.push(p.run_named(inputs)?);
        }
        let (least, most) = match budget.rounds {
            Some(n) => (n, n),
            None => (LEAST_ROUNDS, MOST_ROUNDS),
        };
        let mut random = Random::new(budget.seed);
        let mut times = vec![vec![]; programs.len()];
        let start = Instant::now();
        for round in 0..most.min(MOST_ROUNDS) {
            if round >= least && start.elapsed().as_secs_f64() >= budget.seconds {
                break;
            }
            for p in shuffled(programs.len(), &mut random) {
                let start = Instant::now();
                let given = programs[p].run_named(inputs)?;
                times[p].push(start.elapsed().as_secs_f64());
                drop(given);
            }
        }
        Ok(Measured { times, outputs })
    }

    /// Rounds.
    pub fn rounds(&self) -> usize {
        self.times.first().map_or(0, Vec::len)
    }

    /// Seconds of a run of a program.
    pub fn seconds(&self, program: usize) -> Option<Interval> {
        Interval::of(&self.times[program])
    }

    /// The time of a program over that of the first one.
    pub fn ratio(&self, program: usize) -> Option<Interval> {
        Interval::of(&self.ratios(program))
    }

    /// The p-value of the hypothesis that the median of a program's time over that of the first one is `ratio` or more (sign test).
    pub fn faster(&self, program: usize, ratio: f64) -> f64 {
        let ratios = self.ratios(program);
        heads(ratios.iter().filter(|r| **r < ratio).count(), ratios.len())
    }

    fn ratios(&self, program: usize) -> Vec<f64> {
        let rounds = self.times[program].iter().zip(&self.times[0]);
        rounds.map(|(t, all)| t / all.max(f64::MIN_POSITIVE)).collect()
    }
}

/// The numbers below n in some order (Fisher and Yates).
pub(super) fn shuffled(n: usize, random: &mut Random) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let j = (random.unit() * (i + 1) as f64) as usize;
        all.swap(i, j);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // The probabilities of binomial distributions, as tables of the sign test have them.
        for (n, k, confidence) in [
            (5, 1, 0.9375),
            (6, 1, 0.96875),
            (10, 2, 0.978516),
            (20, 6, 0.958611),
            (100, 40, 0.9648),
        ] {
            let (found, sure) = rank(n);
            assert_eq!(found, k, "{n} values");
            assert!((sure - confidence).abs() < 1e-4, "{n} values: {sure}");
        }
        assert!(rank(MOST_ROUNDS).1 >= CONFIDENCE);
    }

    #[test]
    fn an_interval_holds_the_median_as_often_as_is_said() {
        // Heavy tails, as times have them; the median of the distribution is 1.
        let mut random = Random::new(3);
        let mut draw = || -> f64 {
            let u = random.unit();
            if u < 0.5 {
                0.9 + 0.2 * u
            } else {
                1.0 + (u - 0.5).powi(4) * 100.0
            }
        };
        const TRIALS: usize = 20_000;
        let hit = |_: &usize| {
            let values: Vec<f64> = (0..25).map(|_| draw()).collect();
            Interval::of(&values).is_some_and(|i| (i.low..=i.high).contains(&1.0))
        };
        let share = (0..TRIALS).filter(hit).count() as f64 / TRIALS as f64;
        let said = rank(25).1;
        assert!((share - said).abs() < 0.01, "{share}, expected {said}");
    }

    #[test]
    fn coins_fall_as_the_binomial_distribution_says() {
        for (k, n, p) in [
            (0, 7, 1.0),
            (7, 7, 1.0 / 128.0),
            (6, 7, 8.0 / 128.0),
            (9, 10, 11.0 / 1024.0),
            (0, 0, 1.0),
        ] {
            assert!((heads(k, n) - p).abs() < 1e-12, "{k} of {n}: {}", heads(k, n));
        }
        assert!((heads(501, MOST_ROUNDS) - 0.4874).abs() < 1e-4);
    }

    #[test]
    fn holms_procedure_goes_down_step_by_step() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [true, false, false, true]);
        // The last would do by itself, and so would the second.
        assert_eq!(holm(&[0.02, 0.024, 0.049]), [false; 3]);
        assert_eq!(holm(&[0.01, 0.024, 0.049]), [true; 3]);
        assert_eq!(holm(&[]), [false; 0]);
        for hypotheses in [1, 2, 20, 300] {
            let n = rounds_to_tell(hypotheses);
            let tells = |n: usize| {
                let mut values = vec![1.0; hypotheses];
                values[0] = heads(n, n);
                holm(&values)[0]
            };
            assert!(tells(n) && !tells(n - 1), "{hypotheses} hypotheses, {n} rounds");
        }
    }

    #[test]
    fn of_many_programs_that_are_alike_hardly_ever_one_is_called_faster() {
        const TRIALS: usize = 2_000;
        let mut random = Random::new(5);
        let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| 1.0 + random.unit()).collect() };
        let (mut by_itself, mut corrected) = (0, 0);
        for _ in 0..TRIALS {
            let measured = Measured {
                times: (0..21).map(|_| draw(15)).collect(),
                outputs: vec![],
            };
            let values: Vec<f64> = (1..21).map(|p| measured.faster(p, 1.0)).collect();
            by_itself += usize::from(values.iter().any(|p| *p <= 1.0 - CONFIDENCE));
            corrected += usize::from(holm(&values).contains(&true));
        }
        assert!(by_itself > TRIALS / 5, "{by_itself} of {TRIALS}");
        assert!(corrected as f64 <= 0.05 * TRIALS as f64, "{corrected} of {TRIALS}");
    }

    #[test]
    fn few_values_have_the_interval_that_they_span() {
        assert_eq!(Interval::of(&[]), None);
        let one = Interval::of(&[2.0]).expect("there is a value");
        assert_eq!((one.median, one.low, one.high, one.confidence), (2.0, 2.0, 2.0, 0.0));
        let four = Interval::of(&[4.0, 1.0, 3.0, 2.0]).expect("there are values");
        assert_eq!(
            (four.median, four.low, four.high, four.confidence),
            (2.5, 1.0, 4.0, 0.875)
        );
    }

    #[test]
    fn every_order_is_a_permutation_and_they_differ() {
        let mut random = Random::new(1);
        let orders: Vec<Vec<usize>> = (0..8).map(|_| shuffled(5, &mut random)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(orders.iter().any(|o| *o != orders[0]));
        let mut again = Random::new(1);
        assert_eq!(shuffled(5, &mut again), orders[0], "a seed tells the order");
    }
}
