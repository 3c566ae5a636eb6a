//! Metadata by key, with errors that name the key.

use super::value::{Array, Value};
use crate::safetensors::Error;
use std::collections::BTreeMap;

/// A file's metadata.
pub struct Metadata {
    file: String,
    values: BTreeMap<String, Value>,
}

type One<T> = Result<Option<T>, Error>;

impl Metadata {
    /// That of a file.
    pub fn new(file: String, values: BTreeMap<String, Value>) -> Metadata {
        Metadata { file, values }
    }

    /// An error about a key.
    pub fn wrong(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::File {
            file: self.file.clone(),
            message: format!("key `{key}`: {message}"),
        }
    }

    /// The file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every key with its value.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    fn expected<T>(&self, key: &str, what: &str, of: impl Fn(&Value) -> Option<T>) -> One<T> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => of(v)
                .map(Some)
                .ok_or_else(|| self.wrong(key, format_args!("{v}, expected {what}"))),
        }
    }

    /// A number of things, from 0 on; the one that all layers have, where it is told for each.
    ///
    /// # Errors
    /// When it is none, or layers differ.
    pub fn count(&self, key: &str) -> One<u64> {
        let number = |v: &Value| match v {
            Value::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        self.expected(key, "a whole number, the same for all layers", |v| match v {
            Value::Array(Array::Numbers(all)) => {
                let first = number(all.first()?)?;
                all.iter().all(|v| number(v) == Some(first)).then_some(first)
            }
            one => number(one),
        })
    }

    /// A count that has to be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn needed(&self, key: &str) -> Result<u64, Error> {
        self.count(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// A number.
    ///
    /// # Errors
    /// When it is none, or not finite.
    pub fn float(&self, key: &str) -> One<f64> {
        self.expected(key, "a number", |v| match v {
            Value::Float(x) if x.is_finite() => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// When it is none.
    pub fn flag(&self, key: &str) -> One<bool> {
        self.expected(key, "a truth value", |v| match v {
            Value::Bool(x) => Some(*x),
            _ => None,
        })
    }

    /// A text.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(v) => Err(self.wrong(key, format_args!("{v}, expected a text"))),
        }
    }

    /// Texts.
    ///
    /// # Errors
    /// When they are none.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Texts(all))) => Ok(Some(all)),
            Some(v) => Err(self.wrong(key, format_args!("{v}, expected an array of texts"))),
        }
    }

    /// Numbers.
    ///
    /// # Errors
    /// When they are none.
    pub fn floats(&self, key: &str) -> One<Vec<f64>> {
        let number = |v: &Value| match v {
            Value::Float(x) => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        };
        self.expected(key, "an array of numbers", |v| match v {
            Value::Array(Array::Numbers(all)) => all.iter().map(number).collect(),
            _ => None,
        })
    }
}
