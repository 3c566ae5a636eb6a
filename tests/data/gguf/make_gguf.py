"""Makes the GGUF files that Brolga's tests read, each with what other programs compute with it.

    python make_gguf.py

All is a function of this script and of LICENSE-APACHE, which tokenizers are trained on: another run writes the same bytes. Beside the script are
written, for each case NAME:

- `NAME.gguf` and `NAME.npz`: a random model, written as llama.cpp's converter does (permuted rows of queries and keys, norms of Gemma with their
  1), `input_ids` and the `logits` of transformers in f32, with the weights that the file has when they are dequantised;
- `blocks.npz`: bytes in each format, and what they are by `gguf.quants`;
- `tokenizer-NAME.gguf`: vocabularies alone, and `tokenizers.json`: texts and their tokens by sentencepiece, tokenizers and transformers.

Made with Python 3.11, gguf 0.19.0, transformers 5.24.0, torch 2.15.0, sentencepiece 0.2.3, tokenizers 0.23.3 and numpy 2.4.6.
"""

import io
import json
import zlib
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers as t
from gguf import GGMLQuantizationType as T
from gguf import quants

HERE = Path(__file__).resolve().parent
CORPUS = (HERE.parents[2] / "LICENSE-APACHE").read_text()
VOCAB = 64


# Formats that gguf's Python does not write.

def k_blocks(w, bits):
    """Q4_K or Q5_K: scales and minima of 6 bits for 32 elements, of their range."""
    most = 2**bits - 1
    x = w.reshape(-1, 8, 32).astype(np.float32)
    least = np.maximum(-x.min(2), 0)
    scale = np.maximum((x.max(2) + least) / most, 1e-8)
    d, e = [(v.max(1, keepdims=True) / 63).astype(np.float16) for v in (scale, least)]
    up = lambda v, by: np.clip(np.round(v / np.maximum(by.astype(np.float32), 1e-12)), 0, 63).astype(np.uint8)
    s, m = up(scale, d), up(least, e)
    own = np.maximum(d.astype(np.float32) * s, 1e-12)[..., None]
    q = np.clip(np.round((x + (e.astype(np.float32) * m)[..., None]) / own), 0, most).astype(np.uint8)
    numbers = np.concatenate([s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6, s[:, 4:] & 15 | (m[:, 4:] & 15) << 4], 1)
    low = (q[:, 0::2] & 15) | (q[:, 1::2] & 15) << 4
    parts = [d.view(np.uint8), e.view(np.uint8), numbers]
    if bits == 5:
        parts.append((q >> 4 << np.arange(8, dtype=np.uint8)[None, :, None]).sum(1).astype(np.uint8))
    return np.concatenate(parts + [low.reshape(len(x), -1)], 1).reshape(w.shape[0], -1)


def q6_blocks(w):
    """Q6_K: scales of 8 bits for 16 elements, of their largest magnitude."""
    x = w.reshape(-1, 16, 16).astype(np.float32)
    scale = np.abs(x).max(2) / 31
    d = np.maximum(scale.max(1, keepdims=True) / 127, 1e-8).astype(np.float16)
    s = np.clip(np.round(scale / d.astype(np.float32)), 1, 127).astype(np.int8)
    q = np.round(x / (d.astype(np.float32) * s)[..., None])
    q = (np.clip(q, -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], 2)
    high = (q >> 4 << (2 * np.arange(4, dtype=np.uint8))[None, None, :, None]).sum(2).astype(np.uint8)
    n = len(x)
    parts = [low.reshape(n, -1), high.reshape(n, -1), s.view(np.uint8), d.view(np.uint8)]
    return np.concatenate(parts, 1).reshape(w.shape[0], -1)


def packed(w, kind):
    """A matrix in a format, as bytes or an array of its type."""
    match kind:
        case T.F32:
            return w.astype(np.float32)
        case T.Q4_K | T.Q5_K:
            return k_blocks(w, 4 if kind == T.Q4_K else 5)
        case T.Q6_K:
            return q6_blocks(w)
        case _:
            return quants.quantize(w.astype(np.float32), kind)


# Models.

