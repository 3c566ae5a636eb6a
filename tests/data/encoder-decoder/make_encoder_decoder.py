"""Makes small random models with an encoder and a decoder, sounds, and what transformers computes of them.

    python make_encoder_decoder.py

Writes beside this script `t5/` and `whisper/`, folders as transformers saves them; `speech.wav`, of chirps and noise; `features.npz`, log-mel
spectrograms of it by WhisperFeatureExtractor; and `references.json`: texts by beams (of `t5` and of `examples/tiny_llama`), and transcripts.
All is a function of seeds. The models write garbage; where two tokens are nearly as good, another seed was taken.

Made with Python 3.11, transformers 5.24.0, tokenizers 0.23.3, torch 2.15.0, safetensors 0.8.0 and numpy 2.4.6.
"""

import json
import wave
from pathlib import Path

import numpy as np
import torch
import transformers as t
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

HERE = Path(__file__).resolve().parent
RATE = 16000
LETTERS = "Ġ'abcdefghijklmnopqrstuvwxyz"


def fill(model, seed, std):
    """Normal weights; embeddings, which are logits as well, of their own deviation."""
    generator = torch.Generator().manual_seed(seed)
    seen = set()
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if p in seen:
                continue
            seen.add(p)
            norm = "Norm" in type(module).__name__ and name == "weight"
            with torch.no_grad():
                p.normal_(1.0 if norm else 0.0, std if isinstance(module, torch.nn.Embedding) else 0.2, generator=generator)
    return model.eval()


# T5: words, of which the last special token ends a text.

def t5():
    words = ["<pad>", "</s>", "<unk>"] + [a + b + c for a in "bdklmnrst" for b in "aeiou" for c in ("", "n")][:61]
    # Spaces as SentencePiece writes them.
    vocabulary = [(w if w.startswith("<") else "▁" + w, -float(i)) for i, w in enumerate(words)]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    inner.add_special_tokens([AddedToken(w, special=True) for w in words[:3]])
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    config = t.T5Config(vocab_size=64, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=2, relative_attention_num_buckets=8,
                        relative_attention_max_distance=12, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    model = fill(t.T5ForConditionalGeneration(config), 5, 1.0)
    with torch.no_grad():
        # Else nothing ends.
        model.shared.weight[1] *= 1.8
    model.generation_config = t.GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, num_beams=3, length_penalty=0.8,
                                                 early_stopping=True)
    model.save_pretrained(HERE / "t5")
    inner.save(str(HERE / "t5" / "tokenizer.json"))
    return model, tokenizer


BEAMS = [
    dict(num_beams=1),
    dict(num_beams=3),
    dict(num_beams=4, length_penalty=2.0),
    dict(num_beams=4, length_penalty=-1.0),
    dict(num_beams=5, early_stopping=True, length_penalty=1.0),
    dict(num_beams=3, early_stopping="never", length_penalty=1.5),
    dict(num_beams=2, repetition_penalty=1.3),
]


def texts(name, model, tokenizer, prompts):
    found = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        for options in BEAMS:
            with torch.no_grad():
                full = dict(length_penalty=1.0, early_stopping=False, do_sample=False) | options
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, **full)[0].tolist()
            out = out[1:] if model.config.is_encoder_decoder else out[ids.shape[1]:]
            ends = model.generation_config.eos_token_id
            ends = ends if isinstance(ends, list) else [ends]
            at = [i for i, token in enumerate(out) if token in ends]
            out = out[:at[0]] if at else out
            found.append(dict(model=name, prompt=prompt, **options, tokens=out))
    return found


# Whisper: letters, in windows of one second.

