//! Where a tile's operands lie: rows of the left one and of the result, panels of the right one.

use super::{PANEL, TileArgs, TileKey};
use crate::x86::vir::{Function, G, GeneralOp, Mem, Scalar};

/// How far panels side by side lie apart, where there are several.
pub(super) struct Panels {
    stride: Option<G>,
    triple: Option<G>,
}

impl Panels {
    /// A panel holds the steps of all blocks.
    pub(super) fn new(f: &mut Function, key: TileKey, field: &dyn Fn(usize) -> Mem) -> Panels {
        let panels = key.width() / PANEL;
        let [_, right, _] = key.kind.dtypes();
        let stride = (panels > 1).then(|| {
            let steps = f.load_general(field(TileArgs::K));
            for blocks in [TileArgs::BLOCKS0, TileArgs::BLOCKS1] {
                f.general_op(GeneralOp::Mul, steps, Scalar::Mem(field(blocks)));
            }
            f.general_op(GeneralOp::Mul, steps, Scalar::Imm((PANEL * right.bytes()) as i32));
            steps
        });
        let triple = stride.filter(|_| panels > 3).map(|s| f.lea(Mem::indexed(s, s, 2, 0)));
        Panels { stride, triple }
    }

    pub(super) fn at(&self, first: G, panel: usize, disp: i32) -> Mem {
        let (index, scale) = match panel {
            0 => return Mem::at(first, disp),
            3 => (self.triple, 1),
            scale => (self.stride, scale as u8),
        };
        Mem::indexed(
            first,
            index.expect("the width says how many panels there are"),
            scale,
            disp,
        )
    }
}

/// Addresses of rows at a stride that is known at run time: one base pointer for seven rows, the others reached by a
/// scaled index (0, s, 2s, 3s, 4s, 5s, 2*3s), so that 28 rows take seven registers.
pub(super) struct Rows {
    bases: Vec<G>,
    stride: G,
    triple: Option<G>,
    quintuple: Option<G>,
}

impl Rows {
    pub(super) const PER_BASE: usize = 7;

    pub(super) fn new(f: &mut Function, first: G, stride: Mem, rows: u8) -> Rows {
        let stride = f.load_general(stride);
        let triple = (rows > 3).then(|| f.lea(Mem::indexed(stride, stride, 2, 0)));
        let quintuple = (rows > 5).then(|| f.lea(Mem::indexed(stride, stride, 4, 0)));
        let mut bases = vec![first];
        if let Some(triple) = triple {
            while bases.len() < usize::from(rows).div_ceil(Self::PER_BASE) {
                let next = f.lea(Mem::indexed(bases[bases.len() - 1], triple, 2, 0));
                f.general_op(GeneralOp::Add, next, Scalar::Reg(stride));
                bases.push(next);
            }
        }
        Rows {
            bases,
            stride,
            triple,
            quintuple,
        }
    }

    pub(super) fn at(&self, row: usize, disp: i32) -> Mem {
        let base = self.bases[row / Self::PER_BASE];
        let (index, scale) = match row % Self::PER_BASE {
            0 => return Mem::at(base, disp),
            3 => (self.triple, 1),
            5 => (self.quintuple, 1),
            6 => (self.triple, 2),
            scale => (Some(self.stride), scale as u8),
        };
        Mem::indexed(base, index.expect("multiples are made for every row"), scale, disp)
    }

    /// Moves every row.
    pub(super) fn advance(&self, f: &mut Function, op: GeneralOp, by: Scalar) {
        for base in &self.bases {
            f.general_op(op, *base, by);
        }
    }
}
