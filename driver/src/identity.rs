//! What this compiler is: the part of a key that changes when the compiler does.
//!
//! Decided: a version number stays the same through many changes of the code. A hash of the running executable would cost
//! more than the start that a cache saves, and says nothing of a library that a plug-in loads. So the build script hashes the
//! sources of Brolga's packages, and a `TypeId` stands for the rest: rustc makes it of its own version and of what cargo says
//! of this package, which is made of the versions, features and profiles of all that it depends on.

use brolga_abi::artefact::checksum;
use std::any::TypeId;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A type of this package and no other.
struct Here;

/// A number that differs between two compilers that may give different results.
pub(crate) fn compiler() -> u64 {
    let mut hasher = DefaultHasher::new();
    checksum(env!("BROLGA_SOURCES").as_bytes()).hash(&mut hasher);
    TypeId::of::<Here>().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "../build/sources.rs"]
mod sources;

#[cfg(test)]
mod tests {
    use super::sources::{roots, sum};
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_compiler_is_named_by_the_sources_that_it_was_built_of() {
        let roots = roots(Path::new(env!("CARGO_MANIFEST_DIR")));
        assert_eq!(
            roots.len(),
            7 * 2 + 1,
            "of each package the manifest and the sources, and the rules"
        );
        assert_eq!(format!("{:016x}", sum(&roots).unwrap()), env!("BROLGA_SOURCES"));
    }

    #[test]
    fn another_content_and_another_name_are_other_sources() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("src");
        fs::create_dir_all(root.join("inner")).unwrap();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        let now = || sum(std::slice::from_ref(&root)).unwrap();
        write("a.rs", "fn a() {}");
        write("inner/b.rs", "fn b() {}");
        let first = now();
        assert_eq!(now(), first);
        write("inner/b.rs", "fn b() { }");
        let edited = now();
        assert_ne!(edited, first);
        write("inner/b.rs", "fn b() {}");
        assert_eq!(now(), first);
        fs::rename(root.join("a.rs"), root.join("c.rs")).unwrap();
        assert_ne!(now(), first);
        // The same sources elsewhere are the same compiler.
        fs::rename(root.join("c.rs"), root.join("a.rs")).unwrap();
        let moved = folder.path().join("elsewhere");
        fs::rename(&root, &moved).unwrap();
        assert_eq!(sum(&[moved]).unwrap(), first);
        assert!(sum(&[root]).is_err());
    }
}
