//! Artefacts with machine code written by hand: mapped and run, or refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use brolga_abi::artefact::Writer;
use brolga_abi::{DType, Kernel, Output};

use super::*;
use crate::Executor;

/// Machine code by hand: `plan` and `shapes` return 0, `run` writes the weights' first word through the first output.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x31, 0xc0, 0xc3, 0x90, // plan, shapes: xor eax, eax; ret
    0x48, 0x8b, 0x47, 0x08, // run: mov rax, [rdi + 8] (weights)
    0x8b, 0x00, // mov eax, [rax]
    0x48, 0x8b, 0x0a, // mov rcx, [rdx] (the first output)
    0x89, 0x01, // mov [rcx], eax
    0x31, 0xc0, 0xc3, // xor eax, eax; ret
];

/// The same for AArch64.
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0x52, // plan, shapes: mov w0, 0
    0xc0, 0x03, 0x5f, 0xd6, // ret
    0x08, 0x04, 0x40, 0xf9, // run: ldr x8, [x0, 8] (weights)
    0x08, 0x01, 0x40, 0xb9, // ldr w8, [x8]
    0x49, 0x00, 0x40, 0xf9, // ldr x9, [x2] (the first output)
    0x28, 0x01, 0x00, 0xb9, // str w8, [x9]
    0x00, 0x00, 0x80, 0x52, // mov w0, 0
    0xc0, 0x03, 0x5f, 0xd6, // ret
];

const RUN_AT: u64 = if cfg!(target_arch = "x86_64") { 4 } else { 8 };

/// An artefact whose program answers with its first weight.
fn write_artefact(path: &Path, change: impl FnOnce(&mut Meta)) {
    let mut meta = Meta {
        name: "answer".into(),
        target: format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        outputs: vec![Output {
            name: "y".into(),
            dtype: DType::I32,
            rank: 0,
            dynamic: false,
            shape: "[]".into(),
        }],
        entries: Entries {
            run: RUN_AT,
            plan: 0,
            shapes: 0,
        },
        kernels: vec![Kernel {
            name: "k0".into(),
            offset: RUN_AT,
            flops: None,
            bytes: Some(8),
        }],
        weights_bytes: 5000,
        ..Meta::default()
    };
    change(&mut meta);
    let mut writer = Writer::create(path).unwrap();
    writer.meta(&meta).unwrap();
    writer.code(CODE).unwrap();
    writer
        .weights(|out| out.write_all(&[[42, 0].as_slice(), &[0; 4998]].concat()))
        .unwrap();
    writer.commit().unwrap();
}

/// A file of its own for each test, removed at the end.
struct TestFile(PathBuf);

impl TestFile {
    fn new() -> TestFile {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "brolga-runtime-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        TestFile(std::env::temp_dir().join(name))
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn an_artefact_is_mapped_and_runs() {
    let file = TestFile::new();
    write_artefact(&file.0, |_| {});
    for _ in 0..100 {
        // SAFETY: the file is the one written above.
        let program = Arc::new(unsafe { Program::open(&file.0) }.unwrap());
        assert_eq!(program.weights().len(), 5000);
        let outputs = Executor::new(program, 2).unwrap().run(&[]).unwrap();
        assert_eq!(outputs[0].as_slice::<i32>(), Some([42].as_slice()));
    }
}

#[test]
fn artefacts_for_other_machines_are_refused() {
    let file = TestFile::new();
    let refusal = || {
        // SAFETY: nothing of the file is run, because it is refused.
        let error = unsafe { Program::open(&file.0) }.unwrap_err().to_string();
        error.replace(&file.0.display().to_string(), "FILE")
    };
    assert!(refusal().starts_with("FILE: "), "a missing file is named");
    write_artefact(&file.0, |meta| meta.target = "riscv64gc-unknown-linux-gnu".into());
    let here = std::env::consts::ARCH;
    assert_eq!(
        refusal(),
        format!("FILE: compiled for riscv64gc-unknown-linux-gnu, this machine is {here}")
    );
    write_artefact(&file.0, |meta| meta.features = vec!["avx1024".into()]);
    assert_eq!(
        refusal(),
        "FILE: needs the CPU feature(s) avx1024, which this CPU lacks; compile for this CPU"
    );
    std::fs::write(&file.0, b"").unwrap();
    assert!(refusal().contains("not a Brolga artefact"));
    write_artefact(&file.0, |_| {});
    let mut bytes = std::fs::read(&file.0).unwrap();
    bytes[4096] ^= 1;
    std::fs::write(&file.0, bytes).unwrap();
    assert!(refusal().contains("damaged artefact: the checksum of section 1 (Code)"));
}
