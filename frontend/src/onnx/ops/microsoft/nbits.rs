//! Weights of 2, 4 or 8 bits in blocks with a scale and a zero point each, packed into bytes: `MatMulNBits`, `GatherBlockQuantized`.
//!
//! The bytes stay what they are: the kernel that multiplies reads them, shifts, masks and scales.

use super::*;
use brolga_ir::{DType, Dim, Tensor, dim::product};

/// The largest extent and block.
const MOST: i64 = 1 << 40;

/// The attribute `bits`, as the number of values in a byte.
fn values_a_byte(ctx: &NodeCtx<'_>) -> Result<i64, Fail> {
    match ctx.int("bits", 4)? {
        bits @ (2 | 4 | 8) => Ok(8 / bits),
        bits => unsupported(format!("{bits} bits, expected 2, 4 or 8")),
    }
}

impl Builder<'_> {
    /// The values in bytes, the lowest bits first, along a new axis behind `axis`.
    ///
    /// # Errors
    /// Never for bytes.
    fn unpacked(&mut self, bytes: Value, axis: usize, values: i64) -> One {
        let bytes = self.unsqueeze(bytes, &[axis + 1])?;
        if values == 1 {
            return Ok(bytes);
        }
        let mut wide = self.shape(bytes);
        wide[axis + 1] = Dim::Const(values);
        let bits = 8 / values;
        let rank = wide.len();
        let shifts: Vec<i64> = (0..values).map(|i| i * bits).collect();
        let shifts = Tensor::from_i64(&[shifts.len()], &shifts).cast(DType::U8);
        let mut own = vec![Dim::ONE; rank];
        own[axis + 1] = Dim::Const(values);
        let shifts = self.dense(shifts);
        let shifts = self.reshape(shifts, own)?;
        let (bytes, shifts) = (self.spread(bytes, &wide)?, self.spread(shifts, &wide)?);
        let low = self.op("shift_right", &[], &[bytes, shifts])?;
        self.map_num("bitwise_and", low, (1 << bits) - 1)
    }
}

/// A parameter `[columns, blocks]`, which may be packed along the blocks as weights are.
fn parameter(graph: &mut Builder<'_>, v: Value, columns: &Dim, blocks: &Dim, values: i64) -> One {
    let packed = graph.dtype(v) == DType::U8;
    let values = if packed { values } else { 1 };
    let bytes = blocks.ceil_div(&Dim::Const(values));
    let v = graph.reshape_if_equal(v, vec![columns.clone(), bytes.clone()])?;
    if !packed {
        return graph.cast(v, DType::F32);
    }
    let v = graph.unpacked(v, 1, values)?;
    let v = graph.reshape(v, vec![columns.clone(), &bytes * values])?;
    graph.slice_axis(v, 1, Dim::ZERO, blocks.clone())
}

/// `MatMulNBits`: `A ((q - zero) scale)ᵀ + bias` with `q` of `[N, blocks, bytes]`, packed along K.
pub fn matmul(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 6)?;
    let values = values_a_byte(ctx)?;
    let attr = |name: &str| -> Result<i64, Fail> {
        ctx.opt_int(name)?
            .filter(|n| (1..=MOST).contains(n))
            .ok_or_else(|| Fail::Bad(format!("attribute `{name}` is missing, below 1 or above {MOST}")))
    };
    let (n, k, block) = (attr("N")?, attr("K")?, attr("block_size")?);
    if ctx.int("weight_prepacked", 0)? != 0 {
        return unsupported("weights that are packed for another machine (weight_prepacked)");
    }
    if ctx.optional(4).is_some() {
        return unsupported("g_idx");
    }
    if block % values != 0 {
        return Err(Fail::Bad(format!("block_size {block}, expected whole bytes")));
    }
    let blocks = (k + block - 1) / block;
    let (columns, bytes) = (Dim::Const(n), Dim::Const(block / values));
    let weight = [columns.clone(), Dim::Const(blocks), bytes.clone()];
    let weight = graph.fit_shape(ctx.input(1)?, &weight)?;
    let mut x = ctx.input(0)?;
    let shape = graph.shape(x);
    let Some((_, lead)) = shape.split_last() else {
        return Err(Fail::Bad(format!("{}, expected rank 1 or more", graph.ty(x))));
    };
    let rows = product(lead);
    x = graph.fit(x, lead.len(), &Dim::Const(k))?;
    x = graph.reshape(x, vec![rows.clone(), Dim::Const(k)])?;
    // The last block may be cut short.
    let none = vec![Dim::ZERO; 2];
    x = graph.pad(
        x,
        none,
        vec![Dim::ZERO, Dim::Const(blocks * block - k)],
        vec![0; 2],
        0.0,
    )?;
    if values > 1 {
        // The elements of a block in the order in which bytes hold their weights.
        let apart = vec![rows.clone(), Dim::Const(blocks), bytes, Dim::Const(values)];
        x = graph.reshape(x, apart)?;
        x = graph.transpose(x, &[0, 1, 3, 2])?;
        x = graph.reshape(x, vec![rows.clone(), Dim::Const(blocks * block)])?;
    }
    let blocks = Dim::Const(blocks);
    let scale = parameter(graph, ctx.input(2)?, &columns, &blocks, values)?;
    let mut operands = vec![x, weight, scale];
    if let Some(z) = ctx.optional(3) {
        operands.push(parameter(graph, z, &columns, &blocks, values)?);
    }
    let bits = 8 / values;
    let usual = (1i64 << (bits - 1)) as f64;
    let mut y = graph.bits_product(&operands, &rows, bits, usual)?;
    y = graph.reshape(y, [lead, &[columns]].concat())?;
    if let Some(bias) = ctx.optional(5) {
        y = graph.map("add", &[y, bias])?;
    }
    one(Ok(y))
}

