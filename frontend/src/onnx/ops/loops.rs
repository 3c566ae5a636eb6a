//! What becomes a `while` of the IR, `Loop` and `Scan`.
//!
//! A loop whose state has other shapes, or more tensors, in every iteration is written out, where the number of iterations is known. State
//! that an iteration gives on as it got it is none: the body captures it, and constants stay constants.
//!
//! ```text
//! Loop(m, true, v, body: (i, c, v) -> (c, v', y))  -->  %0, %v', %ys = while{
//!                                                          cond: i < m
//!                                                          body: i + 1, v', ys with y at i
//!                                                        }(0, v, zeros[m, …])
//! ```

mod body;
mod trips;

use super::super::region::{Frame, region};
use super::control::{Subgraph, late, subgraph, union};
use super::*;
use body::Body;
use brolga_ir::ops::Region;
use brolga_ir::{Attr, DType, Dim, Graph, Type};
use onnx_protobuf::GraphProto;

/// Nodes that a loop may become where it is written out.
const MOST_NODES: i64 = 100_000;

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
    /// Which of the state every iteration gives on as it got it.
    held: Vec<bool>,
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

/// `Loop`.
pub fn loop_<'m>(im: &mut Importer<'m>, ctx: &NodeCtx<'m>, slots: &[Slot]) -> Result<Vec<Slot>, Fail> {
    let body = ctx.graph("body")?;
    let state: Vec<Slot> = slots.iter().skip(2).copied().collect();
    let held = held(body, true, state.len());
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
            held,
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
        held: held(body, false, state.len()),
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
    let changing = r.state.iter().zip(&r.held).filter(|(_, held)| !**held);
    let values: Option<Vec<Value>> = changing
        .map(|(s, _)| if let Slot::Value(v) = s { Some(*v) } else { None })
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
            None => {
                let mut last = body.repeat(im, &r, &values, limit)?.into_iter();
                let state = r.state.iter().zip(&r.held);
                let mut out: Vec<Slot> = state
                    .filter_map(|(s, held)| if *held { Some(*s) } else { last.next() })
                    .collect();
                out.extend(last);
                return Ok(out);
            }
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

/// Which of a body's state is its result as it came, maybe through `Identity`.
fn held(body: &GraphProto, counted: bool, states: usize) -> Vec<bool> {
    let of = |k: usize| {
        let given = &body.input.get(k + 2 * counted as usize)?.name;
        let mut name = &body.output.get(k + counted as usize)?.name;
        for _ in 0..=body.node.len() {
            if name == given {
                return Some(true);
            }
            let made = body.node.iter().find(|n| n.output.first() == Some(name))?;
            let same = made.op_type == "Identity" && domain(&made.domain).is_empty();
            name = made.input.first().filter(|_| same)?;
        }
        None
    };
    (0..states).map(|k| of(k).is_some()).collect()
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
