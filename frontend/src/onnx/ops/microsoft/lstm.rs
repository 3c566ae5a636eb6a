//! `DynamicQuantizeLSTM`: a layer whose products are of bytes, as ONNX Runtime computes it. The whole input becomes u8 by its range, and so
//! does the state of every step, the batch together; sums of products are exact, and scaled in f32.
//!
//! It is a loop of the program: the range of a state is known only when the step before is done. ONNX Runtime shares a batch out over its
//! threads and takes the range of each share; this one never does, and so gives the same results with any number of threads. As there, a
//! sequence that has ended takes part in the range of one more step, and then counts as zeros.

use super::*;
use brolga_ir::ops::Region;
use brolga_ir::{Attr, Build, DType, Dim, Graph, GraphBuilder, Number, Op, Type};

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
    let all = [time.clone(), h[0].clone(), h[1].clone()];
    let first = graph.scalar(DType::I64, 0);
    let rows = graph.splat(DType::F32, &all, 0.0)?;
    let mut operands = vec![first, rows, states[0], states[1]];
    operands.extend([given.x, given.r, given.r_scale, given.r_zero, given.r_sum]);
    operands.extend(given.p);
    operands.extend(given.lengths);
    let types: Vec<Type> = operands.iter().map(|&v| graph.ty(v).clone()).collect();
    let cond = region("steps_left", &types, |b, v| {
        let end = number(b, time)?;
        Ok(vec![b.call("less", &[], &[v[0], end])?])
    })?;
    let body = region("step", &types, |b, v| {
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
        step(b, cell, &own, [v[0], v[1], v[2], v[3]], time)
    })?;
    let out = graph.ops("while", &[Attr::Region(cond), Attr::Region(body)], &operands)?;
    Ok([out[1], out[2], out[3]])
}

