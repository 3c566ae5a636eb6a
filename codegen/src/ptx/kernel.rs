//! An entry: parameters, memory, statements.

use super::index::{Int, Range, Scope};
use super::reg::{Asm, Class, R, put};
use super::scalar::immediate;
use super::{entry_name, fail, launch};
use crate::Error;
use crate::rare::{Rare, Uses};
use brolga_ir::index::{Ix, Reg, Var};
use brolga_ir::loops::{self, Expr, Kernel, LoopKind, Stmt, visit_sets};
use brolga_ir::{DType, Dim, Format, Symbol};
use rustc_hash::FxHashMap;

/// Bytes of shared memory that a block may have without asking for more at launch.
const MAX_SHARED: i64 = 48 << 10;
/// Bytes of parameters that an entry may have.
const MAX_PARAMS: usize = 4352;

/// The printer of one kernel.
pub(super) struct Printer<'k> {
    pub k: &'k Kernel,
    pub asm: Asm,
    /// Registers of the kernel's registers, once they are assigned.
    regs: Vec<Option<R>>,
    /// Addresses of the buffers.
    pub bases: Vec<R>,
    /// Values of the symbols.
    pub symbols: FxHashMap<Symbol, R>,
    /// Dims that the head has computed.
    pub dims: FxHashMap<Dim, R>,
    /// Values of the variables of open loops.
    pub vars: FxHashMap<Var, Int>,
    /// Their ranges, where known.
    pub ranges: FxHashMap<Var, Range>,
    /// Index registers whose value is also in a register of 32 bits, with its range.
    pub narrow: FxHashMap<Reg, (R, Range)>,
    /// What was computed in the open loops and branches.
    pub scopes: Vec<Scope>,
    /// The address of the word for failed checks.
    fault: Option<R>,
    /// How often each register is assigned.
    assignments: FxHashMap<Reg, usize>,
    /// How often registers are used, for what runs rarely.
    uses: Uses,
}

/// The text of an entry.
pub(super) fn entry(k: &Kernel) -> Result<String, Error> {
    k.verify().map_err(|e| fail(k, e))?;
    let k = &*crate::stored::stored(k);
    let mut assignments = FxHashMap::default();
    count(&k.body, &mut assignments);
    let mut p = Printer {
        k,
        asm: Asm::default(),
        regs: vec![None; k.regs.len()],
        bases: vec![],
        symbols: FxHashMap::default(),
        dims: FxHashMap::default(),
        vars: FxHashMap::default(),
        ranges: FxHashMap::default(),
        narrow: FxHashMap::default(),
        scopes: vec![Scope::default()],
        fault: None,
        assignments,
        uses: Uses::of(k),
    };
    let name = entry_name(k);
    let (params, memory) = p.memory(&name)?;
    p.stmts(&k.body)?;
    let [x, y, z] = launch(k).block;
    Ok(format!(
        "\n.visible .entry {name}(\n{params}\n)\n.reqntid {x}, {y}, {z}\n{{\n{}{memory}{}{}\tret;\n}}\n",
        p.asm.declarations(),
        p.asm.head,
        p.asm.body,
    ))
}

/// Counts assignments.
fn count(stmts: &[Stmt], out: &mut FxHashMap<Reg, usize>) {
    visit_sets(stmts, &mut |r| *out.entry(r).or_default() += 1);
}

