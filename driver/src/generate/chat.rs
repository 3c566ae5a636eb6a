//! Chats as one text, by the template that a model was trained with.
//!
//! Invariant: the text is that of transformers' `apply_chat_template`, to the space: what differs, the model has never seen.

use super::files::Files;
use super::jinja;
use super::text::{SETTINGS, settings};
use crate::Result;
use minijinja::Environment;
use minijinja::value::{Serde, Value, ValueKind};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The file of a template of chats.
const TEMPLATE: &str = "chat_template.jinja";

/// The file of special tokens, where settings do not have them.
const SPECIAL: &str = "special_tokens_map.json";

const NONE: &str = "there is no template of chats, neither `chat_template` here nor a file `chat_template.jinja`; a model without one was not \
                    trained on chats: `brolga generate` goes on from a text";

/// Names under which what a model thought comes. Templates read the first two.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// JSON whose objects keep their fields in order, which is the order of a template's text.
#[derive(Clone, Debug)]
pub struct Ordered(Value);

impl Ordered {
    /// Reads JSON.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> std::result::Result<Ordered, String> {
        serde_json::from_str(text).map(Ordered).map_err(|e| e.to_string())
    }

    /// A field of an object, but for null.
    pub fn get(&self, field: &str) -> Option<Ordered> {
        let value = self.0.get_attr(field).ok()?;
        (!value.is_undefined() && !value.is_none()).then_some(Ordered(value))
    }

    /// What a list has; nothing where it is none.
    pub fn items(&self) -> Vec<Ordered> {
        match self.0.kind() {
            ValueKind::Seq => self.0.try_iter().into_iter().flatten().map(Ordered).collect(),
            _ => vec![],
        }
    }
}

impl From<&Json> for Ordered {
    fn from(json: &Json) -> Ordered {
        Ordered(Value::from(Serde(json)))
    }
}

/// Templates that make one text of a chat.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The one for chats with tools, where there is another.
    with_tools: Option<Environment<'static>>,
    /// Texts of special tokens: `bos_token`, `eos_token` and so on.
    special: BTreeMap<String, Value>,
    /// The file that the template is of.
    name: &'static str,
    files: Files,
}

impl ChatTemplate {
    /// The template of a model.
    ///
    /// # Errors
    /// When there is none, or it is no template.
    pub fn of(files: &Files) -> Result<ChatTemplate> {
        let settings = settings(files)?;
        let (name, [default, tools]) = match files.get(TEMPLATE) {
            Some(text) => (TEMPLATE, [Some(text), None]),
            None => (SETTINGS, in_settings(&settings)),
        };
        let default = default.ok_or_else(|| files.wrong(SETTINGS, NONE))?;
        let of = |text: &str| jinja::environment(text).map_err(|e| files.wrong(name, told(&e)));
        Ok(ChatTemplate {
            environment: of(default)?,
            with_tools: tools.map(of).transpose()?,
            special: special(files, &settings)?,
            name,
            files: files.clone(),
        })
    }

    /// Whether the template for chats with tools has this in its text.
    pub fn mentions(&self, text: &str) -> bool {
        let environment = self.with_tools.as_ref().unwrap_or(&self.environment);
        let template = environment.get_template("chat");
        template.is_ok_and(|t| t.source().contains(text))
    }

    /// A chat as one text, which ends where the model's reply begins. Messages are objects with `role` and `content`, and what else a template
    /// reads; tools a list of their schemas.
    ///
    /// # Errors
    /// When the template does not take it.
    pub fn render(&self, messages: &[Json], tools: Option<&Json>) -> Result<String> {
        let messages: Vec<Ordered> = messages.iter().map(Ordered::from).collect();
        self.render_with(&messages, tools.map(Ordered::from).as_ref(), true, &[])
    }

    /// The same of JSON that was read in order, where the reply may be part of the chat; `extra` are other variables, `enable_thinking` for one.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: &[Ordered],
        tools: Option<&Ordered>,
        reply: bool,
        extra: &[(&str, Ordered)],
    ) -> Result<String> {
        let environment = match (&self.with_tools, tools) {
            (Some(with_tools), Some(_)) => with_tools,
            _ => &self.environment,
        };
        let messages = messages.iter().map(|m| plain(&m.0)).collect::<Vec<_>>();
        // transformers gives these always: templates ask whether they are none.
        let own = [
            ("messages", Value::from(messages)),
            ("tools", Value::from(tools.map(|t| t.0.clone()))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(reply)),
        ];
        let special = self.special.iter().map(|(name, text)| (name.as_str(), text.clone()));
        let extra = extra.iter().map(|(name, v)| (*name, v.0.clone()));
        let all = Value::from_pairs(special.chain(own).chain(extra));
        let rendered = environment.get_template("chat").and_then(|t| t.render(all));
        rendered.map_err(|e| self.files.wrong(self.name, told(&e)))
    }
}