/// A step: its number, the rows so far, and both states go in and come out.
fn step(
    b: &mut dyn Build,
    cell: &Cell,
    given: &Direction,
    state: [Value; 4],
    time: &Dim,
) -> Result<Vec<Value>, String> {
    let [at, rows, h, c] = state;
    let plane = b.type_of(h).shape;
    let hidden = plane[1].clone();
    let columns = &hidden * 4;
    let wide = [plane[0].clone(), columns.clone()];
    let mut row = at;
    if cell.reverse {
        let last = number(b, &(time - 1))?;
        row = b.call("sub", &[], &[last, at])?;
    }
    let running = |b: &mut dyn Build, test: &str, lengths: Value| {
        let shape = b.type_of(lengths).shape;
        let now = b.spread(row, &shape)?;
        let inside = b.call(test, &[], &[lengths, now])?;
        let inside = b.reshaped(inside, &[plane[0].clone(), Dim::ONE])?;
        b.spread(inside, &plane)
    };
    let inside = given.lengths.map(|l| running(b, "greater", l)).transpose()?;
    let zeros = b.splat(DType::F32, &plane, 0.0)?;
    let seen = match given.lengths {
        Some(lengths) if cell.shows => {
            let inside = running(b, "greater_or_equal", lengths)?;
            b.call("where", &[], &[inside, h, zeros])?
        }
        _ => h,
    };
    let bytes = b.add(Op::new("dynamic_quantize", &[])?, &[seen])?;
    let attrs = [
        Attr::ints(&[]),
        Attr::ints(&[]),
        Attr::ints(&[1]),
        Attr::ints(&[0]),
        Attr::DType(DType::I32),
        Attr::DType(DType::I32),
    ];
    let mut u = b.call("contract", &attrs, &[bytes[0], given.r])?;
    // What zero points add to it.
    let spread_to = |b: &mut dyn Build, v: Value| b.spread(v, &wide);
    let to_i32 = |b: &mut dyn Build, v: Value| b.call("cast", &[Attr::DType(DType::I32)], &[v]);
    let zero = to_i32(b, bytes[2])?;
    let (zero, sums) = (spread_to(b, zero)?, spread_to(b, given.r_sum)?);
    let taken = b.call("mul", &[], &[zero, sums])?;
    u = b.call("sub", &[], &[u, taken])?;
    let own = to_i32(b, bytes[0])?;
    let own = b.call("reduce", &[Attr::word("sum"), Attr::ints(&[1])], &[own])?;
    let (own, zero) = (spread_to(b, own)?, spread_to(b, given.r_zero)?);
    let taken = b.call("mul", &[], &[own, zero])?;
    u = b.call("sub", &[], &[u, taken])?;
    let u = b.call("cast", &[Attr::DType(DType::F32)], &[u])?;
    let scales = b.type_of(given.r_scale).shape;
    let scale = b.spread(bytes[1], &scales)?;
    let scale = b.call("mul", &[], &[scale, given.r_scale])?;
    let scale = spread_to(b, scale)?;
    let u = b.call("mul", &[], &[u, scale])?;
    let x = b.call("gather", &[Attr::Int(0)], &[given.x, row])?;
    let all = b.call("add", &[], &[x, u])?;
    let slice = |b: &mut dyn Build, v: Value, axis: usize, first: Dim| {
        let mut sizes = b.type_of(v).shape;
        let (mut starts, steps) = (vec![Dim::ZERO; sizes.len()], vec![1; sizes.len()]);
        (starts[axis], sizes[axis]) = (first, hidden.clone());
        b.call(
            "slice",
            &[Attr::Dims(starts), Attr::Dims(sizes), Attr::Ints(steps)],
            &[v],
        )
    };
    let number_like = |b: &mut dyn Build, x: f64| b.splat(DType::F32, &plane, x);
    // A gate: what peepholes see of a cell state, bounds, the function.
    let gate = |b: &mut dyn Build, k: i64, peep: Option<(i64, Value)>, f: &str| {
        let mut v = slice(b, all, 1, &hidden * k)?;
        if let (Some((i, c)), Some(p)) = (peep, given.p) {
            let p = slice(b, p, 0, &hidden * i)?;
            let p = b.spread(p, &plane)?;
            let p = b.call("mul", &[], &[p, c])?;
            v = b.call("add", &[], &[v, p])?;
        }
        if let Some(clip) = cell.clip {
            let (low, high) = (number_like(b, -clip)?, number_like(b, clip)?);
            v = b.call("max", &[], &[v, low])?;
            v = b.call("min", &[], &[v, high])?;
        }
        b.call(f, &[], &[v])
    };
    let [f, g, out] = cell.functions;
    let i = gate(b, 0, Some((0, c)), f)?;
    let forget = match cell.input_forget {
        true => {
            let one = number_like(b, 1.0)?;
            b.call("sub", &[], &[one, i])?
        }
        false => gate(b, 2, Some((2, c)), f)?,
    };
    let candidate = gate(b, 3, None, g)?;
    let (kept, new) = (b.call("mul", &[], &[forget, c])?, b.call("mul", &[], &[i, candidate])?);
    let mut next_c = b.call("add", &[], &[kept, new])?;
    let o = gate(b, 1, Some((1, next_c)), f)?;
    let shown = b.call(out, &[], &[next_c])?;
    let mut next_h = b.call("mul", &[], &[o, shown])?;
    let mut shown = next_h;
    if let Some(inside) = inside {
        shown = b.call("where", &[], &[inside, next_h, zeros])?;
        next_h = b.call("where", &[], &[inside, next_h, h])?;
        next_c = b.call("where", &[], &[inside, next_c, c])?;
    }
    let place = b.reshaped(row, &[Dim::ONE, Dim::ONE])?;
    let shown = b.reshaped(shown, &[&[Dim::ONE][..], &plane].concat())?;
    let rows = b.call("scatter_nd", &[Attr::word("none")], &[rows, place, shown])?;
    let one = b.scalar(DType::I64, Number::Int(1));
    let next = b.call("add", &[], &[at, one])?;
    Ok(vec![next, rows, next_h, next_c])
}

/// A dim as a value of rank 0.
fn number(b: &mut dyn Build, d: &Dim) -> Result<Value, String> {
    if let Some(n) = d.as_const() {
        return Ok(b.scalar(DType::I64, Number::Int(n.into())));
    }
    let v = b.call("dims", &[Attr::Dims(vec![d.clone()])], &[])?;
    b.reshaped(v, &[])
}

/// A region over inputs of these types.
fn region(
    name: &str,
    types: &[Type],
    build: impl FnOnce(&mut dyn Build, &[Value]) -> Result<Vec<Value>, String>,
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
