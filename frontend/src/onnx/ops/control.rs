//! `If`, and what control flow has in common: subgraphs, which become regions.
//!
//! What is known at import does not stay: the branch that a known condition chooses stands in the place of its `If`.

use super::super::region::{Frame, region};
use super::*;
use brolga_ir::ops::Region;
use brolga_ir::{Attr, DType, Dim, Graph, Type};
use onnx_protobuf::GraphProto;

/// What a subgraph gives, and the graph that it is.
pub(super) struct Subgraph {
    pub frame: Frame,
    pub results: Vec<Slot>,
}

/// `If`.
pub fn if_<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, _: &[Slot]) -> Result<Vec<Slot>, Fail> {
    ctx.arity(1, 1)?;
    let condition = ctx.input(0)?;
    let (then, other) = (ctx.graph("then_branch")?, ctx.graph("else_branch")?);
    let on_sizes = im.graph.is_of_sizes(condition);
    if let Some(known) = im.graph.dims_of(condition).and_then(|d| d.first()?.as_const()) {
        return im.inline(if known == 0 { other } else { then }, &ctx.name, &[]);
    }
    let condition = im.graph.condition(condition)?;
    // Both, so that an error lists what is not supported in either.
    let then = subgraph(im, then, &format!("{}/then", ctx.name), "then", |_| Ok(vec![]));
    let other = subgraph(im, other, &format!("{}/else", ctx.name), "else", |_| Ok(vec![]));
    let mut branches = [then?, other?];
    if on_sizes && ranks_differ(&branches) {
        return assumed(im, ctx, condition);
    }
    if branches[0].results.len() != branches[1].results.len() {
        let [n, m] = branches.each_ref().map(|b| b.results.len());
        return Err(Fail::Bad(format!("branches of {n} and {m} results")));
    }
    // Sequences of as many tensors are those tensors.
    let mut shapes: Vec<Option<usize>> = vec![];
    let mut values: [Vec<Value>; 2] = [vec![], vec![]];
    for (a, b) in branches[0].results.iter().zip(&branches[1].results) {
        shapes.push(match (a, b) {
            (Slot::Value(a), Slot::Value(b)) => {
                values[0].push(*a);
                values[1].push(*b);
                None
            }
            (Slot::Sequence(a), Slot::Sequence(b)) => {
                let (a, b) = (&im.sequences[*a as usize], &im.sequences[*b as usize]);
                if a.len() != b.len() {
                    return unsupported(format!(
                        "branches that give sequences of {} and {} tensors",
                        a.len(),
                        b.len()
                    ));
                }
                values[0].extend(a);
                values[1].extend(b);
                Some(a.len())
            }
            _ => return unsupported("branches of which one gives no tensor, by a condition computed from data"),
        });
    }
    let found = agree(im, condition, &mut branches, &mut values)?;
    let mut found = found.into_iter();
    let mut out = vec![];
    for shape in shapes {
        out.push(match shape {
            None => Slot::Value(found.next().expect("one a value")),
            Some(n) => {
                let all = found.by_ref().take(n).collect();
                im.sequence(all)
            }
        });
    }
    Ok(out)
}

/// Whether branches give tensors of different ranks.
fn ranks_differ(branches: &[Subgraph; 2]) -> bool {
    let ranks = branches.each_ref().map(|b| {
        let rank = |s: &Slot| match s {
            Slot::Value(v) => Some(b.frame.graph.ty(*v).rank()),
            _ => None,
        };
        b.results.iter().map(rank).collect::<Vec<_>>()
    });
    ranks[0] != ranks[1]
}

/// An `If` on sizes whose branches differ in rank, as exporters write a squeeze of an extent that may be 1. What follows takes one of
/// them: a branch stands in its place, and the run fails where the condition is another.
fn assumed<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, condition: Value) -> Result<Vec<Slot>, Fail> {
    let first = !im.assumed.second;
    im.assumed.branches.set(true);
    let taken = im.graph.cast(condition, DType::I64)?;
    let taken = im.graph.read_anew(taken, Some(Dim::ONE))?;
    im.graph.require_equal(&taken, &Dim::from(first as usize))?;
    let branch = ctx.graph(if first { "then_branch" } else { "else_branch" })?;
    im.inline(branch, &ctx.name, &[])
}

