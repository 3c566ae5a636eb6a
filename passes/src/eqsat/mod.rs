//! The e-graph pass: algebra, fusion and layout decided together.
//!
//! A graph becomes an e-graph ([`build`]) in the cut representation ([`lang`]); rules from text saturate it; the
//! extraction ([`extract`], [`plan`]) chooses the kernels by their roofline cost ([`cost`]). No fusion happens outside
//! the rules and the extraction: without rules every operator is a kernel of its own.
//!
//! ```text
//! %1 = add(%0, %0)          -->          %1 = add(%0, %0)
//! %2 = relu(%1)                          %2 = relu(%1)
//!                                        %3 = store(%2)
//! ```
//!
//! The cut representation and this extraction are the project's own; the e-graph is `egg` (Willsey et al., "egg: fast and
//! extensible equality saturation", POPL 2021).

pub mod build;
pub mod cost;
pub mod extract;
pub mod lang;
pub mod plan;

use brolga_ir::{Graph, Target};
use cost::CostModel;
use extract::{At, Classes};
use plan::Plan;

/// The kernels of a graph as it stands: every operator is stored, composite operators are decomposed.
///
/// # Errors
/// When an operator has no kernel.
pub fn unfused(g: &Graph, target: &Target) -> Result<Graph, String> {
    let g = crate::decompose::decompose(g).map_err(|e| e.to_string())?;
    let built = build::build(&g)?;
    extract_graph(&g, &built, target)
}

/// The graph of the best terms of an e-graph.
///
/// # Errors
/// When an output has no kernel.
pub fn extract_graph(g: &Graph, built: &build::Built, target: &Target) -> Result<Graph, String> {
    let cs = Classes::new(&built.eg, CostModel::new(target))?;
    let settled = extract::settle(&cs);
    let roots: Vec<At> = built.outputs.iter().map(|&t| cs.at[&built.eg.find(t)]).collect();
    let plan = Plan::new(&cs, &settled, &roots)?;
    let mut out = plan::emit(g, &built.eg, &cs, &plan, &roots)?;
    out.prune();
    Ok(out)
}

#[cfg(test)]
mod tests;
