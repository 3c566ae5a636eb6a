//! Texts of a form: JSON by a schema, a regular expression, a grammar. The crate `llguidance` says which tokens may follow; others are not
//! chosen.
//!
//! Invariant: it fails closed. What a schema asks for and cannot be held to is an error before anything is generated, and a text that ends by
//! itself is of the form; one that is as long as it may be can be the beginning of such a text only.

use super::schema;
use super::text::Tokenizer;
use crate::{Error, Result};
use brolga_frontend::safetensors::Facts;
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// What the crate says where no token may follow.
const NONE_FITS: &str = "NoExtensionBias";

/// What a text has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that a schema describes.
    Schema(Json),
    /// What a regular expression matches, as Rust's crate `regex` has them.
    Regex(String),
    /// What a grammar in Lark's syntax derives.
    Lark(String),
}

/// Grammars over the tokens of a model.
pub struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// Those of a tokenizer, for a model with so many tokens.
    ///
    /// # Errors
    /// When it is not known which bytes tokens stand for, or no token ends a text.
    pub fn of(tokenizer: &Tokenizer, facts: &Facts) -> Result<Grammars> {
        let wrong = |message: String| Error::Option(format!("grammars: {message}"));
        let ends: Vec<u32> = facts.end.iter().filter_map(|&t| u32::try_from(t).ok()).collect();
        let Some(first) = ends.first() else {
            return Err(wrong("the model has no token that ends a text".into()));
        };
        let mut words = tokenizer.bytes()?;
        words.resize(facts.vocabulary.max(words.len()), vec![]);
        for (i, word) in words.iter_mut().enumerate() {
            // What has no text of its own stands for itself, behind a byte that no text has.
            if word.first().is_none_or(|b| *b == TokTrie::SPECIAL_TOKEN_MARKER) {
                *word = format!(".<[{i}]>").into_bytes();
                word[0] = TokTrie::SPECIAL_TOKEN_MARKER;
            }
        }
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, *first), &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| wrong(e.to_string()))?;
        factory.quiet();
        Ok(Grammars { factory })
    }

    /// What holds a text to a grammar.
    ///
    /// # Errors
    /// When it cannot, or no text fits: what is wrong with the grammar, and where.
    pub fn constraint(&self, grammar: &Grammar) -> Result<Constraint> {
        let top = match grammar {
            Grammar::Schema(schema) => TopLevelGrammar::from_json_schema(written(schema)),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let matcher = self.matcher(top);
        let wrong = |message: String| Err(Error::Option(format!("{}: {message}", grammar.what())));
        match (matcher.get_error().map(|e| first_lines(&e)), grammar) {
            (None, _) => {}
            (Some(e), Grammar::Schema(schema)) => {
                let wrong_with = |part: &Json| {
                    let matcher = self.matcher(TopLevelGrammar::from_json_schema(written(part)));
                    matcher.get_error().map(|e| first_lines(&e))
                };
                let (place, e) = schema::trouble(schema, e, wrong_with);
                return wrong(format!("{place}: {e}"));
            }
            (Some(e), _) => return wrong(e),
        }
        // Some that no text fits are only found out where one begins.
        match matcher.clone().compute_mask_or_eos().map_err(|e| e.to_string()) {
            Ok(_) => Ok(Constraint { matcher }),
            Err(e) if e.starts_with(NONE_FITS) => wrong("no text fits it".into()),
            Err(e) => wrong(first_lines(&e)),
        }
    }

    fn matcher(&self, top: TopLevelGrammar) -> Matcher {
        Matcher::new(self.factory.create_parser(top))
    }
}

/// A schema that says where spaces are, if it does not say so itself: as Python's `json.dumps` has them. Where any may be, small models
/// write nothing else.
pub(crate) fn written(schema: &Json) -> Json {
    const HOW: &str = "x-guidance";
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut().filter(|fields| !fields.contains_key(HOW)) {
        let how = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
        fields.insert(HOW.to_owned(), how);
    }
    schema
}

impl Grammar {
    fn what(&self) -> &'static str {
        match self {
            Grammar::Schema(_) => "JSON schema",
            Grammar::Regex(_) => "regular expression",
            Grammar::Lark(_) => "grammar",
        }
    }
}

/// What is told of an error; what the crate noted for itself is behind it.
fn first_lines(text: &str) -> String {
    let own = |l: &&str| !l.is_empty() && *l != "<state>";
    text.lines().take_while(own).collect::<Vec<_>>().join(" ")
}

/// A text that is held to a grammar.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
}

impl Constraint {
    /// Takes tokens that may not follow out of logits.
    ///
    /// # Errors
    /// When the grammar became too large to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|e| told(&e.to_string()))?;
        for (i, x) in logits.iter_mut().enumerate() {
            if i >= allowed.len() || !allowed.is_allowed(i as u32) {
                *x = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes the next token; true where the text is whole, and nothing may follow.
    ///
    /// # Errors
    /// When it may not follow.
    pub fn push(&mut self, token: i64) -> Result<bool> {
        let token = u32::try_from(token).map_err(|_| told("a token that there is not"))?;
        self.matcher.consume_token(token).map_err(|e| told(&e.to_string()))?;
        Ok(self.matcher.is_stopped())
    }
}

fn told(e: &str) -> Error {
    Error::Option(format!(
        "the grammar cannot be followed any further: {}",
        first_lines(e)
    ))
}
