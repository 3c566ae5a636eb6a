//! Control flow: `If`, and what becomes a `while` of the IR, `Loop` and `Scan`.
//!
//! What is known at import does not stay: the branch that a known condition chooses stands in the place of its `If`. A loop whose
//! state has other shapes, or more tensors, in every iteration is written out, where the number of iterations is known.
//!
//! ```text
//! Loop(m, true, v, body: (i, c, v) -> (c, v', y))  -->  %0, %v', %ys = while{
//!                                                          cond: i < m
//!                                                          body: i + 1, v', ys with y at i
//!                                                        }(0, v, zeros[m, …])
//! ```

use super::super::region::{Frame, region};
use super::*;
use brolga_ir::ops::Region;
use brolga_ir::{Attr, DType, Dim, Graph, Type};
use onnx_protobuf::GraphProto;

/// Nodes that a loop may become where it is written out.
const MOST_NODES: i64 = 100_000;

/// Iterations of a loop that its condition may end for whose results memory is laid out before it runs; where there may be more, the
/// loop runs once before, to count.
const MOST_ROWS: i64 = 4096;

/// What a subgraph gives, and the graph that it is.
struct Subgraph {
    frame: Frame,
    results: Vec<Slot>,
}

/// A loop of the model.
struct Repeat<'m> {
    body: &'m GraphProto,
    name: String,
    /// The most iterations, where there is a limit.
    limit: Option<Value>,
    /// What has to hold before the first iteration; the body gives what has to before the next one, as its first result.
    condition: Option<Value>,
    /// Whether the body takes the iteration's number and the condition, and gives the condition.
    counted: bool,
    state: Vec<Slot>,
    /// What each iteration gets a part of, and along which axis.
    scanned: Vec<Scanned>,
    /// Where the results of the iterations go.
    collected: Vec<Collected>,
}

#[derive(Clone)]
struct Scanned {
    value: Value,
    axis: usize,
    backward: bool,
}

