//! Grammars of replies that call tools, as the model's template of chats has calls written and `calls.rs` reads them.
//!
//! ```text
//! <tool_call>\n{"name": "weather", "arguments": {…}}\n</tool_call>     where the template has such tags
//! [TOOL_CALLS][{"name": "weather", "arguments": {…}}]                  where it has this tag
//! {"name": "weather", "parameters": {…}}                               where it has neither
//! ```
//!
//! Each tool's arguments are held to a schema of their own, so that what it refers to stays in it.

use super::calling::Tool;
use super::calls::{CLOSE, MISTRAL, OPEN};
use super::refusal::{Refusal, told};
use crate::generate::grammar::{Constraint, Grammar, Grammars, written};
use crate::generate::text::{ChatTemplate, Tokenizer};
use serde_json::Value as Json;
use std::fmt::Write;

/// What stands around calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Style {
    /// Before all calls, in Lark's syntax.
    begin: String,
    /// Around a call.
    call: [String; 2],
    /// Between calls.
    between: &'static str,
    /// After all calls.
    end: &'static str,
    /// What arguments are called.
    arguments: &'static str,
}

impl Style {
    /// That of a model.
    pub fn of(template: &ChatTemplate, tokenizer: &Tokenizer) -> Style {
        if template.mentions(OPEN) {
            return Style {
                begin: String::new(),
                call: [format!("{OPEN}\n"), format!("\n{CLOSE}")],
                between: "\n",
                end: "",
                arguments: "arguments",
            };
        }
        let bare = Style {
            begin: String::new(),
            call: [String::new(), String::new()],
            between: "; ",
            end: "",
            arguments: "parameters",
        };
        if !template.mentions(MISTRAL) {
            return bare;
        }
        // As a token that has no text of its own it is named by its number.
        let token = tokenizer.token(MISTRAL);
        let tag = match token.filter(|t| tokenizer.decode(&[*t]).is_ok_and(|text| text.is_empty())) {
            Some(token) => format!("<[{token}]> \"[\""),
            None => quoted(&format!("{MISTRAL}[")),
        };
        Style {
            begin: tag,
            between: ", ",
            end: "]",
            arguments: "arguments",
            ..bare
        }
    }

    /// What holds a reply to calls of these tools, to one or to any number from one on; where there is the schema of an answer, to that or calls.
    ///
    /// # Errors
    /// When arguments cannot be held to their schema: which, and where in it.
    pub fn constraint(
        &self,
        grammars: &Grammars,
        tools: &[&Tool],
        several: bool,
        answer: Option<&Json>,
    ) -> Result<Constraint, Refusal> {
        let lark = Grammar::Lark(self.lark(tools, several, answer));
        grammars.constraint(&lark).map_err(|e| {
            // Alone, a schema says where it is wrong.
            let wrong = tools.iter().find_map(|tool| {
                let schema = Grammar::Schema(tool.schema());
                let e = grammars.constraint(&schema).err()?;
                Some(Refusal::field(
                    &format!("tools[{}].function.parameters", tool.at),
                    told(&e),
                ))
            });
            wrong.unwrap_or_else(|| Refusal::field("tools", told(&e)))
        })
    }

    fn lark(&self, tools: &[&Tool], several: bool, answer: Option<&Json>) -> String {
        let more = if several {
            format!("({} call)*", quoted(self.between))
        } else {
            String::new()
        };
        let mut text = match answer {
            Some(schema) => format!("start: calls | answer\nanswer: %json {}\n", written(schema)),
            None => "start: calls\n".to_owned(),
        };
        let names: Vec<String> = (0..tools.len()).map(|i| format!("call_{i}")).collect();
        let end = if self.end.is_empty() {
            String::new()
        } else {
            quoted(self.end)
        };
        let _ = writeln!(text, "calls: {} call {more} {end}", self.begin);
        let _ = writeln!(text, "call: {}", names.join(" | "));
        for (tool, name) in tools.iter().zip(&names) {
            let [open, close] = &self.call;
            let begin = format!(
                "{open}{{\"name\": {}, \"{}\": ",
                Json::from(&tool.name[..]),
                self.arguments
            );
            let schema = written(&tool.schema());
            let end = quoted(&format!("}}{close}"));
            let _ = writeln!(text, "{name}: {} %json {schema} {end}", quoted(&begin));
        }
        text
    }
}

