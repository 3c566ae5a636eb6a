//! Files as sources of bytes: mapped, or in memory under a name.

use brolga_ir::Source;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

struct Mapped {
    map: Mmap,
    name: String,
}

impl Source for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }
    fn name(&self) -> &str {
        &self.name
    }
}

struct Owned {
    bytes: Vec<u8>,
    name: String,
}

impl Source for Owned {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Maps a file, which is called `name`.
///
/// # Errors
/// When it cannot be opened or mapped, or is no regular file.
pub fn map_as(path: &Path, name: &str) -> io::Result<Arc<dyn Source>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    if meta.len() == 0 {
        // An empty range cannot be mapped.
        return Ok(bytes(vec![], name));
    }
    // SAFETY: the mapping is private and read-only. As for every mapped file, another process that truncates it while
    // it is in use faults this one; nothing relies on the bytes staying the same after a check, except for their
    // number.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Arc::new(Mapped {
        map,
        name: name.to_owned(),
    }))
}

/// Maps a file under its path.
///
/// # Errors
/// See [`map_as`].
pub fn map(path: &Path) -> io::Result<Arc<dyn Source>> {
    map_as(path, &path.display().to_string())
}

/// Bytes in memory as a source.
pub fn bytes(bytes: Vec<u8>, name: &str) -> Arc<dyn Source> {
    Arc::new(Owned {
        bytes,
        name: name.to_owned(),
    })
}
