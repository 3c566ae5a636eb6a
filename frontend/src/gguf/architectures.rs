//! Architectures that are known, and what their tensors are called in folders.

use super::metadata::Metadata;
use crate::safetensors::{Change, Error};

/// An architecture.
pub struct Architecture {
    /// What `general.architecture` says.
    pub name: &'static str,
    /// The `model_type` of the family that it is read as.
    pub model_type: &'static str,
    /// Whether pairs that rotary embeddings turn are neighbours: rows of queries and keys are stored in another order then.
    pub permuted: bool,
    /// Whether scales of norms are stored as what they are, where the family stores them less 1.
    pub whole_norms: bool,
    /// Names of modules: that of a file and that of a folder.
    top: &'static [[&'static str; 2]],
    /// Names of modules of a layer.
    layer: &'static [[&'static str; 2]],
    /// What a folder's layers are numbered behind.
    layers: &'static str,
}

const TOP: &[[&str; 2]] = &[
    ["token_embd", "model.embed_tokens"],
    ["output_norm", "model.norm"],
    ["output", "lm_head"],
];

const LLAMA: &[[&str; 2]] = &[
    ["attn_norm", "input_layernorm"],
    ["attn_q", "self_attn.q_proj"],
    ["attn_k", "self_attn.k_proj"],
    ["attn_v", "self_attn.v_proj"],
    ["attn_output", "self_attn.o_proj"],
    ["attn_q_norm", "self_attn.q_norm"],
    ["attn_k_norm", "self_attn.k_norm"],
    ["ffn_norm", "post_attention_layernorm"],
    ["ffn_gate", "mlp.gate_proj"],
    ["ffn_up", "mlp.up_proj"],
    ["ffn_down", "mlp.down_proj"],
];

/// With norms behind attention and the inner layer.
const GEMMA: &[[&str; 2]] = &[
    ["attn_norm", "input_layernorm"],
    ["attn_q", "self_attn.q_proj"],
    ["attn_k", "self_attn.k_proj"],
    ["attn_v", "self_attn.v_proj"],
    ["attn_output", "self_attn.o_proj"],
    ["attn_q_norm", "self_attn.q_norm"],
    ["attn_k_norm", "self_attn.k_norm"],
    ["post_attention_norm", "post_attention_layernorm"],
    ["ffn_norm", "pre_feedforward_layernorm"],
    ["ffn_gate", "mlp.gate_proj"],
    ["ffn_up", "mlp.up_proj"],
    ["ffn_down", "mlp.down_proj"],
    ["post_ffw_norm", "post_feedforward_layernorm"],
];

const PHI3: &[[&str; 2]] = &[
    ["attn_norm", "input_layernorm"],
    ["attn_qkv", "self_attn.qkv_proj"],
    ["attn_output", "self_attn.o_proj"],
    ["ffn_norm", "post_attention_layernorm"],
    ["ffn_up", "mlp.gate_up_proj"],
    ["ffn_down", "mlp.down_proj"],
];

const GPT2_TOP: &[[&str; 2]] = &[
    ["token_embd", "transformer.wte"],
    ["position_embd", "transformer.wpe"],
    ["output_norm", "transformer.ln_f"],
    ["output", "lm_head"],
];

const GPT2: &[[&str; 2]] = &[
    ["attn_norm", "ln_1"],
    ["attn_qkv", "attn.c_attn"],
    ["attn_output", "attn.c_proj"],
    ["ffn_norm", "ln_2"],
    ["ffn_up", "mlp.c_fc"],
    ["ffn_down", "mlp.c_proj"],
];

const fn like_llama(name: &'static str, layer: &'static [[&'static str; 2]]) -> Architecture {
    Architecture {
        name,
        model_type: name,
        permuted: false,
        whole_norms: false,
        top: TOP,
        layer,
        layers: "model.layers",
    }
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        permuted: true,
        ..like_llama("llama", LLAMA)
    },
    like_llama("qwen2", LLAMA),
    like_llama("qwen3", LLAMA),
    Architecture {
        whole_norms: true,
        ..like_llama("gemma", LLAMA)
    },
    Architecture {
        whole_norms: true,
        ..like_llama("gemma2", GEMMA)
    },
    Architecture {
        model_type: "gemma3_text",
        whole_norms: true,
        ..like_llama("gemma3", GEMMA)
    },
    like_llama("phi3", PHI3),
    Architecture {
        top: GPT2_TOP,
        layers: "transformer.h",
        ..like_llama("gpt2", GPT2)
    },
];

/// Matrices that families of GPT-2's shape have as `[in, out]`.
const TURNED: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];

/// The architecture that a file's metadata name.
///
/// # Errors
/// When it is not known.
pub fn find(metadata: &Metadata) -> Result<&'static Architecture, Error> {
    const KEY: &str = "general.architecture";
    let name = metadata.text(KEY)?.ok_or_else(|| metadata.wrong(KEY, "is missing"))?;
    ARCHITECTURES.iter().find(|a| a.name == name).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
        metadata.wrong(
            KEY,
            format_args!("`{name}` is not known; known are {}", known.join(", ")),
        )
    })
}

impl Architecture {
    /// The name that a tensor has in a folder; its own where it is not known.
    pub fn folder_name(&self, name: &str) -> String {
        self.renamed(name, [0, 1], "blk", self.layers)
    }

    /// The name that a folder's tensor has in a file.
    pub fn file_name(&self, name: &str) -> String {
        self.renamed(name, [1, 0], self.layers, "blk")
    }

    fn renamed(&self, name: &str, [from, to]: [usize; 2], layers: &str, into: &str) -> String {
        let of = |table: &[[&str; 2]], module: &str| table.iter().find(|t| t[from] == module).map(|t| t[to].to_owned());
        let found = || {
            let (module, tensor) = name.rsplit_once('.')?;
            let module = match module.strip_prefix(layers).and_then(|m| m.strip_prefix('.')) {
                Some(rest) => {
                    let (number, module) = rest.split_once('.')?;
                    number.parse::<u32>().ok()?;
                    format!("{into}.{number}.{}", of(self.layer, module)?)
                }
                None => of(self.top, module)?,
            };
            Some(format!("{module}.{tensor}"))
        };
        found().unwrap_or_else(|| name.to_owned())
    }

    /// What a tensor takes to be what the family's is, by its name in a folder; `heads` are those of queries and of keys.
    pub fn change(&self, name: &str, heads: [u64; 2]) -> Change {
        let of = |module: &str| name.contains(&format!(".{module}."));
        match () {
            () if self.permuted && of("q_proj") => Change::Pairs {
                heads: heads[0] as usize,
            },
            () if self.permuted && of("k_proj") => Change::Pairs {
                heads: heads[1] as usize,
            },
            () if self.whole_norms && name.ends_with("norm.weight") => Change::Less1,
            () if self.name == "gpt2" && name.ends_with(".weight") && TURNED.iter().any(|m| of(m)) => Change::Turned,
            () => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for a in ARCHITECTURES {
            let layers = a.layer.iter().map(|[file, _]| format!("blk.11.{file}.weight"));
            for name in layers.chain(a.top.iter().map(|[file, _]| format!("{file}.weight"))) {
                let folder = a.folder_name(&name);
                assert_ne!(folder, name);
                assert_eq!(a.file_name(&folder), name);
            }
            assert_eq!(a.folder_name("blk.x.attn_q.weight"), "blk.x.attn_q.weight");
        }
    }
}
