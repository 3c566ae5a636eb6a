//! Values of metadata.

use serde_json::{Value as Json, json};
use std::fmt;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer of any width.
    Int(i64),
    /// A float of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// Several.
    Array(Array),
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Numbers or truth values.
    Numbers(Vec<Value>),
    /// Texts.
    Texts(Vec<String>),
}

impl Value {
    /// The value as JSON.
    pub fn json(&self) -> Json {
        match self {
            Value::Int(x) => json!(x),
            Value::Float(x) if x.is_finite() => json!(x),
            // JSON has no number for it: a field of this name is refused with it.
            Value::Float(x) => json!(x.to_string()),
            Value::Bool(x) => json!(x),
            Value::Text(x) => json!(x),
            Value::Array(Array::Numbers(all)) => all.iter().map(Value::json).collect(),
            Value::Array(Array::Texts(all)) => json!(all),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Array(Array::Numbers(all)) => write!(f, "an array of {} numbers", all.len()),
            Value::Array(Array::Texts(all)) => write!(f, "an array of {} texts", all.len()),
            one => write!(f, "{}", one.json()),
        }
    }
}