def draw(model, seed, whole):
    """Weights that give outputs of a sensible size; `whole` for norms that are stored as what they are."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=g)
        if name.endswith("norm.weight") or "ln_" in name and p.ndim == 1 and name.endswith("weight"):
            p.data = 0.2 * x + (1.0 if whole else 0.0)
        elif p.ndim == 1:
            p.data = 0.3 * x
        else:
            p.data = x * (1.0 if "embed" in name or "wte" in name or "wpe" in name else p.shape[1] ** -0.5)


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "ln_1": "attn_norm",
    "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}


def file_name(name, arch):
    module, what = name.rsplit(".", 1)
    names = NAMES | (GEMMA if arch in ("gemma2", "gemma3") else {})
    if module.startswith(("model.layers.", "transformer.h.")):
        _, _, number, module = module.split(".", 3)
        return f"blk.{number}.{names[module]}.{what}"
    return f"{names[module]}.{what}"


def permuted(w, heads):
    """Rows in pairs, as the converter of LLaMA stores them."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def dummy_vocabulary(w, n):
    """Tokens that no test reads, so that llama.cpp takes the file."""
    w.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>"] + [f"t{i}" for i in range(n - 3)]
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * n)
    w.add_token_types([2, 3, 3] + [1] * (n - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def model(name, arch, config, kind, keys=None, extra=None, vocabulary=dummy_vocabulary):
    """One case: `kind` is the type of matrices, or gives it for a name; `keys` are further metadata, `extra` further tensors."""
    seed = zlib.crc32(name.encode())
    m = t.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    gemma = arch.startswith("gemma")
    draw(m, seed, not gemma)
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", arch)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_head_count(config.num_attention_heads)
    if arch == "gpt2":
        w.add_feed_forward_length(config.n_inner)
        w.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        w.add_feed_forward_length(config.intermediate_size)
        w.add_head_count_kv(config.num_key_value_heads)
        w.add_layer_norm_rms_eps(config.rms_norm_eps)
        rope = config.rope_parameters
        w.add_rope_freq_base(rope.get("full_attention", rope).get("rope_theta", 1e4))
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        w.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1.0)))
        if arch.startswith("gemma") or head != config.hidden_size // config.num_attention_heads:
            w.add_key_length(head)
            w.add_value_length(head)
    for key, (add, value) in (keys or {}).items():
        getattr(w, f"add_{add}")(f"{arch}.{key}", value)
    vocabulary(w, config.vocab_size)
    for key, x in (extra or {}).items():
        w.add_tensor(key, x.astype(np.float32))
    for key, p in m.named_parameters():
        x, to = p.data.numpy(), file_name(key, arch)
        turned = arch == "gpt2" and x.ndim == 2 and ("c_" in key)
        if turned:
            x = x.T
        pairs = arch == "llama" and (".attn_q." in to or ".attn_k." in to)
        heads = config.num_attention_heads if ".attn_q." in to else getattr(config, "num_key_value_heads", 0)
        if pairs:
            x = permuted(x, heads)
        if x.ndim == 1:
            w.add_tensor(to, (x + 1 if gemma and to.endswith("norm.weight") else x).astype(np.float32))
            continue
        own = kind(to) if callable(kind) else kind
        data = packed(x, own)
        w.add_tensor(to, data, raw_dtype=own)
        back = quants.dequantize(data, own).reshape(x.shape).astype(np.float32)
        if pairs:
            back = back.reshape(heads, -1, 2, back.shape[1]).swapaxes(1, 2).reshape(back.shape)
        p.data = torch.from_numpy((back.T if turned else back).copy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, config.vocab_size, (2, 11))
    with torch.no_grad():
        logits = m(torch.from_numpy(ids)).logits.numpy()
    np.savez_compressed(HERE / f"{name}.npz", input_ids=ids, logits=logits)
    print(name, float(np.abs(logits).max()))


def shape(**more):
    return dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False) | more


def llama3_factors(config):
    """What the converter makes of scalings of LLaMA 3: a factor for each frequency."""
    plain = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    own, _ = t.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return (plain / own.numpy()).astype(np.float32)


