//! Running the initial steps. Whoever has time takes the next task ([`Evaluation::work`]).
//!
//! A kernel that only moves elements runs natively ([`Moves`]), one with little work on the interpreter: making machine code
//! of it would take longer. The results are the same bit for bit. The others become machine code for this machine.
//!
//! Invariant: a task starts when all tasks of lower stages are done, and tasks of one stage write different memory; so the
//! results, and the first error in the order of tasks, do not depend on threads.

use super::memory::{Blocks, Memory, fill, size};
use super::{Constants, Packed, broken, not_evaluated, touched, writes};
use crate::backend::native::{self, Kernels};
use crate::{Error, Result};
use brolga_abi::ErrorCode;
use brolga_ir::loops::interp::{self, BufferData};
use brolga_ir::loops::{Kernel, Moves, Scope, Stmt};
use brolga_ir::program::{Program, Rows, SlotId, Step};
use brolga_ir::{Dim, NodeError, Target};
use brolga_runtime::{AlignedBytes, Weights};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

/// Up to how many lanes of statements the interpreter runs a kernel: about what making machine code of it costs.
const LITTLE: u64 = 1 << 14;

impl Constants {
    /// Evaluates the constants with code for `host`, the machine that this runs on. `beside` is called once meanwhile, with
    /// a function that evaluates until nothing is left: for threads that help, or for when the caller's own work is done.
    ///
    /// # Errors
    /// When they need more than `limit` bytes, a check of the model fails on them, or their code cannot be made.
    pub fn evaluate<T>(
        self,
        program: &Program,
        host: &Target,
        limit: u64,
        beside: impl FnOnce(&(dyn Fn() + Sync)) -> T,
    ) -> Result<(Packed, T)> {
        let mut blocks = Blocks::new(program, &self, limit)?;
        let evaluation = Evaluation::new(program, &self, blocks.memory(program, &self)?, host);
        let made = beside(&|| evaluation.work());
        evaluation.work();
        evaluation.finish()?;
        let packed = Packed {
            scratch_bytes: blocks.temporary,
            steering_bytes: self.steering,
            blob: match self.bytes {
                0 => Weights::Empty,
                _ => Weights::Owned(Arc::new(blocks.blob)),
            },
            offsets: self.offsets,
        };
        Ok((packed, made))
    }
}

enum Task<'p> {
    /// Writes a weight to where the main steps read it.
    Fill(SlotId),
    Step(&'p Step),
}

/// How a kernel is run.
enum How {
    Moves(Moves),
    Interpreted,
    Code,
}

impl How {
    fn of(k: &Kernel) -> How {
        match Moves::of(k) {
            Some(moves) => How::Moves(moves),
            None if work(&k.body).is_some_and(|n| n <= LITTLE) => How::Interpreted,
            None => How::Code,
        }
    }
}

/// How many lanes statements run on; `None` where that is not known, or a tile is among them.
fn work(body: &[Stmt]) -> Option<u64> {
    body.iter().try_fold(0u64, |sum, s| {
        let n = match s {
            Stmt::For { extent, body, .. } => {
                let n = u64::try_from(extent.as_const()?).unwrap_or(0);
                n.saturating_mul(work(body)?)
            }
            Stmt::If { then, .. } => work(then)?,
            Stmt::Tile(_) => return None,
            Stmt::Set(..) | Stmt::Store { .. } | Stmt::Check { .. } | Stmt::Barrier => 1,
        };
        Some(sum.saturating_add(n))
    })
}

/// What a step passes to a kernel: bytes of a constant.
struct Arg {
    slot: SlotId,
    bytes: Range<usize>,
    written: bool,
}

type Read<'e, 'p> = FxHashMap<SlotId, RwLockReadGuard<'e, &'p mut [u8]>>;

/// Memory that is taken for a step.
struct Held<'e, 'p> {
    /// In the order of the arguments.
    written: Vec<(SlotId, RwLockWriteGuard<'e, &'p mut [u8]>)>,
    read: Read<'e, 'p>,
}

