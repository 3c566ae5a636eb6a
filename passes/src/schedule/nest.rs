//! Building loop kernels: registers, variables, and the emission of a stage's reads and body at a point.

use super::flat::{Flat, FlatRead, FlatStage, Target, by_read, local_len};
use brolga_ir::index::{Bound, Ix, Reg, Var};
use brolga_ir::loops::{Buf, Buffer, Expr, Kernel, LoopKind, RegInfo, Scope, Stmt};
use brolga_ir::scalar::{Body, Inst, Prim};
use brolga_ir::{DType, Dim};

/// Where a local of the structured kernel lives.
#[derive(Clone, Debug)]
pub enum Home {
    /// In a register.
    Reg(Reg),
    /// In a buffer, from this element on.
    Buffer(Buf, Ix),
}

/// A loop kernel under construction.
pub struct Nest<'f> {
    /// What is being scheduled.
    pub flat: &'f Flat,
    /// The kernel.
    pub kernel: Kernel,
    /// Homes of the locals.
    pub homes: Vec<Option<Home>>,
    /// The variable of the vector loop that is being filled.
    pub lane: Var,
    next_var: u32,
}

/// What variables stand for at a point of the nest.
pub type Point<'a> = dyn Fn(Var) -> Ix + 'a;

/// Loops at a point.
#[derive(Clone, Copy)]
pub struct Domain<'a> {
    /// The loops' variables and extents, outermost first.
    pub loops: &'a [(Var, Ix)],
    /// Where they stand.
    pub at: &'a Point<'a>,
}

impl Domain<'_> {
    /// What a variable stands for inside the loops.
    pub fn inside(&self, u: Var) -> Ix {
        match self.loops.iter().any(|(v, _)| *v == u) {
            true => Ix::var(u),
            false => (self.at)(u),
        }
    }
}

