//! Text as tokens and back, and chats as one text: `tokenizer.json` by the crate `tokenizers`, templates by `minijinja`, set up as transformers sets up
//! Jinja. A template's `strftime_now` is not there, so that a prompt does not depend on the day; templates ask for it first.

use super::files::Files;
use crate::{Error, Result};
use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::Value as Json;
use serde_json::ser::Formatter;
use std::collections::BTreeMap;
use std::io;

/// The file of a tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// The file of its settings.
const SETTINGS: &str = "tokenizer_config.json";

/// The file of a template of chats.
const TEMPLATE: &str = "chat_template.jinja";

/// A tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// The tokenizer of a model with so many tokens.
    ///
    /// # Errors
    /// When there is none, it is damaged, or has tokens that the model does not have.
    pub fn of(files: &Files, vocabulary: usize) -> Result<Tokenizer> {
        let text = files.get(TOKENIZER).ok_or_else(|| files.wrong(TOKENIZER, "there is none"))?;
        let inner = tokenizers::Tokenizer::from_bytes(text).map_err(|e| files.wrong(TOKENIZER, e))?;
        let largest = inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).max();
        match largest {
            None => Err(files.wrong(TOKENIZER, "it has no tokens")),
            Some((id, token)) if id as usize >= vocabulary => {
                let message = format!("token `{token}` has the number {id}, and the model {vocabulary} tokens");
                Err(files.wrong(TOKENIZER, message))
            }
            Some(_) => Ok(Tokenizer { inner }),
        }
    }

    /// A text's tokens, with those that the tokenizer adds around a text if asked for.
    ///
    /// # Errors
    /// When the tokenizer does not take the text.
    pub fn encode(&self, text: &str, around: bool) -> Result<Vec<i64>> {
        let encoding = self.inner.encode_fast(text, around).map_err(|e| Error::Option(e.to_string()))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// When the tokenizer does not take them.
    pub fn decode(&self, tokens: &[i64]) -> Result<String> {
        let ids: Vec<u32> = tokens.iter().filter_map(|&t| u32::try_from(t).ok()).collect();
        self.inner.decode(&ids, true).map_err(|e| Error::Option(e.to_string()))
    }

    /// The token of this text.
    pub fn token(&self, text: &str) -> Option<i64> {
        self.inner.token_to_id(text).map(i64::from)
    }

    /// The text of tokens that come one after the other.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            tokens: vec![],
            shown: 0,
            from: 0,
        }
    }
}

/// The text of tokens that come one after the other: what is no whole character yet is held back.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    tokens: Vec<i64>,
    /// Tokens whose text has been given.
    shown: usize,
    /// From where on tokens are decoded: enough before `shown` for spaces between words to come out as in the whole.
    from: usize,
}

impl TextStream<'_> {
    /// Takes a token; the text that is whole with it.
    ///
    /// # Errors
    /// When the tokenizer does not take it.
    pub fn push(&mut self, token: i64) -> Result<String> {
        self.tokens.push(token);
        let before = self.tokenizer.decode(&self.tokens[self.from..self.shown])?;
        let all = self.tokenizer.decode(&self.tokens[self.from..])?;
        match all.strip_prefix(&before) {
            // The replacement character stands for bytes of one that is not whole.
            Some(new) if !new.is_empty() && !new.ends_with('\u{fffd}') => {
                (self.from, self.shown) = (self.shown, self.tokens.len());
                Ok(new.to_owned())
            }
            _ => Ok(String::new()),
        }
    }

    /// What was held back of a text that ended.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn rest(&mut self) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[self.from..self.shown])?;
        let all = self.tokenizer.decode(&self.tokens[self.from..])?;
        self.shown = self.tokens.len();
        Ok(all.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

/// A template that makes one text of a chat.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts of special tokens: `bos_token`, `eos_token` and so on.
    special: BTreeMap<String, String>,
    name: &'static str,
    files: Files,
}

impl ChatTemplate {
    /// The template of a model.
    ///
    /// # Errors
    /// When there is none, or it is no template.
    pub fn of(files: &Files) -> Result<ChatTemplate> {
        let settings = match files.get(SETTINGS) {
            Some(text) => serde_json::from_str(text).map_err(|e| files.wrong(SETTINGS, e))?,
            None => Json::Null,
        };
        let (name, template) = match files.get(TEMPLATE) {
            Some(text) => (TEMPLATE, text.to_owned()),
            None => (SETTINGS, in_settings(&settings).ok_or_else(|| files.wrong(SETTINGS, NONE))?),
        };
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        let wrong = |e: minijinja::Error| files.wrong(name, format_args!("its template of chats: {}", told(&e)));
        environment.add_template_owned("chat", template).map_err(wrong)?;
        Ok(ChatTemplate {
            environment,
            special: special(&settings),
            name,
            files: files.clone(),
        })
    }

    /// A chat as one text, which ends where the model's reply begins. Messages are objects with `role` and `content`, and what else a template
    /// reads.
    ///
    /// # Errors
    /// When the template does not take it.
    pub fn render(&self, messages: &[Json], tools: Option<&Json>) -> Result<String> {
        let wrong = |e: minijinja::Error| self.files.wrong(self.name, format_args!("its template of chats: {}", told(&e)));
        let template = self.environment.get_template("chat").map_err(wrong)?;
        let mut values: BTreeMap<&str, Value> = BTreeMap::new();
        values.insert("messages", Value::from_serialize(messages));
        if let Some(tools) = tools {
            values.insert("tools", Value::from_serialize(tools));
        }
        values.insert("add_generation_prompt", true.into());
        values.extend(self.special.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        template.render(context! { ..Value::from_serialize(&values) }).map_err(wrong)
    }
}

const NONE: &str = "there is no template of chats, `chat_template`; a model without one goes on from a text: `brolga generate`";

/// The template that settings hold: a text, or the one that is called `default` among some.
fn in_settings(settings: &Json) -> Option<String> {
    match &settings["chat_template"] {
        Json::String(text) => Some(text.clone()),
        Json::Array(all) => {
            let default = all.iter().find(|t| t["name"] == "default")?;
            Some(default["template"].as_str()?.to_owned())
        }
        _ => None,
    }
}

/// Texts of special tokens, which are texts or objects with one.
fn special(settings: &Json) -> BTreeMap<String, String> {
    let Json::Object(fields) = settings else {
        return BTreeMap::new();
    };
    let text = |v: &Json| v.as_str().or_else(|| v["content"].as_str()).map(str::to_owned);
    let tokens = fields.iter().filter(|(name, _)| name.ends_with("_token"));
    tokens.filter_map(|(name, v)| Some((name.clone(), text(v)?))).collect()
}

/// An error with what it comes from.
fn told(e: &minijinja::Error) -> String {
    let mut text = e.detail().map_or_else(|| e.to_string(), str::to_owned);
    if let Some(line) = e.line() {
        text += &format!(" (line {line} of the template)");
    }
    text
}

/// JSON as Python's `json.dumps` writes it, which the models were trained on.
fn to_json(value: Value, options: minijinja::value::Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let json = serde_json::to_value(&value);
    let json = json.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let mut out = vec![];
    let written = match indent {
        Some(n) => {
            let spaces = vec![b' '; n];
            let format = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            serde::Serialize::serialize(&json, &mut serde_json::Serializer::with_formatter(&mut out, format))
        }
        None => serde::Serialize::serialize(&json, &mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
    };
    written.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// A space behind commas and colons.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}
