//! The way down: a pipeline of passes, and what is missing of it on the way to a level.
//!
//! ```text
//! tensor graph ─ canonicalize,prune,eqsat ─▶ cut graph ─ lower ─▶ structured ─ bufferize,schedule ─▶ loops ─ plan-memory ─▶ program
//! ```
//!
//! Invariant: a level printed and read back goes on to the same bytes of code ([`through_text`]).

use crate::instrument::Ran;
use crate::options::Options;
use crate::reproducer::{Reproducer, panic_message};
use crate::tune::applied::{Applied, Recorded, Tuned, apply_log};
use crate::tune::record::Place;
use crate::{Error, Result};
use brolga_ir::program::{Program, Storage};
use brolga_ir::text::ParseError;
use brolga_ir::{ConstData, Graph, Source};
use brolga_passes::bufferize::Bufferize;
use brolga_passes::descend::{Choose, ScheduleKernels};
use brolga_passes::eqsat::schedule::printed;
use brolga_passes::eqsat::{Alternative, Decide, Decided, EqSat, Kept, NamedRewrite};
use brolga_passes::lower::Structured;
pub use brolga_passes::module::{Level, Module};
use brolga_passes::pass::{Context, Pass, PassError, Settings};
use brolga_passes::registry::Pipeline;
use brolga_passes::schedule::{Machine, Sources};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A graph with some symbols replaced by numbers.
///
/// # Errors
/// When a number contradicts the model, or there is no such symbol.
pub fn specialise(g: &Graph, sizes: &[(String, i64)]) -> Result<Graph> {
    brolga_passes::specialise::specialise(g, sizes).map_err(|source| Error::Lower {
        model: g.name.clone(),
        source,
    })
}

/// A module on its way down.
pub struct Walk<'o> {
    /// The module as it is.
    pub module: Module,
    /// How long the passes took that left a tensor graph.
    pub optimise: Duration,
    /// How long the others took.
    pub lower: Duration,
    /// What became of the options' records.
    pub tuned: Tuned,
    options: &'o Options,
    cx: Context,
}

impl<'o> Walk<'o> {
    /// The module after the pipeline of the options; without one, a tensor graph gets the default pipeline.
    ///
    /// # Errors
    /// When the pipeline's text is wrong, a pass fails, or what it gives is not valid, which is checked where the options ask
    /// for it.
    pub fn new(module: Module, options: &'o Options) -> Result<Walk<'o>> {
        let recorded = options
            .tuned
            .as_ref()
            .and_then(|log| Recorded::of(log, &options.target));
        let decide = recorded.clone().map(|r| r as Arc<dyn Decide>);
        let mut walk = Walk::decided(module, options, decide, false)?;
        walk.tuned = Tuned {
            kernels: vec![],
            decided: walk.cx.decided.clone(),
            elsewhere: recorded.and_then(|r| r.elsewhere()),
        };
        Ok(walk)
    }

    /// The same with somebody who decides about the whole program, and with what else could be decided where that is to be explored.
    ///
    /// # Errors
    /// As [`Walk::new`].
    pub fn decided(
        module: Module,
        options: &'o Options,
        decide: Option<Arc<dyn Decide>>,
        explore: bool,
    ) -> Result<Walk<'o>> {
        let mut walk = Walk::here(module, options);
        (walk.cx.decide, walk.cx.explore) = (decide, explore);
        walk.run(options.passes(walk.module.level())?)?;
        Ok(walk)
    }

    /// A module where no pass has run.
    pub(crate) fn here(module: Module, options: &'o Options) -> Walk<'o> {
        Walk {
            module,
            optimise: Duration::ZERO,
            lower: Duration::ZERO,
            tuned: Tuned::default(),
            options,
            cx: Context {
                judge: options.judge,
                ..Context::new(options.target.clone())
            },
        }
    }

    /// Runs what is missing on the way to a level.
    ///
    /// # Errors
    /// As [`Walk::new`]; when the module is below the level already.
    pub fn down(mut self, level: Level) -> Result<Walk<'o>> {
        if self.module.level() > level {
            let (found, name) = (self.module.level(), self.module.name());
            return Err(Error::Option(format!(
                "{name}: found {found}, expected {level}: levels go down only"
            )));
        }
        while self.module.level() < level {
            for pass in self.next() {
                if pass.name() == ScheduleKernels::NAME {
                    self.tune()?;
                }
                self.run(vec![pass])?;
            }
        }
        Ok(self)
    }

    /// The passes from where the module is to the next level.
    fn next(&self) -> Vec<Box<dyn Pass>> {
        let mut next = Pipeline::down_from(self.module.level(), &self.options.registry);
        if !self.options.aliases.is_empty() {
            next.replace(Box::new(Bufferize {
                aliases: self.options.aliases.clone(),
            }));
        }
        next.passes
    }

