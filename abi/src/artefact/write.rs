//! Writing an artefact: sections are streamed, the table follows them, the header is filled in last.
//!
//! Invariant: until everything is on disk, nothing stands under the file's own name ([`OutputFile`]).

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::{BLOCK, FORMAT_VERSION, HEADER_BYTES, MAGIC, OutputFile, PAGE, Section, SectionKind, Sums, checksum};
use crate::meta::Meta;
use crate::wire::Wire;

/// Writes one artefact. Call [`Writer::meta`] and [`Writer::code`] once for each program, the others as often as needed (weights at
/// most once), in any order, then [`Writer::finish`].
///
/// ```
/// # use brolga_abi::{Meta, artefact::{Artefact, Writer}};
/// let meta = Meta { name: "tiny".into(), weights_bytes: 4, ..Meta::default() };
/// let mut writer = Writer::new(std::io::Cursor::new(Vec::new()))?;
/// writer.meta(&meta)?;
/// writer.code(&[0xc3])?;
/// writer.weights(|out| out.write_all(&[1, 2, 3, 4]))?;
/// let bytes = writer.finish()?.into_inner();
/// assert_eq!(Artefact::parse(&bytes)?.meta(), &meta);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer<W: Write + Seek> {
    out: W,
    at: u64,
    sections: Vec<Section>,
}

impl<W: Write + Seek> Writer<W> {
    /// Starts at the current position of `out`, which must be its beginning.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&[0; HEADER_BYTES])?;
        Ok(Writer {
            out,
            at: HEADER_BYTES as u64,
            sections: Vec::new(),
        })
    }

    /// Writes the metadata. Its entry points and its size of the weights must fit the other sections.
    pub fn meta(&mut self, meta: &Meta) -> io::Result<()> {
        meta.validate()
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let mut bytes = Vec::new();
        meta.put(&mut bytes);
        self.section(SectionKind::Meta, 8, &bytes)
    }

    /// Writes the image of machine code.
    pub fn code(&mut self, image: &[u8]) -> io::Result<()> {
        self.section(SectionKind::Code, PAGE, image)
    }

    /// Writes a named text.
    pub fn text(&mut self, kind: &str, name: &str, body: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        kind.to_owned().put(&mut bytes);
        name.to_owned().put(&mut bytes);
        bytes.extend_from_slice(body.as_bytes());
        self.section(SectionKind::Text, 8, &bytes)
    }

    /// Streams the weights: `produce` writes them to the writer that it is given.
    pub fn weights(&mut self, produce: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.pad(PAGE)?;
        let offset = self.at;
        let mut summed = Summed {
            out: &mut self.out,
            length: 0,
            open: Vec::new(),
            sums: Sums::default(),
        };
        produce(&mut summed)?;
        let (length, sums) = summed.finish();
        let sums = sums.bytes();
        self.at += length;
        self.sections.push(Section {
            kind: SectionKind::Weights,
            align: PAGE,
            offset,
            length,
            checksum: checksum(&sums),
        });
        self.section(SectionKind::Sums, 8, &sums)
    }

    /// Writes the table and the header, and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.pad(8)?;
        let mut table = Vec::new();
        for section in &self.sections {
            section.put(&mut table);
        }
        self.out.write_all(&table)?;

        let mut header = MAGIC.to_vec();
        FORMAT_VERSION.put(&mut header);
        u32::try_from(self.sections.len())
            .map_err(io::Error::other)?
            .put(&mut header);
        (self.at + table.len() as u64).put(&mut header);
        self.at.put(&mut header);
        checksum(&table).put(&mut header);
        checksum(&header).put(&mut header);
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn section(&mut self, kind: SectionKind, align: u32, bytes: &[u8]) -> io::Result<()> {
        self.pad(align)?;
        let (offset, length) = (self.at, bytes.len() as u64);
        self.out.write_all(bytes)?;
        self.at += length;
        self.sections.push(Section {
            kind,
            align,
            offset,
            length,
            checksum: checksum(bytes),
        });
        Ok(())
    }

    fn pad(&mut self, align: u32) -> io::Result<()> {
        let to = self.at.next_multiple_of(u64::from(align));
        io::copy(&mut io::Read::take(io::repeat(0), to - self.at), &mut self.out)?;
        self.at = to;
        Ok(())
    }
}

impl Writer<OutputFile> {
    /// Starts an artefact that will stand at `path` after [`Writer::commit`], and nowhere before.
    pub fn create(path: &Path) -> io::Result<Self> {
        Writer::new(OutputFile::create(path)?)
    }

    /// [`Writer::finish`], then puts the file in its place; gives its bytes.
    pub fn commit(self) -> io::Result<u64> {
        self.finish()?.commit()
    }
}

/// Sums what passes through, block by block.
struct Summed<'a, W> {
    out: &'a mut W,
    length: u64,
    /// The block that is not full yet.
    open: Vec<u8>,
    sums: Sums,
}

impl<W> Summed<'_, W> {
    fn add(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.open.len()));
            bytes = rest;
            if part.len() == BLOCK {
                self.sums.push(part);
                continue;
            }
            self.open.extend_from_slice(part);
            if self.open.len() == BLOCK {
                self.sums.push(&self.open);
                self.open.clear();
            }
        }
    }

    /// The length and the checksums of all.
    fn finish(mut self) -> (u64, Sums) {
        if !self.open.is_empty() {
            self.sums.push(&self.open);
        }
        (self.length, self.sums)
    }
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.add(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
