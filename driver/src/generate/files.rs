//! What a language model has beside its graph and weights: facts, a tokenizer, a template of chats. In a folder they are files of their own, in
//! an artefact texts of the kind [`KIND`] under the same names; a GGUF file has metadata that are made the same texts.

use crate::{Error, Result};
use brolga_abi::artefact::Artefact;
use brolga_frontend::safetensors::Facts;
use brolga_frontend::{gguf, mapped};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The kind of texts in an artefact.
pub const KIND: &str = "generator";

/// The name of the text that holds the facts.
const FACTS: &str = "facts.json";

/// The file of what generation does where a caller says nothing.
pub const GENERATION: &str = "generation_config.json";

/// Files of a folder that generation reads.
const NAMES: [&str; 7] = [
    GENERATION,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Texts by name.
#[derive(Clone, Debug, Default)]
pub struct Files {
    origin: PathBuf,
    texts: BTreeMap<String, String>,
}

impl Files {
    /// Those that a folder has, or a GGUF file.
    ///
    /// # Errors
    /// When one cannot be read as text, or the file's tokenizer is not known.
    pub fn of_folder(folder: &Path) -> Result<Files> {
        if !folder.is_dir() {
            return Ok(Files {
                origin: folder.to_owned(),
                texts: gguf::texts(folder)?.into_iter().collect(),
            });
        }
        let mut texts = BTreeMap::new();
        for name in NAMES {
            let path = folder.join(name);
            if path.exists() {
                texts.insert(
                    name.to_owned(),
                    std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?,
                );
            }
        }
        Ok(Files {
            origin: folder.to_owned(),
            texts,
        })
    }

    /// Those that an artefact holds, and the facts among them.
    ///
    /// # Errors
    /// When it cannot be read, or is none that generates.
    pub fn of_artefact(path: &Path) -> Result<(Files, Facts)> {
        let source = mapped::map(path).map_err(|e| Error::io(path, e))?;
        let artefact = Artefact::parse(source.bytes()).map_err(|e| Error::file(path, e.to_string()))?;
        let own = artefact.texts().iter().filter(|t| t.kind == KIND);
        let texts: BTreeMap<String, String> = own.map(|t| (t.name.clone(), t.body.to_owned())).collect();
        let files = Files {
            origin: path.to_owned(),
            texts,
        };
        let none = "it does not generate: `brolga compile FOLDER --generator -o FILE.brolga` makes one that does";
        let facts = files.get(FACTS).ok_or_else(|| Error::file(path, none))?;
        let facts = parsed(facts).ok_or_else(|| files.wrong(FACTS, "it is damaged"))?;
        Ok((files, facts))
    }

    /// All of them with the facts, as an artefact holds them.
    pub fn texts(&self, facts: &Facts) -> Vec<(String, String)> {
        let own = self.texts.iter().map(|(name, body)| (name.clone(), body.clone()));
        own.chain([(FACTS.to_owned(), printed(facts))]).collect()
    }

    /// A text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// An error about a text.
    pub fn wrong(&self, name: &str, message: impl std::fmt::Display) -> Error {
        match self.origin.is_dir() {
            true => Error::file(&self.origin.join(name), message.to_string()),
            false => Error::file(&self.origin, format!("its {name}: {message}")),
        }
    }
}

fn printed(f: &Facts) -> String {
    json!({
        "vocabulary": f.vocabulary, "context": f.context, "end": f.end, "start": f.start, "streamed": f.streamed,
        "window": f.window, "sampling": f.sampling,
    })
    .to_string()
}

fn parsed(text: &str) -> Option<Facts> {
    let json: Json = serde_json::from_str(text).ok()?;
    Some(Facts {
        vocabulary: json["vocabulary"].as_u64()? as usize,
        context: json["context"].as_u64().map(|n| n as usize),
        end: json["end"]
            .as_array()?
            .iter()
            .map(Json::as_i64)
            .collect::<Option<_>>()?,
        start: json["start"].as_i64(),
        streamed: json["streamed"].as_u64()?,
        window: json["window"].as_u64().map(|n| n as usize),
        sampling: serde_json::from_value(json["sampling"].clone()).ok()?,
    })
}
