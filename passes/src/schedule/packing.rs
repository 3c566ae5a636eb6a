//! Right operands of contractions in panels `[batch…, ceil(N/32), K, 32]`, the last one padded: the layout that
//! register tiles read ([`Layout::panels`]). Where a kind of tiles interleaves steps, every run of them is padded to whole groups.

use super::flat::look_up;
use super::knobs::settle;
use super::nest::{Nest, collapse};
use brolga_ir::dim::product;
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Buffer, Expr, Grain, Kernel, LoopKind, PANEL, RegInfo, Scope, Stmt};
use brolga_ir::program::{Slot, Storage};
use brolga_ir::scalar::{Body, Inst, V};
use brolga_ir::schedule::Knobs;
use brolga_ir::structured::Operand;
use brolga_ir::{DType, Dim, Layout, TileKind, Type};

/// Lanes of the loop that packs: two vectors make a row of a panel.
const LANES: i64 = 16;

/// Batches from which on they alone are shared out.
const ENOUGH: i64 = 8;

/// Columns in vectors, as (first, lanes): whole ones, the last of which goes back over the one before it, or ever shorter ones.
fn pieces(columns: i64) -> Vec<(i64, i64)> {
    if columns >= LANES {
        let last = (columns > LANES).then_some((columns - LANES, LANES));
        return [(0, LANES)].into_iter().chain(last).collect();
    }
    let mut out = vec![];
    let mut done = 0;
    for lanes in [8, 4, 1] {
        while columns - done >= lanes {
            out.push((done, lanes));
            done += lanes;
        }
    }
    out
}

/// How the right operand has to be packed: its place in memory, and what moves it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Packing {
    /// The kind of tiles that read it.
    pub kind: TileKind,
    /// Batch extents and strides in the operand.
    pub batch: Vec<(Dim, Dim)>,
    /// Extents and strides of the summed dimensions, in order.
    pub steps: Vec<(Dim, Dim)>,
    /// How many of these, the last, are one run of steps; the others count runs.
    pub run: usize,
    /// Extent and stride of the column.
    pub column: (Dim, Dim),
    /// The first element's index.
    pub offset: Dim,
    /// What stands in the panels, where that is not what is read.
    pub prologue: Option<Prologue>,
}

/// How elements of panels are computed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Prologue {
    /// Of the operand's element, then of those beside it.
    pub body: Body,
    /// What is read beside the operand.
    pub beside: Vec<Beside>,
}

/// Another operand that elements of panels are computed of: how the dimensions of the packing move it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Beside {
    /// Which one.
    pub operand: Buf,
    /// Strides of the batch.
    pub batch: Vec<Dim>,
    /// Strides of the steps.
    pub steps: Vec<Dim>,
    /// The stride of the column.
    pub column: Dim,
    /// The first element's index.
    pub offset: Dim,
}

impl Packing {
    /// What is read beside the operand.
    pub fn beside(&self) -> &[Beside] {
        self.prologue.as_ref().map_or(&[], |p| &p.beside)
    }

    /// The panels' element type, of an operand of this one.
    pub fn dtype(&self, operand: DType) -> DType {
        self.prologue.as_ref().map_or(operand, |p| p.body.output_dtypes()[0])
    }

    /// The strides and first indices of all that is read.
    fn places(&self) -> Vec<Beside> {
        let strides = |dims: &[(Dim, Dim)]| dims.iter().map(|d| d.1.clone()).collect();
        let own = Beside {
            operand: Buf(0),
            batch: strides(&self.batch),
            steps: strides(&self.steps),
            column: self.column.1.clone(),
            offset: self.offset.clone(),
        };
        [own].into_iter().chain(self.beside().iter().cloned()).collect()
    }

    /// Whole panels, and the columns of the one behind them, where that is cut short and batches are enough to share out.
    fn whole_panels(&self) -> Option<(i64, i64)> {
        let (n, batches) = (
            self.column.0.as_const()?,
            product(self.batch.iter().map(|b| &b.0)).as_const()?,
        );
        (n % PANEL != 0 && batches >= ENOUGH).then_some((n / PANEL, n % PANEL))
    }

