//! `DynamicQuantizeLSTM`: a layer whose products are of bytes, as ONNX Runtime computes it. The whole input becomes u8 by its range, and so
//! does the state of every step, the batch together; sums of products are exact, and scaled in f32.
//!
//! It is a loop of the program: the range of a state is known only when the step before is done. ONNX Runtime shares a batch out over its
//! threads and takes the range of each share; this one never does, and so gives the same results with any number of threads. As there, a
//! sequence that has ended takes part in the range of one more step, and then counts as zeros.

use super::*;
use brolga_ir::{Attr, DType, Dim};

/// The names of the cell's activations that take no parameters, by ONNX's names.
const FUNCTIONS: [(&str, &str); 5] = [
    ("relu", "relu"),
    ("sigmoid", "sigmoid"),
    ("softplus", "softplus"),
    ("softsign", "softsign"),
    ("tanh", "tanh"),
];

/// The attributes of a direction.
struct Cell {
    functions: [&'static str; 3],
    clip: Option<f64>,
    input_forget: bool,
    /// Steps run against time.
    reverse: bool,
    /// All states are a result.
    shows: bool,
}

/// What a direction reads in every step, in this order, and the state that goes around.
struct Direction {
    /// Products of the input `[time, batch, 4 hidden]`, with biases.
    x: Value,
    /// `[hidden, 4 hidden]` bytes.
    r: Value,
    /// `[4 hidden]`, or `[1]`.
    r_scale: Value,
    /// What the zero point of the weights is, `[4 hidden]` or `[1]`, in i32.
    r_zero: Value,
    /// Sums of the weights less their zero points, `[4 hidden]` in i32.
    r_sum: Value,
    /// `[3 hidden]`.
    p: Option<Value>,
    lengths: Option<Value>,
}

/// `DynamicQuantizeLSTM`.
pub fn lstm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(12, 12)?;
    let directions: &[bool] = match ctx.string("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        d => {
            return Err(Fail::Bad(format!(
                "direction `{d}`, expected forward, reverse or bidirectional"
            )));
        }
    };
    let (x, w, r) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    for (v, name) in [(x, "X"), (w, "W"), (r, "R")] {
        if graph.rank(v) != 3 {
            return Err(Fail::Bad(format!("{name} is {}, expected rank 3", graph.ty(v))));
        }
    }
    let x = graph.as_wide(x, &graph.shape(w)[1].clone())?;
    let [time, batch, width] = [0, 1, 2].map(|a| graph.shape(x)[a].clone());
    let hidden = graph.shape(r)[1].clone();
    let (d, columns) = (Dim::from(directions.len()), &hidden * 4);
    let w = graph.fit_shape(w, &[d.clone(), width, columns.clone()])?;
    let r = graph.fit_shape(r, &[d.clone(), hidden.clone(), columns.clone()])?;
    let functions = functions(ctx, directions.len())?;
    let lengths = match ctx.optional(4) {
        Some(v) => {
            let v = graph.fit_shape(v, std::slice::from_ref(&batch))?;
            Some(graph.cast(v, DType::I64)?)
        }
        None => None,
    };
    // What no sequence reaches has no part in the range.
    let mut reached = x;
    let mut backwards = None;
    if let Some(lengths) = lengths {
        let longest = graph.reduce("max", &[0], lengths)?;
        let longest = graph.reshape(longest, vec![])?;
        let at = graph.iota(DType::I64, &[time.clone(), Dim::ONE, Dim::ONE], 0)?;
        let there = graph.map("less", &[at, longest])?;
        let zero = graph.scalar(DType::F32, 0.0);
        reached = graph.map("where", &[there, x, zero])?;
        backwards = Some(turned_places(graph, lengths, &time, &batch)?);
    }
    let bytes = graph.ops("dynamic_quantize", &[], &[reached])?;
    let mut sides: Vec<[Value; 3]> = vec![];
    for (i, &reverse) in directions.iter().enumerate() {
        let own = |graph: &mut Builder<'_>, v: Value| {
            if graph.rank(v) == 0 {
                return Err(Fail::Bad(format!(
                    "a parameter {}, expected one a direction",
                    graph.ty(v)
                )));
            }
            let v = graph.slice_axis(v, 0, Dim::from(i), Dim::ONE)?;
            let rest = graph.shape(v)[1..].to_vec();
            graph.reshape(v, rest)
        };
        let cell = Cell {
            functions: functions[i],
            clip: ctx.opt_float("clip")?.filter(|c| c.is_finite()),
            input_forget: ctx.flag("input_forget", false)?,
            reverse: reverse && lengths.is_none(),
            shows: ctx.wants(0),
        };
        let backwards = backwards.filter(|_| reverse);
        let parameter = |graph: &mut Builder<'_>, at: usize| {
            let v = own(graph, ctx.input(at)?)?;
            let n = graph.ty(v).len();
            graph.reshape(v, vec![n])
        };
        let w = own(graph, w)?;
        let (w_scale, w_zero) = (parameter(graph, 8)?, parameter(graph, 9)?);
        let product = graph.matmul_bytes([(bytes[0], Some(bytes[2])), (w, Some(w_zero))])?;
        let scale = graph.map("mul", &[bytes[1], w_scale])?;
        let mut product = graph.scaled(product, scale, None)?;
        if let Some(b) = ctx.optional(3) {
            let b = graph.fit_shape(b, &[d.clone(), &columns * 2])?;
            let b = own(graph, b)?;
            let halves = [Dim::ZERO, columns.clone()].map(|first| graph.slice_axis(b, 0, first, columns.clone()));
            let [of_input, of_state] = halves;
            let b = graph.map("add", &[of_input?, of_state?])?;
            product = graph.map("add", &[product, b])?;
        }
        if let Some(places) = backwards {
            product = turned(graph, product, places)?;
        }
        let r = own(graph, r)?;
        let r_zero = parameter(graph, 11)?;
        let given = Direction {
            x: product,
            r: graph.signed(r)?,
            r_scale: parameter(graph, 10)?,
            r_zero: {
                let z = graph.signed(r_zero)?;
                graph.cast(z, DType::I32)?
            },
            r_sum: {
                let (wide, z) = (graph.cast(r, DType::I32)?, graph.cast(r_zero, DType::I32)?);
                let less = graph.map("sub", &[wide, z])?;
                let sum = graph.reduce("sum", &[0], less)?;
                graph.reshape(sum, vec![columns.clone()])?
            },
            p: match ctx.optional(7) {
                Some(p) => {
                    let p = graph.fit_shape(p, &[d.clone(), &hidden * 3])?;
                    Some(own(graph, p)?)
                }
                None => None,
            },
            lengths,
        };
        let mut states = vec![];
        for at in [5, 6] {
            let shape = [d.clone(), batch.clone(), hidden.clone()];
            states.push(match ctx.optional(at) {
                Some(v) => {
                    let v = graph.fit_shape(v, &shape)?;
                    own(graph, v)?
                }
                None => graph.splat(DType::F32, &shape[1..], 0.0)?,
            });
        }
        let mut results = steps(graph, &cell, &given, [states[0], states[1]], &time)?;
        if let Some(places) = backwards {
            results[0] = turned(graph, results[0], places)?;
        }
        sides.push(results);
    }
    let mut out = vec![];
    for (i, axis) in [(0, 1), (1, 0), (2, 0)] {
        let mut parts = vec![];
        for side in &sides {
            parts.push(graph.unsqueeze(side[i], &[axis])?);
        }
        out.push(graph.concat(axis, &parts)?);
    }
    Ok(out)
}

