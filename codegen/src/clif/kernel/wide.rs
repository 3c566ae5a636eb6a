//! Nests that are not Cranelift's: runs of statements with vector loops that [`x86::body`](crate::x86::body) makes functions of, in
//! registers of 256 or 512 bits, and their calls.
//!
//! ```text
//! for i0 parallel 0..n { … vector loops … }   -->   [args] = places of buffers, extents; call @kernel_wide0(args)
//! ```
//!
//! The largest runs are taken, from the outermost statements inwards: the whole parallel loop, else what is inside. What cannot be
//! taken stays in vectors of 128 bits, and the listing of the kernel says why.

use super::Body;
use super::index::VarValue;
use crate::Error;
use crate::clif::emit::{clif, element};
use crate::clif::outline::Outline;
use crate::clif::unit::Unit;
use crate::listing::Listing;
use crate::rare::Uses;
use crate::x86::body::{self, Arg, Nest, Reads};
use crate::x86::{Isa, assemble};
use brolga_ir::index::Reg;
use brolga_ir::loops::{Kernel, LoopKind, Stmt};
use brolga_ir::{DType, TileFamily};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, types};
use cranelift_module::{FuncId, Linkage};
use rustc_hash::FxHashMap;
use std::borrow::Cow;

/// What is taken of a kernel.
#[derive(Default)]
pub(crate) struct Wide {
    /// By the first statement of each run.
    runs: FxHashMap<*const Stmt, Run>,
    /// Why vector loops are not taken.
    pub refusals: Vec<String>,
}

/// Statements that are one function.
pub(super) struct Run {
    /// How many statements.
    len: usize,
    nest: Nest,
    bytes: Vec<u8>,
}

impl Wide {
    /// Plans a kernel; `name` is its function's.
    pub fn plan(k: &Kernel, family: TileFamily, name: &str) -> Wide {
        let mut wide = Wide::default();
        let Some(isa) = Isa::of(family).filter(|_| body::has_vectors(&k.body)) else {
            return wide;
        };
        let planner = Planner {
            k,
            isa,
            dots: family.sums_bytes(),
            name,
            reads: Reads::of(&k.body),
            uses: Uses::of(k),
        };
        wide.list(&planner, &k.body);
        wide
    }

    fn list(&mut self, p: &Planner, stmts: &[Stmt]) {
        let mut at = 0;
        while at < stmts.len() {
            let mut end = stmts.len();
            let why = loop {
                match self.make(p, &stmts[at..end]) {
                    Ok(Some(run)) => {
                        self.runs.insert(&raw const stmts[at], run);
                        break None;
                    }
                    Ok(None) => break None,
                    // What comes before the one that cannot be taken.
                    Err(refusal) if refusal.at > 0 && at + refusal.at < end => end = at + refusal.at,
                    Err(refusal) => break Some(refusal.why),
                }
            };
            let Some(why) = why else {
                at = end;
                continue;
            };
            let before = self.runs.len();
            match &stmts[at] {
                Stmt::For { kind, body, .. } if *kind != LoopKind::Vector => self.list(p, body),
                Stmt::If { then, .. } => self.list(p, then),
                _ => {}
            }
            let one = std::slice::from_ref(&stmts[at]);
            if self.runs.len() == before && body::has_vectors(one) && !self.refusals.contains(&why) {
                self.refusals.push(why);
            }
            at += 1;
        }
    }

    /// A run, where there are vector loops in it.
    fn make(&self, p: &Planner, stmts: &[Stmt]) -> Result<Option<Run>, body::Refusal> {
        if !body::has_vectors(stmts) {
            return Ok(None);
        }
        if gain(stmts, i64::from(p.isa.lanes() as u32)) < CALL {
            let why = "too little work for a call".into();
            return Err(body::Refusal { at: 0, why });
        }
        let name = format!("{}_wide{}", p.name, self.runs.len());
        let nest = body::build(&name, (p.isa, p.dots), p.k, stmts, &p.reads, &p.uses)?;
        let bytes = assemble(&nest.function).map_err(|e| body::Refusal {
            at: 0,
            why: e.to_string(),
        })?;
        Ok(Some(Run {
            len: stmts.len(),
            nest,
            bytes,
        }))
    }

    /// The run that starts with a statement.
    pub(super) fn run(&self, s: &Stmt) -> Option<&Run> {
        self.runs.get(&(s as *const Stmt))
    }

    /// Whether any of a list of statements is taken.
    pub(super) fn any(&self, stmts: &[Stmt]) -> bool {
        !self.runs.is_empty() && stmts.iter().any(|s| self.run(s).is_some())
    }

