//! Names the compiler by its own sources, for the keys of what it leaves on disk: see `src/identity.rs`.

mod sources;

use std::path::PathBuf;

fn main() {
    let driver = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let roots = sources::roots(&driver);
    for root in &roots {
        println!("cargo::rerun-if-changed={}", root.display());
    }
    println!("cargo::rerun-if-changed=build");
    let sum = sources::sum(&roots).unwrap_or_else(|e| panic!("the compiler's sources cannot be read: {e}"));
    println!("cargo::rustc-env=BROLGA_SOURCES={sum:016x}");
}