#[derive(Clone, Copy, Default)]
struct Collected {
    axis: i64,
    backward: bool,
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
    let first = im.assumed.first;
    im.assumed.any.set(true);
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
        let differ =
            (0..a.rank()).filter(|&axis| a.shape[axis] != b.shape[axis] || late(&branches[0].frame, &a.shape[axis]));
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
fn late(frame: &Frame, d: &Dim) -> bool {
    let mut own = false;
    d.for_each_symbol(&mut |s| own |= frame.graph.reads.iter().any(|r| r.symbol == *s));
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
fn subgraph<'m>(
    im: &mut Importer<'m>,
    g: &'m GraphProto,
    path: &str,
    name: &str,
    arguments: impl FnOnce(&mut Builder<'m>) -> Result<Vec<Slot>, Fail>,
) -> Result<Subgraph, Fail> {
    im.graph.enter(Frame::new(name));
    let results = arguments(&mut im.graph).and_then(|arguments| im.inline(g, path, &arguments));
    let frame = im.graph.leave();
    results.map(|results| Subgraph { frame, results })
}

/// `Loop`.
pub fn loop_<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Result<Vec<Slot>, Fail> {
    let body = ctx.graph("body")?;
    let state: Vec<Slot> = slots.iter().skip(2).copied().collect();
    let results = body.output.len().checked_sub(1 + state.len());
    let collected = results.ok_or_else(|| {
        Fail::Bad(format!(
            "a body of {} results for {} values of state",
            body.output.len(),
            state.len()
        ))
    })?;
    let condition = ctx.optional(1).map(|c| im.graph.condition(c)).transpose()?;
    let limit = ctx
        .optional(0)
        .map(|m| im.graph.reshape_if_equal(m, vec![]))
        .transpose()?;
    repeat(
        im,
        Repeat {
            body,
            name: ctx.name.to_string(),
            limit,
            condition,
            counted: true,
            state,
            scanned: vec![],
            collected: vec![Collected::default(); collected],
        },
    )
}

/// `Scan`; before version 9 for each example of a batch.
pub fn scan<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Result<Vec<Slot>, Fail> {
    let body = ctx.graph("body")?;
    let n = ctx
        .opt_int("num_scan_inputs")?
        .ok_or("attribute `num_scan_inputs` is missing")?;
    let batched = ctx.version < 9;
    if batched && ctx.optional(0).is_some() {
        return unsupported("lengths of sequences");
    }
    let slots = &slots[(batched as usize).min(slots.len())..];
    let states = usize::try_from(n).ok().and_then(|n| slots.len().checked_sub(n));
    let states = states.ok_or_else(|| Fail::Bad(format!("{n} scanned inputs of {} operands", slots.len())))?;
    let (state, scanned) = slots.split_at(states);
    let collected = body.output.len().checked_sub(states);
    let collected = collected.ok_or_else(|| {
        Fail::Bad(format!(
            "a body of {} results for {states} values of state",
            body.output.len()
        ))
    })?;
    let list = |name: &str, n: usize| match ctx.ints(name)? {
        Some(l) if l.len() != n => Err(Fail::Bad(format!(
            "attribute `{name}` has {} elements, expected {n}",
            l.len()
        ))),
        l => Ok(l.map_or(vec![0; n], <[i64]>::to_vec)),
    };
    let directions = list(
        if batched { "directions" } else { "scan_input_directions" },
        scanned.len(),
    )?;
    let axes = list("scan_input_axes", scanned.len())?;
    let results = list("scan_output_axes", collected)?
        .into_iter()
        .zip(list("scan_output_directions", collected)?);
    let collected: Vec<Collected> = results.map(|(axis, d)| Collected { axis, backward: d != 0 }).collect();
    let mut inputs = vec![];
    for ((s, axis), direction) in scanned.iter().zip(axes).zip(directions) {
        let Slot::Value(value) = *s else {
            return Err("a scanned input that is no tensor".into());
        };
        let axis = node::axis(axis, im.graph.rank(value).saturating_sub(batched as usize))?;
        inputs.push(Scanned {
            value,
            axis,
            backward: direction != 0,
        });
    }
    let one = |name: String, state: Vec<Slot>, scanned: Vec<Scanned>| Repeat {
        body,
        name,
        limit: None,
        condition: None,
        counted: false,
        state,
        scanned,
        collected: collected.clone(),
    };
    if !batched {
        return repeat(im, one(ctx.name.to_string(), state.to_vec(), inputs));
    }
    let first = inputs.first().map(|s| im.graph.shape(s.value)[0].clone());
    let Some(batch) = first.as_ref().and_then(Dim::as_const) else {
        return unsupported("a symbolic batch");
    };
    let mut parts: Vec<Vec<Value>> = vec![vec![]; states + collected.len()];
    for b in 0..batch {
        let example = |im: &mut Importer<'m>, v: Value| {
            let part = im.graph.slice_axis(v, 0, Dim::Const(b), Dim::ONE)?;
            im.graph.squeeze(part, &[0])
        };
        let mut mine = vec![];
        for s in state {
            let Slot::Value(v) = *s else {
                return Err("a state that is no tensor".into());
            };
            mine.push(Slot::Value(example(im, v)?));
        }
        let mut scanned = inputs.clone();
        for s in &mut scanned {
            s.value = example(im, s.value)?;
        }
        let results = repeat(im, one(format!("{}/{b}", ctx.name), mine, scanned))?;
        for (part, s) in parts.iter_mut().zip(results) {
            if let Slot::Value(v) = s {
                part.push(im.graph.unsqueeze(v, &[0])?);
            }
        }
    }
    parts.iter().map(|p| im.graph.concat(0, p).map(Slot::Value)).collect()
}

/// A loop: written out where its state is more than tensors of the same types, else a `while`.
fn repeat<'m>(im: &mut Importer<'m>, r: Repeat<'m>) -> Result<Vec<Slot>, Fail> {
    let expected = 2 * r.counted as usize + r.state.len() + r.scanned.len();
    if r.body.input.len() != expected {
        return Err(Fail::Bad(format!(
            "a body of {} inputs, expected {expected}",
            r.body.input.len()
        )));
    }
    let limit = limit(im, &r)?;
    let values: Option<Vec<Value>> = r
        .state
        .iter()
        .map(|s| if let Slot::Value(v) = s { Some(*v) } else { None })
        .collect();
    let known = limit.as_ref().and_then(Dim::as_const);
    let Some(values) = values else {
        return match known {
            Some(n) => written_out(im, &r, n),
            None => unsupported("a sequence as state of a loop whose number of iterations is computed from data"),
        };
    };
    let changed = match Body::import(im, &r, &values, limit.as_ref())? {
        Ok(body) => match body.late_row() {
            None => return body.repeat(im, &r, &values, limit.as_ref()),
            Some(ty) => format!("{ty}, an extent computed from data, as a result of each iteration"),
        },
        Err(changed) => changed,
    };
    match known {
        Some(n) => written_out(im, &r, n),
        None => unsupported(format!(
            "{changed}, of a loop whose number of iterations is computed from data"
        )),
    }
}

