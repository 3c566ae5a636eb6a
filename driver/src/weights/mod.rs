//! Constant evaluation: the initial steps of a program run once, in the compiler, and leave one blob of weights.
//!
//! ```text
//! weight s1 (file) ──┐ init: pack(s1) -> s2        blob: [ s2 | s3 ]   s1 is not in it: only init reads it
//! weight s3 (file) ──┴ main: dense(s0, s2, s3)
//! ```
//!
//! Only constants that the main steps read are laid out, each at a multiple of 64. Constants are numbered by value
//! (as in global value numbering): weights by their content, computed ones by the calls that make them, so that equal ones
//! are stored and computed once, and the layout is known before anything runs. What is allocated keeps to the memory limit;
//! files are read in place.

use crate::backend::native;
use crate::{Error, Result};
use brolga_abi::{Ctx, ErrorCode};
use brolga_ir::program::{Program, SlotId, Step, Storage, nested};
use brolga_ir::{ConstData, NodeError, Target, encode};
use brolga_runtime::{AlignedBytes, Weights};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::Hasher;
use std::sync::Arc;

/// Where constants lie in the blob, and the blob.
#[derive(Clone, Debug)]
pub struct Packed {
    offsets: FxHashMap<SlotId, u64>,
    blob: Weights,
    /// Bytes of memory that evaluation took beside the blob.
    pub scratch_bytes: u64,
}

impl Packed {
    /// The byte offset of a constant that the main steps read.
    pub fn offset(&self, slot: SlotId) -> Option<u64> {
        self.offsets.get(&slot).copied()
    }
    /// Where constants lie.
    pub fn offsets(&self) -> &FxHashMap<SlotId, u64> {
        &self.offsets
    }
    /// The blob.
    pub fn bytes(&self) -> &[u8] {
        self.blob.bytes()
    }
    /// The blob, shared.
    pub fn weights(&self) -> Weights {
        self.blob.clone()
    }
}

/// Evaluates a program's constants with code for `host`, the machine that this runs on. Besides those that the main steps
/// read, `kept` are laid out.
///
/// # Errors
/// When they need more than `limit` bytes, or their code cannot be made.
pub fn pack(program: &Program, kept: &[SlotId], host: &Target, limit: u64) -> Result<Packed> {
    let mut used = constants_of(program, &program.steps);
    used.extend(kept);
    let needed = needed_steps(program, &used);
    let same = number(program, &needed, &used)?;

    let mut offsets: FxHashMap<SlotId, u64> = FxHashMap::default();
    let mut end = 0u64;
    let mut order: Vec<SlotId> = used.iter().copied().collect();
    order.sort_unstable();
    for s in order {
        let first = same[&s];
        let at = match offsets.get(&first) {
            Some(&at) => at,
            None => {
                let at = end;
                end = end
                    .checked_add(size(program, first)?.next_multiple_of(64))
                    .ok_or_else(|| too_large(program, u64::MAX, limit))?;
                offsets.insert(first, at);
                at
            }
        };
        offsets.insert(s, at);
    }
    // Steps that only repeat what another computes are left out.
    let is_first = |s: &SlotId| same.get(s) == Some(s);
    let init: Vec<Step> = needed
        .into_iter()
        .filter(|s| writes(program, s).iter().any(is_first))
        .cloned()
        .collect();
    let memory = Memory::new(program, &init, &offsets, end, limit)?;
    let scratch_bytes = memory.temporary;
    let blob = memory.evaluate(program, init, host)?;
    Ok(Packed {
        offsets,
        blob: if end == 0 {
            Weights::Empty
        } else {
            Weights::Owned(Arc::new(blob))
        },
        scratch_bytes,
    })
}

fn too_large(program: &Program, needed: u64, limit: u64) -> Error {
    Error::MemoryLimit {
        model: program.name.clone(),
        needed,
        limit,
    }
}