    /// Calls `f` with every statement that is not taken, as [`visit`](brolga_ir::loops::visit) does.
    pub(super) fn visit_kept<'s>(&self, stmts: &'s [Stmt], lanes: u32, f: &mut dyn FnMut(&'s Stmt, u32)) {
        let mut at = 0;
        while at < stmts.len() {
            let s = &stmts[at];
            if let Some(run) = self.run(s) {
                at += run.len;
                continue;
            }
            f(s, lanes);
            match s {
                Stmt::For { kind, extent, body, .. } => {
                    let inner = match kind {
                        LoopKind::Vector => extent.as_const().map_or(1, |n| n.clamp(1, 1 << 16) as u32),
                        _ => lanes,
                    };
                    self.visit_kept(body, inner, f);
                }
                Stmt::If { then, .. } => self.visit_kept(then, lanes, f),
                _ => {}
            }
            at += 1;
        }
    }

    /// The registers that runs leave for others.
    pub(super) fn results(&self) -> Vec<Reg> {
        let args = self.runs.values().flat_map(|r| &r.nest.args);
        let mut regs: Vec<Reg> = args
            .filter_map(|a| match a {
                Arg::Result(r) => Some(*r),
                _ => None,
            })
            .collect();
        regs.sort();
        regs.dedup();
        regs
    }
}

/// Instructions that a call costs: arguments to and from memory, registers that are kept.
const CALL: i64 = 64;

/// About how many instructions statements take less in registers of so many lanes than in those of four; extents that are not
/// known count as many.
fn gain(stmts: &[Stmt], lanes: i64) -> i64 {
    const UNKNOWN: i64 = 64;
    let each = stmts.iter().map(|s| match s {
        Stmt::For { kind, extent, body, .. } => {
            let n = extent.as_const().unwrap_or(UNKNOWN);
            match kind {
                LoopKind::Vector => {
                    let registers = |lanes: i64| (n + lanes - 1) / lanes;
                    (registers(4) - registers(lanes)) * body.len() as i64
                }
                _ => n.max(0).saturating_mul(gain(body, lanes)),
            }
        }
        Stmt::If { then, .. } => gain(then, lanes),
        _ => 0,
    });
    each.fold(0, i64::saturating_add)
}

struct Planner<'k> {
    k: &'k Kernel,
    isa: Isa,
    /// Whether four products of bytes are one instruction.
    dots: bool,
    name: &'k str,
    reads: Reads,
    uses: Uses,
}

impl Run {
    /// How many statements it stands for.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

const ARGS: MemFlagsData = MemFlagsData::trusted();

impl Body<'_, '_, '_> {
    /// Calls the function of a run, which `stmts` begins with.
    pub(super) fn call_wide(&mut self, run: &Run, stmts: &[Stmt]) -> Result<(), Error> {
        let args = &run.nest.args;
        let slot = self.e.slot(8 * args.len().max(1) as u32, 3);
        let block = self.e.slot_addr(slot);
        // The first iteration of a parallel loop, for the addresses that depend on it.
        let parallel = stmts[..run.len].iter().find_map(|s| match s {
            Stmt::For {
                var,
                kind: LoopKind::Parallel(_),
                ..
            } => Some(*var),
            _ => None,
        });
        let before = parallel.map(|v| (v, self.vars.values.insert(v, VarValue::Value(self.range.0, 0))));
        for (i, a) in args.iter().enumerate() {
            let v = match a {
                Arg::Address(b, index) => {
                    let (at, offset) = self.address(*b, index)?;
                    self.e.b.ins().iadd_imm_s(at, i64::from(offset))
                }
                Arg::Index(index) => self.ix(index)?,
                Arg::Extent(d) => {
                    let (n, zero) = (self.e.dim(d)?, self.e.int(0));
                    self.e.b.ins().smax(n, zero)
                }
                Arg::Iterations => {
                    let (from, to) = self.range;
                    self.e.b.ins().isub(to, from)
                }
                Arg::Register(r) => {
                    let v = self.read_scalar(*r)?;
                    match self.k.reg(*r).dtype {
                        DType::Bool => self.e.b.ins().uextend(types::I64, v),
                        _ => v,
                    }
                }
                Arg::Result(_) => continue,
            };
            self.e.b.ins().store(ARGS, v, block, 8 * i as i32);
        }
        if let Some((v, before)) = before {
            self.restore(v, before);
        }
        let f = self.e.unit.outline(run)?;
        self.e.call(f, &[block]);
        for (i, a) in args.iter().enumerate() {
            if let Arg::Result(r) = a {
                let ty = clif(self.k.reg(*r).dtype);
                let v = self.e.b.ins().load(ty, element(), block, 8 * i as i32);
                self.write_variable(*r, &[v])?;
            }
        }
        Ok(())
    }
}

impl Outline for Run {
    fn name(&self) -> Cow<'static, str> {
        self.nest.function.name.clone().into()
    }

    fn define(&self, unit: &mut Unit, name: &str) -> Result<FuncId, Error> {
        let signature = unit.signature(&[types::I64], None);
        let id = unit.declare(name, Linkage::Local, &signature)?;
        if let Some(listings) = &mut unit.listings {
            let vir = self.nest.function.to_string();
            let cpu = unit.target.cpu;
            listings.push(Listing::new(name.to_owned(), vir, &self.bytes, String::new(), cpu));
        }
        unit.define_bytes(id, self.bytes.clone())?;
        Ok(id)
    }
}
