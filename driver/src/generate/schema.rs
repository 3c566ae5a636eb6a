//! Where in a schema the trouble is that a text cannot be held to it for.
//!
//! The crate that compiles schemas says what is wrong, and not where. So parts are compiled on their own, from the root down: the place is
//! the deepest part that fails for the same reason.
//!
//! ```text
//! {"properties": {"a": {"items": {"type": "colour"}}}}  -->  #/properties/a/items: Invalid type: colour
//! ```

use serde_json::{Value as Json, json};

/// Keywords whose fields are schemas.
const NAMED: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];

/// Keywords that are a schema, or a list of some.
const PLAIN: [&str; 14] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Fields of the root that parts need: what they refer to, and how text is written.
const SHARED: [&str; 3] = ["$defs", "definitions", "x-guidance"];

/// Parts that are compiled at most. In a larger schema the place may be one around the trouble.
const MOST_PARTS: usize = 1000;

/// How messages begin that say that nothing fits.
const IMPOSSIBLE: &str = "Unsatisfiable schema";

/// The place, as a JSON pointer, and what is wrong there, of a schema with which this is wrong as a whole; `wrong` says what is wrong with one.
pub(super) fn trouble(schema: &Json, message: String, wrong: impl Fn(&Json) -> Option<String>) -> (String, String) {
    let (mut place, mut at, mut message) = ("#".to_owned(), schema, message);
    let mut left = MOST_PARTS;
    // With how text is written no part is right.
    if wrong(&alone(&json!({}), schema)).is_some() {
        return (place, message);
    }
    loop {
        let all = parts(at);
        if all.len() > left {
            return (place, message);
        }
        left -= all.len();
        let failing = all.into_iter().filter_map(|(name, part)| {
            let why = wrong(&alone(part, schema))?;
            Some((likeness(&message, &why, &name)?, name, part, why))
        });
        // Of equal ones the first.
        let Some((_, name, part, why)) = failing.min_by_key(|(likeness, ..)| *likeness) else {
            return (place, message);
        };
        place += &name;
        (at, message) = (part, why);
    }
}

/// How sure it is that a part fails for the reason of the whole, 0 the surest; `None` where it does not.
fn likeness(whole: &str, part: &str, name: &str) -> Option<usize> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let impossible = whole.starts_with(IMPOSSIBLE) && part.starts_with(IMPOSSIBLE);
    match whole == part {
        true => Some(0),
        // "required property 'a' is unsatisfiable" is said of the object around it.
        false if impossible && whole.contains(&format!("'{last}'")) => Some(1),
        false if impossible => Some(2),
        false => None,
    }
}

/// A part as a schema of its own.
fn alone(part: &Json, root: &Json) -> Json {
    let mut part = part.clone();
    if let Some(fields) = part.as_object_mut() {
        for name in SHARED.iter().filter(|name| root.get(**name).is_some()) {
            fields.entry(*name).or_insert_with(|| root[*name].clone());
        }
    }
    part
}

/// The parts of a schema, by what is behind its own place.
fn parts(schema: &Json) -> Vec<(String, &Json)> {
    let mut all = vec![];
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match value {
            Json::Object(named) if NAMED.contains(&keyword.as_str()) => {
                let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                all.extend(
                    named
                        .iter()
                        .map(|(name, part)| (format!("/{keyword}/{}", escaped(name)), part)),
                );
            }
            Json::Array(several) if PLAIN.contains(&keyword.as_str()) => {
                all.extend((0..).zip(several).map(|(i, part)| (format!("/{keyword}/{i}"), part)));
            }
            one if PLAIN.contains(&keyword.as_str()) => all.push((format!("/{keyword}"), one)),
            _ => {}
        }
    }
    all
}
