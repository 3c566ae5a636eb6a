//! The reference interpreter of loop kernels.
//!
//! A kernel is lowered once a run to a flat program (`lower`): dims become integers, index expressions sums over
//! slots, a vector loop a number of lanes on each of its statements. CPU kernels are run by one thread of execution.
//! A GPU kernel is run as the hardware runs it: every thread of a block executes the whole body, a `block` or `thread`
//! loop gives it its own coordinate, and at a barrier it waits for the others. Blocks, and iterations of a parallel loop,
//! run one after the other, in order; where a parallel loop begins and where it ends, all that was done before is done.
//!
//! Reported: accesses out of bounds, reads of scratch memory that was not written, races and reads of what another parameter
//! has overwritten (see the module `memory`), barriers that not all threads reach; and the first check that failed, after the whole kernel.

mod exec;
mod lower;
mod memory;
#[cfg(test)]
mod tests;

use super::{Kernel, Scope};
use crate::Fault;
use lower::{Code, Op};
use memory::{Memory, Who};
use std::cell::Cell;

/// The memory of a parameter, little-endian elements.
#[derive(Clone, Copy)]
pub enum BufferData<'a> {
    /// Memory that is only read.
    Read(&'a [u8]),
    /// Memory that may be written. Two parameters may be the same memory.
    Write(&'a [Cell<u8>]),
}

impl<'a> From<&'a [u8]> for BufferData<'a> {
    fn from(bytes: &'a [u8]) -> BufferData<'a> {
        BufferData::Read(bytes)
    }
}
impl<'a> From<&'a mut [u8]> for BufferData<'a> {
    fn from(bytes: &'a mut [u8]) -> BufferData<'a> {
        BufferData::Write(Cell::from_mut(bytes).as_slice_of_cells())
    }
}

impl BufferData<'_> {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        match self {
            BufferData::Read(b) => b.len(),
            BufferData::Write(b) => b.len(),
        }
    }
    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// True when both are the same bytes, of which there are some.
    fn is_same(&self, o: &BufferData) -> bool {
        match (self, o) {
            (BufferData::Write(a), BufferData::Write(b)) => !a.is_empty() && std::ptr::eq(*a, *b),
            _ => false,
        }
    }
    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            BufferData::Read(b) => b.to_vec(),
            BufferData::Write(c) => c.iter().map(Cell::get).collect(),
        }
    }
    /// Replaces all bytes.
    ///
    /// # Errors
    /// When the memory is only read, or has another size.
    pub fn copy_from(&self, bytes: &[u8]) -> Result<(), String> {
        match self {
            BufferData::Read(_) => Err("memory that is only read is written".into()),
            BufferData::Write(c) if c.len() != bytes.len() => {
                Err(format!("{} bytes written to memory of {}", bytes.len(), c.len()))
            }
            BufferData::Write(c) => {
                c.iter().zip(bytes).for_each(|(c, b)| c.set(*b));
                Ok(())
            }
        }
    }
}

impl<'a> BufferData<'a> {
    /// A range of the memory, when it lies inside.
    pub fn part(&self, offset: usize, bytes: usize) -> Option<BufferData<'a>> {
        let range = offset..offset.checked_add(bytes)?;
        Some(match self {
            BufferData::Read(b) => BufferData::Read(b.get(range)?),
            BufferData::Write(c) => BufferData::Write(c.get(range)?),
        })
    }
}

/// The most bytes of scratch that a run may need, so that hostile text cannot exhaust memory.
const MAX_SCRATCH: usize = 1 << 32;

/// One thread of execution.
struct Thread {
    pc: usize,
    vars: Vec<i64>,
    extents: Vec<i64>,
    regs: Vec<u64>,
    /// Block and thread coordinates on a GPU.
    coordinates: [i64; 6],
    who: Who,
}

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Done,
    Barrier(usize),
}

