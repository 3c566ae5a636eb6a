//! A workload by schedules as machine code, run on memory of its own.
//!
//! A [`Rig`] has random operands, and code for any number of schedules over them, so that they are timed and compared on the same
//! data. A run does what the entry function of a program would do for the kernel: the same calls with the same grain, by the
//! workers of a pool. Constants are packed once, before. They may be there several times, and each run takes the next copy: a
//! model reads a weight once a run, so it finds it as far away as all its other weights push it.

use super::{Workload, number};
use crate::backend::native::{self, Kernels};
use crate::{Error, Result};
use brolga_abi::{Body, Ctx, abi_fn};
use brolga_ir::program::{Program, Rows, Slot, SlotId, Step, Storage};
use brolga_ir::schedule::Schedule;
use brolga_ir::structured::Role;
use brolga_ir::{DType, Dim, Number, Symbol, Target};
use brolga_passes::schedule::{Machine, to_loops};
use brolga_runtime::{AlignedBytes, Pool};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// A workload with memory, and its code by some schedules.
pub struct Rig {
    workload: Workload,
    target: Target,
    pool: Arc<Pool>,
    memory: Memory,
    variants: Vec<Variant>,
}

/// One of the schedules of a [`Rig`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle(usize);

impl Rig {
    /// A workload with pseudo-random operands for these values of its symbols, to be run by the workers of a pool: floats from -1
    /// to 1, bytes of any value, other integers and booleans 0 and 1, which are indices wherever there are two elements. There
    /// are as many copies of the constants as it takes to have `spread` bytes of them, at least one.
    ///
    /// # Errors
    /// When a size has no number, or memory is lacking or over `limit` bytes.
    pub fn new(
        workload: Workload,
        sizes: &[i64],
        target: &Target,
        pool: Arc<Pool>,
        spread: u64,
        limit: u64,
    ) -> Result<Rig> {
        Ok(Rig {
            memory: Memory::random(&workload, sizes, spread, limit)?,
            workload,
            target: target.clone(),
            pool,
            variants: vec![],
        })
    }

    /// The workload.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Makes code by a schedule, or by the one that is chosen, and packs its constants.
    ///
    /// # Errors
    /// When the schedule is not legal for the workload, code cannot be made, or memory is lacking.
    pub fn add(&mut self, schedule: Option<Schedule>) -> Result<Handle> {
        let made = Variant::new(&self.workload, schedule, &self.target, &mut self.memory, &self.pool)?;
        self.variants.push(made);
        Ok(Handle(self.variants.len() - 1))
    }

    /// Forgets the schedule that was added last.
    pub fn pop(&mut self) {
        self.variants.pop();
    }

    /// Forgets all schedules.
    pub fn clear(&mut self) {
        self.variants.clear();
    }

    /// How many copies of the constants there are.
    pub fn copies(&self) -> usize {
        self.memory.copies
    }

    /// Runs once, on the next copy of the constants.
    pub fn run(&mut self, which: Handle) {
        self.variants[which.0].run();
    }

    /// Runs once on operands that no earlier run has written, and gives what it has written, by operand.
    pub fn results(&mut self, which: Handle) -> Vec<(usize, Vec<u8>)> {
        self.memory.forget(&self.workload);
        self.variants[which.0].run();
        let operands = self.workload.kernel().operands.iter().enumerate();
        let written = operands.filter(|(_, o)| o.role != Role::In);
        written.map(|(i, _)| (i, self.memory.operands[i][0].to_vec())).collect()
    }
}

/// Memory of a workload's operands.
struct Memory {
    sizes: Vec<i64>,
    /// By operand; of constants several copies, of others one.
    operands: Vec<Vec<AlignedBytes>>,
    copies: usize,
}

