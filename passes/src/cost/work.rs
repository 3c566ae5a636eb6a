//! How much a loop kernel computes, and which bytes of its parameters it must touch.
//!
//! **What counts.** An addition, a product, a division, a remainder, a sign, a minimum or maximum, a rounding, a root is one operation, a
//! fused multiply-add two; a tile is two for each product of its rows, columns and steps, partial blocks as they are. The operations
//! are those that the loops do: a sum of a point that padding fills counts, what a schedule computes twice counts twice, an exponential is
//! the polynomial that it is expanded to. Operations on integers are counted apart, shifts and bits among them.
//!
//! **What does not.** Comparisons, choices, conversions, indices, and what stands behind a `rarely`.
//!
//! **Bytes** are those of the parameters' elements that are read or written at least once, however often: the traffic that no cache
//! saves. What the kernel reads back of its results, and its scratch, is none. Where it cannot be told which elements are met twice (indices
//! from data, footprints that overlap), no fewer are counted than there can be, and never more than the buffer has.

use super::footprint::Footprint;
use super::nest::{Nest, Node, size};
use brolga_ir::index::{Ix, Var};
use brolga_ir::loops::{self, BLOCK, Buf, Expr, LoopKind, PANEL, Scope, Stmt};
use brolga_ir::program::Rows;
use brolga_ir::scalar::Prim;
use brolga_ir::{DType, Dim};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// What a kernel does in one call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// Operations on floats.
    pub flops: f64,
    /// Operations on integers.
    pub int_ops: f64,
    /// Bytes of parameters that are read.
    pub bytes_read: f64,
    /// Bytes of parameters that are written.
    pub bytes_written: f64,
    /// Iterations of parallel loops.
    pub parallel: f64,
    /// How often a parallel loop is started: 1, or the rounds of the loops around those of a kernel that forks.
    pub forks: f64,
    /// False where a size had no value, and counted as 1, or where data decide what runs.
    pub exact: bool,
}

impl Work {
    /// Nothing to do.
    pub const NONE: Work = Work {
        flops: 0.0,
        int_ops: 0.0,
        bytes_read: 0.0,
        bytes_written: 0.0,
        parallel: 0.0,
        forks: 0.0,
        exact: true,
    };

    /// Operations on floats and integers.
    pub fn ops(&self) -> f64 {
        self.flops + self.int_ops
    }

    /// Bytes read and written.
    pub fn bytes(&self) -> f64 {
        self.bytes_read + self.bytes_written
    }
}

impl std::ops::Add for Work {
    type Output = Work;
    fn add(self, o: Work) -> Work {
        Work {
            flops: self.flops + o.flops,
            int_ops: self.int_ops + o.int_ops,
            bytes_read: self.bytes_read + o.bytes_read,
            bytes_written: self.bytes_written + o.bytes_written,
            parallel: self.parallel + o.parallel,
            forks: self.forks + o.forks,
            exact: self.exact && o.exact,
        }
    }
}

/// The work of a kernel under the symbols' values.
pub fn work(kernel: &loops::Kernel, sizes: &dyn Fn(&str) -> Option<i64>) -> Work {
    of_nest(&Nest::new(kernel, sizes), sizes)
}

/// The work of rows that are copied.
pub fn copied(rows: &Rows, sizes: &dyn Fn(&str) -> Option<i64>) -> Work {
    let exact = Cell::new(true);
    let number = |d: &Dim| size(d, sizes, &exact).max(0) as f64;
    let (count, bytes) = (number(&rows.count), number(&rows.bytes));
    Work {
        bytes_read: count * bytes,
        bytes_written: count * bytes,
        parallel: count,
        forks: 1.0,
        exact: exact.get(),
        ..Work::NONE
    }
}

/// [`work`] of a kernel that is counted already.
pub(super) fn of_nest(nest: &Nest, sizes: &dyn Fn(&str) -> Option<i64>) -> Work {
    let mut out = Work {
        exact: nest.exact,
        ..Work::NONE
    };
    let mut accesses: FxHashMap<Buf, Vec<Footprint>> = FxHashMap::default();
    nest.visit(&mut |n| {
        if n.times == 0.0 {
            return;
        }
        match n.stmt {
            Stmt::For {
                kind: LoopKind::Parallel(_),
                ..
            } => {
                out.parallel += n.inside;
                out.forks += n.times;
            }
            Stmt::Set(r, Expr::Prim(p, args)) if n.usual => {
                let operand = nest.kernel.reg(args[p.typed()]).dtype;
                let ops = operations(*p) * n.times * n.values(nest.kernel.reg(*r).lanes);
                match operand {
                    DType::Bool => {}
                    d if d.is_float() => out.flops += ops,
                    _ => out.int_ops += ops,
                }
            }
            Stmt::Tile(t) => {
                let ops = 2.0 * n.inside;
                match t.kind.dtypes()[2].is_float() {
                    true => out.flops += ops,
                    false => out.int_ops += ops,
                }
            }
            _ => {}
        }
        for_each_access(n, nest, sizes, &|_| true, &mut |b, f| {
            accesses.entry(b).or_default().push(f);
        });
    });
    for (b, all) in &accesses {
        let buffer = nest.kernel.buffer(*b);
        let len = size(&buffer.len, sizes, &Cell::new(true));
        let bytes = Footprint::union(all, len) as f64 * buffer.dtype.bytes() as f64;
        match buffer.scope {
            Scope::In => out.bytes_read += bytes,
            Scope::Out => out.bytes_written += bytes,
            Scope::Worker | Scope::Kernel | Scope::Shared | Scope::Private => {}
        }
    }
    out
}