fn broken(program: &Program, what: String) -> Error {
    Error::Codegen {
        model: program.name.clone(),
        source: brolga_codegen::Error::Program {
            program: program.name.clone(),
            what,
        },
    }
}

fn is_constant(program: &Program, root: SlotId) -> bool {
    matches!(program.slot(root).storage, Storage::Weight(_) | Storage::Computed)
}

/// The slots whose memory a step itself touches.
fn touched(program: &Program, step: &Step) -> Vec<SlotId> {
    let mut slots = vec![];
    step.for_each_slot(&mut |s| slots.push(program.root(s)));
    slots
}

/// The slots whose memory a step itself writes.
fn writes(program: &Program, step: &Step) -> Vec<SlotId> {
    let (_, slots) = program.accesses(step);
    slots.into_iter().map(|s| program.root(s)).collect()
}

fn constants_of(program: &Program, steps: &[Step]) -> FxHashSet<SlotId> {
    let all = nested(steps).into_iter().flat_map(|s| touched(program, s));
    all.filter(|s| is_constant(program, *s)).collect()
}

/// The initial steps that the used constants depend on, in order.
fn needed_steps<'p>(program: &'p Program, used: &FxHashSet<SlotId>) -> Vec<&'p Step> {
    let mut live = used.clone();
    let mut steps = vec![];
    for step in program.init.iter().rev() {
        if writes(program, step).iter().any(|s| live.contains(s)) {
            live.extend(touched(program, step));
            steps.push(step);
        }
    }
    steps.reverse();
    steps
}

/// Gives every constant the first one of the same value.
fn number(program: &Program, steps: &[&Step], used: &FxHashSet<SlotId>) -> Result<FxHashMap<SlotId, SlotId>> {
    let mut all: Vec<SlotId> = steps
        .iter()
        .flat_map(|s| touched(program, s))
        .chain(used.iter().copied())
        .collect();
    all.sort_unstable();
    all.dedup();
    let weights: Vec<SlotId> = all
        .iter()
        .copied()
        .filter(|s| matches!(program.slot(*s).storage, Storage::Weight(_)))
        .collect();
    let mut value: FxHashMap<SlotId, u32> = FxHashMap::default();
    let mut next = by_content(program, &weights, &mut value)?;

    // A computed constant starts as nothing, one nothing for each size, and is what the calls make of it.
    let mut interned: FxHashMap<(u32, u32, Vec<u32>), u32> = FxHashMap::default();
    let mut intern = |key: (u32, u32, Vec<u32>)| {
        *interned.entry(key).or_insert_with(|| {
            next += 1;
            next - 1
        })
    };
    for step in steps {
        let touched = touched(program, step);
        let kernel = match step {
            Step::Call { kernel, .. } => *kernel,
            _ => u32::MAX,
        };
        let mut before = vec![];
        for s in &touched {
            before.push(match value.get(s) {
                Some(&v) => v,
                None => {
                    let bytes = size(program, *s)?;
                    intern((u32::MAX - 1, bytes as u32, vec![(bytes >> 32) as u32]))
                }
            });
        }
        let written = writes(program, step);
        for (i, s) in touched.iter().enumerate() {
            if written.contains(s) {
                value.insert(*s, intern((kernel, i as u32, before.clone())));
            }
        }
    }
    let mut first: FxHashMap<u32, SlotId> = FxHashMap::default();
    Ok(all
        .into_iter()
        .map(|s| match value.get(&s) {
            Some(&v) => (s, *first.entry(v).or_insert(s)),
            None => (s, s),
        })
        .collect())
}