/// Runs a kernel under values of its symbols, on one buffer a parameter.
///
/// # Errors
/// When the kernel is not valid, a buffer has not its parameter's length, or a statement does what the level forbids.
pub fn run(k: &Kernel, symbols: &dyn Fn(&str) -> Option<i64>, buffers: &[BufferData]) -> Result<(), Fault> {
    let fail = |message: String| Fault::new(&k.name, "", message);
    k.verify().map_err(fail)?;
    let code = lower::lower(k, symbols)?;
    let threads = code.grid[3..].iter().product::<i64>();
    if buffers.len() != k.params().count() {
        return Err(fail(format!(
            "{} buffers given, {} expected",
            buffers.len(),
            k.params().count()
        )));
    }
    let mut scratch: Vec<Vec<u8>> = vec![];
    let mut total = 0usize;
    for (b, &len) in k.buffers.iter().zip(&code.lens).skip(buffers.len()) {
        let copies = if b.scope == Scope::Private { threads as usize } else { 1 };
        let bytes = len.checked_mul(b.dtype.bytes()).and_then(|n| n.checked_mul(copies));
        total = total.saturating_add(bytes.unwrap_or(usize::MAX));
        if total > MAX_SCRATCH {
            return Err(fail(format!("more than {MAX_SCRATCH} bytes of scratch")));
        }
        // Garbage that is a NaN in every float dtype.
        scratch.push(vec![0xff; bytes.unwrap_or(0)]);
    }
    let mut data = buffers.to_vec();
    data.extend(scratch.iter_mut().map(|s| BufferData::from(&mut s[..])));
    for (i, ((b, &len), d)) in k
        .buffers
        .iter()
        .zip(&code.lens)
        .zip(&data)
        .enumerate()
        .take(buffers.len())
    {
        if Some(d.len()) != len.checked_mul(b.dtype.bytes()) {
            return Err(fail(format!(
                "buffer b{i} has {} bytes, expected {len} elements of {}",
                d.len(),
                b.dtype
            )));
        }
        if b.scope == Scope::Out && matches!(d, BufferData::Read(_)) {
            return Err(fail(format!("buffer b{i} is written, but its memory can only be read")));
        }
    }
    let mut machine = Machine {
        k,
        code: &code,
        memory: Memory::new(k, &code, data),
        failed: None,
    };
    if code.gpu { machine.grid() } else { machine.single() }?;
    match machine.failed {
        Some(number) => Err(Fault::check(&k.name, number)),
        None => Ok(()),
    }
}

struct Machine<'a> {
    k: &'a Kernel,
    code: &'a Code,
    memory: Memory<'a>,
    /// The first check that failed.
    failed: Option<u32>,
}

