//! Lowering of a kernel, under known symbols, to a flat program with jumps.

use crate::index::{Bound, BoundCode, Ix, IxCode, Reg, Slots, Src, Var};
use crate::loops::{Expr, Kernel, LoopKind, Scales, Stmt, Tile, visit, visit_sets};
use crate::scalar::Prim;
use crate::{DType, Dim, Fault, TileKind};
use rustc_hash::FxHashMap;

/// How many lanes a statement has, and the slot of the vector loop's variable.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub n: usize,
    pub var: Option<usize>,
}

/// An assignment.
pub(super) struct SetCode {
    pub lanes: Lanes,
    pub to: usize,
    pub value: Value,
}

pub(super) enum Value {
    Const(u64),
    Load {
        buffer: usize,
        index: IxCode,
        guard: Box<[BoundCode]>,
        fill: u64,
    },
    Index(IxCode),
    InBounds(Box<[BoundCode]>),
    Prim(Prim, DType, [Src; 3]),
    Copy(Src),
}

/// A store.
pub(super) struct StoreCode {
    pub lanes: Lanes,
    pub buffer: usize,
    pub index: IxCode,
    pub value: Src,
}

/// A tile.
pub(super) struct TileCode {
    pub kind: TileKind,
    pub a: usize,
    pub a_index: IxCode,
    pub a_row: IxCode,
    pub a_k: IxCode,
    pub blocks: [(IxCode, IxCode); 2],
    pub k: IxCode,
    pub b: usize,
    pub b_index: IxCode,
    pub c: usize,
    pub c_index: IxCode,
    pub c_row: IxCode,
    pub rows: IxCode,
    pub max_rows: i64,
    pub cols: IxCode,
    pub panels: i64,
    pub accumulate: bool,
    pub scales: Option<ScalesCode>,
}

/// The scales of a tile.
pub(super) struct ScalesCode {
    pub a: usize,
    pub offset: usize,
    pub a_index: IxCode,
    pub a_block: IxCode,
    pub b: usize,
    pub b_index: IxCode,
    /// Of columns, and the totals of rows.
    pub minima: Option<[usize; 2]>,
}

/// An instruction.
pub(super) enum Op {
    Set(SetCode),
    Store(StoreCode),
    /// Starts a loop, or jumps behind it.
    Begin {
        var: usize,
        extent: IxCode,
        end: usize,
        parallel: bool,
    },
    /// Ends an iteration: jumps to the next.
    Next {
        var: usize,
        begin: usize,
        parallel: bool,
    },
    /// Sets a variable to the thread's own coordinate.
    Coordinate {
        var: usize,
        axis: usize,
    },
    /// Jumps when a bound does not hold.
    Unless {
        bounds: Box<[BoundCode]>,
        to: usize,
    },
    Check {
        number: u32,
        holds: Src,
        lanes: usize,
    },
    Barrier,
    Tile(Box<TileCode>),
}

/// A lowered kernel.
pub(super) struct Code {
    pub ops: Vec<Op>,
    /// The statement of each instruction: positions in the nested lists.
    pub paths: Vec<Vec<usize>>,
    /// Slots of variables.
    pub vars: usize,
    /// Slots of registers.
    pub regs: usize,
    /// Elements of the buffers.
    pub lens: Vec<usize>,
    /// True when there are block or thread loops.
    pub gpu: bool,
    /// True when there is a parallel loop.
    pub parallel: bool,
    /// Extents of the GPU dimensions: three of blocks, three of threads.
    pub grid: [i64; 6],
}

/// Lowers a valid kernel.
pub(super) fn lower(k: &Kernel, symbols: &dyn Fn(&str) -> Option<i64>) -> Result<Code, Fault> {
    let mut widths: Vec<usize> = k.regs.iter().map(|r| r.lanes as usize).collect();
    // Registers of one lane are as wide as the vector loops that assign them.
    visit(&k.body, &mut |s, lanes| {
        if let Stmt::Set(r, _) = s {
            let width = &mut widths[r.0 as usize];
            *width = (*width).max(lanes as usize);
        }
    });
    let mut bases = vec![];
    let mut regs = 0;
    for w in widths {
        bases.push(regs);
        regs += w;
    }
    let mut l = Lowering {
        k,
        symbols,
        bases,
        vars: FxHashMap::default(),
        vector: None,
        path: vec![],
        code: Code {
            ops: vec![],
            paths: vec![],
            vars: 0,
            regs,
            lens: vec![],
            gpu: false,
            parallel: false,
            grid: [1; 6],
        },
    };
    for (i, b) in k.buffers.iter().enumerate() {
        let n = l
            .dim(&b.len)
            .and_then(|n| usize::try_from(n).map_err(|_| format!("a length of {n}")));
        l.code
            .lens
            .push(n.map_err(|e| Fault::new(&k.name, format!("buffer b{i}"), e))?);
    }
    if let Err(e) = l.stmts(&k.body) {
        let path: Vec<String> = l.path.iter().map(usize::to_string).collect();
        return Err(Fault::new(&k.name, format!("statement {}", path.join(".")), e));
    }
    l.code.vars = l.vars.len();
    Ok(l.code)
}

