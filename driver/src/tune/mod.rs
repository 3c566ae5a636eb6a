//! Tuning: better schedules for the kernels of a model, searched on the machine that it is to run on.
//!
//! ```text
//! model ─▶ kernels, by their share of the time ─▶ search ─▶ winners ─▶ the whole model, tuned and not ─▶ records
//!                                                  │  ▲
//!                                                  ▼  │ seconds, verdicts
//!                                           worker process
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`search`] | which candidates are tried |
//! | [`worker`] | a candidate compiled and timed in a process of its own |
//! | [`duel`] | whether it is faster |
//! | [`agree`] | whether it computes the same |
//! | [`record`] | what is found out, as lines of JSON |
//! | [`applied`] | records are applied |
//!
//! Invariant: what is kept made the whole model faster, by more than the noise of its times, and computes what the chosen schedules
//! compute. A model that nothing makes faster keeps nothing.

pub mod agree;
pub mod applied;
pub mod duel;
pub mod record;
pub mod search;
pub mod worker;

use crate::kernels::{self, Found, Workload};
use crate::levels::{Module, Walk};
use crate::options::Options;
use crate::{Error, Result, Session, source};
use brolga_ir::schedule::Schedule;
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, choose};
use duel::{Duel, Verdict, median};
use record::{Kept, Line, Log, Outcome, Place, Summary, Trial};
use search::{Limits, Search, Tried, Winner};
use std::path::Path;
use std::time::{Duration, Instant};
use worker::{Job, Measure};

/// How a model is tuned.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All of the time that it may take.
    pub budget: Duration,
    /// Candidates of one kernel, at most.
    pub trials: usize,
    /// Threads that run the model; 0 is one for each core.
    pub threads: usize,
    /// Sizes of symbolic dimensions to time at. The records are for all sizes.
    pub sizes: Vec<(String, i64)>,
    /// Only kernels of these names; all where there is none.
    pub only: Vec<String>,
    /// Records to begin with.
    pub from: Log,
    /// What the search's chances depend on.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            budget: Duration::from_secs(300),
            trials: 1000,
            threads: 0,
            sizes: vec![],
            only: vec![],
            from: Log::default(),
            seed: 1,
        }
    }
}

