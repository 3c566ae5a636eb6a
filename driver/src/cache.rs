//! The compile cache: a folder of artefacts, each named by what it was made of.
//!
//! A key is a hash of the model's file (of a folder, its `config.json`), of the files that its weights lie in, of the options with the files that a pipeline names, and of the compiler's
//! own content. Invariant: an artefact that does not carry its own key, or cannot be opened, counts as absent; it is made
//! again and replaced.

use crate::options::Options;
use crate::{Error, Result, identity, levels};
use brolga_abi::artefact::checksum;
use brolga_ir::Graph;
use memmap2::Mmap;
use rustc_hash::FxHasher;
use std::fs::File;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// The key of a model and options.
///
/// # Errors
/// When the model's file, or one that a pipeline names, cannot be read.
pub fn key(path: &Path, graph: &Graph, options: &Options) -> Result<[u64; 2]> {
    let mut parts = vec![checksum(options.describe()?.as_bytes()), identity::compiler()];
    let mut sums = FxHasher::default();
    let mut add = |bytes: &[u8]| {
        parts.push(checksum(bytes));
        sums.write(bytes);
    };
    let described = match path.is_dir() {
        true => path.join(brolga_frontend::safetensors::CONFIG),
        false => path.to_owned(),
    };
    let path = described.as_path();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the mapping is private and read-only, and nothing relies on the bytes staying the same: a model that changes
    // while it is hashed is compiled from what it was when it was read, under a key that fits neither.
    let model = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    add(graph.name.as_bytes());
    add(&model);
    for source in levels::sources(graph) {
        if source.name() != path.display().to_string() {
            add(source.bytes());
        }
    }
    let parts: Vec<u8> = parts.iter().flat_map(|p| p.to_le_bytes()).collect();
    Ok([checksum(&parts), sums.finish()])
}

/// The folder of what Brolga remembers for a user: `brolga` in `XDG_CACHE_HOME`, else in `.cache` in the home folder. `None` where neither
/// is an absolute path.
pub fn folder() -> Option<PathBuf> {
    of_user("XDG_CACHE_HOME", ".cache")
}

/// A folder of the user's: `brolga` in what a variable names, else in a folder of the home folder. `None` where neither is an absolute path.
pub fn of_user(variable: &str, at_home: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set(variable).or_else(|| Some(set("HOME")?.join(at_home)));
    folder.filter(|c| c.is_absolute()).map(|c| c.join("brolga"))
}

/// The file of a key.
pub fn file(folder: &Path, key: [u64; 2]) -> PathBuf {
    folder.join(format!("{:016x}{:016x}.brolga", key[0], key[1]))
}
