//! `config.json`: fields by name, and which of them were read. What nobody reads and what may change the result is an error in the end.

use super::{Error, error::Fail};
use serde_json::{Map, Value as Json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// Fields that say nothing of what a model computes: how it was trained, saved and is sampled from, and names of things. What is off
/// (`null`, `false`, an empty list) says nothing either.
const WITHOUT_EFFECT: &[&str] = &[
    // Saving and loading.
    "_from_model_config",
    "_name_or_path",
    "architectures",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "model_type",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "transformers.js_config",
    "bf16",
    "fp16",
    "fp32",
    "use_flash_attn",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "max_sequence_length",
    "model_max_length",
    "onnx_safe",
    "_remove_final_layer_norm",
    "gradient_checkpointing",
    "name",
    "license",
    "language",
    "unsloth_version",
    "unsloth_fixed",
    "precision",
    "tokenizer_name",
    // What a call returns.
    "return_dict",
    "use_cache",
    "output_past",
    "chunk_size_feed_forward",
    "problem_type",
    "num_labels",
    "id2label",
    "label2id",
    "finetuning_task",
    "task_specific_params",
    "return_loss",
    "is_encoder_decoder",
    "is_decoder",
    // Training.
    "initializer_range",
    "initializer_factor",
    "init_std",
    "init_method_std",
    "initializer_cutoff_factor",
    "pretraining_tp",
    "tensor_parallel_degree",
    "attention_dropout",
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "hidden_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "dropout_rate",
    "activation_dropout",
    "classifier_dropout",
    "classifier_dropout_prob",
    "seq_classif_dropout",
    "qa_dropout",
    "attn_dropout_prob",
    "emb_dropout_prob",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "classifier_proj_size",
    "sinusoidal_pos_embds",
    "tie_weights_",
    "z_loss",
    "mask_time_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_feature_prob",
    "mask_feature_length",
    "mask_feature_min_masks",
    "encoder_stride",
    "logit_scale_init_value",
    "median_filter_width",
    "router_aux_loss_coef",
    // Sampling.
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "unk_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_decoder_ids",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "suppress_tokens",
    "max_length",
    "min_length",
    "max_new_tokens",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "max_context_size",
    "chat_format",
    "user_token_id",
    "assistant_token_id",
    "cache_implementation",
    "prefix",
];

/// True for what says nothing: an object does where its fields do.
fn off(v: &Json) -> bool {
    match v {
        Json::Null | Json::Bool(false) => true,
        Json::Array(l) => l.is_empty(),
        Json::Object(o) => o.values().all(off),
        Json::String(s) => s.is_empty(),
        _ => false,
    }
}

/// A file of fields, or an object inside of one.
pub struct Config {
    file: String,
    /// The names around this object, with dots.
    path: String,
    fields: Map<String, Json>,
    read: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no object of JSON.
    pub fn read(path: &Path) -> Result<Config, Error> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
            file: file.clone(),
            source,
        })?;
        let wrong = |message: String| Error::File {
            file: file.clone(),
            message,
        };
        let json: Json = serde_json::from_str(&text).map_err(|e| wrong(format!("no JSON: {e}")))?;
        let Json::Object(fields) = json else {
            return Err(wrong("expected an object of fields".into()));
        };
        Ok(Config::of(file, fields))
    }

    /// The fields of a file.
    pub fn of(file: String, fields: Map<String, Json>) -> Config {
        Config {
            file,
            path: String::new(),
            fields,
            read: RefCell::default(),
        }
    }

    /// The same with fields in place of the file's, by names with dots and values in JSON, or texts.
    ///
    /// # Errors
    /// When a field that is to have others inside is no object.
    pub fn changed(mut self, changes: &[(String, String)]) -> Result<Config, Error> {
        for (name, value) in changes {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.clone()));
            let mut at = &mut self.fields;
            let mut names = name.split('.').peekable();
            while let Some(part) = names.next() {
                if names.peek().is_none() {
                    at.insert(part.to_owned(), value.clone());
                    break;
                }
                let inner = at.entry(part).or_insert_with(|| Json::Object(Map::new()));
                at = match inner {
                    Json::Object(inner) => inner,
                    other => {
                        let message = format!("`{name}`: `{part}` is {other}, and has no fields");
                        return Err(Error::File {
                            file: self.file,
                            message,
                        });
                    }
                };
            }
        }
        Ok(self)
    }

    /// Its fields.
    pub fn into_fields(self) -> Map<String, Json> {
        self.fields
    }

    /// An error about a field.
    pub fn wrong(&self, field: &str, message: impl std::fmt::Display) -> Fail {
        Fail::Config(Error::File {
            file: self.file.clone(),
            message: format!("`{}{field}`: {message}", self.path),
        })
    }

    /// A field that is there, and not null.
    pub fn get(&self, field: &str) -> Option<&Json> {
        self.read.borrow_mut().insert(field.to_owned());
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// True where a field is there, and not null.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// True where a field is there, and null.
    pub fn is_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Json::is_null)
    }

    /// Marks fields as understood: whatever they say has no effect on this family.
    pub fn without_effect(&self, fields: &[&str]) {
        self.read.borrow_mut().extend(fields.iter().map(|f| (*f).to_owned()));
    }

    /// An object of fields; `None` where it is not there.
    ///
    /// # Errors
    /// When the field is something else.
    pub fn section(&self, field: &str) -> Result<Option<Config>, Fail> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Object(fields)) => Ok(Some(Config {
                file: self.file.clone(),
                path: format!("{}{field}.", self.path),
                fields: fields.clone(),
                read: RefCell::default(),
            })),
            Some(other) => Err(self.wrong(field, format_args!("{other}, expected an object"))),
        }
    }

    /// A number of things, from 1 on.
    ///
    /// # Errors
    /// When there is no such field, or it is no such number.
    pub fn size(&self, field: &str) -> Result<usize, Fail> {
        self.opt_size(field)?.ok_or_else(|| self.wrong(field, "is missing"))
    }

    /// A number of things; `None` where there is no such field.
    ///
    /// # Errors
    /// When it is no number from 1 on.
    pub fn opt_size(&self, field: &str) -> Result<Option<usize>, Fail> {
        const MOST: u64 = 1 << 31;
        match self.get(field) {
            None => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if (1..=MOST).contains(&n) => Ok(Some(n as usize)),
                _ => Err(self.wrong(field, format_args!("{v}, expected a whole number from 1 to {MOST}"))),
            },
        }
    }

    /// A number of layers.
    ///
    /// # Errors
    /// As [`Config::size`]; when there are more than any model has.
    pub fn layers(&self, field: &str) -> Result<usize, Fail> {
        const MOST: usize = 4096;
        match self.size(field)? {
            n if n <= MOST => Ok(n),
            n => Err(self.wrong(field, format_args!("{n}, expected at most {MOST} layers"))),
        }
    }

    /// A number; `None` where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn opt_float(&self, field: &str) -> Result<Option<f64>, Fail> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => match v.as_f64() {
                Some(x) => Ok(Some(x)),
                None => Err(self.wrong(field, format_args!("{v}, expected a number"))),
            },
        }
    }

    /// A number, or what it is where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn float(&self, field: &str, default: f64) -> Result<f64, Fail> {
        Ok(self.opt_float(field)?.unwrap_or(default))
    }

    /// A flag, or what it is where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool, Fail> {
        match self.get(field) {
            None => Ok(default),
            Some(Json::Bool(b)) => Ok(*b),
            Some(v) => Err(self.wrong(field, format_args!("{v}, expected true or false"))),
        }
    }

    /// A text; `None` where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn opt_word(&self, field: &str) -> Result<Option<&str>, Fail> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::String(s)) => Ok(Some(s)),
            Some(v) => Err(self.wrong(field, format_args!("{v}, expected a text"))),
        }
    }

    /// A text, or what it is where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn word<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str, Fail> {
        Ok(self.opt_word(field)?.unwrap_or(default))
    }

    /// A list of numbers; `None` where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn floats(&self, field: &str) -> Result<Option<Vec<f64>>, Fail> {
        let Some(v) = self.get(field) else {
            return Ok(None);
        };
        let list = v.as_array().and_then(|l| l.iter().map(Json::as_f64).collect());
        match list {
            Some(list) => Ok(Some(list)),
            None => Err(self.wrong(field, format_args!("{v}, expected a list of numbers"))),
        }
    }

    /// A list of texts; `None` where there is no such field.
    ///
    /// # Errors
    /// When it is none.
    pub fn words(&self, field: &str) -> Result<Option<Vec<&str>>, Fail> {
        let Some(v) = self.get(field) else {
            return Ok(None);
        };
        let list = v.as_array().and_then(|l| l.iter().map(Json::as_str).collect());
        match list {
            Some(list) => Ok(Some(list)),
            None => Err(self.wrong(field, format_args!("{v}, expected a list of texts"))),
        }
    }

    /// Refuses what a field says, unless that is one of these, or it is not there.
    ///
    /// # Errors
    /// When it says something else.
    pub fn only(&self, field: &str, supported: &[Json]) -> Result<(), Fail> {
        match self.get(field) {
            Some(v) if !supported.contains(v) => {
                let all: Vec<String> = supported.iter().map(Json::to_string).collect();
                Err(self.wrong(
                    field,
                    format_args!("{v} is not supported, expected {}", all.join(" or ")),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Fields that nobody read, and that may change the result.
    pub fn left(&self) -> Vec<(String, String)> {
        let read = self.read.borrow();
        self.fields
            .iter()
            .filter(|(name, v)| !read.contains(*name) && !WITHOUT_EFFECT.contains(&name.as_str()) && !off(v))
            .map(|(name, v)| (format!("{}{name}", self.path), v.to_string()))
            .collect()
    }

    /// Checks that nothing that may change the result is left unread.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(&self) -> Result<(), Error> {
        match self.left() {
            fields if fields.is_empty() => Ok(()),
            fields => Err(Error::Fields {
                file: self.file.clone(),
                fields,
            }),
        }
    }
}
