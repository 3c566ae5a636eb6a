//! A loop kernel becomes one function `void name(args*, i64 begin, i64 end, u32 worker)`, the ABI's loop body.
//!
//! `args` points to the parameters' pointers in order, then the pointer to the values of the symbols, the scratch memory
//! of worker 0, and the distance in bytes to the next worker's; behind them, for a kernel with checks, to a word of 32 bits
//! that becomes the number of a check that fails, plus 1. Workers that store to it at once leave one of their numbers.
//! `begin..end` is the range of the parallel loop; a kernel without one is called once with `0..1`.
//!
//! A guarded load selects between the element's address and that of a stack slot which holds the fill value, so it takes
//! no branch and never reads out of bounds. Registers assigned outside of vector loops are Cranelift variables, one for
//! each 128-bit chunk where they have lanes.

mod index;
mod lanes;
pub(super) mod tile;

use crate::Error;
use crate::clif::emit::{CONSTANT, Emit, Unit, clif, element};
use crate::clif::simd::{Val, chunk, chunks, mask_type};
use crate::rare::{Rare, Uses};
use brolga_ir::index::{Ix, Reg, Term, Var};
use brolga_ir::loops::{self, Buf, Expr, LoopKind, Scope, Stmt, Tile, visit, visit_indices};
use brolga_ir::scalar::Prim;
use brolga_ir::{Cpu, DType, Dim};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, StackSlot, Value, types};
use cranelift_frontend::Variable;
use cranelift_module::{FuncId, Linkage};
use index::{VarValue, Vars};
use lanes::Vector;
use rustc_hash::FxHashMap;

/// The most products of a loop variable that an innermost loop carries; more would only spill.
const MAX_PRODUCTS: usize = 6;

/// The most copies of a constant in memory, one for each chunk of a vector.
const MAX_COPIES: usize = 4;

/// About how many statements a serial loop may become when it is repeated in code.
const MAX_UNROLLED: usize = 48;

/// Compiles a kernel under a name.
pub(crate) fn define(unit: &mut Unit, k: &loops::Kernel, name: &str, linkage: Linkage) -> Result<FuncId, Error> {
    let signature = unit.signature(&[types::I64, types::I64, types::I64, types::I32], None);
    let id = unit.declare(name, linkage, &signature)?;
    unit.define(id, |e| Kernel::new(e, k)?.run())?;
    Ok(id)
}

/// A kernel under construction.
pub(crate) struct Kernel<'k, 'a, 'm> {
    pub e: &'k mut Emit<'a, 'm>,
    pub k: &'k loops::Kernel,
    pub vars: Vars,
    /// The open vector loop.
    pub vector: Option<Vector>,
    /// How often registers are used, for what runs rarely.
    pub uses: Uses,
    bases: Vec<Value>,
    variables: FxHashMap<Reg, Vec<Variable>>,
    fills: FxHashMap<u64, StackSlot>,
    range: (Value, Value),
    /// Where failed checks are reported.
    fault: Option<Value>,
    /// Arguments of tiles, which are told apart by their places in memory.
    tiles: Vec<(&'k Tile, StackSlot)>,
}

