//! What a model keeps of sequences: their tokens, and the keys and values of each.
//!
//! ```text
//! layers that see all tokens     token p in row p; as many rows as the longest sequence needs
//! layers that see a window W     token p in row p mod R of a ring; R rows at most, however long a sequence becomes
//! ```
//!
//! A ring of R rows holds the last R tokens. The next token sees W - 1 of them, so that a sequence can be cut back by R - W + 1 tokens or fewer. It can
//! be cut to a [mark](Cache::mark) from anywhere: before the ring loses what the mark's next token sees, that is copied.
//!
//! Invariant: of a sequence of `n` tokens, rings hold those from `first` on, and `n` is 0 or `n - W + 1 >= first`.

use super::encoder::Encoded;
use crate::Result;
use brolga_abi::{Dim, meta::Meta};
use brolga_runtime::{Buffer, DType, ViewMut};
use std::ops::Range;
use std::sync::Arc;

/// Tokens of a sequence that are computed at once, at most.
pub(super) const CHUNK: usize = 512;

/// Tokens by which a sequence can be cut back, whatever its window.
const SLACK: usize = 512;

/// Rows that a cache has at first.
const FIRST_ROWS: usize = 256;

/// Rows beyond a power of two: columns of keys are that far apart, and powers of two fall on one set of a processor's caches.
const ODD_ROWS: usize = 32;

/// Marks of a sequence: of more the one of the fewest tokens stays, and the newest.
const MARKS: usize = 2;

/// What a model keeps of a token.
pub struct Kept {
    /// In the order of the outputs that update them.
    sides: Vec<Side>,
    ring: Option<Ring>,
}

/// The rings of a model.
struct Ring {
    /// The farthest that a layer sees.
    window: usize,
    /// Rows that a ring has at most.
    rows: usize,
}

/// What one input keeps of every token: keys or values of a layer, or their scales.
struct Side {
    dtype: DType,
    /// `[slots, …]`, with 0 for slots and rows.
    shape: [usize; 4],
    /// The axis of rows.
    axis: usize,
    /// Rows are a ring.
    ring: bool,
}

impl Side {
    /// Its shape in a cache.
    fn shape(&self, slots: usize, rows: usize) -> [usize; 4] {
        let mut shape = self.shape;
        (shape[0], shape[self.axis]) = (slots, rows);
        shape
    }

    /// Runs of rows of a slot.
    fn runs(&self) -> usize {
        self.shape[1..self.axis].iter().product()
    }

    /// Bytes of a row in each of them.
    fn row(&self) -> usize {
        self.shape[self.axis + 1..].iter().product::<usize>() * self.dtype.size()
    }

    /// Bytes of a slot of so many rows.
    fn slot(&self, rows: usize) -> usize {
        self.runs() * rows * self.row()
    }

    /// The bytes where some rows of each run of a slot lie, of runs of so many.
    fn places(&self, slot: usize, rows: usize, some: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (row, runs) = (self.row(), self.runs());
        let some = some.clone();
        (0..runs).map(move |run| {
            let first = (slot * runs + run) * rows;
            (first + some.start) * row..(first + some.end) * row
        })
    }
}

impl Kept {
    /// What a program for generation keeps, whose windows are this wide at most.
    ///
    /// # Errors
    /// When it keeps nothing, or something of another form.
    pub(super) fn of(meta: &Meta, window: Option<usize>) -> std::result::Result<Kept, String> {
        let mut sides = vec![];
        for output in &meta.outputs {
            let Some(name) = output.name.strip_prefix("next_") else {
                continue;
            };
            let input = meta.inputs.iter().find(|i| i.name == name);
            let input = input.ok_or_else(|| format!("it updates `{name}`, which is no input"))?;
            let (mut shape, mut rows) = ([0; 4], None);
            for (axis, dim) in input.dims.iter().enumerate() {
                match (dim, axis) {
                    (_, 4..) => return Err(format!("`{name}` has more axes than 4")),
                    (Dim::Const(n), _) => shape[axis] = *n as usize,
                    (Dim::Symbol(s), 2 | 3) => rows = Some((axis, &meta.symbols[*s as usize])),
                    (Dim::Symbol(_), _) => {}
                }
            }
            let (axis, symbol) = rows.ok_or_else(|| format!("`{name}` has no rows"))?;
            sides.push(Side {
                dtype: input.dtype,
                shape,
                axis,
                ring: symbol == "ring",
            });
        }
        if sides.is_empty() {
            return Err("it keeps no keys and values".into());
        }
        let ring = match (sides.iter().any(|s| s.ring), window) {
            (false, _) => None,
            (true, Some(window)) => Some(Ring {
                window,
                rows: (window + CHUNK + SLACK).next_multiple_of(ODD_ROWS),
            }),
            (true, None) => return Err("it keeps rings, and does not say of which window".into()),
        };
        Ok(Kept { sides, ring })
    }
}

