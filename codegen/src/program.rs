//! A program becomes three functions of the ABI and one local function for each kernel that it calls; kernels that differ in
//! their sizes only share theirs (see [`crate::sharing`]).
//!
//! `NAME_run` checks the context and then only calls: kernels through `parallel_for` where there is enough work, host
//! operators through the context. Pointers are computed where they are used: inputs and outputs are loaded from the
//! caller's arrays, temporaries are offsets in the arena, constants offsets in the weights. The workers' scratch lies behind
//! the temporaries.
//!
//! What only the run tells, and what depends on it, is checked where it becomes known: names (`let`), memory (`alloc`) and
//! positions in kernels with such symbols have numbers behind those of `NAME_plan`'s sizes, in the order of their steps.
//!
//! In a program that is profiled, `NAME_run` calls a function of this process around each step ([`Unit::call_around_steps`]); nothing
//! else of the code differs.

use crate::clif::{CONSTANT, Copy, Emit, Launch, Unit, kernel};
use crate::plan::Sizes;
use crate::sharing::Sharing;
pub use crate::told::{checks, host_steps, nodes};
use crate::{Error, plan};
use brolga_abi::ctx::offset;
use brolga_abi::{ABI_VERSION, ErrorCode, NO_NODE};
use brolga_ir::loops::{self, Grain};
use brolga_ir::program::{Program, Rows, SlotId, Step, Storage, nested};
use brolga_ir::{Dim, Symbol};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Block, InstBuilder, MemFlagsData, StackSlot, Value, types};
use cranelift_module::{FuncId, Linkage};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The functions of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// `NAME_run`.
    pub run: FuncId,
    /// `NAME_plan`.
    pub plan: FuncId,
    /// `NAME_shapes`.
    pub shapes: FuncId,
    /// Kernels that are called, by their index in the program: symbol and function.
    pub kernels: Vec<Option<(String, FuncId)>>,
}

/// Bytes of scratch that one worker needs.
pub(crate) fn scratch(program: &Program) -> Dim {
    let late = program.bounds();
    nested(&program.steps).into_iter().fold(Dim::ZERO, |most, s| match s {
        Step::Call { kernel, .. } => {
            let bytes = program.kernels[*kernel as usize].scratch_bytes();
            Dim::max(&most, &bytes.upper_bound(&late).unwrap_or(bytes))
        }
        _ => most,
    })
}

/// Compiles `NAME_run`, `NAME_plan` and `NAME_shapes` into a unit whose prefix is `NAME`. `weights` gives the byte offset in
/// the weights of every constant slot that the steps read.
///
/// # Errors
/// What a kernel or the program holds that the back end cannot compile.
pub fn compile_program(
    unit: &mut Unit,
    program: &Program,
    weights: &dyn Fn(SlotId) -> Option<u64>,
) -> Result<Compiled, Error> {
    // Kernels find the names behind the symbols; what runs before a name is given must not.
    let symbols = unit.symbols.len();
    unit.symbols.extend(program.visible_names());
    let sharing = Sharing::of(program);
    let kernels = compile_kernels(unit, program, &sharing);
    unit.symbols.truncate(symbols);
    let kernels = kernels?;
    let (plan, sizes) = plan::define_plan(unit, program)?;
    let shapes = plan::define_shapes(unit, program, &sizes)?;
    let run = define_run(unit, program, (&kernels, &sharing), &sizes, weights)?;
    Ok(Compiled {
        run,
        plan,
        shapes,
        kernels,
    })
}

type Kernels = Vec<Option<(String, FuncId)>>;

fn compile_kernels(unit: &mut Unit, program: &Program, sharing: &Sharing) -> Result<Kernels, Error> {
    let mut out: Kernels = vec![None; program.kernels.len()];
    for s in nested(&program.steps) {
        let Step::Call { kernel: k, .. } = s else { continue };
        let at = *k as usize;
        if out[at].is_some() {
            continue;
        }
        let Some(k) = program.kernels.get(at) else {
            return Err(Error::Program {
                program: program.name.clone(),
                what: format!("a step calls kernel {at}, but there are {}", program.kernels.len()),
            });
        };
        let shared = sharing.of.get(&(at as u32));
        if let Some(first) = shared.and_then(|s| out[s.first as usize].clone()) {
            out[at] = Some(first);
            continue;
        }
        let name = format!("{}_k{at}_{}", unit.prefix, brolga_ir::program::identifier(&k.name));
        let id = match sharing.functions.get(&(at as u32)) {
            Some(function) => {
                let outside = std::mem::replace(&mut unit.symbols, function.symbols.clone());
                let id = kernel::define(unit, function, &name, Linkage::Local);
                unit.symbols = outside;
                id
            }
            None => kernel::define(unit, k, &name, Linkage::Local),
        };
        out[at] = Some((name, id?));
    }
    Ok(out)
}

