//! How the next token is chosen of logits: penalties, a bias, a temperature, and which tokens are left to draw from.
//!
//! The order is that of transformers' processors: repetition, presence and frequency, bias, temperature, top-k, top-p, min-p. Invariants: some token is
//! always chosen, a NaN never; of equal ones the first counts; the same seed draws the same tokens on every machine.

use crate::random::Random;
use brolga_frontend::safetensors::Facts;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the best token.
    pub temperature: f32,
    /// Tokens to draw from at most, the best ones; 0 is no limit.
    pub top_k: usize,
    /// Draws from the best tokens that together have this probability.
    pub top_p: f32,
    /// Draws from tokens that have this share of the best one's probability.
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
            ("top_p", self.top_p, "above 0, at most 1", unit.contains(&self.top_p) && self.top_p > 0.0),
            ("min_p", self.min_p, "from 0 to 1", unit.contains(&self.min_p)),
            ("repetition_penalty", self.repetition_penalty, "above 0", self.repetition_penalty > 0.0),
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

/// Chooses tokens one after the other.
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    /// Tokens of the prompt.
    prompt: usize,
    /// The logits that are worked on.
    scores: Vec<f32>,
    /// Tokens that may be drawn, with their weights.
    left: Vec<(f32, u32)>,
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

    /// Chooses a token by its logits, behind these: the prompt and what was generated.
    pub fn next(&mut self, logits: &[f32], tokens: &[i64]) -> i64 {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.penalise(tokens);
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(s) = usize::try_from(token).ok().and_then(|t| self.scores.get_mut(t)) {
                *s += bias;
            }
        }
        let best = best(&self.scores);
        if self.sampling.temperature == 0.0 {
            return best as i64;
        }
        self.draw(best)
    }

    fn penalise(&mut self, tokens: &[i64]) {
        let s = &self.sampling;
        let known = |t: &i64| usize::try_from(*t).ok().filter(|t| *t < self.scores.len());
        if s.repetition_penalty != 1.0 {
            let mut seen: Vec<usize> = tokens.iter().filter_map(known).collect();
            seen.sort_unstable();
            seen.dedup();
            for t in seen {
                let x = &mut self.scores[t];
                *x = if *x > 0.0 { *x / s.repetition_penalty } else { *x * s.repetition_penalty };
            }
        }
        if s.presence_penalty != 0.0 || s.frequency_penalty != 0.0 {
            let own = tokens.get(self.prompt..).unwrap_or_default();
            let known = |t: &i64| usize::try_from(*t).ok().filter(|t| *t < self.scores.len());
            let mut all: Vec<usize> = own.iter().filter_map(known).collect();
            all.sort_unstable();
            for same in all.chunk_by(|a, b| a == b) {
                self.scores[same[0]] -= s.presence_penalty + s.frequency_penalty * same.len() as f32;
            }
        }
    }

    /// Draws a token of those that are left; the best one always is.
    fn draw(&mut self, best: usize) -> i64 {
        let s = &self.sampling;
        let most = self.scores[best];
        if !most.is_finite() {
            return best as i64;
        }
        // Weights against the best token's, which is 1: what is less than this of it is never drawn.
        let least = s.min_p.max(f32::MIN_POSITIVE);
        self.left.clear();
        for (t, &x) in self.scores.iter().enumerate() {
            let w = ((x - most) / s.temperature).exp();
            if w >= least {
                self.left.push((w, t as u32));
            }
        }
        // The heaviest first; of equal ones the first token.
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if s.top_k > 0 && s.top_k < self.left.len() {
            self.left.select_nth_unstable_by(s.top_k, order);
            self.left.truncate(s.top_k);
        }
        let mut total: f64 = self.left.iter().map(|(w, _)| f64::from(*w)).sum();
        if s.top_p < 1.0 {
            self.left.sort_unstable_by(order);
            let (wanted, mut sum) = (f64::from(s.top_p) * total, 0.0);
            let enough = self.left.iter().position(|(w, _)| {
                sum += f64::from(*w);
                sum >= wanted
            });
            self.left.truncate(enough.map_or(self.left.len(), |i| i + 1));
            total = sum.min(total);
        } else {
            // Draws go by tokens, however the best ones were found.
            self.left.sort_unstable_by_key(|(_, t)| *t);
        }
        let mut at = self.random.unit() * total;
        for &(w, t) in &self.left {
            at -= f64::from(w);
            if at < 0.0 {
                return i64::from(t);
            }
        }
        self.left.last().map_or(best as i64, |(_, t)| i64::from(*t))
    }
}

/// The first token with the largest logit; NaN counts as least.
fn best(scores: &[f32]) -> usize {
    let mut best = (f32::NEG_INFINITY, 0);
    for (t, &x) in scores.iter().enumerate() {
        if x > best.0 {
            best = (x, t);
        }
    }
    best.1
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
        assert_eq!(Sampler::new(Sampling::default(), 0).next(&[f32::NAN, f32::NEG_INFINITY], &[]), 0);
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
        assert_eq!(drawn(Sampling { top_k: 2, ..warm.clone() }, 500), [1, 4]);
        assert_eq!(drawn(Sampling { top_k: 1, ..warm.clone() }, 50), [1]);
        // Probabilities are 0.4 each of the best, 0.15 and 0.05.
        assert_eq!(drawn(Sampling { top_p: 0.7, ..warm.clone() }, 500), [1, 4]);
        assert_eq!(drawn(Sampling { top_p: 0.9, ..warm.clone() }, 500), [1, 3, 4]);
        assert_eq!(drawn(Sampling { top_p: 0.01, ..warm.clone() }, 50), [1]);
        assert_eq!(drawn(Sampling { min_p: 0.2, ..warm.clone() }, 500), [1, 3, 4]);
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
}