/// What tuning says while it goes on.
pub enum Event<'e> {
    /// The kernels and their seconds in a run, largest first.
    Kernels(&'e [Task]),
    /// A kernel is searched now.
    Kernel(&'e Task),
    /// A candidate was tried. With its line, which a caller may keep.
    Tried(&'e Task, &'e Tried, &'e Line),
    /// A kernel's search is over.
    Found(&'e Task, Option<&'e Winner>),
    /// The whole model is timed, so many schedules at once.
    Home(usize),
}

/// A kernel to search.
#[derive(Clone, Debug)]
pub struct Task {
    /// The kernel.
    pub found: Found,
    /// The values of its symbols.
    pub sizes: Vec<i64>,
    /// The schedule that is chosen without tuning.
    pub chosen: Schedule,
    /// Seconds of one call by that.
    pub seconds: f64,
    /// Its part of all kernels' seconds.
    pub share: f64,
}

/// A model as its kernels.
pub struct Model {
    structured: Structured,
    options: Options,
    name: String,
    /// Bytes of its constants.
    constants: u64,
    threads: u32,
}

/// A kernel with less of the time is not searched.
const SMALL: f64 = 0.003;
/// The part of the time that searching takes; the rest is for whole models.
const SEARCH: f64 = 0.8;
/// The least time for a kernel.
const LEAST: Duration = Duration::from_millis(500);
/// Pairs of runs of whole models that decide.
const HOME_PAIRS: usize = 200;

impl Model {
    /// Reads a model down to its structured kernels.
    ///
    /// # Errors
    /// As compiling it.
    pub fn read(path: &Path, options: &Options, settings: &Settings) -> Result<Model> {
        let module = source::model(path, options)?;
        let module = match module {
            Module::Tensor(g) if !options.sizes.is_empty() => {
                Module::Tensor(crate::levels::specialise(&g, &options.sizes)?)
            }
            m => m,
        };
        let mut options = options.without_sizes();
        options.tuned = None;
        let walk = Walk::new(module, &options)?.kernels()?;
        let Module::Structured(structured) = walk.module else {
            return Err(Error::file(path, "it is loop nests already, which have no schedules"));
        };
        let weights = structured.slots.iter().filter(|s| {
            use brolga_ir::program::Storage;
            matches!(s.storage, Storage::Weight(_) | Storage::Computed)
        });
        let constants = weights
            .filter_map(|s| s.bytes().as_const())
            .map(|b| b.max(0) as u64)
            .sum();
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        Ok(Model {
            name: structured.name.clone(),
            structured,
            options,
            constants,
            threads: threads as u32,
        })
    }

    /// The machine, as records name it.
    pub fn place(&self) -> Place {
        Place::here(&self.options.target, self.threads)
    }

    fn job(&self, workload: &Workload, sizes: &[i64], chosen: &Schedule) -> Job {
        Job {
            workload: workload.clone(),
            sizes: sizes.to_vec(),
            target: self.options.target.name.to_owned(),
            threads: self.threads,
            spread: self.constants,
            limit: self.options.memory_limit,
            chosen: chosen.clone(),
        }
    }

    /// The kernels with their times, those that take most first.
    ///
    /// # Errors
    /// When a symbol has no size, or a kernel cannot be run.
    pub fn tasks(&self, settings: &Settings, measure: &mut dyn Measure) -> Result<Vec<Task>> {
        let fail = |e| Error::Option(format!("{}: {e}", self.name));
        let machine = Machine::of(&self.options.target);
        let given = |s: &str| settings.sizes.iter().find(|(n, _)| n == s).map(|(_, n)| *n);
        let mut tasks = vec![];
        for found in kernels::of_program(&self.structured).map_err(fail)? {
            let sizes = kernels::sizes(&found.symbols, &given).map_err(fail)?;
            let own = self.structured.kernels[found.kernel].schedule.clone();
            let chosen = own.unwrap_or_else(|| choose(found.workload.kernel(), &machine));
            let job = self.job(&found.workload, &sizes, &chosen);
            let seconds = measure
                .start(&job, &chosen)
                .map_err(|e| fail(format!("kernel @{}: {e}", found.name)))?;
            tasks.push(Task {
                found,
                sizes,
                chosen,
                seconds,
                share: 0.0,
            });
        }
        let whole = |t: &Task| t.seconds * t.found.calls as f64;
        let all: f64 = tasks.iter().map(whole).sum();
        for t in &mut tasks {
            t.share = whole(t) / all.max(f64::MIN_POSITIVE);
        }
        tasks.sort_by(|a, b| b.share.total_cmp(&a.share));
        Ok(tasks)
    }

    /// Searches the kernels, then times the whole model. Gives what was kept, with the model's line last; nothing without `home`.
    ///
    /// # Errors
    /// As [`Model::tasks`]; when the model cannot be compiled or run.
    pub fn tune(
        &self,
        settings: &Settings,
        measure: &mut dyn Measure,
        home: Option<&mut dyn Home>,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Vec<Line>> {
        let start = Instant::now();
        let machine = Machine::of(&self.options.target);
        let tasks = self.tasks(settings, measure)?;
        let mut go_on = tell(Event::Kernels(&tasks));
        if let Some(name) = settings.only.iter().find(|n| tasks.iter().all(|t| t.found.name != **n)) {
            let known: Vec<&str> = tasks.iter().map(|t| &*t.found.name).collect();
            let message = format!(
                "{}: runs call no kernel @{name}; they call @{}",
                self.name,
                known.join(", @")
            );
            return Err(Error::Option(message));
        }
        // Those that were asked for are searched however little they take.
        let worth = |t: &&Task| match settings.only[..] {
            [] => t.share >= SMALL,
            _ => settings.only.contains(&t.found.name),
        };
        let worth: Vec<&Task> = tasks.iter().filter(worth).collect();
        let all: f64 = worth.iter().map(|t| t.share).sum();
        let for_search = settings.budget.mul_f64(SEARCH);
        let mut winners: Vec<(&Task, Winner)> = vec![];
        let (mut left, place) = (all, self.place());
        for task in &worth {
            if !go_on {
                break;
            }
            go_on = tell(Event::Kernel(task));
            // What the others did not use is shared by those that are left.
            let rest = for_search.saturating_sub(start.elapsed());
            let time = rest
                .mul_f64((task.share / left.max(f64::MIN_POSITIVE)).min(1.0))
                .max(LEAST);
            left -= task.share;
            let job = self.job(&task.found.workload, &task.sizes, &task.chosen);
            measure.start(&job, &task.chosen).map_err(|e| self.fail(task, &e))?;
            let search = Search {
                workload: &task.found.workload,
                machine: &machine,
                chosen: task.chosen.clone(),
                seeds: self.seeds(settings, task, &winners),
                known: known(settings, task, &place),
                in_place: task.found.in_place,
                limits: Limits {
                    time: time.min(rest.max(LEAST)),
                    trials: settings.trials,
                },
                seed: settings.seed,
            };
            let finalists = search.run(measure, &mut |t| {
                let line = Line::Trial(place.clone(), trial(task, t));
                go_on &= tell(Event::Tried(task, t, &line));
                go_on
            });
            let winner = match finalists[..] {
                [] => None,
                _ => {
                    measure.start(&job, &task.chosen).map_err(|e| self.fail(task, &e))?;
                    search.finish(&finalists, measure)
                }
            };
            go_on &= tell(Event::Found(task, winner.as_ref()));
            winners.extend(winner.map(|w| (*task, w)));
        }
        match home {
            Some(home) => self.at_home(&winners, home, tell),
            None => Ok(vec![]),
        }
    }

    fn fail(&self, task: &Task, e: &str) -> Error {
        Error::Option(format!("{}: kernel @{}: {e}", self.name, task.found.name))
    }

    /// Schedules that a search begins with: those that were kept for the kernel, wherever; those that were the best candidates of a search
    /// that has ended; and those of kernels of this model that were searched before.
    fn seeds(&self, settings: &Settings, task: &Task, winners: &[(&Task, Winner)]) -> Vec<Schedule> {
        let key = task.found.workload.key();
        let kept = settings.from.kept(&key).map(|(_, k)| k.schedule.clone());
        let tried = settings.from.lines.iter().filter_map(|l| match l {
            Line::Trial(_, t) if t.workload == key && t.outcome == Outcome::Faster => Some(t.schedule.clone()),
            _ => None,
        });
        let recorded: Vec<Schedule> = kept.chain(tried).filter_map(|s| s.parse().ok()).collect();
        let others = winners.iter().map(|(_, w)| w.schedule.clone());
        recorded.into_iter().chain(others).collect()
    }

    /// Times the whole model with the winners' schedules beside itself, and keeps what makes it faster: all of them, or else those
    /// that gain most.
    fn at_home(
        &self,
        winners: &[(&Task, Winner)],
        home: &mut dyn Home,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Vec<Line>> {
        let gain = |(t, w): &(&Task, Winner)| t.share * (1.0 - w.gain);
        let mut chosen: Vec<&(&Task, Winner)> = winners.iter().collect();
        chosen.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let place = self.place();
        loop {
            tell(Event::Home(chosen.len()));
            let mut tuned = self.structured.clone();
            for (t, w) in &chosen {
                tuned.kernels[t.found.kernel].schedule = Some(w.schedule.clone());
            }
            let faster = home.compare(&self.structured, &tuned)?;
            let (ratio, untuned) = (faster.ratio, faster.untuned);
            if faster.kept || chosen.is_empty() {
                let mut lines = vec![];
                for (t, w) in &chosen {
                    lines.push(Line::Workload(t.found.workload.clone()));
                    lines.push(Line::Kept(
                        place.clone(),
                        Kept {
                            workload: t.found.workload.key(),
                            sizes: t.sizes.clone(),
                            schedule: w.schedule.to_string(),
                            instead: t.chosen.to_string(),
                            ratio: w.gain,
                        },
                    ));
                }
                lines.push(Line::Model(
                    place,
                    Summary {
                        model: self.name.clone(),
                        untuned,
                        ratio: if chosen.is_empty() { 1.0 } else { ratio },
                        kept: chosen.len(),
                    },
                ));
                return Ok(lines);
            }
            chosen.truncate(chosen.len() / 2);
        }
    }
}

/// Candidates that were no good in an earlier search on this machine.
fn known(settings: &Settings, task: &Task, here: &Place) -> Vec<(Schedule, Option<f64>)> {
    let (key, chosen) = (task.found.workload.key(), task.chosen.to_string());
    let trials = settings.from.lines.iter().filter_map(|l| match l {
        Line::Trial(place, t) if place == here && t.workload == key && t.sizes == task.sizes => Some(t),
        _ => None,
    });
    let lost = trials.filter(|t| t.outcome != Outcome::Faster);
    let time = |t: &Trial| t.ratio.filter(|_| t.incumbent == chosen);
    lost.filter_map(|t| Some((t.schedule.parse().ok()?, time(t)))).collect()
}

/// A candidate's line.
fn trial(task: &Task, t: &Tried) -> Trial {
    let times = || t.measured.pairs.iter().map(|(_, b)| *b);
    let quantile = |share| duel::quantile(times(), share);
    let seconds = || Some([quantile(0.5)?, quantile(0.1)?, quantile(0.9)?]);
    Trial {
        workload: task.found.workload.key(),
        sizes: task.sizes.clone(),
        schedule: t.schedule.to_string(),
        incumbent: t.incumbent.to_string(),
        outcome: t.measured.outcome,
        check: t.measured.check.clone(),
        ratio: t.measured.ratio(),
        seconds: seconds(),
        runs: t.measured.pairs.len(),
        compile: t.measured.compile,
    }
}

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
}

impl Home for Sessions {
    fn compare(&mut self, untuned: &Structured, tuned: &Structured) -> Result<AtHome> {
        let (a, b) = (self.session(untuned)?, self.session(tuned)?);
        let needed = a.inputs().iter().filter(|i| i.default.is_none());
        let inputs = crate::random::inputs(needed, &a.meta().symbols, &self.sizes, self.options.memory_limit)?;
        let views: Vec<_> = inputs
            .iter()
            .map(|(n, t)| (n.as_str(), crate::tensors::view(t)))
            .collect();
        let time = |s: &Session| -> Result<f64> {
            let start = Instant::now();
            s.run_named(&views)?;
            Ok(start.elapsed().as_secs_f64())
        };
        // Both have met their memory before anything counts.
        time(&a)?;
        time(&b)?;
        let start = Instant::now();
        let mut duel = Duel::at_home(HOME_PAIRS);
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
}
