//! A program: code, weights, and what they say of themselves.
//!
//! Decision (2026-11-23): [`Program::open`] and [`Program::new`] are `unsafe`, as `libloading` and Wasmtime's
//! `Module::deserialize` are. An artefact is machine code; its checksums find damage, not malice, so opening one is as
//! much an act of trust as starting a program.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use brolga_abi::artefact::{Artefact, FormatError, Part, checksum};
use brolga_abi::{Dim, Entries, ErrorCode, Meta, Output, PlanFn, RunFn, ShapesFn};
use memmap2::{Mmap, MmapMut, MmapOptions};

use crate::features;
use crate::memory::ALIGN;
use crate::soundness::Soundness;
use crate::{AlignedBytes, Error, Result};

/// The functions of a program.
#[derive(Clone, Copy, Debug)]
pub struct Functions {
    /// `NAME_run`.
    pub run: RunFn,
    /// `NAME_plan`.
    pub plan: PlanFn,
    /// `NAME_shapes`.
    pub shapes: ShapesFn,
}

/// Machine code in memory.
pub trait Code: Send + Sync {
    /// Its functions; they can be called, from any thread, for as long as the code lives.
    fn functions(&self) -> Functions;
}

/// Packed weights in memory, shared by all who hold a clone.
#[derive(Clone, Debug)]
pub enum Weights {
    /// None.
    Empty,
    /// Part of a mapped file, beginning at a multiple of 64.
    Mapped(Arc<Mmap>, Range<usize>),
    /// A block of memory.
    Owned(Arc<AlignedBytes>),
}

impl Weights {
    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        // What a program without weights is given: aligned, and nothing to read there.
        #[repr(align(64))]
        struct Nothing([u8; 0]);
        static NOTHING: Nothing = Nothing([]);
        match self {
            Weights::Empty => &NOTHING.0,
            Weights::Mapped(map, range) => map.get(range.clone()).unwrap_or(&NOTHING.0),
            Weights::Owned(block) => block,
        }
    }
}

/// A loaded program. It holds no state of a run, so any number of executors share it.
pub struct Program {
    meta: Meta,
    functions: Functions,
    weights: Weights,
    /// Of an artefact: whether its weights are as they were written.
    soundness: Option<Arc<Soundness>>,
    /// Keeps the functions alive.
    _code: Box<dyn Code>,
}

