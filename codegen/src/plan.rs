//! `NAME_plan` and `NAME_shapes`: what a run with given dims needs and gives, in checked arithmetic.
//!
//! Invariant: when `NAME_plan` returns [`ErrorCode::Ok`], no size of the program has left 64 bits, no tensor has a negative
//! extent or 2^63 bytes, and neither has the arena; and no dim in a kernel that its steps call is beyond 2^62. Code of kernels
//! and of `NAME_run` relies on it: they compute such dims again and check nothing.
//!
//! Sizes are computed as they are used, with a check of each step. Positions in kernels are many, so only a bound on all of
//! them is computed, in f64: on each monomial with its largest coefficient, once (exact checks of each dim in each kernel
//! made the code of a small symbolic model take 13 % longer to generate).
//!
//! Sizes that only the run tells are checked there, in the order of their steps (see [`crate::program`]).
//!
//! A status tells which of [`sizes`] is at fault: the detail of [`ErrorCode::TooLarge`] is its number, that of
//! [`ErrorCode::BadDims`] its number and 1 (0: a symbol is negative).

use crate::Error;
use crate::clif::{Emit, Unit};
use crate::program::{name, planned, return_code, return_if, return_if_cpu_lacks, scratch, scratch_start};
use brolga_abi::ErrorCode;
use brolga_ir::dim::Atom;
use brolga_ir::index::Ix;
use brolga_ir::loops::{Kernel, visit_indices};
use brolga_ir::program::{Let, Program, SlotId, Step, Storage, nested};
use brolga_ir::{Dim, Layout, Relation, Symbol, Type};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, types};
use cranelift_module::{FuncId, Linkage};
use rustc_hash::{FxHashMap, FxHashSet};

/// What has a size that depends on symbols.
pub(crate) struct Sized {
    what: String,
    /// Must not be negative.
    extents: Vec<Dim>,
    /// Must fit.
    bytes: Dim,
    /// Must be below [`largest_term`].
    positions: Dim,
}

impl Sized {
    /// A tensor, unless its size is known.
    fn tensor(what: String, ty: &Type, bytes: Dim) -> Option<Sized> {
        let known = ty.shape.iter().all(|d| d.as_const().is_some());
        (!known).then(|| Sized {
            what: format!("{what}, {ty},"),
            extents: ty.shape.clone(),
            bytes,
            positions: Dim::ZERO,
        })
    }
}

/// What `NAME_plan` measures, for people, in the order of the details of statuses.
pub fn sizes(program: &Program) -> Vec<String> {
    let before = measured(program).into_iter().map(|s| s.what);
    before.chain(late_sizes(program)).collect()
}

/// What the run measures: the sizes of its names and of what is given memory, and positions in kernels.
fn late_sizes(program: &Program) -> Vec<String> {
    let late = program.bounds();
    let steps = nested(&program.steps).into_iter();
    let size = |s: &Step| match s {
        Step::Let(l) => Some(format!("`{}`, {},", l.symbol, l.value.brief())),
        Step::Alloc { slot, .. } => Some(format!("a value of {}, {},", place(s), program.slot(*slot).ty)),
        Step::Call { kernel, .. } => {
            let k = program.kernels.get(*kernel as usize)?;
            is_late(k, &late).then(|| format!("a position in {}", place(s)))
        }
        _ => None,
    };
    steps.filter_map(size).collect()
}

/// Whether a kernel uses symbols that only the run tells.
pub(crate) fn is_late(k: &Kernel, late: &FxHashMap<Symbol, Option<Dim>>) -> bool {
    k.symbols.iter().any(|s| late.contains_key(s))
}

