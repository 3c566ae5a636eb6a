//! The artefact: one `.brolga` file with a program's code, metadata and packed weights, ready to be memory-mapped.
//!
//! ```text
//! byte 0     magic 89 'B' 'R' 'O' 'L' 'G' 'A' 0a
//!      8     u32 format version, u32 number of sections
//!     16     u64 length of the file, u64 offset of the section table
//!     32     u64 checksum of the section table, u64 checksum of bytes 0..40
//!     48     sections, each at a multiple of its alignment, zeros between them
//!            section table: for each section
//!                u32 kind, u32 alignment, u64 offset, u64 length, u64 checksum
//! ```
//!
//! Everything is little endian. [`Artefact::parse`] verifies the checksums of META, CODE and TEXT sections. That of WEIGHTS
//! is the checksum of the checksums of their blocks of 1 MiB, so that threads can share it: whoever loads a program passes
//! [`Artefact::check_weights`] what they found. CODE and WEIGHTS start at multiples of 4096, so that CODE can be mapped
//! readable and executable by itself.
//!
//! Invariants: [`Artefact::parse`] never panics and never reads outside its bytes, whatever they are, and what it
//! returns has only ranges that lie inside them. The same parts written twice give the same bytes.
//!
//! Decision (2026-11-26): weights are checked when an artefact is loaded, where before they were left to lazy mapping: three
//! changed bytes gave wrong numbers without a word. It costs one reading of the file, which the first run then finds in
//! memory: 6 GB/s a core from memory (24 from cache, so memory is the limit), shared by all cores; a chain of one state gave
//! 4.3. xxh3 from a crate would not be faster than memory either, and this crate depends on nothing.
//!
//! Decision (2026-11-23): the table stands at the end, as in ELF's section headers and ZIP's directory, so that weights can
//! be streamed without knowing their packed size; with a table in front they would have to be produced twice.

use std::ops::Range;

use crate::meta::Meta;
use crate::wire::{Decoder, Wire};

mod file;
mod write;

pub use crate::wire::{FORMAT_VERSION, FormatError};
pub use file::OutputFile;
pub use write::Writer;

/// The first bytes of every artefact. The high bit and the line feed catch transfers as text, as in PNG.
pub const MAGIC: [u8; 8] = *b"\x89BROLGA\n";

/// Alignment of CODE and WEIGHTS in the file.
pub const PAGE: u32 = 4096;

/// Bytes of weights that have a checksum of their own.
pub const BLOCK: usize = 1 << 20;

const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 32;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// [`Meta`].
    Meta = 1,
    /// A flat, position-independent image of machine code and its constants.
    Code = 2,
    /// Packed weights.
    Weights = 3,
    /// A named text: PTX of a GPU kernel, a level of the IR for debugging.
    Text = 4,
}

impl SectionKind {
    fn from_code(code: u32) -> Option<SectionKind> {
        [Self::Meta, Self::Code, Self::Weights, Self::Text]
            .into_iter()
            .find(|&kind| kind as u32 == code)
    }
}

/// One row of the section table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    kind: SectionKind,
    align: u32,
    offset: u64,
    length: u64,
    checksum: u64,
}

impl Section {
    fn put(&self, out: &mut Vec<u8>) {
        (self.kind as u32).put(out);
        self.align.put(out);
        self.offset.put(out);
        self.length.put(out);
        self.checksum.put(out);
    }
}

/// A text carried by an artefact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// What it is: `ptx`, `loops`, `clif`.
    pub kind: String,
    /// Which one: a kernel's name.
    pub name: String,
    /// The text itself.
    pub body: &'a str,
}

/// A checked view of an artefact's bytes.
#[derive(Clone, Debug)]
pub struct Artefact<'a> {
    meta: Meta,
    code: Range<usize>,
    weights: Range<usize>,
    weights_checksum: u64,
    texts: Vec<Text<'a>>,
}

