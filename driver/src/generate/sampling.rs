//! How the next token is chosen of logits: penalties, a bias, a temperature, and which tokens are left to draw from.
//!
//! The order is that of transformers' processors: repetition, presence and frequency, bias, temperature, top-k, top-p, min-p. Invariants: some
//! token is always chosen, a NaN only where there is nothing else; of equal ones the first counts; a seed draws the same tokens everywhere.
//! What is left is found by selection: vocabularies have 150,000 tokens, of which hundreds have most of the probability.

use crate::random::Random;
use brolga_frontend::safetensors::Facts;

/// Tokens that are looked at first for those that have a share of the probability.
const FIRST: usize = 256;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the best token.
    pub temperature: f32,
    /// Tokens to draw from at most, the best ones; 0 is no limit.
    pub top_k: usize,
    /// Draws from the best tokens that together have this probability (Holtzman et al., arXiv 1904.09751).
    pub top_p: f32,
    /// Draws from tokens that have this share of the best one's probability (Nguyen et al., arXiv 2407.01082).
    pub min_p: f32,
    /// Makes tokens of the prompt and the text less likely above 1: positive logits are divided by it, negative ones multiplied (Keskar et
    /// al., arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Taken from logits of tokens that were generated.
    pub presence_penalty: f32,
    /// The same, as often as each was.
    pub frequency_penalty: f32,
    /// Added to logits of tokens.
    pub logit_bias: Vec<(i64, f32)>,
    /// What draws begin with.
    pub seed: u64,
}

impl Default for Sampling {
    /// The best token, always.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: vec![],
            seed: 0,
        }
    }
}

impl Sampling {
    /// What a model's folder says.
    pub fn of(facts: &Facts) -> Sampling {
        let mut s = Sampling::default();
        for (name, x) in &facts.sampling {
            let x = *x as f32;
            match name.as_str() {
                "temperature" => s.temperature = x,
                "top_k" => s.top_k = x as usize,
                "top_p" => s.top_p = x,
                "min_p" => s.min_p = x,
                "repetition_penalty" => s.repetition_penalty = x,
                _ => {}
            }
        }
        s
    }

    /// Checks that all is in range.
    ///
    /// # Errors
    /// Which is not.
    pub fn validate(&self) -> Result<(), String> {
        let unit = 0.0..=1.0;
        let checks = [
            ("temperature", self.temperature, "0 or more", self.temperature >= 0.0),
            (
                "top_p",
                self.top_p,
                "above 0, at most 1",
                unit.contains(&self.top_p) && self.top_p > 0.0,
            ),
            ("min_p", self.min_p, "from 0 to 1", unit.contains(&self.min_p)),
            (
                "repetition_penalty",
                self.repetition_penalty,
                "above 0",
                self.repetition_penalty > 0.0,
            ),
            ("presence_penalty", self.presence_penalty, "a number", true),
            ("frequency_penalty", self.frequency_penalty, "a number", true),
        ];
        for (name, x, wanted, holds) in checks {
            if !holds || !x.is_finite() {
                return Err(format!("{name} {x}, expected {wanted}"));
            }
        }
        match self.logit_bias.iter().find(|(_, b)| b.is_nan()) {
            Some((token, _)) => Err(format!("logit_bias of token {token} is no number")),
            None => Ok(()),
        }
    }
}

/// A token that may be drawn under its logit, as one number: the best first; of equal ones the first token. Sorting numbers takes a quarter of
/// the time of sorting pairs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u64);

impl Candidate {
    /// Of a logit that is not NaN.
    fn new(logit: f32, token: usize) -> Candidate {
        // Negative numbers descend by their bits; -0 becomes 0.
        let bits = (logit + 0.0).to_bits();
        let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Candidate(u64::from(!ascending) << 32 | token as u64)
    }

    fn logit(self) -> f32 {
        let ascending = !((self.0 >> 32) as u32);
        f32::from_bits(if ascending >> 31 == 1 {
            ascending & !(1 << 31)
        } else {
            !ascending
        })
    }

