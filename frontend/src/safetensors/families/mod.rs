//! The families that folders may be of, one file each, and the table of them.

mod baichuan;
mod bert;
mod chatglm;
mod clip;
mod distilbert;
mod gemma;
mod gpt2;
mod heads;
mod llama;
mod patches;
mod phi3;
mod qwen;
mod t5;
mod vit;
mod whisper;

use super::config::Config;
use super::error::Fail;
use super::net::Net;

/// Models of one kind.
pub struct Family {
    /// What `model_type` says of them.
    pub types: &'static [&'static str],
    /// Builds the graph.
    pub build: fn(&Config, &mut Net) -> Result<(), Fail>,
}

const FAMILIES: &[Family] = &[
    Family {
        types: &["llama", "mistral", "qwen2", "qwen3", "smollm3"],
        build: llama::build,
    },
    Family {
        types: &["gemma", "gemma2", "gemma3_text"],
        build: gemma::build,
    },
    Family {
        types: &["phi3"],
        build: phi3::build,
    },
    Family {
        types: &["qwen"],
        build: qwen::build,
    },
    Family {
        types: &["baichuan"],
        build: baichuan::build,
    },
    Family {
        types: &["chatglm"],
        build: chatglm::build,
    },
    Family {
        types: &["gpt2"],
        build: gpt2::build,
    },
    Family {
        types: &["bert", "roberta", "xlm-roberta", "camembert"],
        build: bert::build,
    },
    Family {
        types: &["distilbert"],
        build: distilbert::build,
    },
    Family {
        types: &["t5", "mt5"],
        build: t5::build,
    },
    Family {
        types: &["whisper"],
        build: whisper::build,
    },
    Family {
        types: &["vit"],
        build: vit::build,
    },
    Family {
        types: &["clip", "clip_vision_model"],
        build: clip::build,
    },
];

/// The family of a `model_type`.
pub fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.types.contains(&name))
}

/// Every `model_type` that is known.
pub fn known() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|f| f.types).copied()
}

/// What is said of a family that is not known.
pub fn unknown(what: &str) -> String {
    let all: Vec<&str> = known().collect();
    format!(
        "{what}; known are {}; --family NAME reads it as one of them",
        all.join(", ")
    )
}
