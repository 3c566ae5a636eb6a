//! What a model keeps of sequences: their tokens, and the keys and values of each.

use super::encoder::Encoded;
use crate::Result;
use brolga_runtime::{Buffer, DType, ViewMut};
use std::ops::Range;
use std::sync::Arc;

/// Rows that a cache has at first.
const FIRST_ROWS: usize = 256;

/// Sequences that are computed one by one or together, each in a slot of its own. Those that there are fill the first slots.
pub struct Cache {
    /// Keys, then values, of each layer: `[slots, heads, rows, size]`.
    sides: Vec<Buffer>,
    slots: usize,
    heads: usize,
    rows: usize,
    /// Bytes of a row.
    row: usize,
    /// The extent of a row.
    size: usize,
    /// The tokens of each sequence whose keys and values are kept.
    sequences: Vec<Vec<i64>>,
    /// What an encoder says, which all sequences attend to.
    encoded: Option<Arc<Encoded>>,
}

impl Cache {
    /// A cache of so many slots, without sequences, for a model of so many layers, heads and elements of a head.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn new(slots: usize, layers: usize, [heads, size]: [usize; 2]) -> Result<Cache> {
        let mut cache = Cache {
            sides: vec![],
            slots,
            heads,
            rows: 0,
            row: size * DType::F32.size(),
            size,
            sequences: vec![],
            encoded: None,
        };
        for _ in 0..2 * layers {
            cache
                .sides
                .push(Buffer::zeroed(DType::F32, vec![slots, heads, 0, size])?);
        }
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

    /// The tokens of a sequence that are kept.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn tokens(&self, slot: usize) -> &[i64] {
        &self.sequences[slot]
    }

    /// What all sequences attend to from now on, of a model with an encoder. Forgets their tokens, of which what is kept depends on it.
    pub fn attend_to(&mut self, encoded: Arc<Encoded>) {
        self.sequences.iter_mut().for_each(Vec::clear);
        self.encoded = Some(encoded);
    }

    /// What all sequences attend to.
    pub(super) fn encoded(&self) -> Option<&Arc<Encoded>> {
        self.encoded.as_ref()
    }

    /// Forgets all tokens of a sequence but the first ones.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn truncate(&mut self, slot: usize, tokens: usize) {
        self.sequences[slot].truncate(tokens);
    }

    /// Begins a sequence without tokens; gives its slot.
    ///
    /// # Panics
    /// When all slots are taken.
    pub fn begin(&mut self) -> usize {
        assert!(self.sequences.len() < self.slots, "all slots are taken");
        self.sequences.push(vec![]);
        self.sequences.len() - 1
    }

    /// Begins a sequence with what another one has of the beginning of these tokens; gives its slot.
    ///
    /// # Errors
    /// When there is no memory.
    ///
    /// # Panics
    /// When all slots are taken, or the other cache is of another model.
    pub fn begin_as(&mut self, (other, at): (&Cache, usize), tokens: &[i64]) -> Result<usize> {
        assert!(
            other.sides.len() == self.sides.len() && other.row == self.row,
            "a cache of another model"
        );
        let slot = self.begin();
        let n = shared(other.tokens(at), tokens);
        self.reserve(n)?;
        let used = n * self.row;
        for (new, old) in self.sides.iter_mut().zip(&other.sides) {
            let news = new
                .bytes_mut()
                .chunks_exact_mut(self.rows * self.row)
                .skip(slot * self.heads);
            let olds = old.bytes().chunks_exact(other.rows * other.row).skip(at * self.heads);
            let heads = news.zip(olds).take(self.heads);
            heads.for_each(|(new, old)| new[..used].copy_from_slice(&old[..used]));
        }
        self.sequences[slot] = tokens[..n].to_vec();
        Ok(slot)
    }

    /// Ends a sequence. The last one takes its slot.
    ///
    /// # Panics
    /// When there is no such sequence.
    pub fn end(&mut self, slot: usize) {
        let last = self.sequences.len() - 1;
        let used = self.sequences[last].len() * self.row;
        self.sequences.swap_remove(slot);
        if slot == last {
            return;
        }
        let part = self.rows * self.row;
        for side in &mut self.sides {
            let bytes = side.bytes_mut();
            for head in 0..self.heads {
                let at = |slot: usize| (slot * self.heads + head) * part;
                bytes.copy_within(at(last)..at(last) + used, at(slot));
            }
        }
    }

    /// Makes room for so many tokens in every sequence.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<()> {
        if tokens <= self.rows {
            return Ok(());
        }
        let rows = tokens.next_power_of_two().max(FIRST_ROWS);
        let mut grown = vec![];
        for old in &self.sides {
            let mut new = Buffer::zeroed(DType::F32, vec![self.slots, self.heads, rows, self.size])?;
            if self.rows > 0 {
                let news = new.bytes_mut().chunks_exact_mut(rows * self.row);
                let olds = old.bytes().chunks_exact(self.rows * self.row);
                for (i, (new, old)) in news.zip(olds).enumerate() {
                    let used = self.sequences.get(i / self.heads).map_or(0, |s| s.len() * self.row);
                    new[..used].copy_from_slice(&old[..used]);
                }
            }
            grown.push(new);
        }
        (self.sides, self.rows) = (grown, rows);
        Ok(())
    }

    /// The shape of the memory of so many slots.
    pub(super) fn shape(&self, slots: usize) -> [usize; 4] {
        [slots, self.heads, self.rows, self.size]
    }

    /// The memory of these slots, each layer's keys and then its values; of the shape that [`Cache::shape`] gives for them.
    pub(super) fn views<'a>(
        &'a mut self,
        slots: Range<usize>,
        shape: &'a [usize; 4],
    ) -> impl Iterator<Item = ViewMut<'a>> {
        let slot = self.heads * self.rows * self.row;
        self.sides.iter_mut().map(move |side| ViewMut {
            dtype: DType::F32,
            shape,
            bytes: &mut side.bytes_mut()[slots.start * slot..slots.end * slot],
        })
    }

    /// Notes tokens whose keys and values were written behind those of a sequence.
    pub(super) fn extend(&mut self, slot: usize, tokens: &[i64]) {
        self.sequences[slot].extend_from_slice(tokens);
    }
}

/// How many tokens two sequences begin with together.
pub fn shared(a: &[i64], b: &[i64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
