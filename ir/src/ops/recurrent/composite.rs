//! What the operators of whole layers share: types, evaluation and decomposition, by their cell. The product of all inputs with
//! their weights is one contraction in front of the steps.

use super::super::{Attr, Op, compose, shape};
use super::{ACTIVATIONS, Cell, Layer, Operands, steps};
use crate::{Build, DType, Dim, Number, Tensor, Type, Value};

/// Operands of a layer, in order.
struct Inputs<'a, T> {
    x: &'a T,
    w: &'a T,
    r: &'a T,
    b: &'a T,
    /// h0, then c0.
    states: &'a [T],
    p: Option<&'a T>,
    lengths: Option<&'a T>,
}

impl<'a, T> Inputs<'a, T> {
    fn of(layer: &Layer, all: &'a [T]) -> Result<Inputs<'a, T>, String> {
        let peepholes = layer.cell.has_peepholes();
        let (states, before) = (layer.cell.states(), 4);
        let want = before + states + usize::from(peepholes) + usize::from(layer.lengths);
        if all.len() != want {
            return Err(format!("{} operands, expected {want}", all.len()));
        }
        let mut rest = all[before + states..].iter();
        Ok(Inputs {
            x: &all[0],
            w: &all[1],
            r: &all[2],
            b: &all[3],
            states: &all[before..before + states],
            p: if peepholes { rest.next() } else { None },
            lengths: if layer.lengths { rest.next() } else { None },
        })
    }
}

/// The types of the results.
///
/// # Errors
/// When operands or attributes do not fit.
pub fn infer(op: &Op, cell: Cell, inputs: &[Type]) -> Result<Vec<Type>, String> {
    let layer = Layer::of(op, cell)?;
    let i = Inputs::of(&layer, inputs)?;
    shape::check_float("x", i.x)?;
    for (name, ty, rank) in [("x", i.x, 3), ("w", i.w, 3), ("r", i.r, 3)] {
        if ty.rank() != rank {
            return Err(format!("{name} is {ty}, expected rank {rank}"));
        }
    }
    let dtype = i.x.dtype;
    let [time, batch, width] = [0, 1, 2].map(|d| i.x.shape[d].clone());
    let hidden = i.r.shape[2].clone();
    let d = Dim::from(layer.directions());
    let rows = &hidden * cell.gates() as i64;
    shape::check_type("w", i.w, dtype, &[d.clone(), rows.clone(), width])?;
    shape::check_type("r", i.r, dtype, &[d.clone(), rows.clone(), hidden.clone()])?;
    shape::check_type("b", i.b, dtype, &[d.clone(), &rows * 2])?;
    for (state, name) in i.states.iter().zip(["h0", "c0"]) {
        shape::check_type(name, state, dtype, &[d.clone(), batch.clone(), hidden.clone()])?;
    }
    if let Some(p) = i.p {
        shape::check_type("p", p, dtype, &[d, &hidden * 3])?;
    }
    if let Some(l) = i.lengths {
        shape::check_type("lengths", l, DType::I64, std::slice::from_ref(&batch))?;
    }
    Ok(layer.results(dtype, &time, &batch, &hidden))
}

/// The reference evaluation.
///
/// # Errors
/// When attributes do not fit.
pub fn eval(op: &Op, cell: Cell, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let layer = Layer::of(op, cell)?;
    let i = Inputs::of(&layer, inputs)?;
    let (x, w, b) = (i.x.to_f64s(), i.w.to_f64s(), i.b.to_f64s());
    let [time, batch, width] = [0, 1, 2].map(|d| i.x.shape()[d]);
    let (hidden, gates) = (i.r.shape()[2], cell.gates());
    let bias = |d: usize, side: usize, g: usize, j: usize| b[((d * 2 + side) * gates + g) * hidden + j];
    let input = |t: usize, e: usize, d: usize, g: usize, j: usize| {
        let (from, row) = ((t * batch + e) * width, ((d * gates + g) * hidden + j) * width);
        let sum: f64 = (0..width).map(|k| x[from + k] * w[row + k]).sum();
        let inner = cell.has_inner_bias() && g == 2;
        sum + bias(d, 0, g, j) + if inner { 0.0 } else { bias(d, 1, g, j) }
    };
    let results = steps(
        &layer,
        Operands {
            sizes: [time, batch, hidden],
            input: &input,
            r: &i.r.to_f64s(),
            inner_bias: &|d, j| bias(d, 1, 2, j),
            states: i.states.iter().map(Tensor::to_f64s).collect(),
            p: &i.p.map_or(vec![], Tensor::to_f64s),
            lengths: &i.lengths.map_or(vec![], |l| l.iter().map(|n| n.int() as i64).collect()),
        },
    );
    let dtype = i.x.dtype();
    let shapes = [vec![time, layer.directions(), batch, hidden]]
        .into_iter()
        .chain(std::iter::repeat(vec![layer.directions(), batch, hidden]));
    let tensor = |(values, shape): (Vec<f64>, Vec<usize>)| Tensor::from_fn(dtype, &shape, |p| Number::Float(values[p]));
    Ok(results.into_iter().zip(shapes).map(tensor).collect())
}

/// A contraction of the inputs with their weights, the biases, and the steps.
///
/// # Errors
/// Never when [`infer`] accepts the operands.
pub fn decompose(op: &Op, cell: Cell, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
    let layer = Layer::of(op, cell)?;
    let i = Inputs::of(&layer, inputs)?;
    let dtype = b.type_of(*i.x).dtype;
    let wide = dtype.compute();
    let (x, w) = (compose::cast(b, *i.x, wide)?, compose::cast(b, *i.w, wide)?);
    let (r, bias) = (compose::cast(b, *i.r, wide)?, compose::cast(b, *i.b, wide)?);
    let shape = b.type_of(r).shape;
    let (d, rows, hidden) = (shape[0].clone(), shape[1].clone(), shape[2].clone());
    let width = b.type_of(w).shape[2].clone();
    let all = &d * &rows;
    let w = b.reshaped(w, &[all.clone(), width])?;
    let attrs = [
        Attr::ints(&[]),
        Attr::ints(&[]),
        Attr::ints(&[2]),
        Attr::ints(&[1]),
        Attr::DType(wide),
        Attr::DType(wide),
    ];
    let product = b.call("contract", &attrs, &[x, w])?;
    let columns = |b: &mut dyn Build, first: &Dim, count: &Dim| {
        let starts = Attr::Dims(vec![Dim::ZERO, first.clone()]);
        let sizes = Attr::Dims(vec![d.clone(), count.clone()]);
        b.call("slice", &[starts, sizes, Attr::ints(&[1, 1])], &[bias])
    };
    let of_input = columns(b, &Dim::ZERO, &rows)?;
    // The bias inside of a reset gate is not added to the input.
    let outer = match cell.has_inner_bias() {
        true => &rows - &hidden,
        false => rows.clone(),
    };
    let mut of_state = columns(b, &rows, &outer)?;
    let mut inner = None;
    if cell.has_inner_bias() {
        let high = Attr::Dims(vec![Dim::ZERO, hidden.clone()]);
        let pad = [Attr::dims(&[0, 0]), high, Attr::ints(&[0, 0]), Attr::num(0.0)];
        of_state = b.call("pad", &pad, &[of_state])?;
        inner = Some(columns(b, &(&rows + &outer), &hidden)?);
    }
    let sum = compose::map(b, "add", &[of_input, of_state])?;
    let sum = b.reshaped(sum, &[all])?;
    let x = compose::with_spread(b, "add", product, sum)?;
    let mut operands = vec![x, r];
    for &state in i.states {
        operands.push(compose::cast(b, state, wide)?);
    }
    if let Some(&p) = i.p {
        operands.push(compose::cast(b, p, wide)?);
    }
    operands.extend(inner);
    operands.extend(i.lengths);
    let results = b.add(recurrence(&layer)?, &operands)?;
    let results = results.into_iter().map(|v| compose::cast(b, v, dtype));
    results.collect::<Result<_, _>>().map(Some)
}

/// The operator of a layer's steps.
fn recurrence(layer: &Layer) -> Result<Op, String> {
    let (word, flags) = match layer.cell {
        Cell::Lstm {
            input_forget,
            peepholes,
        } => ("lstm", [input_forget, peepholes, false]),
        Cell::Gru { linear_before_reset } => ("gru", [false, false, linear_before_reset]),
        Cell::Rnn => ("rnn", [false; 3]),
    };
    let mut attrs = vec![Attr::word(word)];
    attrs.extend(layer.common());
    attrs.extend(flags.map(Attr::Bool));
    attrs.extend(layer.activation_attrs(ACTIVATIONS.len() / 3));
    Op::new("recurrence", &attrs)
}