/// Numbers weights by their bytes; gives the next free number.
fn by_content(program: &Program, weights: &[SlotId], value: &mut FxHashMap<SlotId, u32>) -> Result<u32> {
    let mut sizes: FxHashMap<u64, Vec<SlotId>> = FxHashMap::default();
    for &s in weights {
        sizes.entry(size(program, s)?).or_default().push(s);
    }
    let mut seen: FxHashMap<(u64, u64), Vec<(SlotId, u32)>> = FxHashMap::default();
    let mut next = 0;
    for &s in weights {
        let bytes = size(program, s)?;
        // Most sizes that occur once need no hash of their contents.
        let hash = if sizes[&bytes].len() == 1 {
            0
        } else {
            content_hash(program, s, bytes)?
        };
        let alike = seen.entry((bytes, hash)).or_default();
        let mut found = None;
        for (other, n) in alike.iter() {
            if equal(program, s, *other, bytes)? {
                found = Some(*n);
                break;
            }
        }
        let n = found.unwrap_or_else(|| {
            alike.push((s, next));
            next += 1;
            next - 1
        });
        value.insert(s, n);
    }
    Ok(next)
}

fn content_hash(program: &Program, s: SlotId, bytes: u64) -> Result<u64> {
    let mut h = FxHasher::default();
    match (in_place(program, s, bytes)?, &program.slot(s).storage) {
        (Some(data), _) => h.write(data),
        (None, Storage::Weight(ConstData::Splat(x))) => {
            h.write(program.slot(s).ty.dtype.name().as_bytes());
            h.write(&element(program.slot(s).ty.dtype, *x));
        }
        _ => {}
    }
    Ok(h.finish())
}

fn equal(program: &Program, a: SlotId, b: SlotId, bytes: u64) -> Result<bool> {
    Ok(match (in_place(program, a, bytes)?, in_place(program, b, bytes)?) {
        (Some(x), Some(y)) => std::ptr::eq(x, y) || x == y,
        (None, None) => match (&program.slot(a).storage, &program.slot(b).storage) {
            (Storage::Weight(ConstData::Splat(x)), Storage::Weight(ConstData::Splat(y))) => {
                let d = program.slot(a).ty.dtype;
                d == program.slot(b).ty.dtype && element(d, *x) == element(d, *y)
            }
            _ => false,
        },
        _ => false,
    })
}

fn element(d: brolga_ir::DType, x: brolga_ir::Number) -> Vec<u8> {
    let mut e = vec![0; d.bytes()];
    encode(d, x, &mut e);
    e
}

/// Bytes of a constant's memory.
fn size(program: &Program, s: SlotId) -> Result<u64> {
    let bytes = program.slot(s).bytes();
    bytes.as_const().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| {
        broken(
            program,
            format!("the constant {s} has a size of {bytes} bytes, expected a number"),
        )
    })
}

/// A weight's bytes where they are.
fn in_place(program: &Program, s: SlotId, bytes: u64) -> Result<Option<&[u8]>> {
    let data = match &program.slot(s).storage {
        Storage::Weight(ConstData::Dense(t)) => t.bytes().get(..bytes as usize),
        Storage::Weight(ConstData::File { source, offset }) => {
            let end = offset.checked_add(bytes as usize);
            end.and_then(|end| source.bytes().get(*offset..end))
        }
        _ => return Ok(None),
    };
    match data {
        Some(d) => Ok(Some(d)),
        None => Err(broken(
            program,
            format!("the constant {s} has fewer than its {bytes} bytes"),
        )),
    }
}

/// Memory for every constant while the initial steps run.
struct Memory {
    blob: AlignedBytes,
    blocks: Vec<AlignedBytes>,
    /// Bytes of `blocks`.
    temporary: u64,
    /// By number of the slot; null where a step touches none.
    pointers: Vec<*const u8>,
}

