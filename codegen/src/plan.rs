//! `NAME_plan` and `NAME_shapes`: what a run with given dims needs and gives, in checked arithmetic.
//!
//! Invariant: when `NAME_plan` returns [`ErrorCode::Ok`], no size of the program has left 64 bits, no tensor has a negative
//! extent or 2^63 bytes, and neither has the arena; and no dim in a kernel that its steps call is beyond 2^62. Code of kernels
//! and of `NAME_run` relies on it: kernels compute such dims again, the run takes them, and neither checks anything.
//!
//! Sizes are computed in the order in which they are used, with a check of each step. Positions in kernels are many, so only a
//! bound on all of them is computed, in f64: on each monomial with its largest coefficient, once (exact checks of each dim
//! in each kernel made the code of a small symbolic model take 13 % longer to generate).
//!
//! All this is a table that one function evaluates ([`crate::table`]), and leaves what it computed in an array, from which
//! `NAME_run` takes it. As code, the sizes of 1,000 temporaries were 165,000 instructions in one function (2026-11-27).
//!
//! Sizes that only the run tells are checked there, in the order of their steps (see [`crate::program`]).
//!
//! A status tells which of [`sizes`] is at fault: the detail of [`ErrorCode::TooLarge`] is its number, that of
//! [`ErrorCode::BadDims`] its number and 1 (0: a symbol is negative).

use crate::Error;
use crate::clif::{CONSTANT, Emit, Evaluator, Unit};
use crate::program::{name, planned, return_code, return_if, return_if_cpu_lacks, scratch, scratch_start};
use crate::table::Table;
use brolga_abi::ErrorCode;
use brolga_ir::dim::Atom;
use brolga_ir::index::Ix;
use brolga_ir::loops::{Kernel, visit_indices};
use brolga_ir::program::{Let, Program, SlotId, Step, Storage, nested};
use brolga_ir::{Dim, Layout, Symbol, Type};
use cranelift_codegen::ir::condcodes::IntCC;
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

/// Where the sizes of a run lie once they are known: an array of i64 that `NAME_sizes` fills.
///
/// ```text
/// bytes of the arena | symbols | names that kernels see | other names | what is computed on the way
/// ```
pub(crate) struct Sizes {
    /// `NAME_sizes(dims, workers, array) -> status`.
    pub function: FuncId,
    /// The byte of every symbol, and of every name.
    pub places: FxHashMap<Symbol, i32>,
    /// Bytes of the array.
    pub bytes: u32,
    /// How many sizes `NAME_plan` measures; the last one is the arena.
    pub measured: u32,
}

impl Sizes {
    /// The byte where symbols begin, and names that kernels see follow.
    pub const DIMS: i32 = 8;
}

/// What is to be computed and checked before a run, and the places of the arena's size and of the workers' scratch, where
/// they are no numbers.
fn tabulate<'p>(
    prefix: &'p str,
    program: &Program,
    all: &[Sized],
    places: &FxHashMap<Symbol, i64>,
) -> Result<(Table<'p>, [Option<i64>; 2]), Error> {
    let symbols = program.symbols.iter().map(|s| (s.clone(), places[s]));
    let mut table = Table::new(prefix, symbols.collect(), places.len() as i64 + 1);
    for (g, i) in program.guards.iter().zip(0..) {
        let status = ErrorCode::Guard.status(i);
        let (a, b) = (table.value(&g.left)?, table.value(&g.right)?);
        table.return_if_wrong(status);
        table.return_unless(g.relation, a, b, status);
    }
    let limit = largest_term(program);
    let last = all.len() as u32 - 1;
    // Names of types and kernels come before what has their sizes, those of the arena's parts behind it, so that the
    // error of a size that is too large is that of a tensor, where one is.
    let dims = all
        .iter()
        .flat_map(|s| s.extents.iter().chain([&s.bytes, &s.positions]));
    let (early, late) = program.lets.split_at(used_lets(program, dims));
    let bind = |table: &mut Table, lets: &[Let]| {
        for l in lets {
            table.bind(&l.symbol, &l.value, places[&l.symbol])?;
        }
        table.return_if_wrong(ErrorCode::TooLarge.status(last));
        for l in lets.iter().filter(|l| !l.value.is_nonnegative()) {
            table.return_if_negative(places[&l.symbol], ErrorCode::BadDims.status(last + 1));
        }
        Ok::<_, Error>(())
    };
    bind(&mut table, early)?;
    for (i, s) in (0u32..).zip(all) {
        for d in &s.extents {
            table.check(d)?;
        }
        table.return_if_wrong(ErrorCode::TooLarge.status(i));
        for d in s.extents.iter().filter(|d| !d.is_nonnegative()) {
            table.return_if_dim_is_negative(d, ErrorCode::BadDims.status(i + 1))?;
        }
        table.check(&s.bytes)?;
        table.return_if_wrong(ErrorCode::TooLarge.status(i));
        if !s.positions.is(0) {
            table.return_unless_below(&s.positions, limit, ErrorCode::TooLarge.status(i))?;
            // What a bound is made of has been checked, or is now.
            table.return_if_wrong(ErrorCode::TooLarge.status(i));
        }
    }
    bind(&mut table, late)?;
    let mut place = |d: &Dim| match d.as_const() {
        Some(_) => Ok(None),
        None => table.value(d).map(Some),
    };
    let ends = [place(&planned(program)?)?, place(&scratch(program))?];
    Ok((table, ends))
}

