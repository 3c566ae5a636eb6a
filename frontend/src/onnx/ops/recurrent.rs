//! `LSTM`, `GRU` and `RNN`, each one operator of the IR. What is omitted gets its default: biases and states of 0. A batch that
//! comes first (`layout` 1) is transposed, and so is what leaves.

use super::*;
use brolga_ir::{Attr, Dim};

/// A kind of layer.
struct Kind {
    /// The operator of the IR.
    name: &'static str,
    gates: i64,
    states: usize,
    /// The activations of one direction.
    activations: &'static [&'static str],
    /// The most operands.
    operands: usize,
}

/// `LSTM`.
pub fn lstm(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let kind = Kind {
        name: "lstm",
        gates: 4,
        states: 2,
        activations: &["Sigmoid", "Tanh", "Tanh"],
        operands: 8,
    };
    let flags = [ctx.flag("input_forget", false)?, ctx.optional(7).is_some()];
    layer(graph, ctx, &kind, &flags)
}

/// `GRU`.
pub fn gru(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let kind = Kind {
        name: "gru",
        gates: 3,
        states: 1,
        activations: &["Sigmoid", "Tanh"],
        operands: 6,
    };
    layer(graph, ctx, &kind, &[ctx.flag("linear_before_reset", false)?])
}

/// `RNN`.
pub fn rnn(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    let kind = Kind {
        name: "rnn",
        gates: 1,
        states: 1,
        activations: &["Tanh"],
        operands: 6,
    };
    layer(graph, ctx, &kind, &[])
}

/// Operands with time first, and with everything that may be omitted.
struct Operands {
    x: Value,
    /// One direction beside the other along their first axis: w, r, b, the states, and p where there is one.
    of_directions: Vec<Value>,
    lengths: Option<Value>,
}

fn layer(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>, kind: &Kind, flags: &[bool]) -> Outcome {
    ctx.arity(3, kind.operands)?;
    let direction = ctx.string("direction", "forward")?;
    let directions = match direction {
        "forward" | "reverse" => 1,
        "bidirectional" => 2,
        d => {
            return Err(Fail::Bad(format!(
                "direction `{d}`, expected forward, reverse or bidirectional"
            )));
        }
    };
    let batch_first = match ctx.int("layout", 0)? {
        0 => false,
        1 => true,
        n => return Err(Fail::Bad(format!("layout {n}, expected 0 or 1"))),
    };
    let activations = activations(ctx, kind, directions)?;
    let given = operands(graph, ctx, kind, directions, batch_first)?;
    let attrs = |direction: &str, activations: &[Attr]| -> Result<Vec<Attr>, Fail> {
        let clip = ctx.opt_float("clip")?.unwrap_or(f64::INFINITY);
        let mut attrs = vec![
            Attr::word(direction),
            Attr::num(clip),
            Attr::Bool(given.lengths.is_some()),
        ];
        attrs.extend(flags.iter().map(|&f| Attr::Bool(f)));
        attrs.extend_from_slice(activations);
        Ok(attrs)
    };
    let mut results = match &activations[..] {
        [forward, backward] if forward != backward => {
            // Directions that compute differently are a layer each.
            let mut sides = vec![];
            for (d, (word, own)) in [("forward", forward), ("reverse", backward)].into_iter().enumerate() {
                let mut all = vec![given.x];
                for &v in &given.of_directions {
                    all.push(graph.slice_axis(v, 0, Dim::from(d), Dim::ONE)?);
                }
                all.extend(given.lengths);
                sides.push(graph.ops(kind.name, &attrs(word, own)?, &all)?);
            }
            let both =
                |graph: &mut Builder<'_>, i: usize| graph.concat(usize::from(i == 0), &[sides[0][i], sides[1][i]]);
            (0..=kind.states)
                .map(|i| both(graph, i))
                .collect::<Result<Vec<_>, _>>()?
        }
        all => {
            let operands = [&[given.x], &given.of_directions[..], given.lengths.as_slice()].concat();
            graph.ops(kind.name, &attrs(direction, &all[0])?, &operands)?
        }
    };
    if batch_first {
        results[0] = graph.transpose(results[0], &[2, 0, 1, 3])?;
        for state in &mut results[1..] {
            *state = graph.transpose(*state, &[1, 0, 2])?;
        }
    }
    Ok(results)
}

impl Builder<'_> {
    /// The input of a layer with as many features as its weights have, where these are a number and its own are not.
    pub fn as_wide(&mut self, x: Value, features: &Dim) -> One {
        match (self.shape(x)[2].as_const(), features.as_const()) {
            (None, Some(_)) => self.fit(x, 2, features),
            _ => Ok(x),
        }
    }
}

