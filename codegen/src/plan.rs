//! `NAME_plan` and `NAME_shapes`: what a run with given dims needs and gives, in checked arithmetic.
//!
//! Invariant: when `NAME_plan` returns [`ErrorCode::Ok`], no dim of the program or of a kernel that its steps call has left
//! 64 bits, no tensor has a negative extent or 2^63 bytes, and neither has the arena. Code of kernels and of `NAME_run`
//! relies on it: they compute the same dims again and check nothing.
//!
//! A status tells which of [`sizes`] is at fault: the detail of [`ErrorCode::TooLarge`] is its number, that of
//! [`ErrorCode::BadDims`] its number and 1 (0: a symbol is negative).

use crate::Error;
use crate::dims::Check;
use crate::emit::{Emit, Unit};
use crate::kernel::visit_indices;
use crate::program::{name, planned, return_code, return_if, return_if_cpu_lacks, scratch, scratch_start};
use brolga_abi::ErrorCode;
use brolga_ir::index::Ix;
use brolga_ir::loops::Kernel;
use brolga_ir::program::{Program, SlotId, Step, Storage};
use brolga_ir::{Dim, Relation, Type};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, types};
use cranelift_module::{FuncId, Linkage};
use rustc_hash::FxHashSet;

/// What has a size that depends on symbols.
struct Sized {
    what: String,
    /// Must not be negative.
    extents: Vec<Dim>,
    /// Must fit.
    dims: Vec<Dim>,
    check: Check,
}

impl Sized {
    /// A tensor, unless its size is known.
    fn tensor(what: String, ty: &Type, bytes: Dim) -> Option<Sized> {
        let known = ty.shape.iter().all(|d| d.as_const().is_some());
        (!known).then(|| Sized {
            what: format!("{what}, {ty},"),
            extents: ty.shape.clone(),
            dims: vec![bytes],
            check: Check::Value,
        })
    }
}

/// What `NAME_plan` measures, for people, in the order of the details of statuses.
pub fn sizes(program: &Program) -> Vec<String> {
    measured(program).into_iter().map(|s| s.what).collect()
}

/// Outputs come first, one each, so that `NAME_shapes` finds their numbers.
fn measured(program: &Program) -> Vec<Sized> {
    let port = |what: &str, (name, s): &(String, SlotId)| {
        let slot = program.slot(*s);
        Sized::tensor(format!("{what} `{name}`"), &slot.ty, slot.bytes())
    };
    let mut all: Vec<Sized> = program.outputs.iter().filter_map(|p| port("output", p)).collect();
    all.extend(program.inputs.iter().filter_map(|p| port("input", p)));
    let mut seen: FxHashSet<(&Type, bool)> = FxHashSet::default();
    for step in &program.steps {
        step.for_each_slot(&mut |s| {
            let slot = program.slot(program.root(s));
            if matches!(slot.storage, Storage::Temp(_)) && seen.insert((&slot.ty, slot.packed)) {
                all.extend(Sized::tensor(
                    format!("a value of {}", place(step)),
                    &slot.ty,
                    slot.bytes(),
                ));
            }
        });
    }
    let mut known: FxHashSet<Dim> = FxHashSet::default();
    for step in &program.steps {
        let Step::Call { kernel, .. } = step else { continue };
        let Some(k) = program.kernels.get(*kernel as usize) else {
            continue;
        };
        let mut dims = vec![];
        for_each_dim(k, &mut |d| {
            if d.as_const().is_none() && !known.contains(d) {
                known.insert(d.clone());
                dims.push(d.clone());
            }
        });
        if !dims.is_empty() {
            all.push(Sized {
                what: format!("a position in {}", place(step)),
                extents: vec![],
                dims,
                check: Check::Overflow,
            });
        }
    }
    all.push(Sized {
        what: "the arena".into(),
        extents: vec![],
        dims: vec![],
        check: Check::Value,
    });
    all
}

/// The nodes that a step belongs to.
fn place(step: &Step) -> String {
    match step {
        Step::Call { origin, .. } if !origin.is_empty() => {
            let names: Vec<String> = origin.iter().map(|n| format!("`{n}`")).collect();
            format!("node {}", names.join(", "))
        }
        Step::Host { origin, .. } => format!("node `{origin}`"),
        Step::Call { kernel, .. } => format!("kernel {kernel}"),
        Step::Copy { .. } => "a copy".into(),
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
        e.check_dims(Check::Value);
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
        let all = measured(program);
        for (i, s) in (0u32..).zip(&all) {
            e.check_dims(s.check);
            check_extents(e, &s.extents, i)?;
            for d in &s.dims {
                e.dim(d)?;
            }
            return_if_wrong(e, ErrorCode::TooLarge.status(i));
        }
        e.check_dims(Check::Value);
        let at = scratch_start(e, &arena)?;
        let workers = e.b.ins().uextend(types::I64, p[1]);
        let s = e.dim(&per_worker)?;
        let s = e.product(s, workers);
        let total = e.sum(at, s);
        return_if_wrong(e, ErrorCode::TooLarge.status(all.len() as u32 - 1));
        e.b.ins().store(MemFlagsData::trusted(), total, p[2], 0);
        return_code(e, ErrorCode::Ok);
        Ok(())
    })?;
    Ok(id)
}

/// `NAME_shapes(dims, out)`.
pub(crate) fn define_shapes(unit: &mut Unit, program: &Program) -> Result<FuncId, Error> {
    let signature = unit.signature(&[types::I64, types::I64], Some(types::I32));
    let id = unit.declare(&name(unit, "shapes"), Linkage::Export, &signature)?;
    unit.define(id, |e| {
        let p = e.params();
        return_if_cpu_lacks(e);
        e.dims = Some(p[0]);
        e.check_dims(Check::Value);
        let (mut number, mut at) = (0, 0);
        for (_, s) in &program.outputs {
            let ty = &program.slot(*s).ty;
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
