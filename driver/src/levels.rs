//! The way down, one function a step, and the way through each level's text.
//!
//! ```text
//! Graph ─ optimise ─▶ cut Graph ─ structured ─▶ Program<structured> ─ program ─▶ Program<loops>, planned
//! ```
//!
//! Invariant: a level printed and read back goes on to the same bytes of code ([`through_text`]).

use crate::options::Options;
use crate::{Error, Result, backend};
use brolga_ir::program::{Callable, Program, Storage};
use brolga_ir::text::ParseError;
use brolga_ir::{ConstData, Graph, NodeError, Source, Target};
use brolga_passes::lower::{self, Structured};
use brolga_passes::pass::Context;
use std::path::PathBuf;
use std::sync::Arc;

/// A level of the IR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The optimised tensor graph.
    Tensor,
    /// Structured kernels.
    Structured,
    /// Loop nests.
    Loops,
    /// Loop nests with steps and the memory plan.
    Program,
}

impl Level {
    /// Every level, from the top.
    pub const ALL: [Level; 4] = [Level::Tensor, Level::Structured, Level::Loops, Level::Program];
}

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

/// The graph after the pipeline: kernels are chosen, each ends in a `store`. Also what the passes remarked.
///
/// # Errors
/// When a pass fails, naming the node.
pub fn optimise(g: &Graph, options: &Options) -> Result<(Graph, Vec<String>)> {
    let mut cx = Context::new(options.target.clone());
    let fail = |source| Error::Passes {
        model: g.name.clone(),
        source,
    };
    let mut graph = g.clone();
    for pass in options.passes()? {
        graph = pass.run_through(&graph, &mut cx).map_err(fail)?;
        if options.verify {
            graph.verify().map_err(|error| {
                fail(brolga_passes::pass::PassError {
                    pass: pass.name(),
                    error,
                })
            })?;
        }
        options.show(pass.name(), &graph);
    }
    Ok((graph, cx.remarks))
}

/// Structured kernels of a cut graph.
///
/// # Errors
/// When a stream between two stores is no kernel.
pub fn structured(g: &Graph, options: &Options) -> Result<Structured> {
    let s = lower::to_structured(g).map_err(|source| Error::Lower {
        model: g.name.clone(),
        source,
    })?;
    check(&s, options)?;
    options.show("structured", &s);
    Ok(s)
}

/// Loop nests for a target, and the memory plan.
///
/// # Errors
/// When the result is not valid, which is checked where the options ask for it.
pub fn program(s: &Structured, options: &Options) -> Result<Program> {
    planned(loops(s, &options.target), options)
}

/// Loop nests with a memory plan: their own, or one that is made here.
///
/// # Errors
/// As [`program`]; when something is larger than 64 bits can count.
pub fn planned(mut p: Program, options: &Options) -> Result<Program> {
    if p.arena.is_none() {
        plan_memory(&mut p)?;
    }
    check(&p, options)?;
    options.show("program", &p);
    Ok(p)
}

/// Places the temporaries.
///
/// # Errors
/// When something is larger than 64 bits can count.
pub fn plan_memory(p: &mut Program) -> Result<()> {
    brolga_passes::memory::plan(p).map_err(|message| Error::Lower {
        model: p.name.clone(),
        source: NodeError {
            node: String::new(),
            message,
        },
    })
}

/// Loop nests for a target.
pub fn loops(s: &Structured, target: &Target) -> Program {
    backend::of(target).schedule(s, target)
}

fn check<K: Callable>(p: &Program<K>, options: &Options) -> Result<()> {
    if !options.verify {
        return Ok(());
    }
    p.verify().map_err(|message| Error::Lower {
        model: p.name.clone(),
        source: NodeError {
            node: String::new(),
            message,
        },
    })
}

/// The planned program of a graph that passes through `level`'s text on the way.
///
/// # Errors
/// As for the steps; when the text is not read back.
pub fn through_text(g: &Graph, options: &Options, level: Level) -> Result<Program> {
    let files = sources(g);
    let find = |name: &str| files.iter().find(|s| s.name() == name).cloned();
    let read = |source: ParseError| Error::Text {
        path: PathBuf::from(format!("{} (printed)", g.name)),
        source,
    };
    let (mut cut, _) = optimise(g, options)?;
    if level == Level::Tensor {
        cut = Graph::parse(&cut.to_string(), &find).map_err(read)?;
    }
    let mut s = structured(&cut, options)?;
    if level == Level::Structured {
        s = Structured::parse(&s.to_string(), &find).map_err(read)?;
    }
    let mut p = loops(&s, &options.target);
    if level == Level::Loops {
        for k in &mut p.kernels {
            *k = k.to_string().parse().map_err(read)?;
        }
    }
    plan_memory(&mut p)?;
    if level == Level::Program {
        p = Program::parse(&p.to_string(), &find).map_err(read)?;
    }
    Ok(p)
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