/// Where each step of each sequence is when the sequences are turned around within their lengths: `[time, batch, 1]`.
fn turned_places(graph: &mut Builder<'_>, lengths: Value, time: &Dim, batch: &Dim) -> One {
    let at = graph.iota(DType::I64, &[time.clone(), batch.clone()], 0)?;
    let last = graph.map_num("sub", lengths, 1)?;
    let back = graph.map("sub", &[last, at])?;
    let inside = graph.map("less", &[at, lengths])?;
    let place = graph.map("where", &[inside, back, at])?;
    graph.unsqueeze(place, &[2])
}

/// Sequences turned around.
fn turned(graph: &mut Builder<'_>, v: Value, places: Value) -> One {
    let shape = graph.shape(v);
    let places = graph.spread(places, &shape)?;
    graph.op("gather_elements", &[Attr::Int(0)], &[v, places])
}

/// The activations of each direction.
fn functions(ctx: &NodeCtx<'_>, directions: usize) -> Result<Vec<[&'static str; 3]>, Fail> {
    let usual = ["Sigmoid", "Tanh", "Tanh"].repeat(directions);
    let names = ctx.strings("activations")?.unwrap_or(usual);
    if names.len() != 3 * directions {
        return Err(Fail::Bad(format!(
            "{} activations, expected {}",
            names.len(),
            3 * directions
        )));
    }
    let function = |name: &str| {
        let low = name.to_lowercase();
        let found = FUNCTIONS.iter().find(|(n, _)| *n == low);
        found
            .map(|(_, f)| *f)
            .ok_or_else(|| Fail::Unsupported(format!("the activation `{name}`")))
    };
    let one = |c: &[&str]| Ok([function(c[0])?, function(c[1])?, function(c[2])?]);
    names.chunks(3).map(one).collect()
}

impl Builder<'_> {
    /// Bytes as i8, 128 less where they are u8.
    ///
    /// # Errors
    /// When they are no bytes.
    fn signed(&mut self, v: Value) -> One {
        match self.dtype(v) {
            DType::I8 => Ok(v),
            DType::U8 => {
                let v = self.cast(v, DType::I8)?;
                self.map_num("add", v, -128)
            }
            _ => Err(Fail::Bad(format!("weights {}, expected u8 or i8", self.ty(v)))),
        }
    }
}