pub(crate) fn name(unit: &Unit, function: &str) -> String {
    format!("{}_{function}", unit.prefix)
}

pub(crate) fn return_code(e: &mut Emit, code: ErrorCode) {
    let v = e.b.ins().iconst(types::I32, code as i64);
    e.b.ins().return_(&[v]);
}

/// Returns a status when a condition holds.
pub(crate) fn return_if(e: &mut Emit, cond: Value, status: i32) {
    let (out, on) = (e.b.create_block(), e.b.create_block());
    e.b.ins().brif(cond, out, &[], on, &[]);
    e.b.switch_to_block(out);
    e.b.seal_block(out);
    e.b.set_cold_block(out);
    let v = e.b.ins().iconst(types::I32, i64::from(status));
    e.b.ins().return_(&[v]);
    e.b.switch_to_block(on);
    e.b.seal_block(on);
}

/// Returns a status when the CPU lacks something, where it is to be asked.
pub(crate) fn return_if_cpu_lacks(e: &mut Emit) {
    if let Some(lacks) = e.cpu_lacks() {
        return_if(e, lacks, ErrorCode::CpuFeatures as i32);
    }
}

pub(crate) fn planned(program: &Program) -> Result<Dim, Error> {
    program.arena.clone().ok_or_else(|| Error::Program {
        program: program.name.clone(),
        what: "its memory is not planned; expected an arena size".into(),
    })
}

/// The first multiple of 64 behind the arena's temporaries.
pub(crate) fn scratch_start(e: &mut Emit, arena: Value) -> Value {
    let up = e.int(63);
    let a = e.sum(arena, up);
    e.b.ins().band_imm_s(a, -64)
}

fn define_run(
    unit: &mut Unit,
    program: &Program,
    (kernels, sharing): (&Kernels, &Sharing),
    sizes: &Sizes,
    weights: &dyn Fn(SlotId) -> Option<u64>,
) -> Result<FuncId, Error> {
    let signature = unit.signature(&[types::I64; 3], Some(types::I32));
    let id = unit.declare(&name(unit, "run"), Linkage::Export, &signature)?;
    let steps = &program.steps;
    unit.define(id, |e| {
        let p = e.params();
        let fail = e.block(&[types::I32, types::I32]);
        let mut r = Run {
            ctx: p[0],
            inputs: p[1],
            outputs: p[2],
            program,
            kernels,
            sharing,
            passed: None,
            known: sizes,
            array: None,
            weights,
            fail,
            scratch: None,
            args: None,
            dims: false,
            hosts: 0,
            nodes: (0..).zip(nodes(steps)).map(|(i, n)| (n, i)).collect(),
            faults: None,
            longest: longest(steps),
            late: program.bounds(),
            sizes: sizes.measured,
            checks: 0,
            heap: None,
            number: 0,
            e,
        };
        r.enter(steps)?;
        r.steps(steps)?;
        return_code(r.e, ErrorCode::Ok);
        r.failure();
        Ok(())
    })?;
    Ok(id)
}

/// The entry function under construction.
pub(crate) struct Run<'r, 'a, 'm> {
    pub ctx: Value,
    inputs: Value,
    pub outputs: Value,
    pub program: &'r Program,
    kernels: &'r Kernels,
    sharing: &'r Sharing,
    /// The sizes that a call passes, for kernels that several calls share.
    passed: Option<StackSlot>,
    /// The sizes of the run, and the array that they are in.
    pub known: &'r Sizes,
    pub array: Option<StackSlot>,
    weights: &'r dyn Fn(SlotId) -> Option<u64>,
    /// Takes a status and a node.
    fail: Block,
    /// The workers' scratch: its start and the bytes of each.
    scratch: Option<(Value, Value)>,
    args: Option<StackSlot>,
    /// Whether kernels see names that the program gives.
    dims: bool,
    hosts: u32,
    /// The numbers of the nodes that may fail.
    nodes: FxHashMap<Arc<str>, u32>,
    /// The word that kernels report failed checks in; it is 0 between them.
    faults: Option<StackSlot>,
    /// Pointers that a call passes, at most.
    longest: u32,
    /// Names that steps give.
    pub late: FxHashMap<Symbol, Option<Dim>>,
    /// The number of the next size that the run checks, and of the next check of data.
    pub sizes: u32,
    pub checks: u32,
    /// Address and capacity of the memory of each slot on the heap, by the slot's place in it.
    pub heap: Option<(StackSlot, FxHashMap<SlotId, i32>)>,
    /// The number of the next step.
    number: u32,
    pub e: &'r mut Emit<'a, 'm>,
}

