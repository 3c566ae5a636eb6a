//! The way down, one function a step, and the way through each level's text.
//!
//! ```text
//! Graph ─ optimise ─▶ cut Graph ─ structured ─▶ Program<structured> ─ program ─▶ Program<loops>, planned
//! ```
//!
//! Invariant: a level printed and read back goes on to the same bytes of code ([`through_text`]).

use crate::compile::Options;
use crate::{Error, Result, tensors};
use brolga_ir::program::{Callable, Program, Storage};
use brolga_ir::text::ParseError;
use brolga_ir::{ConstData, Dim, Graph, NodeError, Op, Source, Target, Type};
use brolga_passes::lower::{self, Structured};
use brolga_passes::pass::Context;
use brolga_runtime::tensor::byte_size;
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
    if let Some((s, _)) = sizes.iter().find(|(s, _)| g.symbols.iter().all(|x| **x != **s)) {
        let symbols = g.symbols.iter().map(|s| &**s);
        let message = brolga_ir::graph::unknown_symbol(s, symbols);
        return Err(Error::Option(format!("model {}: {message}", g.name)));
    }
    let value = |s: &str| sizes.iter().find(|(n, _)| *n == *s).map(|(_, v)| Dim::Const(*v));
    let ty = |t: &Type| {
        Type::new(
            t.dtype,
            t.shape.iter().map(|d| d.substitute(&value)).collect::<Vec<_>>(),
        )
    };
    let fail = |source: NodeError| Error::Lower {
        model: g.name.clone(),
        source,
    };
    let mut out = Graph::new(&g.name);
    let mut map = vec![None; g.values.len()];
    for i in &g.inputs {
        let ty = ty(g.ty(i.value));
        let extents: Vec<usize> = ty.shape.iter().filter_map(Dim::as_const).map(|n| n as usize).collect();
        if byte_size(tensors::abi_dtype(ty.dtype), &extents).is_none_or(|n| n > i64::MAX as u64) {
            let message = format!("input `{}` is {ty}: more bytes than 64 bits can count", i.name);
            return Err(Error::Option(format!("model {}: {message}", g.name)));
        }
        map[i.value.0 as usize] = Some(out.input(&i.name, ty));
    }
    out.symbols = g.symbols.iter().filter(|s| value(s).is_none()).cloned().collect();
    out.defaults.clone_from(&g.defaults);
    for guard in &g.guards {
        let known = guard.substitute(&value);
        match known.decided() {
            Some(true) => {}
            Some(false) => {
                let (left, right) = (&known.left, &known.right);
                let message = format!("{guard} does not hold with these sizes: found {left} and {right}");
                return Err(fail(NodeError {
                    node: String::new(),
                    message,
                }));
            }
            None => out.guards.push(known),
        }
    }
    for (v, info) in g.values.iter().enumerate() {
        if let brolga_ir::Def::Const(c) = info.def {
            map[v] = Some(out.constant(g.constants[c as usize].clone()));
        }
    }
    for node in &g.nodes {
        let attrs: Vec<brolga_ir::Attr> = node
            .op
            .attrs()
            .iter()
            .map(|a| match a {
                brolga_ir::Attr::Dims(ds) => brolga_ir::Attr::Dims(ds.iter().map(|d| d.substitute(&value)).collect()),
                a => a.clone(),
            })
            .collect();
        let message = |message| {
            fail(NodeError {
                node: node.origin.to_string(),
                message,
            })
        };
        let op = Op::new(node.op.name(), &attrs).map_err(message)?;
        let inputs: Vec<brolga_ir::Value> = node
            .inputs
            .iter()
            .map(|v| map[v.0 as usize].expect("operands come first"))
            .collect();
        let outputs = out.add(op, &inputs, &node.origin).map_err(fail)?;
        for (o, v) in node.outputs.iter().zip(outputs) {
            map[o.0 as usize] = Some(v);
        }
    }
    let outputs = g
        .outputs
        .iter()
        .map(|(n, v)| (n.clone(), map[v.0 as usize].expect("outputs are defined")));
    out.outputs = outputs.collect();
    Ok(out)
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
        graph = pass.run(&graph, &mut cx).map_err(fail)?;
        graph.defaults.clone_from(&g.defaults);
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
    let options = lower::Options {
        max_rows: i64::from(target.tile.max_rows(32)),
        resident: (target.l2_bytes / 2) as i64,
    };
    lower::to_loops(s, options)
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
