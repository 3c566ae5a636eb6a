//! The commands that documents show are commands that work.
//!
//! Blocks of the READMEs and of `docs/` that hold commands (marked `sh`, or nothing but `brolga …` and `cargo …`) are run,
//! each as one script, in a folder with models and inputs under the names that the documents use. Of cargo's commands only
//! those are allowed that are run here in the test profile, or that run this test. `brolga-tune` is a Python package: blocks with it are
//! run where it is installed.

mod common;

use common::{arg, digits, ran};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The README's first command: a model compiled and run.
const FIRST: &str = "cargo run --release -p brolga --example digits";

/// The README's second command, which runs this test.
const SECOND: &str = "cargo test --workspace";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The command of the Python package: what `BROLGA_TUNE` names, or what is on the path.
fn brolga_tune() -> Option<PathBuf> {
    let named = std::env::var_os("BROLGA_TUNE").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|p| p.join("brolga-tune"));
    named.into_iter().chain(on_path).find(|p| p.is_file())
}

/// The READMEs and the documents that are there.
fn documents() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md"), root().join("python/README.md")];
    let docs = std::fs::read_dir(root().join("docs"))
        .expect("the folder is there")
        .flatten();
    all.extend(
        docs.map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "md")),
    );
    all.sort();
    all
}

/// The blocks of commands of a document, with the line that each begins at.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut out = vec![];
    let mut inside: Option<(usize, bool, String)> = None;
    for (n, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut inside, fence) {
            (Some(_), Some(_)) => {
                let (start, shell, block) = inside.take().expect("it was matched");
                let command = |l: &str| l.is_empty() || l.starts_with("brolga ") || l.starts_with("cargo ");
                if shell || block.lines().all(command) {
                    out.push((start, block));
                }
            }
            (Some((_, _, block)), None) => *block += &format!("{}\n", line.strip_prefix("$ ").unwrap_or(line)),
            (None, Some(language)) => {
                inside = Some((n + 2, ["sh", "bash", "console"].contains(&language), String::new()))
            }
            (None, None) => {}
        }
    }
    out
}

/// A folder with what a block of commands names.
fn fixture(block: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str, text: &str| std::fs::write(at(name), text).expect("a file is written");
    // A model with a sequence where the commands set its length, else the digits.
    let (name, shape) = if block.contains("seq=") {
        let graph = "graph @model(%0 x: f32[batch, seq, 8]) symbols(batch, seq) {\n  %1 = softmax{axis=2 zeros=never}(%0)\n  return y = %1\n}\n";
        text("model.onnx", graph);
        ("x", vec![1, 3, 8])
    } else {
        std::fs::copy(digits(), at("model.onnx")).expect("a file is copied");
        ("images", vec![2, 1, 8, 8])
    };
    let input = brolga::ir::Tensor::from_f32(&shape, &vec![0.25; shape.iter().product()]);
    brolga::npy::write_npz(&at("inputs.npz"), &[(name.into(), input)]).expect("a file is written");
    let made = common::brolga(
        dir.path(),
        &[
            "run",
            "model.onnx",
            "--inputs",
            "inputs.npz",
            "--output",
            "reference.npz",
        ],
    );
    assert_eq!(made.status, 0, "{}", made.err);
    if block.contains(" folder") {
        let from = root().join("examples/tiny_llama");
        std::fs::create_dir(at("folder")).expect("a folder is made");
        for name in [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ] {
            std::fs::copy(from.join(name), at("folder").join(name)).expect("a file is copied");
        }
        text(
            "text.txt",
            "She was not so very sorry that he had been sent for. It was a fine morning.",
        );
        let tokens = brolga::ir::Tensor::from_i64(&[1, 3], &[37, 690, 305]);
        brolga::npy::write_npz(&at("tokens.npz"), &[("input_ids".into(), tokens)]).expect("a file is written");
    }
    if block.contains(" model.gguf") {
        let from = root().join("tests/data/gguf/small.gguf");
        std::fs::copy(from, at("model.gguf")).expect("a file is copied");
    }
    let from = common::speech_data();
    for name in ["t5", "whisper"]
        .iter()
        .filter(|name| block.contains(&format!(" {name} ")))
    {
        std::fs::create_dir(at(name)).expect("a folder is made");
        for entry in std::fs::read_dir(from.join(name)).expect("it is there").flatten() {
            std::fs::copy(entry.path(), at(name).join(entry.file_name())).expect("a file is copied");
        }
    }
    std::fs::copy(from.join("speech.wav"), at("speech.wav")).expect("a file is copied");
    text("my-own.rules", "rule abs-abs [exact]\n  (abs (abs ?x)) => (abs ?x)\n");
    text(
        "my.rules",
        &brolga::passes::eqsat::rules::EMBEDDED.map(|(_, text)| text).join("\n"),
    );
    dir
}

