//! Metadata as the fields of a `config.json`, which families read.
//!
//! Every key of the architecture is understood here, or becomes a field of the same name, which no family knows: an error that names it. Sources:
//! llama.cpp's converter (`convert_hf_to_gguf.py`) and its loader (`llama-model.cpp`).

use super::architectures::Architecture;
use super::metadata::Metadata;
use super::value::{Array, Value};
use crate::safetensors::Error;
use serde_json::{Map, Value as Json, json};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The fields of a configuration.
pub type Fields = Map<String, Json>;

/// Keys of every architecture that have no effect on what is computed here.
const WITHOUT_EFFECT: &[&str] = &["vocab_size", "rope.scaling.finetuned", "tensor_data_layout"];

/// The most elements of a head: none has more than some hundreds.
const MOST_HEAD: u64 = 1 << 16;

/// So many numbers of a tensor, where it is there.
type Numbers<'t> = dyn Fn(&str, usize) -> Result<Option<Vec<f64>>, Error> + 't;

/// What tensors say of a model.
pub struct Facts<'t> {
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// Whether there is a tensor of this name.
    pub has: &'t dyn Fn(&str) -> bool,
    /// Factors of rotary embeddings.
    pub factors: &'t Numbers<'t>,
}

/// Keys of one architecture, and which of them were read.
struct Keys<'m> {
    metadata: &'m Metadata,
    prefix: String,
    read: RefCell<BTreeSet<String>>,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        let key = format!("{}{name}", self.prefix);
        self.read.borrow_mut().insert(key.clone());
        key
    }
    fn count(&self, name: &str) -> Result<Option<u64>, Error> {
        self.metadata.count(&self.key(name))
    }
    /// A count, where 0 means that there is none.
    fn some(&self, name: &str) -> Result<Option<u64>, Error> {
        Ok(self.count(name)?.filter(|n| *n > 0))
    }
    fn needed(&self, name: &str) -> Result<u64, Error> {
        self.metadata.needed(&self.key(name))
    }
    fn float(&self, name: &str) -> Result<Option<f64>, Error> {
        self.metadata.float(&self.key(name))
    }
    fn wrong(&self, name: &str, message: impl std::fmt::Display) -> Error {
        self.metadata.wrong(&self.key(name), message)
    }

    /// Keys that were not read, as one field for the architecture; `None` where there are none.
    fn left(&self) -> Option<Json> {
        let read = self.read.borrow();
        let off = |v: &Value| matches!(v, Value::Int(0) | Value::Bool(false)) || *v == Value::Float(0.0);
        let own = self
            .metadata
            .all()
            .filter_map(|(key, v)| Some((key, key.strip_prefix(&self.prefix)?, v)));
        let left = own.filter(|(key, name, v)| !read.contains(*key) && !WITHOUT_EFFECT.contains(name) && !off(v));
        let left: Fields = left.map(|(_, name, v)| (name.to_owned(), v.json())).collect();
        (!left.is_empty()).then_some(Json::Object(left))
    }
}

/// The fields that a model's metadata say.
///
/// # Errors
/// When a key is missing, or wrong.
pub fn describe(metadata: &Metadata, architecture: &Architecture, facts: &Facts<'_>) -> Result<Fields, Error> {
    let k = Keys {
        metadata,
        prefix: format!("{}.", architecture.name),
        read: RefCell::default(),
    };
    let mut fields = match architecture.name {
        "gpt2" => gpt2(&k)?,
        _ => shared(&k, architecture, facts)?,
    };
    fields.insert("vocab_size".into(), json!(facts.vocabulary));
    fields.insert("tie_word_embeddings".into(), json!(!(facts.has)("output.weight")));
    if metadata.flag(&k.key("attention.causal"))? == Some(false) {
        return Err(k.wrong("attention.causal", "false is not supported"));
    }
    if let Some(left) = k.left() {
        fields.insert(architecture.name.into(), left);
    }
    Ok(fields)
}

fn gpt2(k: &Keys<'_>) -> Result<Fields, Error> {
    let fields = json!({
        "model_type": "gpt2",
        "n_positions": k.needed("context_length")?,
        "n_embd": k.needed("embedding_length")?,
        "n_layer": k.needed("block_count")?,
        "n_head": k.needed("attention.head_count")?,
        "n_inner": k.needed("feed_forward_length")?,
        "layer_norm_epsilon": k.float("attention.layer_norm_epsilon")?.unwrap_or(1e-5),
    });
    Ok(object(fields))
}

