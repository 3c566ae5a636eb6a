//! Where results are written: regular files whole or not at all, with the mode that stood; links followed; devices, pipes
//! and standard output written through. Devices and links are made in a folder of the test's own: what is wrong here would
//! otherwise replace those of the machine.

#![cfg(unix)]

mod common;

use brolga::npy::read_npz;
use common::{arg, brolga, digits, files};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Every command that writes: its arguments before the path, and the extension that the path has.
fn writers(model: &str) -> Vec<(Vec<String>, &'static str)> {
    let rows: [(&[&str], &str); 9] = [
        (&["run", model, "--set", "batch=1", "--output"], "npz"),
        (&["compile", model, "-o"], "o"),
        (&["compile", model, "-o"], "a"),
        (&["compile", model, "-o"], "so"),
        (&["compile", model, "-o"], "brolga"),
        (&["compile", model, "-o", "model.o", "--header"], "h"),
        (&["compile", model, "-o", "model.o", "--weights"], "weights"),
        (&["emit", model, "--stage", "tensor", "-o"], "txt"),
        (&["opt", model, "-o"], "txt"),
    ];
    rows.into_iter()
        .map(|(args, e)| (args.iter().map(|a| (*a).to_owned()).collect(), e))
        .collect()
}

fn write(dir: &Path, args: &[String], path: &str) {
    let args: Vec<&str> = args.iter().map(String::as_str).chain([path]).collect();
    let ran = brolga(dir, &args);
    assert_eq!(ran.status, 0, "{}: {}", args.join(" "), ran.err);
}

#[test]
fn links_are_followed_and_modes_stay() {
    let model = digits();
    for (args, extension) in writers(arg(&model)) {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("elsewhere")).expect("a folder is made");
        let (name, link) = (format!("elsewhere/file.{extension}"), format!("link.{extension}"));
        fs::write(at(&name), "before").expect("a file is written");
        fs::set_permissions(at(&name), fs::Permissions::from_mode(0o640)).expect("the file is ours");
        symlink(&name, at(&link)).expect("a link is made");
        write(dir.path(), &args, &link);
        let meta = fs::metadata(at(&name)).expect("it is there");
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640, "{args:?}");
        assert_ne!(fs::read(at(&name)).expect("it is there"), b"before", "{args:?}");
        assert!(
            fs::symlink_metadata(at(&link)).expect("it is there").is_symlink(),
            "{args:?}"
        );
        assert_eq!(files(&at("elsewhere")), [format!("file.{extension}")], "{args:?}");
    }
}

#[test]
fn devices_are_written_through() {
    let model = digits();
    for (args, extension) in writers(arg(&model)) {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let name = format!("null.{extension}");
        let path = dir.path().join(&name);
        // As /dev/null.
        let made = Command::new("mknod").arg(&path).args(["c", "1", "3"]).output();
        if !made.is_ok_and(|o| o.status.success()) || fs::write(&path, "x").is_err() {
            // Only the superuser makes devices, and not on every volume.
            return;
        }
        write(dir.path(), &args, &name);
        let kind = fs::metadata(&path).expect("it is there").file_type();
        assert!(kind.is_char_device(), "{args:?} replaced the device");
        // Without an extension that says what to write, a device gets an object file.
        symlink(&name, dir.path().join("plain")).expect("a link is made");
        write(
            dir.path(),
            &["compile".into(), arg(&model).into(), "-o".into()],
            "plain",
        );
        assert!(fs::metadata(&path).expect("it is there").file_type().is_char_device());
    }
}

#[test]
fn pipes_are_written_through() {
    let model = digits();
    for (args, extension) in writers(arg(&model)) {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let (name, file) = (format!("pipe.{extension}"), format!("file.{extension}"));
        let path = dir.path().join(&name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("it starts").success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || fs::read(path).expect("it is a pipe")
        });
        write(dir.path(), &args, &name);
        let read = reader.join().expect("the reader ends");
        assert!(
            fs::metadata(&path).expect("it is there").file_type().is_fifo(),
            "{args:?}"
        );
        write(dir.path(), &args, &file);
        // Archives of arrays carry the time.
        if extension != "npz" {
            assert!(
                read == fs::read(dir.path().join(&file)).expect("it was written"),
                "{args:?}"
            );
        }
    }
}

fn raw(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brolga"));
    command
        .args(args)
        .current_dir(dir)
        .output()
        .expect("the binary was built")
}

#[test]
fn a_dash_is_standard_output() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let model = digits();
    let model = arg(&model);
    // What stands behind /dev/stdout, by a link that nobody misses.
    symlink("/proc/self/fd/1", dir.path().join("stdout")).expect("a link is made");
    for to in ["-", "stdout"] {
        let out = raw(dir.path(), &["run", model, "--set", "batch=2", "--output", to]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        if to == "-" {
            fs::write(dir.path().join("out.npz"), &out.stdout).expect("a file is written");
            let arrays = read_npz(&dir.path().join("out.npz")).expect("nothing else is printed");
            assert_eq!(arrays[0].1.shape(), [2, 10]);
            assert!(String::from_utf8_lossy(&out.stderr).contains("logits: f32[2, 10]"));
        }
        let out = raw(dir.path(), &["compile", model, "-o", to]);
        assert!(
            out.stdout.starts_with(b"\x7fELF"),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let out = raw(dir.path(), &["compile", model, "-o", to, "--kind", "artefact"]);
        assert!(out.stdout.starts_with(b"\x89BROLGA"));
        let out = raw(dir.path(), &["compile", model, "-o", "model.o", "--header", to]);
        assert!(String::from_utf8_lossy(&out.stdout).contains("digits_run("));
        let printed = raw(dir.path(), &["emit", model, "--stage", "tensor"]);
        let out = raw(dir.path(), &["emit", model, "--stage", "tensor", "-o", to]);
        assert_eq!(out.stdout, printed.stdout);
    }
    assert_eq!(files(dir.path()), ["model.o", "out.npz", "stdout"]);
    // One thing only.
    for args in [
        &["run", model, "--set", "batch=1", "--output", "-", "--json"][..],
        &["compile", model, "-o", "-", "--json"],
        &["compile", model, "-o", "-", "--header", "-"],
        &["compile", model, "-o", "model.o", "--header", "-", "--weights", "-"],
    ] {
        let out = raw(dir.path(), args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(
            String::from_utf8_lossy(&out.stderr).contains("standard output"),
            "{args:?}"
        );
        let printed = String::from_utf8_lossy(&out.stdout);
        match args.contains(&"--json") {
            true => assert!(printed.starts_with("{\n  \"error\": "), "{args:?}: {printed}"),
            false => assert_eq!(printed, "", "{args:?}"),
        }
    }
}

#[test]
fn what_fails_leaves_what_stood() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    fs::write(dir.path().join("bad.onnx"), "no model").expect("a file is written");
    fs::write(dir.path().join("out.o"), "before").expect("a file is written");
    let ran = brolga(dir.path(), &["compile", "bad.onnx", "-o", "out.o"]);
    assert_eq!(ran.status, 2);
    assert_eq!(fs::read(dir.path().join("out.o")).expect("it is there"), b"before");
    fs::create_dir(dir.path().join("folder.o")).expect("a folder is made");
    let ran = brolga(dir.path(), &["compile", arg(&digits()), "-o", "folder.o"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("folder.o"), "{}", ran.err);
    assert_eq!(files(dir.path()), ["bad.onnx", "folder.o", "out.o"]);
}
