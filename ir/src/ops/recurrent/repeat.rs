//! The steps of a layer as a `while`, one of its iterations a step.

use super::calls::Tensors;
use super::cell::Elements;
use super::{Direction, Layer};
use crate::ops::{Attr, Region, compose};
use crate::{Build, DType, Dim, Graph, GraphBuilder, Number, Type, Value};

/// The operands of the steps by their use.
struct Given {
    x: Value,
    r: Value,
    p: Option<Value>,
    rb: Option<Value>,
    lengths: Option<Value>,
}

impl Given {
    /// Of the operands of `recurrence` without its states.
    fn of(layer: &Layer, all: &[Value]) -> Given {
        let mut rest = all[2..].iter().copied();
        let mut next = |there: bool| if there { rest.next() } else { None };
        Given {
            x: all[0],
            r: all[1],
            p: next(layer.cell.has_peepholes()),
            rb: next(layer.cell.has_inner_bias()),
            lengths: next(layer.lengths),
        }
    }
}

/// The results of the steps, by a loop over time.
///
/// # Errors
/// Never when the operands are those of `recurrence`.
pub fn repeat(layer: &Layer, b: &mut dyn Build, inputs: &[Value]) -> Result<Vec<Value>, String> {
    let states = layer.cell.states();
    let (x, h0) = (b.type_of(inputs[0]), b.type_of(inputs[2]));
    let (time, batch, hidden) = (x.shape[0].clone(), x.shape[1].clone(), h0.shape[2].clone());
    let y = layer.results(x.dtype, &time, &batch, &hidden).remove(0);
    if time.is(0) {
        let empty = b.splat(y.dtype, &y.shape, 0.0)?;
        return Ok([empty]
            .into_iter()
            .chain(inputs[2..2 + states].iter().copied())
            .collect());
    }
    // The state of the loop: the step, the results so far, the states of the cell.
    let first = b.scalar(DType::I64, Number::Int(0));
    let mut operands = vec![first, b.splat(y.dtype, &y.shape, 0.0)?];
    operands.extend(&inputs[2..2 + states]);
    operands.extend([inputs[0], inputs[1]]);
    operands.extend(&inputs[2 + states..]);
    let types: Vec<Type> = operands.iter().map(|&v| b.type_of(v)).collect();
    let cond = region("steps_left", &types, &mut |b, v| {
        let end = number(b, &time)?;
        Ok(vec![compose::map(b, "less", &[v[0], end])?])
    })?;
    let body = region("step", &types, &mut |b, v| {
        let (step, y, h) = (v[0], v[1], &v[2..2 + states]);
        let given = Given::of(layer, &v[2 + states..]);
        let mut after: Vec<Vec<Value>> = vec![vec![]; states];
        let mut y = y;
        for d in 0..layer.directions() {
            let mut at = step;
            if layer.direction == Direction::Reverse || d == 1 {
                let last = number(b, &(&time - 1))?;
                at = compose::map(b, "sub", &[last, step])?;
            }
            let new = direction(layer, b, &given, h, d, at)?;
            let d = b.scalar(DType::I64, Number::Int(d as i128));
            let (row, column) = (
                b.reshaped(at, &[Dim::ONE, Dim::ONE])?,
                b.reshaped(d, &[Dim::ONE, Dim::ONE])?,
            );
            let place = b.call("concat", &[Attr::Int(1)], &[row, column])?;
            let shown = b.reshaped(new.shown, &[Dim::ONE, batch.clone(), hidden.clone()])?;
            y = b.call("scatter_nd", &[Attr::word("none")], &[y, place, shown])?;
            for (all, state) in after.iter_mut().zip(new.states) {
                all.push(b.reshaped(state, &[Dim::ONE, batch.clone(), hidden.clone()])?);
            }
        }
        let one = b.scalar(DType::I64, Number::Int(1));
        let mut out = vec![compose::map(b, "add", &[step, one])?, y];
        for all in after {
            out.push(match all[..] {
                [one] => one,
                _ => b.call("concat", &[Attr::Int(0)], &all)?,
            });
        }
        Ok(out)
    })?;
    let repeated = crate::Op::new("while", &[Attr::Region(cond), Attr::Region(body)])?;
    Ok(b.add(repeated, &operands)?.split_off(1))
}

/// What a step gives in one direction.
struct Step {
    states: Vec<Value>,
    /// The row of `y`.
    shown: Value,
}

