//! Which slices of a constant are zero.

use brolga_ir::ops::{Along, Role};
use brolga_ir::{ConstData, Constant, DType, Def, Graph, Value, dim};

/// A flag for every position along an axis.
pub type Flags = Vec<bool>;

/// Where the slices of a value across `axis` are known to be zero: of constants, and of what casts, turns, reshapes or spreads them.
/// `None` where nothing is known.
pub fn zeros(g: &Graph, v: Value, axis: usize) -> Option<Flags> {
    let (node, _) = match g.def(v) {
        Def::Input(_) => return None,
        Def::Const(c) => return of_constant(&g.constants[c as usize], axis),
        Def::Node(n, k) => (&g.nodes[n as usize], k),
    };
    let &x = node.inputs.first()?;
    if node.inputs.len() > 1 || matches!(node.op.role(), Role::Map(f) if !f.is_cast()) {
        return None;
    }
    match node.op.along(g.ty(x), g.ty(v), axis) {
        Along::Axis(a) => zeros(g, x, a),
        Along::Spread => Some(vec![zeros(g, x, axis)?[0]; g.ty(v).shape[axis].as_const()? as usize]),
        Along::Mixed => None,
    }
}

fn of_constant(c: &Constant, axis: usize) -> Option<Flags> {
    let shape = dim::constants(&c.ty.shape).filter(|s| !s.contains(&0))?;
    match &c.data {
        ConstData::Splat(x) => Some(vec![x.f64() == 0.0; shape[axis]]),
        ConstData::Dense(t) => slices(c.ty.dtype, t.bytes(), &shape, axis),
        ConstData::File { source, offset } => {
            let n = shape.iter().product::<usize>() * c.ty.dtype.bytes();
            slices(c.ty.dtype, &source.bytes()[*offset..offset + n], &shape, axis)
        }
    }
}

/// Reads each slice up to its first element that is not zero, and no slice again that has one.
fn slices(dtype: DType, bytes: &[u8], shape: &[usize], axis: usize) -> Option<Flags> {
    let zero: fn(&[u8]) -> bool = match (dtype.is_float(), dtype.bytes()) {
        (true, 2) => |b| u16::from_le_bytes([b[0], b[1]]) << 1 == 0,
        (true, 4) => |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) << 1 == 0,
        (true, 8) => |b| b.iter().take(7).all(|&x| x == 0) && b[7] & 0x7f == 0,
        _ => return None,
    };
    let size = dtype.bytes();
    let inner = shape[axis + 1..].iter().product::<usize>() * size;
    let outer: usize = shape[..axis].iter().product();
    let mut left: Vec<usize> = (0..shape[axis]).collect();
    for o in 0..outer {
        if left.is_empty() {
            break;
        }
        left.retain(|&i| {
            bytes[(o * shape[axis] + i) * inner..][..inner]
                .chunks_exact(size)
                .all(zero)
        });
    }
    let mut flags = vec![false; shape[axis]];
    left.into_iter().for_each(|i| flags[i] = true);
    Some(flags)
}
