//! `unpack_blocks{format}(bytes) -> q, scale[, minimum]`: rows in one of llama.cpp's formats ([`BlockFormat`]) as what
//! [`block_product`](super::block_product) multiplies with, which [`compress_blocks`](super::compress_blocks) describes. `bytes` is u8 `[N, bytes]`;
//! with `B` blocks of 32 elements in a row, `q` is u8 `[N, B, 32]`, or `[N, B, 16]` of 4 bits, `scale` and `minimum` are f16 `[N, B]`.
//!
//! | format | bits | what is made of it |
//! | --- | --- | --- |
//! | `q8_0`, `q4_0` | 8, 4 | the same integers and scales: exact |
//! | `q4_1`, `q4_k` | 4 | the same integers, the scale `d` or `d · s`, the minimum `8 · scale + m`, each rounded to f16 |
//! | `q5_0`, `q5_1`, `q5_k`, `q6_k` | 8 | the elements are rounded again, as `compress_blocks` does |
//!
//! On normally distributed weights the root of the summed squares of what is lost, over that of the elements, is 0.02 % for `q4_k` and 0.5 % for
//! the last four, whose formats themselves lose 3.6 (5 bits) and 1.8 % (6 bits).

use super::block_format::{self, Unpacked};
use super::{
    Accuracy, AttrKind, BlockFormat, Op, OpDef, OwnKernel, OwnStages, Role, Sample, compress_blocks,
};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::structured::{Kernel, Local, Part, Place, Stage};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "unpack_blocks"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("format", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let format = BlockFormat::of(op)?;
        let [rows, blocks] = format.extents(inputs)?;
        let each = vec![rows, blocks];
        let bytes = Dim::Const(BLOCK / 8 * format.unpacked_bits());
        let q = Type::new(DType::U8, [&each[..], &[bytes]].concat());
        let halves = vec![Type::new(DType::F16, each); 1 + usize::from(format.has_minima())];
        Ok([vec![q], halves].concat())
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let format = BlockFormat::of(op)?;
        let all = format.unpack(inputs[0].bytes());
        let shape = inputs[0].shape();
        let blocks = shape[1] / format.bytes() * format.elements() / BLOCK as usize;
        let bytes = (BLOCK / 8 * format.unpacked_bits()) as usize;
        let q: Vec<u8> = all.iter().flat_map(|b| b.0.iter().copied()).collect();
        let halves = |of: fn(&Unpacked) -> f32| {
            Tensor::from_fn(DType::F16, &[shape[0], blocks], |p| Number::Float(of(&all[p]).into()))
        };
        let mut out = vec![Tensor::new(DType::U8, vec![shape[0], blocks, bytes], q)?, halves(|b| b.1)];
        if format.has_minima() {
            out.push(halves(|b| b.2));
        }
        Ok(out)
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
    fn samples(&self) -> Vec<Sample> {
        BlockFormat::samples()
    }
}

/// Where a value of the 32 elements stands.
fn here() -> Vec<Ix> {
    vec![Ix::var(Var(0)), Ix::var(Var(1))]
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let format = BlockFormat::of(op)?;
        let [rows, blocks] = format.extents(inputs)?;
        let q = |count: Ix| (Place::Operand(1), [here(), vec![count]].concat());
        let scale = (Place::Operand(2), here());
        let (locals, stages): (Vec<Local>, Vec<Stage>) = if format.keeps_integers() {
            let least = (Place::Operand(3), here());
            let numbers = block_format::kept_numbers(format, scale, least);
            (vec![], vec![numbers, block_format::kept(format, q(Ix::var(Var(2))))])
        } else {
            let mut locals = format.locals();
            let [own_scale, own_least, elements] = [0, 1, 2].map(Place::Local);
            locals.push(Local {
                dtype: DType::F32,
                shape: vec![Dim::Const(BLOCK)],
            });
            let first = locals.len() as u32;
            let scalar = Local {
                dtype: DType::F32,
                shape: vec![],
            };
            locals.extend([scalar.clone(), scalar]);
            let mut stages = vec![
                block_format::numbers(format, own_scale, own_least),
                block_format::decoded(format, own_scale, own_least, (elements, vec![Ix::var(Var(2))])),
            ];
            stages.extend(compress_blocks::eight_of_local(2, first, scale, q(Ix::var(Var(2)))));
            (locals, stages)
        };
        Ok(OwnStages {
            operands: vec![0],
            kernel: Kernel {
                locals,
                outer: vec![rows, blocks],
                parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
        })
    }
}