/// `GatherBlockQuantized`: rows of a table, dequantised. Bytes are packed along the last axis.
pub fn gather(graph: &mut Builder<'_>, ctx: &NodeCtx<'_>) -> Outcome {
    ctx.arity(3, 4)?;
    let (table, indices, scales) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    if graph.dtype(table) != DType::U8 {
        return unsupported(format!("a table of {}", graph.dtype(table)));
    }
    let values = values_a_byte(ctx)?;
    let rank = graph.rank(table);
    let block = ctx.int("block_size", 128)?;
    let along = node::axis(ctx.int("quantize_axis", 1)?, rank)?;
    let axis = node::axis(ctx.int("gather_axis", 0)?, rank)?;
    if axis != 0 || along == 0 || block < 1 || graph.rank(scales) != rank {
        return Err(Fail::Bad(format!(
            "gather_axis {axis}, quantize_axis {along}, block_size {block} and scales {} for a table {}, expected rows of blocks",
            graph.ty(scales),
            graph.ty(table)
        )));
    }
    // Rows are gathered while they are packed: a row of values and of what belongs to its blocks.
    let along_result = along + graph.rank(indices) - 1;
    let rows = |graph: &mut Builder<'_>, v: Value, packed: bool| {
        let v = graph.gather(0, v, indices)?;
        if !packed {
            return graph.cast(v, DType::F32);
        }
        let last = graph.rank(v) - 1;
        let mut shape = graph.shape(v);
        let v = graph.unpacked(v, last, values)?;
        shape[last] = &shape[last] * values;
        let v = graph.reshape(v, shape)?;
        graph.cast(v, DType::F32)
    };
    let along = along_result;
    let mut y = rows(graph, table, true)?;
    let shape = graph.shape(y);
    // A parameter of each block, for each of its values.
    let spread = |graph: &mut Builder<'_>, p: Value| {
        let blocks = shape[along].ceil_div(&Dim::Const(block));
        let p = graph.slice_axis(p, along, Dim::ZERO, blocks)?;
        let mut wide = graph.shape(p);
        wide.insert(along + 1, Dim::Const(block));
        let p = graph.unsqueeze(p, &[along + 1])?;
        let p = graph.spread(p, &wide)?;
        let mut flat = wide;
        let length = flat.remove(along + 1);
        flat[along] = &flat[along] * &length;
        let p = graph.reshape(p, flat)?;
        graph.slice_axis(p, along, Dim::ZERO, shape[along].clone())
    };
    let zero = match ctx.optional(3) {
        Some(z) => {
            let z = rows(graph, z, true)?;
            spread(graph, z)?
        }
        None => graph.scalar(DType::F32, (1i64 << (8 / values - 1)) as f64),
    };
    y = graph.map("sub", &[y, zero])?;
    let scale = rows(graph, scales, false)?;
    let scale = spread(graph, scale)?;
    one(graph.map("mul", &[y, scale]))
}