/// Outputs come first, one each, so that `NAME_shapes` finds their numbers.
pub(crate) fn measured(program: &Program) -> Vec<Sized> {
    let late = program.bounds();
    let port = |what: &str, (name, s): &(String, SlotId)| {
        let slot = program.slot(*s);
        let known = !slot.is_late(&late);
        known
            .then(|| Sized::tensor(format!("{what} `{name}`"), &slot.ty, slot.bytes()))
            .flatten()
    };
    let mut all: Vec<Sized> = program.outputs.iter().filter_map(|p| port("output", p)).collect();
    all.extend(program.inputs.iter().filter_map(|p| port("input", p)));
    let mut seen: FxHashSet<(&Type, &Layout)> = FxHashSet::default();
    for step in nested(&program.steps) {
        step.for_each_slot(&mut |s| {
            let slot = program.slot(program.root(s));
            let sized = matches!(slot.storage, Storage::Temp(_)) && !slot.is_late(&late);
            if sized && seen.insert((&slot.ty, &slot.layout)) {
                all.extend(Sized::tensor(
                    format!("a value of {}", place(step)),
                    &slot.ty,
                    slot.bytes(),
                ));
            }
        });
    }
    let mut known: FxHashMap<Vec<Atom>, i64> = FxHashMap::default();
    for step in nested(&program.steps) {
        let Step::Call { kernel, .. } = step else { continue };
        let Some(k) = program.kernels.get(*kernel as usize) else {
            continue;
        };
        if is_late(k, &late) {
            continue;
        }
        let positions = positions(k, &mut known);
        if positions != Dim::ZERO {
            all.push(Sized {
                what: format!("a position in {}", place(step)),
                extents: vec![],
                bytes: Dim::ZERO,
                positions,
            });
        }
    }
    all.push(Sized {
        what: "the arena".into(),
        extents: vec![],
        bytes: Dim::ZERO,
        positions: Dim::ZERO,
    });
    all
}

/// How many of the program's lets, from the first on, dims depend on.
fn used_lets<'d>(program: &Program, dims: impl Iterator<Item = &'d Dim>) -> usize {
    let numbers: FxHashMap<&Symbol, usize> = program.lets.iter().map(|l| &l.symbol).zip(1..).collect();
    let mut used = 0;
    dims.for_each(|d| d.for_each_symbol(&mut |s| used = used.max(numbers.get(s).copied().unwrap_or(0))));
    used
}

/// Each monomial of a kernel's dims, with its largest coefficient, unless it is known with one as large.
pub(crate) fn positions(k: &Kernel, known: &mut FxHashMap<Vec<Atom>, i64>) -> Dim {
    let mut positions = Dim::ZERO;
    for_each_dim(k, &mut |d| {
        for_each_term(d, &mut |atoms, c| raise(known, &mut positions, atoms, c))
    });
    positions
}

/// What each term of a dim in a kernel must be below, so that the sum of those of any dim is below 2^62.
pub(crate) fn largest_term(program: &Program) -> f64 {
    let mut terms = 1;
    for k in &program.kernels {
        for_each_dim(k, &mut |d| terms = terms.max(d.terms().len()));
    }
    2f64.powi(62) / terms as f64
}

/// Adds a monomial to what has to be bounded, unless it is with a coefficient as large.
fn raise(known: &mut FxHashMap<Vec<Atom>, i64>, positions: &mut Dim, atoms: &[Atom], c: i64) {
    let c = c.saturating_abs();
    let largest = known.entry(atoms.to_vec()).or_insert(0);
    if atoms.is_empty() || *largest >= c {
        return;
    }
    *largest = c;
    let monomial = atoms.iter().fold(Dim::ONE, |p, a| p * Dim::atom(a.clone()));
    *positions = &*positions + &(&monomial * c);
}

/// Calls `f` with every term of a dim, and of those that are divided or compared in it.
fn for_each_term(d: &Dim, f: &mut dyn FnMut(&[Atom], i64)) {
    for (atoms, c) in d.terms() {
        f(atoms, c);
        for a in atoms {
            if let Atom::Op(_, x, y) = a {
                for_each_term(x, f);
                for_each_term(y, f);
            }
        }
    }
}