impl Printer<'_> {
    /// Parameters, and declarations of memory; loads the buffers' addresses and the symbols.
    fn memory(&mut self, name: &str) -> Result<(String, String), Error> {
        let (mut params, mut memory) = (vec![], String::new());
        let mut shared = 0;
        for (i, b) in self.k.buffers.iter().enumerate() {
            let bytes = b.len.as_const().unwrap_or(0).saturating_mul(b.dtype.bytes() as i64);
            match b.scope {
                loops::Scope::In | loops::Scope::Out => {
                    let (raw, base) = (self.asm.reg(Class::B64), self.asm.reg(Class::B64));
                    params.push(format!("\t.param .u64 {name}_b{i}"));
                    self.asm.put_head(format_args!("ld.param.u64 {raw}, [{name}_b{i}]"));
                    self.asm.put_head(format_args!("cvta.to.global.u64 {base}, {raw}"));
                    self.bases.push(base);
                }
                loops::Scope::Shared => {
                    shared += bytes;
                    let base = self.asm.reg(Class::B32);
                    memory.push_str(&format!("\t.shared .align 16 .b8 {name}_b{i}[{}];\n", bytes.max(1)));
                    self.asm.put_head(format_args!("mov.u32 {base}, {name}_b{i}"));
                    self.bases.push(base);
                }
                loops::Scope::Private => {
                    let base = self.asm.reg(Class::B64);
                    memory.push_str(&format!("\t.local .align 16 .b8 {name}_b{i}[{}];\n", bytes.max(1)));
                    self.asm.put_head(format_args!("mov.u64 {base}, {name}_b{i}"));
                    self.bases.push(base);
                }
                loops::Scope::Worker | loops::Scope::Kernel => {
                    return Err(fail(self.k, format!("b{i} is scratch of CPU workers")));
                }
            }
        }
        if shared > MAX_SHARED {
            let what = format!("{shared} bytes of shared memory, expected at most {MAX_SHARED}");
            return Err(fail(self.k, what));
        }
        for (i, s) in self.k.symbols.iter().enumerate() {
            let r = self.asm.reg(Class::B64);
            params.push(format!("\t.param .s64 {name}_d{i}"));
            self.asm.put_head(format_args!("ld.param.s64 {r}, [{name}_d{i}]"));
            self.symbols.insert(s.clone(), r);
        }
        if self.k.checks() > 0 {
            let (raw, fault) = (self.asm.reg(Class::B64), self.asm.reg(Class::B64));
            params.push(format!("\t.param .u64 {name}_fault"));
            self.asm.put_head(format_args!("ld.param.u64 {raw}, [{name}_fault]"));
            self.asm.put_head(format_args!("cvta.to.global.u64 {fault}, {raw}"));
            self.fault = Some(fault);
        }
        if params.len() * 8 > MAX_PARAMS {
            let what = format!("{} parameters, expected at most {}", params.len(), MAX_PARAMS / 8);
            return Err(fail(self.k, what));
        }
        Ok((params.join(",\n"), memory))
    }

    /// The register of a kernel's register.
    pub fn reg(&mut self, r: Reg) -> R {
        let dtype = self.k.reg(r).dtype;
        let asm = &mut self.asm;
        *self.regs[r.0 as usize].get_or_insert_with(|| asm.of(dtype))
    }

    fn stmts(&mut self, stmts: &[Stmt]) -> Result<(), Error> {
        let rare = Rare::of(stmts, &self.uses, self.k);
        for (i, s) in stmts.iter().enumerate().filter(|(i, _)| !rare.moved(*i)) {
            match (s, rare.cone(i)) {
                (Stmt::Set(r, Expr::Prim(_, x)), Some(cone)) => self.rarely(*r, x, cone.iter().map(|&j| &stmts[j]))?,
                _ => self.stmt(s)?,
            }
        }
        Ok(())
    }

    /// `r = x[0] ? x[1] : x[2]`, with the statements that `x[1]` needs behind a branch.
    fn rarely<'s>(&mut self, r: Reg, x: &[Reg; 3], mut cone: impl Iterator<Item = &'s Stmt>) -> Result<(), Error> {
        let [c, a, b] = x.map(|r| self.reg(r));
        let (d, n) = (self.reg(r), self.asm.label());
        self.asm.mov(d, b);
        put!(self.asm, "@!{c} bra $I{n}");
        self.scopes.push(Scope::default());
        cone.try_for_each(|s| self.stmt(s))?;
        self.scopes.pop();
        self.asm.mov(d, a);
        self.asm.place(format_args!("$I{n}"));
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), Error> {
        match s {
            Stmt::For {
                var,
                kind,
                extent,
                body,
            } => self.for_loop(*var, kind, extent, body),
            Stmt::Set(r, e) => self.set(*r, e),
            Stmt::Store { buffer, index, value } => {
                let b = self.k.buffer(*buffer);
                let (space, dtype) = (space(b.scope), b.dtype);
                let (at, value) = (self.address(*buffer, index), self.reg(*value));
                let value = match dtype {
                    DType::Bool => {
                        let byte = self.asm.reg(Class::B32);
                        put!(self.asm, "selp.b32 {byte}, 1, 0, {value}");
                        byte
                    }
                    _ => value,
                };
                put!(self.asm, "st.{space}.{} {at}, {value}", memory_ty(dtype));
                Ok(())
            }
            Stmt::If { bounds, then } => {
                let Some(p) = self.bounds(bounds) else {
                    return self.stmts(then);
                };
                let n = self.asm.label();
                put!(self.asm, "@!{p} bra $I{n}");
                self.scopes.push(Scope::default());
                self.stmts(then)?;
                self.scopes.pop();
                self.asm.place(format_args!("$I{n}"));
                Ok(())
            }
            Stmt::Check { number, holds } => {
                let Some(fault) = self.fault else {
                    return Err(fail(self.k, format!("check {number} in a kernel without checks")));
                };
                let (holds, word) = (self.reg(*holds), self.asm.reg(Class::B32));
                put!(self.asm, "mov.b32 {word}, {}", number + 1);
                put!(self.asm, "@!{holds} st.global.u32 [{fault}], {word}");
                Ok(())
            }
            Stmt::Barrier => {
                put!(self.asm, "bar.sync 0");
                Ok(())
            }
            Stmt::Tile(_) => Err(fail(self.k, "a register tile in a kernel for a GPU")),
        }
    }

    fn for_loop(&mut self, var: Var, kind: &LoopKind, extent: &Ix, body: &[Stmt]) -> Result<(), Error> {
        let dimension = |d: u8| ["x", "y", "z"][d as usize];
        match kind {
            LoopKind::Parallel(_) | LoopKind::Vector => {
                Err(fail(self.k, "a parallel or vector loop in a kernel for a GPU"))
            }
            LoopKind::Block(d) | LoopKind::Thread(d) => {
                let name = if matches!(kind, LoopKind::Block(_)) {
                    "ctaid"
                } else {
                    "tid"
                };
                let r = self.asm.reg(Class::B32);
                put!(self.asm, "mov.u32 {r}, %{name}.{}", dimension(*d));
                // A grid has fewer than 2^31 blocks.
                let n = extent.as_const().unwrap_or(i32::MAX as i64);
                self.with_var(var, r, Some((0, (n - 1).max(0))), |p| p.stmts(body))
            }
            LoopKind::Unrolled => {
                // The copies follow each other, so that each knows what the ones before it have computed.
                (0..extent.as_const().unwrap_or(0)).try_for_each(|i| {
                    self.vars.insert(var, Int::Known(i));
                    self.stmts(body)
                })
            }
            LoopKind::Serial => self.serial(var, extent, body),
        }
    }

    fn serial(&mut self, var: Var, extent: &Ix, body: &[Stmt]) -> Result<(), Error> {
        let mut changed = FxHashMap::default();
        count(body, &mut changed);
        let changed: Vec<Reg> = changed.into_keys().collect();
        self.forget(&changed);
        let range = self.small_range(extent);
        let (bits, class) = match range {
            Some(_) => (32, Class::B32),
            None => (64, Class::B64),
        };
        let (i, n) = (self.asm.reg(class), self.ix(extent));
        let (n, label) = (self.operand(n, class), self.asm.label());
        put!(self.asm, "mov.b{bits} {i}, 0");
        let never_empty = range.is_some_and(|(lo, _)| lo > 0);
        if !never_empty {
            let p = self.asm.reg(Class::Pred);
            put!(self.asm, "setp.ge.s{bits} {p}, {i}, {n}");
            put!(self.asm, "@{p} bra $E{label}");
        }
        self.asm.place(format_args!("$L{label}"));
        let range = range.map(|(_, hi)| (0, (hi - 1).max(0)));
        self.with_var(var, i, range, |p| p.stmts(body))?;
        let p = self.asm.reg(Class::Pred);
        put!(self.asm, "add.s{bits} {i}, {i}, 1");
        put!(self.asm, "setp.lt.s{bits} {p}, {i}, {n}");
        put!(self.asm, "@{p} bra $L{label}");
        if !never_empty {
            self.asm.place(format_args!("$E{label}"));
        }
        Ok(())
    }

    fn set(&mut self, r: Reg, e: &Expr) -> Result<(), Error> {
        let info = self.k.reg(r);
        if info.lanes > 1 {
            return Err(fail(self.k, format!("{r} has {} lanes", info.lanes)));
        }
        if info.dtype == DType::I64 && !matches!(e, Expr::Index(_)) {
            self.forget(&[r]);
        }
        match e {
            Expr::Const(bits) => {
                let d = self.reg(r);
                put!(self.asm, "mov.{} {d}, {}", d.class.ty(), immediate(info.dtype, *bits));
            }
            Expr::Load {
                buffer,
                index,
                guard,
                fill,
            } => {
                let b = self.k.buffer(*buffer);
                let (space, dtype) = (space(b.scope), b.dtype);
                let guard = self.bounds(guard);
                let (at, d) = (self.address(*buffer, index), self.reg(r));
                let to = if dtype == DType::Bool {
                    self.asm.reg(Class::B32)
                } else {
                    d
                };
                let mut only = String::new();
                if let Some(p) = guard {
                    put!(self.asm, "mov.{} {to}, {}", to.class.ty(), fill_of(dtype, *fill));
                    only = format!("@{p} ");
                }
                put!(self.asm, "{only}ld.{space}.{} {to}, {at}", memory_ty(dtype));
                if to != d {
                    put!(self.asm, "setp.ne.s32 {d}, {to}, 0");
                }
            }
            Expr::Index(ix) => {
                let range = self.small_range(ix);
                let x = self.ix(ix);
                self.forget(&[r]);
                let d = self.reg(r);
                match x {
                    Int::Known(c) => put!(self.asm, "mov.b64 {d}, {c}"),
                    Int::Reg(x) if x.class == Class::B64 => self.asm.mov(d, x),
                    Int::Reg(x) => put!(self.asm, "cvt.s64.s32 {d}, {x}"),
                }
                if let (Some(range), Int::Reg(mut x), Some(1)) = (range, x, self.assignments.get(&r))
                    && x.class == Class::B32
                {
                    if ix.as_var().is_some() {
                        // The variable's own register goes on counting.
                        let kept = self.asm.reg(Class::B32);
                        self.asm.mov(kept, x);
                        x = kept;
                    }
                    self.narrow.insert(r, (x, range));
                }
            }
            Expr::InBounds(bounds) => {
                let p = self.bounds(bounds);
                let d = self.reg(r);
                match p {
                    Some(p) => self.asm.mov(d, p),
                    None => put!(self.asm, "mov.pred {d}, -1"),
                }
            }
            Expr::Prim(p, args) => {
                let t = self.k.reg(args[p.typed()]).dtype;
                let args = args.map(|a| self.reg(a));
                let d = self.reg(r);
                self.asm.prim(*p, t, d, args);
            }
            Expr::Copy(a) => {
                let (d, a) = (self.reg(r), self.reg(*a));
                self.asm.mov(d, a);
            }
            Expr::Lane(a, _) => return Err(fail(self.k, format!("a lane of {a}"))),
        }
        Ok(())
    }
}

fn space(s: loops::Scope) -> &'static str {
    match s {
        loops::Scope::Shared => "shared",
        loops::Scope::Private => "local",
        _ => "global",
    }
}

/// The type of an element in memory.
fn memory_ty(t: DType) -> &'static str {
    match t.format() {
        Format::F64 => "f64",
        Format::F32 => "f32",
        Format::Half => "b16",
        Format::Signed(64) | Format::Unsigned(64) => "b64",
        Format::Signed(32) | Format::Unsigned(32) => "b32",
        Format::Signed(16) => "s16",
        Format::Unsigned(16) => "u16",
        Format::Signed(_) => "s8",
        Format::Unsigned(_) | Format::Bool | Format::Small(_) => "u8",
    }
}

/// A guarded load's other value; a bool is a byte in memory.
fn fill_of(t: DType, bits: u64) -> String {
    match t {
        DType::Bool => bits.to_string(),
        _ => immediate(t, bits),
    }
}
