//! Many compiled models in one shared library, as a caller has them that links object files: each object has a prefix of its own,
//! the C compiler links them, and their functions and weights are found by their symbols.
//!
//! Invariant: what runs is what stands in the library; nothing of the compiler is left but the metadata, of which a C caller
//! has the header. Operators of the host are given through the context's `host`.

use crate::aot::undefined;
use brolga::Compiled;
use brolga::host::Reference;
use brolga::output::WeightsIn;
use brolga_abi::{Meta, PlanFn, RunFn, ShapesFn};
use brolga_runtime::{AlignedBytes, Code, Executor, Functions, HostOps, Options, Program, Weights};
use libloading::Library;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// Weights of so many bytes and more are a file of their own.
const LARGE_WEIGHTS: usize = 16 << 20;

/// Object files that are to become one library.
pub struct Batch {
    dir: tempfile::TempDir,
    models: Vec<Model>,
}

/// A model whose object file was written.
struct Model {
    prefix: String,
    meta: Meta,
    /// Where its weights are, if not in the object.
    weights: Option<PathBuf>,
}

/// A model in a library.
pub struct Linked {
    model: Model,
    library: Arc<Library>,
    /// The folder that has its weights.
    _dir: Arc<tempfile::TempDir>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            dir: tempfile::tempdir().expect("there is room for temporary files"),
            models: vec![],
        }
    }
}

impl Batch {
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Writes the object file of a model, which gets another prefix.
    ///
    /// # Errors
    /// When it cannot be made, or leaves more undefined than the functions `mem*`.
    pub fn add(&mut self, compiled: &mut Compiled) -> Result<(), String> {
        let n = self.models.len();
        compiled.prefix = format!("model_{n}");
        let at = |kind: &str| self.dir.path().join(format!("{n}.{kind}"));
        let (place, weights) = match compiled.packed.bytes().len() {
            0..LARGE_WEIGHTS => (WeightsIn::Object, None),
            _ => (WeightsIn::File, Some(at("weights"))),
        };
        let object = compiled.object(place).map_err(|e| e.to_string())?;
        let missing = undefined(&object);
        if !missing.is_empty() {
            return Err(format!("the object leaves {missing:?} undefined"));
        }
        std::fs::write(at("o"), &object).map_err(|e| e.to_string())?;
        if let Some(file) = &weights {
            compiled.write_weights(file).map_err(|e| e.to_string())?;
        }
        self.models.push(Model {
            prefix: compiled.prefix.clone(),
            meta: compiled.meta.clone(),
            weights,
        });
        Ok(())
    }

    /// Links the library; gives its models in the order that they came in.
    ///
    /// # Panics
    /// When the C compiler fails, or the library cannot be loaded.
    pub fn link(self) -> Vec<Linked> {
        let library = self.dir.path().join("models.so");
        let mut command = Command::new("cc");
        command
            .current_dir(self.dir.path())
            .args(["-shared", "-Wl,-z,defs", "-o"]);
        command.arg(&library);
        command.args((0..self.models.len()).map(|n| format!("{n}.o")));
        let out = command.output().unwrap_or_else(|e| panic!("cc: {e}"));
        assert!(out.status.success(), "cc: {}", String::from_utf8_lossy(&out.stderr));
        // SAFETY: the library is of our objects and has no initializers.
        let library = unsafe { Library::new(&library) }.unwrap_or_else(|e| panic!("{e}"));
        let (library, dir) = (Arc::new(library), Arc::new(self.dir));
        let linked = |model| Linked {
            model,
            library: library.clone(),
            _dir: dir.clone(),
        };
        self.models.into_iter().map(linked).collect()
    }
}

/// Functions of a library.
struct InLibrary {
    functions: Functions,
    _library: Arc<Library>,
}

impl Code for InLibrary {
    fn functions(&self) -> Functions {
        self.functions
    }
}

impl Linked {
    /// The model, ready to run on this many threads with a bound on the memory of a run.
    ///
    /// # Errors
    /// When a symbol is not there, or the weights are not what the metadata says.
    pub fn executor(&self, threads: usize, memory_limit: u64) -> Result<Executor, String> {
        let Linked { model, library, .. } = self;
        let name = |what: &str| format!("{}_{what}", model.prefix);
        // SAFETY: these symbols are functions of these signatures, by the header of the object.
        let functions = unsafe {
            let text = |e: libloading::Error| e.to_string();
            Functions {
                run: *library.get::<RunFn>(name("run")).map_err(text)?,
                plan: *library.get::<PlanFn>(name("plan")).map_err(text)?,
                shapes: *library.get::<ShapesFn>(name("shapes")).map_err(text)?,
            }
        };
        let weights = self.weights(&name("weights"))?;
        let host = Reference::new(&model.meta)?;
        let options = Options {
            threads,
            memory_limit,
            host: host.map(|h| h as Arc<dyn HostOps>),
            ..Options::default()
        };
        let code = Box::new(InLibrary {
            functions,
            _library: library.clone(),
        });
        // SAFETY: the object was made with this metadata.
        let program = unsafe { Program::new(model.meta.clone(), code, weights) };
        let program = Arc::new(program.map_err(|e| e.to_string())?);
        Executor::with_options(program, options).map_err(|e| e.to_string())
    }

    fn weights(&self, symbol: &str) -> Result<Weights, String> {
        let n = self.model.meta.weights_bytes;
        let block = match &self.model.weights {
            Some(file) => {
                let mut block = AlignedBytes::zeroed(n).map_err(|e| e.to_string())?;
                let mut file = std::fs::File::open(file).map_err(|e| e.to_string())?;
                file.read_exact(&mut block).map_err(|e| e.to_string())?;
                block
            }
            None => {
                // SAFETY: an object has its weights under this symbol, as many as its header says.
                let bytes = unsafe {
                    let first = self.library.get::<*const u8>(symbol).map_err(|e| e.to_string())?;
                    std::slice::from_raw_parts(*first, n as usize)
                };
                let at = bytes.as_ptr().addr();
                if !at.is_multiple_of(brolga_abi::ctx::ALIGN) {
                    return Err(format!("the weights stand at {at:#x}"));
                }
                AlignedBytes::copy_of(bytes).map_err(|e| e.to_string())?
            }
        };
        Ok(Weights::Owned(Arc::new(block)))
    }
}