    /// The number of runs, and of steps in one.
    fn runs(&self) -> [Dim; 2] {
        let (outer, run) = self.steps.split_at(self.steps.len() - self.run);
        [outer, run].map(|steps| product(steps.iter().map(|s| &s.0)))
    }

    /// The logical shape `[batch…, K, N]` of the panels; `[batch…, runs, K, N]` where runs are padded, and there are some.
    pub fn shape(&self) -> Vec<Dim> {
        let mut s: Vec<Dim> = self.batch.iter().map(|b| b.0.clone()).collect();
        let [runs, k] = self.runs();
        match self.outer() {
            0 => s.push(&runs * &k),
            _ => s.extend([runs, k]),
        }
        s.push(self.column.0.clone());
        s
    }

    /// Axes of the shape that count runs.
    fn outer(&self) -> usize {
        usize::from(self.kind.interleave() > 1 && self.run < self.steps.len())
    }

    /// Elements of a panel.
    pub fn panel_size(&self) -> Dim {
        let by = self.kind.interleave();
        let [runs, k] = self.runs();
        &(&runs * &(&k.ceil_div(&Dim::Const(by)) * by)) * PANEL
    }

    /// A slot for the panels.
    pub fn slot(&self, dtype: DType, storage: Storage) -> Slot {
        let shape = self.shape();
        let layout = Layout::panels(shape.len(), self.outer(), self.kind.interleave());
        Slot {
            layout: layout.expect("rows and columns"),
            ty: Type::new(dtype, shape),
            storage,
        }
    }

