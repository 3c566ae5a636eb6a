//! A loop kernel becomes one function `void name(args*, i64 begin, i64 end, u32 worker)`, the ABI's loop body.
//!
//! `args` points to the parameters' pointers in order, then the pointer to the values of the symbols, the scratch memory
//! of worker 0, and the distance in bytes to the next worker's; behind them, for a kernel with checks, to a word of 32 bits
//! that becomes the number of a check that fails, plus 1. Workers that store to it at once leave one of their numbers. Behind the
//! place of that word stands, for a kernel that forks, the run's context.
//! `begin..end` is the range of the parallel loop; a kernel without one is called once with `0..1`, and so is one that forks, whose
//! parallel loops are functions of their own (see the module `fork`).
//!
//! A guarded load selects between the element's address and that of a stack slot which holds the fill value, so it takes
//! no branch and never reads out of bounds. Registers assigned outside of vector loops are Cranelift variables, one for
//! each 128-bit chunk where they have lanes.

mod access;
mod fork;
mod generic_tile;
mod index;
mod lanes;
mod loops;
mod prologue;
mod tile;
mod wide;

use crate::Error;
use crate::clif::emit::{Emit, clif, element};
use crate::clif::unit::Unit;
use crate::clif::vector::Val;
use crate::rare::{Rare, Uses};
use brolga_ir::DType;
use brolga_ir::index::{Ix, Reg};
use brolga_ir::loops::{Buf, Expr, Kernel, Stmt, Tile};
use brolga_ir::scalar::Prim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value, types};
use cranelift_frontend::Variable;
use cranelift_module::{FuncId, Linkage};
use index::Vars;
use lanes::Vector;
use rustc_hash::FxHashMap;
use wide::Wide;

/// Compiles a kernel under a name.
pub(crate) fn define(unit: &mut Unit, k: &Kernel, name: &str, linkage: Linkage) -> Result<FuncId, Error> {
    let signature = unit.signature(&[types::I64, types::I64, types::I64, types::I32], None);
    let id = unit.declare(name, linkage, &signature)?;
    let k = &*crate::stored::stored(k);
    let wide = Wide::plan(k, unit.target.tile, name);
    unit.define(id, |e| {
        let p = e.params();
        let (args, worker, range) = (p[0], p[3], (p[1], p[2]));
        let mut body = Body::new(e, k, &wide, name, Entry { args, worker, range }, &k.body)?;
        body.stmts(&k.body)?;
        body.e.b.ins().return_(&[]);
        Ok(())
    })?;
    if let Some(listing) = unit.listings.as_mut().and_then(|l| l.last_mut()) {
        let why: String = wide.refusals.iter().map(|w| format!("; in 128 bits: {w}\n")).collect();
        listing.ir.insert_str(0, &why);
    }
    Ok(id)
}

/// What a kernel's function finds when it is entered.
#[derive(Clone, Copy)]
struct Entry {
    /// The kernel's arguments.
    args: Value,
    worker: Value,
    /// The iterations of the parallel loop.
    range: (Value, Value),
}

/// A kernel under construction, or one of its parallel loops.
pub(crate) struct Body<'k, 'a, 'm> {
    pub e: &'k mut Emit<'a, 'm>,
    pub k: &'k Kernel,
    pub vars: Vars,
    /// The open vector loop.
    pub vector: Option<Vector>,
    /// How often registers are used, for what runs rarely.
    pub uses: Uses,
    bases: Vec<Value>,
    variables: FxHashMap<Reg, Vec<Variable>>,
    fills: FxHashMap<u64, StackSlot>,
    range: (Value, Value),
    /// The kernel's arguments.
    args: Value,
    /// The function's name.
    name: &'k str,
    /// How many functions of parallel loops there are already.
    forks: u32,
    /// Where failed checks are reported.
    fault: Option<Value>,
    /// Arguments of tiles, which are told apart by their places in memory.
    tiles: Vec<(&'k Tile, StackSlot)>,
    /// What is not compiled here.
    wide: &'k Wide,
}

