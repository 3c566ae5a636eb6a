//! Folders of Hugging Face's transformers to the tensor IR: `config.json` and `model.safetensors`, or its shards.
//!
//! | module | what it does |
//! | --- | --- |
//! | `checkpoint` | a model's parts, whatever file they are of |
//! | `file`, `weights` | tensors in mapped files; as constants of a graph |
//! | `config` | fields of `config.json`, and which nobody understood |
//! | `lora` | adapters that are merged into the weights |
//! | `compress` | matrices of few bits |
//! | `net` | a network under construction: linear layers, norms, embeddings, attention |
//! | `rope` | rotary position embeddings and their scalings |
//! | `layer` | layers of attention and an inner layer, as encoders have them |
//! | `decoder` | what decoder-only language models have in common |
//! | `steps` | what graphs have in common that are computed in steps, of caches |
//! | `families` | one file a family, and the table of them |
//!
//! Attention, rotary embeddings and norms are operators of the IR; what they become is decided later.

mod checkpoint;
mod compress;
mod config;
mod decoder;
mod error;
mod facts;
mod families;
mod file;
mod layer;
mod lora;
mod net;
mod rope;
mod steps;
mod weights;

pub use compress::WeightType;
pub use error::{Error, Problems};
pub use facts::Facts;
pub(crate) use file::{Change, Stored};
pub use steps::CacheType;

use brolga_ir::Graph;
pub(crate) use checkpoint::Checkpoint;
use config::Config;
use error::Fail;
use families::Family;
use lora::Adapter;
use net::Net;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weights::Weights;

/// The file that makes a folder a model's.
pub const CONFIG: &str = "config.json";

/// Inputs that a model can do without.
pub const OPTIONAL: &[&str] = &["attention_mask", "position_ids", "token_type_ids"];

/// How a folder is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The family in place of what `model_type` says.
    pub family: Option<String>,
    /// Fields of `config.json` in place of the file's: names, with dots for those inside of others, and values in JSON, or texts.
    /// `null` takes one out.
    pub config: Vec<(String, String)>,
    /// Inputs beside those that a family needs, of [`OPTIONAL`].
    pub with: Vec<String>,
    /// Folders of LoRA adapters that are merged into the weights, in order, and factors of what they add.
    pub lora: Vec<(PathBuf, f64)>,
    /// What matrices become; `None` as they are stored.
    pub weights: Option<WeightType>,
    /// What keys and values are kept as, where the graph is for generation.
    pub kv: CacheType,
    /// What the graph is for.
    pub form: Form,
}

/// What a graph is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// All tokens at once, and nothing kept.
    #[default]
    Whole,
    /// Generation: some tokens of several sequences, each behind others, whose keys and values are kept in memory that the caller gives. Of
    /// models with an encoder, what [`Form::Encoder`] gives is an input.
    Steps,
    /// The encoder of a model that has a decoder as well: keys and values of one source, for each layer of the decoder.
    Encoder,
}

/// Reads a model's folder, or a GGUF file. Weights stay in files, which are mapped for as long as the graph refers to them.
///
/// # Errors
/// When a file is missing or corrupt, the family is not known, fields of the configuration are not understood, or tensors are not those
/// that it speaks of; all tensors are listed.
pub fn load(folder: impl AsRef<Path>, options: &Options) -> Result<Graph, Error> {
    Ok(read(folder, options)?.0)
}

/// [`load`], with what else the folder says of the model.
///
/// # Errors
/// As [`load`].
pub fn read(folder: impl AsRef<Path>, options: &Options) -> Result<(Graph, Facts), Error> {
    let folder = folder.as_ref();
    built(folder, Checkpoint::read(folder)?, options)
}