impl Program {
    /// A program of code and weights that a compiler hands over. The error says which parts do not fit each other.
    ///
    /// # Safety
    /// The functions must follow the ABI and be those of a program that `meta` describes.
    pub unsafe fn new(meta: Meta, code: Box<dyn Code>, weights: Weights) -> Result<Program> {
        let refuse = |reason: String| Error::Program {
            program: meta.name.clone(),
            reason,
        };
        meta.validate().map_err(refuse)?;
        let bytes = weights.bytes();
        if bytes.len() as u64 != meta.weights_bytes {
            return Err(refuse(format!(
                "{} bytes of weights, {} expected",
                bytes.len(),
                meta.weights_bytes
            )));
        }
        if !bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(refuse(format!("the weights do not begin at a multiple of {ALIGN}")));
        }
        Ok(Program {
            functions: code.functions(),
            meta,
            weights,
            soundness: None,
            _code: code,
        })
    }

    /// Maps an artefact; of one with several programs, the first ([`Program::open_all`]).
    ///
    /// # Safety
    /// As for [`Program::open_all`].
    pub unsafe fn open(path: &Path) -> Result<Program> {
        // SAFETY: the caller's promise.
        let mut programs = unsafe { Program::open_all(path) }?;
        Ok(programs.swap_remove(0))
    }

    /// Maps the programs of an artefact, at least one, which share its weights. Nothing is compiled, packed or copied. Every byte is read
    /// once to find damage: what steers a run before this returns, other weights behind it, before the first run or beside it, which gives no
    /// results before ([`Program::check_weights`]).
    ///
    /// # Safety
    /// The file must come from a compiler that is trusted: its code will run. It must not be changed or shortened in
    /// place while the program lives; replacing it by renaming another file to its name is fine, and is what
    /// [`brolga_abi::artefact::OutputFile`] does.
    pub unsafe fn open_all(path: &Path) -> Result<Vec<Program>> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |source| Error::Artefact {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            // Empty files cannot be mapped everywhere.
            return Err(damaged(FormatError::Magic));
        }
        // SAFETY: the caller promises that the file does not change.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(io)?);
        let artefact = Artefact::parse(&map).map_err(damaged)?;
        for p in artefact.programs() {
            check_machine(path, &p.meta)?;
        }
        let steering = artefact.programs().iter().map(|p| p.meta.steering_bytes).max();
        let (range, sums) = (artefact.weights(), artefact.sums().clone());
        let soundness = Soundness::of(path.to_owned(), map.clone(), range.clone(), sums, steering.unwrap_or(0))?;
        let soundness = Arc::new(soundness);
        let program = |Part { meta, code }: Part| {
            let image = &map[code.clone()];
            let code = MappedCode::map(&file, image, code.start as u64, meta.entries).map_err(io)?;
            let weights = if range.is_empty() {
                Weights::Empty
            } else {
                Weights::Mapped(map.clone(), range.clone())
            };
            // SAFETY: the caller trusts the file, whose metadata describes its code.
            let program = unsafe { Program::new(meta, Box::new(code), weights) }?;
            Ok(Program {
                soundness: Some(soundness.clone()),
                ..program
            })
        };
        artefact.into_programs().into_iter().map(program).collect()
    }

    /// What the program says of itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Waits until it is known that the weights of an artefact are as they were written. Every run does.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_weights(&self) -> Result<()> {
        self.soundness.as_ref().map_or(Ok(()), |s| s.wait())
    }

    /// Lets the check of weights make way for a run.
    pub(crate) fn make_way(&self, workers: u32) -> Result<()> {
        self.soundness.as_ref().map_or(Ok(()), |s| s.make_way(workers))
    }

    /// The packed weights. Of an artefact they may be checked only later ([`Program::check_weights`]).
    pub fn weights(&self) -> &[u8] {
        self.weights.bytes()
    }

    /// Bytes of arena that a run needs. `dims` has a value for each of the program's symbols.
    pub fn plan(&self, dims: &[i64], workers: u32) -> Result<u64> {
        self.check_dims(dims)?;
        let mut arena_bytes = 0;
        // SAFETY: `dims` has as many values as there are symbols, and the result has its place.
        let status = unsafe { (self.functions.plan)(dims.as_ptr(), workers, &raw mut arena_bytes) };
        self.check("plan", status, dims)?;
        Ok(arena_bytes)
    }

    /// The shapes of the outputs. `dims` has a value for each of the program's symbols. Where only a run tells extents, the
    /// largest that they can be; the error is that nothing bounds one.
    pub fn shapes(&self, dims: &[i64]) -> Result<Vec<Vec<usize>>> {
        let known = self.known_shapes(dims, true)?.into_iter().zip(&self.meta.outputs);
        let shape = |(shape, output): (Option<Vec<usize>>, &Output)| {
            shape.ok_or_else(|| Error::UnknownShape {
                output: output.name.clone(),
                shape: output.shape.clone(),
            })
        };
        known.map(shape).collect()
    }

    /// The shapes of the outputs where they are known before a run; with `bounds`, also the largest of others.
    pub(crate) fn known_shapes(&self, dims: &[i64], bounds: bool) -> Result<Vec<Option<Vec<usize>>>> {
        self.check_dims(dims)?;
        let mut extents = vec![0; self.meta.output_dims()];
        // SAFETY: `dims` has as many values as there are symbols, and `extents` as many as the outputs have extents.
        let status = unsafe { (self.functions.shapes)(dims.as_ptr(), extents.as_mut_ptr()) };
        self.check("shapes", status, dims)?;
        let mut rest = extents.as_slice();
        let mut shapes = Vec::with_capacity(self.meta.outputs.len());
        for output in &self.meta.outputs {
            let (own, others) = rest.split_at(output.rank as usize);
            rest = others;
            if output.dynamic && (!bounds || own.contains(&-1)) {
                shapes.push(None);
                continue;
            }
            let shape: Result<Vec<usize>, _> = own.iter().map(|&n| usize::try_from(n)).collect();
            shapes.push(Some(shape.map_err(|_| Error::Shape {
                tensor: format!("output `{}`", output.name),
                found: format!("{own:?} for {}", self.describe_dims(dims)),
                expected: output.shape.clone(),
            })?));
        }
        Ok(shapes)
    }

    /// The values of the symbols, for people: `batch = 2, seq = 128`.
    pub fn describe_dims(&self, dims: &[i64]) -> String {
        let pairs: Vec<String> = self
            .meta
            .symbols
            .iter()
            .zip(dims)
            .map(|(name, n)| format!("{name} = {n}"))
            .collect();
        if pairs.is_empty() {
            "these shapes".to_owned()
        } else {
            pairs.join(", ")
        }
    }

    /// What the symbols in a text are, and which inputs tell them: `n = 3 (axis 0 of input `x`)`.
    pub(crate) fn told(&self, text: &str, dims: &[i64]) -> String {
        let words = || text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let axis = |at: u32| {
            self.meta.inputs.iter().find_map(|input| {
                let axis = input.dims.iter().position(|d| *d == Dim::Symbol(at))?;
                Some(format!(" (axis {axis} of input `{}`)", input.name))
            })
        };
        let pairs: Vec<String> = (0..)
            .zip(self.meta.symbols.iter().zip(dims))
            .filter(|(_, (name, _))| words().any(|w| w == *name))
            .map(|(at, (name, n))| format!("{name} = {n}{}", axis(at).unwrap_or_default()))
            .collect();
        pairs.join(", ")
    }

    /// The error of a size that a status counts.
    fn size(&self, number: u32, problem: &'static str, dims: &[i64]) -> Error {
        let size = self.meta.sizes.get(number as usize);
        Error::Size {
            program: self.meta.name.clone(),
            size: size.map_or_else(|| "a tensor".to_owned(), Clone::clone),
            problem,
            dims: self.describe_dims(dims),
        }
    }

    pub(crate) fn functions(&self) -> Functions {
        self.functions
    }

    fn check_dims(&self, dims: &[i64]) -> Result<()> {
        if dims.len() == self.meta.symbols.len() {
            return Ok(());
        }
        let reason = format!("{} values for {} symbols", dims.len(), self.meta.symbols.len());
        Err(Error::Program {
            program: self.meta.name.clone(),
            reason,
        })
    }

    fn check(&self, function: &'static str, status: i32, dims: &[i64]) -> Result<()> {
        let program = || self.meta.name.clone();
        match ErrorCode::split(status) {
            Some((ErrorCode::Ok, _)) => Ok(()),
            Some((ErrorCode::Guard, number)) => {
                let guard = self.meta.guards.get(number as usize);
                let guard = guard.map_or_else(|| "something else of its dimensions".to_owned(), Clone::clone);
                let dims = match self.told(&guard, dims) {
                    known if known.is_empty() => self.describe_dims(dims),
                    known => known,
                };
                Err(Error::Guard {
                    program: program(),
                    guard,
                    dims,
                })
            }
            Some((ErrorCode::TooLarge, number)) => Err(self.size(number, "is too large, beyond 64 bits,", dims)),
            Some((ErrorCode::BadDims, number)) if number > 0 => {
                Err(self.size(number - 1, "has a negative extent", dims))
            }
            Some((code, _)) => {
                let detail = format!(": `{function}` for {}", self.describe_dims(dims));
                Err(Error::Run {
                    code,
                    node: None,
                    detail,
                })
            }
            None => Err(Error::Status {
                program: program(),
                function,
                status,
            }),
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.meta.name)
            .field("target", &self.meta.target)
            .finish_non_exhaustive()
    }
}

