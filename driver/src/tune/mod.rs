//! Tuning: better schedules for the kernels of a model, searched on the machine that it is to run on.
//!
//! ```text
//! model ─▶ another program ─▶ kernels, by their share ─▶ search ─▶ winners ─▶ the whole model, tuned and not ─▶ records
//!             │  ▲                                        │  ▲
//!             ▼  │ seconds                                ▼  │ seconds, verdicts
//!         worker process                               worker process
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`programs`] | what is decided about the whole program: fusion, operators, layouts |
//! | [`search`] | which candidates are tried |
//! | [`worker`] | a candidate compiled and timed in a process of its own |
//! | [`duel`] | whether it is faster |
//! | [`home`] | the whole model decides |
//! | [`agree`] | whether it computes the same |
//! | [`ranked`] | for GPUs, the cost model's word instead of all these |
//! | [`record`] | what is found out, as lines of JSON |
//! | [`applied`] | records are applied |
//!
//! Invariant: what is kept made the whole model faster, by more than the noise of its times, and computes what the chosen schedules
//! compute. A model that nothing makes faster keeps nothing. For a GPU it is predicted to be faster, and its records say so.

pub mod agree;
pub mod applied;
pub mod duel;
pub mod home;
pub mod programs;
pub mod ranked;
pub mod record;
pub mod search;
pub mod worker;

