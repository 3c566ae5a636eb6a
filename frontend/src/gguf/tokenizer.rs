//! A file's tokenizer as the texts that a folder has beside its weights: `tokenizer.json`, which the crate `tokenizers` reads, and
//! `tokenizer_config.json` with the template of chats.
//!
//! Of `tokenizer.ggml.model` there are `gpt2` (merges of bytes, behind a split that `tokenizer.ggml.pre` names) and `llama` (SentencePiece's merges
//! by scores, with bytes for what has no token). Sources: llama.cpp's `llama-vocab.cpp`, the `tokenizer.json` of the models that splits are named
//! for, and transformers' `generate_merges`.

use super::metadata::Metadata;
use crate::safetensors::Error;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";
const TEMPLATE: &str = "tokenizer.chat_template";

/// What SentencePiece has for a space.
const SPACE: &str = "\u{2581}";

/// Numbers of `tokenizer.ggml.token_type`.
mod kind {
    /// A token that stands for what has none.
    pub const UNKNOWN: i64 = 2;
    /// A token without text.
    pub const CONTROL: i64 = 3;
    /// A token that texts are split at.
    pub const USER: i64 = 4;
}

/// Tokens that end a text where they are there, beside those that keys name: what models of chats end their turns with.
const ENDS: [&str; 10] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<EOT>",
    "[EOT]",
];

/// GPT-2's split with a digit a piece of its own.
const DIGITS: &[&str] = &[r"\p{N}", GPT2];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// llama.cpp's for files that name none.
const DEFAULT: &[&str] = &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];

/// A way to split a text before merges.
struct Split {
    names: &'static [&'static str],
    /// Each cuts what the one before it left.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token needs no merges.
    whole: bool,
    /// Whether texts begin with a token where no key says so.
    begins: bool,
}

const SPLITS: &[Split] = &[
    Split {
        names: &["gpt-2", "phi-2", "mpt", "olmo"],
        patterns: &[GPT2],
        whole: false,
        begins: false,
    },
    Split {
        names: &["smollm", "starcoder", "refact", "command-r"],
        patterns: DIGITS,
        whole: false,
        begins: false,
    },
    Split {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        patterns: &[LLAMA3],
        whole: true,
        begins: true,
    },
    Split {
        names: &["smaug-bpe", "dbrx"],
        patterns: &[LLAMA3],
        whole: false,
        begins: false,
    },
    Split {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"],
        patterns: &[QWEN2],
        whole: false,
        begins: false,
    },
    Split {
        names: &["tekken"],
        patterns: &[TEKKEN],
        whole: true,
        begins: true,
    },
    Split {
        names: &["gpt-4o"],
        patterns: &[GPT4O],
        whole: false,
        begins: false,
    },
    Split {
        names: &["default"],
        patterns: DEFAULT,
        whole: false,
        begins: false,
    },
];

/// A file's tokens.
struct Vocabulary<'m> {
    metadata: &'m Metadata,
    tokens: &'m [String],
    kinds: Vec<i64>,
    /// Numbers of texts.
    numbers: HashMap<&'m str, usize>,
}

/// The token before a text.
const BOS: &str = "tokenizer.ggml.bos_token_id";

/// The token behind a text.
const EOS: &str = "tokenizer.ggml.eos_token_id";

/// The token for what has none.
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// The tokens that keys name, by the name that templates have for them.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", BOS),
    ("eos_token", EOS),
    ("unk_token", UNKNOWN),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// What they are in a vocabulary of SentencePiece whose keys do not say.
const LLAMA: [(&str, usize); 3] = [(UNKNOWN, 0), (BOS, 1), (EOS, 2)];

/// Control tokens of Phi-3 that leave the spaces behind them.
const SPACED: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// The texts of a file, by their names in a folder; none of a file without a tokenizer.
///
/// # Errors
/// When a key is missing, wrong, or names a tokenizer that is not known.
pub fn texts(metadata: &Metadata) -> Result<Vec<(String, String)>, Error> {
    let Some(v) = Vocabulary::of(metadata)? else {
        return Ok(vec![]);
    };
    let mut settings = Map::new();
    for (name, key) in SPECIAL {
        if let Some(id) = v.named(key)? {
            settings.insert(name.into(), json!(v.tokens[id]));
        }
    }
    if let Some(template) = template(metadata)? {
        settings.insert("chat_template".into(), template);
    }
    let tokenizer = v.tokenizer()?;
    let text = |name: &str, json: &Json| (name.to_owned(), json.to_string());
    Ok(vec![
        text("tokenizer.json", &tokenizer),
        text("tokenizer_config.json", &Json::Object(settings)),
    ])
}

