//! Errors of model folders. Each names the file, and the tensor or the field of `config.json` where there is one.

use brolga_ir::plain;
use std::fmt;

/// Why a model folder could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or mapped.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {}", plain(.message))]
    File {
        /// The file.
        file: String,
        /// What was found and what was expected.
        message: String,
    },
    /// Fields of `config.json` say what is not understood; all of them are listed.
    #[error("{file}: {}", told(.fields))]
    Fields {
        /// The file.
        file: String,
        /// Names and values.
        fields: Vec<(String, String)>,
    },
    /// The tensors are not those that `config.json` speaks of.
    #[error("{folder}: its tensors are not those that {what} speaks of:{problems}")]
    Tensors {
        /// The folder, or the file.
        folder: String,
        /// What describes the model.
        what: &'static str,
        /// All of them.
        problems: Problems,
    },
    /// A part of the model cannot be built.
    #[error("{folder}: `{}`: {}", plain(.module), plain(.message))]
    Module {
        /// The folder.
        folder: String,
        /// The module, named as its tensors are.
        module: String,
        /// What was found and what was expected.
        message: String,
    },
}

fn told(fields: &[(String, String)]) -> String {
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\n  `{}`: {}", plain(name), plain(value)))
        .collect();
    format!(
        "fields that are not understood, and may change the result; where one does not, take it out with --config {}=null:{}",
        fields.first().map_or("FIELD", |f| &f.0),
        lines.concat()
    )
}

/// Tensors that are not as the configuration wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Names of tensors that are not there.
    pub missing: Vec<String>,
    /// Tensors of another shape or element type: the name, and what was found and what was expected.
    pub wrong: Vec<(String, String)>,
    /// Names of tensors that the model has no use for.
    pub extra: Vec<String>,
}

impl Problems {
    /// The same under other names.
    pub fn renamed(self, name: impl Fn(&str) -> String) -> Problems {
        let all = |names: Vec<String>| names.iter().map(|n| name(n)).collect();
        Problems {
            missing: all(self.missing),
            wrong: self.wrong.into_iter().map(|(n, message)| (name(&n), message)).collect(),
            extra: all(self.extra),
        }
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty() && self.extra.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = |names: &[String]| names.iter().map(|n| (n.clone(), String::new())).collect::<Vec<_>>();
        for (what, list) in [
            ("missing", nothing(&self.missing)),
            ("wrong", self.wrong.clone()),
            ("without a use", nothing(&self.extra)),
        ] {
            if list.is_empty() {
                continue;
            }
            write!(f, "\n  {} {what}:", list.len())?;
            for (name, message) in folded(&list) {
                write!(f, "\n    {}", plain(&name))?;
                if !message.is_empty() {
                    write!(f, ": {}", plain(&message))?;
                }
            }
        }
        Ok(())
    }
}

/// Names that differ in one number only, as those of a model's layers, on one line: `layers.{0..31}.norm.weight`.
fn folded(list: &[(String, String)]) -> Vec<(String, String)> {
    let mut groups: Vec<(String, String, Vec<u64>, &str)> = vec![];
    for (name, message) in list {
        let (pattern, number) = match first_number(name) {
            Some((range, n)) => (format!("{}{{}}{}", &name[..range.start], &name[range.end..]), n),
            None => (name.clone(), 0),
        };
        match groups.iter_mut().find(|g| g.0 == pattern && g.1 == *message) {
            Some(group) => group.2.push(number),
            None => groups.push((pattern, message.clone(), vec![number], name)),
        }
    }
    let line = |(pattern, message, mut numbers, name): (String, String, Vec<u64>, &str)| {
        numbers.sort_unstable();
        let text = match numbers[..] {
            [_] => name.to_owned(),
            [first, .., last] if last - first + 1 == numbers.len() as u64 => {
                pattern.replacen("{}", &format!("{{{first}..{last}}}"), 1)
            }
            _ => {
                let all: Vec<String> = numbers.iter().map(u64::to_string).collect();
                pattern.replacen("{}", &format!("{{{}}}", all.join(",")), 1)
            }
        };
        (text, message)
    };
    groups.into_iter().map(line).collect()
}

/// The first number between dots in a name.
fn first_number(name: &str) -> Option<(std::ops::Range<usize>, u64)> {
    let mut start = 0;
    for part in name.split('.') {
        if let Ok(n) = part.parse() {
            return Some((start..start + part.len(), n));
        }
        start += part.len() + 1;
    }
    None
}

/// Why a family cannot build its graph.
#[derive(Debug)]
pub enum Fail {
    /// `config.json` is wrong.
    Config(Error),
    /// The module that is being built is wrong.
    Module(String),
}

impl From<String> for Fail {
    fn from(message: String) -> Fail {
        Fail::Module(message)
    }
}
impl From<Error> for Fail {
    fn from(e: Error) -> Fail {
        Fail::Config(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_on_one_line() {
        let names = [
            "layers.0.a",
            "layers.1.a",
            "layers.2.a",
            "layers.0.b",
            "layers.2.b",
            "norm",
        ];
        let list: Vec<(String, String)> = names.iter().map(|n| (n.to_string(), String::new())).collect();
        let lines: Vec<String> = folded(&list).into_iter().map(|l| l.0).collect();
        assert_eq!(lines, ["layers.{0..2}.a", "layers.{0,2}.b", "norm"]);
    }
}
