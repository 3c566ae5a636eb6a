//! Names of kernels for `perf`: a map file of the code that was made in this process.
//!
//! Linux' `perf report` looks for `/tmp/perf-PID.map` where a sample lies in memory of no file, and reads a line for each function: its
//! address and size in hexadecimal, its name (`tools/perf/Documentation/jit-interface.txt` in the kernel's sources). Code of sessions is
//! added to it where [`Options::perf_map`](crate::Options::perf_map) or the variable [`VARIABLE`] asks for it. Lines of code that was
//! freed stay; `perf` takes the last one that fits.

use crate::{Error, Result};
use brolga_codegen::jit::Placed;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

/// The variable of the environment that asks for a map; anything but nothing and `0` does.
pub const VARIABLE: &str = "BROLGA_PERF_MAP";

/// With this variable, which `perf` sets, Cranelift writes the same lines itself.
const CRANELIFT: &str = "PERF_BUILDID_DIR";

/// Whether the environment asks for a map.
pub fn asked() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|v| !v.is_empty() && v != "0")
}

/// The map of this process.
pub fn path() -> PathBuf {
    PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()))
}

/// The lines of functions.
pub fn lines(functions: &[Placed]) -> String {
    let mut out = String::new();
    for f in functions {
        let _ = writeln!(out, "{:x} {:x} {}", f.address, f.bytes, f.name);
    }
    out
}

/// Adds functions to the map of this process.
///
/// # Errors
/// When the file cannot be written.
pub fn append(functions: &[Placed]) -> Result<()> {
    if !cfg!(unix) {
        return Err(Error::Option(
            "`perf` runs on Linux; there is no map for it here".into(),
        ));
    }
    if std::env::var_os(CRANELIFT).is_some() {
        return Ok(());
    }
    let path = path();
    let write = || {
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        // At once, so that lines of sessions that are loaded side by side do not mix.
        file.write_all(lines(functions).as_bytes())
    };
    write().map_err(|e| Error::io(&path, e))
}