/// The results of an `if` with two branches. Extents that differ are read before it: an `if` of the same condition gives them.
fn agree(
    im: &mut Importer<'_>,
    condition: Value,
    branches: &mut [Subgraph; 2],
    values: &mut [Vec<Value>; 2],
) -> Outcome {
    let graph = &mut im.graph;
    let mut open: Vec<(usize, usize)> = vec![];
    for (k, (&a, &b)) in values[0].iter().zip(&values[1]).enumerate() {
        let (a, b) = (branches[0].frame.graph.ty(a), branches[1].frame.graph.ty(b));
        if a.dtype != b.dtype || a.rank() != b.rank() {
            return unsupported(format!(
                "branches that give {a} and {b}, by a condition computed from data"
            ));
        }
        let differ = (0..a.rank())
            .filter(|&axis| a.shape[axis] != b.shape[axis] || late(&branches[0].frame.graph, &a.shape[axis]));
        open.extend(differ.map(|axis| (k, axis)));
    }
    if !open.is_empty() {
        let mut extents: [Vec<Value>; 2] = [vec![], vec![]];
        for i in 0..2 {
            graph.within(&mut branches[i].frame, |graph| {
                for &(k, axis) in &open {
                    let d = graph.shape(values[i][k])[axis].clone();
                    extents[i].push(graph.dim_scalar(&d, DType::I64)?);
                }
                Ok(())
            })?;
        }
        let sizes = choose(graph, condition, branches, &extents, true)?;
        let mut known = vec![];
        for v in sizes {
            known.push(graph.read(v, None)?);
        }
        for i in 0..2 {
            graph.within(&mut branches[i].frame, |graph| {
                for (&(k, axis), want) in open.iter().zip(&known) {
                    // Of the branch that is not taken, the result has another extent, which must be valid all the same.
                    let v = values[i][k];
                    let (rank, have) = (graph.rank(v), graph.shape(v)[axis].clone());
                    let mut more = vec![Dim::ZERO; rank];
                    more[axis] = want - &have;
                    values[i][k] = graph.pad(v, vec![Dim::ZERO; rank], more, vec![0; rank], 0)?;
                }
                Ok(())
            })?;
        }
    }
    choose(graph, condition, branches, values, false)
}

/// Whether data tell an extent, in a graph itself.
pub(super) fn late(graph: &Graph, d: &Dim) -> bool {
    let mut own = false;
    d.for_each_symbol(&mut |s| own |= graph.reads.iter().any(|r| r.symbol == *s));
    own
}

/// An `if` of two branches, or copies of them, with results of the same types.
fn choose(
    graph: &mut Builder<'_>,
    condition: Value,
    branches: &[Subgraph; 2],
    values: &[Vec<Value>; 2],
    copied: bool,
) -> Outcome {
    let captures = union(&[&branches[0].frame, &branches[1].frame]);
    let types: Vec<Type> = captures.iter().map(|v| graph.ty(*v).clone()).collect();
    let mut attrs = vec![];
    for (b, values) in branches.iter().zip(values) {
        let mut r = region(&b.frame, &[], values, &captures, &types);
        if copied {
            r = graph.copied(&r)?;
        }
        attrs.push(Attr::Region(Region::new(r).map_err(|e| e.to_string())?));
    }
    graph.unfolded_ops("if", &attrs, &[&[condition], &captures[..]].concat())
}

/// Imports a subgraph as a graph of its own, whose arguments `arguments` adds.
pub(super) fn subgraph<'m>(
    im: &mut Importer<'m>,
    g: &'m GraphProto,
    path: &str,
    name: &str,
    arguments: impl FnOnce(&mut Importer<'m>) -> Result<Vec<Slot>, Fail>,
) -> Result<Subgraph, Fail> {
    im.graph.enter(Frame::new(name));
    let results = arguments(im).and_then(|arguments| im.inline(g, path, &arguments));
    let frame = im.graph.leave();
    results.map(|results| Subgraph { frame, results })
}

/// What graphs have of the one around them.
pub(super) fn union(frames: &[&Frame]) -> Vec<Value> {
    let mut all: Vec<Value> = vec![];
    for f in frames {
        for (v, _) in &f.captured.inputs {
            if !all.contains(v) {
                all.push(*v);
            }
        }
    }
    all
}