struct Evaluation<'p> {
    program: &'p Program,
    constants: &'p Constants,
    memory: Memory<'p>,
    host: &'p Target,
    /// By their stages.
    tasks: Vec<Task<'p>>,
    /// The first task of the stage of each task.
    stage: Vec<usize>,
    next: AtomicUsize,
    done: AtomicUsize,
    /// Of the first task that failed, and its number.
    error: Mutex<Option<(usize, Error)>>,
    how: FxHashMap<u32, How>,
    /// Made when it is first needed.
    code: Mutex<Option<Arc<Kernels>>>,
}

impl<'p> Evaluation<'p> {
    fn new(program: &'p Program, constants: &'p Constants, memory: Memory<'p>, host: &'p Target) -> Evaluation<'p> {
        let mut filled: Vec<SlotId> = memory.places.keys().copied().collect();
        filled.retain(|s| memory.is_filled(program, *s));
        filled.sort_unstable();
        let mut staged: Vec<(usize, Task)> = filled.iter().map(|s| (0, Task::Fill(*s))).collect();
        let mut how = FxHashMap::default();
        // The stages behind which a slot was written and read.
        let mut written: FxHashMap<SlotId, usize> = FxHashMap::default();
        let mut read: FxHashMap<SlotId, usize> = FxHashMap::default();
        written.extend(filled.iter().filter(|s| !memory.given.contains_key(s)).map(|s| (*s, 1)));
        for step in &constants.steps {
            let own = |slots: Vec<SlotId>| slots.into_iter().map(|s| constants.first(s)).collect::<Vec<_>>();
            let (writes, touched) = (own(writes(program, step)), own(touched(program, step)));
            let after = |m: &FxHashMap<SlotId, usize>, s: &SlotId| m.get(s).copied().unwrap_or(0);
            let before = touched.iter().map(|s| after(&written, s));
            let stage = before.chain(writes.iter().map(|s| after(&read, s))).max().unwrap_or(0);
            if let Step::Call { kernel, .. } = step {
                let k = &program.kernels[*kernel as usize];
                // Only machine code may read what it writes.
                if writes.iter().all(|w| touched.iter().filter(|s| *s == w).count() == 1) {
                    how.entry(*kernel).or_insert_with(|| How::of(k));
                } else {
                    how.insert(*kernel, How::Code);
                }
            }
            for s in touched {
                let last = if writes.contains(&s) { &mut written } else { &mut read };
                let at = last.entry(s).or_insert(0);
                *at = (*at).max(stage + 1);
            }
            staged.push((stage, Task::Step(step)));
        }
        staged.sort_by_key(|(stage, _)| *stage);
        let first_of = |at: usize| staged.partition_point(|(stage, _)| *stage < staged[at].0);
        let stage = (0..staged.len()).map(first_of).collect();
        Evaluation {
            program,
            constants,
            memory,
            host,
            tasks: staged.into_iter().map(|(_, t)| t).collect(),
            stage,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            error: Mutex::default(),
            how,
            code: Mutex::default(),
        }
    }

    /// Runs tasks until none is left.
    fn work(&self) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = self.tasks.get(i) else { return };
            // Tasks are handed out in order, so those of lower stages are done or with a thread that runs them.
            while self.done.load(Ordering::Acquire) < self.stage[i] {
                thread::yield_now();
            }
            let done = Done(&self.done);
            let failed = lock(&self.error).as_ref().is_some_and(|(first, _)| *first < i);
            if !failed && let Err(e) = self.task(task) {
                let mut first = lock(&self.error);
                if first.as_ref().is_none_or(|(at, _)| i < *at) {
                    *first = Some((i, e));
                }
            }
            drop(done);
        }
    }

    /// Waits for tasks that others run; what is left of them is in memory.
    fn finish(self) -> Result<()> {
        while self.done.load(Ordering::Acquire) < self.tasks.len() {
            thread::yield_now();
        }
        let error = self.error.into_inner().unwrap_or_else(PoisonError::into_inner);
        error.map_or(Ok(()), |(_, e)| Err(e))
    }

    fn task(&self, task: &Task) -> Result<()> {
        match task {
            Task::Fill(s) => {
                let slot = self.arg(*s, true)?;
                let mut held = self.hold(&[slot])?;
                let place = held.written.first_mut();
                place.map_or(Ok(()), |(_, place)| fill(self.program, *s, place))
            }
            Task::Step(Step::Call {
                kernel, args, checks, ..
            }) => {
                let k = &self.program.kernels[*kernel as usize];
                let args = self.args(k, args)?;
                let failed = match &self.how[kernel] {
                    How::Moves(m) => self.moves(m, k, &args),
                    How::Interpreted => self.interpret(k, &args),
                    How::Code => self.run(*kernel, k, &args),
                }?;
                match failed.and_then(|number| checks.get(number as usize)) {
                    Some(node) => Err(self.failed(node)),
                    None => Ok(()),
                }
            }
            Task::Step(Step::Copy { from, to, rows }) => self.copy(*from, *to, rows.as_ref()),
            Task::Step(step) => Err(not_evaluated(self.program, step)),
        }
    }

    fn failed(&self, node: &Arc<str>) -> Error {
        Error::Lower {
            model: self.program.name.clone(),
            source: NodeError {
                node: node.to_string(),
                message: format!("in the model's constants, {}", ErrorCode::IndexOutOfRange.text()),
            },
        }
    }

    fn arg(&self, s: SlotId, written: bool) -> Result<Arg> {
        let (root, start) = self.program.place(s);
        let start = self.number(&start)?;
        Ok(Arg {
            slot: self.constants.first(root),
            bytes: start..start + size(self.program, s)? as usize,
            written,
        })
    }

    fn args(&self, k: &Kernel, slots: &[SlotId]) -> Result<Vec<Arg>> {
        if k.params().count() != slots.len() {
            let what = format!("kernel `{}` is called with {} slots", k.name, slots.len());
            return Err(broken(self.program, what));
        }
        let written = k.params().map(|b| b.scope == Scope::Out);
        slots.iter().zip(written).map(|(s, w)| self.arg(*s, w)).collect()
    }

    fn number(&self, d: &Dim) -> Result<usize> {
        let n = d.as_const().and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| {
            broken(
                self.program,
                format!("a size of {d} among constants, expected a number"),
            )
        })
    }

    /// Takes the memory of arguments that is not the model's own.
    fn hold(&self, args: &[Arg]) -> Result<Held<'_, 'p>> {
        let place = |s: &SlotId| {
            let place = self.memory.places.get(s);
            place.ok_or_else(|| broken(self.program, format!("the constant {s} is read before it is computed")))
        };
        let mut held = Held {
            written: vec![],
            read: FxHashMap::default(),
        };
        for a in args.iter().filter(|a| a.written) {
            if held.written.iter().all(|(s, _)| *s != a.slot) {
                let memory = place(&a.slot)?.write().unwrap_or_else(PoisonError::into_inner);
                held.written.push((a.slot, memory));
            }
        }
        for a in args.iter().filter(|a| !self.memory.given.contains_key(&a.slot)) {
            if held.written.iter().all(|(s, _)| *s != a.slot) && !held.read.contains_key(&a.slot) {
                let memory = place(&a.slot)?.read().unwrap_or_else(PoisonError::into_inner);
                held.read.insert(a.slot, memory);
            }
        }
        Ok(held)
    }

    /// The bytes of an argument that is only read.
    fn bytes<'b>(&'b self, read: &'b Read<'_, 'p>, a: &Arg) -> Result<&'b [u8]> {
        let all = match self.memory.given.get(&a.slot) {
            Some(given) => Some(*given),
            None => read.get(&a.slot).map(|memory| &memory[..]),
        };
        let part = all.and_then(|all| all.get(a.bytes.clone()));
        part.ok_or_else(|| self.outside(a))
    }

    fn outside(&self, a: &Arg) -> Error {
        let Arg { slot, bytes, .. } = a;
        broken(
            self.program,
            format!("bytes {bytes:?} of the constant {slot}, which has fewer"),
        )
    }

    fn moves(&self, moves: &Moves, k: &Kernel, args: &[Arg]) -> Result<Option<u32>> {
        let Held { mut written, read } = self.hold(args)?;
        let from = args.iter().filter(|a| !a.written).map(|a| self.bytes(&read, a));
        let from = from.collect::<Result<Vec<_>>>()?;
        let to = written.iter_mut().zip(args.iter().filter(|a| a.written));
        let to = to.map(|((_, all), a)| all.get_mut(a.bytes.clone()).ok_or_else(|| self.outside(a)));
        let done = moves.run(&from, &mut to.collect::<Result<Vec<_>>>()?);
        done.map_err(|what| broken(self.program, format!("kernel `{}`: {what}", k.name)))?;
        Ok(None)
    }

    fn interpret(&self, k: &Kernel, args: &[Arg]) -> Result<Option<u32>> {
        let Held { mut written, read } = self.hold(args)?;
        let mut places = written.iter_mut();
        let mut data: Vec<BufferData> = vec![];
        for a in args {
            data.push(match if a.written { places.next() } else { None } {
                Some((_, all)) => all.get_mut(a.bytes.clone()).ok_or_else(|| self.outside(a))?.into(),
                None => self.bytes(&read, a)?.into(),
            });
        }
        match interp::run(k, &|_| None, &data) {
            Ok(()) => Ok(None),
            Err(fault) if fault.check.is_some() => Ok(fault.check),
            Err(fault) => Err(broken(self.program, fault.to_string())),
        }
    }

    fn run(&self, kernel: u32, k: &Kernel, args: &[Arg]) -> Result<Option<u32>> {
        let code = self.code()?;
        let Held { mut written, read } = self.hold(args)?;
        let mut pointers: Vec<*mut u8> = vec![];
        for a in args {
            pointers.push(match written.iter_mut().find(|(s, _)| *s == a.slot) {
                Some((_, all)) => all
                    .get_mut(a.bytes.clone())
                    .ok_or_else(|| self.outside(a))?
                    .as_mut_ptr(),
                None => self.bytes(&read, a)?.as_ptr().cast_mut(),
            });
        }
        let iterations = match k.parallel() {
            Some((n, _)) => self.number(n.as_dim().unwrap_or(&Dim::ZERO))?,
            None => 1,
        };
        let mut scratch = AlignedBytes::zeroed(self.number(&k.scratch_bytes())? as u64)?;
        let dims = vec![0; self.program.symbols.len()];
        // SAFETY: every parameter has memory of its size: for what the kernel writes nobody else has it, and what it only
        // reads nobody writes meanwhile. Where parameters are the same memory, no other reference to it is used.
        Ok(unsafe { code.call(kernel, &pointers, &dims, iterations as i64, &mut scratch) })
    }

    /// Machine code of the kernels that need it.
    fn code(&self) -> Result<Arc<Kernels>> {
        let mut code = lock(&self.code);
        if let Some(made) = &*code {
            return Ok(made.clone());
        }
        let wanted = self.how.iter().filter(|(_, h)| matches!(h, How::Code));
        let mut wanted: Vec<u32> = wanted.map(|(k, _)| *k).collect();
        wanted.sort_unstable();
        let made = native::kernels(self.program, &wanted, self.host).map_err(|source| Error::Codegen {
            model: self.program.name.clone(),
            source,
        })?;
        Ok(code.insert(Arc::new(made)).clone())
    }

    fn copy(&self, from: SlotId, to: SlotId, rows: Option<&Rows>) -> Result<()> {
        let args = [self.arg(from, false)?, self.arg(to, true)?];
        let (bytes, count, start, stride) = match rows {
            Some(r) => (
                self.number(&r.bytes)?,
                self.number(&r.count)?,
                self.number(&r.start)?,
                self.number(&r.stride)?,
            ),
            None => (args[0].bytes.len(), 1, 0, 0),
        };
        let Held { mut written, read } = self.hold(&args)?;
        let place = written
            .first_mut()
            .and_then(|(_, all)| all.get_mut(args[1].bytes.clone()));
        let (from, to) = (
            self.bytes(&read, &args[0])?,
            place.ok_or_else(|| self.outside(&args[1]))?,
        );
        for i in 0..count {
            let row = from.get(i * bytes..(i + 1) * bytes);
            let place = to.get_mut(start + i * stride..).and_then(|rest| rest.get_mut(..bytes));
            let (Some(row), Some(place)) = (row, place) else {
                return Err(self.outside(&args[1]));
            };
            place.copy_from_slice(row);
        }
        Ok(())
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a task as done, however it ends: nobody waits for one that panicked.
struct Done<'d>(&'d AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
