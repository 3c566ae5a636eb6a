//! Tensors of a model's file, and those of 4 and 2 bits among them: a large one stays packed, and is unpacked by operators
//! that whatever reads it does with the rest, so that the artefact holds what the file holds.
//!
//! ```text
//! i4[64, 256] in 8192 bytes  -->  u8[64, 128, 1] spread to [64, 128, 2], shifted left by [4, 0], as i8 shifted right by 4,
//!                                 as i4, reshaped to [64, 256]
//! ```

use super::builder::{Builder, One, SMALL};
use super::error::Fail;
use super::tensor;
use brolga_ir::{Attr, Constant, DType, Dim, Tensor};
use onnx_protobuf::TensorProto;

impl Builder<'_> {
    /// The value of a TensorProto.
    ///
    /// # Errors
    /// See [`tensor::constant`]; an element type that the IR lacks is unsupported.
    pub fn tensor(&mut self, t: &TensorProto) -> One {
        let fail = |e: String| match e.starts_with("element type") {
            true => Fail::Unsupported(e),
            false => Fail::Bad(e),
        };
        let packed = tensor::packed(t, self.files, self.limit).map_err(fail)?;
        match packed.filter(|(_, _, shape)| shape.iter().product::<usize>() > SMALL) {
            Some((bytes, dtype, shape)) => self.unpack(bytes, dtype, &shape),
            None => {
                let c = tensor::constant(t, self.files, self.limit).map_err(fail)?;
                Ok(self.constant(c))
            }
        }
    }

    /// The elements of a small type that packed bytes hold, the first one in the lowest bits.
    fn unpack(&mut self, bytes: Constant, dtype: DType, shape: &[usize]) -> One {
        let bits = dtype.packed_bits();
        let each = 8 / bits;
        // Where no byte holds elements of two rows, rows stay apart.
        let rows = shape.split_last().filter(|(last, _)| last.is_multiple_of(each));
        let mut wide: Vec<Dim> = match rows {
            Some((last, outer)) => outer.iter().chain([&(last / each)]).map(|&n| n.into()).collect(),
            None => bytes.ty.shape.clone(),
        };
        let v = self.constant(bytes);
        let axis = wide.len();
        let v = self.reshape(v, [&wide[..], &[Dim::ONE]].concat())?;
        wide.push(each.into());
        let v = self.spread(v, &wide)?;
        let at = |i: usize| match dtype.stored() {
            // To the top of a byte, from where the sign comes down with it.
            DType::I8 => 8 - bits - bits * i,
            _ => bits * i,
        };
        let places: Vec<u8> = (0..each).map(|i| at(i) as u8).collect();
        let places = self.dense(Tensor::new(DType::U8, vec![each], places)?);
        let v = match dtype.stored() {
            DType::I8 => {
                let v = self.map("shift_left", &[v, places])?;
                let v = self.op("bitcast", &[Attr::DType(DType::I8)], &[v])?;
                self.map_num("shift_right", v, 8 - bits as i64)?
            }
            _ => {
                let v = self.map("shift_right", &[v, places])?;
                self.map_num("bitwise_and", v, (1i64 << bits) - 1)?
            }
        };
        let v = self.op("bitcast", &[Attr::DType(dtype)], &[v])?;
        let extents: Vec<Dim> = shape.iter().map(|&n| n.into()).collect();
        if rows.is_some() {
            return self.reshape(v, extents);
        }
        // The last byte may hold fewer.
        let whole = &wide[axis - 1] * &wide[axis];
        let v = self.reshape(v, vec![whole])?;
        let v = self.slice_axis(v, 0, Dim::ZERO, brolga_ir::dim::product(&extents))?;
        self.reshape(v, extents)
    }
}
