//! What each kernel of a model takes: `brolga profile`.
//!
//! | module | what stands there |
//! | --- | --- |
//! | `steps` | the steps of a program, with what they are, do, and come from |
//! | `rows` | what was recorded, summed up for each kernel |
//! | [`roof`] | how fast the machine could be at it |
//! | `arena` | which memory is in use when |
//! | [`inside`] | what structured kernels take, for whoever compares their schedules |
//! | [`counters`] | what the CPU and the system count while it runs |
//! | `table`, `json`, `trace`, `page` | a profile for people, for programs, for Perfetto, for a browser |
//!
//! A model is compiled with calls of a function of this process around each step of its `NAME_run`, and is otherwise the same code as
//! ever. Steps are what is timed: what a kernel takes includes the start of its workers and the wait for the last one.

mod arena;
pub mod counters;
pub mod inside;
mod json;
mod page;
pub mod roof;
mod rows;
mod steps;
mod table;
mod trace;

use crate::compile::draft_file;
use crate::source::{Kind, kind};
use crate::{Error, Options, Result, Session, machine, tensors};
use brolga_codegen::listing::Listing;
use brolga_ir::figures::Figures;
use brolga_ir::program::Program;
use brolga_ir::{Symbol, Target};
use brolga_passes::cost::Model;
use brolga_passes::schedule::Sources;
use brolga_runtime::View;
use brolga_runtime::profile::{Recorder, RunRecord};
use counters::{Counted, Counters};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use arena::{Arena, Block};
pub use roof::{Roof, Wall};
pub use rows::{Row, Times};
pub use steps::{Kind as StepKind, Step};

/// Time that runs are to take together where their number is not said.
const ENOUGH: Duration = Duration::from_secs(1);

/// Bounds of their number then.
const FEWEST: usize = 5;
const MOST: usize = 1000;

/// Runs whose counters are read, at most; they take longer, and their times are not used.
const COUNTED_RUNS: usize = 20;

/// How a model is profiled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How often it runs; `None` is as often as takes a second, and some times at least.
    pub runs: Option<usize>,
    /// Whether the CPU's and the system's counters are read too.
    pub counters: bool,
}

/// A model that is ready to be profiled.
pub struct Profiler {
    session: Session,
    made: Made,
    counters: Arc<Counters>,
}

/// What a session was made of.
struct Made {
    program: Program,
    sources: Option<Sources>,
    target: Target,
    /// The symbols of the kernels that are called, by their index.
    symbols: Vec<Option<String>>,
    listings: Vec<Listing>,
}

/// What the kernels of a model take.
pub struct Profile {
    /// The model's name.
    pub model: String,
    /// The machine that the code is for.
    pub target: String,
    /// Threads, the caller's included.
    pub threads: u32,
    /// The values of the symbols.
    pub sizes: Vec<(Symbol, i64)>,
    /// What the machine does in a second.
    pub figures: Figures,
    /// Why figures that were measured are not used, where that is so.
    pub warning: Option<String>,
    /// Times of a run, hooks included.
    pub run: Times,
    /// What noting takes: the time of a pair of hooks.
    pub hook: Duration,
    /// Seconds of a run that are in no step: checks of the call, the memory plan, hooks.
    pub outside: f64,
    /// The steps, in order, blocks behind the steps that they belong to.
    pub steps: Vec<Step>,
    /// Kernels and other kinds of steps, the largest share of the time first.
    pub rows: Vec<Row>,
    /// What was counted, where it was asked for.
    pub counted: Option<Counted>,
    /// Which memory is in use when.
    pub arena: Arena,
    /// All runs.
    pub records: Vec<RunRecord>,
    /// Code as text, where it was asked for.
    pub listings: Vec<Listing>,
}

impl Profiler {
    /// Compiles a model to be profiled by so many threads (0 is one for each core); with `listings`, its code is there as text too, which
    /// takes as long as making code once more. Counters are those of the threads that are started from now on.
    ///
    /// # Errors
    /// When the file is no model, does not fit this machine, uses what is not supported, or is compiled already.
    pub fn load(path: &Path, options: &Options, threads: usize, listings: bool) -> Result<Profiler> {
        if kind(path)? == Kind::Artefact {
            return Err(Error::file(
                path,
                "an artefact is compiled already, and its code notes no times; profile the model that it was made of",
            ));
        }
        let counters = Arc::new(Counters::open());
        let options = Options {
            threads,
            ..options.clone()
        };
        let mut draft = draft_file(path, &options)?;
        let sources = draft.sources.take();
        let (session, made) = draft.recorded(threads, |compiled, code| {
            Ok(Made {
                program: compiled.program.clone(),
                sources,
                target: compiled.target.clone(),
                symbols: code.kernels().to_vec(),
                listings: if listings { compiled.listings()? } else { vec![] },
            })
        })?;
        Ok(Profiler {
            session,
            made,
            counters,
        })
    }

