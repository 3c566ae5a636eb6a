//! E-graphs in the format of the crate `egraph-serialize`, which extraction-gym and egraph-visualizer read; and a [`View`] of one with all
//! that was and was not chosen from it.
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
mod page;
mod view;

use crate::{Error, Result, source};
use brolga_ir::ops::Role;
use brolga_passes::eqsat::Kept;
use brolga_passes::eqsat::extract::{At, Classes};
use brolga_passes::eqsat::lang::{Data, Kind, Term, scalar_value};
pub use choose::{Chosen, With, choose};
use egg::Language;
pub use format::{EGraph, Node};
use std::path::Path;
pub use view::{SCHEMA, View};

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
            let seconds = cs.at.get(&id).map_or(0.0, |&c| seconds(cs, c, i));
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

/// Seconds of an e-node of a class by itself.
fn seconds(cs: &Classes, c: At, k: usize) -> f64 {
    let choice = &cs.choices[c][k];
    match (&choice.term, choice.part) {
        (Term::Store(_), _) if !cs.constant[c] => cs.model.per_kernel() + cs.traffic[c],
        (Term::Load(_), _) => cs.traffic[c],
        (_, Some(p)) if matches!(p.role, Role::Composite) => NO_KERNEL,
        _ if cs.constant[c] => 0.0,
        (_, Some(p)) if p.role.is_step() => cs.model.kernel(choice.work.compute, choice.work.memory),
        (_, Some(_)) => choice.work.arithmetic(false).0,
        (_, None) => 0.0,
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

/// The type of a class's terms.
fn type_of(kind: &Kind) -> String {
    match kind {
        Kind::Attr(_) => "attribute".to_owned(),
        Kind::List(n) => format!("list of {n}"),
        Kind::Tuple(types) => {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            format!("({})", types.join(", "))
        }
        Kind::Value(ty) => ty.to_string(),
    }
}

/// What is told of a class: its type, and the model nodes that it came from.
fn data(kept: &Kept, data: &Data) -> Vec<(String, String)> {
    let ty = match &data.kind {
        Kind::Value(_) if data.stream => format!("stream {}", type_of(&data.kind)),
        Kind::Value(_) => format!("tensor {}", type_of(&data.kind)),
        kind => type_of(kind),
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
