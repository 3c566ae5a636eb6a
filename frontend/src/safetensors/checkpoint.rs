//! A model's parts, whatever file they are of: a folder of transformers, or a GGUF file, which is read as the folder that it was made of.

use super::config::Config;
use super::file::{self, Stored};
use super::{CONFIG, Error};
use crate::gguf;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::Path;

/// The file of what generation does where a caller says nothing.
const GENERATION: &str = "generation_config.json";

/// A model's parts.
pub struct Checkpoint {
    /// The file that describes it.
    pub described: String,
    /// What that is called in errors.
    pub what: &'static str,
    /// The fields of its configuration.
    pub fields: Map<String, Json>,
    /// Settings of generation.
    pub generation: Option<Config>,
    /// Its tensors, by the names that a folder has for them.
    pub tensors: BTreeMap<String, Stored>,
    /// The name that a tensor has where it is stored.
    pub own_name: Box<dyn Fn(&str) -> String>,
}

impl Checkpoint {
    /// That of a folder, or of a GGUF file.
    ///
    /// # Errors
    /// When a file is missing or corrupt.
    pub fn read(path: &Path) -> Result<Checkpoint, Error> {
        if !path.is_dir() {
            return gguf::checkpoint(path);
        }
        let config = path.join(CONFIG);
        let generation = path.join(GENERATION);
        Ok(Checkpoint {
            described: config.display().to_string(),
            what: CONFIG,
            fields: Config::read(&config)?.into_fields(),
            generation: generation.exists().then(|| Config::read(&generation)).transpose()?,
            tensors: file::tensors(path)?,
            own_name: Box::new(str::to_owned),
        })
    }
}