    fn token(self) -> i64 {
        i64::from(self.0 as u32)
    }
}

/// Chooses tokens one after the other.
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    /// Tokens of the prompt.
    prompt: usize,
    /// The logits that are worked on.
    scores: Vec<f32>,
    /// Tokens that may be drawn.
    left: Vec<Candidate>,
}

impl Sampler {
    /// A sampler of a text whose first tokens are the prompt's.
    pub fn new(sampling: Sampling, prompt: usize) -> Sampler {
        Sampler {
            random: Random::new(sampling.seed),
            sampling,
            prompt,
            scores: vec![],
            left: vec![],
        }
    }

    /// Chooses a token by its logits, behind these: the prompt and what was generated. Token 0 where there are no logits.
    pub fn next(&mut self, logits: &[f32], tokens: &[i64]) -> i64 {
        self.adjusted(logits, tokens);
        let Some(best) = best(&self.scores) else { return 0 };
        let warm = self.sampling.temperature > 0.0;
        // Beside an infinite logit nothing has a probability.
        if warm && best.logit().is_finite() {
            self.draw(best)
        } else {
            best.token()
        }
    }

    /// Logits, or logarithms of probabilities, with penalties and biases.
    pub(super) fn adjusted(&mut self, logits: &[f32], tokens: &[i64]) -> &[f32] {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.penalise(tokens);
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(s) = usize::try_from(token).ok().and_then(|t| self.scores.get_mut(t)) {
                *s += bias;
            }
        }
        &self.scores
    }

    fn penalise(&mut self, tokens: &[i64]) {
        let s = &self.sampling;
        let counted = |tokens: &[i64], n: usize| {
            let known = |t: &i64| usize::try_from(*t).ok().filter(|t| *t < n);
            let mut all: Vec<usize> = tokens.iter().filter_map(known).collect();
            all.sort_unstable();
            all
        };
        let n = self.scores.len();
        if s.repetition_penalty != 1.0 {
            for same in counted(tokens, n).chunk_by(|a, b| a == b) {
                let x = &mut self.scores[same[0]];
                *x = if *x > 0.0 {
                    *x / s.repetition_penalty
                } else {
                    *x * s.repetition_penalty
                };
            }
        }
        if s.presence_penalty != 0.0 || s.frequency_penalty != 0.0 {
            let own = tokens.get(self.prompt..).unwrap_or_default();
            for same in counted(own, n).chunk_by(|a, b| a == b) {
                self.scores[same[0]] -= s.presence_penalty + s.frequency_penalty * same.len() as f32;
            }
        }
    }

    /// Draws a token of those that are left; the best one always is.
    fn draw(&mut self, best: Candidate) -> i64 {
        let s = &self.sampling;
        // Against the best token's, which is 1.
        let weight = |c: &Candidate| f64::from(((c.logit() - best.logit()) / s.temperature).exp());
        let all = self.scores.len();
        let most = if s.top_k == 0 { all } else { s.top_k.min(all) };
        if s.top_p < 1.0 {
            // Probabilities are those among the tokens that top-k left.
            let whole = (most == all).then(|| candidates(&self.scores).map(|c| weight(&c)).sum::<f64>());
            let mut n = if whole.is_some() { FIRST.min(most) } else { most };
            loop {
                select(&self.scores, n, &mut self.left);
                self.left.sort_unstable();
                let total = whole.unwrap_or_else(|| self.left.iter().map(weight).sum());
                let mut sum = 0.0;
                let enough = self.left.iter().position(|c| {
                    sum += weight(c);
                    sum >= f64::from(s.top_p) * total
                });
                self.left.truncate(enough.map_or(self.left.len(), |last| last + 1));
                if enough.is_some() || n == most {
                    break;
                }
                n = n.saturating_mul(16).min(most);
            }
        } else {
            select(&self.scores, most, &mut self.left);
        }
        if s.min_p > 0.0 {
            self.left.retain(|c| weight(c) >= f64::from(s.min_p));
        }
        let total: f64 = self.left.iter().map(weight).sum();
        let mut at = self.random.unit() * total;
        let drawn = self.left.iter().find(|c| {
            at -= weight(c);
            at < 0.0
        });
        // Rounding may leave a little.
        drawn.map_or(best.token(), |c| c.token())
    }
}