/// A step in one direction, `[B, H]` throughout.
fn direction(
    layer: &Layer,
    b: &mut dyn Build,
    given: &Given,
    states: &[Value],
    d: usize,
    at: Value,
) -> Result<Step, String> {
    let shape = b.type_of(states[0]).shape;
    let (batch, hidden) = (shape[1].clone(), shape[2].clone());
    let gates = layer.cell.gates();
    let rows = &hidden * gates as i64;
    let plane = [batch.clone(), hidden.clone()];
    // A part of one direction's share of an operand.
    let part = |b: &mut dyn Build, v: Value, axis: usize, first: Dim, count: &Dim| {
        let mut sizes = b.type_of(v).shape;
        let mut starts = vec![Dim::ZERO; sizes.len()];
        let steps = vec![1; sizes.len()];
        (starts[axis], sizes[axis]) = (first, count.clone());
        b.call(
            "slice",
            &[Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)],
            &[v],
        )
    };
    let own = |b: &mut dyn Build, v: Value| {
        let mut shape = b.type_of(v).shape;
        shape.remove(0);
        let v = part(b, v, 0, Dim::from(d), &Dim::ONE)?;
        b.reshaped(v, &shape)
    };
    let row = b.call("gather", &[Attr::Int(0)], &[given.x, at])?;
    let mut x = vec![];
    for g in 0..gates {
        x.push(part(b, row, 1, &(&rows * d as i64) + &(&hidden * g as i64), &hidden)?);
    }
    let state: Vec<Value> = states.iter().map(|&s| own(b, s)).collect::<Result<_, _>>()?;
    let r = own(b, given.r)?;
    let product = |b: &mut dyn Build, of: Value, gates: super::cell::Gates| {
        let r = part(b, r, 0, &hidden * gates.first as i64, &(&hidden * gates.count as i64))?;
        let dtype = b.type_of(of).dtype;
        let attrs = [
            Attr::ints(&[]),
            Attr::ints(&[]),
            Attr::ints(&[1]),
            Attr::ints(&[1]),
            Attr::DType(dtype),
            Attr::DType(dtype),
        ];
        let all = b.call("contract", &attrs, &[of, r])?;
        let each = (0..gates.count).map(|k| part(b, all, 1, &hidden * k as i64, &hidden));
        each.collect::<Result<Vec<Value>, String>>()
    };
    let mut p = vec![];
    if let Some(all) = given.p {
        let all = own(b, all)?;
        for k in 0..3 {
            let one = part(b, all, 0, &hidden * k as i64, &hidden)?;
            p.push(b.spread(one, &plane)?);
        }
    }
    let rb = match given.rb {
        Some(rb) => {
            let rb = own(b, rb)?;
            Some(b.spread(rb, &plane)?)
        }
        None => None,
    };
    let mut e = Elements {
        u: product(b, state[0], layer.cell.first_product())?,
        x,
        state,
        p,
        rb,
    };
    let mut z = None;
    if let Some(gates) = layer.cell.second_product() {
        let [update, reset] = layer.reset(&mut Tensors(b), &e)?;
        z = Some(update);
        e.u = product(b, reset, gates)?;
    }
    let mut new = layer.step(&mut Tensors(b), &e, z)?;
    let mut shown = new[0];
    if let Some(lengths) = given.lengths {
        let inside = compose::with_spread(b, "greater", lengths, at)?;
        let inside = b.reshaped(inside, &[batch.clone(), Dim::ONE])?;
        let inside = b.spread(inside, &plane)?;
        let zero = b.splat(b.type_of(shown).dtype, &plane, 0.0)?;
        shown = compose::map(b, "where", &[inside, shown, zero])?;
        for (new, old) in new.iter_mut().zip(&e.state) {
            *new = compose::map(b, "where", &[inside, *new, *old])?;
        }
    }
    Ok(Step { states: new, shown })
}

/// A dim as a value of rank 0.
fn number(b: &mut dyn Build, d: &Dim) -> Result<Value, String> {
    if let Some(n) = d.as_const() {
        return Ok(b.scalar(DType::I64, Number::Int(n.into())));
    }
    let v = b.call("dims", &[Attr::Dims(vec![d.clone()])], &[])?;
    b.reshaped(v, &[])
}

type Results = Result<Vec<Value>, String>;

/// A region over inputs of these types.
fn region(
    name: &str,
    types: &[Type],
    build: &mut dyn FnMut(&mut dyn Build, &[Value]) -> Results,
) -> Result<Region, String> {
    let mut graph = Graph::new(name);
    let inputs: Vec<Value> = (0..)
        .zip(types)
        .map(|(i, t)| graph.input(&format!("v{i}"), t.clone()))
        .collect();
    let mut b = GraphBuilder {
        graph: &mut graph,
        origin: "".into(),
    };
    let outputs = build(&mut b, &inputs)?;
    graph.outputs = (0..).zip(outputs).map(|(i, v)| (format!("r{i}"), v)).collect();
    Region::new(graph).map_err(|e| e.to_string())
}