#[test]
#[cfg(unix)]
fn shell_commands_of_documents_work() {
    let bin = Path::new(env!("CARGO_BIN_EXE_brolga"))
        .parent()
        .expect("a binary lies in a folder");
    let tune = brolga_tune();
    let mut path = format!("{}:{}", arg(bin), std::env::var("PATH").unwrap_or_default());
    // Its folder comes last: no other command there is meant.
    if let Some(folder) = tune.as_deref().and_then(Path::parent) {
        path += &format!(":{}", arg(folder));
    }
    let (mut run, mut wrong) = (0, vec![]);
    for file in documents() {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for (line, block) in blocks(&text) {
            let place = format!("{}:{line}", file.strip_prefix(root()).unwrap_or(&file).display());
            let command = |l: &str| l.split(" #").next().unwrap_or_default().trim().to_owned();
            for l in block.lines().map(command).filter(|l| l.contains("cargo ")) {
                match [FIRST, SECOND].contains(&l.as_str()) {
                    true => run += 1,
                    false => wrong.push(format!("{place}: `{l}` is a command that no test runs")),
                }
            }
            let script: String = block
                .lines()
                .filter(|l| !l.contains("cargo "))
                .map(|l| format!("{l}\n"))
                .collect();
            if script.trim().is_empty() {
                continue;
            }
            if script.contains("brolga-tune ") && tune.is_none() {
                let reason = "brolga-tune is not installed (pip install ./python; BROLGA_TUNE names it)";
                assert!(
                    std::env::var_os("CI").is_none(),
                    "{place} is skipped under CI: {reason}"
                );
                eprintln!("{place} is skipped: {reason}");
                continue;
            }
            run += 1;
            let dir = fixture(&block);
            let out = Command::new("sh")
                .args(["-e", "-c", &script])
                .current_dir(dir.path())
                .env("PATH", &path)
                .env("XDG_CACHE_HOME", dir.path())
                .env("XDG_DATA_HOME", dir.path())
                .output();
            let out = ran(out.expect("there is a shell"));
            if out.status != 0 {
                wrong.push(format!("{place}: status {}\n{script}{}", out.status, out.err));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run >= 2, "the README shows {run} commands");
}

/// The README's first command, in the profile of the tests, which have built it.
#[test]
fn the_first_command_recognises_digits() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let words = FIRST.split(' ').skip(1).filter(|w| *w != "--release");
    let out = ran(Command::new(cargo)
        .args(words)
        .current_dir(root())
        .output()
        .expect("cargo runs this test"));
    assert_eq!(out.status, 0, "{}", out.err);
    assert!(out.out.contains("356 of 360 images right"), "{}", out.out);
}

/// What `.ci/run` runs, and nothing less.
#[test]
fn ci_runs_the_test_command() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).expect("it is in the repository");
    for command in [
        "cargo fmt --all --check",
        "cargo clippy --workspace --all-targets -- -D warnings",
        "cargo test --workspace",
    ] {
        assert!(ci.lines().any(|l| l.trim() == command), ".ci/run has no `{command}`");
    }
}
