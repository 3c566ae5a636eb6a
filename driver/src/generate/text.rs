//! Text as tokens and back: `tokenizer.json` by the crate `tokenizers`. Chats as text are `chat.rs` beside.
//!
//! Invariants: a text is never cut or padded, whatever the file says of it; the parts of a stream are together what decoding all of its tokens
//! at once gives.

pub use super::chat::{ChatTemplate, Ordered};
use super::files::Files;
use crate::Result;
use serde_json::Value as Json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::AddedToken;

/// The file of a tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// The file of its settings.
pub(super) const SETTINGS: &str = "tokenizer_config.json";

/// Tokens that a character may be held back for. It has four bytes at most, but tokens may have the end of one and the beginning of the next.
const HELD: usize = 32;

/// Tokens of what was before that say whether a stream begins with a space.
const BEFORE: usize = 8;

const NONE: &str = "there is none; where there is a `tokenizer.model` or a `vocab.json`, transformers writes it: \
                    AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";

/// A tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    files: Files,
    /// The token with the highest number.
    highest: (u32, String),
}

impl Tokenizer {
    /// The tokenizer of a model with so many tokens.
    ///
    /// # Errors
    /// When there is none, it is damaged, or has tokens that the model does not have.
    pub fn of(files: &Files, vocabulary: usize) -> Result<Tokenizer> {
        let text = files.get(TOKENIZER).ok_or_else(|| files.wrong(TOKENIZER, NONE))?;
        // Where it is no JSON, this says what is wrong.
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| files.wrong(TOKENIZER, e))?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(text));
        let mut inner = inner.map_err(|e| files.wrong(TOKENIZER, e))?;
        // Both are for batches of short texts. A prompt that was cut would be answered without a word about it.
        inner.with_truncation(None).map_err(|e| files.wrong(TOKENIZER, e))?;
        inner.with_padding(None);
        let settings = settings(files)?;
        let known: Vec<AddedToken> = marked(&settings)
            .filter(|t| inner.token_to_id(&t.content).is_some())
            .collect();
        inner.add_special_tokens(known).map_err(|e| files.wrong(SETTINGS, e))?;
        let highest = inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).max();
        let tokenizer = Tokenizer {
            highest: highest.ok_or_else(|| files.wrong(TOKENIZER, "it has no tokens"))?,
            inner,
            files: files.clone(),
        };
        tokenizer.fits(vocabulary)?;
        Ok(tokenizer)
    }

    /// Checks that a model with so many tokens has all of the tokenizer's.
    ///
    /// # Errors
    /// When not: the highest one that it does not have.
    pub fn fits(&self, vocabulary: usize) -> Result<()> {
        let (id, token) = &self.highest;
        if (*id as usize) < vocabulary {
            return Ok(());
        }
        let message = format!("token `{token}` has the number {id}, and the model {vocabulary} tokens");
        Err(self.files.wrong(TOKENIZER, message))
    }

    /// Tokens that there are.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A text's tokens, with those that the tokenizer adds around a text if asked for.
    ///
    /// # Errors
    /// When the tokenizer does not take the text.
    pub fn encode(&self, text: &str, around: bool) -> Result<Vec<i64>> {
        let encoding = guarded(|| self.inner.encode_fast(text, around)).map_err(|e| self.files.wrong(TOKENIZER, e))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// The text of tokens, without special ones and those that there are not.
    ///
    /// # Errors
    /// When the tokenizer does not take them.
    pub fn decode(&self, tokens: &[i64]) -> Result<String> {
        let ids: Vec<u32> = tokens.iter().filter_map(|&t| u32::try_from(t).ok()).collect();
        guarded(|| self.inner.decode(&ids, true)).map_err(|e| self.files.wrong(TOKENIZER, e))
    }

    /// The token of this text.
    pub fn token(&self, text: &str) -> Option<i64> {
        self.inner.token_to_id(text).map(i64::from)
    }

    /// A token as the vocabulary writes it, special ones too.
    pub fn name(&self, token: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(token).ok()?)
    }

    /// The bytes that each token stands for; none of special tokens, and those that there are not.
    ///
    /// # Errors
    /// When the tokenizer's decoder is none whose tokens stand for bytes.
    pub fn bytes(&self) -> Result<Vec<Vec<u8>>> {
        let text = self.files.get(TOKENIZER).unwrap_or_default();
        let all: Json = serde_json::from_str(text).map_err(|e| self.files.wrong(TOKENIZER, e))?;
        let coding = Coding::of(&all["decoder"]).ok_or_else(|| {
            let message = "which bytes tokens stand for is not known: its decoder is neither ByteLevel, ByteFallback nor Metaspace";
            self.files.wrong(TOKENIZER, message)
        })?;
        let added = self.inner.get_added_tokens_decoder();
        let one = |id: u32| -> Vec<u8> {
            match (added.get(&id), self.inner.id_to_token(id)) {
                (Some(t), _) if t.special => vec![],
                (Some(t), _) => t.content.clone().into_bytes(),
                (None, Some(token)) => coding.bytes(&token),
                (None, None) => vec![],
            }
        };
        Ok((0..=self.highest.0).map(one).collect())
    }

    /// The text of tokens that come one after the other, as [`Tokenizer::decode`] gives it.
    pub fn stream(&self) -> TextStream<'_> {
        self.stream_behind(&[])
    }

    /// The same behind tokens whose text has been shown: a first word has the space before it that it has in the text of both.
    pub fn stream_behind(&self, before: &[i64]) -> TextStream<'_> {
        let all = before.iter().copied().filter(|&t| !self.hidden(t));
        let mut tokens: Vec<i64> = all.rev().take(BEFORE).collect();
        tokens.reverse();
        TextStream {
            tokenizer: self,
            shown: tokens.len(),
            tokens,
        }
    }

    /// Whether a token has no text: it is special, or there is none.
    fn hidden(&self, token: i64) -> bool {
        self.name(token)
            .is_none_or(|text| self.inner.get_added_vocabulary().is_special_token(&text))
    }
}