def models():
    model("llama", "llama", t.LlamaConfig(**shape(head_dim=4)), T.F16)
    model("llama_bf16", "llama", t.LlamaConfig(**shape(head_dim=4, tie_word_embeddings=True)), T.BF16)
    model("llama_bias", "llama", t.LlamaConfig(**shape(head_dim=4, attention_bias=True, mlp_bias=True)), T.F16)
    scaled = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16,
                  rope_theta=500.0)
    config = t.LlamaConfig(**shape(head_dim=8, num_attention_heads=2, num_key_value_heads=1, rope_parameters=scaled))
    model("llama3", "llama", config, T.F16, extra={"rope_freqs.weight": llama3_factors(config)})
    linear = dict(rope_type="linear", factor=4.0, rope_theta=1e4)
    model("llama_linear", "llama", t.LlamaConfig(**shape(head_dim=4, rope_parameters=linear)), T.F16,
          keys={"rope.scaling.type": ("string", "linear"), "rope.scaling.factor": ("float32", 4.0)})
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=1e4)
    config = t.LlamaConfig(**shape(head_dim=8, num_attention_heads=2, num_key_value_heads=1, rope_parameters=yarn))
    model("llama_yarn", "llama", config, T.F16, keys={
        "rope.scaling.type": ("string", "yarn"), "rope.scaling.factor": ("float32", 4.0), "rope.scaling.original_context_length": ("uint32", 16)})
    model("mistral", "llama", t.MistralConfig(**shape(head_dim=4, sliding_window=4)), T.F16,
          keys={"attention.sliding_window": ("uint32", 4)})
    model("qwen2", "qwen2", t.Qwen2Config(**shape()), T.F16)
    model("qwen3", "qwen3", t.Qwen3Config(**shape(head_dim=8)), T.F16)
    model("gemma", "gemma", t.GemmaConfig(**shape(head_dim=8, tie_word_embeddings=True)), T.F16)
    model("gemma2", "gemma2", t.Gemma2Config(**shape(head_dim=8, query_pre_attn_scalar=8, sliding_window=4, attn_logit_softcapping=2.0,
                                                      final_logit_softcapping=3.0, tie_word_embeddings=True)), T.F16,
          keys={"attention.sliding_window": ("uint32", 4), "attn_logit_softcapping": ("float32", 2.0),
                "final_logit_softcapping": ("float32", 3.0)})
    rope = dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6), sliding_attention=dict(rope_type="default", rope_theta=1e4))
    layers = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
    model("gemma3", "gemma3", t.Gemma3TextConfig(**shape(
        head_dim=8, query_pre_attn_scalar=8, sliding_window=4, num_hidden_layers=7, rope_parameters=rope, layer_types=layers,
        hidden_size=8, tie_word_embeddings=True)), T.F16,
        keys={"attention.sliding_window": ("uint32", 4), "rope.scaling.type": ("string", "linear"), "rope.scaling.factor": ("float32", 8.0)})
    model("phi3", "phi3", t.Phi3Config(**shape(sliding_window=4)), T.F16, keys={"attention.sliding_window": ("uint32", 4)})
    long = dict(rope_type="longrope", long_factor=[1.5, 3.0, 6.0], short_factor=[1.0, 1.5, 2.0], rope_theta=1e4,
                original_max_position_embeddings=8, partial_rotary_factor=0.75)
    config = t.Phi3Config(**shape(num_attention_heads=2, num_key_value_heads=1, rope_parameters=long, original_max_position_embeddings=8))
    factor = 64 / 8
    model("phi3_long", "phi3", config, T.F16, keys={
        "rope.scaling.original_context_length": ("uint32", 8),
        "rope.scaling.attn_factor": ("float32", float(np.sqrt(1 + np.log(factor) / np.log(8))))},
        extra={"rope_factors_long.weight": np.array(long["long_factor"]), "rope_factors_short.weight": np.array(long["short_factor"])})
    model("gpt2", "gpt2", t.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2, n_inner=40), T.F16)
    # Every format, some of them in matrices whose rows are permuted.
    kinds = dict(attn_q=T.Q4_K, attn_k=T.Q5_K, attn_v=T.Q6_K, attn_output=T.Q8_0, ffn_gate=T.Q4_0, ffn_up=T.Q6_K, ffn_down=T.Q5_1,
                 token_embd=T.Q6_K, output=T.Q4_K)
    of = lambda kinds: lambda name: kinds[name.split(".")[-2]]
    wide = shape(hidden_size=256, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1, head_dim=32, num_hidden_layers=1)
    model("mixed", "llama", t.LlamaConfig(**wide), of(kinds))
    kinds = dict(attn_q=T.Q4_1, attn_k=T.Q5_0, attn_v=T.Q5_1, attn_output=T.Q4_0, ffn_gate=T.Q8_0, ffn_up=T.Q4_1, ffn_down=T.Q5_0,
                 token_embd=T.Q8_0)
    small = shape(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
                  vocab_size=384)
    model("small", "llama", t.LlamaConfig(**small), of(kinds), vocabulary=lambda w, n: sentencepiece_vocabulary(w, sentence_piece(True)))
    kinds = dict(attn_qkv=T.Q4_0, attn_output=T.Q8_0, ffn_up=T.Q5_0, ffn_down=T.Q4_1, token_embd=T.Q8_0, position_embd=T.F32)
    model("gpt2_small", "gpt2", t.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=1, n_head=2, n_inner=64), of(kinds))


def blocks():
    rng = np.random.default_rng(7)
    all = {}
    for kind in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
        w = rng.standard_normal((2, 512)).astype(np.float32) * np.float32(0.05)
        own = packed(w, kind)
        # Integers at random, and the numbers of real blocks.
        size = gguf.GGML_QUANT_SIZES[kind][1]
        numbers = dict(Q4_0=range(0, 2), Q4_1=range(0, 4), Q5_0=range(0, 2), Q5_1=range(0, 4), Q8_0=range(0, 2), Q4_K=range(0, 4),
                       Q5_K=range(0, 4), Q6_K=range(208, 210))[kind.name]
        any_bytes = rng.integers(0, 256, own.shape, dtype=np.uint8).reshape(-1, size)
        any_bytes[:, list(numbers)] = own.reshape(-1, size)[:, list(numbers)]
        for name, data in (("own", own), ("any", any_bytes.reshape(own.shape))):
            all[f"{kind.name.lower()}.{name}.bytes"] = data
            all[f"{kind.name.lower()}.{name}.values"] = quants.dequantize(data, kind)
    np.savez_compressed(HERE / "blocks.npz", **all)