/// The nodes that a step belongs to.
fn place(step: &Step) -> String {
    match step {
        Step::Call { origin, .. } if !origin.is_empty() => {
            let names: Vec<String> = origin.iter().map(|n| format!("`{n}`")).collect();
            format!("node {}", names.join(", "))
        }
        Step::Host { origin, .. } | Step::Alloc { origin, .. } => format!("node `{origin}`"),
        Step::Call { kernel, .. } => format!("kernel {kernel}"),
        Step::Copy { .. } => "a copy".into(),
        Step::Read { .. } | Step::Let(_) | Step::If { .. } | Step::While { .. } | Step::Check { .. } => "a step".into(),
    }
}

/// Calls `f` with every dim that the code of a kernel computes, repetitions included.
pub fn for_each_dim(k: &Kernel, f: &mut dyn FnMut(&Dim)) {
    for b in &k.buffers {
        f(&(&b.len * b.dtype.bytes() as i64));
    }
    visit_indices(&k.body, &mut |e: &Ix| e.for_each_dim(f));
}

/// Returns a status when a dim since the last call has gone wrong.
fn return_if_wrong(e: &mut Emit, status: i32) {
    if let Some(wrong) = e.take_flag() {
        return_if(e, wrong, status);
    }
}

/// Checks extents, which are computed here, and returns when one has no value or is negative.
fn check_extents(e: &mut Emit, extents: &[Dim], number: u32) -> Result<(), Error> {
    for d in extents {
        e.dim(d)?;
    }
    return_if_wrong(e, ErrorCode::TooLarge.status(number));
    for d in extents.iter().filter(|d| !d.is_nonnegative()) {
        let v = e.dim(d)?;
        let negative = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0);
        return_if(e, negative, ErrorCode::BadDims.status(number + 1));
    }
    Ok(())
}

/// Gives lets their values, and returns when one is not what a symbol may be; `number` is the size to blame.
fn bind(e: &mut Emit, lets: &[Let], number: u32) -> Result<(), Error> {
    if lets.is_empty() {
        return Ok(());
    }
    let frame = e.slot(8 * lets.len() as u32, 3);
    for (l, at) in lets.iter().zip((0..).step_by(8)) {
        let v = e.dim(&l.value)?;
        e.bind(&l.symbol, v, frame, at);
    }
    return_if_wrong(e, ErrorCode::TooLarge.status(number));
    for l in lets.iter().filter(|l| !l.value.is_nonnegative()) {
        let v = e.symbol(&l.symbol)?;
        e.raise(v);
    }
    return_if_wrong(e, ErrorCode::BadDims.status(number + 1));
    Ok(())
}