impl<'f> Nest<'f> {
    /// A nest with the kernel's parameters and no statements.
    pub fn new(flat: &'f Flat) -> Nest<'f> {
        let kernel = Kernel {
            name: flat.name.clone(),
            symbols: flat.symbols.clone(),
            buffers: flat.buffers.clone(),
            regs: vec![],
            pooled: false,
            body: vec![],
        };
        Nest {
            flat,
            kernel,
            homes: vec![None; flat.locals.len()],
            lane: Var(u32::MAX),
            next_var: flat.next_var,
        }
    }

    /// A new register.
    pub fn reg(&mut self, dtype: DType, lanes: u32) -> Reg {
        self.kernel.regs.push(RegInfo { dtype, lanes });
        Reg(self.kernel.regs.len() as u32 - 1)
    }

    /// A new variable.
    pub fn var(&mut self) -> Var {
        self.next_var += 1;
        Var(self.next_var - 1)
    }

    /// A new buffer that is no parameter.
    pub fn scratch(&mut self, dtype: DType, len: Dim, scope: Scope) -> Buf {
        self.kernel.buffers.push(Buffer { dtype, len, scope });
        Buf(self.kernel.buffers.len() as u32 - 1)
    }

    /// Gives every local that is a tile, and computed, a worker buffer.
    pub fn house_tiles(&mut self) {
        for (i, l) in self.flat.locals.iter().enumerate() {
            if !l.shape.is_empty() && self.flat.is_written(i) {
                let b = self.scratch(l.dtype, local_len(l), Scope::Worker);
                self.homes[i] = Some(Home::Buffer(b, Ix::constant(0)));
            }
        }
    }

    /// The buffer of a local that has one.
    pub fn tile_of(&self, local: u32) -> Buf {
        match self.homes[local as usize] {
            Some(Home::Buffer(b, _)) => b,
            _ => unreachable!("l{local} is a tile in memory"),
        }
    }

    /// Assigns an expression to a new register.
    pub fn set(&mut self, out: &mut Vec<Stmt>, dtype: DType, e: Expr) -> Reg {
        let r = self.reg(dtype, 1);
        out.push(Stmt::Set(r, e));
        r
    }

    /// The registers of a stage's reads at a point; the stage's checks stand behind them.
    pub fn reads(&mut self, out: &mut Vec<Stmt>, stage: &FlatStage, at: &Point) -> Vec<Reg> {
        let mut regs: Vec<Reg> = vec![];
        for (i, r) in stage.reads.iter().enumerate() {
            let dtype = stage.body.inputs[i];
            let place = |ix: &Ix, regs: &[Reg]| ix.substitute(at, &by_read(regs));
            let bounds = |g: &[Bound], regs: &[Reg]| -> Vec<Bound> {
                g.iter()
                    .map(|b| Bound {
                        index: place(&b.index, regs),
                        extent: b.extent.clone(),
                    })
                    .collect()
            };
            let reg = match r {
                FlatRead::Element {
                    target,
                    index,
                    guard,
                    fill,
                } => {
                    let (buffer, first) = match *target {
                        Target::Buffer(b) => (b, Ix::constant(0)),
                        Target::Local(l) => match self.homes[l as usize]
                            .clone()
                            .expect("a local is written before it is read")
                        {
                            Home::Reg(r) => {
                                regs.push(r);
                                continue;
                            }
                            Home::Buffer(b, first) => (b, first),
                        },
                    };
                    let e = Expr::Load {
                        buffer,
                        index: &first + &place(index, &regs),
                        guard: bounds(guard, &regs),
                        fill: *fill,
                    };
                    self.set(out, dtype, e)
                }
                FlatRead::Index(ix) => self.set(out, DType::I64, Expr::Index(place(ix, &regs))),
                FlatRead::InBounds(b) => self.set(out, DType::Bool, Expr::InBounds(bounds(b, &regs))),
                FlatRead::Computed(body, args) => {
                    let args: Vec<Reg> = args.iter().map(|&a| regs[a as usize]).collect();
                    self.body(out, body, &args)[0]
                }
            };
            regs.push(reg);
        }
        for c in &stage.checks {
            let bounds = |bounds: &[Bound]| -> Vec<Bound> {
                let one = |b: &Bound| Bound {
                    index: b.index.substitute(at, &by_read(&regs)),
                    extent: b.extent.clone(),
                };
                bounds.iter().map(one).collect()
            };
            let mut holds = self.set(out, DType::Bool, Expr::InBounds(bounds(&c.bounds)));
            if !c.guard.is_empty() {
                let here = self.set(out, DType::Bool, Expr::InBounds(bounds(&c.guard)));
                let not = self.set(out, DType::Bool, Expr::Prim(Prim::Not, [here; 3]));
                holds = self.set(out, DType::Bool, Expr::Prim(Prim::Or, [holds, not, holds]));
            }
            out.push(Stmt::Check {
                number: c.number,
                holds,
            });
        }
        regs
    }

    /// The registers of a body's outputs.
    pub fn body(&mut self, out: &mut Vec<Stmt>, body: &Body, inputs: &[Reg]) -> Vec<Reg> {
        let mut values = inputs.to_vec();
        for (i, inst) in body.insts.iter().enumerate() {
            let dtype = body.dtype(brolga_ir::scalar::V((body.inputs.len() + i) as u32));
            let e = match inst {
                Inst::Const(_, bits) => Expr::Const(*bits),
                Inst::Prim(p, args) => Expr::Prim(*p, args.map(|a| values[a.0 as usize])),
            };
            values.push(self.set(out, dtype, e));
        }
        body.outputs.iter().map(|v| values[v.0 as usize]).collect()
    }

    /// The stage's values at a point: reads, then body.
    pub fn values(&mut self, out: &mut Vec<Stmt>, stage: &FlatStage, at: &Point) -> Vec<Reg> {
        let regs = self.reads(out, stage, at);
        self.body(out, &stage.body, &regs)
    }

    /// Writes values to a stage's places at a point. `reads` are the registers of its reads (for a scatter's indices).
    pub fn writes(&mut self, out: &mut Vec<Stmt>, stage: &FlatStage, values: &[Reg], reads: &[Reg], at: &Point) {
        for ((target, index), &value) in stage.writes.iter().zip(values) {
            let (buffer, first) = match *target {
                Target::Buffer(b) => (b, Ix::constant(0)),
                Target::Local(l) => match &self.homes[l as usize] {
                    Some(Home::Buffer(b, first)) => (*b, first.clone()),
                    _ => {
                        self.homes[l as usize] = Some(Home::Reg(value));
                        continue;
                    }
                },
            };
            out.push(Stmt::Store {
                buffer,
                index: &first + &index.substitute(at, &by_read(reads)),
                value,
            });
        }
    }

    /// Wraps statements in serial loops over variables, outermost first.
    pub fn serial(loops: &[(Var, Ix)], body: Vec<Stmt>) -> Vec<Stmt> {
        loops.iter().rev().fold(body, |body, (var, extent)| {
            vec![Stmt::For {
                var: *var,
                kind: LoopKind::Serial,
                extent: extent.clone(),
                body,
            }]
        })
    }
}

/// One parallel loop over several dimensions: the loop's extent, and what each dimension's variable is in terms of the
/// loop variable.
pub fn collapse(dims: &[(Var, Dim)], p: Var) -> (Ix, Vec<(Var, Ix)>) {
    let total = brolga_ir::dim::product(dims.iter().map(|(_, d)| d));
    if total.is(0) {
        // No iteration asks; a quotient by an extent of 0 would be none.
        return (
            Ix::constant(0),
            dims.iter().map(|(v, _)| (*v, Ix::constant(0))).collect(),
        );
    }
    (Ix::constant(total), unfold(dims, Ix::var(p)))
}

/// What each of several dimensions' variables is at a position among all their points, in row-major order.
pub fn unfold(dims: &[(Var, Dim)], position: Ix) -> Vec<(Var, Ix)> {
    let (mut rest, mut out) = (position, vec![]);
    for (i, (v, d)) in dims.iter().enumerate().rev() {
        if i == 0 {
            out.push((*v, rest.clone()));
        } else {
            out.push((*v, rest.modulo(d)));
            rest = rest.div(d);
        }
    }
    out.reverse();
    out
}
