//! Which rules of users were found sound: a folder with one file a rule, named by a hash of the rule's text, and holding that
//! text behind the number of the compiler that checked it. What another compiler found sound is checked again.
//!
//! The folder is `rules` in the user's cache ([`cache::folder`]). Where there is none,
//! or it cannot be written, every check is done again; that is slower, and no error.

use crate::{cache, identity};
use brolga_abi::artefact::checksum;
use brolga_passes::eqsat::Verdicts;
use std::path::PathBuf;

/// The verdicts of earlier runs.
pub struct Remembered {
    folder: Option<PathBuf>,
}

impl Remembered {
    /// Those in the user's cache.
    pub fn new() -> Remembered {
        Remembered {
            folder: cache::folder().map(|c| c.join("rules")),
        }
    }

    fn file(&self, rule: &str) -> Option<PathBuf> {
        Some(
            self.folder
                .as_ref()?
                .join(format!("{:016x}", checksum(rule.as_bytes()))),
        )
    }
}

/// What is written of a rule that this compiler found sound.
fn witness(rule: &str) -> String {
    format!("brolga {:016x}: {rule}", identity::compiler())
}

impl Verdicts for Remembered {
    fn is_sound(&self, rule: &str) -> bool {
        let text = self.file(rule).and_then(|f| std::fs::read_to_string(f).ok());
        text.is_some_and(|t| t == witness(rule))
    }

    fn remember(&self, rule: &str) {
        let (Some(folder), Some(file)) = (&self.folder, self.file(rule)) else {
            return;
        };
        // What cannot be remembered is checked again.
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, witness(rule)));
    }
}