impl Memory {
    /// See [`Rig::new`].
    fn random(workload: &Workload, sizes: &[i64], spread: u64, limit: u64) -> Result<Memory> {
        const MOST_COPIES: u64 = 64;
        let kernel = workload.kernel();
        let fail = |e: String| Error::Option(format!("kernel @{}: {e}", kernel.name));
        let mut bytes = vec![];
        for o in &kernel.operands {
            let n = number(&o.elements(), &kernel.symbols, sizes).map_err(fail)?;
            let size = u64::try_from(n)
                .ok()
                .and_then(|n| n.checked_mul(o.ty.dtype.bytes() as u64));
            bytes.push(size.ok_or_else(|| fail(format!("{n} elements of {}", o.ty)))?);
        }
        let constant = |i: &usize| workload.is_constant(*i);
        let sum = |all: &mut dyn Iterator<Item = usize>| all.map(|i| bytes[i]).fold(0, u64::saturating_add);
        let constants = sum(&mut (0..bytes.len()).filter(constant));
        let copies = match constants {
            0 => 1,
            n => spread.div_ceil(n).clamp(1, MOST_COPIES),
        };
        let all = sum(&mut (0..bytes.len())).saturating_add(constants.saturating_mul(copies - 1));
        if all > limit {
            return Err(fail(format!(
                "its operands take {all} bytes, over the limit of {limit}"
            )));
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut operands = vec![];
        for (i, o) in kernel.operands.iter().enumerate() {
            let mut first = AlignedBytes::zeroed(bytes[i])?;
            random.fill(o.ty.dtype, &mut first);
            let mut all = vec![first];
            while constant(&i) && (all.len() as u64) < copies {
                all.push(AlignedBytes::copy_of(&all[0])?);
            }
            operands.push(all);
        }
        Ok(Memory {
            sizes: sizes.to_vec(),
            operands,
            copies: copies as usize,
        })
    }

    /// Puts other values into what the workload writes, so that nothing of an earlier run passes for a result.
    fn forget(&mut self, workload: &Workload) {
        let mut random = Random(0xd1b5_4a32_d192_ed03);
        for (o, memory) in workload.kernel().operands.iter().zip(&mut self.operands) {
            if o.role != Role::In {
                memory.iter_mut().for_each(|m| random.fill(o.ty.dtype, m));
            }
        }
    }
}

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, dtype: DType, bytes: &mut [u8]) {
        for element in bytes.chunks_exact_mut(dtype.bytes()) {
            let x = self.next();
            let number = match dtype {
                DType::I8 | DType::U8 => {
                    element[0] = x as u8;
                    continue;
                }
                _ if dtype.is_real() => Number::Float((x >> 11) as f64 / (1u64 << 52) as f64 - 1.0),
                _ => Number::Int((x >> 63) as i128),
            };
            brolga_ir::encode(dtype, number, element);
        }
    }
}

/// A step of a run, for one copy of the constants.
enum Action {
    Call {
        body: Body,
        /// Kept where it is: the body finds its arguments here.
        args: Box<[*mut c_void]>,
        n: i64,
        /// Whether the workers share the iterations.
        shared: bool,
    },
    Copy {
        from: *const u8,
        to: *mut u8,
        bytes: usize,
        count: usize,
        stride: usize,
    },
}

/// A workload by a schedule, as machine code of this process. It points into the memory of its rig.
struct Variant {
    /// For each copy of the constants.
    actions: Vec<Vec<Action>>,
    ctx: Box<Ctx>,
    /// What failed checks of the workload are reported in; random data may fail them, and nobody looks.
    _faults: Box<u32>,
    _dims: Box<[i64]>,
    _own: Vec<AlignedBytes>,
    _kernels: Kernels,
    _pool: Arc<Pool>,
    turn: usize,
}

abi_fn! {
    /// `Ctx::parallel_for`.
    unsafe fn parallel_for(ctx: *mut Ctx, body: Body, arg: *mut c_void, n: i64) -> i32 {
        struct Arg(*mut c_void);
        // SAFETY: `parallel_for`'s contract is that the body may be called with this argument by several threads at once.
        unsafe impl Sync for Arg {}
        impl Arg {
            fn get(&self) -> *mut c_void {
                self.0
            }
        }
        // SAFETY: the context is one of `Variant`, whose `user` is its pool.
        let pool = unsafe { &*(*ctx).user.cast::<Pool>() };
        let arg = Arg(arg);
        // SAFETY: the ranges and the worker numbers are what `Body` is to be called with.
        pool.run(n, &|piece, worker| unsafe { body(arg.get(), piece.start, piece.end, worker) });
        0
    }
}

