//! A hash of the sources that decide what is compiled.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The files and folders of the packages that decide what is compiled, beside the package `driver`.
pub fn roots(driver: &Path) -> Vec<PathBuf> {
    let beside = driver.parent().unwrap_or(Path::new(".."));
    let mut roots = vec![];
    for package in ["abi", "ir", "frontend", "passes", "codegen", "runtime", "driver"] {
        // Vendored, a folder has the package's name. What is at neither place came from a registry: its version is its
        // content, and cargo tells rustc of it.
        let places = [beside.join(package), beside.join(format!("brolga-{package}"))];
        let folder = places.into_iter().find(|p| p.join("Cargo.toml").is_file());
        let parts = folder
            .iter()
            .flat_map(|f| ["Cargo.toml", "src", "rules"].map(|part| f.join(part)));
        roots.extend(parts.filter(|p| p.exists()));
    }
    roots
}

/// A hash of the contents of files, and of the names below `roots`; where the roots lie does not matter.
///
/// # Errors
/// When one cannot be read.
pub fn sum(roots: &[PathBuf]) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for root in roots {
        let mut files = BTreeMap::new();
        collect(root, String::new(), &mut files)?;
        files.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The contents of a file, or of the files in a folder, by their names below it.
fn collect(path: &Path, name: String, into: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    if !path.is_dir() {
        into.insert(name, fs::read(path)?);
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let below = format!("{name}/{}", entry.file_name().to_string_lossy());
        collect(&entry.path(), below, into)?;
    }
    Ok(())
}