impl Memory {
    fn new(program: &Program, init: &[Step], offsets: &FxHashMap<SlotId, u64>, end: u64, limit: u64) -> Result<Memory> {
        let mut here: Vec<SlotId> = init.iter().flat_map(|s| touched(program, s)).collect();
        here.sort_unstable();
        here.dedup();
        let mut temporaries = vec![];
        let mut needed = end;
        for &s in &here {
            let bytes = size(program, s)?;
            if !offsets.contains_key(&s) && in_place(program, s, bytes)?.is_none() {
                needed = needed.saturating_add(bytes);
                temporaries.push(s);
            }
        }
        if needed > limit {
            return Err(too_large(program, needed, limit));
        }
        let mut m = Memory {
            blob: AlignedBytes::zeroed(end)?,
            blocks: vec![],
            temporary: needed - end,
            pointers: vec![std::ptr::null(); program.slots.len()],
        };
        for (&s, &at) in offsets {
            let bytes = size(program, s)? as usize;
            let place = &mut m.blob[at as usize..at as usize + bytes];
            fill(program, s, place)?;
            m.pointers[s.0 as usize] = place.as_ptr();
        }
        for s in temporaries {
            let mut block = AlignedBytes::zeroed(size(program, s)?)?;
            fill(program, s, &mut block)?;
            m.pointers[s.0 as usize] = block.as_ptr();
            m.blocks.push(block);
        }
        for s in here {
            if m.pointers[s.0 as usize].is_null()
                && let Some(data) = in_place(program, s, size(program, s)?)?
            {
                m.pointers[s.0 as usize] = data.as_ptr();
            }
        }
        Ok(m)
    }

    /// Runs the steps; gives the blob.
    fn evaluate(mut self, program: &Program, init: Vec<Step>, host: &Target) -> Result<AlignedBytes> {
        if init.is_empty() {
            return Ok(self.blob);
        }
        let program = Program {
            init,
            ..program.clone()
        };
        let code = native::init(&program, host).map_err(|source| Error::Codegen {
            model: program.name.clone(),
            source,
        })?;
        let scratch = brolga_codegen::program::init_scratch_bytes(&program);
        let scratch = scratch.as_const().ok_or_else(|| {
            broken(
                &program,
                format!("constants need {scratch} bytes of scratch, expected a number"),
            )
        })?;
        let mut arena = AlignedBytes::zeroed(scratch as u64)?;
        let dims = vec![0i64; program.symbols.len()];
        let mut ctx = Ctx {
            arena: arena.as_mut_ptr(),
            arena_bytes: arena.len() as u64,
            dims: dims.as_ptr(),
            ..Ctx::new()
        };
        // The pointers into the blob were taken through a shared borrow; those that code writes through come from this one.
        let base = self.blob.as_ptr().addr();
        let writable = self.blob.as_mut_ptr();
        for p in &mut self.pointers {
            if (base..base + self.blob.len()).contains(&p.addr()) {
                *p = writable.wrapping_add(p.addr() - base);
            }
        }
        // SAFETY: every slot that the steps touch has memory of its size; what they write is in the blob or in a block,
        // which nothing else reads meanwhile; the arena has the scratch of one worker.
        let status = unsafe { (code.run)(&raw mut ctx, self.pointers.as_ptr().cast(), std::ptr::null_mut()) };
        if status != 0 {
            let names = brolga_codegen::program::nodes(&program.init);
            let Some(node) = names.get(ctx.error_node as usize) else {
                return Err(broken(
                    &program,
                    format!("evaluating its constants ended with status {status}"),
                ));
            };
            let why = ErrorCode::split(status).map_or("unknown error", |(code, _)| code.text());
            return Err(Error::Lower {
                model: program.name.clone(),
                source: NodeError {
                    node: node.to_string(),
                    message: format!("in the model's constants, {why}"),
                },
            });
        }
        Ok(self.blob)
    }
}

/// Writes a weight's elements; a computed constant is left as it is.
fn fill(program: &Program, s: SlotId, place: &mut [u8]) -> Result<()> {
    let slot = program.slot(s);
    if let Some(data) = in_place(program, s, place.len() as u64)? {
        place.copy_from_slice(data);
    } else if let Storage::Weight(ConstData::Splat(x)) = &slot.storage {
        let e = element(slot.ty.dtype, *x);
        if e.iter().any(|b| *b != 0) {
            place.chunks_exact_mut(e.len()).for_each(|c| c.copy_from_slice(&e));
        }
    }
    Ok(())
}