impl Variant {
    /// See [`Rig::add`].
    fn new(
        workload: &Workload,
        schedule: Option<Schedule>,
        target: &Target,
        memory: &mut Memory,
        pool: &Arc<Pool>,
    ) -> Result<Variant> {
        let structured = workload.program(schedule);
        let program = to_loops(&structured, &Machine::of(target)).map_err(Error::Option)?;
        let used = |steps: &[Step]| -> Vec<u32> {
            let kernels = steps.iter().filter_map(|s| match s {
                Step::Call { kernel, .. } => Some(*kernel),
                _ => None,
            });
            kernels.collect()
        };
        let mut which = [used(&program.init), used(&program.steps)].concat();
        which.sort_unstable();
        which.dedup();
        let kernels = native::kernels(&program, &which, target).map_err(|source| Error::Codegen {
            model: program.name.clone(),
            source,
        })?;
        let mut maker = Maker {
            program: &program,
            kernels: &kernels,
            symbols: &program.symbols,
            sizes: &memory.sizes,
            workers: pool.workers(),
            ctx: Box::new(Ctx {
                workers: pool.workers(),
                parallel_for: (pool.workers() > 1).then_some(parallel_for as brolga_abi::ParallelFor),
                user: Arc::as_ptr(pool).cast_mut().cast(),
                ..Ctx::new()
            }),
            faults: Box::new(0),
            dims: memory.sizes.clone().into_boxed_slice(),
            own: vec![],
        };
        let mut actions = vec![];
        // The memory of every slot beyond the operands, by the copy of the constants.
        let mut temporaries: Vec<*mut u8> = vec![];
        for copy in 0..memory.copies {
            let mut places: Vec<*mut u8> = vec![];
            for (i, slot) in program.slots.iter().enumerate() {
                let place = match memory.operands.get_mut(i) {
                    Some(operand) => {
                        let n = operand.len();
                        operand[copy.min(n - 1)].as_mut_ptr()
                    }
                    None => match (&slot.storage, temporaries.get(i)) {
                        (Storage::Computed, _) | (_, None) => maker.memory(slot)?,
                        (_, Some(place)) => *place,
                    },
                };
                places.push(place);
            }
            let packing = maker.actions(&program.init, &places)?;
            // SAFETY: the actions are over memory that lives here.
            packing.iter().for_each(|a| unsafe { a.run(&mut maker.ctx) });
            actions.push(maker.actions(&program.steps, &places)?);
            temporaries = places;
        }
        let Maker {
            ctx, faults, dims, own, ..
        } = maker;
        Ok(Variant {
            actions,
            ctx,
            _faults: faults,
            _dims: dims,
            _own: own,
            _kernels: kernels,
            _pool: pool.clone(),
            turn: 0,
        })
    }

    /// Runs once, on the next copy of the constants.
    fn run(&mut self) {
        let actions = &self.actions[self.turn];
        self.turn = (self.turn + 1) % self.actions.len();
        for a in actions {
            // SAFETY: the actions are over memory of the rig, which is borrowed as a whole, and of this value.
            unsafe { a.run(&mut self.ctx) };
        }
    }
}

impl Action {
    /// Does it.
    ///
    /// # Safety
    /// The memory that it is over is there, and nobody else uses it.
    unsafe fn run(&self, ctx: &mut Ctx) {
        match self {
            Action::Call { body, args, n, shared } => {
                let args = args.as_ptr().cast_mut().cast();
                match ctx.parallel_for {
                    // SAFETY: the body and its arguments are those of a kernel, as the caller promises.
                    Some(parallel) if *shared => unsafe {
                        parallel(ctx, *body, args, *n);
                    },
                    // SAFETY: as above.
                    _ => unsafe { body(args, 0, *n, 0) },
                }
            }
            Action::Copy {
                from,
                to,
                bytes,
                count,
                stride,
            } => {
                for i in 0..*count {
                    // SAFETY: the rows lie in the memory of the slots.
                    unsafe { ptr::copy_nonoverlapping(from.add(i * bytes), to.add(i * stride), *bytes) };
                }
            }
        }
    }
}

