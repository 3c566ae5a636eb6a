//! Writing an artefact: sections are streamed, the table follows them, the header is filled in last.
//!
//! Invariant: until everything is on disk, nothing stands under the file's own name ([`AtomicFile`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FORMAT_VERSION, HEADER_BYTES, MAGIC, PAGE, Section, SectionKind, checksum};
use crate::meta::Meta;
use crate::wire::Wire;

/// Writes one artefact. Call [`Writer::meta`] and [`Writer::code`] once each, the others as often as needed (weights at
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
        let mut counted = Counted {
            out: &mut self.out,
            count: 0,
        };
        produce(&mut counted)?;
        let length = counted.count;
        self.at += length;
        self.sections.push(Section {
            kind: SectionKind::Weights,
            align: PAGE,
            offset,
            length,
            checksum: 0,
        });
        Ok(())
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

impl Writer<AtomicFile> {
    /// Starts an artefact that will stand at `path` after [`Writer::commit`], and nowhere before.
    pub fn create(path: &Path) -> io::Result<Self> {
        Writer::new(AtomicFile::create(path)?)
    }

    /// [`Writer::finish`], then puts the file in its place.
    pub fn commit(self) -> io::Result<()> {
        self.finish()?.commit()
    }
}

struct Counted<'a, W> {
    out: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that appears under its name complete or not at all: written beside its place, then renamed; removed when
/// dropped before [`AtomicFile::commit`]. A program that has the old file mapped keeps the old contents.
pub struct AtomicFile {
    file: Option<BufWriter<File>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will stand at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Two processes differ in their id, two threads of one process in the count.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{}` names no file", path.display()),
            ));
        };
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(format!(
            ".{}-{}.tmp",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let temporary = path.with_file_name(temporary_name);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(AtomicFile {
            file: Some(BufWriter::new(file)),
            temporary,
            path: path.to_owned(),
        })
    }

    /// Puts the file in its place, replacing what stood there.
    pub fn commit(mut self) -> io::Result<()> {
        self.writer()?.flush()?;
        // Closed before it is renamed: Windows refuses to rename an open file.
        self.file = None;
        fs::rename(&self.temporary, &self.path).inspect_err(|_| {
            // The rename's own error is the one worth telling.
            let _ = fs::remove_file(&self.temporary);
        })
    }

    fn writer(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("the file is already in its place"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer()?.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer()?.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.writer()?.seek(position)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Without `into_parts` the buffer would be written out once more.
            let (file, _) = file.into_parts();
            drop(file);
            // Nothing can be told from a destructor; at worst a hidden temporary file stays.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