fn operands(
    graph: &mut Builder<'_>,
    ctx: &NodeCtx<'_>,
    kind: &Kind,
    directions: usize,
    batch_first: bool,
) -> Result<Operands, Fail> {
    let (mut x, mut w, r) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    for (v, name) in [(x, "X"), (w, "W"), (r, "R")] {
        if graph.rank(v) != 3 {
            return Err(Fail::Bad(format!("{name} is {}, expected rank 3", graph.ty(v))));
        }
    }
    if batch_first {
        x = graph.transpose(x, &[1, 0, 2])?;
    }
    x = graph.as_wide(x, &graph.shape(w)[2].clone())?;
    let (dtype, shape) = (graph.dtype(x), graph.shape(x));
    let [time, batch, width] = [0, 1, 2].map(|d| shape[d].clone());
    let hidden = graph.shape(r)[2].clone();
    if let Some(n) = ctx.opt_int("hidden_size")?
        && hidden.as_const().is_some_and(|h| h != n)
    {
        return Err(Fail::Bad(format!("hidden_size {n}, but R is {}", graph.ty(r))));
    }
    let d = Dim::from(directions);
    let rows = &hidden * kind.gates;
    w = graph.fit_shape(w, &[d.clone(), rows.clone(), width])?;
    let r = graph.fit_shape(r, &[d.clone(), rows.clone(), hidden.clone()])?;
    // An operand of this shape, or 0.
    let or_zero = |graph: &mut Builder<'_>, i: usize, shape: &[Dim]| match ctx.optional(i) {
        Some(v) => graph.fit_shape(v, shape),
        None => graph.splat(dtype, shape, 0.0),
    };
    let b = or_zero(graph, 3, &[d.clone(), &rows * 2])?;
    let mut of_directions = vec![w, r, b];
    for i in 5..5 + kind.states {
        let v = match (ctx.optional(i), batch_first) {
            (Some(_), true) => {
                let v = or_zero(graph, i, &[batch.clone(), d.clone(), hidden.clone()])?;
                graph.transpose(v, &[1, 0, 2])?
            }
            _ => or_zero(graph, i, &[d.clone(), batch.clone(), hidden.clone()])?,
        };
        of_directions.push(v);
    }
    if let Some(p) = ctx.optional(7) {
        of_directions.push(graph.fit_shape(p, &[d, &hidden * 3])?);
    }
    let mut lengths = ctx.optional(4);
    if let Some(v) = lengths {
        let known = graph.contents(v);
        let whole = known.is_some_and(|t| {
            t.iter()
                .all(|n| time.as_const().is_some_and(|t| i128::from(t) == n.int()))
        });
        lengths = None;
        if !whole {
            let v = graph.fit_shape(v, &[batch])?;
            lengths = Some(graph.cast(v, DType::I64)?);
        }
    }
    Ok(Operands {
        x,
        of_directions,
        lengths,
    })
}

/// The attributes of the activations of each direction. Numbers are handed out to those that take them, in order.
fn activations(ctx: &NodeCtx<'_>, kind: &Kind, directions: usize) -> Result<Vec<Vec<Attr>>, Fail> {
    let usual: Vec<&str> = kind.activations.repeat(directions);
    let names = ctx.strings("activations")?.unwrap_or(usual.clone());
    if names.len() != usual.len() {
        let (found, want) = (names.len(), usual.len());
        return Err(Fail::Bad(format!("{found} activations, expected {want}")));
    }
    let mut alphas = ctx.floats("activation_alpha")?.unwrap_or(&[]).iter();
    let mut betas = ctx.floats("activation_beta")?.unwrap_or(&[]).iter();
    let mut all = vec![];
    for name in names {
        let (word, alpha, beta) = match name.to_lowercase().as_str() {
            "affine" => ("affine", Some(1.0), Some(0.0)),
            "elu" => ("elu", Some(1.0), None),
            "hardsigmoid" => ("hard_sigmoid", Some(0.2), Some(0.5)),
            "leakyrelu" => ("leaky_relu", Some(0.01), None),
            "relu" => ("relu", None, None),
            "scaledtanh" => ("scaled_tanh", Some(1.0), Some(1.0)),
            "sigmoid" => ("sigmoid", None, None),
            "softplus" => ("softplus", None, None),
            "softsign" => ("softsign", None, None),
            "tanh" => ("tanh", None, None),
            "thresholdedrelu" => ("thresholded_relu", Some(1.0), None),
            _ => return unsupported(format!("the activation `{name}`")),
        };
        let take = |default: Option<f32>, given: &mut std::slice::Iter<'_, f32>| match default {
            Some(d) => f64::from(given.next().copied().unwrap_or(d)),
            None => 0.0,
        };
        let (alpha, beta) = (take(alpha, &mut alphas), take(beta, &mut betas));
        all.push([Attr::word(word), Attr::num(alpha), Attr::num(beta)]);
    }
    let one = |a: &[[Attr; 3]]| a.concat();
    Ok(all.chunks(kind.activations.len()).map(one).collect())
}