    /// The kernel that packs an operand for a kernel that reads it: parameter 0 is the operand, the last one the panels, and between them
    /// stands what is read beside it.
    ///
    /// ```text
    /// for (batch, panel, run, k, j) { panels[batch, panel, run, k, j] = 32*panel + j < N && k < K ? operand[…] : 0 }
    /// ```
    ///
    /// What lies behind the last column, which no tile gives back, may be left as it was.
    pub fn kernel(&self, operands: &[&Operand], reader: &Kernel, knobs: &Knobs) -> Kernel {
        let dtype = self.dtype(operands[0].ty.dtype);
        let by = self.kind.interleave();
        let n = self.column.0.clone();
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
        let (group, inside, block, lane) = (var(), var(), var(), var());
        // Whole panels by themselves leave a last one whose vectors are known, where batches are enough for parallel loops.
        let apart = self.whole_panels().filter(|_| by == 1);
        let inside_panels = if apart.is_some() {
            None
        } else {
            Some((panel, panels.clone()))
        };
        let order: Vec<(Var, Dim)> = batch.iter().cloned().chain(inside_panels).collect();
        let (total, map) = collapse(&order, p);
        // Where steps are interleaved a run is one loop over groups of them, whole ones.
        let (outer, run) = steps.split_at(if by > 1 { steps.len() - self.run } else { steps.len() });
        let [_, k] = self.runs();
        let groups = k.ceil_div(&Dim::Const(by));
        let t = &Ix::var(group).scale(&Dim::Const(by)) + &Ix::var(inside);
        let (_, digits) = collapse(run, group);
        let in_group = |v: Var| if v == group { t.clone() } else { Ix::var(v) };
        let look = |v: Var| match digits.iter().find(|d| d.0 == v) {
            Some((_, digit)) => digit.substitute(&in_group, &Ix::reg),
            None => look_up(&map, v),
        };
        let places = self.places();
        let based = places.iter().map(|p| {
            let strides = p.batch.iter().chain(&p.steps);
            let first = Ix::constant(p.offset.clone());
            let dims = batch.iter().chain(&steps).zip(strides);
            dims.fold(first, |base, ((v, _), s)| &base + &look(*v).scale(s))
        });
        let bases: Vec<Ix> = based.collect();
        let own = Body::identity(dtype);
        let body = self.prologue.as_ref().map_or(&own, |p| &p.body);
        let dtypes = body.dtypes();
        let step = outer
            .iter()
            .fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &Ix::var(*v));
        let b = batch.iter().fold(Ix::constant(0), |f, (v, d)| &f.scale(d) + &look(*v));
        let row = match by {
            1 => step.scale(&Dim::Const(PANEL)),
            _ => &(&step.scale(&groups) + &Ix::var(group)).scale(&Dim::Const(PANEL * by)) + &Ix::var(inside),
        };
        // So many vectors of a panel's row from one of its columns on, through a register of their own.
        let vectors = |r: u32, panel: &Ix, (start, lanes): (i64, i64), count: i64, guarded: bool| {
            // Each of them has registers for all values of the body.
            let reg = |v: V| Reg(r * dtypes.len() as u32 + v.0);
            let j = &(&Ix::var(block).scale(&Dim::Const(lanes)) + &Ix::var(lane)) + &Dim::Const(start);
            let column = &panel.scale(&Dim::Const(PANEL)) + &j;
            let columns = (guarded && n.as_const().is_none_or(|n| n % PANEL != 0)).then(|| Bound {
                index: column.clone(),
                extent: n.clone(),
            });
            let runs = (by > 1 && k.as_const().is_none_or(|k| k % by != 0)).then(|| Bound {
                index: t.clone(),
                extent: k.clone(),
            });
            let guard: Vec<Bound> = columns.into_iter().chain(runs).collect();
            let loads = (0..).zip(&places).zip(&bases).map(|((i, place), base)| {
                let load = Expr::Load {
                    buffer: Buf(i),
                    index: base + &column.scale(&place.column),
                    guard: guard.clone(),
                    fill: 0,
                };
                Stmt::Set(reg(V(i)), load)
            });
            let computed = (places.len() as u32..).zip(&body.insts).map(|(v, inst)| {
                let e = match inst {
                    Inst::Const(_, bits) => Expr::Const(*bits),
                    Inst::Prim(p, args) => Expr::Prim(*p, args.map(reg)),
                };
                Stmt::Set(reg(V(v)), e)
            });
            let panel_at = (&b.scale(&panels) + panel).scale(&self.panel_size());
            let store = Stmt::Store {
                buffer: Buf(places.len() as u32),
                index: &(&panel_at + &row) + &j.scale(&Dim::Const(by)),
                value: reg(body.outputs[0]),
            };
            let one: Vec<Stmt> = loads.chain(computed).chain([store]).collect();
            let vector = match lanes {
                1 => Nest::serial(&[(lane, Ix::constant(1))], one),
                _ => vec![Stmt::For {
                    var: lane,
                    kind: LoopKind::Vector,
                    extent: Ix::constant(lanes),
                    body: one,
                }],
            };
            Nest::serial(&[(block, Ix::constant(count))], vector)
        };
        let mut loops: Vec<(Var, Ix)> = outer.iter().map(|(v, d)| (*v, Ix::constant(d.clone()))).collect();
        if by > 1 {
            loops.extend([(group, Ix::constant(groups)), (inside, Ix::constant(by))]);
        }
        let body = match apart {
            None => Nest::serial(&loops, vectors(0, &look(panel), (0, LANES), PANEL / LANES, true)),
            Some((whole, last)) => {
                let all = [&[(panel, Ix::constant(whole))], &loops[..]].concat();
                let mut body = Nest::serial(&all, vectors(0, &Ix::var(panel), (0, LANES), PANEL / LANES, false));
                let row = (1..)
                    .zip(pieces(last))
                    .map(|(r, piece)| vectors(r, &Ix::constant(whole), piece, 1, false));
                body.extend(Nest::serial(&loops, row.flatten().collect()));
                body
            }
        };
        let vectors_apart = 1 + apart.map_or(0, |(_, last)| pieces(last).len());
        let kernel = Kernel {
            name: format!("pack_{}", reader.name),
            symbols: reader.symbols.clone(),
            buffers: operands
                .iter()
                .map(|o| Buffer {
                    dtype: o.ty.dtype,
                    len: o.elements(),
                    scope: Scope::In,
                })
                .chain([Buffer {
                    dtype,
                    len,
                    scope: Scope::Out,
                }])
                .collect(),
            regs: vec![dtypes.iter().map(|&dtype| RegInfo { dtype, lanes: 1 }); vectors_apart]
                .into_iter()
                .flatten()
                .collect(),
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
