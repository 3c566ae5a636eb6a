//! The whole model decides: what won alone may lose at home, where its constants are as cold as they are there and its operands as
//! warm.
//!
//! First the finalists of all kernels are timed inside of the model, each kernel by itself; then the model as a whole, tuned and not.

use super::duel::{Duel, MARGIN, Verdict, median};
use crate::levels::Module;
use crate::options::Options;
use crate::profile::inside::Inside;
use crate::{Result, Session};
use brolga_ir::Tensor;
use brolga_passes::lower::Structured;
use brolga_runtime::View;
use std::time::{Duration, Instant};

/// Pairs of runs of whole models that decide.
const PAIRS: usize = 200;

/// Rounds in which kernels are timed inside of models, at most.
const ROUNDS: usize = 100;

/// How a tuned model did beside the untuned one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AtHome {
    /// Whether it is faster.
    pub kept: bool,
    /// Its time over the untuned one's.
    pub ratio: f64,
    /// Seconds of a run of the untuned one.
    pub untuned: f64,
}

/// Whoever times whole models: [`Sessions`], or something else in tests.
pub trait Home {
    /// Compares a tuned program with what it was.
    ///
    /// # Errors
    /// When one cannot be compiled or run.
    fn compare(&mut self, untuned: &Structured, tuned: &Structured) -> Result<AtHome>;

    /// Runs programs in turn that differ in schedules only. `round` sees what each kernel took in each of them, in seconds, and says
    /// whether to go on.
    ///
    /// # Errors
    /// As [`Home::compare`].
    fn kernels(&mut self, programs: &[Structured], round: &mut dyn FnMut(&[Vec<f64>]) -> bool) -> Result<()>;
}

/// What became of a kernel's schedules inside of the model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rank {
    /// That of the first program is the best one.
    First,
    /// That of this one is, with its time over that of the first one.
    Other(usize, f64),
    /// Its times were not seen there: it is copies, or shares its code with other kernels.
    Unseen,
}

/// Which of some programs, that differ in schedules only, is the best one for each kernel inside of the model. Of those within a margin of
/// the best one the one that comes first is taken.
///
/// # Errors
/// As [`Home::kernels`].
pub fn best_inside(home: &mut dyn Home, programs: &[Structured], kernels: &[usize]) -> Result<Vec<Rank>> {
    struct Open {
        duel: Duel,
        verdict: Verdict,
    }
    let open = || Open {
        duel: Duel::at_home(PAIRS),
        verdict: Verdict::Open,
    };
    let rivals = programs.len().saturating_sub(1);
    let mut duels: Vec<Vec<Open>> = kernels.iter().map(|_| (0..rivals).map(|_| open()).collect()).collect();
    let mut unseen = vec![false; kernels.len()];
    let mut rounds = 0;
    home.kernels(programs, &mut |times| {
        rounds += 1;
        for ((&kernel, duels), unseen) in kernels.iter().zip(&mut duels).zip(&mut unseen) {
            *unseen |= times.iter().any(|t| t[kernel] == 0.0);
            for (own, times_of) in duels.iter_mut().zip(&times[1..]) {
                if own.verdict == Verdict::Open {
                    own.verdict = own.duel.pair(times[0][kernel], times_of[kernel]);
                }
            }
        }
        let open = |(duels, unseen): (&Vec<Open>, &bool)| !unseen && duels.iter().any(|o| o.verdict == Verdict::Open);
        rounds < ROUNDS && duels.iter().zip(&unseen).any(open)
    })?;
    let decide = |duels: &Vec<Open>| {
        let won = |(n, o): (usize, &Open)| {
            // What time has left open is for the whole model to tell.
            let faster = |r: &f64| match o.verdict {
                Verdict::Faster => true,
                Verdict::Open => r * (1.0 + MARGIN) < 1.0,
                Verdict::NotFaster => false,
            };
            Some((n + 1, o.duel.ratio().filter(faster)?))
        };
        let won: Vec<(usize, f64)> = duels.iter().enumerate().filter_map(won).collect();
        let best = won.iter().map(|(_, r)| *r).min_by(f64::total_cmp)?;
        won.into_iter().find(|(_, r)| *r <= best * (1.0 + MARGIN))
    };
    let rank = |(duels, unseen): (&Vec<Open>, bool)| match decide(duels) {
        _ if unseen => Rank::Unseen,
        Some((n, ratio)) => Rank::Other(n, ratio),
        None => Rank::First,
    };
    Ok(duels.iter().zip(unseen).map(rank).collect())
}

/// Whole models as sessions of this process, on random inputs.
pub struct Sessions {
    /// How they are compiled.
    pub options: Options,
    /// Sizes of symbolic dimensions.
    pub sizes: Vec<(String, i64)>,
    /// Threads that run them.
    pub threads: usize,
    /// All of the time that a comparison may take.
    pub time: Duration,
}

impl Sessions {
    fn session(&self, program: &Structured) -> Result<Session> {
        let compiled = crate::compile::compile_module(Module::Structured(program.clone()), &self.options)?;
        compiled.session_with(self.threads, self.options.memory_limit)
    }

    fn inputs(&self, session: &Session) -> Result<Vec<(String, Tensor)>> {
        let needed = session.inputs().iter().filter(|i| i.default.is_none());
        crate::random::inputs(needed, &session.meta().symbols, &self.sizes, self.options.memory_limit)
    }
}

fn views(inputs: &[(String, Tensor)]) -> Vec<(&str, View<'_>)> {
    let all = inputs.iter().map(|(n, t)| (n.as_str(), crate::tensors::view(t)));
    all.collect()
}

impl Home for Sessions {
    fn compare(&mut self, untuned: &Structured, tuned: &Structured) -> Result<AtHome> {
        let (a, b) = (self.session(untuned)?, self.session(tuned)?);
        let inputs = self.inputs(&a)?;
        let views = views(&inputs);
        let time = |s: &Session| -> Result<f64> {
            let start = Instant::now();
            s.run_named(&views)?;
            Ok(start.elapsed().as_secs_f64())
        };
        // Both have met their memory before anything counts.
        time(&a)?;
        time(&b)?;
        let start = Instant::now();
        let mut duel = Duel::at_home(PAIRS);
        loop {
            let verdict = duel.pair(time(&a)?, time(&b)?);
            let late = start.elapsed() > self.time;
            if verdict == Verdict::Open && !late {
                continue;
            }
            let untuned = median(duel.pairs().iter().map(|(a, _)| *a)).unwrap_or(0.0);
            return Ok(AtHome {
                kept: verdict == Verdict::Faster,
                ratio: duel.ratio().unwrap_or(1.0),
                untuned,
            });
        }
    }

    fn kernels(&mut self, programs: &[Structured], round: &mut dyn FnMut(&[Vec<f64>]) -> bool) -> Result<()> {
        let inside = programs.iter().map(|p| Inside::new(p, &self.options, self.threads));
        let inside: Vec<Inside> = inside.collect::<Result<_>>()?;
        let Some(first) = inside.first() else { return Ok(()) };
        let inputs = self.inputs(first.session())?;
        let views = views(&inputs);
        let run = || -> Result<Vec<Vec<f64>>> { inside.iter().map(|m| m.run(&views)).collect() };
        run()?;
        let start = Instant::now();
        while round(&run()?) && start.elapsed() <= self.time {}
        Ok(())
    }
}
