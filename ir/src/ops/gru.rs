//! `gru{…}(x, w, r, b, h0[, lengths]) -> y, h`: a layer of gated recurrent units; `ops/recurrent` lists shapes and attributes.
//! With the sums of input, state and biases as `·`: `z = f(·)`, `r = f(·)`, `h' = (1 - z) g(x w + b + (r h) r_h) + z h`, or with
//! `linear_before_reset` `g(x w + b + r (h r_h + b_h))`. Source: ONNX `GRU`; Cho et al., "Learning phrase representations using RNN
//! encoder-decoder for statistical machine translation", 2014.

use super::recurrent::{ACTIVATIONS, COMMON, Cell, decompose, eval, infer};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, SampleType};
use crate::{Build, DType, Tensor, Type, Value};
use std::sync::LazyLock;

/// The operator's definition.
pub struct Def;

fn cell(op: &Op) -> Cell {
    Cell::Gru {
        linear_before_reset: op.flag("linear_before_reset"),
    }
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "gru"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        static ALL: LazyLock<Vec<(&str, AttrKind)>> = LazyLock::new(|| {
            let own = [("linear_before_reset", AttrKind::Bool)];
            [&COMMON[..], &own, &ACTIVATIONS[..6]].concat()
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
        use DType::{BF16, F32, F64, I64};
        let s = |direction: &str, lengths: bool, linear: bool, x: &[SampleType]| {
            let mut attrs = vec![Attr::word(direction), Attr::num(2.0), Attr::Bool(lengths), Attr::Bool(linear)];
            for word in ["sigmoid", "tanh"] {
                attrs.extend([Attr::word(word), Attr::num(1.0), Attr::num(0.0)]);
            }
            let sample = Sample::new(&attrs, x);
            if lengths { sample.indexing(x.len() - 1, 5) } else { sample }
        };
        vec![
            s("forward", false, false, &[
                (F32, &[3, 2, 4]),
                (F32, &[1, 9, 4]),
                (F32, &[1, 9, 3]),
                (F32, &[1, 18]),
                (F32, &[1, 2, 3]),
            ]),
            s("bidirectional", true, true, &[
                (F64, &[4, 2, 1]),
                (F64, &[2, 15, 1]),
                (F64, &[2, 15, 5]),
                (F64, &[2, 30]),
                (F64, &[2, 2, 5]),
                (I64, &[2]),
            ]),
            s("reverse", false, true, &[
                (BF16, &[2, 1, 2]),
                (BF16, &[1, 6, 2]),
                (BF16, &[1, 6, 2]),
                (BF16, &[1, 12]),
                (BF16, &[1, 1, 2]),
            ]),
        ]
    }
}
