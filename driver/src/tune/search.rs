//! The search for a kernel's schedule: which candidates are tried, in which order.
//!
//! What is tried first are schedules that were good elsewhere, then candidates of the kernel's space and mixtures of good ones
//! ([`Genes`]), those first that take least as the cost model predicts and what was measured so far corrects it, and some others, so
//! that neither is taken at its word. A candidate is timed against the incumbent and takes its place when it is faster; so it is always known what the
//! best one gains.
//!
//! The correction is a ridge regression (Hoerl and Kennard, 1970) of how far measured times are from predicted ones, as logarithms, on the
//! candidates' values. It needs some tens of measurements; what both say decides nothing but the order. By recorded times of kernels of small models,
//! the best of the first 16 candidates took 1.003 of the time of the best of 60, where 16 at random took 1.07 (docs/performance.md).

use super::duel::median;
use super::record::Outcome;
use super::worker::{Measure, Measured};
use crate::kernels::Workload;
use brolga_ir::schedule::Schedule;
use brolga_passes::schedule::genes::Genes;
use brolga_passes::schedule::{Machine, apply, inlines, space};
use rustc_hash::{FxHashMap, FxHashSet};
use std::time::{Duration, Instant};

/// Candidates that are tried between two looks at the model.
const BATCH: usize = 16;
/// Those of them that are taken at random.
const RANDOM: usize = 4;
/// Good candidates that are mixed.
const ELITE: usize = 8;
/// Mixtures that are made between two looks at the model.
const OFFSPRING: usize = 64;
/// Candidates without a new incumbent after which a search ends.
const PATIENCE: usize = 160;
/// Candidates that are timed once more at the end.
const FINALISTS: usize = 5;
/// Times within this share of the best one are tied.
const TIE: f64 = 0.02;
/// How far the prediction of a candidate that gave no time counts as off: the logarithm of 2.7.
const LOST: f64 = 1.0;

/// When a search ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Time.
    pub time: Duration,
    /// Candidates.
    pub trials: usize,
}

/// A candidate that was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Tried {
    /// The candidate.
    pub schedule: Schedule,
    /// What it was timed against.
    pub incumbent: Schedule,
    /// How it did.
    pub measured: Measured,
    /// Its time over that of the chosen schedule, where it was timed: what the incumbent gained, times its own.
    pub gain: Option<f64>,
}

/// What is searched.
pub struct Search<'a> {
    /// The kernel.
    pub workload: &'a Workload,
    /// The machine.
    pub machine: &'a Machine,
    /// The schedule that is chosen without tuning.
    pub chosen: Schedule,
    /// Schedules that may be good: of records, of kernels of the same kind.
    pub seeds: Vec<Schedule>,
    /// Candidates that were no good in an earlier search, with their times over that of the chosen schedule where they are known: they
    /// are not tried again.
    pub known: Vec<(Schedule, Option<f64>)>,
    /// Whether a result lies over an operand.
    pub in_place: bool,
    /// Seconds that the cost model predicts for a candidate.
    pub predict: &'a dyn Fn(&Schedule) -> Option<f64>,
    /// When to end.
    pub limits: Limits,
    /// What the search's chances depend on.
    pub seed: u64,
}

/// A schedule that is faster than the chosen one.
#[derive(Clone, PartialEq, Debug)]
pub struct Winner {
    /// The schedule.
    pub schedule: Schedule,
    /// Its time over that of the chosen one.
    pub gain: f64,
}