# Tokenizers.

TEXTS = [
    "", " ", "Hello, world!", "  two spaces", "It's 12345 o'clock, and we'RE late", "na\u00efve caf\u00e9 \u6771\u4eac \U0001f600", "\n\n\tif (x) {\r\n}\n",
    "Licensed under the Apache License, Version 2.0", "a\u2581b", "<|im_start|>user\nhi<|im_end|> there", "<tool> and<tool>", "</s>end", "UPPERCase \u00c5ngstr\u00f6m",
    "price: $3.50 (50% off)/now", "x  =  1;\t// two", "\u0915\u094d\u0937 \u0e01\u0e34",
]


def sentence_piece(prefix):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()), model_writer=out, model_type="bpe", vocab_size=384, byte_fallback=True,
        add_dummy_prefix=prefix, remove_extra_whitespaces=False, normalization_rule_name="identity", user_defined_symbols=["<tool>"],
        num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()), prefix


def sentencepiece_vocabulary(w, made):
    sp, prefix = made
    n = sp.vocab_size()
    user = [sp.id_to_piece(i) == "<tool>" for i in range(n)]
    kinds = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 4 if user[i] else 1 for i in range(n)]
    w.add_tokenizer_model("llama")
    w.add_token_list([sp.id_to_piece(i) for i in range(n)])
    w.add_token_scores([sp.get_score(i) for i in range(n)])
    w.add_token_types(kinds)
    w.add_bos_token_id(sp.bos_id())
    w.add_eos_token_id(sp.eos_id())
    w.add_unk_token_id(sp.unk_id())
    if not prefix:
        w.add_add_space_prefix(False)
    w.add_chat_template("{% for m in messages %}{{ bos_token if loop.first }}<tool>{{ m['content'] }}{% endfor %}")


def pre_tokenizer(name):
    from tokenizers import Regex, pre_tokenizers as p
    split = lambda regex: p.Sequence([p.Split(Regex(regex), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)])
    level = p.ByteLevel(add_prefix_space=False, use_regex=True)
    from transformers.integrations.gguf import gguf_tokenizer_mapping as known
    match name:
        case "gpt-2":
            return level
        case "smollm":
            return p.Sequence([p.Digits(individual_digits=True), level])
        case _:
            return split(known.GGUF_PRE_TOKENIZER_SPLITS[name])


def byte_level(name):
    tok = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    tok.pre_tokenizer = pre_tokenizer(name)
    tok.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(CORPUS.splitlines(), trainer)
    tok.add_tokens([tokenizers.AddedToken("<tool>", normalized=False)])
    return tok


def byte_level_vocabulary(w, name, tok):
    body = json.loads(tok.to_str())
    added = {a["id"]: a for a in body["added_tokens"]}
    tokens = [tok.id_to_token(i) for i in range(tok.get_vocab_size())]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(name)
    w.add_token_list(tokens)
    w.add_token_types([(3 if added[i]["special"] else 4) if i in added else 1 for i in range(len(tokens))])
    w.add_token_merges([" ".join(m) for m in body["model"]["merges"]])
    w.add_eos_token_id(0)
    w.add_bos_token_id(0)
    w.add_add_bos_token(name == "llama-bpe")


def vocabulary(name, write):
    w = gguf.GGUFWriter(HERE / f"tokenizer-{name}.gguf", "llama")
    write(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def vocabularies():
    all = {}
    for name, prefix in (("spm", True), ("spm-bare", False)):
        made = sentence_piece(prefix)
        vocabulary(name, lambda w: sentencepiece_vocabulary(w, made))
        # sentencepiece takes no control token for its text; who goes on from chats wants that.
        texts = [x for x in TEXTS if "</s>" not in x and "<tool>" not in x]
        all[name] = [[x, made[0].encode(x, add_bos=True), made[0].decode(made[0].encode(x))] for x in texts]
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"):
        tok = byte_level(name)
        vocabulary(name, lambda w: byte_level_vocabulary(w, name, tok))
        begin = [0] if name == "llama-bpe" else []
        all[name] = [[x, begin + tok.encode(x).ids, tok.decode(tok.encode(x).ids)] for x in TEXTS]
    (HERE / "tokenizers.json").write_text(json.dumps(all, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    models()
    blocks()
    vocabularies()
