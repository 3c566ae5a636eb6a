//! What compiling leaves on disk. Every file appears complete or not at all ([`OutputFile`] says where), and the same model
//! with the same options gives the same bytes. What is written tells its number of bytes.

use crate::backend::{self, native};
use crate::compile::Compiled;
use crate::weights::Joined;
use crate::{Error, Result, archive};
use brolga_abi::artefact::{OutputFile, Writer};
use brolga_abi::{Entries, HeaderWeights, Kernel, Meta, header};
use brolga_codegen::listing::Listing;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a program's weights go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightsIn {
    /// Into the object, under `PREFIX_weights`.
    Object,
    /// Into a file of their own ([`Compiled::write_weights`]), which the caller loads.
    File,
}

impl WeightsIn {
    fn header(self) -> HeaderWeights {
        match self {
            WeightsIn::Object => HeaderWeights::Embedded,
            WeightsIn::File => HeaderWeights::File,
        }
    }
}

impl Compiled {
    pub(crate) fn input(&self) -> backend::Input<'_> {
        backend::Input {
            program: &self.program,
            target: &self.target,
            prefix: &self.prefix,
            constants: self.packed.offsets(),
        }
    }

    pub(crate) fn codegen(&self, source: brolga_codegen::Error) -> Error {
        Error::Codegen {
            model: self.meta.name.clone(),
            source,
        }
    }

    /// The symbols that an object file exports.
    pub fn symbols(&self, weights: WeightsIn) -> Vec<String> {
        let names: &[&str] = match weights {
            WeightsIn::Object => &["plan", "shapes", "run", "weights"],
            WeightsIn::File => &["plan", "shapes", "run"],
        };
        names.iter().map(|n| format!("{}_{n}", self.prefix)).collect()
    }

    /// The bytes of an object file.
    ///
    /// # Errors
    /// When the code cannot be made.
    pub fn object(&self, weights: WeightsIn) -> Result<Vec<u8>> {
        let embedded = (weights == WeightsIn::Object).then(|| self.packed.bytes());
        native::object_file(self.input(), embedded, self.threads).map_err(|e| self.codegen(e))
    }

    /// Writes an object file.
    ///
    /// # Errors
    /// When the code cannot be made or the file cannot be written.
    pub fn write_object(&self, path: &Path, weights: WeightsIn) -> Result<u64> {
        write(path, &self.object(weights)?)
    }

    /// The bytes of a static library of one object file.
    ///
    /// # Errors
    /// As [`Compiled::object`].
    pub fn archive(&self, weights: WeightsIn) -> Result<Vec<u8>> {
        let object = self.object(weights)?;
        let name = format!("{}.o", self.prefix);
        Ok(archive::archive(&name, &object, &self.symbols(weights)))
    }

    /// Writes a static library of one object file.
    ///
    /// # Errors
    /// As [`Compiled::write_object`].
    pub fn write_archive(&self, path: &Path, weights: WeightsIn) -> Result<u64> {
        write(path, &self.archive(weights)?)
    }

    /// The bytes of a shared library, linked by the C compiler: the one that `CC` names, else `cc`, else the target's.
    ///
    /// # Errors
    /// As [`Compiled::object`]; when there is no C compiler, or it fails.
    pub fn shared(&self, weights: WeightsIn) -> Result<Vec<u8>> {
        let object = self.object(weights)?;
        let folder = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), e))?;
        let (from, to) = (folder.path().join("model.o"), folder.path().join("model.so"));
        std::fs::write(&from, &object).map_err(|e| Error::io(&from, e))?;
        link(&from, &to, &self.meta.target)?;
        std::fs::read(&to).map_err(|e| Error::io(&to, e))
    }

    /// Writes a shared library.
    ///
    /// # Errors
    /// As [`Compiled::shared`] and [`Compiled::write_object`].
    pub fn write_shared(&self, path: &Path, weights: WeightsIn) -> Result<u64> {
        write(path, &self.shared(weights)?)
    }

    /// Writes the weights as a file of their own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_weights(&self, path: &Path) -> Result<u64> {
        write(path, self.packed.bytes())
    }

    /// The C header of the object file.
    pub fn header(&self, weights: WeightsIn) -> String {
        header(&self.prefix, &self.meta, weights.header())
    }

    /// Writes the C header of the object file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_header(&self, path: &Path, weights: WeightsIn) -> Result<u64> {
        write(path, self.header(weights).as_bytes())
    }

    /// Writes an artefact, which [`crate::Session::load`] maps.
    ///
    /// # Errors
    /// When the code cannot be made or the file cannot be written.
    pub fn write_artefact(&self, path: &Path) -> Result<u64> {
        let programs: Vec<&Compiled> = [self].into_iter().chain(&self.beside).collect();
        let joined = Joined::of(&programs.iter().map(|p| &p.packed).collect::<Vec<_>>());
        let images = programs.iter().enumerate();
        let images = images
            .map(|(at, program)| program.image(at, &joined))
            .collect::<Result<Vec<_>>>()?;
        let store = || -> std::io::Result<u64> {
            let mut writer = Writer::create(path)?;
            for (meta, image) in &images {
                writer.meta(meta)?;
                writer.code(image)?;
            }
            for (kind, name, body) in &self.texts {
                writer.text(kind, name, body)?;
            }
            writer.weights(|out| joined.write(out))?;
            writer.commit()
        };
        store().map_err(|e| failed(path, e))
    }

    /// Its code as the program of this number of an artefact, and what it says of itself there.
    fn image(&self, at: usize, joined: &Joined<'_>) -> Result<(Meta, Vec<u8>)> {
        let constants = joined.offsets(at, &self.packed);
        let input = backend::Input {
            constants: &constants,
            ..self.input()
        };
        let (image, kernels) = native::flat_image(input, self.threads).map_err(|e| self.codegen(e))?;
        let offset = |name: &str| image.offset(name).map_err(|e| self.codegen(e));
        let entry = |name: &str| offset(&format!("{}_{name}", self.prefix));
        let kernels = kernels.into_iter().map(|name| {
            Ok(Kernel {
                offset: offset(&name)?,
                name,
                flops: None,
                bytes: None,
            })
        });
        let mut meta = Meta {
            entries: Entries {
                run: entry("run")?,
                plan: entry("plan")?,
                shapes: entry("shapes")?,
            },
            kernels: kernels.collect::<Result<_>>()?,
            weights_bytes: joined.bytes,
            steering_bytes: joined.steering_bytes,
            ..self.meta.clone()
        };
        for default in meta.inputs.iter_mut().filter_map(|i| i.default.as_mut()) {
            *default = joined.place(at, *default);
        }
        Ok((meta, image.bytes))
    }

    /// CLIF and assembly of every function.
    ///
    /// # Errors
    /// When the code cannot be made.
    pub fn listings(&self) -> Result<Vec<Listing>> {
        backend::of(&self.target)
            .listings(self.input())
            .map_err(|e| self.codegen(e))
    }
}