fn candidates(scores: &[f32]) -> impl Iterator<Item = Candidate> {
    let all = scores.iter().enumerate().filter(|(_, x)| !x.is_nan());
    all.map(|(token, &logit)| Candidate::new(logit, token))
}

/// The first token with the largest logit.
fn best(scores: &[f32]) -> Option<Candidate> {
    let mut best: Option<(f32, usize)> = None;
    for (token, &x) in scores.iter().enumerate() {
        if !x.is_nan() && best.is_none_or(|(most, _)| x > most) {
            best = Some((x, token));
        }
    }
    best.map(|(x, token)| Candidate::new(x, token))
}

/// The best `n` tokens with their logits, the best first; of equal ones the first.
pub(super) fn top(logits: &[f32], n: usize) -> Vec<(i64, f32)> {
    let mut best = vec![];
    if n > 0 {
        select(logits, n, &mut best);
        best.sort_unstable();
    }
    best.iter().map(|c| (c.token(), c.logit())).collect()
}

/// The best `n`, best first; all of them by token where there are no more. One pass: what is behind the `n` best so far is not kept.
fn select(scores: &[f32], n: usize, best: &mut Vec<Candidate>) {
    best.clear();
    if n >= scores.len() {
        best.extend(candidates(scores));
        return;
    }
    let mut last = None;
    for c in candidates(scores) {
        if last.is_none_or(|last| c < last) {
            best.push(c);
            if best.len() >= 2 * n {
                last = Some(*best.select_nth_unstable(n - 1).1);
                best.truncate(n);
            }
        }
    }
    best.sort_unstable();
    best.truncate(n);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, 3.0, f32::NAN, 2.0, 3.0, f32::NEG_INFINITY];

    fn drawn(s: Sampling, n: usize) -> Vec<i64> {
        let mut sampler = Sampler::new(s, 0);
        let mut all: Vec<i64> = (0..n).map(|_| sampler.next(&LOGITS, &[])).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn the_best_token_is_the_first_of_equals() {
        assert_eq!(Sampler::new(Sampling::default(), 0).next(&LOGITS, &[]), 1);
        assert_eq!(
            Sampler::new(Sampling::default(), 0).next(&[f32::NAN, f32::NEG_INFINITY], &[]),
            1
        );
        let bias = Sampling {
            logit_bias: vec![(3, 5.0), (99, 100.0), (-1, 100.0)],
            ..Sampling::default()
        };
        assert_eq!(Sampler::new(bias, 0).next(&LOGITS, &[]), 3);
    }

    #[test]
    fn only_tokens_that_are_left_are_drawn() {
        let warm = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_eq!(drawn(warm.clone(), 500), [0, 1, 3, 4]);
        assert_eq!(
            drawn(
                Sampling {
                    top_k: 2,
                    ..warm.clone()
                },
                500
            ),
            [1, 4]
        );
        assert_eq!(
            drawn(
                Sampling {
                    top_k: 1,
                    ..warm.clone()
                },
                50
            ),
            [1]
        );
        // Probabilities are 0.4 each of the best, 0.15 and 0.05.
        assert_eq!(
            drawn(
                Sampling {
                    top_p: 0.7,
                    ..warm.clone()
                },
                500
            ),
            [1, 4]
        );
        assert_eq!(
            drawn(
                Sampling {
                    top_p: 0.9,
                    ..warm.clone()
                },
                500
            ),
            [1, 3, 4]
        );
        assert_eq!(
            drawn(
                Sampling {
                    top_p: 0.01,
                    ..warm.clone()
                },
                50
            ),
            [1]
        );
        assert_eq!(
            drawn(
                Sampling {
                    min_p: 0.2,
                    ..warm.clone()
                },
                500
            ),
            [1, 3, 4]
        );
        assert_eq!(drawn(Sampling { min_p: 1.0, ..warm }, 500), [1, 4]);
    }

    #[test]
    fn draws_have_their_probabilities() {
        let warm = Sampling {
            temperature: 0.5,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(warm, 0);
        let n = 20_000;
        let threes = (0..n).filter(|_| sampler.next(&LOGITS, &[]) == 3).count() as f64 / f64::from(n);
        // e^-2 against 1, 1 and e^-4.
        let wanted = (-2f64).exp() / (2.0 + (-2f64).exp() + (-4f64).exp());
        assert!((threes - wanted).abs() < 0.01, "{threes} for {wanted}");
    }

    #[test]
    fn penalties_are_those_of_the_others() {
        let one = |s: Sampling, tokens: &[i64], prompt| Sampler::new(s, prompt).next(&[2.0, 1.5, -1.0], tokens);
        let repetition = |p| Sampling {
            repetition_penalty: p,
            ..Sampling::default()
        };
        // 2 / 1.5 is below 1.5, 2 / 1.3 is not.
        assert_eq!(one(repetition(1.5), &[0, 0], 2), 1);
        assert_eq!(one(repetition(1.3), &[0, 0], 2), 0);
        let presence = Sampling {
            presence_penalty: 0.6,
            ..Sampling::default()
        };
        assert_eq!(one(presence.clone(), &[0, 0], 2), 0, "prompts do not count");
        assert_eq!(one(presence, &[0, 0], 1), 1);
        let frequency = Sampling {
            frequency_penalty: 0.3,
            ..Sampling::default()
        };
        assert_eq!(one(frequency.clone(), &[0], 0), 0);
        assert_eq!(one(frequency, &[0, 0], 0), 1);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let wrong = Sampling {
            top_p: 1.5,
            ..Sampling::default()
        };
        assert_eq!(wrong.validate().unwrap_err(), "top_p 1.5, expected above 0, at most 1");
        let wrong = Sampling {
            temperature: f32::NAN,
            ..Sampling::default()
        };
        assert!(wrong.validate().unwrap_err().starts_with("temperature"));
    }

    #[test]
    fn min_p_is_behind_top_p() {
        // Probabilities 0.4, 0.3, 0.2 and 0.1. Had min_p come first, the first token alone would have more than half of what is left.
        let logits = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let s = Sampling {
            temperature: 1.0,
            top_p: 0.5,
            min_p: 0.6,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(s, 0);
        sampler.next(&logits, &[]);
        assert_eq!(sampler.left.iter().map(|c| c.token()).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn some_token_is_always_chosen() {
        let warm = Sampling {
            temperature: 1.0,
            top_p: 0.9,
            ..Sampling::default()
        };
        let next = |logits: &[f32]| Sampler::new(warm.clone(), 0).next(logits, &[]);
        assert_eq!(next(&[]), 0);
        assert_eq!(next(&[f32::NAN; 3]), 0);
        assert_eq!(next(&[f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY]), 1);
        assert_eq!(next(&[1.0, f32::INFINITY, f32::INFINITY]), 1);
    }

    #[test]
    fn the_best_are_selected_in_one_pass() {
        let mut random = Random::new(7);
        // Some are equal, some negative, zeros of both signs.
        let scores: Vec<f32> = (0..5000)
            .map(|_| ((random.unit() * 600.0) as i32 - 300) as f32 * -0.5)
            .collect();
        let mut sorted: Vec<Candidate> = candidates(&scores).collect();
        sorted.sort_by(|a, b| b.logit().total_cmp(&a.logit()).then(a.token().cmp(&b.token())));
        assert!(sorted.iter().all(|c| scores[c.token() as usize] == c.logit()));
        let mut best = vec![];
        for n in [1, 2, 100, 4999] {
            select(&scores, n, &mut best);
            assert!(best == sorted[..n], "{n}");
        }
    }
}