/// The text of tokens that come one after the other: what is no whole character yet is held back.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Tokens that were shown last, so that spaces between words come out as in the whole, and those that are held back.
    tokens: Vec<i64>,
    shown: usize,
}

impl TextStream<'_> {
    /// Takes a token; the text that is whole with it.
    ///
    /// # Errors
    /// When the tokenizer does not take it.
    pub fn push(&mut self, token: i64) -> Result<String> {
        // Decoders do not see special tokens: the word behind one is not the first.
        if self.tokenizer.hidden(token) {
            return Ok(String::new());
        }
        self.tokens.push(token);
        let all = self.tokenizer.decode(&self.tokens)?;
        // The replacement character stands for bytes of one that is not whole.
        if all.ends_with('\u{fffd}') && self.tokens.len() - self.shown < HELD {
            return Ok(String::new());
        }
        self.show(&all)
    }

    /// What was held back of a text that ended.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn rest(&mut self) -> Result<String> {
        let all = self.tokenizer.decode(&self.tokens)?;
        self.show(&all)
    }

    fn show(&mut self, all: &str) -> Result<String> {
        let before = self.tokenizer.decode(&self.tokens[..self.shown])?;
        let new = match all.strip_prefix(&before) {
            Some(new) => new.to_owned(),
            // Bytes that make no character can change what is before them.
            None => self.tokenizer.decode(&self.tokens[self.shown..])?,
        };
        if !new.is_empty() {
            self.tokens.drain(..self.shown);
        }
        self.shown = self.tokens.len();
        Ok(new)
    }
}

/// How tokens stand for bytes.
enum Coding {
    /// A character of each byte (GPT-2's).
    ByteLevel,
    /// Text, in which a character stands for a space, and `<0x0A>` for a byte.
    Spaces(char),
}

impl Coding {
    /// That of a decoder.
    fn of(decoder: &Json) -> Option<Coding> {
        match decoder["type"].as_str()? {
            "ByteLevel" => Some(Coding::ByteLevel),
            "Metaspace" => Some(Coding::Spaces(decoder["replacement"].as_str()?.chars().next()?)),
            "Replace" if decoder["content"] == " " => {
                let pattern = decoder["pattern"]["String"].as_str()?;
                Some(Coding::Spaces(pattern.chars().next()?))
            }
            "Sequence" => decoder["decoders"].as_array()?.iter().find_map(Coding::of),
            _ => None,
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Coding::ByteLevel => {
                let all: Option<Vec<u8>> = token.chars().map(byte_of).collect();
                all.unwrap_or_default()
            }
            Coding::Spaces(space) => {
                let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                match hex
                    .filter(|h| h.len() == 2)
                    .and_then(|h| u8::from_str_radix(h, 16).ok())
                {
                    Some(byte) => vec![byte],
                    None => token.replace(*space, " ").into_bytes(),
                }
            }
        }
    }
}

/// The byte of a character: printable ones of Latin-1 are themselves, the others follow each other from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(u32::from(c)) {
        Ok(b) => printable(b).then_some(b),
        Err(_) => {
            let nth = (u32::from(c) - 0x100) as usize;
            (0..=255u8).filter(|b| !printable(*b)).nth(nth)
        }
    }
}

/// The crate panics at some files that are no tokenizers, at others when they are used.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err("a part of it is damaged".into()),
    }
}

/// The settings of a tokenizer, null where there are none.
pub(super) fn settings(files: &Files) -> Result<Json> {
    match files.get(SETTINGS) {
        Some(text) => serde_json::from_str(text).map_err(|e| files.wrong(SETTINGS, e)),
        None => Ok(Json::Null),
    }
}

/// Tokens that settings call special; the tokenizer's own file mostly does, too.
fn marked(settings: &Json) -> impl Iterator<Item = AddedToken> {
    let all = settings["added_tokens_decoder"]
        .as_object()
        .into_iter()
        .flat_map(|all| all.values());
    let special = all.filter(|t| t["special"] == true);
    special.filter_map(|t| {
        let is = |field: &str| t[field] == true;
        let token = AddedToken::from(t["content"].as_str()?, true).normalized(is("normalized"));
        Some(
            token
                .lstrip(is("lstrip"))
                .rstrip(is("rstrip"))
                .single_word(is("single_word")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_stand_for_bytes() {
        let of = |decoder: Json| Coding::of(&decoder).expect("it is known");
        let level = of(json!({"type": "ByteLevel"}));
        // GPT-2's: a space is U+0120, a line's end U+010A, and every byte has a character of its own.
        assert_eq!(level.bytes("\u{120}a\u{e9}\u{10a}"), b" a\xe9\n");
        let all: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 256);
        assert_eq!(all.len(), 256);
        let replace = json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "});
        let fallback = of(json!({"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}]}));
        assert_eq!(fallback.bytes("\u{2581}Emma"), b" Emma");
        assert_eq!(fallback.bytes("<0x0A>"), b"\n");
        assert_eq!(fallback.bytes("<0xZZ>"), b"<0xZZ>");
        let metaspace = of(json!({"type": "Metaspace", "replacement": "_"}));
        assert_eq!(metaspace.bytes("_a"), b" a");
        assert!(Coding::of(&json!({"type": "WordPiece"})).is_none());
        assert!(Coding::of(&Json::Null).is_none());
    }
}
