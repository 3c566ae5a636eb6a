//! E-graphs in the format of the crate `egraph-serialize`, which extraction-gym and egraph-visualizer read.
//!
//! A node costs the seconds that the extraction's figures give its operator, a `store` a kernel and writing, a `load` reading. Costs add up,
//! so a file knows nothing of kernels that do two things at a time, nor of what cannot share one: what is chosen from it is no program.
//! Composite operators, which have no kernel, are `subsumed`, and cost [`NO_KERNEL`] for readers that do not look.
//!
//! ```text
//! "7.0": {"op": "relu", "children": ["5.0"], "eclass": "7", "cost": 1.2e-7, "subsumed": false}
//! ```

mod choose;
mod format;

use crate::{Error, Result, source};
use brolga_ir::ops::Role;
use brolga_passes::eqsat::Kept;
use brolga_passes::eqsat::extract::Choice;
use brolga_passes::eqsat::lang::{Data, Kind, Term, scalar_value};
pub use choose::{Chosen, With, choose};
use egg::Language;
pub use format::{EGraph, Node};
use std::path::Path;

/// Seconds of a node that no program has.
pub const NO_KERNEL: f64 = 1e6;

/// An e-graph that was kept, in the format.
pub fn serialized(kept: &Kept) -> EGraph {
    let (eg, cs) = (&kept.choices.eg, &kept.choices.classes);
    let mut out = EGraph::default();
    let mut ids: Vec<_> = eg.classes().map(|c| c.id).collect();
    ids.sort_unstable();
    for id in ids {
        let class = id.to_string();
        let mut terms: Vec<&Term> = eg[id].nodes.iter().collect();
        terms.sort();
        for (i, term) in terms.into_iter().enumerate() {
            let choice = cs.at.get(&id).map(|&c| (&cs.choices[c][i], c));
            let seconds = choice.map_or(0.0, |(choice, c)| match &choice.term {
                Term::Store(_) if !cs.constant[c] => cs.model.per_kernel() + cs.traffic[c],
                Term::Load(_) => cs.traffic[c],
                _ => of_operator(choice, cs.constant[c], &|a, b| cs.model.kernel(a, b)),
            });
            let subsumed = seconds >= NO_KERNEL;
            let children = term.children().iter().map(|c| format!("{}.0", eg.find(*c)));
            out.nodes.push(Node {
                id: format!("{id}.{i}"),
                op: label(term),
                children: children.collect(),
                class: class.clone(),
                cost: seconds.min(NO_KERNEL),
                subsumed,
            });
        }
        out.data.push((class, data(kept, &eg[id].data)));
    }
    let root = |&c: &usize| cs.ids[c].to_string();
    out.roots = kept.choices.roots.iter().map(root).collect();
    out
}

/// Seconds of an operator by itself.
fn of_operator(choice: &Choice, constant: bool, kernel: &dyn Fn(f64, f64) -> f64) -> f64 {
    match choice.part {
        Some(p) if matches!(p.role, Role::Composite) => NO_KERNEL,
        _ if constant => 0.0,
        Some(p) if p.role.is_step() => kernel(choice.work.compute, choice.work.memory),
        Some(_) => choice.work.arithmetic(false).0,
        None => 0.0,
    }
}

/// What a node is called.
fn label(term: &Term) -> String {
    match term {
        Term::Op(op, _) => op.name().into(),
        Term::Attr(a) => a.to_string(),
        Term::Input(i) => format!("input {i}"),
        Term::Const(i) => format!("const {i}"),
        Term::Scalar(dtype, bits) => format!("{dtype} {}", scalar_value(*dtype, *bits)),
        Term::Load(_) => "load".into(),
        Term::Store(_) => "store".into(),
        Term::Nil => "nil".into(),
        Term::Cons(_) => "cons".into(),
        Term::Proj(i, _) => format!("result {i}"),
    }
}

/// What is told of a class: its type, and the model nodes that it came from.
fn data(kept: &Kept, data: &Data) -> Vec<(String, String)> {
    let ty = match &data.kind {
        Kind::Attr(_) => "attribute".to_owned(),
        Kind::List(n) => format!("list of {n}"),
        Kind::Tuple(types) => {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            format!("({})", types.join(", "))
        }
        Kind::Value(ty) if data.stream => format!("stream {ty}"),
        Kind::Value(ty) => format!("tensor {ty}"),
    };
    let mut names: Vec<&str> = data.origins.iter().map(|&n| &*kept.origins[n as usize]).collect();
    names.retain(|n| !n.is_empty());
    let mut out = vec![("type".to_owned(), ty)];
    if !names.is_empty() {
        out.push(("origin".to_owned(), names.join("+")));
    }
    out
}

/// The e-graph in a file, some classes of which are asked for.
///
/// # Errors
/// When the file cannot be read, is not of the format, names a node or class that is not in it, or has no roots.
pub fn read(path: &Path) -> Result<EGraph> {
    let text = source::text(path)?;
    let eg = EGraph::parse(&text)
        .map_err(|e| Error::file(path, format!("found no e-graph of the format of egraph-serialize: {e}")))?;
    if eg.roots.is_empty() {
        return Err(Error::file(path, "it has no roots: `root_eclasses` is empty"));
    }
    Ok(eg)
}
