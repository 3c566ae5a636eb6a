//! `group_norm{groups, eps}(x, scale, bias)`: the channels (dim 1) in groups; within a group of one image, over its channels
//! and all further dimensions, `(x - mean) / sqrt(variance + eps) · scale[c] + bias[c]`. Computed in f32, or f64 for f64, rounded
//! at the end. With as many groups as channels it is ONNX `InstanceNormalization`. Source: ONNX `GroupNormalization`
//! (opset 21); Wu and He, arXiv 1803.08494.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, batch_norm, compose, conv, normalize};
use crate::{Build, DType, Dim, Tensor, Type, Value};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "group_norm"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("groups", AttrKind::Int), ("eps", AttrKind::Num)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        batch_norm::check_channels(&["scale", "bias"], inputs)?;
        conv::per_group("channels", &inputs[0].shape[1], op.int("groups"))?;
        Ok(vec![inputs[0].clone()])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (x, scale, bias) = (&inputs[0], inputs[1].to_f64s(), inputs[2].to_f64s());
        let inner: usize = x.shape()[2..].iter().product();
        let channel = |p: usize| p / inner % scale.len();
        let row = scale.len() / op.int("groups") as usize * inner;
        let statistics = |line: &[f64]| normalize::statistics(x.dtype(), line, op.num("eps"));
        Ok(vec![normalize::rows(
            x,
            row,
            statistics,
            |p| scale[channel(p)],
            |p| bias[channel(p)],
        )])
    }
    fn decompose(&self, op: &Op, b: &mut dyn Build, inputs: &[Value]) -> Result<Option<Vec<Value>>, String> {
        let (ty, groups) = (b.type_of(inputs[0]), op.int("groups"));
        let compute = ty.dtype.compute();
        let x = compose::cast(b, inputs[0], compute)?;
        let scale = compose::cast(b, inputs[1], compute)?;
        let bias = compose::cast(b, inputs[2], compute)?;
        let mut split = vec![
            ty.shape[0].clone(),
            Dim::Const(groups),
            conv::per_group("channels", &ty.shape[1], groups)?,
        ];
        split.extend_from_slice(&ty.shape[2..]);
        let axes: Vec<usize> = (2..split.len()).collect();
        let grouped = b.call("reshape", &[Attr::Dims(split)], &[x])?;
        let y = normalize::normalized(b, grouped, &axes, op.num("eps"))?;
        let y = b.call("reshape", &[Attr::Dims(ty.shape)], &[y])?;
        let scale = compose::channels(b, scale, y)?;
        let bias = compose::channels(b, bias, y)?;
        let y = compose::map(b, "mul", &[y, scale])?;
        let y = compose::map(b, "add", &[y, bias])?;
        Ok(Some(vec![compose::cast(b, y, ty.dtype)?]))
    }
    fn role(&self) -> Role {
        Role::Composite
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F16, F32};
        let s = |groups, x, c| Sample::new(&[Attr::Int(groups), Attr::num(1e-3)], &[x, c, c]);
        vec![
            s(2, (F32, &[2, 4, 3, 5]), (F32, &[4])),
            s(3, (F32, &[1, 3, 7]), (F32, &[3])),
            s(1, (F16, &[2, 3, 2, 1]), (F16, &[3])),
            s(2, (F32, &[3, 4]), (F32, &[4])),
            s(2, (F32, &[0, 4, 2]), (F32, &[4])),
        ]
    }
}
