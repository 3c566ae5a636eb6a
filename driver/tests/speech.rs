//! Text from speech: spectrograms and transcripts against transformers', on a small random model of Whisper; sounds of other kinds, and what is
//! no sound.

#![cfg(feature = "audio")]

mod common;

use brolga::Options;
use brolga::generate::Model;
use brolga::generate::text::Tokenizer;
use brolga::speech::mel::Extractor;
use brolga::speech::{Segment, Task, Transcriber, Wanted, wav};
use common::{brolga as command, references, speech_data};
use serde_json::{Value as Json, json};
use std::fs;
use std::path::Path;

const RATE: u32 = 16_000;

fn speech() -> Vec<f32> {
    wav::read(&speech_data().join("speech.wav"), RATE).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn spectrograms_are_those_of_transformers() {
    let sound = speech();
    let all = brolga::npy::read_npz(&speech_data().join("features.npz")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(all.len(), 3);
    for (name, wanted) in all {
        let part = |i: usize| name.split('_').nth(i).unwrap().parse().unwrap();
        let extractor = Extractor {
            mels: part(1),
            seconds: part(3),
            ..Extractor::default()
        };
        // transformers cuts what is longer than a window.
        let most = sound.len().min(extractor.seconds * RATE as usize);
        let found = extractor.features(&sound[..most]).unwrap();
        assert_eq!([found.mels, found.frames][..], *wanted.shape(), "{name}");
        let wanted = wanted.to_f32s();
        let off = found.values.iter().zip(&wanted).map(|(f, w)| (f - w).abs());
        let worst = off.fold(0.0, f32::max);
        // The reference sums in f32; transformers' own code in f64 is off by as much.
        assert!(worst < 5e-5, "{name} is off by {worst}");
    }
}

#[test]
fn transcripts_are_those_of_transformers() {
    let model = Model::load(speech_data().join("whisper"), &Options::default(), 1).unwrap_or_else(|e| panic!("{e}"));
    let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary).unwrap();
    let sound = speech();
    let cases = references()["transcripts"].as_array().unwrap().clone();
    assert!(cases.len() >= 7);
    for case in cases {
        let seconds = case["seconds"].as_f64().unwrap();
        let wanted = Wanted {
            language: case["language"].as_str().map(str::to_owned),
            task: (case["task"] == "translate").then_some(Task::Translate),
            timestamps: case["return_timestamps"] == true,
        };
        let part = &sound[..(seconds * f64::from(RATE)) as usize];
        let mut transcriber = Transcriber::new(&model, part, &wanted).unwrap_or_else(|e| panic!("{e}"));
        let found: Vec<Segment> = transcriber.by_ref().map(|s| s.unwrap()).collect();
        let text: String = found
            .iter()
            .map(|s| tokenizer.decode(&transcriber.words(s)).unwrap())
            .collect();
        let expected = case["segments"].as_array().unwrap();
        let texts: String = expected.iter().map(|s| s["text"].as_str().unwrap()).collect();
        assert_eq!(text, texts, "{case}");
        let tokens = |s: &Json| serde_json::from_value::<Vec<i64>>(s["tokens"].clone()).unwrap();
        if !wanted.timestamps {
            // Nothing cuts a window then.
            let all: Vec<i64> = expected.iter().flat_map(tokens).collect();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].tokens, all, "{case}");
            continue;
        }
        assert_eq!(found.len(), expected.len(), "{case}");
        for (f, e) in found.iter().zip(expected) {
            assert_eq!(f.tokens, tokens(e), "{case}");
            let near = |x: f64, field: &str| (x - e[field].as_f64().unwrap()).abs() < 1e-6;
            assert!(near(f.start, "start") && near(f.end, "end"), "{f:?} for {e}");
        }
    }
}

#[test]
fn the_command_transcribes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = speech_data().join("whisper").display().to_string();
    let sound = speech_data().join("speech.wav").display().to_string();
    let run = |args: &[&str]| command(dir.path(), &[&["transcribe", &folder, &sound], args].concat());
    let ran = run(&["--language", "fr", "--json"]);
    let json: Json = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}", ran.err));
    assert_eq!(json["language"], "fr");
    let all = references();
    let cases = all["transcripts"].as_array().unwrap();
    let wanted = cases
        .iter()
        .find(|c| c["language"] == "fr" && c["seconds"] == 2.37)
        .unwrap();
    let tokens = |list: &Json| -> Vec<Json> { list.as_array().unwrap().iter().map(|s| s["tokens"].clone()).collect() };
    assert_eq!(tokens(&json["segments"]), tokens(&wanted["segments"]));
    // An artefact gives the same, with what else the folder says.
    common::ok(dir.path(), &["compile", &folder, "--generator", "-o", "whisper.brolga"]);
    let artefact = ["transcribe", "whisper.brolga", &sound, "--language", "fr", "--json"];
    let from_artefact = common::json(dir.path(), &artefact);
    assert_eq!(from_artefact["segments"], json["segments"]);
    assert_eq!(from_artefact["language"], "fr");
    let plain = run(&["--language", "<|fr|>"]);
    assert_eq!(plain.out.trim(), json["text"].as_str().unwrap());
    let timed = run(&["--language", "FR", "--timestamps", "--stats"]);
    assert!(timed.out.starts_with("[00:00.060 --> 00:00.600] "), "{}", timed.out);
    assert!(timed.err.contains("2.37 s of speech"), "{}", timed.err);
    for (args, message) in [
        (&["--language", "xx"][..], "language xx: expected one of de, en, fr"),
        (&["--task", "sing"], "invalid value 'sing'"),
    ] {
        let ran = run(args);
        assert!(ran.status == 2 && ran.err.contains(message), "{}", ran.err);
    }
    // Models that read no sounds, and of sounds no texts.
    let llama = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama");
    let ran = command(dir.path(), &["transcribe", &llama.display().to_string(), &sound]);
    assert!(
        ran.status == 2 && ran.err.contains("does not read sounds"),
        "{}",
        ran.err
    );
    let ran = command(dir.path(), &["generate", &folder, "abc"]);
    assert!(ran.status == 2 && ran.err.contains("brolga transcribe"), "{}", ran.err);
}