/// `NAME_plan(dims, workers, arena_bytes*)`.
pub(crate) fn define_plan(unit: &mut Unit, program: &Program) -> Result<FuncId, Error> {
    let arena = planned(program)?;
    let per_worker = scratch(program, &program.steps);
    let signature = unit.signature(&[types::I64, types::I32, types::I64], Some(types::I32));
    let id = unit.declare(&name(unit, "plan"), Linkage::Export, &signature)?;
    unit.define(id, |e| {
        let p = e.params();
        return_if_cpu_lacks(e);
        e.dims = Some(p[0]);
        for s in &program.symbols {
            let v = e.symbol(s)?;
            let negative = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0);
            return_if(e, negative, ErrorCode::BadDims as i32);
        }
        e.check_dims();
        for (i, g) in program.guards.iter().enumerate() {
            let (a, b) = (e.dim(&g.left)?, e.dim(&g.right)?);
            return_if_wrong(e, ErrorCode::Guard.status(i as u32));
            let differ = IntCC::NotEqual;
            let fails = match g.relation {
                Relation::Equal => e.b.ins().icmp(differ, a, b),
                Relation::AtMost => e.b.ins().icmp(IntCC::SignedGreaterThan, a, b),
                Relation::Broadcasts => {
                    let (other, stretched) = (e.b.ins().icmp(differ, a, b), e.b.ins().icmp_imm_s(differ, a, 1));
                    e.b.ins().band(other, stretched)
                }
            };
            return_if(e, fails, ErrorCode::Guard.status(i as u32));
        }
        let (all, limit) = (measured(program), largest_term(program));
        let last = all.len() as u32 - 1;
        // Names of types and kernels come before what has their sizes, those of the arena's parts behind it, so that the
        // error of a size that is too large is that of a tensor, where one is.
        let dims = all
            .iter()
            .flat_map(|s| s.extents.iter().chain([&s.bytes, &s.positions]));
        let (early, late) = program.lets.split_at(used_lets(program, dims));
        bind(e, early, last)?;
        for (i, s) in (0u32..).zip(&all) {
            check_extents(e, &s.extents, i)?;
            e.dim(&s.bytes)?;
            return_if_wrong(e, ErrorCode::TooLarge.status(i));
            if !s.positions.is(0) {
                let (bound, limit) = (e.dim_bound(&s.positions)?, e.b.ins().f64const(limit));
                let beyond = e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, bound, limit);
                return_if(e, beyond, ErrorCode::TooLarge.status(i));
            }
        }
        bind(e, late, last)?;
        let at = scratch_start(e, &arena)?;
        let workers = e.b.ins().uextend(types::I64, p[1]);
        let s = e.dim(&per_worker)?;
        let s = e.product(s, workers);
        let total = e.sum(at, s);
        return_if_wrong(e, ErrorCode::TooLarge.status(last));
        e.b.ins().store(MemFlagsData::trusted(), total, p[2], 0);
        return_code(e, ErrorCode::Ok);
        Ok(())
    })?;
    Ok(id)
}

/// `NAME_shapes(dims, out)`. Of an extent that only the run tells, the largest value; -1 where there is none.
pub(crate) fn define_shapes(unit: &mut Unit, program: &Program) -> Result<FuncId, Error> {
    let signature = unit.signature(&[types::I64, types::I64], Some(types::I32));
    let id = unit.declare(&name(unit, "shapes"), Linkage::Export, &signature)?;
    unit.define(id, |e| {
        let p = e.params();
        return_if_cpu_lacks(e);
        e.dims = Some(p[0]);
        e.check_dims();
        let (mut number, mut at) = (0, 0);
        let late = program.bounds();
        let types = program.outputs.iter().map(|(_, s)| &program.slot(*s).ty);
        let bounds: Vec<Vec<Option<Dim>>> = types
            .map(|ty| ty.shape.iter().map(|d| d.upper_bound(&late)).collect())
            .collect();
        let used = used_lets(program, bounds.iter().flatten().flatten());
        bind(e, &program.lets[..used], measured(program).len() as u32 - 1)?;
        for ((_, s), bounds) in program.outputs.iter().zip(&bounds) {
            let ty = &program.slot(*s).ty;
            if program.slot(*s).is_late(&late) {
                for d in bounds {
                    let none = e.int(-1);
                    let v = match d {
                        Some(d) => {
                            let (v, zero) = (e.dim(d)?, e.int(0));
                            let v = e.b.ins().smax(v, zero);
                            e.take_flag().map_or(v, |wrong| e.b.ins().select(wrong, none, v))
                        }
                        None => none,
                    };
                    e.b.ins().store(MemFlagsData::trusted(), v, p[1], 8 * at);
                    at += 1;
                }
                continue;
            }
            let fixed = ty.shape.iter().all(|d| d.as_const().is_some());
            if !fixed {
                check_extents(e, &ty.shape, number)?;
                number += 1;
            }
            for d in &ty.shape {
                let v = e.dim(d)?;
                e.b.ins().store(MemFlagsData::trusted(), v, p[1], 8 * at);
                at += 1;
            }
        }
        return_code(e, ErrorCode::Ok);
        Ok(())
    })?;
    Ok(id)
}
