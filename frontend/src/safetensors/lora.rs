//! LoRA adapters in the folders of PEFT, merged into the weights: `W + scale · B A`, computed once, when the model is compiled.
//!
//! A module of the adapter is the model's module whose name it ends in: adapters are saved with the names of the whole model, and bases perhaps
//! without their head's. Source: Hu et al., arXiv 2106.09685; Kalajdzievski, "rsLoRA", arXiv 2312.03732.

use super::config::Config;
use super::error::Fail;
use super::file::{self, Stored};
use super::{Error, plain};
use brolga_ir::{Attr, Build, ConstData, Constant, DType, Graph, GraphBuilder, Type, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The file of an adapter's fields.
const CONFIG: &str = "adapter_config.json";

/// The file of its tensors.
const TENSORS: &str = "adapter_model.safetensors";

/// What names of modules begin with in an adapter.
const ROOT: &str = "base_model.model.";

/// Both factors of what is added to a matrix, and to an embedding.
const FACTORS: [[&str; 2]; 2] = [
    ["lora_A.weight", "lora_B.weight"],
    ["lora_embedding_A", "lora_embedding_B"],
];

/// Fields that say how an adapter was trained and saved, or what its tensors show themselves.
const WITHOUT_EFFECT: &[&str] = &[
    "r",
    "rank_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "modules_to_save",
    "peft_version",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "bias",
    "qalora_group_size",
    "eva_config",
    "loftq_config",
    "corda_config",
    "megatron_core",
    "ensure_weight_tying",
];

/// An adapter.
pub struct Adapter {
    file: String,
    tensors: BTreeMap<String, Stored>,
    used: BTreeSet<String>,
    /// A factor that the caller gives.
    strength: f64,
    alpha: f64,
    alphas: Vec<(String, f64)>,
    stabilised: bool,
    transposed: bool,
}

impl Adapter {
    /// Reads an adapter's folder.
    ///
    /// # Errors
    /// When a file is missing or corrupt, or the adapter is of a kind that is not supported.
    pub fn read(folder: &Path, strength: f64) -> Result<Adapter, Error> {
        let config = Config::read(&folder.join(CONFIG))?;
        let read = || -> Result<Adapter, Fail> {
            config.only("peft_type", &[json!("LORA")])?;
            config.without_effect(WITHOUT_EFFECT);
            Ok(Adapter {
                file: folder.join(TENSORS).display().to_string(),
                tensors: file::file(&folder.join(TENSORS))?,
                used: BTreeSet::new(),
                strength,
                alpha: config.float("lora_alpha", 8.0)?,
                alphas: patterns(&config, "alpha_pattern")?,
                stabilised: config.flag("use_rslora", false)?,
                transposed: config.flag("fan_in_fan_out", false)?,
            })
        };
        let adapter = read().map_err(plain)?;
        config.finish()?;
        Ok(adapter)
    }

    /// A tensor of a module: `lora_A.weight` of `model.layers.0.self_attn.q_proj`.
    fn tensor(&mut self, module: &str, tensor: &str) -> Option<Stored> {
        let end = format!("{module}.{tensor}");
        let of = |name: &str| {
            let name = name.strip_prefix(ROOT).unwrap_or(name);
            name == end || name.strip_suffix(&end).is_some_and(|rest| rest.ends_with('.'))
        };
        let (name, stored) = self.tensors.iter().find(|(name, _)| of(name))?;
        self.used.insert(name.clone());
        Some(stored.clone())
    }

    /// What was saved with the adapter in place of the tensor `name` of a model, or that.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn replace(&mut self, graph: &mut Graph, name: &str, w: Value) -> Result<Value, String> {
        let Some((module, which)) = name.rsplit_once('.') else {
            return Ok(w);
        };
        // Embeddings may have been saved with what is added to them.
        let whole = self.tensor(module, which);
        match whole.or_else(|| self.tensor(module, &format!("base_layer.{which}"))) {
            Some(other) => self.whole(graph, name, w, &other),
            None => Ok(w),
        }
    }

    /// The tensor `name` of a model with what this adapter adds to it.
    ///
    /// # Errors
    /// When the adapter's factors do not fit.
    pub fn add(&mut self, graph: &mut Graph, name: &str, w: Value) -> Result<Value, String> {
        let Some(module) = name.strip_suffix(".weight") else {
            return Ok(w);
        };
        let found = FACTORS
            .iter()
            .find_map(|pair| Some((self.tensor(module, pair[0])?, pair)));
        let Some((a, pair)) = found else {
            return Ok(w);
        };
        let (b, embedding) = (self.tensor(module, pair[1]), *pair == FACTORS[1]);
        let Some(b) = b else {
            return Err(format!("{}: `{module}` has one factor without the other", self.file));
        };
        let ([rank, inner], [out, same]) = (&a.shape[..], &b.shape[..]) else {
            return Err(format!(
                "{}: `{module}`: {:?} and {:?}, expected matrices",
                self.file, a.shape, b.shape
            ));
        };
        if rank != same {
            return Err(format!(
                "{}: `{module}`: factors {:?} and {:?} of other ranks",
                self.file, b.shape, a.shape
            ));
        }
        let turned = embedding || self.transposed;
        let ty = graph.ty(w).clone();
        let shape = if turned { [*inner, *out] } else { [*out, *inner] };
        if ty != Type::fixed(ty.dtype, &shape) {
            return Err(format!(
                "{}: `{module}`: factors of a matrix {shape:?} for {ty}",
                self.file
            ));
        }
        let scale = self.scale(module, *rank);
        let mut g = GraphBuilder {
            graph,
            origin: format!("{module}.lora").into(),
        };
        let a = constant(&mut g, a)?;
        let b = constant(&mut g, b)?;
        let f32 = || Attr::DType(DType::F32);
        let none = || Attr::axes(&[]);
        // Over the rank: B A, or its transpose.
        let (operands, over) = if turned { ([a, b], [0, 1]) } else { ([b, a], [1, 0]) };
        let attrs = [
            none(),
            none(),
            Attr::axes(&[over[0]]),
            Attr::axes(&[over[1]]),
            f32(),
            f32(),
        ];
        let delta = g.call("contract", &attrs, &operands)?;
        let scale = g.splat(DType::F32, &ty.shape, scale)?;
        let delta = g.call("mul", &[], &[delta, scale])?;
        let wide = cast(&mut g, w, DType::F32)?;
        let sum = g.call("add", &[], &[wide, delta])?;
        cast(&mut g, sum, ty.dtype)
    }

    /// Leaves what it has for the tensor `name` to another graph.
    pub fn leave(&mut self, name: &str) {
        let Some((module, which)) = name.rsplit_once('.') else {
            return;
        };
        let base = format!("base_layer.{which}");
        for tensor in [which, &base].into_iter().chain(FACTORS.into_iter().flatten()) {
            self.tensor(module, tensor);
        }
    }

    fn whole(&self, graph: &mut Graph, name: &str, w: Value, other: &Stored) -> Result<Value, String> {
        let ty = graph.ty(w).clone();
        if ty != Type::fixed(ty.dtype, &other.shape) {
            return Err(format!("{}: `{name}` is {:?}, expected {ty}", self.file, other.shape));
        }
        let mut g = GraphBuilder {
            graph,
            origin: format!("{name}.lora").into(),
        };
        let other = constant(&mut g, other.clone())?;
        cast(&mut g, other, ty.dtype)
    }

    /// The factor of a module's product, whose rank its tensors tell.
    fn scale(&self, module: &str, rank: usize) -> f64 {
        let of = |list: &[(String, f64)]| {
            let fits = |key: &str| module == key || module.strip_suffix(key).is_some_and(|rest| rest.ends_with('.'));
            list.iter().find(|(key, _)| fits(key)).map(|(_, x)| *x)
        };
        let alpha = of(&self.alphas).unwrap_or(self.alpha);
        let rank = rank as f64;
        self.strength * alpha / if self.stabilised { rank.sqrt() } else { rank }
    }

    /// Tensors that fit no module of the model.
    pub fn left(&self) -> impl Iterator<Item = String> {
        let names = self.tensors.keys().filter(|n| !self.used.contains(*n));
        names.map(|n| format!("{}: {n}", self.file))
    }
}