/// Makes actions of steps.
struct Maker<'a> {
    program: &'a Program,
    kernels: &'a Kernels,
    symbols: &'a [Symbol],
    sizes: &'a [i64],
    workers: u32,
    ctx: Box<Ctx>,
    faults: Box<u32>,
    dims: Box<[i64]>,
    own: Vec<AlignedBytes>,
}

impl Maker<'_> {
    fn fail(&self, e: String) -> Error {
        Error::Option(format!("kernel @{}: {e}", self.program.name))
    }

    fn number(&self, d: &Dim) -> Result<i64> {
        number(d, self.symbols, self.sizes).map_err(|e| self.fail(e))
    }

    fn allocate(&mut self, bytes: u64) -> Result<*mut u8> {
        let mut memory = AlignedBytes::zeroed(bytes)?;
        let place = memory.as_mut_ptr();
        self.own.push(memory);
        Ok(place)
    }

    fn memory(&mut self, slot: &Slot) -> Result<*mut u8> {
        let bytes = self.number(&slot.bytes())?;
        self.allocate(u64::try_from(bytes).map_err(|_| self.fail(format!("{bytes} bytes of memory")))?)
    }

    fn actions(&mut self, steps: &[Step], places: &[*mut u8]) -> Result<Vec<Action>> {
        steps.iter().map(|s| self.action(s, places)).collect()
    }

    fn action(&mut self, step: &Step, places: &[*mut u8]) -> Result<Action> {
        let place = |s: &SlotId| places[s.0 as usize];
        match step {
            Step::Call { kernel, args, .. } => {
                let k = &self.program.kernels[*kernel as usize];
                let scratch = self.number(&k.scratch_bytes())?.max(0) as u64;
                let start = self.allocate(scratch.saturating_mul(u64::from(self.workers)))?;
                let mut all: Vec<*mut c_void> = args.iter().map(|s| place(s).cast()).collect();
                all.push(self.dims.as_ptr().cast_mut().cast());
                all.push(start.cast());
                // The distance between the workers' scratch, as a pointer's bits.
                all.push(ptr::without_provenance_mut(scratch as usize));
                all.push((&raw mut *self.faults).cast());
                all.push((&raw mut *self.ctx).cast());
                let (n, shared) = match k.parallel() {
                    None => (1, false),
                    Some((extent, grain)) => {
                        let extent = extent
                            .as_dim()
                            .ok_or_else(|| self.fail(format!("a loop of {extent} iterations")))?;
                        let n = self.number(extent)?;
                        (n, n > 1 && self.number(&grain.work)? >= grain.least)
                    }
                };
                let body = self.kernels.body(*kernel);
                let args = all.into_boxed_slice();
                Ok(Action::Call { body, args, n, shared })
            }
            Step::Copy { from, to, rows } => {
                let (from, to, whole) = (place(from), place(to), self.program.slot(*from).bytes());
                let Some(rows) = rows else {
                    let bytes = self.number(&whole)? as usize;
                    return Ok(Action::Copy {
                        from,
                        to,
                        bytes,
                        count: 1,
                        stride: 0,
                    });
                };
                let Rows {
                    count,
                    bytes,
                    start,
                    stride,
                    ..
                } = rows;
                Ok(Action::Copy {
                    from,
                    // SAFETY: the rows begin inside of the slot.
                    to: unsafe { to.add(self.number(start)? as usize) },
                    bytes: self.number(bytes)? as usize,
                    count: self.number(count)? as usize,
                    stride: self.number(stride)? as usize,
                })
            }
            _ => Err(self.fail("a step that is neither a call nor a copy".into())),
        }
    }
}
