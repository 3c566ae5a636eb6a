//! `decode_blocks{format}(bytes) -> w`: the elements of rows in one of llama.cpp's formats ([`BlockFormat`]), which its name says. With `B` blocks
//! of so many bytes in a row, `bytes` is u8 `[N, B · bytes]` and `w` f32 `[N, B · elements]`.

use super::{Accuracy, AttrKind, BlockFormat, Op, OpDef, OwnKernel, OwnStages, Role, Sample, block_format};
use crate::index::{Ix, Var};
use crate::loops::BLOCK;
use crate::structured::{Kernel, Part, Place};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "decode_blocks"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("format", AttrKind::Word)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        let [rows, blocks] = BlockFormat::of(op)?.extents(inputs)?;
        Ok(vec![Type::new(DType::F32, vec![rows, &blocks * BLOCK])])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let format = BlockFormat::of(op)?;
        let values = format.decode(inputs[0].bytes());
        let shape = inputs[0].shape();
        let columns = shape[1] / format.bytes() * format.elements();
        let w = Tensor::from_fn(DType::F32, &[shape[0], columns], |p| Number::Float(values[p].into()));
        Ok(vec![w])
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        BlockFormat::samples()
    }
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let format = BlockFormat::of(op)?;
        let [rows, blocks] = format.extents(inputs)?;
        let k = &Ix::var(Var(1)).scale(&Dim::Const(BLOCK)) + &Ix::var(Var(2));
        let to = (Place::Operand(1), vec![Ix::var(Var(0)), k]);
        let [scale, least] = [0, 1].map(Place::Local);
        let stages = [
            block_format::numbers(format, scale, least),
            block_format::decoded(format, scale, least, to),
        ];
        Ok(OwnStages {
            operands: vec![0],
            kernel: Kernel {
                locals: format.locals(),
                outer: vec![rows, blocks],
                parts: stages.into_iter().map(Part::Stage).collect(),
..Kernel::of(inputs, results)
},
        })
    }
}
