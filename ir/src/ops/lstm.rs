//! `lstm{…}(x, w, r, b, h0, c0[, p][, lengths]) -> y, h, c`: a layer of long short-term memory; `ops/recurrent` lists shapes and
//! attributes. With gates `i, o, f` by the activation `f`, and the sums of input, state and biases as `·`:
//! `i = f(· + p_i c)`, `f = f(· + p_f c)` (or `1 - i` with `input_forget`), `c' = f c + i g(·)`, `o = f(· + p_o c')`,
//! `h' = o h(c')`. Source: ONNX `LSTM`; Hochreiter and Schmidhuber, "Long short-term memory", 1997.

use super::recurrent::{ACTIVATIONS, COMMON, Cell, decompose, eval, infer};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, SampleType};
use crate::{Build, DType, Tensor, Type, Value};
use std::sync::LazyLock;

/// The operator's definition.
pub struct Def;

fn cell(op: &Op) -> Cell {
    Cell::Lstm {
        input_forget: op.flag("input_forget"),
        peepholes: op.flag("peepholes"),
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "lstm"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        static ALL: LazyLock<Vec<(&str, AttrKind)>> = LazyLock::new(|| {
            let own = [("input_forget", AttrKind::Bool), ("peepholes", AttrKind::Bool)];
            [&COMMON[..], &own, &ACTIVATIONS].concat()
        });
        &ALL
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        infer(op, cell(op), inputs)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        eval(op, cell(op), inputs)
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        decompose(op, cell(op), b, inputs)
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn is_variadic(&self) -> bool {
        true
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32, I64};
        let s = |direction: &str, lengths: bool, flags: [bool; 2], x: &[SampleType]| {
            let mut attrs = vec![Attr::word(direction), Attr::num(f64::INFINITY), Attr::Bool(lengths)];
            attrs.extend(flags.map(Attr::Bool));
            for word in ["sigmoid", "tanh", "tanh"] {
                attrs.extend([Attr::word(word), Attr::num(1.0), Attr::num(0.0)]);
            }
            let sample = Sample::new(&attrs, x);
            if lengths { sample.indexing(x.len() - 1, 5) } else { sample }
        };
        vec![
            s("forward", false, [false; 2], &[
                (F32, &[3, 1, 4]),
                (F32, &[1, 12, 4]),
                (F32, &[1, 12, 3]),
                (F32, &[1, 24]),
                (F32, &[1, 1, 3]),
                (F32, &[1, 1, 3]),
            ]),
            s("bidirectional", true, [false, true], &[
                (F32, &[4, 2, 3]),
                (F32, &[2, 20, 3]),
                (F32, &[2, 20, 5]),
                (F32, &[2, 40]),
                (F32, &[2, 2, 5]),
                (F32, &[2, 2, 5]),
                (F32, &[2, 15]),
                (I64, &[2]),
            ]),
            s("reverse", false, [true, false], &[
                (F16, &[2, 1, 2]),
                (F16, &[1, 8, 2]),
                (F16, &[1, 8, 2]),
                (F16, &[1, 16]),
                (F16, &[1, 1, 2]),
                (F16, &[1, 1, 2]),
            ]),
        ]
    }
}
