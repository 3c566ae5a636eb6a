//! Calls of tools in the text of a reply, in the formats that models were trained to write:
//!
//! ```text
//! <tool_call>{"name": "weather", "arguments": {"city": "Zürich"}}</tool_call>     Hermes, Qwen: any number, behind text
//! {"name": "weather", "parameters": {"city": "Zürich"}}                           LLaMA 3: the whole reply; several with `;` between them
//! [TOOL_CALLS][{"name": "weather", "arguments": {"city": "Zürich"}}]              Mistral: the whole reply; the tag may be a hidden token
//! ```
//!
//! Invariant: what is no call is shown as it was written, once it is clear that it is none. Where no tag says so, only an object with the name of
//! a tool that there is is a call.

use serde_json::{Value as Json, json};
use std::hash::{BuildHasher, RandomState};

/// What stands before a call.
pub const OPEN: &str = "<tool_call>";
/// What stands behind it.
pub const CLOSE: &str = "</tool_call>";
/// What stands before a list of calls.
pub const MISTRAL: &str = "[TOOL_CALLS]";

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool.
    pub name: String,
    /// What it is given, JSON as text.
    pub arguments: String,
}

impl Call {
    /// As OpenAI's interface has it, under a new name.
    pub fn json(&self) -> Json {
        let id = format!("call_{:016x}", RandomState::new().hash_one(()));
        json!({ "id": id, "type": "function", "function": { "name": self.name, "arguments": self.arguments } })
    }

    fn of(json: &Json) -> Option<Call> {
        let call = Some(&json["function"]).filter(|f| f.is_object()).unwrap_or(json);
        let name = call["name"].as_str()?.to_owned();
        let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
            None | Some(Json::Null) => "{}".into(),
            Some(Json::String(text)) => text.clone(),
            Some(object) => object.to_string(),
        };
        Some(Call { name, arguments })
    }
}

/// A part of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text to show.
    Text(String),
    /// A call.
    Call(Call),
}

/// Watches a reply that comes in pieces.
pub struct Calls {
    /// Names of tools.
    tools: Vec<String>,
    /// What is not clear yet.
    held: String,
    /// True from the first text on that makes it no reply of calls alone.
    begun: bool,
    /// True behind a call.
    called: bool,
}

impl Calls {
    /// Watches for calls of tools, by their names.
    pub fn new(tools: Vec<String>) -> Calls {
        Calls {
            tools,
            held: String::new(),
            begun: false,
            called: false,
        }
    }