impl Machine<'_> {
    fn thread(&self) -> Thread {
        Thread {
            pc: 0,
            vars: vec![0; self.code.vars],
            extents: vec![0; self.code.vars],
            regs: vec![0; self.code.regs],
            coordinates: [0; 6],
            who: Who::default(),
        }
    }

    fn fault(&self, pc: usize, message: impl Into<String>) -> Fault {
        let path: Vec<String> = self.code.paths[pc].iter().map(usize::to_string).collect();
        Fault::new(&self.k.name, format!("statement {}", path.join(".")), message)
    }

    fn single(&mut self) -> Result<(), Fault> {
        let mut t = self.thread();
        match self.run(&mut t)? {
            Stop::Done => Ok(()),
            Stop::Barrier(pc) => Err(self.fault(pc, "a barrier in a kernel for a CPU")),
        }
    }

    fn grid(&mut self) -> Result<(), Fault> {
        let [bx, by, bz, tx, ty, tz] = self.code.grid;
        let threads = tx * ty * tz;
        let blocks = bx
            .checked_mul(by)
            .and_then(|n| n.checked_mul(bz))
            .filter(|n| *n < u32::MAX as i64);
        let blocks =
            blocks.ok_or_else(|| Fault::new(&self.k.name, "", format!("a grid of {bx} × {by} × {bz} blocks")))?;
        let mut team: Vec<Thread> = (0..threads).map(|_| self.thread()).collect();
        for block in 0..blocks {
            self.memory.forget();
            for (i, t) in (0i64..).zip(&mut team) {
                t.pc = 0;
                t.coordinates = [
                    block % bx,
                    block / bx % by,
                    block / bx / by,
                    i % tx,
                    i / tx % ty,
                    i / tx / ty,
                ];
                t.who = Who {
                    block: block as u32,
                    thread: i as u32,
                    epoch: 0,
                    phase: 0,
                };
            }
            self.block(&mut team)?;
        }
        Ok(())
    }

    /// Runs the threads of one block from barrier to barrier.
    fn block(&mut self, team: &mut [Thread]) -> Result<(), Fault> {
        loop {
            let mut first = None;
            for t in &mut *team {
                let stop = self.run(t)?;
                let other = *first.get_or_insert(stop);
                if stop != other {
                    let ((Stop::Barrier(pc), _) | (_, Stop::Barrier(pc))) = (stop, other) else {
                        continue;
                    };
                    return Err(self.fault(
                        pc,
                        format!(
                            "thread {} of block {} does not meet the others here",
                            t.who.thread, t.who.block
                        ),
                    ));
                }
                t.who.epoch += 1;
            }
            if first.is_none_or(|s| s == Stop::Done) {
                return Ok(());
            }
        }
    }

    /// Runs a thread to the next barrier or to its end.
    fn run(&mut self, t: &mut Thread) -> Result<Stop, Fault> {
        let code = self.code;
        while let Some(op) = code.ops.get(t.pc) {
            let pc = t.pc;
            t.pc += 1;
            match op {
                Op::Set(s) => self.set(t, s).map_err(|m| self.fault(pc, m))?,
                Op::Store(s) => self.store(t, s).map_err(|m| self.fault(pc, m))?,
                Op::Begin {
                    var,
                    extent,
                    end,
                    parallel,
                } => {
                    let n = extent.at(&t.vars, &t.regs, 0);
                    (t.vars[*var], t.extents[*var]) = (0, n);
                    if *parallel {
                        t.who.phase += 1;
                        self.iteration(t, 0, n).map_err(|m| self.fault(pc, m))?;
                    }
                    if n <= 0 {
                        t.pc = *end;
                    }
                }
                Op::Next { var, begin, parallel } => {
                    t.vars[*var] += 1;
                    let i = t.vars[*var];
                    if i < t.extents[*var] {
                        t.pc = *begin;
                        if *parallel {
                            self.iteration(t, i, t.extents[*var]).map_err(|m| self.fault(pc, m))?;
                        }
                    } else if *parallel {
                        t.who.phase += 1;
                    }
                }
                Op::Coordinate { var, axis } => t.vars[*var] = t.coordinates[*axis],
                Op::Unless { bounds, to } => {
                    if !bounds.iter().all(|b| b.holds(&t.vars, &t.regs, 0)) {
                        t.pc = *to;
                    }
                }
                Op::Check { number, holds, lanes } => {
                    let holds = (0..*lanes).all(|lane| t.regs[holds.base + lane * holds.step] != 0);
                    if !holds && self.failed.is_none() {
                        self.failed = Some(*number);
                    }
                }
                Op::Barrier => return Ok(Stop::Barrier(pc)),
                Op::Tile(tile) => self.tile(t, tile).map_err(|m| self.fault(pc, m))?,
            }
        }
        Ok(Stop::Done)
    }

    /// Starts an iteration of the parallel loop: scratch contents do not outlive the last one.
    fn iteration(&mut self, t: &mut Thread, i: i64, n: i64) -> Result<(), String> {
        if n >= u32::MAX as i64 {
            return Err(format!("a parallel loop of {n} iterations"));
        }
        t.who.block = i as u32;
        self.memory.forget();
        Ok(())
    }
}