/// The steps of a direction: `[time, batch, hidden]` and the last states.
fn steps(
    graph: &mut Builder<'_>,
    cell: &Cell,
    given: &Direction,
    states: [Value; 2],
    time: &Dim,
) -> Result<[Value; 3], Fail> {
    let h = graph.shape(states[0]);
    let rows = graph.splat(DType::F32, &[time.clone(), h[0].clone(), h[1].clone()], 0.0)?;
    let state = [graph.scalar(DType::I64, 0), rows, states[0], states[1]];
    let mut captures = vec![given.x, given.r, given.r_scale, given.r_zero, given.r_sum];
    captures.extend(given.p);
    captures.extend(given.lengths);
    let out = graph.repeat_while(
        &state,
        &captures,
        |graph, v| {
            let end = graph.dim_scalar(time, DType::I64)?;
            graph.map("less", &[v[0], end])
        },
        |graph, v| {
            let mut rest = v[9..].iter().copied();
            let own = Direction {
                x: v[4],
                r: v[5],
                r_scale: v[6],
                r_zero: v[7],
                r_sum: v[8],
                p: given.p.and_then(|_| rest.next()),
                lengths: given.lengths.and_then(|_| rest.next()),
            };
            step(graph, cell, &own, [v[0], v[1], v[2], v[3]], time)
        },
    )?;
    Ok([out[1], out[2], out[3]])
}

/// A step: its number, the rows so far, and both states go in and come out.
fn step(graph: &mut Builder<'_>, cell: &Cell, given: &Direction, state: [Value; 4], time: &Dim) -> Outcome {
    let [at, rows, h, c] = state;
    let plane = graph.shape(h);
    let hidden = plane[1].clone();
    let mut row = at;
    if cell.reverse {
        let last = graph.dim_scalar(&(time - 1), DType::I64)?;
        row = graph.map("sub", &[last, at])?;
    }
    let running = |graph: &mut Builder<'_>, test: &str| {
        let inside = given.lengths.map(|lengths| {
            let inside = graph.map(test, &[lengths, row])?;
            graph.unsqueeze(inside, &[1])
        });
        inside.transpose()
    };
    let inside = running(graph, "greater")?;
    let zero = graph.scalar(DType::F32, 0.0);
    let seen = match running(graph, "greater_or_equal")? {
        Some(inside) if cell.shows => graph.map("where", &[inside, h, zero])?,
        _ => h,
    };
    let bytes = graph.ops("dynamic_quantize", &[], &[seen])?;
    let mut u = graph.contract_to(DType::I32, bytes[0], given.r, [&[], &[]], [&[1], &[0]])?;
    // What zero points add to it.
    let zero_point = graph.cast(bytes[2], DType::I32)?;
    let taken = graph.map("mul", &[zero_point, given.r_sum])?;
    u = graph.map("sub", &[u, taken])?;
    let own = graph.cast(bytes[0], DType::I32)?;
    let own = graph.reduce("sum", &[1], own)?;
    let taken = graph.map("mul", &[own, given.r_zero])?;
    u = graph.map("sub", &[u, taken])?;
    let scale = graph.map("mul", &[bytes[1], given.r_scale])?;
    let u = graph.scaled(u, scale, None)?;
    let x = graph.gather(0, given.x, row)?;
    let all = graph.map("add", &[x, u])?;
    // A gate: what peepholes see of a cell state, bounds, the function.
    let gate = |graph: &mut Builder<'_>, k: i64, peep: Option<(i64, Value)>, f: &str| {
        let mut v = graph.slice_axis(all, 1, &hidden * k, hidden.clone())?;
        if let (Some((i, c)), Some(p)) = (peep, given.p) {
            let p = graph.slice_axis(p, 0, &hidden * i, hidden.clone())?;
            let p = graph.map("mul", &[p, c])?;
            v = graph.map("add", &[v, p])?;
        }
        if let Some(clip) = cell.clip {
            v = graph.map_num("max", v, -clip)?;
            v = graph.map_num("min", v, clip)?;
        }
        graph.op(f, &[], &[v])
    };
    let [f, g, out] = cell.functions;
    let i = gate(graph, 0, Some((0, c)), f)?;
    let forget = match cell.input_forget {
        true => {
            let whole = graph.scalar(DType::F32, 1.0);
            graph.map("sub", &[whole, i])?
        }
        false => gate(graph, 2, Some((2, c)), f)?,
    };
    let candidate = gate(graph, 3, None, g)?;
    let kept = graph.map("mul", &[forget, c])?;
    let new = graph.map("mul", &[i, candidate])?;
    let mut next_c = graph.map("add", &[kept, new])?;
    let o = gate(graph, 1, Some((1, next_c)), f)?;
    let of_cell = graph.op(out, &[], &[next_c])?;
    let mut next_h = graph.map("mul", &[o, of_cell])?;
    let mut shown = next_h;
    if let Some(inside) = inside {
        shown = graph.map("where", &[inside, next_h, zero])?;
        next_h = graph.map("where", &[inside, next_h, h])?;
        next_c = graph.map("where", &[inside, next_c, c])?;
    }
    let place = graph.unsqueeze(row, &[0, 1])?;
    let shown = graph.unsqueeze(shown, &[0])?;
    let rows = graph.op("scatter_nd", &[Attr::word("none")], &[rows, place, shown])?;
    let next = graph.map_num("add", at, 1)?;
    Ok(vec![next, rows, next_h, next_c])
}
