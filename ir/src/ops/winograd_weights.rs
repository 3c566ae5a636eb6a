//! `winograd_weights{tile}(w)`: what `winograd` multiplies by: for `w [K, C, 3, 3]` the `[(tile + 2)², C, K]` elements of `G w_kc Gᵀ`,
//! with the matrix of [`minimal`]. f32 or f64. Of a constant it is computed when the model is compiled.

use super::winograd::OVERLAP;
use super::winograd::minimal::{self, TAPS, Transforms};
use super::{Accuracy, Attr, AttrKind, Op, OpDef, OwnKernel, OwnStages, Role, Sample, SampleType, arity};
use crate::index::{Ix, Var};
use crate::structured::build::{self, Reads, parallel};
use crate::structured::{Kernel, Local, Part, Place};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// Products of a tile.
fn elements(tile: i64) -> i64 {
    (tile + OVERLAP) * (tile + OVERLAP)
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "winograd_weights"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("tile", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 1)?;
        let (w, tile) = (&inputs[0], minimal::check_tile(op.int("tile"))?);
        let square = w.rank() == 4 && w.shape[2..].iter().all(|d| d.is(TAPS));
        if !square || !matches!(w.dtype, DType::F32 | DType::F64) {
            return Err(format!("w {w}, expected f32 or f64 with windows of {TAPS} by {TAPS}"));
        }
        let shape = vec![Dim::Const(elements(tile)), w.shape[1].clone(), w.shape[0].clone()];
        Ok(vec![Type::new(w.dtype, shape)])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let (w, g) = (inputs[0].to_f64s(), Transforms::of(op.int("tile")).weights);
        let (outputs, channels) = (inputs[0].shape()[0], inputs[0].shape()[1]);
        let taps = (TAPS * TAPS) as usize;
        let all: Vec<Vec<f64>> = w.chunks(taps).map(|w| g.on_both_sides(w)).collect();
        let shape = [elements(op.int("tile")) as usize, channels, outputs];
        Ok(vec![Tensor::from_fn(inputs[0].dtype(), &shape, |p| {
            let (e, c, k) = (p / outputs / channels, p / outputs % channels, p % outputs);
            Number::Float(all[k * channels + c][e])
        })])
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |tile: i64, w: SampleType| Sample::new(&[Attr::Int(tile)], &[w]);
        vec![
            s(2, (DType::F32, &[5, 3, 3, 3])),
            s(4, (DType::F32, &[40, 2, 3, 3])),
            s(4, (DType::F64, &[1, 1, 3, 3])),
            s(2, (DType::F32, &[0, 3, 3, 3])),
        ]
    }
}

impl OwnKernel for Def {
    /// For each input channel the elements of all outputs, which then are written side by side.
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let (w, tile) = (&inputs[0], op.int("tile"));
        let (channel, output) = (Ix::var(Var(0)), Ix::var(Var(1)));
        let mut reads = Reads::default();
        for tap in 0..TAPS * TAPS {
            let at = vec![
                output.clone(),
                channel.clone(),
                Ix::constant(tap / TAPS),
                Ix::constant(tap % TAPS),
            ];
            reads.element(Place::Operand(0), at, w.dtype);
        }
        let mut b = reads.body();
        let taps: Vec<_> = (0..(TAPS * TAPS) as usize).map(|i| b.input(i)).collect();
        let all = Transforms::of(tile).weights.in_body(&mut b, &taps);
        let writes = (0..elements(tile)).map(|e| (Place::Local(0), vec![Ix::constant(e), output.clone()]));
        let (outputs, elements) = (w.shape[0].clone(), Dim::Const(elements(tile)));
        let made = build::map(vec![parallel(&outputs)], reads, b.finish(&all), writes.collect());
        let at = [Ix::var(Var(1)), Ix::var(Var(2))];
        let mut reads = Reads::default();
        reads.element(Place::Local(0), at.to_vec(), w.dtype);
        let b = reads.body();
        let u = b.input(0);
        let to = vec![at[0].clone(), channel, at[1].clone()];
        let dims = vec![parallel(&elements), parallel(&outputs)];
        let written = build::map(dims, reads, b.finish(&[u]), vec![(Place::Operand(1), to)]);
        Ok(OwnStages {
            operands: vec![0],
            kernel: Kernel {
                locals: vec![Local {
                    dtype: w.dtype,
                    shape: vec![elements, outputs],
                }],
                outer: vec![w.shape[1].clone()],
                parts: vec![Part::Stage(made), Part::Stage(written)],
..Kernel::of([w], results)
},
        })
    }
    fn is_fused(&self) -> bool {
        true
    }
}
