//! Criterion benches and the worker that the comparison with peers drives.

use std::path::{Path, PathBuf};

/// The value of an argument `--NAME=VALUE`.
pub fn option(name: &str) -> Option<String> {
    let value = |a: String| Some(a.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    std::env::args().skip(1).find_map(value)
}

/// The models that a bench is called with: its arguments, files or folders, and without any the small models of the tests.
pub fn chosen(data: impl Fn(&str) -> PathBuf) -> Vec<PathBuf> {
    let arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let mut paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(data("small-models"));
    }
    paths.iter().flat_map(|p| models(p)).collect()
}

/// A model's name: of a folder of cases, the case's.
pub fn name(path: &Path) -> String {
    let stem = |p: &Path| p.file_stem().map(|s| s.to_string_lossy().into_owned());
    match stem(path) {
        Some(s) if s == "model" => path.parent().and_then(stem).unwrap_or(s),
        Some(s) => s,
        None => String::new(),
    }
}

/// The models of a file or folder.
fn models(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .map(|dir| dir.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    entries.sort();
    let inside = |p: &PathBuf| match p.is_dir() {
        true => models(p),
        false if p.extension().is_some_and(|e| e == "onnx") => vec![p.clone()],
        false => vec![],
    };
    entries.iter().flat_map(inside).collect()
}
