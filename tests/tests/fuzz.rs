//! A short run of every fuzz target, on mutations of the test data, and on inputs that once found a defect (`tests/fuzz/TARGET/`).
//!
//! `BROLGA_FUZZ_SECONDS` is how long each runs (one second without it) and `BROLGA_FUZZ_SEED` where its random numbers begin; an input
//! that panics is written below `target/fuzz/`.

use brolga_tests::fuzz::TARGETS;
use brolga_tests::random::Random;
use brolga_tests::{data, mutate, root};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Seeds are no larger: mutations of large weights find nothing.
const LARGEST: u64 = 20 << 10;

/// The files below a folder with an extension, sorted.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|dir| dir.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    entries.sort();
    for path in entries {
        let small = || std::fs::metadata(&path).is_ok_and(|m| m.len() <= LARGEST);
        match path.is_dir() {
            true => files(&path, extension, found),
            false if path.extension().is_some_and(|e| e == extension) && small() => found.push(path),
            false => {}
        }
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut paths = vec![];
    match target {
        "onnx" | "model" => {
            for archive in ["onnx-node", "dynamic", "microsoft", "classical-models"] {
                files(&data(archive), "onnx", &mut paths);
            }
        }
        "gguf" => files(&root().join("tests/data/gguf"), "gguf", &mut paths),
        "text" => {
            files(&root().join("tests/filetests"), "ir", &mut paths);
            files(&root().join("passes/rules"), "rules", &mut paths);
        }
        // Choices, which are any bytes.
        _ => {
            return (0..64u8)
                .map(|k| (0..80).map(|i: u8| i.wrapping_mul(2 * k + 1) ^ k).collect())
                .collect();
        }
    }
    let read = |p: &PathBuf| std::fs::read(p).expect("it can be read");
    match target {
        // A file test is a text, and what is expected behind a line `;---`; a file of rules is read to its first mistake only.
        "text" => paths.iter().flat_map(|p| parts(&read(p))).collect(),
        // The half of a file is its header and little more.
        "gguf" => paths
            .iter()
            .map(read)
            .flat_map(|f| [f[..f.len() / 2].to_vec(), f])
            .collect(),
        _ => paths.iter().map(read).collect(),
    }
}

/// The texts of a file test, or the rules of a file, one a part.
fn parts(file: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(file);
    let at = if text.contains(";---") { ";---" } else { "\n\n" };
    text.split(at).map(|part| part.trim_start().into()).collect()
}

/// Runs a target on an input; one that panics is kept.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let folder = root().join("target/fuzz");
        let hash = input
            .iter()
            .fold(7u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let file = folder.join(format!("{name}-{hash:016x}"));
        let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
        panic!("target `{name}` panicked on {} ({kept:?})", file.display());
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn smoke(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|t| t.0 == name).expect("it is a target");
    let mut kept = vec![];
    let folder = root().join("tests/fuzz").join(name);
    files(&folder, "bin", &mut kept);
    let all = std::fs::read_dir(&folder).map_or(0, Iterator::count);
    assert_eq!(
        kept.len(),
        all,
        "{}: a file that does not end in .bin",
        folder.display()
    );
    for file in &kept {
        run(name, target, &std::fs::read(file).expect("it can be read"));
    }
    let seeds = seeds(name);
    assert!(seeds.len() > 30, "{name}: {} seeds", seeds.len());
    let mut random = Random(number("BROLGA_FUZZ_SEED", 1));
    let time = Duration::from_secs(number("BROLGA_FUZZ_SECONDS", 1));
    let (start, mut runs) = (Instant::now(), 0);
    while start.elapsed() < time || runs == 0 {
        let (seed, other) = (&seeds[random.below(seeds.len())], &seeds[random.below(seeds.len())]);
        let changed = match name {
            // One in four by its bytes.
            "onnx" | "model" if random.below(4) != 0 => mutate::model(seed, other, &mut random),
            _ => None,
        };
        let changed = changed.unwrap_or_else(|| mutate::bytes(seed, other, &mut random));
        run(name, target, &changed);
        runs += 1;
    }
    println!("{name}: {runs} inputs");
}

#[test]
fn the_importer_takes_any_bytes() {
    smoke("onnx");
}

#[test]
fn the_reader_of_gguf_files_takes_any_bytes() {
    smoke("gguf");
}

#[test]
fn models_with_changes_are_the_same_in_machine_code() {
    smoke("model");
}

#[test]
fn the_parsers_take_any_text() {
    smoke("text");
}

#[test]
fn random_graphs_are_the_same_in_machine_code() {
    smoke("graph");
}