/// The most iterations, where they are known; those of a scan are.
fn limit(im: &mut Importer<'_>, r: &Repeat<'_>) -> Result<Option<Dim>, Fail> {
    if let Some(c) = r.condition
        && im.graph.dims_of(c).is_some_and(|d| d.first().is_some_and(|d| d.is(0)))
    {
        return Ok(Some(Dim::ZERO));
    }
    if let Some(m) = r.limit {
        let known = im.graph.dims_of(m).and_then(|d| d.first().cloned());
        return Ok(known.filter(|d| !d.is(i64::MAX)).map(|d| Dim::max(&d, &Dim::ZERO)));
    }
    let mut extents = r
        .scanned
        .iter()
        .map(|s| im.graph.shape(s.value)[s.axis].clone())
        .collect::<Vec<_>>()
        .into_iter();
    let Some(first) = extents.next() else {
        return Ok(None);
    };
    extents.try_fold(first, |n, d| im.graph.require_equal(&n, &d)).map(Some)
}

/// The part of iteration `i` of what is scanned.
fn part(graph: &mut Builder<'_>, s: &Scanned, i: Value, n: &Dim) -> One {
    let at = position(graph, i, n, s.backward)?;
    let depth = graph.depth() - 1;
    let whole = graph.capture(s.value, depth);
    graph.gather(s.axis, whole, at)
}

/// The row of iteration `i` of `n`.
fn position(graph: &mut Builder<'_>, i: Value, n: &Dim, backward: bool) -> One {
    if !backward {
        return Ok(i);
    }
    let last = graph.dim_scalar(&(n - 1), DType::I64)?;
    graph.map("sub", &[last, i])
}

/// A loop's iterations one after the other.
fn written_out<'m>(im: &mut Importer<'m>, r: &Repeat<'m>, n: i64) -> Result<Vec<Slot>, Fail> {
    if n.saturating_mul(r.body.node.len() as i64) > MOST_NODES {
        return unsupported(format!("{n} iterations with a state that changes its type"));
    }
    if n == 0 && !r.collected.is_empty() {
        return unsupported("no iteration of a loop whose state is no tensor");
    }
    let mut state = r.state.clone();
    let mut rows: Vec<Vec<Value>> = vec![vec![]; r.collected.len()];
    for i in 0..n {
        let mut slots = vec![];
        if r.counted {
            slots.push(Slot::Value(im.graph.scalar(DType::I64, i)));
            slots.push(Slot::Value(im.graph.scalar(DType::Bool, 1)));
        }
        slots.extend(&state);
        for s in &r.scanned {
            let n = im.graph.shape(s.value)[s.axis].clone();
            let at = if s.backward { &n - (i + 1) } else { Dim::Const(i) };
            let row = im.graph.slice_axis(s.value, s.axis, at, Dim::ONE)?;
            slots.push(Slot::Value(im.graph.squeeze(row, &[s.axis])?));
        }
        let mut results = im.inline(r.body, &format!("{}/{i}", r.name), &slots)?.into_iter();
        let mut go = true;
        if r.counted {
            let Some(Slot::Value(c)) = results.next() else {
                return Err("a body without a condition".into());
            };
            let known = im.graph.dims_of(c).and_then(|d| d.first()?.as_const());
            go = match known {
                Some(c) => c != 0,
                None => return unsupported("a condition computed from data, of a loop whose state changes its type"),
            };
        }
        state = results.by_ref().take(state.len()).collect();
        for (all, s) in rows.iter_mut().zip(results) {
            let Slot::Value(v) = s else {
                return unsupported("a sequence as a result of each iteration");
            };
            all.push(v);
        }
        if !go {
            break;
        }
    }
    for (mut all, c) in rows.into_iter().zip(&r.collected) {
        let axis = node::axis(c.axis, im.graph.rank(all[0]) + 1)?;
        if c.backward {
            all.reverse();
        }
        let mut parts = vec![];
        for v in all {
            parts.push(im.graph.unsqueeze(v, &[axis])?);
        }
        state.push(Slot::Value(im.graph.concat(axis, &parts)?));
    }
    Ok(state)
}

/// The body of a loop as a graph of its own.
struct Body {
    frame: Frame,
    /// The number of the iteration.
    index: Value,
    state: Vec<Value>,
    /// The state of the next iteration.
    next: Vec<Value>,
    /// Whether there is a next iteration, where that is not always so.
    go: Option<Value>,
    /// What is collected.
    rows: Vec<Value>,
}