/// `NAME_plan(dims, workers, arena_bytes*)`, and the function that does its work.
pub(crate) fn define_plan(unit: &mut Unit, program: &Program) -> Result<(FuncId, Sizes), Error> {
    let visible = program.visible_names();
    let names = visible.iter().chain(program.names().filter(|n| !visible.contains(n)));
    let places: FxHashMap<Symbol, i64> = program.symbols.iter().chain(names).cloned().zip(1..).collect();
    let (arena, per_worker) = (planned(program)?, scratch(program));
    let prefix = unit.prefix.clone();
    let all = measured(program);
    let (table, ends) = tabulate(&prefix, program, &all, &places)?;
    let count = table.places();
    let alone = count == 1;
    let signature = unit.signature(&[types::I64, types::I32, types::I64], Some(types::I32));
    let (sizes, linkage) = match alone {
        // There is nothing but what a caller of `NAME_plan` wants to know.
        true => (name(unit, "plan"), Linkage::Export),
        false => (name(unit, "sizes"), Linkage::Local),
    };
    let function = unit.declare(&sizes, linkage, &signature)?;
    let last = all.len() as u32 - 1;
    unit.define(function, |e| {
        let p = e.params();
        let (dims, array) = (p[0], p[2]);
        let flags = MemFlagsData::trusted();
        return_if_cpu_lacks(e);
        for i in 0..program.symbols.len() as i32 {
            let v = e.b.ins().load(types::I64, CONSTANT, dims, 8 * i);
            let negative = e.b.ins().icmp_imm_s(IntCC::SignedLessThan, v, 0);
            return_if(e, negative, ErrorCode::BadDims as i32);
            e.b.ins().store(flags, v, array, Sizes::DIMS + 8 * i);
        }
        if !table.is_empty() {
            let table = e.data(table.bytes())?;
            let evaluator = e.unit.outline(&Evaluator)?;
            let status = e.call_value(evaluator, &[table, array]);
            let (out, on) = (e.b.create_block(), e.b.create_block());
            e.b.ins().brif(status, out, &[], on, &[]);
            e.b.switch_to_block(out);
            e.b.seal_block(out);
            e.b.set_cold_block(out);
            e.b.ins().return_(&[status]);
            e.b.switch_to_block(on);
            e.b.seal_block(on);
        }
        e.check_dims();
        let [arena, per_worker] = [(&arena, ends[0]), (&per_worker, ends[1])].map(|(d, place)| match place {
            Some(at) => e.b.ins().load(types::I64, flags, array, 8 * at as i32),
            None => e.int(d.as_const().unwrap_or(0)),
        });
        let at = scratch_start(e, arena);
        let workers = e.b.ins().uextend(types::I64, p[1]);
        let s = e.product(per_worker, workers);
        let total = e.sum(at, s);
        return_if_wrong(e, ErrorCode::TooLarge.status(last));
        e.b.ins().store(flags, total, array, 0);
        return_code(e, ErrorCode::Ok);
        Ok(())
    })?;
    let sizes = Sizes {
        function,
        places: places.into_iter().map(|(s, at)| (s, 8 * at as i32)).collect(),
        bytes: 8 * count as u32,
        measured: all.len() as u32,
    };
    if alone {
        return Ok((function, sizes));
    }
    let id = unit.declare(&name(unit, "plan"), Linkage::Export, &signature)?;
    unit.define(id, |e| {
        let p = e.params();
        let slot = e.slot(sizes.bytes, 3);
        let array = e.slot_addr(slot);
        let status = e.call_value(function, &[p[0], p[1], array]);
        let fine = e.b.ins().icmp_imm_s(IntCC::Equal, status, 0);
        let open = e.begin_if(fine);
        let total = e.b.ins().stack_load(types::I64, types::I64, slot, 0);
        e.b.ins().store(MemFlagsData::trusted(), total, p[2], 0);
        e.end_if(open);
        e.b.ins().return_(&[status]);
        Ok(())
    })?;
    Ok((id, sizes))
}

/// `NAME_shapes(dims, out)`. Of an extent that only the run tells, the largest value; -1 where there is none.
pub(crate) fn define_shapes(unit: &mut Unit, program: &Program, sizes: &Sizes) -> Result<FuncId, Error> {
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
        bind(e, &program.lets[..used], sizes.measured - 1)?;
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