impl Search<'_> {
    /// Searches. The measure's job has the chosen schedule as its incumbent. `each` is told of every candidate, and says whether to go
    /// on. Gives the finalists, the best one first: a chain of incumbents has the luck of all of them in its gain, so [`finish`]
    /// has to time them anew.
    pub fn run(&self, measure: &mut dyn Measure, each: &mut dyn FnMut(&Tried) -> bool) -> Vec<Schedule> {
        let start = Instant::now();
        let mut state = State::new(self);
        let mut incumbent = (self.chosen.clone(), 1.0);
        let mut since = 0;
        'all: loop {
            let batch = state.next(self);
            if batch.is_empty() {
                break;
            }
            for genes in batch {
                if start.elapsed() >= self.limits.time || state.tried.len() >= self.limits.trials || since >= PATIENCE {
                    break 'all;
                }
                let Some(schedule) = genes.schedule() else { continue };
                let measured = measure.trial(&schedule);
                since += 1;
                let gain = measured.ratio().map(|r| r * incumbent.1);
                let tried = Tried {
                    schedule: schedule.clone(),
                    incumbent: incumbent.0.clone(),
                    measured,
                    gain,
                };
                let faster = tried.measured.outcome == Outcome::Faster;
                let go_on = each(&tried);
                state.times.push((genes.clone(), gain));
                state.tried.push((genes, tried));
                if let (true, Some(gain)) = (faster, gain) {
                    measure.take(&schedule);
                    incumbent = (schedule, gain);
                    since = 0;
                }
                if !go_on {
                    break 'all;
                }
            }
        }
        state.finalists()
    }

    /// Times finalists beside the chosen schedule, which is the incumbent of the measure's job, and gives those that are faster, the
    /// best one first: of those within [`TIE`] of it, the one that differs least from the chosen one, and of these the first by its text. So
    /// two searches that saw about the same choose the same.
    pub fn finish(&self, finalists: &[Schedule], measure: &mut dyn Measure) -> Vec<Winner> {
        let timed = finalists.iter().filter_map(|s| {
            let measured = measure.trial(s);
            let gain = measured.ratio().filter(|_| measured.outcome == Outcome::Faster)?;
            Some((s.clone(), gain))
        });
        let mut timed: Vec<Winner> = timed.map(|(schedule, gain)| Winner { schedule, gain }).collect();
        timed.sort_by(|a, b| a.gain.total_cmp(&b.gain));
        let Some(best) = timed.first().map(|w| w.gain) else {
            return vec![];
        };
        let chosen = Genes::of(&self.chosen);
        let rank = |w: &Winner| {
            let distance = Genes::of(&w.schedule).distance(&chosen).unwrap_or(usize::MAX);
            (distance, w.schedule.to_string())
        };
        let tied = (0..timed.len()).take_while(|&i| timed[i].gain <= best * (1.0 + TIE));
        if let Some(first) = tied.min_by_key(|&i| rank(&timed[i])) {
            timed[..=first].rotate_right(1);
        }
        timed
    }
}

struct State {
    /// Known and not yet tried.
    pool: Vec<Genes>,
    /// Everything that ever was in it.
    seen: FxHashSet<Genes>,
    tried: Vec<(Genes, Tried)>,
    /// The times of candidates over that of the chosen schedule, where they gave any.
    times: Vec<(Genes, Option<f64>)>,
    /// Logarithms of predicted times over that of the chosen schedule, 0 where nothing is predicted.
    predicted: FxHashMap<Genes, f64>,
    /// The time that is predicted for the chosen schedule.
    base: Option<f64>,
    /// Values that stand in the space, by family and place.
    alleles: FxHashMap<(String, usize), Vec<String>>,
    random: Random,
    /// Those that are tried before all others.
    first: Vec<Genes>,
}

impl State {
    fn new(search: &Search) -> State {
        let mut state = State {
            pool: vec![],
            seen: FxHashSet::default(),
            tried: vec![],
            times: vec![],
            predicted: FxHashMap::default(),
            base: (search.predict)(&search.chosen),
            alleles: FxHashMap::default(),
            random: Random(search.seed.max(1)),
            first: vec![],
        };
        let chosen = Genes::of(&search.chosen);
        state.learn(&chosen);
        state.seen.insert(chosen);
        for (schedule, time) in &search.known {
            let genes = Genes::of(schedule);
            if state.seen.insert(genes.clone()) {
                state.times.push((genes, *time));
            }
        }
        for seed in &search.seeds {
            let genes = Genes::of(seed);
            if !state.seen.contains(&genes) && legal(search, seed) {
                state.learn(&genes);
                state.seen.insert(genes.clone());
                state.first.push(genes);
            }
        }
        for s in space(search.workload.kernel(), search.machine) {
            let genes = Genes::of(&s);
            state.learn(&genes);
            if !(search.in_place && inlines(&s)) && state.seen.insert(genes.clone()) {
                state.pool.push(genes);
            }
        }
        state
    }