struct Vector {
    lanes: Lanes,
    own: Vec<Reg>,
}

struct Lowering<'a> {
    k: &'a Kernel,
    symbols: &'a dyn Fn(&str) -> Option<i64>,
    bases: Vec<usize>,
    vars: FxHashMap<Var, usize>,
    vector: Option<Vector>,
    path: Vec<usize>,
    code: Code,
}

fn slot(vars: &mut FxHashMap<Var, usize>, v: Var) -> usize {
    let n = vars.len();
    *vars.entry(v).or_insert(n)
}

/// A register of one lane has several in a vector loop that assigns it.
fn src(k: &Kernel, bases: &[usize], vector: &Option<Vector>, r: Reg) -> Src {
    let own = vector.as_ref().is_some_and(|v| v.own.contains(&r));
    Src {
        base: bases[r.0 as usize],
        step: (own || k.reg(r).lanes > 1) as usize,
    }
}

impl Lowering<'_> {
    fn dim(&self, d: &Dim) -> Result<i64, String> {
        d.value(self.symbols).map_err(|e| e.to_string())
    }

    fn src(&self, r: Reg) -> Src {
        src(self.k, &self.bases, &self.vector, r)
    }

    fn slot(&mut self, v: Var) -> usize {
        slot(&mut self.vars, v)
    }

    fn with_slots<T>(&mut self, f: impl FnOnce(&mut Slots) -> T) -> T {
        let Lowering {
            k,
            symbols,
            bases,
            vars,
            vector,
            ..
        } = self;
        let lane = vector.as_ref().and_then(|v| v.lanes.var);
        f(&mut Slots {
            symbols,
            var: &mut |v| slot(vars, v),
            reg: &|r| src(k, bases, vector, r),
            lane,
        })
    }

    fn ix(&mut self, e: &Ix) -> Result<IxCode, String> {
        self.with_slots(|s| IxCode::new(e, s))
    }

    fn bounds(&mut self, bounds: &[Bound]) -> Result<Box<[BoundCode]>, String> {
        self.with_slots(|s| BoundCode::all(bounds, s))
    }

    fn push(&mut self, op: Op) -> usize {
        self.code.ops.push(op);
        self.code.paths.push(self.path.clone());
        self.code.ops.len() - 1
    }

    fn stmts(&mut self, stmts: &[Stmt]) -> Result<(), String> {
        for (i, s) in stmts.iter().enumerate() {
            self.path.push(i);
            self.stmt(s)?;
            self.path.pop();
        }
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), String> {
        match s {
            Stmt::For {
                var,
                kind,
                extent,
                body,
            } => self.for_loop(*var, kind, extent, body)?,
            Stmt::Set(r, e) => {
                let kept = self.k.reg(*r).lanes as usize;
                let lanes = self.vector.as_ref().map_or(Lanes { n: kept, var: None }, |v| v.lanes);
                let value = self.value(e)?;
                self.push(Op::Set(SetCode {
                    lanes,
                    to: self.bases[r.0 as usize],
                    value,
                }));
            }
            Stmt::Store { buffer, index, value } => {
                let lanes = self.vector.as_ref().map_or(Lanes { n: 1, var: None }, |v| v.lanes);
                let index = self.ix(index)?;
                let value = self.src(*value);
                self.push(Op::Store(StoreCode {
                    lanes,
                    buffer: buffer.0 as usize,
                    index,
                    value,
                }));
            }
            Stmt::If { bounds, then } => {
                let bounds = self.bounds(bounds)?;
                let at = self.push(Op::Barrier);
                self.stmts(then)?;
                self.code.ops[at] = Op::Unless {
                    bounds,
                    to: self.code.ops.len(),
                };
            }
            Stmt::Check { number, holds } => {
                let (number, holds) = (*number, self.src(*holds));
                let lanes = self.vector.as_ref().map_or(1, |v| v.lanes.n);
                self.push(Op::Check { number, holds, lanes });
            }
            Stmt::Barrier => {
                self.push(Op::Barrier);
            }
            Stmt::Tile(t) => {
                let tile = self.tile(t)?;
                self.push(Op::Tile(Box::new(tile)));
            }
        }
        Ok(())
    }

    fn for_loop(&mut self, var: Var, kind: &LoopKind, extent: &Ix, body: &[Stmt]) -> Result<(), String> {
        let var = self.slot(var);
        match kind {
            LoopKind::Vector => {
                let n = extent.as_const().unwrap_or(0) as usize;
                let mut own = vec![];
                visit_sets(body, &mut |r| own.push(r));
                self.vector = Some(Vector {
                    lanes: Lanes { n, var: Some(var) },
                    own,
                });
                self.stmts(body)?;
                self.vector = None;
            }
            LoopKind::Block(d) | LoopKind::Thread(d) => {
                let axis = *d as usize + if matches!(kind, LoopKind::Thread(_)) { 3 } else { 0 };
                self.code.gpu = true;
                self.code.grid[axis] = self.dim(&extent.offset)?.max(0);
                self.push(Op::Coordinate { var, axis });
                self.stmts(body)?;
            }
            LoopKind::Serial | LoopKind::Unrolled | LoopKind::Parallel(_) => {
                let parallel = matches!(kind, LoopKind::Parallel(_));
                self.code.parallel |= parallel;
                // What never runs need not make sense: with no rows, a quotient by the number of row blocks is none.
                if extent.terms.is_empty() && self.dim(&extent.offset)? <= 0 {
                    return Ok(());
                }
                let extent = self.ix(extent)?;
                let at = self.push(Op::Barrier);
                self.stmts(body)?;
                self.push(Op::Next {
                    var,
                    begin: at + 1,
                    parallel,
                });
                self.code.ops[at] = Op::Begin {
                    var,
                    extent,
                    end: self.code.ops.len(),
                    parallel,
                };
            }
        }
        Ok(())
    }

    fn value(&mut self, e: &Expr) -> Result<Value, String> {
        Ok(match e {
            Expr::Const(bits) => Value::Const(*bits),
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => Value::Load {
                buffer: buffer.0 as usize,
                index: self.ix(index)?,
                guard: self.bounds(guard)?,
                fill: *fill,
            },
            Expr::Index(ix) => Value::Index(self.ix(ix)?),
            Expr::InBounds(bounds) => Value::InBounds(self.bounds(bounds)?),
            Expr::Prim(p, args) => Value::Prim(*p, self.k.reg(args[p.typed()]).dtype, args.map(|a| self.src(a))),
            Expr::Copy(r) => Value::Copy(self.src(*r)),
            Expr::Lane(r, lane) => Value::Copy(Src {
                base: self.bases[r.0 as usize] + *lane as usize,
                step: 0,
            }),
        })
    }

    fn tile(&mut self, t: &Tile) -> Result<TileCode, String> {
        let [(p, p_by), (q, q_by)] = &t.blocks;
        Ok(TileCode {
            kind: t.kind,
            a: t.a.0 as usize,
            a_index: self.ix(&t.a_index)?,
            a_row: self.ix(&t.a_row)?,
            a_k: self.ix(&t.a_k)?,
            blocks: [(self.ix(p)?, self.ix(p_by)?), (self.ix(q)?, self.ix(q_by)?)],
            k: self.ix(&t.k)?,
            b: t.b.0 as usize,
            b_index: self.ix(&t.b_index)?,
            c: t.c.0 as usize,
            c_index: self.ix(&t.c_index)?,
            c_row: self.ix(&t.c_row)?,
            rows: self.ix(&t.rows)?,
            max_rows: t.max_rows as i64,
            cols: self.ix(&t.cols)?,
            panels: t.panels(),
            accumulate: t.accumulate,
            scales: t.scales.as_deref().map(|s| self.scales(s)).transpose()?,
        })
    }

    fn scales(&mut self, s: &Scales) -> Result<ScalesCode, String> {
        Ok(ScalesCode {
            a: s.a.0 as usize,
            offset: s.offset.0 as usize,
            a_index: self.ix(&s.a_index)?,
            a_block: self.ix(&s.a_block)?,
            b: s.b.0 as usize,
            b_index: self.ix(&s.b_index)?,
            minima: s.minima.map(|m| [m.b, m.total].map(|b| b.0 as usize)),
        })
    }
}
