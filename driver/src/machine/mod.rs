//! This machine's figures: measured ([`mod@measure`]), kept in the user's cache, and read by whoever predicts how long a kernel takes.
//!
//! A file is `brolga/machines/CPU-CORES.TARGET.json` in the user's cache ([`crate::cache::folder`]): other code has other peaks, and fewer
//! cores another bandwidth. Invariant: figures of another machine, another version of Brolga or of a damaged file are never used; whoever
//! asks is told why.

mod file;
mod measure;

use crate::{Error, Result, cache};
use brolga_abi::artefact::OutputFile;
use brolga_ir::{Figures, Target};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

pub use file::{json, read};
pub use measure::{Stream, measure};

/// A machine as its figures are named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The CPU, as it calls itself, with its family, model and stepping.
    pub cpu: String,
    /// Cores that threads of this process can be on.
    pub cores: usize,
    /// The target that code is for.
    pub target: String,
}

impl Machine {
    /// This one, with code for a target.
    pub fn this(target: &Target) -> Machine {
        Machine {
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            target: target.name.to_owned(),
        }
    }

    /// Where its figures are kept; `None` where the user has no cache.
    pub fn file(&self) -> Option<PathBuf> {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let mut cpu: String = self.cpu.chars().map(plain).collect();
        while cpu.contains("--") {
            cpu = cpu.replace("--", "-");
        }
        let name = format!("{}-{}.{}.json", cpu.trim_matches('-'), self.cores, self.target);
        Some(cache::folder()?.join("machines").join(name))
    }

    /// Its figures, where they were measured.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or of another machine or version.
    pub fn stored(&self) -> Result<Option<Figures>> {
        let Some(path) = self.file() else {
            return Ok(None);
        };
        match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, e)),
            Ok(text) => match read(&text, self) {
                Ok(figures) => Ok(Some(figures)),
                Err(message) => Err(Error::file(&path, message)),
            },
        }
    }

    /// Keeps its figures, and says where.
    ///
    /// # Errors
    /// When the user has no cache, or it cannot be written; what was there is then as it was.
    pub fn store(&self, figures: &Figures) -> Result<PathBuf> {
        let path = self.file().ok_or_else(|| {
            Error::Option("there is no folder for figures: set XDG_CACHE_HOME or HOME to an absolute path".into())
        })?;
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let mut file = OutputFile::create(&path)?;
            file.write_all(format!("{:#}\n", json(self, figures)).as_bytes())?;
            file.commit()
        };
        write().map_err(|e| Error::io(&path, e))?;
        Ok(path)
    }
}

/// The figures to predict with: those that were measured on this machine for code of this target, else those that follow from the target.
/// Where there are some that are not used, also why.
pub fn figures(target: &Target) -> (Figures, Option<String>) {
    let machine = Machine::this(target);
    let built_in = || Figures::built_in(target, machine.cores);
    if !brolga_codegen::target::runs_here(target) {
        return (built_in(), None);
    }
    match machine.stored() {
        Ok(figures) => (figures.unwrap_or_else(built_in), None),
        Err(e) => (built_in(), Some(format!("{e}; built-in figures serve instead"))),
    }
}

/// The CPU's name.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    use std::arch::x86_64::__cpuid;
    const BRAND: u32 = 0x8000_0000;
    let has_brand = __cpuid(BRAND).eax >= BRAND + 4;
    let leaves = if has_brand { 2..5 } else { 0..0 };
    let bytes: Vec<u8> = leaves
        .map(|i| __cpuid(BRAND + i))
        .flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|b| *b != 0)
        .collect();
    let version = __cpuid(1).eax;
    let (family, model, stepping) = (
        version >> 8 & 15,
        version >> 4 & 15 | version >> 12 & 0xf0,
        version & 15,
    );
    let family = if family == 15 {
        family + (version >> 20 & 0xff)
    } else {
        family
    };
    let brand = String::from_utf8_lossy(&bytes).trim().to_owned();
    format!("{brand} ({family}-{model}-{stepping})")
}

/// The CPU's name.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let parts = ["CPU implementer", "CPU part", "CPU revision"].map(|name| field(name).unwrap_or_default());
    format!("{} {}", std::env::consts::ARCH, parts.join("-"))
}