    /// Takes a piece; the parts that are clear with it.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held += piece;
        if !self.begun {
            match self.held.trim_start().chars().next() {
                None | Some('{' | '[') => return vec![],
                Some(_) => self.begun = true,
            }
        }
        let mut parts = vec![];
        while let Some(at) = self.held.find(OPEN) {
            let Some(end) = self.held[at..].find(CLOSE).map(|n| at + n + CLOSE.len()) else {
                self.show(at, &mut parts);
                return parts;
            };
            self.show(at, &mut parts);
            let tagged: String = self.held.drain(..end - at).collect();
            self.tagged(tagged, &mut parts);
        }
        let open = (1..OPEN.len())
            .rev()
            .find(|&n| self.held.ends_with(&OPEN[..n]))
            .unwrap_or(0);
        let clear = self.held[..self.held.len() - open].trim_end().len();
        self.show(clear, &mut parts);
        parts
    }

    /// The parts of what was held back of a reply that ended.
    pub fn rest(&mut self) -> Vec<Part> {
        let held = std::mem::take(&mut self.held);
        if !self.begun
            && let Some(calls) = self.alone(&held)
        {
            return calls.into_iter().map(Part::Call).collect();
        }
        let mut parts = vec![];
        match held.starts_with(OPEN) {
            // The token that ends a text may come in place of the closing tag.
            true => self.tagged(held, &mut parts),
            false if self.called && held.trim().is_empty() => {}
            false if held.is_empty() => {}
            false => parts.push(Part::Text(held)),
        }
        parts
    }

    /// Shows so much of what is held; space before a call, and between calls, is none of the text.
    fn show(&mut self, until: usize, parts: &mut Vec<Part>) {
        let text: String = self.held.drain(..until).collect();
        let text = match self.held.starts_with(OPEN) {
            true => text.trim_end(),
            false => &text,
        };
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
    }

    /// Adds what stands between tags, or text where that is no call.
    fn tagged(&mut self, text: String, parts: &mut Vec<Part>) {
        let inner = text.trim_start_matches(OPEN).trim_end().trim_end_matches(CLOSE);
        let call = serde_json::from_str(inner.trim()).ok().as_ref().and_then(Call::of);
        self.called |= call.is_some();
        parts.push(call.map_or(Part::Text(text), Part::Call));
    }

    /// The calls of a reply that has nothing else.
    fn alone(&self, text: &str) -> Option<Vec<Call>> {
        let text = text.trim();
        let mut left = text.strip_prefix(MISTRAL).unwrap_or(text);
        let mut calls = vec![];
        while !left.is_empty() {
            let mut values = serde_json::Deserializer::from_str(left).into_iter::<Json>();
            match values.next()?.ok()? {
                Json::Array(all) => calls.extend(all.iter().map(Call::of).collect::<Option<Vec<_>>>()?),
                one => calls.push(Call::of(&one)?),
            }
            left = left[values.byte_offset()..].trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        }
        let known = calls.iter().all(|call| self.tools.contains(&call.name));
        (known && !calls.is_empty()).then_some(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> Part {
        Part::Call(Call {
            name: name.into(),
            arguments: arguments.into(),
        })
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    /// The parts of a reply, with texts beside each other as one: at once, and character by character, which has to be the same.
    fn parts(reply: &str) -> Vec<Part> {
        let read = |pieces: Vec<String>| {
            let mut calls = Calls::new(vec!["weather".into(), "time".into()]);
            let mut all: Vec<Part> = pieces.iter().flat_map(|p| calls.push(p)).collect();
            all.extend(calls.rest());
            all.into_iter().fold(vec![], |mut out: Vec<Part>, part| {
                match (out.last_mut(), &part) {
                    (Some(Part::Text(before)), Part::Text(more)) => *before += more,
                    _ => out.push(part),
                }
                out
            })
        };
        let whole = read(vec![reply.to_owned()]);
        assert_eq!(read(reply.chars().map(String::from).collect()), whole, "{reply}");
        whole
    }

    #[test]
    fn calls_between_tags() {
        let one =
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"days\": 2, \"city\": \"Zürich\"}}\n</tool_call>";
        let weather = call("weather", r#"{"days":2,"city":"Zürich"}"#);
        assert_eq!(
            parts(&format!("Let me see.\n\n{one}")),
            [text("Let me see."), weather.clone()]
        );
        let time = "<tool_call>{\"name\": \"time\"}</tool_call>";
        assert_eq!(parts(&format!("{one}\n{time}\n")), [weather, call("time", "{}")]);
        for one in [one, one.trim_end_matches(CLOSE)] {
            assert_eq!(parts(one), [call("weather", r#"{"days":2,"city":"Zürich"}"#)]);
        }
        for none in [
            "<tool_call>weather</tool_call> ",
            "a <tool",
            "a < b\n",
            "<tool_call>{\"name\": \"wea",
        ] {
            assert_eq!(parts(none), [text(none)]);
        }
    }

    #[test]
    fn replies_that_are_calls() {
        let weather = || call("weather", r#"{"city":"Bern"}"#);
        for reply in [
            r#"{"name": "weather", "parameters": {"city": "Bern"}}"#,
            r#" {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}"#,
            r#"{"name": "weather", "arguments": "{\"city\":\"Bern\"}"}"#,
            r#"[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Bern"}}]"#,
            r#"[{"name": "weather", "arguments": {"city": "Bern"}}]"#,
        ] {
            assert_eq!(parts(reply), [weather()], "{reply}");
        }
        let two = r#"{"name": "weather", "parameters": {"city": "Bern"}}; {"name": "time", "parameters": {}}"#;
        assert_eq!(parts(two), [weather(), call("time", "{}")]);
    }

    #[test]
    fn replies_that_look_like_calls() {
        for reply in [
            r#"{"name": "Emma", "age": 21}"#,
            r#"[1, 2]"#,
            "[]",
            "{",
            r#"{"name": "weather", "parameters": {}} is how to call it"#,
            "  ",
        ] {
            assert_eq!(parts(reply), [text(reply)]);
        }
        assert_eq!(parts(""), []);
    }
}
