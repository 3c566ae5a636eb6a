//! `recurrence{cell, …}(x, r, h0[, c0][, p][, rb][, lengths]) -> y, h[, c]`: the steps of a recurrent layer (`lstm`, `gru` and `rnn` say of
//! which) whose inputs were multiplied with their weights before: `x` is `[T, B, D·G·H]` and holds the biases too, but the one
//! inside of a reset gate, `rb` `[D, H]`. f32 or f64. It is one kernel: the weights `r` stay in cache while time goes by.

use super::recurrent::{ACTIVATIONS, COMMON, Cell, Layer, Operands, kernel, repeat, steps};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, OwnKernel, OwnStages, Role, Sample, SampleType, shape};
use crate::{Build, DType, Dim, Number, Tensor, Type, Value};
use std::sync::LazyLock;

/// The operator's definition.
pub struct Def;

/// Flags of cells.
const FLAGS: [(&str, AttrKind); 3] = [
    ("input_forget", AttrKind::Bool),
    ("peepholes", AttrKind::Bool),
    ("linear_before_reset", AttrKind::Bool),
];

/// The layer of an operator.
fn layer(op: &Op) -> Result<Layer, String> {
    let cell = match op.word("cell") {
        "lstm" => Cell::Lstm {
            input_forget: op.flag("input_forget"),
            peepholes: op.flag("peepholes"),
        },
        "gru" => Cell::Gru {
            linear_before_reset: op.flag("linear_before_reset"),
        },
        "rnn" => Cell::Rnn,
        w => return Err(format!("cell `{w}`, expected lstm, gru or rnn")),
    };
    Layer::of(op, cell)
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "recurrence"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        static ALL: LazyLock<Vec<(&str, AttrKind)>> =
            LazyLock::new(|| [&[("cell", AttrKind::Word)][..], &COMMON, &FLAGS, &ACTIVATIONS].concat());
        &ALL
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let layer = layer(op)?;
        let cell = layer.cell;
        let want = 2
            + cell.states()
            + [cell.has_peepholes(), cell.has_inner_bias(), layer.lengths].map(usize::from).iter().sum::<usize>();
        if inputs.len() != want {
            return Err(format!("{} operands, expected {want}", inputs.len()));
        }
        let (x, r) = (&inputs[0], &inputs[1]);
        if !matches!(x.dtype, DType::F32 | DType::F64) || x.rank() != 3 {
            return Err(format!("x is {x}, expected f32 or f64 of rank 3"));
        }
        if r.rank() != 3 {
            return Err(format!("r is {r}, expected rank 3"));
        }
        let (time, batch, hidden) = (&x.shape[0], &x.shape[1], r.shape[2].clone());
        let d = Dim::from(layer.directions());
        let rows = &hidden * cell.gates() as i64;
        shape::check_type("x", x, x.dtype, &[time.clone(), batch.clone(), &d * &rows])?;
        shape::check_type("r", r, x.dtype, &[d.clone(), rows, hidden.clone()])?;
        let mut rest = inputs[2..].iter();
        let mut next = |name: &str, dtype: DType, shape: &[Dim]| match rest.next() {
            Some(ty) => shape::check_type(name, ty, dtype, shape),
            None => unreachable!("the operands were counted"),
        };
        for name in ["h0", "c0"].into_iter().take(cell.states()) {
            next(name, x.dtype, &[d.clone(), batch.clone(), hidden.clone()])?;
        }
        if cell.has_peepholes() {
            next("p", x.dtype, &[d.clone(), &hidden * 3])?;
        }
        if cell.has_inner_bias() {
            next("rb", x.dtype, &[d, hidden.clone()])?;
        }
        if layer.lengths {
            next("lengths", DType::I64, std::slice::from_ref(batch))?;
        }
        Ok(layer.results(x.dtype, time, batch, &hidden))
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let layer = layer(op)?;
        let (cell, directions) = (layer.cell, layer.directions());
        let x = inputs[0].to_f64s();
        let [time, batch, columns] = [0, 1, 2].map(|d| inputs[0].shape()[d]);
        let (hidden, gates) = (inputs[1].shape()[2], cell.gates());
        let mut rest = inputs[2..].iter();
        let mut floats = |there: bool| there.then(|| rest.next().map(Tensor::to_f64s)).flatten().unwrap_or_default();
        let states = (0..cell.states()).map(|_| floats(true)).collect();
        let (p, rb) = (floats(cell.has_peepholes()), floats(cell.has_inner_bias()));
        let lengths = rest.next().map_or(vec![], |l| l.iter().map(|n| n.int() as i64).collect());
        let results = steps(
            &layer,
            Operands {
                sizes: [time, batch, hidden],
                input: &|t, b, d, g, j| x[(t * batch + b) * columns + (d * gates + g) * hidden + j],
                r: &inputs[1].to_f64s(),
                inner_bias: &|d, j| rb[d * hidden + j],
                states,
                p: &p,
                lengths: &lengths,
            },
        );
        let shapes = [vec![time, directions, batch, hidden]]
            .into_iter()
            .chain(std::iter::repeat(vec![directions, batch, hidden]));
        let tensor = |(values, shape): (Vec<f64>, Vec<usize>)| {
            Tensor::from_fn(inputs[0].dtype(), &shape, |p| Number::Float(values[p]))
        };
        Ok(results.into_iter().zip(shapes).map(tensor).collect())
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        repeat(&layer(op)?, b, inputs).map(Some)
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, F64, I64};
        let s = |cell: &str, direction: &str, clip: f64, flags: [bool; 4], words: [&str; 3], x: &[SampleType]| {
            let [lengths, input_forget, peepholes, linear] = flags;
            let mut attrs = vec![Attr::word(cell), Attr::word(direction), Attr::num(clip), Attr::Bool(lengths)];
            attrs.extend([input_forget, peepholes, linear].map(Attr::Bool));
            for w in words {
                attrs.extend([Attr::word(w), Attr::num(0.5), Attr::num(0.25)]);
            }
            let sample = Sample::new(&attrs, x);
            if lengths { sample.indexing(x.len() - 1, 5) } else { sample }
        };
        let usual = ["sigmoid", "tanh", "tanh"];
        let none = f64::INFINITY;
        vec![
            s("lstm", "forward", none, [false; 4], usual, &[
                (F32, &[5, 2, 32]),
                (F32, &[1, 32, 8]),
                (F32, &[1, 2, 8]),
                (F32, &[1, 2, 8]),
            ]),
            s("lstm", "bidirectional", 1.5, [true, false, true, false], ["hard_sigmoid", "softsign", "affine"], &[
                (F32, &[4, 3, 40]),
                (F32, &[2, 20, 5]),
                (F32, &[2, 3, 5]),
                (F32, &[2, 3, 5]),
                (F32, &[2, 15]),
                (I64, &[3]),
            ]),
            s("lstm", "reverse", none, [false, true, true, false], ["sigmoid", "scaled_tanh", "elu"], &[
                (F64, &[3, 1, 12]),
                (F64, &[1, 12, 3]),
                (F64, &[1, 1, 3]),
                (F64, &[1, 1, 3]),
                (F64, &[1, 9]),
            ]),
            s("gru", "forward", none, [false; 4], usual, &[
                (F32, &[3, 2, 120]),
                (F32, &[1, 120, 40]),
                (F32, &[1, 2, 40]),
            ]),
            s("gru", "bidirectional", 2.0, [true, false, false, true], ["sigmoid", "leaky_relu", "tanh"], &[
                (F32, &[4, 2, 36]),
                (F32, &[2, 18, 6]),
                (F32, &[2, 2, 6]),
                (F32, &[2, 6]),
                (I64, &[2]),
            ]),
            s("rnn", "reverse", none, [true, false, false, false], ["thresholded_relu", "tanh", "tanh"], &[
                (F32, &[5, 3, 4]),
                (F32, &[1, 4, 4]),
                (F32, &[1, 3, 4]),
                (I64, &[3]),
            ]),
            s("rnn", "forward", 0.5, [false; 4], ["softplus", "tanh", "tanh"], &[
                (F32, &[0, 2, 4]),
                (F32, &[1, 4, 4]),
                (F32, &[1, 2, 4]),
            ]),
            // Weights of more panels than a tile takes at once.
            s("lstm", "forward", none, [false; 4], usual, &[
                (F32, &[3, 1, 288]),
                (F32, &[1, 288, 72]),
                (F32, &[1, 1, 72]),
                (F32, &[1, 1, 72]),
            ]),
            s("rnn", "bidirectional", none, [false; 4], ["relu", "tanh", "tanh"], &[
                (F32, &[2, 20, 66]),
                (F32, &[2, 33, 33]),
                (F32, &[2, 20, 33]),
            ]),
        ]
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        kernel(&layer(op)?, inputs, results)
    }
}