fn object(fields: Json) -> Fields {
    match fields {
        Json::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// What LLaMA, and what shares its shape, says.
fn shared(k: &Keys<'_>, architecture: &Architecture, facts: &Facts<'_>) -> Result<Fields, Error> {
    let [hidden, heads, layers] = ["embedding_length", "attention.head_count", "block_count"].map(|n| k.needed(n));
    let (hidden, heads, layers) = (hidden?, heads?, layers?);
    let eps = "attention.layer_norm_rms_epsilon";
    let mut fields = object(json!({
        "model_type": architecture.model_type,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": k.count("attention.head_count_kv")?.unwrap_or(heads),
        "intermediate_size": k.needed("feed_forward_length")?,
        "max_position_embeddings": k.needed("context_length")?,
        "rms_norm_eps": k.float(eps)?.ok_or_else(|| k.wrong(eps, "is missing"))?,
    }));
    let head = match k.some("attention.key_length")? {
        Some(n) => n,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(k.wrong("attention.head_count", format_args!("{heads} for {hidden} elements"))),
    };
    if head > MOST_HEAD {
        return Err(k.wrong(
            "attention.key_length",
            format_args!("{head}, expected at most {MOST_HEAD}"),
        ));
    }
    let value = "attention.value_length";
    if let Some(n) = k.some(value)?.filter(|n| *n != head) {
        return Err(k.wrong(
            value,
            format_args!("{n}, where keys have {head}; other sizes are not supported"),
        ));
    }
    fields.insert("head_dim".into(), json!(head));
    rotary(k, architecture, facts, head, &mut fields)?;
    for (name, bias) in [("attention_bias", "attn_q.bias"), ("mlp_bias", "ffn_up.bias")] {
        if (facts.has)(&format!("blk.0.{bias}")) {
            fields.insert(name.into(), json!(true));
        }
    }
    match architecture.name {
        "llama" => {
            if let Some(window) = k.some("attention.sliding_window")? {
                fields.insert("model_type".into(), json!("mistral"));
                fields.insert("sliding_window".into(), json!(window));
            }
        }
        "phi3" => {
            let window = k.some("attention.sliding_window")?;
            fields.insert("sliding_window".into(), json!(window));
        }
        "gemma2" | "gemma3" => gemma(k, architecture, [hidden, heads, layers, head], &mut fields)?,
        _ => {}
    }
    Ok(fields)
}

fn gemma(
    k: &Keys<'_>,
    architecture: &Architecture,
    [hidden, heads, layers, head]: [u64; 4],
    fields: &mut Fields,
) -> Result<(), Error> {
    let third = architecture.name == "gemma3";
    // The largest of a generation scales scores by the share of a head, the others by its size; its layers tell it, as they tell llama.cpp.
    let largest = layers == if third { 62 } else { 46 };
    let scalar = if largest {
        hidden as f64 / heads as f64
    } else {
        head as f64
    };
    fields.insert("query_pre_attn_scalar".into(), json!(scalar));
    let window = "attention.sliding_window";
    match k.some(window)? {
        Some(n) => fields.insert("sliding_window".into(), json!(n)),
        None if third => return Err(k.wrong(window, "is missing")),
        None => None,
    };
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(x) = k.float(cap)? {
            fields.insert(cap.into(), json!(x));
        }
    }
    let pattern = k.key("attention.sliding_window_pattern");
    match k.metadata.get(&pattern) {
        None => {}
        Some(Value::Array(Array::Numbers(all))) if all.iter().all(|v| matches!(v, Value::Bool(_))) => {
            let kind = |v: &Value| match v {
                Value::Bool(true) => "sliding_attention",
                _ => "full_attention",
            };
            fields.insert("layer_types".into(), all.iter().map(kind).collect());
        }
        Some(_) => {
            let every = k.metadata.needed(&pattern)?;
            fields.insert("sliding_window_pattern".into(), json!(every));
        }
    }
    if third && let Some(base) = k.float("rope.freq_base_swa")? {
        fields.insert("rope_local_base_freq".into(), json!(base));
    }
    Ok(())
}

/// Rotary embeddings: their base, what part of a head is turned, and their scaling.
fn rotary(
    k: &Keys<'_>,
    architecture: &Architecture,
    facts: &Facts<'_>,
    head: u64,
    fields: &mut Fields,
) -> Result<(), Error> {
    fields.insert("rope_theta".into(), json!(k.float("rope.freq_base")?.unwrap_or(1e4)));
    let count = "rope.dimension_count";
    let turned = k.some(count)?.unwrap_or(head);
    if turned != head {
        if turned > head || architecture.permuted || architecture.name.starts_with("gemma") {
            return Err(k.wrong(count, format_args!("{turned} of heads of {head} is not supported")));
        }
        // A quarter more, so that rounding takes none away.
        fields.insert(
            "partial_rotary_factor".into(),
            json!((turned as f64 + 0.25) / head as f64),
        );
    }
    let kind = k.metadata.text(&k.key("rope.scaling.type"))?.unwrap_or("");
    let factor = match k.float("rope.scaling.factor")? {
        Some(x) => Some(x),
        None => k.float("rope.scale_linear")?,
    }
    .filter(|x| *x != 0.0);
    let original = k.some("rope.scaling.original_context_length")?;
    let attention = k.float("rope.scaling.attn_factor")?;
    let yarn = [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")];
    let betas = yarn.map(|(field, name)| k.float(&format!("rope.scaling.{name}")).map(|x| (field, x)));
    let factors = |name: &str| (facts.factors)(name, turned as usize / 2);
    let (long, short) = (
        factors("rope_factors_long.weight")?,
        factors("rope_factors_short.weight")?,
    );
    let frequencies = factors("rope_freqs.weight")?;
    let differs = |x: Option<f64>| x.is_some_and(|x| x != 1.0);
    if differs(factor) && kind != "none" && (long.is_some() || frequencies.is_some()) {
        return Err(k.wrong(
            "rope.scaling.factor",
            "a factor beside tensors of factors is not supported",
        ));
    }
    if differs(attention) && kind != "yarn" && long.is_none() && frequencies.is_none() {
        return Err(k.wrong(
            "rope.scaling.attn_factor",
            "it is supported with yarn and tensors of factors",
        ));
    }
    // Below 0 it is not said.
    let mixed = k.float("rope.scaling.yarn_ext_factor")?.filter(|x| *x >= 0.0);
    let usual = if kind == "yarn" { 1.0 } else { 0.0 };
    if let Some(x) = mixed.filter(|x| *x != usual) {
        return Err(k.wrong("rope.scaling.yarn_ext_factor", format_args!("{x}, expected {usual}")));
    }
    let context = fields.get("max_position_embeddings").cloned().unwrap_or_default();
    let mut scaling = match (kind, long.zip(short), frequencies) {
        ("" | "none" | "longrope", Some((long, short)), None) => object(json!({
            "rope_type": "longrope", "long_factor": long, "short_factor": short, "factor": 1.0,
            "attention_factor": attention.unwrap_or(1.0),
        })),
        // One factor for each frequency, whatever the length.
        ("" | "none" | "llama3", None, Some(all)) => object(json!({
            "rope_type": "longrope", "long_factor": all, "short_factor": all, "factor": 1.0,
            "attention_factor": attention.unwrap_or(1.0), "original_max_position_embeddings": context,
        })),
        ("" | "linear", None, None) => match factor {
            Some(x) if x != 1.0 => object(json!({"rope_type": "linear", "factor": x})),
            _ => Fields::new(),
        },
        ("none", None, None) => Fields::new(),
        ("yarn", None, None) => {
            let factor = factor.ok_or_else(|| k.wrong("rope.scaling.factor", "is missing"))?;
            let mut fields = object(json!({"rope_type": "yarn", "factor": factor}));
            for beta in betas {
                if let (field, Some(x)) = beta? {
                    fields.insert(field.into(), json!(x));
                }
            }
            if let Some(x) = attention {
                fields.insert("attention_factor".into(), json!(x * (1.0 + 0.1 * factor.ln())));
            }
            fields
        }
        (kind, ..) => {
            let message =
                format!("`{kind}` is not supported with these tensors, expected none, linear, yarn or longrope");
            return Err(k.wrong("rope.scaling.type", message));
        }
    };
    if scaling.is_empty() {
        return Ok(());
    }
    if let Some(n) = original
        && scaling["rope_type"] != "linear"
    {
        scaling.insert("original_max_position_embeddings".into(), json!(n));
    }
    fields.insert("rope_scaling".into(), Json::Object(scaling));
    Ok(())
}