impl<'a> Artefact<'a> {
    /// Checks everything but the weights' contents, which [`Artefact::check_weights`] does. `bytes` is the whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let sections = read_table(bytes)?;
        let mut found: [Option<Range<usize>>; 3] = [None, None, None];
        let mut texts = Vec::new();
        let mut weights_checksum = checksum(&[]);
        for (index, section) in sections.iter().enumerate() {
            let range = check_section(index, section, bytes)?;
            if section.kind == SectionKind::Text {
                texts.push(read_text(&bytes[range])?);
                continue;
            }
            if section.kind == SectionKind::Weights {
                weights_checksum = section.checksum;
            }
            let slot = &mut found[section.kind as usize - 1];
            if slot.replace(range).is_some() {
                return Err(FormatError::Malformed(format!(
                    "two sections of kind {:?}",
                    section.kind
                )));
            }
        }
        let [meta, code, weights] = found;
        let meta = meta.ok_or_else(|| FormatError::Malformed("no META section".to_owned()))?;
        let code = code.ok_or_else(|| FormatError::Malformed("no CODE section".to_owned()))?;
        let weights = weights.unwrap_or(0..0);

        let mut decoder = Decoder::new("META", &bytes[meta]);
        let meta = Meta::get(&mut decoder)?;
        if !decoder.rest().is_empty() {
            return Err(decoder.error(format!("{} bytes too many", decoder.rest().len())));
        }
        check_meta(&meta, code.len() as u64, weights.len() as u64)?;
        Ok(Artefact {
            meta,
            code,
            weights,
            weights_checksum,
            texts,
        })
    }

    /// Checks the weights' contents by the checksums of their blocks: each [`BLOCK`] bytes, the last may be shorter.
    pub fn check_weights(&self, blocks: impl Iterator<Item = u64>) -> Result<(), FormatError> {
        if checksum_of_blocks(blocks) == self.weights_checksum {
            return Ok(());
        }
        Err(FormatError::Checksum {
            part: "the weights".to_owned(),
        })
    }

    /// What the program says of itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The metadata, by value.
    pub fn into_meta(self) -> Meta {
        self.meta
    }

    /// Where the code lies in the file; starts at a multiple of 4096.
    pub fn code(&self) -> Range<usize> {
        self.code.clone()
    }

    /// Where the weights lie in the file; starts at a multiple of 4096, empty when there are none.
    pub fn weights(&self) -> Range<usize> {
        self.weights.clone()
    }

    /// The texts, in the order they were written.
    pub fn texts(&self) -> &[Text<'a>] {
        &self.texts
    }
}

/// A checksum that finds every change within one aligned group of 8 bytes, and others with probability 1 - 2^-64: each
/// step is a bijection of the state (after FNV-1a, eight bytes at a time). It guards against damage, not against malice.
///
/// Eight states take turns, because one would wait for its own product: 64 bytes are summed in the time of eight.
pub fn checksum(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME).rotate_left(29);
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (groups, rest) = bytes.as_chunks::<64>();
    let mut lanes = [OFFSET; 8];
    for group in groups {
        for (lane, bytes) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
            *lane = step(*lane, word(bytes));
        }
    }
    let (words, tail) = rest.as_chunks::<8>();
    let hash = lanes.into_iter().chain(words.iter().map(word)).fold(OFFSET, step);
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    // The length tells a tail of zeros from no tail.
    step(step(hash, word(&last)), bytes.len() as u64)
}

/// The checksum of weights, from those of their blocks.
fn checksum_of_blocks(blocks: impl Iterator<Item = u64>) -> u64 {
    let sums: Vec<u8> = blocks.flat_map(u64::to_le_bytes).collect();
    checksum(&sums)
}