/// A WAV file by hand: format 1 of integers, 3 of floats.
fn written(format: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    file.extend(format.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    let n = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&n.to_le_bytes());
    file
}

#[test]
fn sounds_of_every_kind_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sound.wav");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        wav::read(&path, RATE).unwrap_or_else(|e| panic!("{e}"))
    };
    let wanted = [0.5f32, -0.25, 0.0, -1.0];
    let whole = |bits: i32| wanted.map(|x| (f64::from(x) * f64::from(bits - 1).exp2()) as i32);
    let eight: Vec<u8> = whole(8).iter().map(|x| (x + 128) as u8).collect();
    assert_eq!(read(&written(1, 1, RATE, 8, &eight)), wanted);
    for bits in [16u16, 24, 32] {
        let bytes = |x: i32| x.to_le_bytes()[..usize::from(bits) / 8].to_vec();
        let data: Vec<u8> = whole(i32::from(bits)).into_iter().flat_map(bytes).collect();
        assert_eq!(read(&written(1, 1, RATE, bits, &data)), wanted, "{bits}");
    }
    let floats = |list: &[f32]| list.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(read(&written(3, 1, RATE, 32, &floats(&wanted))), wanted);
    // Channels are averaged.
    let both: Vec<f32> = wanted.iter().flat_map(|x| [x + 0.25, x - 0.25]).collect();
    assert_eq!(read(&written(3, 2, RATE, 32, &floats(&both))), wanted);
    // Another rate: as long as before.
    assert_eq!(read(&written(3, 1, 48_000, 32, &floats(&[0.1; 4800]))).len(), 1600);
    assert!(read(&written(3, 1, 48_000, 32, &[])).is_empty());
}

#[test]
fn what_is_no_sound_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = speech_data().join("whisper").display().to_string();
    let refused = |bytes: &[u8]| {
        fs::write(dir.path().join("bad.wav"), bytes).unwrap();
        let ran = command(dir.path(), &["transcribe", &folder, "bad.wav"]);
        assert_eq!(ran.status, 2, "{}", ran.out);
        assert!(ran.err.contains("bad.wav"), "{}", ran.err);
        ran.err
    };
    let good = written(1, 1, RATE, 16, &[0; 64]);
    refused(b"");
    refused(b"ID3\x04 no WAV at all");
    refused(&good[..20]);
    refused(&good[..good.len() - 9]);
    let mp3 = written(0x55, 1, RATE, 16, &[0; 64]);
    assert!(refused(&mp3).contains("expected PCM or floats"));
    refused(&written(1, 0, RATE, 16, &[0; 64]));
    refused(&written(1, 1, 0, 16, &[0; 64]));
    let none = f32::NAN.to_le_bytes();
    assert!(refused(&written(3, 1, RATE, 32, &none)).contains("sample 0 is NaN"));
    let ran = command(dir.path(), &["transcribe", &folder, "missing.wav"]);
    assert!(ran.status == 2 && ran.err.contains("missing.wav"), "{}", ran.err);
    let ran = command(dir.path(), &["transcribe", &folder, "."]);
    assert!(
        ran.status == 2 && ran.err.contains("a folder, expected a WAV file"),
        "{}",
        ran.err
    );
}

/// Settings of features that the model does not have, or that are not done here.
#[test]
fn folders_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(speech_data().join("whisper")).unwrap().flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    fs::copy(speech_data().join("speech.wav"), dir.path().join("speech.wav")).unwrap();
    let path = copy.join("preprocessor_config.json");
    let own: Json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let with = |field: &str, value: Json| {
        let mut changed = own.clone();
        changed[field] = value;
        fs::write(&path, changed.to_string()).unwrap();
        let ran = command(dir.path(), &["transcribe", "copy", "speech.wav"]);
        assert_eq!(ran.status, 2, "{}", ran.out);
        ran.err
    };
    assert!(with("feature_size", json!(80)).contains("100 frames of 80 bins, and the model reads 100 of 8"));
    assert!(with("hop_length", json!(0)).contains("hop_length is 0, expected a number above 0"));
    assert!(with("dither", json!(0.1)).contains("dither and do_normalize are not supported"));
    // Beside the tokenizer's settings, as transformers 5 writes it.
    fs::remove_file(&path).unwrap();
    let both = json!({ "feature_extractor": own, "processor_class": "WhisperProcessor" });
    fs::write(copy.join("processor_config.json"), both.to_string()).unwrap();
    let ran = command(dir.path(), &["transcribe", "copy", "speech.wav"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
}
