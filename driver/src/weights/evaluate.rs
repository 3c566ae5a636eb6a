//! Running the initial steps. Whoever has time takes the first task that can be run ([`Evaluation::work`]): so what one matrix becomes is done
//! before the next one begins, and what it became on the way is given back ([`Memory::release`]).
//!
//! A kernel that only moves elements runs natively ([`Moves`]), one with little work on the interpreter: making machine code
//! of it would take longer. The results are the same bit for bit. The others become machine code for this machine.
//!
//! Invariant: a task starts when the tasks are done that wrote what it reads, and read what it writes; so the results, and the first error in the
//! order of tasks, do not depend on threads.

use super::memory::{Blocks, Memory, Room, fill, size};
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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

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

type Read<'e, 'p> = FxHashMap<SlotId, RwLockReadGuard<'e, Room<'p>>>;

/// Memory that is taken for a step.
struct Held<'e, 'p> {
    /// In the order of the arguments.
    written: Vec<(SlotId, RwLockWriteGuard<'e, Room<'p>>)>,
    read: Read<'e, 'p>,
}

struct Evaluation<'p> {
    program: &'p Program,
    constants: &'p Constants,
    memory: Memory<'p>,
    host: &'p Target,
    /// Weights that are written, then the steps in their order.
    tasks: Vec<Task<'p>>,
    /// The tasks that have to be done before each.
    before: Vec<Vec<usize>>,
    /// The constants that each touches.
    touched: Vec<Vec<SlotId>>,
    progress: Mutex<Progress>,
    /// Told when a task is done.
    moved: Condvar,
    how: FxHashMap<u32, How>,
    /// Made when it is first needed.
    code: Mutex<Option<Arc<Kernels>>>,
}

/// How far an evaluation is.
struct Progress {
    /// Tasks that nobody has taken, in order.
    left: Vec<usize>,
    done: Vec<bool>,
    /// How many tasks are still to be done that touch a constant.
    users: FxHashMap<SlotId, usize>,
    /// Of the first task that failed, and its number.
    error: Option<(usize, Error)>,
}

impl<'p> Evaluation<'p> {
    fn new(program: &'p Program, constants: &'p Constants, memory: Memory<'p>, host: &'p Target) -> Evaluation<'p> {
        let mut filled: Vec<SlotId> = memory.places.keys().copied().collect();
        filled.retain(|s| memory.is_filled(program, *s));
        filled.sort_unstable();
        let mut how = FxHashMap::default();
        let mut tasks: Vec<Task> = filled.iter().map(|s| Task::Fill(*s)).collect();
        let mut before = vec![vec![]; filled.len()];
        let mut all_touched: Vec<Vec<SlotId>> = filled.iter().map(|s| vec![*s]).collect();
        // The task that wrote a constant last, and those that read it since.
        let mut writer: FxHashMap<SlotId, usize> = FxHashMap::default();
        let mut readers: FxHashMap<SlotId, Vec<usize>> = FxHashMap::default();
        let computed = filled.iter().enumerate().filter(|(_, s)| !memory.given.contains_key(s));
        writer.extend(computed.map(|(i, s)| (*s, i)));
        for step in &constants.steps {
            let own = |slots: Vec<SlotId>| slots.into_iter().map(|s| constants.first(s)).collect::<Vec<_>>();
            let (writes, mut touched) = (own(writes(program, step)), own(touched(program, step)));
            if let Step::Call { kernel, .. } = step {
                let k = &program.kernels[*kernel as usize];
                // Only machine code may read what it writes.
                if writes.iter().all(|w| touched.iter().filter(|s| *s == w).count() == 1) {
                    how.entry(*kernel).or_insert_with(|| How::of(k));
                } else {
                    how.insert(*kernel, How::Code);
                }
            }
            touched.sort_unstable();
            touched.dedup();
            let at = tasks.len();
            let mut needed: Vec<usize> = touched.iter().filter_map(|s| writer.get(s).copied()).collect();
            for s in &touched {
                if writes.contains(s) {
                    needed.extend(readers.remove(s).into_iter().flatten());
                    writer.insert(*s, at);
                } else {
                    readers.entry(*s).or_default().push(at);
                }
            }
            needed.sort_unstable();
            needed.dedup();
            before.push(needed);
            all_touched.push(touched);
            tasks.push(Task::Step(step));
        }
        let mut users: FxHashMap<SlotId, usize> = FxHashMap::default();
        for s in all_touched.iter().flatten() {
            *users.entry(*s).or_default() += 1;
        }
        Evaluation {
            program,
            constants,
            memory,
            host,
            progress: Mutex::new(Progress {
                left: (0..tasks.len()).collect(),
                done: vec![false; tasks.len()],
                users,
                error: None,
            }),
            tasks,
            before,
            touched: all_touched,
            moved: Condvar::new(),
            how,
            code: Mutex::default(),
        }
    }

    /// Runs tasks until none is left.
    fn work(&self) {
        while let Some(i) = self.next() {
            let done = Done(self, i);
            let failed = |p: &Progress| p.error.as_ref().is_some_and(|(first, _)| *first < i);
            if !failed(&lock(&self.progress))
                && let Err(e) = self.task(&self.tasks[i])
            {
                let mut progress = lock(&self.progress);
                if !failed(&progress) {
                    progress.error = Some((i, e));
                }
            }
            drop(done);
        }
    }

    /// Takes the first task that can be run, once there is one; `None` where all are taken.
    fn next(&self) -> Option<usize> {
        let mut progress = lock(&self.progress);
        loop {
            let ready = |i: &usize| self.before[*i].iter().all(|b| progress.done[*b]);
            match progress.left.iter().position(ready) {
                Some(at) => return Some(progress.left.remove(at)),
                None if progress.left.is_empty() => return None,
                // What they wait for, others run.
                None => progress = self.moved.wait(progress).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for tasks that others run; what is left of them is in memory.
    fn finish(self) -> Result<()> {
        let mut progress = lock(&self.progress);
        while !progress.done.iter().all(|d| *d) {
            progress = self.moved.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.error.take().map_or(Ok(()), |(_, e)| Err(e))
    }

    /// Notes that a task is done, and gives back what nothing else needs.
    fn done(&self, i: usize) {
        let mut progress = lock(&self.progress);
        progress.done[i] = true;
        let mut last = vec![];
        for s in &self.touched[i] {
            let users = progress.users.entry(*s).or_default();
            *users = users.saturating_sub(1);
            if *users == 0 {
                last.push(*s);
            }
        }
        drop(progress);
        last.into_iter().for_each(|s| self.memory.release(s));
        self.moved.notify_all();
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

/// Notes that a task is done, however it ends: nobody waits for one that panicked.
struct Done<'d, 'p>(&'d Evaluation<'p>, usize);

impl Drop for Done<'_, '_> {
    fn drop(&mut self) {
        self.0.done(self.1);
    }
}