    /// Goes down to structured kernels that are as they are scheduled: what comes before the pass `schedule` has run, and they have the
    /// schedules of the options' records.
    ///
    /// # Errors
    /// As [`Walk::down`].
    pub fn kernels(self) -> Result<Walk<'o>> {
        let mut walk = self.down(Level::Structured)?;
        let before = walk
            .next()
            .into_iter()
            .take_while(|p| p.name() != ScheduleKernels::NAME);
        walk.run(before.collect())?;
        walk.tune()?;
        Ok(walk)
    }

    /// Goes down to a level as it is shown: structured kernels have their schedules.
    ///
    /// # Errors
    /// As [`Walk::down`].
    pub fn shown(self, level: Level) -> Result<Walk<'o>> {
        if level != Level::Structured {
            return self.down(level);
        }
        let mut walk = self.kernels()?;
        walk.run(vec![Box::<Choose>::default()])?;
        Ok(walk)
    }

    /// Gives kernels the schedules of the options' records, and remarks what became of each.
    fn tune(&mut self) -> Result<()> {
        let (Some(log), Module::Structured(program)) = (&self.options.tuned, &mut self.module) else {
            return Ok(());
        };
        let target = &self.options.target;
        let here = Place::here(target, 0);
        let all = apply_log(program, log, &here, &Machine::of(target))
            .map_err(|e| Error::Option(format!("{}: {e}", program.name)))?;
        self.cx.remarks.extend(all.iter().map(Applied::to_string));
        self.tuned.kernels.extend(all);
        Ok(())
    }

    /// Runs passes.
    ///
    /// # Errors
    /// As [`Walk::new`].
    pub fn run(&mut self, passes: Vec<Box<dyn Pass>>) -> Result<()> {
        for (n, pass) in passes.iter().enumerate() {
            let options = self.options;
            let name = self.module.name().to_owned();
            let before = options.instrument.as_ref().map(|i| {
                i.before(&**pass, &self.module);
                self.module.size()
            });
            let kept = options.reproducers.as_ref().map(|folder| (folder, self.module.clone()));
            let start = Instant::now();
            // The pass takes the module; after an error nothing is left of it.
            let module = std::mem::replace(&mut self.module, Module::Tensor(Graph::new(&name)));
            let run = || pass.run(module, &mut self.cx);
            let ran = match kept {
                None => run(),
                Some(_) => catch_unwind(AssertUnwindSafe(run))
                    .unwrap_or_else(|payload| Err(PassError::new(pass.name(), panic_message(&*payload)))),
            };
            let verified = |m: Module| match options.verify.then(|| m.verify()) {
                Some(Err(error)) => Err(PassError::at(pass.name(), error)),
                _ => Ok(m),
            };
            self.module = ran.and_then(verified).map_err(|source| {
                let kept = kept.filter(|_| !source.refused);
                let write = |(folder, module): (&PathBuf, Module)| {
                    Reproducer::of(&passes[n..], &source.error.to_string(), options).write(folder, &module)
                };
                // What failed is told in any case, also where no file can be written.
                let reproducer = kept.and_then(|kept| write(kept).ok());
                Error::Passes {
                    model: name,
                    source,
                    reproducer,
                }
            })?;
            let took = start.elapsed();
            match self.module.level() {
                Level::Tensor => self.optimise += took,
                _ => self.lower += took,
            }
            let counts = std::mem::take(&mut self.cx.counts);
            if let (Some(i), Some(before)) = (&options.instrument, before) {
                i.after(&Ran {
                    pass: &**pass,
                    before,
                    module: &self.module,
                    took,
                    counts: &counts,
                });
            }
        }
        Ok(())
    }

    /// What the loop kernels were made of, where a pass has made them; they are handed out once.
    pub fn take_sources(&mut self) -> Option<Sources> {
        self.cx.sources.take()
    }

    /// The last rewrite by a rule.
    pub fn take_rewrite(&mut self) -> Option<NamedRewrite> {
        self.cx.rewrite.take()
    }

    /// What could be decided about the whole program otherwise, where that was explored.
    pub fn alternatives(&self) -> &[Alternative] {
        &self.cx.alternatives
    }

    /// What became of what was decided so.
    pub fn decisions(&self) -> &[Decided] {
        &self.cx.decided
    }

    /// What the passes remarked so far.
    pub fn remarks(&self) -> &[String] {
        &self.cx.remarks
    }
}