/// Several files, none of which is in its place before all are written.
#[derive(Default)]
pub struct Outputs(Vec<(PathBuf, OutputFile)>);

impl Outputs {
    /// Writes a file beside its place; gives the number of bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<u64> {
        let store = || -> std::io::Result<OutputFile> {
            let mut file = OutputFile::create(path)?;
            file.write_all(bytes)?;
            file.flush()?;
            Ok(file)
        };
        let file = store().map_err(|e| failed(path, e))?;
        self.0.push((path.to_owned(), file));
        Ok(bytes.len() as u64)
    }

    /// Puts all files in their places.
    ///
    /// # Errors
    /// When one cannot be.
    pub fn commit(self) -> Result<()> {
        for (path, file) in self.0 {
            file.commit().map_err(|e| failed(&path, e))?;
        }
        Ok(())
    }
}

/// Why a file cannot be written.
fn failed(path: &Path, e: std::io::Error) -> Error {
    match path.parent() {
        Some(folder) if e.kind() == ErrorKind::NotFound && !folder.as_os_str().is_empty() && !folder.exists() => {
            Error::file(path, format!("there is no folder {} to write it to", folder.display()))
        }
        _ => Error::io(path, e),
    }
}

/// Makes a folder that files are written to, and those that it is in.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| match path.is_file() {
        true => Error::file(path, "it is a file, expected a folder, or a name that nothing has yet"),
        false => Error::io(path, e),
    })
}

/// Writes a file as [`OutputFile`] puts it there: complete or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<u64> {
    let store = || -> std::io::Result<u64> {
        let mut file = OutputFile::create(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    store().map_err(|e| failed(path, e))
}

fn link(object: &Path, library: &Path, triple: &str) -> Result<()> {
    let here = triple.split('-').next() == Some(std::env::consts::ARCH);
    let compiler = match std::env::var("CC") {
        Ok(cc) if !cc.is_empty() => cc,
        _ if here => "cc".to_owned(),
        // Debian's and most distributions' name of a cross compiler.
        _ => format!("{}-gcc", triple.replace("-unknown", "")),
    };
    let result = Command::new(&compiler)
        .args(["-shared", "-Wl,--build-id=none", "-o"])
        .arg(library)
        .arg(object)
        .output();
    match result {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(Error::Linker(format!(
            "the C compiler `{compiler}` did not link the library: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        ))),
        Err(e) => Err(Error::Linker(format!(
            "a shared library is linked by a C compiler, but `{compiler}` cannot be started ({e}); install one, name it in \
             the environment variable CC, or write an object file (.o) or a static library (.a) instead"
        ))),
    }
}