impl Body<'_, '_, '_> {
    pub fn error(&self, what: String) -> Error {
        Error::Kernel {
            kernel: self.k.name.clone(),
            what,
        }
    }

    pub fn tile_args(&self, t: &Tile) -> Option<StackSlot> {
        let found = self.tiles.iter().find(|(u, _)| std::ptr::eq(*u, t));
        found.map(|(_, slot)| *slot)
    }

    fn stmts(&mut self, body: &[Stmt]) -> Result<(), Error> {
        if self.wide.any(body) {
            return self.stmts_and_runs(body);
        }
        let rare = Rare::of(body, &self.uses, self.k);
        for (i, s) in body.iter().enumerate().filter(|(i, _)| !rare.moved(*i)) {
            match (s, rare.cone(i)) {
                (Stmt::Set(r, Expr::Prim(_, x)), Some(cone)) => self.rarely(*r, x, cone.iter().map(|&j| &body[j]))?,
                _ => self.stmt(s)?,
            }
        }
        Ok(())
    }

    /// Statements of which some are functions of their own.
    fn stmts_and_runs(&mut self, body: &[Stmt]) -> Result<(), Error> {
        let wide = self.wide;
        let mut at = 0;
        while at < body.len() {
            match wide.run(&body[at]) {
                Some(run) => {
                    self.call_wide(run, &body[at..])?;
                    at += run.len();
                }
                None => {
                    self.stmt(&body[at])?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// `r = x[0] ? x[1] : x[2]`, with the statements that `x[1]` needs behind a branch.
    fn rarely<'s>(&mut self, r: Reg, x: &[Reg; 3], cone: impl Iterator<Item = &'s Stmt>) -> Result<(), Error> {
        let (cond, usual) = (self.read_scalar(x[0])?, self.read_scalar(x[2])?);
        let fork = self.e.begin_fork(cond, &[clif(self.k.reg(r).dtype)]);
        self.e.cold();
        for s in cone {
            self.stmt(s)?;
        }
        let v = self.read_scalar(x[1])?;
        self.e.fork_else(&fork, &[v]);
        let v = self.e.end_fork(fork, &[usual]);
        self.write_variable(r, &v)
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), Error> {
        match s {
            Stmt::For {
                var,
                kind,
                extent,
                body,
            } => self.for_loop(*var, kind, extent, body),
            Stmt::Set(r, e) => {
                let info = self.k.reg(*r);
                if info.lanes > 1 {
                    return self.set_all_lanes(*r, e);
                }
                let v = self.expr(info.dtype, e)?;
                self.write_variable(*r, &[v])
            }
            Stmt::Store { buffer, index, value } => {
                let v = self.read_scalar(*value)?;
                let (at, offset) = self.address(*buffer, index)?;
                self.e.b.ins().store(element(), v, at, offset);
                Ok(())
            }
            Stmt::If { bounds, then } => {
                let Some(cond) = self.bounds(bounds)? else {
                    return self.stmts(then);
                };
                let open = self.e.begin_if(cond);
                self.stmts(then)?;
                self.e.end_if(open);
                Ok(())
            }
            Stmt::Check { number, holds } => {
                let holds = self.read_scalar(*holds)?;
                self.check(*number, holds)
            }
            Stmt::Barrier => Err(self.error("a barrier, which CPU kernels have not".into())),
            Stmt::Tile(t) => self.tile(t),
        }
    }

    /// Reports a check where the condition, 0 or 1, does not hold.
    pub fn check(&mut self, number: u32, holds: Value) -> Result<(), Error> {
        let Some(fault) = self.fault else {
            return Err(self.error(format!("check {number} in a kernel without checks")));
        };
        let failed = self.e.b.ins().icmp_imm_s(IntCC::Equal, holds, 0);
        let open = self.e.begin_if(failed);
        self.e.cold();
        // The first report stays.
        let before = self.e.b.ins().load(types::I32, element(), fault, 0);
        let none = self.e.b.ins().icmp_imm_s(IntCC::Equal, before, 0);
        let word = self.e.b.ins().iconst(types::I32, i64::from(number) + 1);
        let word = self.e.b.ins().select(none, word, before);
        self.e.b.ins().store(element(), word, fault, 0);
        self.e.end_if(open);
        Ok(())
    }

    /// The address of an element, as a pointer and a displacement.
    pub fn address(&mut self, b: Buf, index: &Ix) -> Result<(Value, i32), Error> {
        let base = self.bases[b.0 as usize];
        let bytes = self.k.buffer(b).dtype.bytes() as i64;
        let (sum, constant) = self.ix_parts(index)?;
        let mut at = match sum {
            None => base,
            Some(s) => {
                let s = self.e.times(s, bytes);
                self.e.b.ins().iadd(base, s)
            }
        };
        let displacement = constant.wrapping_mul(bytes);
        let offset = match i32::try_from(displacement) {
            // Room for the chunks of a vector.
            Ok(d) if d.unsigned_abs() < 1 << 30 => d,
            _ => {
                at = self.e.b.ins().iadd_imm_s(at, displacement);
                0
            }
        };
        Ok((at, offset))
    }

    /// An address that is replaced by that of the fill value where the condition does not hold.
    pub fn guarded(&mut self, cond: Option<Value>, at: Value, offset: i32, d: DType, fill: u64) -> (Value, i32) {
        let Some(cond) = cond else { return (at, offset) };
        let slot = self.fills[&repeated(d, fill)];
        let there = self.e.slot_addr(slot);
        let here = self.e.b.ins().iadd_imm_s(at, i64::from(offset));
        (self.e.b.ins().select(cond, here, there), 0)
    }

    /// Loads one element; a bool becomes 0 or 1.
    pub fn load_scalar(&mut self, d: DType, at: Value, offset: i32) -> Value {
        let v = self.e.b.ins().load(clif(d), element(), at, offset);
        if d == DType::Bool {
            self.e.b.ins().icmp_imm_s(IntCC::NotEqual, v, 0)
        } else {
            v
        }
    }

    /// The dtype that a primitive works on.
    pub fn prim_dtype(&self, p: Prim, x: &[Reg; 3]) -> DType {
        self.k.reg(x[p.typed()]).dtype
    }

    fn expr(&mut self, d: DType, e: &Expr) -> Result<Value, Error> {
        Ok(match e {
            Expr::Const(bits) => self.e.constant(d, *bits),
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                let cond = self.bounds(guard)?;
                let dtype = self.k.buffer(*buffer).dtype;
                let (at, offset) = self.address(*buffer, index)?;
                let (at, offset) = self.guarded(cond, at, offset, dtype, *fill);
                self.load_scalar(dtype, at, offset)
            }
            Expr::Index(i) => self.ix(i)?,
            Expr::InBounds(b) => match self.bounds(b)? {
                Some(v) => v,
                None => self.e.constant(DType::Bool, 1),
            },
            Expr::Prim(p, x) => {
                let t = self.prim_dtype(*p, x);
                let mut args = [None; 3];
                for (i, r) in x.iter().take(p.arity()).enumerate() {
                    args[i] = Some(self.read_scalar(*r)?);
                }
                let Some(first) = args[0] else {
                    return Err(self.error(format!("`{}` without operands", p.name())));
                };
                self.e.prim(*p, t, args.map(|a| a.unwrap_or(first)))?
            }
            Expr::Copy(r) => self.read_scalar(*r)?,
            Expr::Lane(r, l) => self.read_lane(*r, *l)?,
        })
    }

    /// One lane of a register with lanes.
    pub fn read_lane(&mut self, r: Reg, l: u32) -> Result<Value, Error> {
        let info = self.k.reg(r);
        let v = self.read_kept(r)?;
        if l >= info.lanes.max(1) {
            return Err(self.error(format!("lane {l} of {r}, which has {}", info.lanes)));
        }
        Ok(self.e.lane(&v, info.dtype, l))
    }

    /// A register's value for one lane: that which is being addressed, inside a vector loop.
    pub fn read_scalar(&mut self, r: Reg) -> Result<Value, Error> {
        let lane = self.vector.as_ref().map(|v| v.lane);
        let v = self.read(r)?;
        match (&v, lane) {
            (Val::Uniform(v), _) => Ok(*v),
            (_, Some(l)) => Ok(self.e.lane(&v, self.k.reg(r).dtype, l)),
            (_, None) => Err(self.error(format!("{r} has lanes and is read as one value"))),
        }
    }

    /// A register as its readers find it.
    pub fn read(&mut self, r: Reg) -> Result<Val, Error> {
        if let Some(v) = self.vector.as_ref().and_then(|v| v.locals.get(&r)) {
            return Ok(v.clone());
        }
        self.read_kept(r)
    }

    fn read_kept(&mut self, r: Reg) -> Result<Val, Error> {
        let info = self.k.reg(r);
        let Some(variables) = self.variables.get(&r) else {
            return Err(self.error(format!("{r} is read outside the vector loop that assigns it")));
        };
        let values: Vec<Value> = variables.iter().map(|v| self.e.b.use_var(*v)).collect();
        Ok(match (info.lanes, info.dtype) {
            (0 | 1, _) => Val::Uniform(values[0]),
            (_, DType::Bool) => Val::Mask(8, values),
            _ => Val::Lanes(values),
        })
    }

    pub fn write_variable(&mut self, r: Reg, values: &[Value]) -> Result<(), Error> {
        let Some(variables) = self.variables.get(&r) else {
            return Err(self.error(format!("{r} is not among the kernel's registers")));
        };
        for (variable, v) in variables.iter().zip(values) {
            self.e.b.def_var(*variable, *v);
        }
        Ok(())
    }
}

/// Bits of an element, repeated to 64.
fn repeated(d: DType, bits: u64) -> u64 {
    let width = d.bits();
    let bits = if width == 64 { bits } else { bits & ((1 << width) - 1) };
    (0..64 / width).fold(0, |all, i| all | bits << (i * width))
}