use crate::kernels::{self, Found, Workload};
use crate::levels::{Module, Walk};
use crate::options::Options;
use crate::{Error, Result, machine, source};
use brolga_ir::figures::Figures;
use brolga_ir::schedule::Schedule;
use brolga_passes::cost::{self, GpuModel, Predictor};
use brolga_passes::eqsat::{Alternative, Decision};
use brolga_passes::lower::Structured;
use brolga_passes::schedule::{Machine, choose};
use home::Rank;
pub use home::{AtHome, Home, Sessions};
use programs::Program;
pub use ranked::Ranked;
use record::{Choice, Kept, Line, Log, Outcome, Place, Summary, Trial};
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
    /// Other programs are looked for: so many decisions could be taken otherwise.
    Programs(usize),
    /// Decisions made kernels faster, by this part of the whole time.
    Decided(&'e [Decision], f64),
    /// A kernel is searched now.
    Kernel(&'e Task),
    /// A candidate was tried. With its line, which a caller may keep.
    Tried(&'e Task, &'e Tried, &'e Line),
    /// A kernel's search is over.
    Found(&'e Task, Option<&'e Winner>),
    /// The best schedules of so many kernels are timed inside of the whole model.
    Inside(usize),
    /// The whole model is timed, with so many decisions and schedules at once.
    Home(usize, usize),
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
    module: Module,
    program: Program,
    options: Options,
    name: String,
    /// Bytes of its constants.
    constants: u64,
    threads: u32,
}

/// The part of the time in which other programs are looked for.
const PROGRAMS: f64 = 0.15;
/// A kernel with less of the time is not searched.
const SMALL: f64 = 0.003;
/// The part of the time that searching takes; the rest is for whole models.
const SEARCH: f64 = 0.8;
/// Schedules of a kernel that are timed inside of the whole model.
const RIVALS: usize = 3;
/// The least time for a kernel.
const LEAST: Duration = Duration::from_millis(500);

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
        let program = Program::of(&module, &options, vec![]).map_err(|e| match e {
            Error::Option(message) => Error::file(path, message),
            e => e,
        })?;
        let structured = &program.structured;
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
            module,
            program,
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
        self.tasks_of(&self.program.structured, settings, measure)
    }

    fn tasks_of(&self, program: &Structured, settings: &Settings, measure: &mut dyn Measure) -> Result<Vec<Task>> {
        let fail = |e| Error::Option(format!("{}: {e}", self.name));
        let mut tasks = vec![];
        for found in kernels::of_program(program).map_err(fail)? {
            let sizes = self.sizes(&found, settings)?;
            let chosen = self.chosen(program, &found);
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

    /// The values of a kernel's symbols.
    fn sizes(&self, found: &Found, settings: &Settings) -> Result<Vec<i64>> {
        let given = |s: &str| settings.sizes.iter().find(|(n, _)| n == s).map(|(_, n)| *n);
        kernels::sizes(&found.symbols, &given).map_err(|e| Error::Option(format!("{}: {e}", self.name)))
    }

    /// The schedule that a kernel of a program has without tuning.
    fn chosen(&self, program: &Structured, found: &Found) -> Schedule {
        let own = program.kernels[found.kernel].schedule.clone();
        own.unwrap_or_else(|| choose(found.workload.kernel(), &Machine::of(&self.options.target)))
    }

    /// What could be decided about the whole program otherwise, the cheapest by the extraction's figures first.
    ///
    /// # Errors
    /// As compiling it.
    pub fn alternatives(&self) -> Result<Vec<Alternative>> {
        let walk = Walk::decided(self.module.clone(), &self.options, None, true)?;
        Ok(walk.alternatives().to_vec())
    }

    /// Looks for a faster program; the one that the compiler makes where no other one is faster as a whole.
    fn other_program(
        &self,
        settings: &Settings,
        whole: f64,
        measure: &mut dyn Measure,
        home: &mut dyn Home,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Program> {
        let alternatives = self.alternatives()?;
        if alternatives.is_empty() || !tell(Event::Programs(alternatives.len())) {
            return Ok(self.program.clone());
        }
        let machine = Machine::of(&self.options.target);
        let (figures, _) = machine::figures(&self.options.target);
        let model = self.cost(&figures);
        let predict = |f: &Found| {
            let (sizes, chosen) = (self.sizes(f, settings).ok()?, choose(f.workload.kernel(), &machine));
            f.workload.predict(&chosen, &sizes, &machine, model.as_ref()?)
        };
        let search = programs::Search {
            module: &self.module,
            options: &self.options,
            predict: &predict,
            until: Instant::now() + settings.budget.mul_f64(PROGRAMS),
            whole,
        };
        let recorded = self
            .program
            .keys
            .iter()
            .flat_map(|(graph, _)| settings.from.choices(graph));
        let recorded = recorded.map(|(_, c)| c.decisions.iter().filter_map(|d| d.parse().ok()).collect());
        let mut seconds = |f: &Found| {
            let (sizes, chosen) = (self.sizes(f, settings).ok()?, choose(f.workload.kernel(), &machine));
            measure.start(&self.job(&f.workload, &sizes, &chosen), &chosen).ok()
        };
        let mut taken = search.run(
            &self.program,
            &alternatives,
            recorded.collect(),
            &mut seconds,
            &mut |taken| match taken {
                Some(t) => tell(Event::Decided(&t.decisions, t.gain / whole)),
                None => tell(Event::Programs(alternatives.len())),
            },
        );
        while !taken.is_empty() {
            let decisions = taken.iter().flat_map(|t| t.decisions.clone()).collect();
            if let Ok(other) = Program::of(&self.module, &self.options, decisions) {
                tell(Event::Home(other.decisions.len(), 0));
                if home.compare(&self.program.structured, &other.structured)?.kept {
                    return Ok(other);
                }
            }
            // The better half, in the order in which they were taken.
            let mut best: Vec<usize> = (0..taken.len()).collect();
            best.sort_by(|&a, &b| taken[b].gain.total_cmp(&taken[a].gain));
            best.truncate(taken.len() / 2);
            best.sort_unstable();
            taken = best.into_iter().map(|i| taken[i].clone()).collect();
        }
        Ok(self.program.clone())
    }

    /// The cost model of the machine.
    fn cost<'m>(&'m self, figures: &'m Figures) -> Option<Predictor<'m>> {
        let target = &self.options.target;
        let of_gpu = GpuModel::of(target).map(Predictor::Gpu);
        of_gpu.or_else(|| {
            Some(Predictor::Cpu(cost::Model {
                cpu: target.cpu()?,
                figures,
                threads: self.threads as usize,
                between: 0.0,
            }))
        })
    }

    /// Looks for another program, searches the kernels, then times the whole model. Gives what was kept, with the model's line last.
    /// Without `home` only kernels are searched, and it gives nothing.
    ///
    /// # Errors
    /// As [`Model::tasks`]; when the model cannot be compiled or run.
    pub fn tune(
        &self,
        settings: &Settings,
        measure: &mut dyn Measure,
        mut home: Option<&mut dyn Home>,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Vec<Line>> {
        let start = Instant::now();
        let machine = Machine::of(&self.options.target);
        let (figures, _) = machine::figures(&self.options.target);
        let mut tasks = self.tasks(settings, measure)?;
        let mut go_on = tell(Event::Kernels(&tasks));
        let mut program = self.program.clone();
        if let (Some(home), true, []) = (&mut home, go_on, &settings.only[..]) {
            let whole = tasks.iter().map(|t| t.seconds * t.found.calls as f64).sum();
            program = self.other_program(settings, whole, measure, *home, tell)?;
            if !program.decisions.is_empty() {
                tasks = self.tasks_of(&program.structured, settings, measure)?;
                go_on = tell(Event::Kernels(&tasks));
            }
        }
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
        let mut winners: Vec<(&Task, Vec<Winner>)> = vec![];
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
            let model = self.cost(&figures);
            let predict = |s: &Schedule| task.found.workload.predict(s, &task.sizes, &machine, model.as_ref()?);
            let search = Search {
                workload: &task.found.workload,
                machine: &machine,
                chosen: task.chosen.clone(),
                seeds: self.seeds(settings, task, &winners),
                known: known(settings, task, &place),
                in_place: task.found.in_place,
                predict: &predict,
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
            let won = match finalists[..] {
                [] => vec![],
                _ => {
                    measure.start(&job, &task.chosen).map_err(|e| self.fail(task, &e))?;
                    search.finish(&finalists, measure)
                }
            };
            go_on &= tell(Event::Found(task, won.first()));
            if !won.is_empty() {
                winners.push((task, won));
            }
        }
        match home {
            Some(home) => {
                let winners = self.inside(&program, &winners, home, tell)?;
                self.at_home(&program, &winners, home, tell)
            }
            None => Ok(vec![]),
        }
    }

    fn fail(&self, task: &Task, e: &str) -> Error {
        Error::Option(format!("{}: kernel @{}: {e}", self.name, task.found.name))
    }

    /// Schedules that a search begins with: those that were kept for the kernel, wherever; those that were the best candidates of a search
    /// that has ended; and those of kernels of this model that were searched before.
    fn seeds(&self, settings: &Settings, task: &Task, winners: &[(&Task, Vec<Winner>)]) -> Vec<Schedule> {
        let key = task.found.workload.key();
        let kept = settings.from.kept(&key).map(|(_, k)| k.schedule.clone());
        let tried = settings.from.lines.iter().filter_map(|l| match l {
            Line::Trial(_, t) if t.workload == key && t.outcome == Outcome::Faster => Some(t.schedule.clone()),
            _ => None,
        });
        let recorded: Vec<Schedule> = kept.chain(tried).filter_map(|s| s.parse().ok()).collect();
        let others = winners.iter().filter_map(|(_, w)| Some(w.first()?.schedule.clone()));
        recorded.into_iter().chain(others).collect()
    }

    /// Times the winners inside of the whole model, and leaves the best one there of each kernel, if any is faster there.
    fn inside<'t>(
        &self,
        program: &Program,
        winners: &[(&'t Task, Vec<Winner>)],
        home: &mut dyn Home,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Vec<(&'t Task, Winner)>> {
        if winners.is_empty() {
            return Ok(vec![]);
        }
        tell(Event::Inside(winners.len()));
        let rivals = winners.iter().map(|(_, w)| w.len()).max().unwrap_or(0).min(RIVALS);
        let mut programs = vec![program.structured.clone()];
        for n in 0..rivals {
            let mut p = program.structured.clone();
            for (t, w) in winners {
                // Those that have fewer take part with their first.
                p.kernels[t.found.kernel].schedule = w.get(n).or(w.first()).map(|w| w.schedule.clone());
            }
            programs.push(p);
        }
        let kernels: Vec<usize> = winners.iter().map(|(t, _)| t.found.kernel).collect();
        let best = home::best_inside(home, &programs, &kernels)?;
        let won = winners.iter().zip(best).filter_map(|((t, w), rank)| match rank {
            Rank::First => None,
            // The whole model tells.
            Rank::Unseen => Some((*t, w.first()?.clone())),
            Rank::Other(n, gain) => {
                let schedule = w.get(n - 1).or(w.first())?.schedule.clone();
                Some((*t, Winner { schedule, gain }))
            }
        });
        Ok(won.collect())
    }

    /// Times the whole model with another program and the winners' schedules beside itself, and keeps what makes it faster: all of
    /// them, or else those that gain most.
    fn at_home(
        &self,
        program: &Program,
        winners: &[(&Task, Winner)],
        home: &mut dyn Home,
        tell: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Vec<Line>> {
        let gain = |(t, w): &(&Task, Winner)| t.share * (1.0 - w.gain);
        let mut chosen: Vec<&(&Task, Winner)> = winners.iter().collect();
        chosen.sort_by(|a, b| gain(b).total_cmp(&gain(a)));
        let place = self.place();
        loop {
            tell(Event::Home(program.decisions.len(), chosen.len()));
            let mut tuned = program.structured.clone();
            for (t, w) in &chosen {
                tuned.kernels[t.found.kernel].schedule = Some(w.schedule.clone());
            }
            let faster = home.compare(&self.program.structured, &tuned)?;
            let (mut ratio, untuned) = (faster.ratio, faster.untuned);
            if faster.kept || chosen.is_empty() {
                let mut lines = vec![];
                let decided = if faster.kept { program.decisions.len() } else { 0 };
                if let (Some((graph, own)), 1..) = (&program.keys, decided) {
                    lines.push(Line::Graph(
                        place.clone(),
                        Choice {
                            graph: graph.clone(),
                            decisions: program.decisions.iter().map(Decision::to_string).collect(),
                            program: own.clone(),
                            ratio,
                        },
                    ));
                }
                if decided + chosen.len() == 0 {
                    ratio = 1.0;
                }
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
                        ratio,
                        kept: chosen.len(),
                        decided,
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