/// Calls `f` with every buffer that a statement itself reads or writes, and where, while the loops run that `moves` is true for.
pub(super) fn for_each_access(
    node: &Node,
    nest: &Nest,
    sizes: &dyn Fn(&str) -> Option<i64>,
    moves: &dyn Fn(Var) -> bool,
    f: &mut dyn FnMut(Buf, Footprint),
) {
    let of = |ix: &Ix| Footprint::of(ix, nest, sizes, moves);
    match node.stmt {
        Stmt::Set(_, Expr::Load { buffer, index, .. }) | Stmt::Store { buffer, index, .. } => f(*buffer, of(index)),
        Stmt::Tile(t) => {
            let [rows, cols, k, n0, n1] = node.largest;
            let mut operand = |b: Buf, base: &Ix, steps: &[(i64, i64)]| {
                let at = of(base);
                f(b, Footprint::from_steps(at.low, [&at.steps, steps].concat()));
            };
            let by = |ix: &Ix| of(ix).low;
            let [(_, by0), (_, by1)] = &t.blocks;
            let left = [(by(&t.a_row), rows), (by(&t.a_k), k), (by(by0), n0), (by(by1), n1)];
            operand(t.a, &t.a_index, &left);
            // A panel as it lies: groups of steps one behind the other, as often as there are outer sums.
            let panel = t.kind.panel_elements(k);
            operand(t.b, &t.b_index, &[(1, panel * n0 * n1 * t.panels())]);
            operand(t.c, &t.c_index, &[(by(&t.c_row), rows), (1, cols)]);
            if let Some(s) = &t.scales {
                let blocks = k / BLOCK;
                for b in [s.a, s.offset].into_iter().chain(s.minima.map(|m| m.total)) {
                    operand(b, &s.a_index, &[(1, rows), (by(&s.a_block), blocks)]);
                }
                for b in [s.b].into_iter().chain(s.minima.map(|m| m.b)) {
                    operand(b, &s.b_index, &[(1, PANEL * blocks)]);
                }
            }
        }
        _ => {}
    }
}