def whisper():
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
               "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{i * 0.02:.2f}|>" for i in range(51)]
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(LETTERS)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(w, special=True) for w in special])
    inner.add_tokens([AddedToken(w, special=False) for w in times])
    at = {w: inner.token_to_id(w) for w in special}
    config = t.WhisperConfig(
        vocab_size=inner.get_vocab_size(), d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8, max_source_positions=50, max_target_positions=24,
        pad_token_id=at["<|endoftext|>"], bos_token_id=at["<|endoftext|>"], eos_token_id=at["<|endoftext|>"],
        decoder_start_token_id=at["<|startoftranscript|>"], begin_suppress_tokens=None, suppress_tokens=None)
    model = fill(t.WhisperForConditionalGeneration(config), 11, 1.0)
    with torch.no_grad():
        table = model.model.decoder.embed_tokens.weight
        # Together, times are as likely as letters.
        table[at["<|notimestamps|>"] + 1:] *= 0.7
        model.model.encoder.embed_positions.weight *= 0.1
        model.model.decoder.embed_positions.weight *= 3.0
        for layer in model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight *= 3.0
    model.generation_config = t.GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id,
        max_length=24, suppress_tokens=[LETTERS.index("q"), at["<|startoftranscript|>"], at["<|nospeech|>"]],
        begin_suppress_tokens=[0, config.eos_token_id], no_timestamps_token_id=at["<|notimestamps|>"], max_initial_timestamp_index=10,
        is_multilingual=True, lang_to_id={w: at[w] for w in ("<|en|>", "<|de|>", "<|fr|>")},
        task_to_id=dict(translate=at["<|translate|>"], transcribe=at["<|transcribe|>"]), return_timestamps=False)
    model.save_pretrained(HERE / "whisper")
    inner.save(str(HERE / "whisper" / "tokenizer.json"))
    extractor = t.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    extractor.save_pretrained(HERE / "whisper")
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    return model, tokenizer, extractor


def speech():
    """Chirps of changing loudness, with some noise and a pause."""
    rng = np.random.default_rng(3)
    at = np.arange(int(2.37 * RATE)) / RATE
    sound = sum(a * np.sin(2 * np.pi * (f * at + s * at ** 2)) for a, f, s in [(0.3, 180, 90), (0.2, 900, -150), (0.1, 2600, 400)])
    sound = sound * (0.55 + 0.45 * np.sin(2 * np.pi * 1.7 * at)) + 0.01 * rng.standard_normal(len(at))
    sound[int(1.2 * RATE):int(1.3 * RATE)] = 0
    pcm = (sound * 32767).clip(-32768, 32767).astype("<i2")
    with wave.open(str(HERE / "speech.wav"), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(RATE)
        f.writeframes(pcm.tobytes())
    return pcm.astype(np.float32) / 32768


def features(sound):
    # Of 1 s, which is as long as a window, and of all of it in a window of 3 s.
    found = {f"mels_{n}_of_{s}": t.WhisperFeatureExtractor(feature_size=n, chunk_length=s)(sound, sampling_rate=RATE).input_features[0]
             for n, s in ((80, 1), (128, 1), (8, 3))}
    np.savez_compressed(HERE / "features.npz", **found)


def transcripts(model, tokenizer, extractor, sound):
    found = []
    zero = model.generation_config.no_timestamps_token_id + 1
    for seconds in (1.0, 2.37):
        for options in (dict(), dict(language="de"), dict(language="en", task="translate"), dict(return_timestamps=True),
                        dict(language="fr", return_timestamps=True)):
            long = seconds > 1.0
            if long and not options.get("return_timestamps"):
                continue
            part = sound[:int(seconds * RATE)]
            given = extractor(part, sampling_rate=RATE, return_tensors="pt", **(dict(truncation=False, padding="longest") if long else {}))
            with torch.no_grad():
                out = model.generate(given.input_features, return_segments=True, **options)
            segments = [dict(start=float(s["start"]), end=float(s["end"]), tokens=s["tokens"].tolist(),
                             text=tokenizer.decode([x for x in s["tokens"].tolist() if x < zero], skip_special_tokens=True)) for s in out["segments"][0]]
            found.append(dict(seconds=seconds, **options, segments=segments))
    return found


def main():
    model, tokenizer = t5()
    beams = texts("t5", model, tokenizer, ["ba ten li", "sun do ka ri men tu", "no"])
    tiny = HERE / "../../../examples/tiny_llama"
    llama = t.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    beams += texts("tiny_llama", llama, t.PreTrainedTokenizerFast(tokenizer_file=str(tiny / "tokenizer.json")), ["Emma was"])
    sound = speech()
    features(sound)
    spoken = transcripts(*whisper(), sound)
    rows = lambda all: "[\n" + ",\n".join("    " + json.dumps(x, ensure_ascii=False) for x in all) + "\n  ]"
    text = f'{{\n  "beams": {rows(beams)},\n  "transcripts": {rows(spoken)}\n}}\n'
    (HERE / "references.json").write_text(text)


main()