    /// Remembers the values of a schedule.
    fn learn(&mut self, genes: &Genes) {
        let family = genes.family();
        for (i, v) in genes.values.iter().enumerate() {
            let all = self.alleles.entry((family.clone(), i)).or_default();
            if !all.contains(v) {
                all.push(v.clone());
            }
        }
    }

    /// The candidates to try next, the most promising first.
    fn next(&mut self, search: &Search) -> Vec<Genes> {
        if !self.first.is_empty() {
            return std::mem::take(&mut self.first);
        }
        self.mix(search);
        let times = std::mem::take(&mut self.times);
        let mut off =
            |(genes, time): &(Genes, Option<f64>)| time.map_or(LOST, |t| t.ln() - self.predicted(search, genes));
        let off: Vec<f64> = times.iter().map(&mut off).collect();
        let correction = Correction::of(times.iter().map(|(genes, _)| genes).zip(off));
        self.times = times;
        let chosen = Genes::of(&search.chosen);
        // Of those that are predicted to take the same time, the ones next to the chosen one come first.
        let mut ranked: Vec<((f64, usize), Genes)> = vec![];
        for g in std::mem::take(&mut self.pool) {
            let time = self.predicted(search, &g) + correction.as_ref().map_or(0.0, |c| c.of_candidate(&g));
            ranked.push(((time, g.distance(&chosen).unwrap_or(usize::MAX)), g));
        }
        ranked.sort_by(|((a, m), _), ((b, n), _)| a.total_cmp(b).then(m.cmp(n)));
        let mut out: Vec<Genes> = vec![];
        let mut rest: Vec<Genes> = ranked.into_iter().map(|(_, g)| g).collect();
        out.extend(rest.drain(..(BATCH - RANDOM).min(rest.len())));
        for _ in 0..RANDOM.min(rest.len()) {
            let at = self.random.below(rest.len());
            out.push(rest.swap_remove(at));
        }
        self.pool = rest;
        out
    }

    /// The logarithm of the time that is predicted for a candidate, over that of the chosen schedule.
    fn predicted(&mut self, search: &Search, genes: &Genes) -> f64 {
        if let Some(known) = self.predicted.get(genes) {
            return *known;
        }
        let time = genes.schedule().and_then(|s| (search.predict)(&s));
        let ratio = time.zip(self.base).map_or(0.0, |(time, base)| (time / base).ln());
        let ratio = if ratio.is_finite() { ratio } else { 0.0 };
        self.predicted.insert(genes.clone(), ratio);
        ratio
    }

    /// Puts mixtures of good candidates into the pool.
    fn mix(&mut self, search: &Search) {
        let known = self.times.iter().filter_map(|(g, t)| Some(((*t)?, g.clone())));
        let mut elite: Vec<(f64, Genes)> = known.collect();
        elite.push((1.0, Genes::of(&search.chosen)));
        elite.sort_by(|a, b| a.0.total_cmp(&b.0));
        elite.truncate(ELITE);
        for _ in 0..OFFSPRING {
            let mother = &elite[self.random.below(elite.len())].1;
            let father = &elite[self.random.below(elite.len())].1;
            let mut child = mother.clone();
            if mother.mixes_with(father) {
                for (own, other) in child.values.iter_mut().zip(&father.values) {
                    if self.random.below(2) == 0 {
                        own.clone_from(other);
                    }
                }
            }
            if !child.values.is_empty() {
                let at = self.random.below(child.values.len());
                self.change(&mut child, at);
            }
            if self.seen.contains(&child) {
                continue;
            }
            if let Some(s) = child.schedule()
                && legal(search, &s)
            {
                self.seen.insert(child.clone());
                self.pool.push(child);
            }
        }
    }