/// Tokens that end a text.
///
/// # Errors
/// When a key is wrong.
pub fn ends(metadata: &Metadata) -> Result<Vec<usize>, Error> {
    let Some(v) = Vocabulary::of(metadata)? else {
        return Ok(vec![]);
    };
    let mut all = vec![];
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        all.extend(v.named(&format!("tokenizer.ggml.{key}"))?);
    }
    let added = |id: &usize| matches!(v.kinds.get(*id), Some(&kind::CONTROL | &kind::USER));
    all.extend(
        ENDS.iter()
            .filter_map(|text| v.numbers.get(text).copied())
            .filter(added),
    );
    let mut seen = vec![];
    all.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    Ok(all)
}

/// The template of chats: one text, or several with their names.
fn template(metadata: &Metadata) -> Result<Option<Json>, Error> {
    let one = metadata.text(TEMPLATE)?;
    let named = metadata.texts("tokenizer.chat_templates")?.unwrap_or_default();
    let mut all: Vec<Json> = vec![];
    for name in named.iter().filter(|n| *n != "default") {
        if let Some(text) = metadata.text(&format!("{TEMPLATE}.{name}"))? {
            all.push(json!({"name": name, "template": text}));
        }
    }
    Ok(match (one, all.is_empty()) {
        (None, _) => None,
        (Some(text), true) => Some(json!(text)),
        (Some(text), false) => {
            all.insert(0, json!({"name": "default", "template": text}));
            Some(Json::Array(all))
        }
    })
}

impl<'m> Vocabulary<'m> {
    fn of(metadata: &'m Metadata) -> Result<Option<Vocabulary<'m>>, Error> {
        if matches!(metadata.text(MODEL)?, None | Some("none" | "no_vocab")) {
            return Ok(None);
        }
        let tokens = metadata
            .texts(TOKENS)?
            .ok_or_else(|| metadata.wrong(TOKENS, "is missing"))?;
        let kinds: Vec<i64> = metadata
            .floats(TYPES)?
            .unwrap_or_default()
            .iter()
            .map(|x| *x as i64)
            .collect();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(metadata.wrong(TYPES, format_args!("{} types of {} tokens", kinds.len(), tokens.len())));
        }
        let numbers = tokens
            .iter()
            .enumerate()
            .map(|(id, text)| (text.as_str(), id))
            .collect();
        Ok(Some(Vocabulary {
            metadata,
            tokens,
            kinds,
            numbers,
        }))
    }

    /// The token that a key names.
    fn named(&self, key: &str) -> Result<Option<usize>, Error> {
        match self.metadata.count(key)? {
            Some(id) if id < self.tokens.len() as u64 => Ok(Some(id as usize)),
            Some(id) => Err(self.metadata.wrong(
                key,
                format_args!("token {id}, of a vocabulary of {}", self.tokens.len()),
            )),
            None => {
                let default = LLAMA.iter().find(|(k, _)| *k == key && self.is_sentence_piece());
                Ok(default.map(|(_, id)| *id).filter(|id| *id < self.tokens.len()))
            }
        }
    }

    fn is_sentence_piece(&self) -> bool {
        matches!(self.metadata.text(MODEL), Ok(Some("llama")))
    }

    fn tokenizer(&self) -> Result<Json, Error> {
        let m = self.metadata;
        let (body, begins) = match m.text(MODEL)? {
            Some("gpt2") => self.byte_level()?,
            Some("llama") => (self.sentence_piece()?, true),
            other => {
                let name = other.unwrap_or_default();
                return Err(m.wrong(MODEL, format_args!("`{name}` is not supported, expected gpt2 or llama")));
            }
        };
        let mut all = body;
        // Phi-3's tokens take the spaces behind them, which no key says.
        let third = matches!(m.text("general.architecture"), Ok(Some("phi3"))) && self.is_sentence_piece();
        let added = (0..self.tokens.len()).filter_map(|id| {
            let special = match self.kinds.get(id)? {
                &kind::CONTROL | &kind::UNKNOWN => true,
                &kind::USER => false,
                _ => return None,
            };
            // A text that several tokens have is the last one's.
            (self.numbers[self.tokens[id].as_str()] == id).then(|| {
                let text = self.tokens[id].as_str();
                let strips = third && special && !SPACED.contains(&text);
                json!({
                    "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": strips,
                    "normalized": false, "special": special,
                })
            })
        });
        all["added_tokens"] = added.collect();
        all["post_processor"] = self.around(begins)?;
        Ok(all)
    }