/// The graph of a model's parts, which are those of `folder`, and what else they say of it.
///
/// # Errors
/// As [`load`].
pub(crate) fn built(folder: &Path, checkpoint: Checkpoint, options: &Options) -> Result<(Graph, Facts), Error> {
    if options.form == Form::Whole && options.kv != CacheType::default() {
        return Err(Error::File {
            file: folder.display().to_string(),
            message: "--kv is for models that generate: here no keys and values are kept".into(),
        });
    }
    let (config, family) = described(&checkpoint, options)?;
    let adapters = options
        .lora
        .iter()
        .map(|(path, strength)| Adapter::read(path, *strength));
    let weights = Weights::new(checkpoint.tensors, adapters.collect::<Result<_, _>>()?, checkpoint.what);
    let title = folder.canonicalize().ok();
    let title = title.as_deref().unwrap_or(folder);
    let title = if folder.is_dir() {
        title.file_name()
    } else {
        title.file_stem()
    };
    let title = title.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
    let mut net = Net::new(&title, weights, &options.with, options.form);
    net.weights_as = options.weights;
    net.kv = options.kv;
    let built = (family.build)(&config, &mut net);
    let facts = Facts {
        streamed: net.streamed.values().sum(),
        window: net.window,
        ..facts::facts(&config, checkpoint.generation.as_ref())?
    };
    let folder = folder.display().to_string();
    let what = checkpoint.what;
    let own_name = checkpoint.own_name;
    match built {
        Err(Fail::Config(e)) => return Err(e),
        // A tensor that is missing is the better reason.
        Err(Fail::Module(message)) => {
            let problems = net.weights.problems().renamed(&own_name);
            return Err(match problems.missing.is_empty() && problems.wrong.is_empty() {
                true => Error::Module {
                    folder,
                    module: net.module.to_string(),
                    message,
                },
                false => Error::Tensors { folder, what, problems },
            });
        }
        Ok(()) => {}
    }
    config.finish()?;
    let problems = net.weights.problems().renamed(&own_name);
    if !problems.is_empty() {
        return Err(Error::Tensors { folder, what, problems });
    }
    if let Some(name) = net.with.first() {
        let message = format!("its family, {}, has no input `{name}`", family.types[0]);
        return Err(Error::File { file: folder, message });
    }
    let mut graph = net.graph;
    let missing = match options.form {
        Form::Steps if !graph.inputs.iter().any(|i| i.name.starts_with("keys.")) => Some("do not generate in steps"),
        Form::Encoder if !graph.outputs.iter().any(|(n, _)| n.starts_with("cross_keys.")) => {
            Some("have no encoder for a decoder")
        }
        _ => None,
    };
    if let Some(missing) = missing {
        let message = format!("models of its family, {}, {missing}", family.types[0]);
        return Err(Error::File { file: folder, message });
    }
    graph.prune();
    tracing::debug!(model = graph.name, nodes = graph.nodes.len(), "imported");
    Ok((graph, facts))
}

/// A model's configuration, and the family that it is of.
fn described(checkpoint: &Checkpoint, options: &Options) -> Result<(Config, &'static Family), Error> {
    let config = Config::of(checkpoint.described.clone(), checkpoint.fields.clone()).changed(&options.config)?;
    let name = match &options.family {
        Some(name) => Some(name.as_str()),
        None => config.opt_word("model_type").map_err(plain)?,
    };
    let found = name.and_then(families::find);
    let what = || match name {
        None => "is missing".to_owned(),
        Some(name) => format!("`{name}` is not known"),
    };
    match found {
        Some(family) => Ok((config, family)),
        None => Err(plain(config.wrong("model_type", families::unknown(&what())))),
    }
}

/// What a folder holds.
pub struct Summary {
    /// The first name of its family.
    pub family: String,
    /// The number of tensors.
    pub tensors: usize,
    /// The number of their elements.
    pub parameters: u64,
    /// Bytes of tensors, by element type.
    pub bytes: BTreeMap<String, u64>,
}

/// What a folder holds, whether its tensors fit its configuration or not.
///
/// # Errors
/// When a file is missing or corrupt, or the family is not known.
pub fn summary(folder: impl AsRef<Path>, options: &Options) -> Result<Summary, Error> {
    let checkpoint = Checkpoint::read(folder.as_ref())?;
    let (_, family) = described(&checkpoint, options)?;
    let mut s = Summary {
        family: family.types[0].to_owned(),
        tensors: 0,
        parameters: 0,
        bytes: BTreeMap::new(),
    };
    for stored in checkpoint.tensors.values() {
        s.tensors += 1;
        s.parameters += stored.shape.iter().map(|&d| d as u64).product::<u64>();
        *s.bytes.entry(stored.type_name()).or_default() += stored.bytes();
    }
    Ok(s)
}

fn plain(fail: Fail) -> Error {
    match fail {
        Fail::Config(e) => e,
        Fail::Module(message) => Error::File {
            file: CONFIG.into(),
            message,
        },
    }
}
