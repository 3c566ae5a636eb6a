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
//! Everything is little endian. There are as many META as CODE sections, one of each for a program; all programs read the same
//! WEIGHTS. [`Artefact::parse`] verifies the checksums of all sections but WEIGHTS, whose blocks of 1 MiB have theirs in the SUMS
//! section ([`Sums`]), so that threads can share them, and some can be checked before others. The section table has the checksum of
//! SUMS for WEIGHTS, too. CODE and WEIGHTS start at multiples of 4096, so that CODE can be mapped readable and executable by itself.
//!
//! Invariants: [`Artefact::parse`] never panics and never reads outside its bytes, whatever they are, and what it
//! returns has only ranges that lie inside them. The same parts written twice give the same bytes.
//!
//! Decision (2026-11-26): weights are checked when an artefact is loaded, where before they were left to lazy mapping: three
//! changed bytes gave wrong numbers without a word. It costs one reading of the file, which the first run then finds in
//! memory: 7 GB/s a core from memory, 13 where lines are fetched 8 KiB before they are summed (24 from cache, so memory is the limit),
//! shared by all cores; a chain of one state gave 4.3. xxh3 from a crate would not be faster than memory either, and this crate
//! depends on nothing.
//!
//! Decision (2026-11-23): the table stands at the end, as in ELF's section headers and ZIP's directory, so that weights can
//! be streamed without knowing their packed size; with a table in front they would have to be produced twice.

use std::ops::Range;

use crate::meta::Meta;
use crate::wire::{Decoder, Wire};

mod file;
mod sums;
mod write;

pub use crate::wire::{FORMAT_VERSION, FormatError};
pub use file::OutputFile;
pub use sums::{BLOCK, Sums, checksum};
pub use write::Writer;

/// The first bytes of every artefact. The high bit and the line feed catch transfers as text, as in PNG.
pub const MAGIC: [u8; 8] = *b"\x89BROLGA\n";

/// Alignment of CODE and WEIGHTS in the file.
pub const PAGE: u32 = 4096;

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
    /// [`Sums`].
    Sums = 5,
}

impl SectionKind {
    fn from_code(code: u32) -> Option<SectionKind> {
        [Self::Meta, Self::Code, Self::Weights, Self::Text, Self::Sums]
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

/// One program of an artefact.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it says of itself.
    pub meta: Meta,
    /// Where its code lies in the file; starts at a multiple of 4096.
    pub code: Range<usize>,
}

/// A checked view of an artefact's bytes.
#[derive(Clone, Debug)]
pub struct Artefact<'a> {
    /// At least one.
    programs: Vec<Part>,
    weights: Range<usize>,
    sums: Sums,
    texts: Vec<Text<'a>>,
}

impl<'a> Artefact<'a> {
    /// Checks everything but the weights' contents, which [`Artefact::check_weights`] does. `bytes` is the whole file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let malformed = |what: &str| FormatError::Malformed(what.to_owned());
        let (mut metas, mut codes, mut texts) = (vec![], vec![], vec![]);
        let (mut weights, mut sums) = (None, None);
        for (index, section) in read_table(bytes)?.iter().enumerate() {
            let range = check_section(index, section, bytes)?;
            match section.kind {
                SectionKind::Meta => metas.push(read_meta(&bytes[range])?),
                SectionKind::Code => codes.push(range),
                SectionKind::Text => texts.push(read_text(&bytes[range])?),
                SectionKind::Weights if weights.is_none() => weights = Some((range, section.checksum)),
                SectionKind::Sums if sums.is_none() => sums = Some((&bytes[range], section.checksum)),
                kind => return Err(malformed(&format!("two sections of kind {kind:?}"))),
            }
        }
        if metas.is_empty() || codes.is_empty() {
            let kind = if metas.is_empty() { "META" } else { "CODE" };
            return Err(malformed(&format!("no {kind} section")));
        }
        if metas.len() != codes.len() {
            return Err(malformed(&format!(
                "{} META and {} CODE sections",
                metas.len(),
                codes.len()
            )));
        }
        let (weights, of_sums) = weights.unwrap_or((0..0, checksum(&[])));
        let (sums, own) = sums.unwrap_or((&[], checksum(&[])));
        let sums = (own == of_sums).then(|| Sums::read(sums, weights.len())).flatten();
        let sums = sums.ok_or_else(|| malformed("the SUMS section is not that of the weights"))?;
        let parts = metas.into_iter().zip(codes).map(|(meta, code)| Part { meta, code });
        let programs: Vec<Part> = parts.collect();
        for p in &programs {
            check_meta(&p.meta, p.code.len() as u64, weights.len() as u64)?;
        }
        Ok(Artefact {
            programs,
            weights,
            sums,
            texts,
        })
    }

    /// Checks the weights' contents; `bytes` is the whole file.
    pub fn check_weights(&self, bytes: &[u8]) -> Result<(), FormatError> {
        self.sums.check(&bytes[self.weights()])
    }

    /// The checksums of the weights.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// What the first program says of itself.
    pub fn meta(&self) -> &Meta {
        &self.programs[0].meta
    }

    /// The programs, in the order they were written.
    pub fn programs(&self) -> &[Part] {
        &self.programs
    }

    /// The same, by value.
    pub fn into_programs(self) -> Vec<Part> {
        self.programs
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

fn read_meta(bytes: &[u8]) -> Result<Meta, FormatError> {
    let mut decoder = Decoder::new("META", bytes);
    let meta = Meta::get(&mut decoder)?;
    match decoder.rest().len() {
        0 => Ok(meta),
        n => Err(decoder.error(format!("{n} bytes too many"))),
    }
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