/// Sequences that are computed one by one or together, each in a slot of its own. Those that there are fill the first slots.
pub struct Cache {
    kept: Arc<Kept>,
    /// What is kept, side by side.
    sides: Vec<Buffer>,
    slots: usize,
    /// Rows of layers that see all tokens.
    rows: usize,
    /// Rows of rings.
    ring: usize,
    /// The sequences.
    sequences: Vec<Sequence>,
    /// What an encoder says, which all sequences attend to.
    encoded: Option<Arc<Encoded>>,
}

/// What is known of a sequence.
#[derive(Clone, Default)]
struct Sequence {
    /// The tokens whose keys and values are kept.
    tokens: Vec<i64>,
    /// The first token that rings hold.
    first: usize,
    /// Lengths to which it can be cut back.
    marks: Vec<Mark>,
}

/// A length to which a sequence can be cut back, though its rings have lost that.
#[derive(Clone)]
struct Mark {
    at: usize,
    /// Rows that the next token sees, of every ring, where these no longer have them.
    rows: Option<Arc<Vec<u8>>>,
}

impl Cache {
    /// A cache of so many slots, without sequences.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn new(slots: usize, kept: Arc<Kept>) -> Result<Cache> {
        let mut cache = Cache {
            sides: vec![],
            slots,
            rows: 0,
            ring: 0,
            sequences: vec![],
            encoded: None,
            kept,
        };
        cache.reserve(FIRST_ROWS)?;
        Ok(cache)
    }

    /// The number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// True without a sequence.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// How many sequences there can be.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of keys and values, those of marks included.
    pub fn bytes(&self) -> usize {
        let marks = self.sequences.iter().flat_map(|s| &s.marks);
        let marks = marks.filter_map(|m| m.rows.as_ref()).map(|rows| rows.len());
        self.sides.iter().map(|side| side.bytes().len()).sum::<usize>() + marks.sum::<usize>()
    }

    /// The tokens of a sequence that are kept.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn tokens(&self, slot: usize) -> &[i64] {
        &self.sequences[slot].tokens
    }

    /// What all sequences attend to from now on, of a model with an encoder. Forgets their tokens, of which what is kept depends on it.
    pub fn attend_to(&mut self, encoded: Arc<Encoded>) {
        self.sequences.iter_mut().for_each(|s| *s = Sequence::default());
        self.encoded = Some(encoded);
    }

    /// What all sequences attend to.
    pub(super) fn encoded(&self) -> Option<&Arc<Encoded>> {
        self.encoded.as_ref()
    }

    /// Whether rings have what the token behind so many of a sequence sees.
    fn holds(&self, s: &Sequence, tokens: usize) -> bool {
        tokens == 0 || self.seen(tokens).start >= s.first
    }

    /// Rows of a side of each sequence.
    fn capacity(&self, side: &Side) -> usize {
        if side.ring { self.ring } else { self.rows }
    }

    /// The most of the first `n` tokens of a sequence to which it can be cut back.
    fn reach(&self, s: &Sequence, n: usize) -> usize {
        let marks = s.marks.iter().filter(|m| m.at <= n && m.rows.is_some());
        match self.holds(s, n) {
            true => n,
            false => marks.map(|m| m.at).max().unwrap_or(0),
        }
    }

    /// How many of these tokens a sequence has kept, to go on from there.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn common(&self, slot: usize, tokens: &[i64]) -> usize {
        let s = &self.sequences[slot];
        self.reach(s, shared(&s.tokens, tokens))
    }

    /// Forgets all tokens of a sequence but the first ones: as many as these, or fewer where rings have lost what the next token sees. Gives how
    /// many are left.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn truncate(&mut self, slot: usize, tokens: usize) -> usize {
        let s = &self.sequences[slot];
        let n = self.reach(s, tokens.min(s.tokens.len()));
        if !self.holds(s, n) {
            self.restore(slot, n);
        }
        let s = &mut self.sequences[slot];
        s.tokens.truncate(n);
        s.marks.retain(|m| m.at <= n);
        if n == 0 {
            s.first = 0;
        }
        n
    }

    /// Lets a sequence be cut back to so many tokens, as soon as it has them, from wherever it will be.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn mark(&mut self, slot: usize, tokens: usize) {
        let marks = &mut self.sequences[slot].marks;
        if self.kept.ring.is_none() || marks.iter().any(|m| m.at == tokens) {
            return;
        }
        if marks.len() == MARKS {
            marks.remove(1);
        }
        marks.push(Mark { at: tokens, rows: None });
        marks.sort_by_key(|m| m.at);
    }

    /// The rows of a ring where some tokens stand: one run of them, or two where they go around.
    fn around(&self, tokens: Range<usize>) -> [Range<usize>; 2] {
        let (start, n) = (tokens.start % self.ring, tokens.len());
        let before = n.min(self.ring - start);
        [start..start + before, 0..n - before]
    }

    /// The tokens that the one behind so many sees where there are rings.
    fn seen(&self, at: usize) -> Range<usize> {
        let window = self.kept.ring.as_ref().map_or(0, |r| r.window);
        (at + 1).saturating_sub(window)..at
    }

    /// Puts back what the token behind a mark sees.
    fn restore(&mut self, slot: usize, at: usize) {
        let seen = self.seen(at);
        let some = self.around(seen.clone());
        let s = &mut self.sequences[slot];
        s.first = seen.start;
        let mark = s.marks.iter().find(|m| m.at == at).and_then(|m| m.rows.clone());
        let mark = mark.expect("a mark that is cut back to has its rows");
        let mut rest = &mark[..];
        for (side, memory) in self
            .kept
            .sides
            .iter()
            .zip(&mut self.sides)
            .filter(|(side, _)| side.ring)
        {
            for place in some.iter().flat_map(|some| side.places(slot, self.ring, some)) {
                let (rows, behind) = rest.split_at(place.len());
                memory.bytes_mut()[place].copy_from_slice(rows);
                rest = behind;
            }
        }
    }

    /// Begins a sequence without tokens; gives its slot.
    ///
    /// # Panics
    /// When all slots are taken.
    pub fn begin(&mut self) -> usize {
        assert!(self.sequences.len() < self.slots, "all slots are taken");
        self.sequences.push(Sequence::default());
        self.sequences.len() - 1
    }

    /// Begins a sequence with what another one has [in common](Cache::common) with these tokens; gives its slot.
    ///
    /// # Errors
    /// When there is no memory.
    ///
    /// # Panics
    /// When all slots are taken, or the other cache is of another model.
    pub fn begin_as(&mut self, (other, at): (&Cache, usize), tokens: &[i64]) -> Result<usize> {
        assert!(Arc::ptr_eq(&self.kept, &other.kept), "a cache of another model");
        let slot = self.begin();
        let n = other.common(at, tokens);
        self.reserve(n)?;
        for (i, side) in self.kept.sides.iter().enumerate() {
            // What a ring has of tokens behind these is put back from the mark that was reached.
            let (own, theirs) = (self.capacity(side), other.capacity(side));
            let used = 0..n.min(own);
            let places = side.places(slot, own, &used).zip(side.places(at, theirs, &used));
            let (new, old) = (self.sides[i].bytes_mut(), other.sides[i].bytes());
            places.for_each(|(to, from)| new[to].copy_from_slice(&old[from]));
        }
        self.sequences[slot] = other.sequences[at].clone();
        self.truncate(slot, n);
        Ok(slot)
    }

    /// Ends a sequence. The last one takes its slot.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn end(&mut self, slot: usize) {
        let last = self.sequences.len() - 1;
        let tokens = self.sequences[last].tokens.len();
        self.sequences.swap_remove(slot);
        if slot == last {
            return;
        }
        for (i, side) in self.kept.sides.iter().enumerate() {
            let all = self.capacity(side);
            let used = 0..tokens.min(all);
            let places = side.places(last, all, &used).zip(side.places(slot, all, &used));
            let bytes = self.sides[i].bytes_mut();
            places.for_each(|(from, to)| bytes.copy_within(from, to.start));
        }
    }

    /// Makes room for so many tokens in every sequence.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<()> {
        let grown = tokens.next_power_of_two().max(FIRST_ROWS) + ODD_ROWS;
        let rings = self.kept.ring.as_ref().map_or(0, |r| r.rows);
        let rows = if tokens > self.rows { grown } else { self.rows };
        let ring = if tokens > self.ring {
            grown.min(rings)
        } else {
            self.ring
        };
        if (rows, ring) == (self.rows, self.ring) {
            return Ok(());
        }
        let mut sides = vec![];
        for (i, side) in self.kept.sides.iter().enumerate() {
            let (old, new) = match side.ring {
                true => (self.ring, ring),
                false => (self.rows, rows),
            };
            if old == new && i < self.sides.len() {
                sides.push(None);
                continue;
            }
            let mut memory = Buffer::zeroed(side.dtype, side.shape(self.slots, new).to_vec())?;
            for (slot, s) in self.sequences.iter().enumerate() {
                // Rings that grow have not been around.
                let used = 0..s.tokens.len().min(old);
                let places = side.places(slot, new, &used).zip(side.places(slot, old, &used));
                let bytes = memory.bytes_mut();
                places.for_each(|(to, from)| bytes[to].copy_from_slice(&self.sides[i].bytes()[from]));
            }
            sides.push(Some(memory));
        }
        let mut before = std::mem::take(&mut self.sides).into_iter();
        for memory in sides {
            let old = before.next();
            self.sides.push(memory.or(old).expect("every side has memory"));
        }
        (self.rows, self.ring) = (rows, ring);
        Ok(())
    }

    /// The shapes of the memory of so many slots, in the order of [`Cache::views`].
    pub(super) fn shapes(&self, slots: usize) -> Vec<[usize; 4]> {
        let sides = self.kept.sides.iter();
        sides.map(|side| side.shape(slots, self.capacity(side))).collect()
    }

    /// The memory of these slots, in the order of the outputs that update it; of the [shapes](Cache::shapes) for as many.
    pub(super) fn views<'a>(
        &'a mut self,
        slots: Range<usize>,
        shapes: &'a [[usize; 4]],
    ) -> impl Iterator<Item = ViewMut<'a>> {
        let (rows, ring) = (self.rows, self.ring);
        let sides = self.kept.sides.iter().zip(&mut self.sides).zip(shapes);
        sides.map(move |((side, memory), shape)| {
            let slot = side.slot(if side.ring { ring } else { rows });
            ViewMut {
                dtype: side.dtype,
                shape,
                bytes: &mut memory.bytes_mut()[slots.start * slot..slots.end * slot],
            }
        })
    }

    /// The position of what stands first in the rings of a sequence's next token, where there are rings.
    pub(super) fn lap(&self, slot: usize) -> Option<i64> {
        self.kept.ring.as_ref()?;
        let n = self.sequences[slot].tokens.len();
        Some((n - n % self.ring) as i64)
    }

    /// Prepares that as many tokens are written behind those of a sequence, at most [`CHUNK`]: copies what marks need and rings lose.
    pub(super) fn prepare(&mut self, slot: usize, tokens: usize) {
        if self.kept.ring.is_none() {
            return;
        }
        let s = &self.sequences[slot];
        let first = (s.tokens.len() + tokens).saturating_sub(self.ring);
        let lost = |m: &Mark| m.rows.is_none() && m.at <= s.tokens.len() && self.seen(m.at).start < first;
        let saved: Vec<(usize, Vec<u8>)> = (0..s.marks.len())
            .filter(|&i| lost(&s.marks[i]) && self.holds(s, s.marks[i].at))
            .map(|i| {
                let mut rows = vec![];
                let some = self.around(self.seen(s.marks[i].at));
                for (side, memory) in self.kept.sides.iter().zip(&self.sides).filter(|(side, _)| side.ring) {
                    for place in some.iter().flat_map(|some| side.places(slot, self.ring, some)) {
                        rows.extend_from_slice(&memory.bytes()[place]);
                    }
                }
                (i, rows)
            })
            .collect();
        for (i, rows) in saved {
            self.sequences[slot].marks[i].rows = Some(Arc::new(rows));
        }
    }

    /// Notes tokens whose keys and values were written behind those of a sequence.
    pub(super) fn extend(&mut self, slot: usize, tokens: &[i64]) {
        let s = &mut self.sequences[slot];
        s.tokens.extend_from_slice(tokens);
        if self.kept.ring.is_some() {
            s.first = s.first.max(s.tokens.len().saturating_sub(self.ring));
        }
    }
}

/// How many tokens two sequences begin with together.
pub fn shared(a: &[i64], b: &[i64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