fn read_table(bytes: &[u8]) -> Result<Vec<Section>, FormatError> {
    if bytes.len() < MAGIC.len() || bytes[..MAGIC.len()] != MAGIC {
        return Err(FormatError::Magic);
    }
    let mut header = Decoder::new("header", bytes);
    let _magic: [u8; 8] = header.array()?;
    let version = u32::get(&mut header)?;
    if version != FORMAT_VERSION {
        return Err(FormatError::Version { found: version });
    }
    let count = u32::get(&mut header)?;
    let file_bytes = u64::get(&mut header)?;
    let table_offset = u64::get(&mut header)?;
    let table_checksum = u64::get(&mut header)?;
    let header_checksum = u64::get(&mut header)?;
    if checksum(&bytes[..HEADER_BYTES - 8]) != header_checksum {
        return Err(FormatError::Checksum {
            part: "the header".to_owned(),
        });
    }
    if file_bytes != bytes.len() as u64 {
        return Err(FormatError::Length {
            found: bytes.len() as u64,
            expected: file_bytes,
        });
    }
    let table_bytes = u64::from(count) * ENTRY_BYTES as u64;
    let table = range_within(table_offset, table_bytes, bytes.len())
        .ok_or_else(|| FormatError::Malformed(format!("{count} sections do not fit at byte {table_offset}")))?;
    let table = &bytes[table];
    if checksum(table) != table_checksum {
        return Err(FormatError::Checksum {
            part: "the section table".to_owned(),
        });
    }
    let mut rows = Decoder::new("section table", table);
    let mut sections = Vec::new();
    for _ in 0..count {
        let code = u32::get(&mut rows)?;
        let kind = SectionKind::from_code(code).ok_or_else(|| {
            rows.error(format!(
                "{code} is not the kind of a section of format {FORMAT_VERSION}"
            ))
        })?;
        sections.push(Section {
            kind,
            align: u32::get(&mut rows)?,
            offset: u64::get(&mut rows)?,
            length: u64::get(&mut rows)?,
            checksum: u64::get(&mut rows)?,
        });
    }
    Ok(sections)
}

fn check_section(index: usize, section: &Section, bytes: &[u8]) -> Result<Range<usize>, FormatError> {
    let Section {
        kind,
        align,
        offset,
        length,
        checksum: expected,
    } = *section;
    let malformed = |what: String| FormatError::Malformed(format!("section {index} ({kind:?}) {what}"));
    let least = if matches!(kind, SectionKind::Code | SectionKind::Weights) {
        PAGE
    } else {
        1
    };
    if !align.is_power_of_two() || align < least {
        return Err(malformed(format!(
            "has alignment {align}; a power of two from {least} was expected"
        )));
    }
    if !offset.is_multiple_of(u64::from(align)) {
        return Err(malformed(format!(
            "starts at byte {offset}, not a multiple of its alignment {align}"
        )));
    }
    let range = range_within(offset, length, bytes.len())
        .ok_or_else(|| malformed(format!("is {length} bytes at {offset} in a file of {}", bytes.len())))?;
    if kind != SectionKind::Weights && checksum(&bytes[range.clone()]) != expected {
        return Err(FormatError::Checksum {
            part: format!("section {index} ({kind:?})"),
        });
    }
    Ok(range)
}

fn read_text(bytes: &[u8]) -> Result<Text<'_>, FormatError> {
    let mut decoder = Decoder::new("TEXT", bytes);
    let kind = String::get(&mut decoder)?;
    let name = String::get(&mut decoder)?;
    let body = std::str::from_utf8(decoder.rest()).map_err(|error| decoder.error(format!("not UTF-8: {error}")))?;
    Ok(Text { kind, name, body })
}

fn check_meta(meta: &Meta, code_bytes: u64, weights_bytes: u64) -> Result<(), FormatError> {
    meta.validate().map_err(FormatError::Malformed)?;
    let Meta { entries, kernels, .. } = meta;
    let functions = [("run", entries.run), ("plan", entries.plan), ("shapes", entries.shapes)];
    let kernels = kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.offset));
    for (name, offset) in functions.into_iter().chain(kernels) {
        if offset >= code_bytes {
            let message = format!("`{name}` starts at byte {offset} of {code_bytes} bytes of code");
            return Err(FormatError::Malformed(message));
        }
    }
    if meta.weights_bytes != weights_bytes {
        let message = format!("{weights_bytes} bytes of weights, {} are announced", meta.weights_bytes);
        return Err(FormatError::Malformed(message));
    }
    Ok(())
}

/// `offset..offset + length`, if it ends within `limit`.
fn range_within(offset: u64, length: u64, limit: usize) -> Option<Range<usize>> {
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    let start = usize::try_from(offset).ok()?;
    (end <= limit).then_some(start..end)
}

#[cfg(test)]
mod tests;
