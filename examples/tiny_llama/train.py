#!/usr/bin/env python3
"""Train the tiny LLaMA of this folder from nothing, on one CPU thread.

The text is Jane Austen's six finished novels (1811-1818, public domain), as the
Debian package r-cran-janeaustenr 1.0.0-1 ships them (MIT licence). R is not
needed: the file is read here. Debian keeps it in
/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb.

    apt-get download r-cran-janeaustenr
    dpkg-deb -x r-cran-janeaustenr_*.deb novels
    pip install torch transformers tokenizers safetensors
    python train.py --text novels/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb --out .

Writes tokenizer.json, tokenizer_config.json, config.json, generation_config.json
and model.safetensors (bf16). Any plain text files can be given to --text instead.
On one machine, with one set of package versions, the same arguments give the same files.
"""

import argparse
import json
import math
import re
import struct
import time
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

END = "<|endoftext|>"  # ends every chapter; id 0
CONTEXT = 256
EDITORIAL = r"\[|\*|Finis$|Northanger Abbey was written in"  # paragraphs that begin so are left out

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 344,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.0",
    "use_cache": True,
    "vocab_size": 1024,
}

TOKENIZER_CONFIG = {
    "add_bos_token": False,
    "add_prefix_space": False,
    "added_tokens_decoder": {
        "0": {
            "content": END,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
    },
    "bos_token": END,
    "clean_up_tokenization_spaces": False,
    "eos_token": END,
    "model_max_length": CONTEXT,
    "tokenizer_class": "PreTrainedTokenizerFast",
}

GENERATION_CONFIG = {
    "bos_token_id": 0,
    "do_sample": True,
    "eos_token_id": 0,
    "temperature": 0.8,
    "transformers_version": "4.57.0",
}


# --- text -------------------------------------------------------------------------


def read_rdb(blob):
    """The character vectors of an R lazy-load database, each joined into one text.

    The file is a row of objects: a big-endian length, then a zlib stream. An object
    that is a character vector is a header, the type word 16, a count, and for each
    string its type word (9), its length (-1: missing) and its bytes.
    """
    while blob:
        stream = zlib.decompressobj()
        raw = stream.decompress(blob[4:])
        blob = stream.unused_data
        at = raw.index(struct.pack(">I", 16)) + 4
        (count,) = struct.unpack_from(">I", raw, at)
        at, lines = at + 4, []
        for _ in range(count):
            flags, length = struct.unpack_from(">Ii", raw, at)
            assert flags & 0xFF == 9, "not a character vector"
            at += 8
            lines.append(raw[at : at + max(length, 0)].decode("utf-8"))
            at += max(length, 0)
        yield "\n".join(lines)


def chapters(book):
    """Each chapter's paragraphs, one to a line, without headings, rules and underscores."""
    parts = re.split(r"(?im)^ *chapter +[ivxl\d]+ *$", book)
    for part in parts[1:] or parts:  # what stands before the first heading is the title page
        paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", part))
        kept = (p for p in paragraphs if re.search("[a-z]", p) and not re.match(EDITORIAL, p))
        yield "\n".join(kept).replace("_", "") + "\n"


def read_chapters(paths):
    found = []
    for path in paths:
        blob = Path(path).read_bytes()
        for book in read_rdb(blob) if path.endswith(".rdb") else [blob.decode("utf-8")]:
            found.extend(chapters(book))
    return found


# --- tokenizer --------------------------------------------------------------------


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[AddedToken(END, special=True, normalized=False)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


# --- model ------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model, tokens):
    """Mean loss over windows that stand side by side."""
    windows = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = sum(model(input_ids=w, labels=w).loss.item() * len(w) for w in windows.split(32))
    return total / len(windows)


def train(model, tokens, held_out, args):
    weights = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.95),
    )
    warmup = min(100, args.steps)

    def scale(step):  # linear warm-up, then cosine down to a twentieth
        if step < warmup:
            return (step + 1) / warmup
        return 0.525 + 0.475 * math.cos(math.pi * (step - warmup) / max(1, args.steps - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    offsets, seen, start = torch.arange(CONTEXT), 0.0, time.time()
    for step in range(1, args.steps + 1):
        first = torch.randint(len(tokens) - CONTEXT, (args.batch, 1))
        batch = tokens[first + offsets]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen += loss.item()
        if step % args.report == 0 or step == args.steps:
            mean, seen = seen / ((step - 1) % args.report + 1), 0.0
            val = evaluate(model, held_out)
            print(f"step {step:5d}  train {mean:.4f}  val {val:.4f}  {time.time() - start:.0f} s", flush=True)


@torch.no_grad()
def sample(model, tokenizer, prompt, length=120, temperature=0.8):
    ids = tokenizer.encode(prompt).ids
    for _ in range(length):
        logits = model(input_ids=torch.tensor([ids[-CONTEXT:]])).logits[0, -1]
        ids.append(torch.multinomial(torch.softmax(logits / temperature, -1), 1).item())
    return tokenizer.decode(ids, skip_special_tokens=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", nargs="+", required=True, help="Rdata.rdb of janeaustenr, or text files")
    parser.add_argument("--out", default=".", help="folder for the files (default: here)")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16, help="windows of 256 tokens a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, default=250, help="steps from one loss report to the next")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    texts = read_chapters(args.text)
    tokenizer = train_tokenizer(texts)
    tokenizer.save(str(out / "tokenizer.json"))
    ids = [i for text in texts for i in tokenizer.encode(text + END).ids]
    tokens = torch.tensor(ids)
    split = int(len(ids) * 0.96)
    tokens, held_out = tokens[:split], tokens[split:]

    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).float()
    size = sum(p.numel() for p in model.parameters())
    print(f"{sum(map(len, texts))} characters, {len(tokens)} + {len(held_out)} tokens, {size} parameters", flush=True)
    train(model, tokens, held_out, args)

    # What is saved, and so what is measured from here on, is rounded to bf16.
    state = {name: t.to(torch.bfloat16) for name, t in model.state_dict().items() if name != "lm_head.weight"}
    save_file({name: t.contiguous() for name, t in state.items()}, out / "model.safetensors", {"format": "pt"})
    for name, content in [
        ("config", CONFIG),
        ("generation_config", GENERATION_CONFIG),
        ("tokenizer_config", TOKENIZER_CONFIG),
    ]:
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    model.load_state_dict(state, strict=False)
    for name, part in [("train", tokens[: len(held_out)]), ("validation", held_out)]:
        loss = evaluate(model, part)
        print(f"bf16 weights, {name}: loss {loss:.4f}, perplexity {math.exp(loss):.2f}")
    for prompt in ["It was a fine morning, and", '"My dear Miss Woodhouse,"', "Mr. Darcy"]:
        print("\n--- " + sample(model, tokenizer, prompt))


if __name__ == "__main__":
    main()
