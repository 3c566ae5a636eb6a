//! The interpreter's memory: every access is checked against its buffer's bounds; scratch must be written before it is
//! read; two threads of execution must not touch one element, one of them writing, unless a barrier lies between; and where
//! a parameter that is read is the memory of one that is written, no element is read behind a write to it.
//!
//! A race is found by what each element remembers: the last writer and the last reader, with the number of barriers that
//! the block had passed (as in FastTrack, Flanagan and Freund 2009, whose vector clocks a barrier reduces to one number).
//! Blocks, and iterations of a parallel loop, have no order, so among them any such pair is a race. What came before a parallel loop
//! began or after it ended is in another *phase*, with which there are none.

use super::BufferData;
use super::lower::Code;
use crate::loops::{Kernel, Scope};

/// Who touches memory, and when.
#[derive(Clone, Copy, Default)]
pub(super) struct Who {
    /// The block, or the iteration of the parallel loop.
    pub block: u32,
    /// The thread of the block.
    pub thread: u32,
    /// How many barriers the block has passed.
    pub epoch: u32,
    /// How many times a parallel loop has begun or ended.
    pub phase: u32,
}

/// What an element remembers. Blocks count from 1, 0 is nobody; `when` holds the epoch above [`THREAD_BITS`] bits of
/// the thread.
#[derive(Clone, Copy, Default)]
struct Shadow {
    write_block: u32,
    write_when: u32,
    read_block: u32,
    read_when: u32,
    /// The phase of all this.
    phase: u32,
    /// Written in whatever phase.
    written: bool,
}

const THREAD_BITS: u32 = 11;
/// More than one reader.
const MANY: u32 = u32::MAX;
const MANY_THREADS: u32 = (1 << THREAD_BITS) - 1;

impl Shadow {
    /// Notes an access; false when it is a race. Memory of one block forgets what other blocks did.
    fn note(&mut self, who: Who, write: bool, shared: bool) -> bool {
        if self.phase != who.phase {
            *self = Shadow {
                phase: who.phase,
                written: self.written,
                ..Shadow::default()
            };
        }
        self.written |= write;
        let block = who.block + 1;
        let when = (who.epoch << THREAD_BITS) | who.thread;
        let same_epoch = |w: u32| w >> THREAD_BITS == when >> THREAD_BITS;
        if shared && self.write_block != block {
            self.write_block = 0;
        }
        if shared && self.read_block != block {
            self.read_block = 0;
        }
        let conflict = |b: u32, w: u32| b != 0 && (b != block || (same_epoch(w) && w != when));
        if conflict(self.write_block, self.write_when) || (write && conflict(self.read_block, self.read_when)) {
            return false;
        }
        if write {
            (self.write_block, self.write_when) = (block, when);
        } else if self.read_block == 0 || (self.read_block == block && !same_epoch(self.read_when)) {
            (self.read_block, self.read_when) = (block, when);
        } else if self.read_block != block {
            self.read_block = MANY;
        } else if self.read_when != when {
            self.read_when |= MANY_THREADS;
        }
        true
    }
}

struct Slot<'a> {
    data: BufferData<'a>,
    /// Bytes of an element.
    bytes: usize,
    /// Elements (of one thread, when private).
    len: usize,
    scope: Scope,
    /// For scratch: the generation in which an element was last written.
    written: Vec<u32>,
    /// For memory that several threads of execution see, or two parameters.
    shadow: Vec<Shadow>,
    /// The written parameter whose memory this one is, of those that are read.
    over: Option<usize>,
}

/// All buffers of a run.
pub(super) struct Memory<'a> {
    slots: Vec<Slot<'a>>,
    /// Counts blocks, or iterations of the parallel loop: scratch written in another generation is not written.
    generation: u32,
}