impl Run<'_, '_, '_> {
    pub(crate) fn error(&self, what: String) -> Error {
        Error::Program {
            program: self.program.name.clone(),
            what,
        }
    }

    pub(crate) fn field(&mut self, ty: cranelift_codegen::ir::Type, offset: i32) -> Value {
        self.e.b.ins().load(ty, CONSTANT, self.ctx, offset)
    }

    /// Leaves with a status when a condition holds.
    fn fail_if(&mut self, cond: Value, status: Value, node: Value) {
        let on = self.e.b.create_block();
        self.e
            .b
            .ins()
            .brif(cond, self.fail, &[status.into(), node.into()], on, &[]);
        self.e.b.switch_to_block(on);
        self.e.b.seal_block(on);
    }

    pub(crate) fn fail_with(&mut self, cond: Value, code: ErrorCode, node: u32) {
        self.fail_as(cond, code as i32, node);
    }

    pub(crate) fn fail_as(&mut self, cond: Value, status: i32, node: u32) {
        let status = self.e.b.ins().iconst(types::I32, i64::from(status));
        let node = self.e.b.ins().iconst(types::I32, i64::from(node));
        self.fail_if(cond, status, node);
    }

    pub(crate) fn node(&self, name: &Arc<str>) -> u32 {
        self.nodes.get(name).copied().unwrap_or(NO_NODE)
    }

    /// The block that every failure leads to: the context keeps the first error.
    fn failure(&mut self) {
        let flags = MemFlagsData::trusted();
        let fail = self.fail;
        self.e.b.switch_to_block(fail);
        self.e.b.seal_block(fail);
        self.e.b.set_cold_block(fail);
        let (status, node) = (self.e.b.block_params(fail)[0], self.e.b.block_params(fail)[1]);
        let before = self.e.b.ins().load(types::I32, flags, self.ctx, offset::ERROR_CODE);
        let first = self.e.b.ins().icmp_imm_s(IntCC::Equal, before, 0);
        let open = self.e.begin_if(first);
        self.e.b.ins().store(flags, status, self.ctx, offset::ERROR_CODE);
        self.e.b.ins().store(flags, node, self.ctx, offset::ERROR_NODE);
        self.e.end_if(open);
        self.e.b.ins().return_(&[status]);
    }

    fn enter(&mut self, steps: &[Step]) -> Result<(), Error> {
        // What an earlier run left in the context is not this run's.
        let (none, nowhere) = (
            self.e.b.ins().iconst(types::I32, 0),
            self.e.b.ins().iconst(types::I32, i64::from(NO_NODE)),
        );
        let flags = MemFlagsData::trusted();
        self.e.b.ins().store(flags, none, self.ctx, offset::ERROR_CODE);
        self.e.b.ins().store(flags, nowhere, self.ctx, offset::ERROR_NODE);
        let zero = self.e.int(0);
        self.e.b.ins().store(flags, zero, self.ctx, offset::ERROR_VALUE);
        if let Some(lacks) = self.e.cpu_lacks() {
            self.fail_with(lacks, ErrorCode::CpuFeatures, NO_NODE);
        }
        let version = self.field(types::I32, offset::ABI_VERSION);
        let other = self
            .e
            .b
            .ins()
            .icmp_imm_s(IntCC::NotEqual, version, i64::from(ABI_VERSION));
        self.fail_with(other, ErrorCode::AbiVersion, NO_NODE);
        self.e.dims = Some(self.field(types::I64, offset::DIMS));
        let per_worker = scratch(self.program);
        let dims = self.field(types::I64, offset::DIMS);
        let workers = self.field(types::I32, offset::WORKERS);
        let slot = self.e.slot(self.known.bytes, 3);
        let out = self.e.slot_addr(slot);
        let status = self.e.call_value(self.known.function, &[dims, workers, out]);
        let bad = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
        let nobody = self.e.b.ins().iconst(types::I32, i64::from(NO_NODE));
        self.fail_if(bad, status, nobody);
        let need = self.e.b.ins().load(types::I64, MemFlagsData::trusted(), out, 0);
        let have = self.field(types::I64, offset::ARENA_BYTES);
        let small = self.e.b.ins().icmp(IntCC::UnsignedLessThan, have, need);
        self.fail_with(small, ErrorCode::ArenaTooSmall, NO_NODE);
        let checks = |s: &Step| matches!(s, Step::Call { checks, .. } if !checks.is_empty());
        if nested(steps).into_iter().any(checks) {
            let slot = self.e.slot(4, 2);
            let none = self.e.b.ins().iconst(types::I32, 0);
            self.e.b.ins().stack_store(types::I64, none, slot, 0);
            self.faults = Some(slot);
        }
        self.find_sizes(slot);
        self.prepare_heap(steps);
        self.tell_known()?;
        if !per_worker.is(0) {
            let arena = self.field(types::I64, offset::ARENA);
            let size = planned(self.program)?;
            let size = self.e.dim(&size)?;
            let at = scratch_start(self.e, size);
            let start = self.e.b.ins().iadd(arena, at);
            let stride = self.e.dim(&per_worker)?;
            self.scratch = Some((start, stride));
        }
        Ok(())
    }

    /// Where kernels find the values of symbols.
    fn dims(&mut self) -> Value {
        match self.array {
            Some(array) if self.dims => {
                let at = self.e.slot_addr(array);
                self.e.b.ins().iadd_imm_s(at, i64::from(Sizes::DIMS))
            }
            _ => self.field(types::I64, offset::DIMS),
        }
    }

    /// The sizes that a kernel is called with: those of the program, or its own where it shares a function.
    fn dims_of(&mut self, kernel: u32) -> Result<Value, Error> {
        let sharing = self.sharing;
        let Some(shared) = sharing.of.get(&kernel) else {
            return Ok(self.dims());
        };
        let array = match self.passed {
            Some(array) => array,
            None => self.e.slot(8 * sharing.longest() as u32, 3),
        };
        self.passed = Some(array);
        for (d, at) in shared.dims.iter().zip((0..).step_by(8)) {
            let v = self.e.dim(d)?;
            self.e.b.ins().stack_store(types::I64, v, array, at);
        }
        Ok(self.e.slot_addr(array))
    }

    /// Says where symbols and names lie, of which those that only the run tells get their values later. They are read where they
    /// are used, so many of them take no registers.
    fn find_sizes(&mut self, array: StackSlot) {
        self.array = Some(array);
        self.dims = !self.program.visible_names().is_empty();
        for s in &self.program.symbols {
            self.e.is_at(s, array, self.known.places[s]);
        }
        for l in &self.program.lets {
            self.e.is_at(&l.symbol, array, self.known.places[&l.symbol]);
        }
    }

    /// The address of a slot's memory.
    pub(crate) fn slot(&mut self, s: SlotId) -> Result<Value, Error> {
        let (root, start) = self.program.place(s);
        let base = self.base(s, root)?;
        if start.is(0) {
            return Ok(base);
        }
        let start = self.e.dim(&start)?;
        Ok(self.e.b.ins().iadd(base, start))
    }

    /// The address of the memory that a slot lies in.
    fn base(&mut self, s: SlotId, root: SlotId) -> Result<Value, Error> {
        let entry =
            |this: &mut Self, array: Value, i: u32| this.e.b.ins().load(types::I64, CONSTANT, array, 8 * i as i32);
        match &self.program.slot(root).storage {
            Storage::Input(i) => Ok(entry(self, self.inputs, *i)),
            Storage::Output(i) if self.program.slot(root).is_late(&self.late) => {
                let flags = MemFlagsData::trusted();
                Ok(self.e.b.ins().load(types::I64, flags, self.outputs, 8 * *i as i32))
            }
            Storage::Output(i) => Ok(entry(self, self.outputs, *i)),
            Storage::Heap => {
                let (slot, at) = self.block_of(root)?;
                Ok(self.e.b.ins().stack_load(types::I64, types::I64, slot, at))
            }
            Storage::Temp(Some(at)) => {
                let arena = self.field(types::I64, offset::ARENA);
                let at = self.e.dim(at)?;
                Ok(self.e.b.ins().iadd(arena, at))
            }
            Storage::Temp(None) => Err(self.error(format!("{s} has no offset in the arena"))),
            Storage::Weight(_) | Storage::Computed => {
                let Some(at) = (self.weights)(root) else {
                    return Err(self.error(format!("the constant {s} has no offset in the weights")));
                };
                let base = self.field(types::I64, offset::WEIGHTS);
                Ok(self.e.b.ins().iadd_imm_s(base, at as i64))
            }
            Storage::View { .. } => Err(self.error(format!("{s} stands for itself"))),
        }
    }

    pub(crate) fn steps(&mut self, steps: &[Step]) -> Result<(), Error> {
        // What a step computes is not kept for others: values that live from one to a much later one would make the time to
        // compile a long program quadratic.
        steps.iter().try_for_each(|s| {
            let number = self.number;
            self.number += 1;
            self.hook(number, false);
            self.e.scopes.push(FxHashMap::default());
            let done = self.step(s);
            self.e.scopes.pop();
            self.hook(number, true);
            done
        })
    }

    /// Tells whoever profiles that a step begins or has ended.
    fn hook(&mut self, step: u32, end: bool) {
        let Some(hook) = self.e.unit.hook else {
            return;
        };
        let signature = self.e.unit.signature(&[types::I64, types::I32, types::I32], None);
        let signature = self.e.b.import_signature(signature);
        let hook = self.e.int(hook as usize as i64);
        let step = self.e.b.ins().iconst(types::I32, i64::from(step));
        let end = self.e.b.ins().iconst(types::I32, i64::from(end));
        self.e.b.ins().call_indirect(signature, hook, &[self.ctx, step, end]);
    }

    fn step(&mut self, s: &Step) -> Result<(), Error> {
        match s {
            Step::Call {
                kernel, args, checks, ..
            } => self.call(*kernel, args, checks),
            Step::Copy {
                from,
                to,
                rows: Some(rows),
            } => self.copy_rows(*from, *to, rows),
            Step::Copy { from, to, rows: None } => {
                let bytes = self.program.slot(*from).bytes();
                let n = self.e.dim(&bytes)?;
                let (from, to) = (self.slot(*from)?, self.slot(*to)?);
                let f = self.e.unit.outline(&Copy::Bytes)?;
                if self.program.copies_to_itself(s) {
                    // The caller may have given one memory for both.
                    let apart = self.e.b.ins().icmp(IntCC::NotEqual, from, to);
                    let open = self.e.begin_if(apart);
                    self.e.call(f, &[to, from, n]);
                    self.e.end_if(open);
                } else {
                    self.e.call(f, &[to, from, n]);
                }
                Ok(())
            }
            Step::Host {
                inputs,
                outputs,
                origin,
                ..
            } => self.host(inputs, outputs, origin),
            Step::Let(l) => self.bind_size(l),
            Step::Read {
                symbol,
                from,
                bound,
                origin,
            } => self.read(symbol, *from, bound.as_ref(), origin),
            Step::Alloc { slot, origin } => self.alloc(*slot, origin),
            Step::If { cond, then, other } => {
                let cond = self.element(*cond)?;
                let fork = self.e.begin_fork(cond, &[]);
                self.steps(then)?;
                self.e.fork_else(&fork, &[]);
                self.steps(other)?;
                self.e.end_fork(fork, &[]);
                Ok(())
            }
            Step::While { cond, body } => self.repeat(*cond, body),
            Step::Check { guard, origin } => self.check(guard, origin),
        }
    }

    /// Copies rows: one by itself, more by all workers when it is worth it.
    fn copy_rows(&mut self, from: SlotId, to: SlotId, rows: &Rows) -> Result<(), Error> {
        let (from, to, start) = (self.slot(from)?, self.slot(to)?, self.e.dim(&rows.start)?);
        let to = self.e.b.ins().iadd(to, start);
        let bytes = self.e.dim(&rows.bytes)?;
        if rows.count.is(1) {
            let f = self.e.unit.outline(&Copy::Bytes)?;
            self.e.call(f, &[to, from, bytes]);
            return Ok(());
        }
        let stride = self.e.dim(&rows.stride)?;
        let args = self.array(&[to, from, bytes, stride]);
        let f = self.e.unit.outline(&Copy::Rows)?;
        self.launch(f, args, &rows.count, &rows.grain)
    }

    /// A stack slot that all calls share; kernels have returned before it is filled again.
    fn array(&mut self, values: &[Value]) -> Value {
        let longest = 8 * self.longest;
        let slot = match self.args {
            Some(s) => s,
            None => self.e.slot(longest, 3),
        };
        self.args = Some(slot);
        let at = self.e.slot_addr(slot);
        for (i, v) in values.iter().enumerate() {
            self.e.b.ins().store(MemFlagsData::trusted(), *v, at, 8 * i as i32);
        }
        at
    }

    fn call(&mut self, index: u32, slots: &[SlotId], checks: &[Arc<str>]) -> Result<(), Error> {
        let k = &self.program.kernels[index as usize];
        if k.checks() as usize != checks.len() {
            return Err(self.error(format!(
                "kernel `{}` has checks of {} numbers and is called with the nodes of {}",
                k.name,
                k.checks(),
                checks.len()
            )));
        }
        let params = k.params().count();
        if params != slots.len() {
            return Err(self.error(format!(
                "kernel `{}` has {params} parameters and is called with {}",
                k.name,
                slots.len()
            )));
        }
        let Some((_, body)) = self.kernels[index as usize] else {
            return Err(self.error(format!("kernel `{}` was not compiled", k.name)));
        };
        let mut fields = vec![];
        for s in slots {
            fields.push(self.slot(*s)?);
        }
        if plan::is_late(k, &self.late) {
            let positions = plan::positions(k, &mut FxHashMap::default());
            let number = self.next_size();
            let (bound, limit) = (self.e.dim_bound(&positions)?, plan::largest_term(self.program));
            let limit = self.e.b.ins().f64const(limit);
            let beyond = self.e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, bound, limit);
            self.fail_as(beyond, ErrorCode::TooLarge.status(number), NO_NODE);
        }
        let zero = self.e.int(0);
        let (start, stride) = self.scratch.unwrap_or((zero, zero));
        let dims = self.dims_of(index)?;
        fields.extend([dims, start, stride]);
        let faults = match (checks.is_empty(), self.faults) {
            (false, Some(faults)) => Some(self.e.slot_addr(faults)),
            _ => None,
        };
        let forks = k.forks();
        if faults.is_some() || forks {
            fields.push(faults.unwrap_or(zero));
        }
        if forks {
            fields.push(self.ctx);
        }
        let args = self.array(&fields);
        match k.parallel() {
            None => {
                let one = self.e.int(1);
                self.serially(body, args, one);
                if forks {
                    let flags = MemFlagsData::trusted();
                    let status = self.e.b.ins().load(types::I32, flags, self.ctx, offset::ERROR_CODE);
                    let failed = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
                    let nowhere = self.e.b.ins().iconst(types::I32, i64::from(NO_NODE));
                    self.fail_if(failed, status, nowhere);
                }
            }
            Some((extent, grain)) => {
                let Some(extent) = extent.as_dim() else {
                    return Err(self.error(format!(
                        "the parallel loop of kernel `{}` has extent {extent}, expected a dim",
                        k.name
                    )));
                };
                self.launch(body, args, extent, grain)?;
            }
        }
        self.checked(checks);
        Ok(())
    }

    /// Leaves when the kernel that was just called has reported a check; the nodes are those of its numbers.
    fn checked(&mut self, nodes: &[Arc<str>]) {
        let (Some(faults), Some((last, others))) = (self.faults, nodes.split_last()) else {
            return;
        };
        let word = self.e.b.ins().stack_load(types::I64, types::I32, faults, 0);
        let number = self.node(last);
        let mut node = self.e.b.ins().iconst(types::I32, i64::from(number));
        for (i, name) in (1..).zip(others) {
            let this = self.e.b.ins().icmp_imm_s(IntCC::Equal, word, i);
            let number = self.node(name);
            let number = self.e.b.ins().iconst(types::I32, i64::from(number));
            node = self.e.b.ins().select(this, number, node);
        }
        let failed = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, word, 0);
        let status = self.e.b.ins().iconst(types::I32, ErrorCode::IndexOutOfRange as i64);
        self.fail_if(failed, status, node);
    }

    /// Calls a body once, with iterations `0..n`.
    fn serially(&mut self, body: FuncId, args: Value, n: Value) {
        let (zero, first_worker) = (self.e.int(0), self.e.b.ins().iconst(types::I32, 0));
        self.e.call(body, &[args, zero, n, first_worker]);
    }

    /// Calls a body with iterations `0..extent`, by all workers when the work is worth it.
    fn launch(&mut self, body: FuncId, args: Value, extent: &Dim, grain: &Grain) -> Result<(), Error> {
        let n = self.e.dim(extent)?;
        let Grain { work, least, .. } = grain;
        let serial_only = extent.as_const().is_some_and(|n| n <= 1) || work.as_const().is_some_and(|w| w < *least);
        if serial_only {
            self.serially(body, args, n);
            return Ok(());
        }
        let worth = match work.as_const() {
            Some(_) => self.e.b.ins().iconst(types::I8, 1),
            // Beyond 64 bits it wraps around: it only weighs, and such a run does not end.
            None => {
                let w = self.e.dim(work)?;
                self.e.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, w, *least)
            }
        };
        let launch = self.e.unit.outline(&Launch)?;
        let body = self.e.func_ref(body);
        let body = self.e.b.ins().func_addr(types::I64, body);
        let status = self.e.call_value(launch, &[self.ctx, body, args, n, worth]);
        let failed = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
        self.fail_with(failed, ErrorCode::ParallelFailed, NO_NODE);
        Ok(())
    }

    fn host(&mut self, inputs: &[SlotId], outputs: &[SlotId], origin: &Arc<str>) -> Result<(), Error> {
        let node = self.node(origin);
        let index = self.hosts;
        self.hosts += 1;
        let mut pointers = vec![];
        for s in inputs.iter().chain(outputs) {
            pointers.push(self.slot(*s)?);
        }
        let ins = self.array(&pointers);
        let outs = self.e.b.ins().iadd_imm_s(ins, 8 * inputs.len() as i64);
        let table = self.field(types::I64, offset::HOST);
        let missing = self.e.b.ins().icmp_imm_s(IntCC::Equal, table, 0);
        self.fail_with(missing, ErrorCode::HostMissing, node);
        let f = self.e.b.ins().load(types::I64, CONSTANT, table, 8 * index as i32);
        let missing = self.e.b.ins().icmp_imm_s(IntCC::Equal, f, 0);
        self.fail_with(missing, ErrorCode::HostMissing, node);
        // Host operators find names behind the symbols. The load is one that is not moved behind the store.
        let flags = MemFlagsData::trusted();
        let symbols = self.e.b.ins().load(types::I64, flags, self.ctx, offset::DIMS);
        if self.dims {
            let dims = self.dims();
            self.e.b.ins().store(flags, dims, self.ctx, offset::DIMS);
        }
        let user = self.field(types::I64, offset::HOST_USER);
        let number = self.e.b.ins().iconst(types::I32, i64::from(index));
        let params = [types::I64, types::I32, types::I64, types::I64, types::I64];
        let signature = self.e.unit.signature(&params, Some(types::I32));
        let signature = self.e.b.import_signature(signature);
        let call = self
            .e
            .b
            .ins()
            .call_indirect(signature, f, &[user, number, self.ctx, ins, outs]);
        let status = self.e.b.inst_results(call)[0];
        if self.dims {
            self.e.b.ins().store(flags, symbols, self.ctx, offset::DIMS);
        }
        let failed = self.e.b.ins().icmp_imm_s(IntCC::NotEqual, status, 0);
        self.fail_with(failed, ErrorCode::HostFailed, node);
        Ok(())
    }
}

/// The most pointers that a step passes.
fn longest(steps: &[Step]) -> u32 {
    let of = |s: &Step| match s {
        // Dims, scratch, the distance between workers' scratch, the word for checks, the context.
        Step::Call { args, .. } => args.len() + 5,
        Step::Host { inputs, outputs, .. } => inputs.len() + outputs.len(),
        Step::Copy { .. } => 4,
        _ => 0,
    };
    nested(steps).into_iter().map(of).max().unwrap_or(0).max(1) as u32
}

/// A kernel that stands alone, for tests and tuning, exported under the prefix and its own name.
///
/// # Errors
/// What it holds that the back end cannot compile.
pub fn compile_kernel(unit: &mut Unit, k: &loops::Kernel) -> Result<FuncId, Error> {
    let name = format!("{}_{}", unit.prefix, brolga_ir::program::identifier(&k.name));
    kernel::define(unit, k, &name, Linkage::Export)
}