    /// Tokens before and behind a text.
    fn around(&self, begins: bool) -> Result<Json, Error> {
        let m = self.metadata;
        let wanted = |key: &str, default: bool| Ok::<_, Error>(m.flag(key)?.unwrap_or(default));
        let bos = wanted("tokenizer.ggml.add_bos_token", begins)?;
        let eos = wanted("tokenizer.ggml.add_eos_token", false)?;
        let (mut single, mut pair, mut tokens) = (vec![], vec![], Map::new());
        let mut add = |list: &mut Vec<Json>, id: Option<usize>, sequence: usize| {
            if let Some(id) = id {
                let text = &self.tokens[id];
                list.push(json!({"SpecialToken": {"id": text, "type_id": sequence}}));
                tokens.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
            }
        };
        let first = if bos { self.named(BOS)? } else { None };
        let last = if eos { self.named(EOS)? } else { None };
        for (sequence, name) in ["A", "B"].into_iter().enumerate() {
            let lists: &mut [&mut Vec<Json>] = match sequence {
                0 => &mut [&mut single, &mut pair],
                _ => &mut [&mut pair],
            };
            for list in lists {
                add(list, first, sequence);
                list.push(json!({"Sequence": {"id": name, "type_id": sequence}}));
                add(list, last, sequence);
            }
        }
        Ok(match tokens.is_empty() {
            true => Json::Null,
            false => json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}),
        })
    }

    fn vocabulary(&self) -> Json {
        let all = self.tokens.iter().enumerate();
        let last = all.filter(|(id, text)| self.numbers[text.as_str()] == *id);
        Json::Object(last.map(|(id, text)| (text.clone(), json!(id))).collect())
    }

    /// GPT-2's, and whether texts begin with a token by default.
    fn byte_level(&self) -> Result<(Json, bool), Error> {
        let m = self.metadata;
        let name = m.text(PRE)?.unwrap_or("default");
        let split = SPLITS.iter().find(|s| s.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = SPLITS.iter().flat_map(|s| s.names).copied().collect();
            m.wrong(
                PRE,
                format_args!("`{name}` is not supported, expected {}", known.join(", ")),
            )
        })?;
        let given = m.texts(MERGES)?.ok_or_else(|| m.wrong(MERGES, "is missing"))?;
        let mut merges = vec![];
        for (i, merge) in given.iter().enumerate() {
            // The first character may be a space.
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let (left, right) = match at {
                Some(at) => (&merge[..at], &merge[at + 1..]),
                None => return Err(m.wrong(MERGES, format_args!("merge {i} is `{merge}`, expected two texts"))),
            };
            let whole = format!("{left}{right}");
            if let Some(missing) = [left, right, &whole]
                .into_iter()
                .find(|t| !self.numbers.contains_key(*t))
            {
                return Err(m.wrong(
                    MERGES,
                    format_args!("merge {i} is `{merge}`, and `{missing}` is no token"),
                ));
            }
            merges.push(json!([left, right]));
        }
        let mut steps: Vec<Json> = split
            .patterns
            .iter()
            .map(|p| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false}))
            .collect();
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        steps.push(bytes.clone());
        let all = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": null, "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": split.whole,
                "vocab": self.vocabulary(), "merges": merges,
            },
        });
        Ok((all, split.begins))
    }

    /// SentencePiece's.
    fn sentence_piece(&self) -> Result<Json, Error> {
        let m = self.metadata;
        let scores = m.floats(SCORES)?.ok_or_else(|| m.wrong(SCORES, "is missing"))?;
        if scores.len() != self.tokens.len() {
            let message = format!("{} scores of {} tokens", scores.len(), self.tokens.len());
            return Err(m.wrong(SCORES, message));
        }
        let prefix = m.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let unknown = self.named(UNKNOWN)?;
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let mut before = vec![spaces];
        let mut behind = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            before.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            behind.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": before},
            "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Sequence", "decoders": behind},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| &self.tokens[id]),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false, "vocab": self.vocabulary(), "merges": self.merges(&scores),
            },
        }))
    }

    /// Merges of pairs whose text is a token, the one with the best score first.
    fn merges(&self, scores: &[f64]) -> Vec<Json> {
        let mut all: Vec<(f64, &str, &str)> = vec![];
        for (id, text) in self.tokens.iter().enumerate() {
            if self.numbers[text.as_str()] != id {
                continue;
            }
            let first = all.len();
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at(at);
                if self.numbers.contains_key(left) && self.numbers.contains_key(right) {
                    all.push((scores[id], left, right));
                }
            }
            all[first..].sort_by_key(|(_, left, right)| (self.numbers[left], self.numbers[right]));
        }
        let length = |text: &str| text.chars().count();
        all.sort_by(|a, b| {
            let lengths = |m: &(f64, &str, &str)| (length(m.1), length(m.2));
            b.0.total_cmp(&a.0).then_with(|| lengths(b).cmp(&lengths(a)))
        });
        all.into_iter().map(|(_, left, right)| json!([left, right])).collect()
    }
}