/// Refuses code that this machine cannot run.
fn check_machine(path: &Path, meta: &Meta) -> Result<()> {
    if !features::runs(&meta.target) {
        let (path, found) = (path.to_owned(), meta.target.clone());
        return Err(Error::Target {
            path,
            found,
            expected: features::ARCH,
        });
    }
    let missing: Vec<&str> = meta
        .features
        .iter()
        .map(String::as_str)
        .filter(|name| !features::has(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::CpuFeatures {
        path: path.to_owned(),
        features: missing.join(", "),
    })
}

/// The code of an artefact, readable and executable.
struct MappedCode {
    map: Mmap,
    entries: Entries,
}

impl MappedCode {
    /// Maps `image`, which stands at `offset` in the file. Where the system does not run code from this file (a volume
    /// mounted without execution, a policy), it is copied into memory of its own.
    fn map(file: &File, image: &[u8], offset: u64, entries: Entries) -> std::io::Result<MappedCode> {
        // SAFETY: `Program::open`'s caller promises that the file does not change.
        let mapped = unsafe { MmapOptions::new().offset(offset).len(image.len()).map_exec(file) };
        let map = match mapped {
            Ok(map) => map,
            Err(_) => {
                let mut copy = MmapMut::map_anon(image.len())?;
                copy.copy_from_slice(image);
                copy.make_exec()?
            }
        };
        // The image was checked through another mapping; a file that changed in between must not run.
        if checksum(&map) != checksum(image) {
            return Err(std::io::Error::other("the file changed while it was opened"));
        }
        Ok(MappedCode { map, entries })
    }
}

impl Code for MappedCode {
    fn functions(&self) -> Functions {
        let at = |offset: u64| self.map.as_ptr().wrapping_add(offset as usize);
        let Entries { run, plan, shapes } = self.entries;
        // SAFETY: the artefact's reader checked that the offsets lie in the code, and `Program::open`'s caller vouches
        // for what stands there.
        unsafe {
            Functions {
                run: std::mem::transmute::<*const u8, RunFn>(at(run)),
                plan: std::mem::transmute::<*const u8, PlanFn>(at(plan)),
                shapes: std::mem::transmute::<*const u8, ShapesFn>(at(shapes)),
            }
        }
    }
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;