impl Body {
    /// Imports a body; or says how it changes the types of its state.
    fn import<'m>(
        im: &mut Importer<'m>,
        r: &Repeat<'m>,
        state: &[Value],
        limit: Option<&Dim>,
    ) -> Result<Result<Body, String>, Fail> {
        let types: Vec<Type> = state.iter().map(|v| im.graph.ty(*v).clone()).collect();
        let mut arguments = vec![];
        let made = subgraph(im, r.body, &r.name, "body", |graph| {
            let index = graph.argument("i", Type::new(DType::I64, []));
            let mut slots = vec![];
            if r.counted {
                // An iteration begins where the condition is true only.
                let go = graph.scalar(DType::Bool, 1);
                slots.extend([index, go].map(Slot::Value));
            }
            arguments.push(index);
            arguments.extend(
                types
                    .iter()
                    .enumerate()
                    .map(|(k, t)| graph.argument(&format!("s{k}"), t.clone())),
            );
            slots.extend(arguments[1..].iter().map(|v| Slot::Value(*v)));
            for s in &r.scanned {
                let n = limit.ok_or("a scan without a length")?;
                slots.push(Slot::Value(part(graph, s, index, n)?));
            }
            Ok(slots)
        });
        let Subgraph { mut frame, results } = made?;
        let mut values = vec![];
        for s in results {
            match s {
                Slot::Value(v) => values.push(v),
                _ => return Ok(Err("a state that becomes a sequence".into())),
            }
        }
        let typed = im
            .graph
            .within(&mut frame, |graph| Body::typed(graph, r, &types, values))?;
        let state = arguments.split_off(1);
        Ok(typed.map(|(go, next, rows)| Body {
            frame,
            index: arguments[0],
            state,
            next,
            go,
            rows,
        }))
    }

    /// What a body gives: the condition where it is not always true, the state, with the types that it began with, and the rest.
    #[allow(clippy::type_complexity)]
    fn typed(
        graph: &mut Builder<'_>,
        r: &Repeat<'_>,
        types: &[Type],
        values: Vec<Value>,
    ) -> Result<Result<(Option<Value>, Vec<Value>, Vec<Value>), String>, Fail> {
        let mut values = values.into_iter();
        let mut go = None;
        if r.counted {
            let c = graph.condition(values.next().ok_or("a body without a condition")?)?;
            let always = graph.contents(c).is_some_and(|t| t.get(0).int() != 0);
            go = (!always).then_some(c);
        }
        let mut next = vec![];
        for ty in types {
            let v = values.next().ok_or("a body without the state")?;
            let found = graph.ty(v).clone();
            let changed = || format!("a state that changes from {ty} to {found}");
            if found.dtype != ty.dtype || found.rank() != ty.rank() {
                return Ok(Err(changed()));
            }
            match graph.fit_shape(v, &ty.shape) {
                Ok(v) => next.push(v),
                Err(_) => return Ok(Err(changed())),
            }
        }
        Ok(Ok((go, next, values.collect())))
    }

    /// The type of a result of each iteration that has an extent that only the iteration tells.
    fn late_row(&self) -> Option<Type> {
        let types = self.rows.iter().map(|v| self.frame.graph.ty(*v));
        let mut found = types.filter(|ty| ty.shape.iter().any(|d| late(&self.frame, d)));
        found.next().cloned()
    }

    /// The loop as a `while`.
    fn repeat(
        self,
        im: &mut Importer<'_>,
        r: &Repeat<'_>,
        state: &[Value],
        limit: Option<&Dim>,
    ) -> Result<Vec<Slot>, Fail> {
        let graph = &mut im.graph;
        let begin = r
            .condition
            .filter(|&c| graph.contents(c).is_none_or(|t| t.get(0).int() == 0));
        let conditional = self.go.is_some() || begin.is_some();
        let begin = match begin {
            Some(c) => c,
            None => graph.scalar(DType::Bool, 1),
        };
        let begin = conditional.then_some(begin);
        if !conditional && limit.is_none() && r.limit.is_none() {
            return Err("a loop without a limit and without a condition".into());
        }
        if self.rows.is_empty() {
            let (_, state, _) = self.run(graph, r, begin, state, limit, None)?;
            return Ok(state.into_iter().map(Slot::Value).collect());
        }
        // How many rows there are, or may be.
        let most = match (limit, conditional) {
            (Some(n), false) => n.clone(),
            (Some(n), true) if n.as_const().is_none_or(|n| n <= MOST_ROWS) => n.clone(),
            (None, false) => {
                let zero = graph.scalar(DType::I64, 0);
                let limit = r.limit.ok_or("a loop without a limit")?;
                let trips = graph.map("max", &[limit, zero])?;
                graph.read(trips, None)?
            }
            (_, true) => {
                let (count, ..) = self.run(graph, r, begin, state, limit, None)?;
                graph.read(count, limit.cloned())?
            }
        };
        let (count, state, mut rows) = self.run(graph, r, begin, state, limit, Some(&most))?;
        let count = match conditional {
            true => graph.read(count, Some(most.clone()))?,
            false => most,
        };
        for (v, c) in rows.iter_mut().zip(&r.collected) {
            if graph.shape(*v)[0] != count {
                *v = graph.slice_axis(*v, 0, Dim::ZERO, count.clone())?;
            }
            let axis = node::axis(c.axis, graph.rank(*v))?;
            let mut order: Vec<usize> = (1..graph.rank(*v)).collect();
            order.insert(axis, 0);
            *v = graph.transpose(*v, &order)?;
        }
        Ok(state.into_iter().chain(rows).map(Slot::Value).collect())
    }

    /// The number of iterations, the last state, and what each iteration gives in so many rows, where these are wanted.
    fn run(
        &self,
        graph: &mut Builder<'_>,
        r: &Repeat<'_>,
        begin: Option<Value>,
        state: &[Value],
        limit: Option<&Dim>,
        rows: Option<&Dim>,
    ) -> Result<(Value, Vec<Value>, Vec<Value>), Fail> {
        let mut operands = vec![graph.scalar(DType::I64, 0)];
        operands.extend(begin);
        operands.extend(state);
        let mut body = self.frame.clone();
        let mut arguments = vec![self.index];
        let mut results = vec![];
        let mut rows_of = vec![];
        graph.within(&mut body, |graph| {
            results.push(graph.map_num("add", self.index, 1)?);
            if begin.is_some() {
                arguments.push(graph.argument("go", Type::new(DType::Bool, [])));
                results.push(match self.go {
                    Some(go) => go,
                    None => graph.scalar(DType::Bool, 1),
                });
            }
            arguments.extend(&self.state);
            results.extend(&self.next);
            for ((k, &v), c) in self.rows.iter().enumerate().zip(&r.collected) {
                let Some(n) = rows else { break };
                let mut ty = graph.ty(v).clone();
                ty.shape.insert(0, n.clone());
                let all = graph.argument(&format!("y{k}"), ty.clone());
                rows_of.push(ty);
                arguments.push(all);
                let at = position(graph, self.index, n, c.backward)?;
                let at = graph.reshape(at, vec![Dim::ONE])?;
                results.push(graph.op("scatter_nd", &[Attr::word("none")], &[all, at, v])?);
            }
            Ok(())
        })?;
        for ty in rows_of {
            operands.push(graph.splat(ty.dtype, &ty.shape, 0)?);
        }

        let mut cond = Frame::new("cond");
        let types: Vec<Type> = operands.iter().map(|v| graph.ty(*v).clone()).collect();
        let (given, test) = graph.within(&mut cond, |graph| {
            let named = |(k, t): (usize, Type)| graph.argument(&format!("a{k}"), t);
            let given: Vec<Value> = types.into_iter().enumerate().map(named).collect();
            let most = match (limit, r.limit) {
                (Some(d), _) => Some(graph.dim_scalar(d, DType::I64)?),
                (None, Some(m)) => {
                    let depth = graph.depth() - 1;
                    let m = graph.capture(m, depth);
                    Some(graph.cast(m, DType::I64)?)
                }
                (None, None) => None,
            };
            let more = most.map(|m| graph.map("less", &[given[0], m])).transpose()?;
            let go = begin.map(|_| given[1]);
            let test = match (go, more) {
                (Some(go), Some(more)) => graph.map("and", &[go, more])?,
                (Some(v), None) | (None, Some(v)) => v,
                (None, None) => return Err("a loop without an end".into()),
            };
            Ok((given, test))
        })?;

        let captures = union(&[&cond, &body]);
        let types: Vec<Type> = captures.iter().map(|v| graph.ty(*v).clone()).collect();
        let cond = region(&cond, &given, &[test], &captures, &types);
        let mut body = region(&body, &arguments, &results, &captures, &types);
        if rows.is_none() {
            // The same body may follow, with rows.
            body = graph.copied(&body)?;
        }
        let region = |g: Graph| Region::new(g).map(Attr::Region).map_err(|e| e.to_string());
        let attrs = [region(cond)?, region(body)?];
        operands.extend(&captures);
        let mut out = graph.unfolded_ops("while", &attrs, &operands)?.into_iter();
        let count = out.next().ok_or("a loop without a count")?;
        let mut out = out.skip(begin.is_some() as usize);
        let last = out.by_ref().take(state.len()).collect();
        Ok((count, last, out.collect()))
    }
}

/// What graphs have of the one around them.
fn union(frames: &[&Frame]) -> Vec<Value> {
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