    /// The session that runs.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs on inputs by name, twice without and then with noting what it takes.
    ///
    /// # Errors
    /// As [`Session::run_named`].
    pub fn profile(&self, inputs: &[(&str, View<'_>)], how: Runs) -> Result<Profile> {
        let executor = self.session.executor();
        let recorder = executor
            .recorder()
            .ok_or_else(|| Error::Option("the session records nothing".into()))?;
        // The second run finds memory and threads as those behind it do; it tells how long one takes.
        self.session.run_named(inputs)?;
        let start = Instant::now();
        self.session.run_named(inputs)?;
        let one = start.elapsed().max(Duration::from_nanos(1));
        recorder.take();
        let enough = (ENOUGH.as_nanos() / one.as_nanos()) as usize;
        let runs = how.runs.unwrap_or(enough.clamp(FEWEST, MOST)).max(1);
        for _ in 0..runs {
            self.session.run_named(inputs)?;
        }
        let records = recorder.take();
        let counted = match how.counters {
            false => None,
            true => {
                recorder.count(Some(self.counters.clone()));
                let all = (0..runs.min(COUNTED_RUNS)).try_for_each(|_| self.session.run_named(inputs).map(|_| ()));
                recorder.count(None);
                all?;
                Some(self.counters.counted(&recorder.take()))
            }
        };
        let views = executor.order(inputs)?;
        let sizes = self.sizes(&executor.sizes(&views)?)?;
        Ok(self.made.profile(&self.session, records, counted, sizes))
    }

    /// The values of the program's symbols, and of the names that it gives to sizes before it runs.
    fn sizes(&self, values: &[i64]) -> Result<Vec<(Symbol, i64)>> {
        let program = &self.made.program;
        let mut sizes: Vec<(Symbol, i64)> = program.symbols.iter().cloned().zip(values.iter().copied()).collect();
        program.bind_lets(&mut sizes).map_err(Error::Option)?;
        Ok(sizes)
    }
}

impl Made {
    fn profile(
        &self,
        session: &Session,
        records: Vec<RunRecord>,
        counted: Option<Counted>,
        sizes: Vec<(Symbol, i64)>,
    ) -> Profile {
        let (figures, warning) = machine::figures(&self.target);
        let threads = session.executor().workers();
        let lookup = |s: &str| sizes.iter().find(|(k, _)| **k == *s).map(|(_, n)| *n);
        let model = self.target.cpu().map(|cpu| Model {
            cpu,
            figures: &figures,
            threads: threads as usize,
            between: roof::touched(&self.program, &lookup),
        });
        let mut steps = steps::of(&self.program, model.as_ref(), &lookup);
        steps::count_calls(&mut steps, &records);
        let roofs = roof::Roofs::new(&self.program, &figures, threads as usize, &lookup);
        let schedules = |kernel: u32| match &self.sources {
            None => vec![],
            Some(sources) => sources
                .schedules(kernel as usize)
                .map(|(k, part)| rows::schedule_text(k, part))
                .collect(),
        };
        let mut rows = rows::of(&steps, &records, threads);
        for row in &mut rows {
            row.roof = roofs.of(row, &steps);
            if let Some(kernel) = row.kernel {
                row.schedules = schedules(kernel);
                row.symbol = self.symbols.get(kernel as usize).cloned().flatten();
            }
            row.counts = counted.as_ref().and_then(|c| c.of(&row.steps));
        }
        let arena = arena::of(&self.program, &steps, &lookup);
        let shown = self.program.symbols.len();
        Profile {
            model: self.program.name.clone(),
            target: self.target.name.to_owned(),
            threads,
            sizes: sizes.into_iter().take(shown).collect(),
            figures,
            warning,
            run: rows::times(records.iter().map(|r| r.ns() as f64 * 1e-9)),
            hook: Recorder::overhead(),
            outside: rows::outside(&steps, &records),
            steps,
            rows,
            counted,
            arena,
            records,
            listings: self.listings.clone(),
        }
    }
}

impl Profile {
    /// The run of median length.
    pub fn typical(&self) -> Option<&RunRecord> {
        let mut all: Vec<&RunRecord> = self.records.iter().collect();
        all.sort_by_key(|r| r.ns());
        all.get(all.len() / 2).copied()
    }

    /// The share of a run that noting takes.
    pub fn overhead(&self) -> f64 {
        let calls: f64 = self.steps.iter().map(|s| s.calls).sum();
        calls * self.hook.as_secs_f64() / self.run.median.max(f64::MIN_POSITIVE)
    }
}

/// A tensor type for people.
fn shape(ty: &brolga_ir::Type) -> String {
    let dims: Vec<String> = ty.shape.iter().map(|d| d.brief().to_string()).collect();
    format!("{}[{}]", tensors::abi_dtype(ty.dtype), dims.join(", "))
}
