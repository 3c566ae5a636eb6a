//! Right operands of contractions in panels `[batch…, ceil(N/32), K, 32]`, the last one padded with zeros: the layout that
//! register tiles read ([`Layout::panels`]).

use super::flat::look_up;
use super::knobs::settle;
use super::nest::{Nest, collapse};
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Buffer, Expr, Grain, Kernel, LoopKind, PANEL, RegInfo, Scope, Stmt};
use brolga_ir::program::{Slot, Storage};
use brolga_ir::schedule::Knobs;
use brolga_ir::structured::Operand;
use brolga_ir::{DType, Dim, Layout, Type};

/// Lanes of the loop that packs: two vectors make a row of a panel.
const LANES: i64 = 16;

/// How the right operand has to be packed: its place in memory, and what moves it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packing {
    /// Batch extents and strides in the operand.
    pub batch: Vec<(Dim, Dim)>,
    /// Extents and strides of the summed dimensions, in order.
    pub steps: Vec<(Dim, Dim)>,
    /// Extent and stride of the column.
    pub column: (Dim, Dim),
    /// The first element's index.
    pub offset: Dim,
}

impl Packing {
    /// The logical shape `[batch…, K, N]` of the panels.
    pub fn shape(&self) -> Vec<Dim> {
        let mut s: Vec<Dim> = self.batch.iter().map(|b| b.0.clone()).collect();
        s.push(brolga_ir::dim::product(self.steps.iter().map(|s| &s.0)));
        s.push(self.column.0.clone());
        s
    }

    /// A slot for the panels.
    pub fn slot(&self, dtype: DType, storage: Storage) -> Slot {
        let shape = self.shape();
        Slot {
            layout: Layout::panels(shape.len()).expect("rows and columns"),
            ty: Type::new(dtype, shape),
            storage,
        }
    }

    /// The kernel that packs an operand for a kernel that reads it: parameter 0 is the operand, parameter 1 the panels.
    ///
    /// ```text
    /// for (batch, panel, k, j) { panels[batch, panel, k, j] = 32*panel + j < N ? operand[…] : 0 }
    /// ```
    pub fn kernel(&self, operand: &Operand, reader: &Kernel, knobs: &Knobs) -> Kernel {
        let dtype = operand.ty.dtype;
        let shape = self.shape();
        let (n, k) = (shape[shape.len() - 1].clone(), shape[shape.len() - 2].clone());
        let panels = n.ceil_div(&Dim::Const(PANEL));
        let len = self.slot(dtype, Storage::Computed).elements();
        let mut next = 0;
        let mut var = || {
            next += 1;
            Var(next - 1)
        };
        let (p, panel) = (var(), var());
        let batch: Vec<(Var, Dim)> = self.batch.iter().map(|(d, _)| (var(), d.clone())).collect();
        let steps: Vec<(Var, Dim)> = self.steps.iter().map(|(d, _)| (var(), d.clone())).collect();
        let (block, lane) = (var(), var());
        let order: Vec<(Var, Dim)> = batch.iter().cloned().chain([(panel, panels.clone())]).collect();
        let (total, map) = collapse(&order, p);
        let look = |v: Var| look_up(&map, v);
        let j = &Ix::var(block).scale(&Dim::Const(LANES)) + &Ix::var(lane);
        let column = &look(panel).scale(&Dim::Const(PANEL)) + &j;
        let mut from = &Ix::constant(self.offset.clone()) + &column.scale(&self.column.1);
        for ((v, _), (_, s)) in batch.iter().zip(&self.batch).chain(steps.iter().zip(&self.steps)) {
            from = &from + &look(*v).scale(s);
        }
        let step = steps
            .iter()
            .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &Ix::var(*v));
        let b = batch.iter().fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &look(*v));
        let panel_at = &b.scale(&panels) + &look(panel);
        let to = &(&panel_at.scale(&k) + &step).scale(&Dim::Const(PANEL)) + &j;
        let whole = n.as_const().is_some_and(|n| n % PANEL == 0);
        let guard = if whole {
            vec![]
        } else {
            vec![Bound {
                index: column,
                extent: n,
            }]
        };
        let r = Reg(0);
        let inner = vec![
            Stmt::Set(
                r,
                Expr::Load {
                    buffer: Buf(0),
                    index: from,
                    guard,
                    fill: 0,
                },
            ),
            Stmt::Store {
                buffer: Buf(1),
                index: to,
                value: r,
            },
        ];
        let vector = Stmt::For {
            var: lane,
            kind: LoopKind::Vector,
            extent: Ix::constant(LANES),
            body: inner,
        };
        let halves = Stmt::For {
            var: block,
            kind: LoopKind::Serial,
            extent: Ix::constant(PANEL / LANES),
            body: vec![vector],
        };
        let loops: Vec<(Var, Ix)> = steps.into_iter().map(|(v, d)| (v, Ix::constant(d))).collect();
        let body = Nest::serial(&loops, vec![halves]);
        let kernel = Kernel {
            name: format!("pack_{}", reader.name),
            symbols: reader.symbols.clone(),
            buffers: vec![
                Buffer {
                    dtype,
                    len: operand.elements(),
                    scope: Scope::In,
                },
                Buffer {
                    dtype,
                    len,
                    scope: Scope::Out,
                },
            ],
            regs: vec![RegInfo { dtype, lanes: 1 }],
            pooled: false,
            body: vec![Stmt::For {
                var: p,
                kind: LoopKind::Parallel(Grain::ALWAYS),
                extent: total,
                body,
            }],
        };
        settle(kernel, knobs)
    }
}
