//! Which tokens may come next in a transcript, by their logits; and the segments that timestamps cut it into.
//!
//! Timestamps come in pairs, the end of a segment and the beginning of the next, and never go back; one comes first, and whenever all of them
//! together are likelier than any other token. Source: Radford et al., arXiv 2212.04356, and `WhisperTimeStampLogitsProcessor` of transformers.

use super::prompt::Specials;

impl Specials {
    /// Sets logits of tokens to -∞ that may not come behind these, which begin behind the prompt. `end` is the token that ends a transcript.
    pub fn restrict(&self, logits: &mut [f32], tokens: &[i64], end: i64, timestamps: bool) {
        let first = tokens.is_empty().then_some(&self.suppressed_first);
        for &token in self.suppressed.iter().chain(first.into_iter().flatten()) {
            if let Some(x) = usize::try_from(token).ok().and_then(|t| logits.get_mut(t)) {
                *x = f32::NEG_INFINITY;
            }
        }
        if let (true, Some(zero)) = (timestamps, self.first_time()) {
            self.pair(logits, tokens, [end, zero].map(|t| t as usize));
        }
    }

    fn pair(&self, logits: &mut [f32], tokens: &[i64], [end, zero]: [usize; 2]) {
        let n = logits.len();
        let zero = zero.min(n);
        let mut hide = |from: usize, to: usize| logits[from.min(n)..to.clamp(from.min(n), n)].fill(f32::NEG_INFINITY);
        hide(zero - 1, zero);
        let is_time = |t: &i64| *t >= zero as i64;
        let last = tokens.last().is_some_and(is_time);
        let before = tokens.len() < 2 || is_time(&tokens[tokens.len() - 2]);
        match (last, before) {
            (true, true) => hide(zero, n),
            (true, false) => hide(0, end),
            (false, _) => {}
        }
        if let Some(time) = tokens.iter().rfind(|t| is_time(t)) {
            // The same time ends a segment and begins the next, and no more.
            let again = last && !before;
            hide(zero, *time as usize + usize::from(!again));
        }
        if tokens.is_empty() {
            hide(0, zero);
            if let Some(latest) = self.latest_begin {
                hide(zero + latest as usize + 1, n);
            }
        }
        let most = |part: &[f32]| part.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (words, times) = logits.split_at(zero);
        let (word, time) = (most(words), most(times));
        let together = time + times.iter().map(|x| (x - time).exp()).sum::<f32>().ln();
        if time > f32::NEG_INFINITY && together > word {
            logits[..zero].fill(f32::NEG_INFINITY);
        }
    }
}

/// A part of a window's tokens, and its time in steps of timestamps.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Where it begins.
    pub start: i64,
    /// Where it ends.
    pub end: i64,
    /// Its tokens, timestamps included.
    pub tokens: Vec<i64>,
}

/// The parts that pairs of timestamps cut a window of so many steps into, and where the next window begins. What stands behind the last pair is
/// left to that one: its sound goes on beyond this window.
pub fn parts(tokens: &[i64], zero: i64, steps: i64) -> (Vec<Part>, i64) {
    let is_time = |t: &i64| *t >= zero;
    let mut cuts: Vec<usize> = (1..tokens.len())
        .filter(|&i| is_time(&tokens[i - 1]) && is_time(&tokens[i]))
        .collect();
    let Some(last) = cuts.last_mut() else {
        let time = tokens.iter().rfind(|t| is_time(t)).filter(|t| **t != zero);
        let whole = Part {
            start: 0,
            end: time.map_or(steps, |t| t - zero),
            tokens: tokens.to_vec(),
        };
        return (vec![whole], steps);
    };
    let ends = matches!(tokens, [.., word, time] if !is_time(word) && is_time(time));
    let next = if ends {
        steps
    } else {
        // The last one shows its pair.
        *last += 1;
        tokens[*last - 2] - zero
    };
    if ends {
        cuts.push(tokens.len());
    }
    let (mut parts, mut from) = (vec![], 0);
    for (i, &to) in cuts.iter().enumerate() {
        let own = &tokens[from..to];
        let shows_pair = !ends && i + 1 == cuts.len();
        parts.push(Part {
            start: own[0] - zero,
            end: own[own.len() - if shows_pair { 2 } else { 1 }] - zero,
            tokens: own.to_vec(),
        });
        from = to;
    }
    (parts, next)
}