impl<'a> Memory<'a> {
    /// Buffers over their memory; private ones hold one copy a thread.
    pub fn new(k: &Kernel, code: &Code, data: Vec<BufferData<'a>>) -> Memory<'a> {
        let over = |i: usize| {
            let mut written = (0..).zip(&k.buffers).filter(|(_, b)| b.scope == Scope::Out);
            let shared = |o: usize| k.buffers[i].scope == Scope::In && data[i].is_same(&data[o]);
            written.find(|(o, _)| shared(*o)).map(|(o, _)| o)
        };
        let overs: Vec<Option<usize>> = (0..k.buffers.len()).map(over).collect();
        let slots = k
            .buffers
            .iter()
            .zip(data)
            .zip(&code.lens)
            .enumerate()
            .map(|(i, ((b, data), &len))| {
                let elements = data.len() / b.dtype.bytes();
                let scratch = !matches!(b.scope, Scope::In | Scope::Out);
                let shared = overs.contains(&Some(i)) || code.gpu || code.parallel;
                let seen = matches!(b.scope, Scope::Shared | Scope::Kernel) || (b.scope == Scope::Out && shared);
                Slot {
                    data,
                    bytes: b.dtype.bytes(),
                    len,
                    scope: b.scope,
                    written: if scratch { vec![0; elements] } else { vec![] },
                    shadow: if seen {
                        vec![Shadow::default(); elements]
                    } else {
                        vec![]
                    },
                    over: overs[i],
                }
            });
        Memory {
            slots: slots.collect(),
            generation: 1,
        }
    }

    /// Starts another generation: scratch loses its contents.
    pub fn forget(&mut self) {
        self.generation += 1;
    }

    /// The element's position in the memory of its buffer, after all checks.
    fn check(&mut self, buffer: usize, who: Who, index: i64, write: bool) -> Result<usize, String> {
        let over = self.slots[buffer].over;
        let s = &mut self.slots[buffer];
        if !(0..s.len as i64).contains(&index) {
            let what = if write { "store to" } else { "load from" };
            return Err(format!("{what} b{buffer}[{index}], which has {} elements", s.len));
        }
        let mut at = index as usize;
        if s.scope == Scope::Private {
            at += s.len * who.thread as usize;
        }
        if let Some(w) = s.written.get_mut(at) {
            let generation = if s.scope == Scope::Kernel { 1 } else { self.generation };
            if write {
                *w = generation;
            } else if *w != generation {
                return Err(format!("load from b{buffer}[{index}], which was not written"));
            }
        }
        if let Some(shadow) = s.shadow.get_mut(at)
            && !shadow.note(who, write, s.scope == Scope::Shared)
        {
            let what = if write { "writes" } else { "reads" };
            let Who { block, thread, .. } = who;
            return Err(format!(
                "a race: thread {thread} of block {block} {what} b{buffer}[{index}]"
            ));
        }
        if let Some(o) = over
            && let Some(shadow) = self.slots[o].shadow.get_mut(at)
            && (shadow.written || !shadow.note(who, false, false))
        {
            return Err(format!(
                "load from b{buffer}[{index}], which is the memory of b{o} and was written"
            ));
        }
        Ok(at)
    }

    /// An element's bits.
    pub fn load(&mut self, buffer: usize, who: Who, index: i64) -> Result<u64, String> {
        let at = self.check(buffer, who, index, false)?;
        let s = &self.slots[buffer];
        Ok(match s.bytes {
            1 => bytes::<1>(s, at)[0] as u64,
            2 => u16::from_le_bytes(bytes(s, at)) as u64,
            4 => u32::from_le_bytes(bytes(s, at)) as u64,
            _ => u64::from_le_bytes(bytes(s, at)),
        })
    }

    /// Writes an element.
    pub fn store(&mut self, buffer: usize, who: Who, index: i64, bits: u64) -> Result<(), String> {
        let at = self.check(buffer, who, index, true)?;
        let s = &self.slots[buffer];
        let BufferData::Write(cells) = s.data else {
            return Err(format!("store to b{buffer}, which is only read"));
        };
        let n = s.bytes;
        for (c, b) in cells[at * n..(at + 1) * n].iter().zip(bits.to_le_bytes()) {
            c.set(b);
        }
        Ok(())
    }

    /// The bits of the elements `first`, `first + stride`, …
    pub fn load_lanes(
        &mut self,
        buffer: usize,
        who: Who,
        first: i64,
        stride: i64,
        out: &mut [u64],
    ) -> Result<(), String> {
        let s = &self.slots[buffer];
        let last = stride
            .checked_mul(out.len() as i64 - 1)
            .and_then(|d| first.checked_add(d));
        let range = 0..s.len as i64;
        if s.is_plain() && range.contains(&first) && last.is_some_and(|l| range.contains(&l)) {
            let at = |lane: usize| (first + stride * lane as i64) as usize;
            match s.bytes {
                1 => out
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = bytes::<1>(s, at(i))[0] as u64),
                2 => out
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = u16::from_le_bytes(bytes(s, at(i))) as u64),
                4 => out
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = u32::from_le_bytes(bytes(s, at(i))) as u64),
                _ => out
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, x)| *x = u64::from_le_bytes(bytes(s, at(i)))),
            }
            return Ok(());
        }
        for (lane, x) in (0..).zip(out) {
            *x = self.load(buffer, who, first.wrapping_add(stride.wrapping_mul(lane)))?;
        }
        Ok(())
    }
}

impl Slot<'_> {
    /// Memory of which nothing is remembered.
    fn is_plain(&self) -> bool {
        self.shadow.is_empty() && self.written.is_empty() && self.over.is_none()
    }
}

fn bytes<const N: usize>(s: &Slot, at: usize) -> [u8; N] {
    let mut out = [0; N];
    match s.data {
        BufferData::Read(b) => out.copy_from_slice(&b[at * N..(at + 1) * N]),
        BufferData::Write(c) => {
            for (x, c) in out.iter_mut().zip(&c[at * N..(at + 1) * N]) {
                *x = c.get();
            }
        }
    }
    out
}
