//! A model on which something is wrong, kept with its inputs in files on which `brolga bisect` shows it again.

use super::CompileArgs;
use brolga::bisect::Against;
use brolga::ir::Tensor;
use brolga::reduce::Case;
use brolga::reproducer::commented;
use brolga::shell::quoted;
use brolga::{Result, npy, output};
use std::path::{Path, PathBuf};

/// Where one is kept, and what it is wrong by.
pub struct Kept<'a> {
    /// The file of the model; its inputs stand beside it, in a .npz file.
    pub file: &'a Path,
    /// The largest error that is right.
    pub tolerance: f64,
    /// What errors are measured against.
    pub against: Against,
    /// How it was compiled.
    pub compile: &'a CompileArgs,
}

impl Kept<'_> {
    fn arrays(&self) -> PathBuf {
        self.file.with_extension("npz")
    }

    /// Writes a case, below lines that say what it is.
    pub fn write(&self, case: &Case, head: &str) -> Result<()> {
        let names = case.graph.inputs.iter().map(|i| i.name.clone());
        let arrays: Vec<(String, Tensor)> = names.zip(case.inputs.iter().flatten().cloned()).collect();
        npy::write_npz(&self.arrays(), &arrays)?;
        output::write(self.file, format!("{}{}", commented(head), case.graph).as_bytes())?;
        Ok(())
    }

    /// The command that shows it again, on what was written.
    pub fn replay(&self) -> String {
        let path = |p: &Path| quoted(&p.display().to_string());
        let (file, arrays) = (path(self.file), path(&self.arrays()));
        let mut words = vec![format!(
            "brolga bisect {file} --inputs {arrays} --tolerance {}",
            self.tolerance
        )];
        if self.against == Against::Values {
            words.push("--against values".to_owned());
        }
        words.extend(self.compile.words());
        words.join(" ")
    }
}