impl<'k, 'a, 'm> Kernel<'k, 'a, 'm> {
    fn new(e: &'k mut Emit<'a, 'm>, k: &'k loops::Kernel) -> Result<Kernel<'k, 'a, 'm>, Error> {
        let p = e.params();
        let (args, begin, end, worker) = (p[0], p[1], p[2], p[3]);
        let count = k.params().count();
        let field = |e: &mut Emit, i: usize| e.b.ins().load(types::I64, CONSTANT, args, 8 * i as i32);
        e.dims = Some(field(e, count));
        let mut this = Kernel {
            e,
            k,
            vars: Vars::default(),
            vector: None,
            uses: Uses::of(k),
            bases: vec![],
            variables: FxHashMap::default(),
            fills: FxHashMap::default(),
            range: (begin, end),
            fault: None,
            tiles: vec![],
        };
        if k.checks() > 0 {
            this.fault = Some(field(this.e, count + 3));
        }
        this.prepare()?;
        let mut scratch: Option<Value> = None;
        let mut offset = Dim::ZERO;
        for (i, b) in k.buffers.iter().enumerate() {
            let base = match b.scope {
                Scope::In | Scope::Out if i < count => field(this.e, i),
                Scope::In | Scope::Out => {
                    return Err(this.error(format!("b{i} is a parameter behind a buffer that is none")));
                }
                Scope::Worker => {
                    let first = match scratch {
                        Some(s) => s,
                        None => {
                            let (base, stride) = (field(this.e, count + 1), field(this.e, count + 2));
                            let w = this.e.b.ins().uextend(types::I64, worker);
                            let at = this.e.b.ins().imul(w, stride);
                            this.e.b.ins().iadd(base, at)
                        }
                    };
                    scratch = Some(first);
                    let at = this.e.dim(&offset)?;
                    let bytes = &b.len * b.dtype.bytes() as i64;
                    offset = &offset + &(&(&bytes + 63).floor_div(&Dim::Const(64)) * 64);
                    this.e.b.ins().iadd(first, at)
                }
                Scope::Private => {
                    let bytes = b.len.as_const().and_then(|n| n.checked_mul(b.dtype.bytes() as i64));
                    let Some(bytes) = bytes.and_then(|n| u32::try_from(n).ok()) else {
                        return Err(this.error(format!("private b{i} has length {}, expected a constant one", b.len)));
                    };
                    let slot = this.e.slot(bytes.max(1), 4);
                    this.e.slot_addr(slot)
                }
                Scope::Shared => return Err(this.error(format!("b{i} is shared memory, which CPU kernels have not"))),
            };
            this.bases.push(base);
        }
        Ok(this)
    }

    fn run(mut self) -> Result<(), Error> {
        self.stmts(&self.k.body)?;
        self.e.b.ins().return_(&[]);
        Ok(())
    }

    pub fn error(&self, what: String) -> Error {
        Error::Kernel {
            kernel: self.k.name.clone(),
            what,
        }
    }

    /// Everything that the entry block computes once: dims, variables of registers, slots with fill values.
    fn prepare(&mut self) -> Result<(), Error> {
        let mut dims: Vec<Dim> = vec![];
        visit_indices(&self.k.body, &mut |e| {
            e.for_each_dim(&mut |d| {
                let (d, _) = d.split_constant();
                if d.as_const().is_none() && !dims.contains(&d) {
                    dims.push(d);
                }
            });
        });
        self.e.prepare_dims(&dims)?;

        let mut assigned: Vec<Reg> = vec![];
        let mut fills: Vec<(DType, u64, u32)> = vec![];
        let mut constants: Vec<u64> = vec![];
        let mut widest = 0;
        visit(&self.k.body, &mut |s, lanes| {
            let Stmt::Set(r, e) = s else { return };
            if (lanes == 0 || self.k.reg(*r).lanes > 1) && !assigned.contains(r) {
                assigned.push(*r);
            }
            let d = self.k.reg(*r).dtype;
            if let Expr::Const(bits) = e
                && lanes > 0
                && matches!(d, DType::F32 | DType::F64)
                && !constants.contains(&repeated(d, *bits))
            {
                constants.push(repeated(d, *bits));
                widest = widest.max(lanes as usize * d.bytes());
            }
            if let Expr::Load {
                buffer, guard, fill, ..
            } = e
                && !guard.is_empty()
            {
                let lanes = lanes.max(self.k.reg(*r).lanes).max(1);
                fills.push((self.k.buffer(*buffer).dtype, *fill, lanes));
            }
        });
        for r in assigned {
            let info = self.k.reg(r);
            let (ty, n) = match (info.lanes, info.dtype) {
                (0 | 1, d) => (clif(d), 1),
                (l, DType::Bool) => (mask_type(8), chunks(l, 8)),
                (l, d) => (chunk(d), chunks(l, d.bits() as u32)),
            };
            let variables = (0..n).map(|_| self.e.b.declare_var(ty)).collect();
            self.variables.insert(r, variables);
        }
        // One slot for each fill value, long enough for the widest load of it.
        let mut slots: Vec<(u64, u32)> = vec![];
        for (d, fill, lanes) in fills {
            let (pattern, bytes) = (repeated(d, fill), (lanes * d.bytes() as u32).next_multiple_of(16));
            match slots.iter_mut().find(|(p, _)| *p == pattern) {
                Some((_, n)) => *n = bytes.max(*n),
                None => slots.push((pattern, bytes)),
            }
        }
        for (pattern, bytes) in slots {
            let slot = self.e.slot(bytes, 4);
            let (v, at) = (self.e.int(pattern as i64), self.e.slot_addr(slot));
            let v = self.e.b.ins().splat(types::I64X2, v);
            for offset in (0..bytes as i32).step_by(16) {
                self.e.b.ins().store(element(), v, at, offset);
            }
            self.fills.insert(pattern, slot);
        }
        let registers = if self.e.unit.target.cpu == Cpu::Aarch64 { 24 } else { 8 };
        if constants.len() > registers {
            let copies = widest.div_ceil(16).clamp(1, MAX_COPIES);
            self.e.prepare_constants(&constants, copies)?;
        }
        let mut tiles: Vec<&'k Tile> = vec![];
        visit(&self.k.body, &mut |s, _| {
            if let Stmt::Tile(t) = s {
                tiles.push(t);
            }
        });
        for t in tiles {
            let slot = self.prepare_tile(t)?;
            self.tiles.push((t, slot));
        }
        Ok(())
    }

    pub fn tile_args(&self, t: &Tile) -> Option<StackSlot> {
        let found = self.tiles.iter().find(|(u, _)| std::ptr::eq(*u, t));
        found.map(|(_, slot)| *slot)
    }

    fn stmts(&mut self, body: &[Stmt]) -> Result<(), Error> {
        let rare = Rare::of(body, &self.uses, self.k);
        for (i, s) in body.iter().enumerate().filter(|(i, _)| !rare.moved(*i)) {
            match (s, rare.cone(i)) {
                (Stmt::Set(r, Expr::Prim(_, x)), Some(cone)) => self.rarely(*r, x, cone.iter().map(|&j| &body[j]))?,
                _ => self.stmt(s)?,
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
            } => self.for_loop(*var, *kind, extent, body),
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

    fn for_loop(&mut self, var: Var, kind: LoopKind, extent: &Ix, body: &[Stmt]) -> Result<(), Error> {
        let constant = |this: &Self| {
            let n = extent.as_const();
            n.ok_or_else(|| {
                this.error(format!(
                    "{kind:?} loop over {var} has extent {extent}, expected a constant"
                ))
            })
        };
        match kind {
            LoopKind::Serial if extent.as_const().is_some_and(|n| n <= unroll_limit(body)) => {
                self.unrolled(var, extent.as_const().unwrap_or(0), body)
            }
            LoopKind::Serial => {
                let (from, to) = (self.e.int(0), self.ix(extent)?);
                self.computed_loop(var, from, to, body)
            }
            LoopKind::Parallel => {
                let (from, to) = self.range;
                self.computed_loop(var, from, to, body)
            }
            LoopKind::Unrolled => {
                let n = constant(self)?;
                self.unrolled(var, n, body)
            }
            LoopKind::Vector => {
                let lanes = constant(self)?;
                let Ok(lanes @ 1..) = u32::try_from(lanes) else {
                    return Ok(());
                };
                self.vector_loop(var, lanes, body)
            }
            LoopKind::Block(_) | LoopKind::Thread(_) => Err(self.error(format!("{kind:?} loop, which CPUs have not"))),
        }
    }

    fn unrolled(&mut self, var: Var, n: i64, body: &[Stmt]) -> Result<(), Error> {
        for i in 0..n {
            let before = self.vars.values.insert(var, VarValue::Known(i));
            self.stmts(body)?;
            self.restore(var, before);
        }
        Ok(())
    }

    pub fn restore(&mut self, var: Var, before: Option<VarValue>) {
        match before {
            Some(v) => self.vars.values.insert(var, v),
            None => self.vars.values.remove(&var),
        };
    }

    fn computed_loop(&mut self, var: Var, from: Value, to: Value, body: &[Stmt]) -> Result<(), Error> {
        let coefficients = if innermost(body) { products(body, var) } else { vec![] };
        let mut steps = vec![];
        let mut first = vec![];
        for c in &coefficients {
            let step = self.e.dim(c)?;
            let zero = self.e.known(from) == Some(0);
            first.push(if zero { from } else { self.e.b.ins().imul(from, step) });
            steps.push(step);
        }
        let open = self.e.begin_loop(from, to, &first);
        self.vars.depth += 1;
        let before = self.vars.values.insert(var, VarValue::Value(open.i, self.vars.depth));
        for (c, v) in coefficients.iter().zip(&open.carried) {
            self.vars.products.insert((var, c.clone()), *v);
        }
        self.stmts(body)?;
        let next: Vec<Value> = open
            .carried
            .iter()
            .zip(&steps)
            .map(|(v, s)| self.e.b.ins().iadd(*v, *s))
            .collect();
        self.e.end_loop(open, &next);
        for c in &coefficients {
            self.vars.products.remove(&(var, c.clone()));
        }
        self.vars.depth -= 1;
        self.restore(var, before);
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

/// Up to how many iterations a serial loop is repeated in code: a single one always, a few of a short body without loops
/// of its own, whose indices then become displacements.
fn unroll_limit(body: &[Stmt]) -> i64 {
    let mut size = 0;
    visit(body, &mut |s, lanes| {
        size += match s {
            Stmt::Tile(_) => MAX_UNROLLED,
            _ => 1 + lanes as usize / 16,
        }
    });
    match MAX_UNROLLED / size.max(1) {
        n @ 2.. if innermost(body) => n.min(4) as i64,
        _ => 1,
    }
}

/// True when no loop that runs as a loop stands inside.
fn innermost(body: &[Stmt]) -> bool {
    let mut inner = true;
    visit(body, &mut |s, _| {
        if let Stmt::For { kind, .. } = s {
            inner &= matches!(kind, LoopKind::Vector | LoopKind::Unrolled);
        }
    });
    inner
}

/// The coefficients of a variable in the indices of a body that a shift cannot apply.
fn products(body: &[Stmt], var: Var) -> Vec<Dim> {
    let mut out: Vec<Dim> = vec![];
    visit_indices(body, &mut |e| {
        for (t, c) in &e.terms {
            let shift = c.as_const().is_some_and(|c| c.unsigned_abs().count_ones() == 1);
            if *t == Term::Var(var) && !shift && !out.contains(c) && out.len() < MAX_PRODUCTS {
                out.push(c.clone());
            }
        }
    });
    out
}
