//! `rnn{…}(x, w, r, b, h0[, lengths]) -> y, h`: a plain recurrent layer, `h' = f(x w + h r + b)`; `ops/recurrent` lists shapes and
//! attributes. Source: ONNX `RNN`; Elman, "Finding structure in time", 1990.

use super::recurrent::{ACTIVATIONS, COMMON, Cell, decompose, eval, infer};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, SampleType};
use crate::{Build, DType, Tensor, Type, Value};
use std::sync::LazyLock;

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "rnn"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        static ALL: LazyLock<Vec<(&str, AttrKind)>> = LazyLock::new(|| [&COMMON[..], &ACTIVATIONS[..3]].concat());
        &ALL
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        infer(op, Cell::Rnn, inputs)
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        eval(op, Cell::Rnn, inputs)
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        decompose(op, Cell::Rnn, b, inputs)
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
        use DType::{F32, I64};
        let s = |direction: &str, lengths: bool, x: &[SampleType]| {
            let mut attrs = vec![Attr::word(direction), Attr::num(f64::INFINITY), Attr::Bool(lengths)];
            attrs.extend([Attr::word("tanh"), Attr::num(1.0), Attr::num(0.0)]);
            let sample = Sample::new(&attrs, x);
            if lengths { sample.indexing(x.len() - 1, 4) } else { sample }
        };
        vec![
            s("forward", false, &[
                (F32, &[3, 2, 4]),
                (F32, &[1, 3, 4]),
                (F32, &[1, 3, 3]),
                (F32, &[1, 6]),
                (F32, &[1, 2, 3]),
            ]),
            s("bidirectional", true, &[
                (F32, &[3, 1, 2]),
                (F32, &[2, 4, 2]),
                (F32, &[2, 4, 4]),
                (F32, &[2, 8]),
                (F32, &[2, 1, 4]),
                (I64, &[1]),
            ]),
        ]
    }
}