    /// Gives a value of a schedule another one: one of the space, or a number near it.
    fn change(&mut self, genes: &mut Genes, at: usize) {
        let value = &genes.values[at];
        let known = self.alleles.get(&(genes.family(), at)).map_or(&[][..], Vec::as_slice);
        match value.parse::<i64>() {
            Ok(n) if self.random.below(3) == 0 => {
                let near = [n / 2, n.saturating_mul(2), n - 1, n.saturating_add(1)];
                let other = near[self.random.below(near.len())];
                genes.values[at] = other.max(0).to_string();
            }
            _ if !known.is_empty() => {
                let other = known[self.random.below(known.len())].clone();
                genes.values[at] = other;
            }
            _ => {}
        }
    }

    /// The candidates that were incumbents, the best ones first.
    fn finalists(&self) -> Vec<Schedule> {
        let won = self.tried.iter().filter(|(_, t)| t.measured.outcome == Outcome::Faster);
        let mut won: Vec<(f64, &Schedule)> = won.filter_map(|(_, t)| Some((t.gain?, &t.schedule))).collect();
        won.sort_by(|a, b| a.0.total_cmp(&b.0));
        won.into_iter().take(FINALISTS).map(|(_, s)| s.clone()).collect()
    }
}

/// Whether a schedule can be that of the kernel.
fn legal(search: &Search, s: &Schedule) -> bool {
    !(search.in_place && inlines(s)) && apply(search.workload.kernel(), s).is_ok()
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n.max(1) as u64) as usize
    }
}

/// How far predictions are off, as a linear function of the values of schedules.
struct Correction {
    /// The place of each value among the weights.
    places: FxHashMap<(String, usize, String), usize>,
    weights: Vec<f64>,
    mean: f64,
}

impl Correction {
    /// Fewer measurements tell nothing.
    const LEAST: usize = 12;
    /// What a weight costs, in measurements.
    const RIDGE: f64 = 1.0;
    /// Values that have a weight, at most.
    const MOST: usize = 256;

    /// Of candidates, with the logarithms of their times over the predicted ones.
    fn of<'g>(off: impl ExactSizeIterator<Item = (&'g Genes, f64)>) -> Option<Correction> {
        if off.len() < Correction::LEAST {
            return None;
        }
        let mut places: FxHashMap<(String, usize, String), usize> = FxHashMap::default();
        let mut rows: Vec<(Vec<usize>, f64)> = vec![];
        for (genes, off) in off {
            let family = genes.family();
            let mut row = vec![];
            for (i, v) in genes.values.iter().enumerate() {
                let n = places.len();
                let key = (family.clone(), i, v.clone());
                match places.get(&key) {
                    Some(&at) => row.push(at),
                    None if n < Correction::MOST => {
                        places.insert(key, n);
                        row.push(n);
                    }
                    None => {}
                }
            }
            rows.push((row, off));
        }
        let mean = median(rows.iter().map(|r| r.1))?;
        let n = places.len();
        let mut normal = vec![0.0; n * n];
        let mut right = vec![0.0; n];
        for i in 0..n {
            normal[i * n + i] = Correction::RIDGE;
        }
        for (row, y) in &rows {
            for &i in row {
                right[i] += y - mean;
                for &j in row {
                    normal[i * n + j] += 1.0;
                }
            }
        }
        Some(Correction {
            places,
            weights: solve(normal, right),
            mean,
        })
    }

    /// The logarithm of what a candidate takes over what is predicted for it.
    fn of_candidate(&self, genes: &Genes) -> f64 {
        let family = genes.family();
        let weight = |(i, v): (usize, &String)| {
            let at = self.places.get(&(family.clone(), i, v.clone()));
            at.map_or(0.0, |&at| self.weights[at])
        };
        self.mean + genes.values.iter().enumerate().map(weight).sum::<f64>()
    }
}

/// Solves a symmetric, positive definite system by Cholesky's decomposition, row by row.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let x = solve(vec![4.0, 2.0, 2.0, 3.0], vec![10.0, 8.0]);
        assert!((x[0] - 1.75).abs() < 1e-12 && (x[1] - 1.5).abs() < 1e-12, "{x:?}");
    }
}