/// The graph after the pipeline: kernels are chosen, each ends in a `store`. Also what the passes remarked.
///
/// # Errors
/// When a pass fails, naming the node.
pub fn optimise(g: &Graph, options: &Options) -> Result<(Graph, Vec<String>)> {
    let walk = Walk::new(Module::Tensor(g.clone()), options)?.down(Level::Tensor)?;
    match walk.module {
        Module::Tensor(g) => Ok((g, walk.cx.remarks)),
        _ => unreachable!("it went down to a tensor graph"),
    }
}

/// The e-graph that the options' pipeline makes of a graph, after so many rounds where that is said.
///
/// # Errors
/// As [`Walk::new`]; when the pipeline makes none.
pub fn saturated(g: &Graph, options: &Options, rounds: Option<usize>) -> Result<Kept> {
    through_eqsat(g, options, Some(rounds))?
        .cx
        .egraph
        .ok_or_else(|| no_egraph(g))
}

/// The schedule that the options' pipeline saturates a graph by, as text, with what each phase did as comments.
///
/// # Errors
/// As [`Walk::new`]; when the pipeline saturates nothing.
pub fn schedule(g: &Graph, options: &Options) -> Result<String> {
    let walk = through_eqsat(g, options, None)?;
    match &walk.cx.saturated[..] {
        [] => Err(no_egraph(g)),
        ran => Ok(printed(ran)),
    }
}

/// The graph behind the first pass of the options' pipeline that makes an e-graph.
fn through_eqsat<'o>(g: &Graph, options: &'o Options, keep: Option<Option<usize>>) -> Result<Walk<'o>> {
    let passes = options.passes(Level::Tensor)?;
    let mut walk = Walk::here(Module::Tensor(g.clone()), options);
    walk.cx.keep = keep;
    let before = passes.iter().position(|p| p.name() == EqSat::NAME).map_or(0, |i| i + 1);
    walk.run(passes.into_iter().take(before).collect())?;
    Ok(walk)
}

fn no_egraph(g: &Graph) -> Error {
    let message = "the pipeline makes no e-graph: it has no pass `eqsat`, or that has no rules";
    Error::Option(format!("{}: {message}", g.name))
}

/// Structured kernels of a cut graph.
///
/// # Errors
/// When a stream between two stores is no kernel.
pub fn structured(g: &Graph, options: &Options) -> Result<Structured> {
    match descend(Module::Tensor(g.clone()), options, Level::Structured)? {
        Module::Structured(s) => Ok(s),
        _ => unreachable!("it went down to structured kernels"),
    }
}

/// Loop nests for the options' target, and the memory plan.
///
/// # Errors
/// When a schedule is not legal, or something is larger than 64 bits can count.
pub fn program(s: &Structured, options: &Options) -> Result<Program> {
    planned(Module::Structured(s.clone()), options)
}

/// A module's loop nests with their memory plan.
///
/// # Errors
/// As for the passes.
fn planned(m: Module, options: &Options) -> Result<Program> {
    Ok(into_program(descend(m, options, Level::Program)?))
}

/// The program that a module is which went down to [`Level::Program`].
pub(crate) fn into_program(m: Module) -> Program {
    match m {
        Module::Loops(p) => p,
        _ => unreachable!("it went down to a program"),
    }
}

/// The module at a lower level, without the options' pipeline.
fn descend(module: Module, options: &Options, level: Level) -> Result<Module> {
    Ok(Walk::here(module, options).down(level)?.module)
}

/// The planned program of a graph that passes through `level`'s text on the way.
///
/// # Errors
/// As for the passes; when the text is not read back.
pub fn through_text(g: &Graph, options: &Options, level: Level) -> Result<Program> {
    let files = sources(g);
    let find = |name: &str| files.iter().find(|s| s.name() == name).cloned();
    let read = |source: ParseError| Error::Text {
        path: PathBuf::from(format!("{} (printed)", g.name)),
        source,
    };
    let walk = Walk::new(Module::Tensor(g.clone()), options)?.down(level)?;
    let again = Module::parse(&walk.module.to_string(), &find).map_err(read)?;
    planned(again, options)
}

/// The files that a graph's constants and defaults lie in, each once.
pub fn sources(g: &Graph) -> Vec<Arc<dyn Source>> {
    let mut out: Vec<Arc<dyn Source>> = vec![];
    for c in g.constants.iter().chain(g.defaults.iter().map(|(_, c)| c)) {
        if let ConstData::File { source, .. } = &c.data
            && out.iter().all(|s| s.name() != source.name())
        {
            out.push(source.clone());
        }
    }
    out
}

/// Forgets the model's files: what is left of a program that is compiled and needs none of its constants any more.
pub fn forget_constants(p: &mut Program) {
    for s in &mut p.slots {
        if matches!(s.storage, Storage::Weight(_)) {
            s.storage = Storage::Computed;
        }
    }
    p.init.clear();
}