/// A text in Lark's syntax, which takes JSON's.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::calls::{Call, Calls, Part};
    use super::*;
    use crate::Options;
    use crate::generate::Model;
    use serde_json::json;

    /// The formats, with replies of each: one call, and two.
    fn styles() -> [(Style, [&'static str; 2]); 3] {
        let style = |begin: &str, call: [&str; 2], between, end, arguments| Style {
            begin: begin.into(),
            call: call.map(String::from),
            between,
            end,
            arguments,
        };
        [
            (
                style("", ["<tool_call>\n", "\n</tool_call>"], "\n", "", "arguments"),
                [
                    "<tool_call>\n{\"name\": \"a \\\"b\\\"\", \"arguments\": {\"n\": 3}}\n</tool_call>",
                    "<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>",
                ],
            ),
            (
                style("\"[TOOL_CALLS][\"", ["", ""], ", ", "]", "arguments"),
                [
                    "[TOOL_CALLS][{\"name\": \"a \\\"b\\\"\", \"arguments\": {\"n\": 3}}",
                    "{\"name\": \"time\", \"arguments\": {}}",
                ],
            ),
            (
                style("", ["", ""], "; ", "", "parameters"),
                [
                    "{\"name\": \"a \\\"b\\\"\", \"parameters\": {\"n\": 3}}",
                    "{\"name\": \"time\", \"parameters\": {}}",
                ],
            ),
        ]
    }

    #[test]
    fn what_may_be_written_is_read_as_calls() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tiny_llama");
        let model = Model::load(folder, &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"));
        let facts = model.facts();
        let tokenizer = Tokenizer::of(model.files(), facts.vocabulary).unwrap_or_else(|e| panic!("{e}"));
        let grammars = Grammars::of(&tokenizer, facts).unwrap_or_else(|e| panic!("{e}"));
        let tool = |at, name: &str, parameters: Json| Tool {
            at,
            name: name.into(),
            parameters,
        };
        let number = json!({ "properties": { "n": { "$ref": "#/$defs/n" } }, "required": ["n"], "$defs": { "n": { "const": 3 } } });
        let tools = [
            tool(0, "a \"b\"", number),
            tool(1, "time", json!({ "type": "object", "additionalProperties": false })),
        ];
        let tools: Vec<&Tool> = tools.iter().collect();
        let answer = json!({ "enum": [42] });
        for (style, [first, second]) in styles() {
            let one = format!("{first}{}", style.end);
            let two = format!("{first}{}{second}{}", style.between, style.end);
            // Whether a text is one that may be written: its tokens may follow, and the text may end.
            let fits = |text: &str, several: bool, answer: Option<&Json>| {
                let constraint = style.constraint(&grammars, &tools, several, answer);
                let mut constraint = constraint.unwrap_or_else(|e| panic!("{}", e.message));
                let all = tokenizer.encode(text, false).unwrap_or_else(|e| panic!("{e}"));
                let follow = all.iter().all(|t| constraint.push(*t).is_ok());
                let mut logits = vec![0.0; facts.vocabulary];
                follow && constraint.mask(&mut logits).is_ok() && logits[facts.end[0] as usize] == 0.0
            };
            for (text, several, with_answer, expected) in [
                (&one, false, false, true),
                (&one, true, false, true),
                (&two, true, false, true),
                (&two, false, false, false),
                (&one, false, true, true),
                (&two, true, true, true),
                (&"42".to_owned(), true, true, true),
                (&"42".to_owned(), true, false, false),
                (&one.replace('3', "4"), true, true, false),
                (&one.replace("a ", ""), true, true, false),
                (&one[..one.len() - 1].to_owned(), true, true, false),
            ] {
                let answer = Some(&answer).filter(|_| with_answer);
                assert_eq!(fits(text, several, answer), expected, "{text}");
            }
            // A tag that is a token without a text of its own comes before the same.
            let tagged = Style {
                begin: format!("<[5]> {}", style.begin),
                ..style.clone()
            };
            let constraint = tagged.constraint(&grammars, &tools, false, None);
            let mut constraint = constraint.unwrap_or_else(|e| panic!("{}", e.message));
            let mut logits = vec![0.0; facts.vocabulary];
            assert!(constraint.mask(&mut logits).is_ok());
            let allowed: Vec<usize> = (0..logits.len()).filter(|&i| logits[i] == 0.0).collect();
            assert_eq!(allowed, [5]);
            let all = tokenizer.encode(&one, false).unwrap_or_else(|e| panic!("{e}"));
            assert!([&[5][..], &all].concat().iter().all(|t| constraint.push(*t).is_ok()));
            let mut calls = Calls::new(tools.iter().map(|t| t.name.clone()).collect());
            let parts = [calls.push(&two), calls.rest()].concat();
            let call = |name: &str, arguments: &str| {
                Part::Call(Call {
                    name: name.into(),
                    arguments: arguments.into(),
                })
            };
            assert_eq!(parts, [call("a \"b\"", "{\"n\":3}"), call("time", "{}")], "{two}");
        }
    }
}
