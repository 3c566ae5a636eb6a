//! Fields of a request's body, each taken by who understands it. What is left at the end is refused by name, but for what changes no answer.

use super::refusal::Refusal;
use serde_json::{Map, Value as Json};
use std::fmt::Display;

/// Fields that are for services around a model: answers are the same with them and without.
const HARMLESS: [&str; 7] = [
    "metadata",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// The fields of an object. One that is null is not there.
#[derive(Default)]
pub struct Fields {
    all: Map<String, Json>,
    /// What stands before their names where it is told what is wrong: the field that they are of, and a dot.
    of: String,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn read(body: &[u8]) -> Result<Fields, Refusal> {
        match serde_json::from_slice(body) {
            Ok(Json::Object(all)) => Ok(Fields { all, of: String::new() }),
            Ok(_) => Err(Refusal::bad("the body is no JSON object")),
            Err(e) => Err(Refusal::bad(format!("the body is no JSON: {e}"))),
        }
    }

    /// What is wrong with a field.
    pub fn wrong(&self, name: &str, message: impl Display) -> Refusal {
        Refusal::field(&format!("{}{name}", self.of), message)
    }

    /// The fields of a field that is an object; none where it is not there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&mut self, name: &str) -> Result<Fields, Refusal> {
        Ok(self.given(name)?.unwrap_or_default())
    }

    /// The fields of a field that is an object, where it is there.
    ///
    /// # Errors
    /// When it is something else.
    pub fn given(&mut self, name: &str) -> Result<Option<Fields>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Object(all)) => Ok(Some(Fields {
                all,
                of: format!("{}{name}.", self.of),
            })),
            Some(_) => Err(self.wrong(name, "expected an object")),
        }
    }

    /// A field.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        self.all.shift_remove(name).filter(|v| !v.is_null())
    }

    /// A field that has to be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn needed(&mut self, name: &str) -> Result<Json, Refusal> {
        self.take(name).ok_or_else(|| self.wrong(name, "it is missing"))
    }

    fn typed<T>(&mut self, name: &str, wanted: &str, read: impl Fn(&Json) -> Option<T>) -> Result<Option<T>, Refusal> {
        let found = self.take(name);
        let wrong = |v: &Json| self.wrong(name, format!("{v}, expected {wanted}"));
        found.map(|v| read(&v).ok_or_else(|| wrong(&v))).transpose()
    }

    /// A number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, Refusal> {
        self.typed(name, "a number", |v| v.as_f64().map(|x| x as f32))
    }

    /// A number of things.
    ///
    /// # Errors
    /// When it is something else.
    pub fn count(&mut self, name: &str) -> Result<Option<usize>, Refusal> {
        self.typed(name, "a whole number from 0 on", |v| {
            v.as_u64().and_then(|n| n.try_into().ok())
        })
    }

    /// A whole number of any sign, as its bits.
    ///
    /// # Errors
    /// When it is something else.
    pub fn bits(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        self.typed(name, "a whole number", |v| {
            v.as_u64().or_else(|| v.as_i64().map(|n| n as u64))
        })
    }

    /// True or false.
    ///
    /// # Errors
    /// When it is something else.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        self.typed(name, "true or false", Json::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.typed(name, "a text", |v| v.as_str().map(str::to_owned))
    }

    /// A text, or a list of some.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        let texts = self.typed(name, "a text or a list of texts", |v| match v {
            Json::String(text) => Some(vec![text.clone()]),
            Json::Array(all) => all.iter().map(|t| t.as_str().map(str::to_owned)).collect(),
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// All fields.
    pub fn all(self) -> Map<String, Json> {
        self.all
    }

    /// Takes a field that may only say what is so without it.
    ///
    /// # Errors
    /// When it says something else.
    pub fn only(&mut self, name: &str, allowed: &[Json]) -> Result<(), Refusal> {
        match self.take(name) {
            Some(v) if !allowed.contains(&v) => Err(self.wrong(name, format!("{v} is not supported"))),
            _ => Ok(()),
        }
    }

    /// Checks that all that matters was taken.
    ///
    /// # Errors
    /// Which field was not.
    pub fn finish(self) -> Result<(), Refusal> {
        let mut left = self.all.iter().filter(|(_, v)| !v.is_null()).map(|(name, _)| name);
        match left.find(|name| !HARMLESS.contains(&name.as_str())) {
            Some(name) => Err(self.wrong(name, "this field is not supported")),
            None => Ok(()),
        }
    }
}