/// A message as templates expect it, though servers are given others: no fields that are null, text in one piece, arguments of calls as objects.
fn plain(message: &Value) -> Value {
    let mut fields: Vec<(Value, Value)> = fields(message).filter(|(_, v)| !v.is_none()).collect();
    for (name, value) in &mut fields {
        *value = match name.as_str() {
            Some("content") => one_text(value),
            Some("tool_calls") => value
                .try_iter()
                .map_or_else(|_| value.clone(), |all| all.map(|c| call(&c)).collect()),
            _ => continue,
        };
    }
    let at = |fields: &[(Value, Value)], name: &str| fields.iter().position(|(n, _)| n.as_str() == Some(name));
    if let Some(thought) = THOUGHTS.iter().find_map(|name| at(&fields, name)) {
        let thought = fields[thought].1.clone();
        let own = at(&fields, "thinking").map(|i| fields.remove(i).1);
        fields.insert(0, ("thinking".into(), own.unwrap_or_else(|| thought.clone())));
        match at(&fields, "reasoning_content") {
            Some(i) => fields[i].1 = thought,
            None => fields.push(("reasoning_content".into(), thought)),
        }
    }
    Value::from_pairs(fields)
}

fn fields(object: &Value) -> impl Iterator<Item = (Value, Value)> {
    let names = object.try_iter().into_iter().flatten();
    names.filter_map(|name| Some((name.clone(), object.get_item(&name).ok()?)))
}

/// Parts that are all text, as one; templates of models of text alone know no parts.
fn one_text(content: &Value) -> Value {
    if content.kind() != ValueKind::Seq {
        return content.clone();
    }
    let text = |part: Value| match part.get_attr("type").ok()?.as_str() {
        Some("text") => part.get_attr("text").ok()?.as_str().map(str::to_owned),
        _ => None,
    };
    let texts: Option<Vec<String>> = content.try_iter().into_iter().flatten().map(text).collect();
    texts.map_or_else(|| content.clone(), |t| t.join("\n").into())
}

/// A call whose arguments, which OpenAI has as text, are the object that the text is.
fn call(call: &Value) -> Value {
    let parsed = |v: &Value| {
        let object = v.as_str().and_then(|text| Ordered::parse(text).ok());
        object.filter(|o| o.0.kind() == ValueKind::Map).map(|o| o.0)
    };
    let with = |(name, v): (Value, Value)| match name.as_str() {
        Some("arguments") => (name, parsed(&v).unwrap_or(v)),
        Some("function") => (name, self::call(&v)),
        _ => (name, v),
    };
    match call.kind() {
        ValueKind::Map => Value::from_pairs(fields(call).map(with)),
        _ => call.clone(),
    }
}

/// The templates that settings hold, with and without tools: a text, or those with these names.
fn in_settings(settings: &Json) -> [Option<&str>; 2] {
    match &settings["chat_template"] {
        Json::String(text) => [Some(text), None],
        Json::Array(all) => ["default", "tool_use"].map(|name| {
            let named = all.iter().find(|t| t["name"] == name)?;
            named["template"].as_str()
        }),
        _ => [None, None],
    }
}

/// Texts of special tokens, which are texts or objects with one.
fn special(files: &Files, settings: &Json) -> Result<BTreeMap<String, Value>> {
    let others: Json = match files.get(SPECIAL) {
        Some(text) => serde_json::from_str(text).map_err(|e| files.wrong(SPECIAL, e))?,
        None => Json::Null,
    };
    let text = |v: &Json| v.as_str().or_else(|| v["content"].as_str()).map(Value::from);
    let mut out = BTreeMap::new();
    for (name, v) in [&others, settings].into_iter().filter_map(Json::as_object).flatten() {
        if name.ends_with("_token")
            && let Some(text) = text(v)
        {
            out.insert(name.clone(), text);
        }
    }
    Ok(out)
}

/// An error with where it is.
fn told(e: &minijinja::Error) -> String {
    let text = e.detail().map_or_else(|| e.kind().to_string(), str::to_owned);
    let line = e.line().map_or_else(String::new, |line| format!(", line {line}"));
    format!("its template of chats{line}: {text}")
}