/// Operations of a primitive.
fn operations(p: Prim) -> f64 {
    use Prim::*;
    match p {
        Fma => 2.0,
        Add | Sub | Mul | Div | Rem | Neg | Abs | Min | Max | Floor | Ceil | Trunc | Round | Sqrt => 1.0,
        And | Or | Xor | Not | Shl | Shr => 1.0,
        Eq | Ne | Lt | Le | Select | Rarely | Cast(_) | Bitcast(_) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> loops::Kernel {
        let k: loops::Kernel = text.parse().expect("a kernel");
        k.verify().expect("a valid kernel");
        k
    }

    #[test]
    fn a_copy() {
        let k = parse(
            "loops @copy(b0: f32[n] in, b1: f32[n] out) symbols(n) {
                for i0 parallel 0..floordiv(n, 16) {
                    for i1 vector 0..16 { r0: f32 = load b0[16*i0 + i1] store b1[16*i0 + i1] = r0 }
                }
            }",
        );
        let w = work(&k, &|_| Some(160));
        let expected = Work {
            bytes_read: 640.0,
            bytes_written: 640.0,
            parallel: 10.0,
            forks: 1.0,
            ..Work::NONE
        };
        assert_eq!(w, expected);
        assert_eq!((w.ops(), w.bytes()), (0.0, 1280.0));
        // A tail that no loop does is not touched.
        assert_eq!(work(&k, &|_| Some(165)).bytes_read, 640.0);
        assert!(!work(&k, &|_| None).exact);
    }

    #[test]
    fn a_matrix_product_with_a_partial_tile() {
        // [20, 16] x [16, 40]: two panels, of which the second has 8 columns.
        let k = parse(
            "loops @product(b0: f32[320] in, b1: f32[1024] in, b2: f32[800] out) {
                for i0 parallel 0..2 {
                    for i1 serial 0..2 {
                        tile b2[560*i0 + 32*i1; row 40] = b0[224*i0; row 16, k 1] * b1[512*i1]
                            sum(1 by 0, 1 by 0, 16) rows least(20 - 14*i0, 14) max 14 cols least(40 - 32*i1, 32)
                    }
                }
            }",
        );
        let w = work(&k, &|_| None);
        assert_eq!(w.flops, 2.0 * 20.0 * 16.0 * 40.0);
        assert_eq!(w.bytes_read, 4.0 * (20.0 * 16.0 + 2.0 * 16.0 * 32.0));
        assert_eq!(w.bytes_written, 4.0 * 20.0 * 40.0);
        assert_eq!((w.parallel, w.forks, w.int_ops, w.exact), (2.0, 1.0, 0.0, true));
    }

    #[test]
    fn a_tile_of_bytes_counts_integers() {
        let k = parse(
            "loops @bytes(b0: u8[40] in, b1: i8[384] in, b2: i32[128] out) {
                for i0 parallel 0..1 {
                    tile u8i8 b2[0; row 32] = b0[0; row 10, k 1] * b1[0]
                        sum(1 by 0, 1 by 0, 10) rows 4 max 4 cols 32
                }
            }",
        );
        let w = work(&k, &|_| None);
        assert_eq!((w.flops, w.int_ops), (0.0, 2.0 * 4.0 * 10.0 * 32.0));
        // Ten steps of a panel are three groups of four.
        assert_eq!((w.bytes_read, w.bytes_written), (40.0 + 384.0, 512.0));
    }

    #[test]
    fn a_softmax() {
        // Two rows of 32: the maximum, the sum of squares instead of exponentials, the quotients.
        let k = parse(
            "loops @softmax(b0: f32[64] in, b1: f32[64] out) {
                for i0 parallel 0..2 {
                    r0: f32x8 = const f32 0.0
                    for i1 serial 0..4 {
                        for i2 vector 0..8 {
                            r1: f32 = load b0[32*i0 + 8*i1 + i2]
                            r2: f32 = mul r1 r1
                            r3: bool = lt r1 r2
                            r4: f32 = sqrt r1
                            r5: f32 = rarely r3 r4 r2
                            r0: f32x8 = fma r5 r5 r0
                        }
                    }
                    r6: f32 = lane r0 0
                    r7: f32 = lane r0 1
                    r8: f32 = add r6 r7
                    for i3 serial 0..4 {
                        for i4 vector 0..8 {
                            r9: f32 = load b0[32*i0 + 8*i3 + i4]
                            r10: f32 = div r9 r8
                            store b1[32*i0 + 8*i3 + i4] = r10
                        }
                    }
                }
            }",
        );
        let w = work(&k, &|_| None);
        // Of each element: a product, a multiply-add and a division; of each row one addition; the root is rare.
        assert_eq!(w.flops, 64.0 * 4.0 + 2.0);
        assert_eq!((w.bytes_read, w.bytes_written, w.parallel), (256.0, 256.0, 2.0));
    }

    #[test]
    fn a_strided_convolution_of_data_from_indices() {
        // Every second of 9 pixels, windows of 3, and a table of which 4 rows of 8 are read.
        let k = parse(
            "loops @conv(b0: f32[9] in, b1: f32[3] in, b2: i64[4] in, b3: f32[80] in, b4: f32[32] out) {
                for i0 parallel 0..4 {
                    r0: f32 = const f32 0.0
                    for i1 serial 0..3 {
                        r1: f32 = load b0[2*i0 + i1]
                        r2: f32 = load b1[i1]
                        r0: f32 = fma r1 r2 r0
                    }
                    r3: i64 = load b2[i0]
                    for i2 vector 0..8 {
                        r4: f32 = load b3[8*r3 + i2]
                        r5: f32 = add r4 r0
                        store b4[8*i0 + i2] = r5
                    }
                }
            }",
        );
        let w = work(&k, &|_| None);
        assert_eq!(w.flops, 4.0 * 3.0 * 2.0 + 32.0);
        assert_eq!(w.bytes_read, 4.0 * (9.0 + 3.0 + 32.0) + 8.0 * 4.0);
        assert_eq!(w.bytes_written, 128.0);
    }

    #[test]
    fn parallel_loops_inside_of_serial_ones() {
        let k = parse(
            "loops @rounds(b0: f32[8] in, b1: f32[8] out) {
                for i0 serial 0..5 {
                    for i1 parallel 0..8 {
                        r0: f32 = load b0[i1]
                        r1: f32 = neg r0
                        store b1[i1] = r1
                    }
                }
            }",
        );
        let w = work(&k, &|_| None);
        assert_eq!((w.flops, w.parallel, w.forks), (40.0, 40.0, 5.0));
        assert_eq!((w.bytes_read, w.bytes_written), (32.0, 32.0));
    }
}