/// Numbers for modules whose names end so.
fn patterns(config: &Config, field: &str) -> Result<Vec<(String, f64)>, Fail> {
    let none = Map::new();
    let map = match config.get(field) {
        None => &none,
        Some(Json::Object(map)) => map,
        Some(other) => return Err(config.wrong(field, format_args!("{other}, expected an object"))),
    };
    let plain = |key: &str| key.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    let one = |(key, v): (&String, &Json)| match v.as_f64() {
        Some(x) if plain(key) => Ok((key.clone(), x)),
        Some(_) => Err(config.wrong(
            field,
            format_args!("`{key}` is a pattern; names of modules are supported"),
        )),
        None => Err(config.wrong(field, format_args!("{v}, expected a number"))),
    };
    map.iter().map(one).collect()
}

fn constant(g: &mut GraphBuilder<'_>, stored: Stored) -> Result<Value, String> {
    if !stored.dtype.is_float() {
        return Err(format!("{} factors, expected floats", stored.dtype));
    }
    let v = g.graph.constant(Constant {
        ty: Type::fixed(stored.dtype, &stored.shape),
        data: ConstData::File {
            source: stored.source,
            offset: stored.offset,
        },
    });
    cast(g, v, DType::F32)
}

fn cast(g: &mut GraphBuilder<'_>, v: Value, to: DType) -> Result<Value, String> {
    match g.graph.ty(v).dtype == to {
        true => Ok(v),
        false => g.call("cast", &[Attr::DType(to)], &[v]),
    }
}
