//! Reproducers: a file that shows a pass failing again, without the model that it failed on.
//!
//! ```text
//! // brolga-reproducer 1
//! // pass: canonicalize
//! // failure: panicked: index out of bounds: the len is 3 but the index is 3
//! // target: x86-64-v3
//! // pipeline: canonicalize,prune,eqsat
//! // verify: true
//! graph @model(%0 x: f32[4]) { … }
//! ```
//!
//! Behind the header stands the module before the pass, as the text of its level; the pipeline begins with the pass. Files that the pipeline names
//! stand in the header, too (`// file: own.rules`, then a `// line: …` for each of their lines). As text IR does, it
//! names the files that large constants lie in: where they are not beside it any more, it cannot be replayed.

use crate::levels::{Module, Walk};
use crate::options::Options;
use crate::shell::quoted;
use crate::{Error, Result, output, source};
use brolga_ir::plain;
use brolga_passes::pass::Pass;
use brolga_passes::registry;
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first line of a reproducer.
const MAGIC: &str = "// brolga-reproducer 1";

/// What failed, and how to see it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reproducer {
    /// The pass that failed.
    pub pass: String,
    /// What it said.
    pub failure: String,
    /// The name of the machine that was compiled for.
    pub target: String,
    /// The passes from it on.
    pub pipeline: String,
    /// Whether the module is verified behind every pass.
    pub verify: bool,
    /// Whether rules in files are taken without a check.
    pub unchecked_rules: bool,
    /// Inputs and the outputs that may be their memory.
    pub aliases: Vec<(String, String)>,
    /// The files that the pipeline names, with their texts.
    pub files: Vec<(String, String)>,
}

impl Reproducer {
    /// The first of these passes failed so.
    pub fn of(failed: &[Box<dyn Pass>], failure: &str, options: &Options) -> Reproducer {
        let pipeline = registry::text(failed);
        Reproducer {
            pass: failed.first().map_or_else(String::new, |p| p.name().to_owned()),
            failure: failure.to_owned(),
            target: options.target.name.to_owned(),
            // What cannot be read any more is named, and no reason to tell nothing of the failure.
            files: options.files_of(&pipeline).unwrap_or_default(),
            pipeline,
            verify: options.verify,
            unchecked_rules: options.unchecked_rules,
            aliases: options.aliases.clone(),
        }
    }

    /// Writes a new file of this folder with a module before the passes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path, before: &Module) -> Result<PathBuf> {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_".contains(*c);
        let model: String = before.name().chars().filter(is_plain).take(40).collect();
        let (process, n) = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
        let file = format!("brolga-{model}-{}-{process}-{n}.txt", self.pass);
        let path = folder.join(file);
        output::folder(folder)?;
        output::write(&path, format!("{}{before}", self.header()).as_bytes())?;
        Ok(path)
    }

    fn header(&self) -> String {
        let mut lines = vec![
            ("pass", self.pass.clone()),
            // A message may have lines of its own.
            ("failure", self.failure.lines().map(plain).collect::<Vec<_>>().join(" ")),
            ("target", self.target.clone()),
            ("pipeline", self.pipeline.clone()),
            ("verify", self.verify.to_string()),
            ("unchecked-rules", self.unchecked_rules.to_string()),
        ];
        lines.extend(
            self.aliases
                .iter()
                .map(|(i, o)| ("alias", format!("{}={}", plain(i), plain(o)))),
        );
        for (name, text) in &self.files {
            lines.push(("file", name.clone()));
            lines.extend(
                text.lines()
                    .map(|l| ("line", plain(&l.replace('\t', " ")).into_owned())),
            );
        }
        let lines: String = lines
            .iter()
            .map(|(key, value)| format!("// {key}: {value}\n"))
            .collect();
        format!("{MAGIC}\n{lines}")
    }

    /// Reads what the header of a reproducer says.
    ///
    /// # Errors
    /// When the file cannot be read, or is no reproducer.
    pub fn read(path: &Path) -> Result<Reproducer> {
        let text = source::text(path)?;
        let mut lines = text.lines();
        if lines.next() != Some(MAGIC) {
            let message = format!("found no reproducer, expected `{MAGIC}` in its first line");
            return Err(Error::file(path, message));
        }
        let entries: Vec<(&str, &str)> = lines
            .map_while(|l| l.strip_prefix("// "))
            .filter_map(|l| l.split_once(": ").or_else(|| l.split_once(':')))
            .collect();
        let find = |key: &str| {
            let entry = entries.iter().find(|(k, _)| *k == key);
            let missing = || Error::file(path, format!("the header of the reproducer has no `{key}`"));
            entry.map(|(_, value)| (*value).to_owned()).ok_or_else(missing)
        };
        let flag = |key: &str| Ok::<_, Error>(find(key)? == "true");
        let alias = |(key, value): &(&str, &str)| {
            let (input, output) = (*key == "alias").then(|| value.split_once('='))??;
            Some((input.to_owned(), output.to_owned()))
        };
        Ok(Reproducer {
            pass: find("pass")?,
            failure: find("failure")?,
            target: find("target")?,
            pipeline: find("pipeline")?,
            verify: flag("verify")?,
            unchecked_rules: flag("unchecked-rules")?,
            aliases: entries.iter().filter_map(alias).collect(),
            files: files(&entries),
        })
    }

    /// These options, with what the reproducer says.
    ///
    /// # Errors
    /// When there is no target of its name.
    pub fn options(&self, options: &Options) -> Result<Options> {
        let target = brolga_codegen::target::by_name(&self.target)
            .ok_or_else(|| Error::Option(format!("the reproducer is for `{}`, which is no target", self.target)))?;
        Ok(Options {
            target,
            pipeline: Some(self.pipeline.clone()),
            rules: None,
            verify: self.verify,
            unchecked_rules: self.unchecked_rules,
            aliases: self.aliases.clone(),
            files: self.files.clone(),
            ..options.clone()
        })
    }
}

/// The files of a header: each is named, and then come its lines.
fn files(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = vec![];
    for (key, value) in entries {
        match (*key, files.last_mut()) {
            ("file", _) => files.push(((*value).to_owned(), String::new())),
            ("line", Some((_, text))) => *text += &format!("{value}\n"),
            _ => {}
        }
    }
    files
}

/// Runs the passes of a reproducer on its module.
///
/// # Errors
/// When the file is no reproducer; as its passes do.
pub fn replay(path: &Path, options: &Options) -> Result<Module> {
    let options = Reproducer::read(path)?.options(options)?;
    let module = source::model(path, &options)?;
    Ok(Walk::new(module, &options)?.module)
}

/// Lines as a comment of text IR.
pub fn commented(text: &str) -> String {
    text.lines().map(|l| format!("// {}\n", plain(l))).collect()
}

/// What a user is told of a file that was written.
pub fn advice(path: &Path) -> String {
    let file = quoted(&path.display().to_string());
    format!("\nreplay with: brolga opt {file} --run-reproducer")
}

/// What a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("without a message"))
}
