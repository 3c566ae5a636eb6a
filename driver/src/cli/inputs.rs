//! What commands that run a model share: its inputs, from files or pseudo-random, and the number of threads.

use super::{Failure, ModelArgs, note};
use brolga::abi::Input;
use brolga::frontend::safetensors::OPTIONAL;
use brolga::ir::{Strings, Tensor, plain};
use brolga::{Error, npy, random, tensors};
use clap::Args;
use std::path::{Path, PathBuf};

/// Options that give inputs.
#[derive(Args)]
pub struct InputArgs {
    /// One input: a .npy file or an ONNX tensor (.pb); may be repeated
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = named_file)]
    input: Vec<(String, PathBuf)>,
    /// Inputs by name in a .npz file
    #[arg(long, value_name = "FILE.npz")]
    inputs: Option<PathBuf>,
}

/// The inputs that a model has.
pub struct Ports<'a> {
    /// Themselves.
    pub inputs: &'a [Input],
    /// The names of the symbols in their shapes.
    pub symbols: &'a [String],
    /// Whether one has a value where none is given.
    pub has_default: &'a dyn Fn(&Input) -> bool,
}

impl InputArgs {
    /// Whether any is given.
    pub fn are_given(&self) -> bool {
        self.inputs.is_some() || !self.input.is_empty()
    }

    /// The inputs of a run: those that are given, or pseudo-random numbers where none are.
    pub fn tensors(&self, ports: &Ports, model: &ModelArgs) -> Result<Vec<(String, Tensor)>, Failure> {
        let inputs = match self.are_given() {
            true => self.read(model)?,
            false => self.random(ports, model)?,
        };
        typed(ports, inputs)
    }

    /// Those that are given of what a folder's model may do without, beside these.
    pub fn optional(&self, with: &[String]) -> Result<Vec<String>, Failure> {
        let mut names: Vec<String> = match &self.inputs {
            Some(path) => npy::read_npz(path)?.into_iter().map(|(name, _)| name).collect(),
            None => vec![],
        };
        names.extend(self.input.iter().map(|(name, _)| name.clone()));
        names.retain(|n| OPTIONAL.contains(&n.as_str()) && !with.contains(n));
        Ok(names)
    }

    fn read(&self, model: &ModelArgs) -> Result<Vec<(String, Tensor)>, Failure> {
        let mut inputs = match &self.inputs {
            Some(path) => npy::read_npz(path)?,
            None => vec![],
        };
        for (name, path) in &self.input {
            let tensor = match path.extension().and_then(|e| e.to_str()) {
                Some("pb") => tensor_file(path, model.memory_limit)?,
                Some("npy") => npy::read_npy(path)?,
                _ => return Err(Error::file(path, "an input is a .npy or a .pb file").into()),
            };
            if inputs.iter().any(|(n, _)| n == name) {
                return Err(Error::file(path, format!("input `{}` is given a second time", plain(name))).into());
            }
            inputs.push((name.clone(), tensor));
        }
        let pinned = |name: &String| model.pins.iter().any(|(pin, _)| pin == name);
        match inputs.iter().find(|(name, _)| pinned(name)) {
            Some((name, _)) => Err(format!(
                "input `{}` is given, and pinned to a value by --pin, which makes it a constant; leave out one of them",
                plain(name)
            )
            .into()),
            None => Ok(inputs),
        }
    }

    /// Pseudo-random inputs, of those that have no default.
    fn random(&self, ports: &Ports, model: &ModelArgs) -> Result<Vec<(String, Tensor)>, Failure> {
        if !ports.inputs.is_empty() {
            note("no inputs given; running on pseudo-random numbers");
        }
        let needed = ports.inputs.iter().filter(|i| !(ports.has_default)(i));
        Ok(random::inputs(needed, ports.symbols, &model.sizes, model.memory_limit)?)
    }
}

/// Inputs of small types, which files hold as the integers that their bytes are.
fn typed(ports: &Ports, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, Failure> {
    let of_port = |(name, t): (String, Tensor)| match ports.inputs.iter().find(|p| p.name == name) {
        None => Ok((name, t)),
        Some(port) => match tensors::typed(t, tensors::ir_dtype(port.dtype)) {
            Ok(t) => Ok((name, t)),
            Err(e) => Err(format!("input `{}`: {e}", plain(&name)).into()),
        },
    };
    inputs.into_iter().map(of_port).collect()
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

/// A tensor in a file of ONNX.
pub fn tensor_file(path: &Path, memory_limit: u64) -> Result<Tensor, Failure> {
    let options = brolga::frontend::onnx::Options {
        memory_limit,
        strings: Strings::current()?,
        ..Default::default()
    };
    Ok(brolga::frontend::onnx::tensor_file(path, &options)?.1)
}

/// A number of threads that a process can have.
pub fn threads(text: &str) -> Result<usize, String> {
    const MOST: usize = 4096;
    let n = text.parse().map_err(|_| "expected a number of threads".to_owned())?;
    match n <= MOST {
        true => Ok(n),
        false => Err(format!("expected no more than {MOST}")),
    }
}
