//! What a compiled program says of itself: enough to check a caller's tensors, to call the code and to name a failure.
//!
//! Invariant: a [`Meta`] that came out of an artefact passed [`Meta::validate`], so every index in it is in range.

use crate::ctx::Alias;
use crate::dtype::DType;

/// One extent of an input's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Known at compile time, at least 0.
    Const(i64),
    /// The value of a symbol, by its number in [`Meta::symbols`].
    Symbol(u32),
}

/// A tensor that the caller passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The model's name for it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; the tensor is dense and row-major.
    pub dims: Vec<Dim>,
    /// Where in the weights the tensor lies that stands for one that the caller does not pass.
    pub default: Option<u64>,
}

impl Input {
    /// The extents, where all are known.
    pub fn shape(&self) -> Option<Vec<usize>> {
        let extent = |dim: &Dim| match *dim {
            Dim::Const(n) => usize::try_from(n).ok(),
            Dim::Symbol(_) => None,
        };
        self.dims.iter().map(extent).collect()
    }

    /// The bytes of the weights that are the default.
    fn default_bytes(&self) -> Option<std::ops::Range<u64>> {
        let start = self.default?;
        let size = self
            .shape()?
            .iter()
            .try_fold(self.dtype.size() as u64, |size, &n| size.checked_mul(n as u64));
        Some(start..start.checked_add(size?)?)
    }

    /// The default among a program's weights.
    pub fn default_in<'w>(&self, weights: &'w [u8]) -> Option<&'w [u8]> {
        let range = self.default_bytes()?;
        weights.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }
}

/// A tensor that the program fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The model's name for it.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// How many of the numbers that `NAME_shapes` writes belong to it.
    pub rank: u32,
    /// True where only a run tells its extents.
    pub dynamic: bool,
    /// The shape in terms of the symbols, for people: `[batch, 2*seq + 1]`.
    pub shape: String,
}

/// An operator that the program calls back for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOp {
    /// The operator with attributes and types, in the form that the supplier of host operators reads.
    pub text: String,
    /// The model's node.
    pub node: String,
    /// How many input pointers it is given.
    pub inputs: u32,
    /// How many output pointers it is given.
    pub outputs: u32,
}

/// A generated function, for profilers and disassemblers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its symbol.
    pub name: String,
    /// Where it starts in the code.
    pub offset: u64,
    /// Floating-point operations of one call, where the compiler knows a number.
    pub flops: Option<u64>,
    /// Bytes read and written by one call, where the compiler knows a number.
    pub bytes: Option<u64>,
}

/// Where the three functions start in the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// `NAME_run`.
    pub run: u64,
    /// `NAME_plan`.
    pub plan: u64,
    /// `NAME_shapes`.
    pub shapes: u64,
}

/// Everything that a program says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The model's name; also the symbol prefix, after [`crate::symbol_prefix`].
    pub name: String,
    /// Target triple that the code was compiled for.
    pub target: String,
    /// CPU features that the code needs, by their names in Rust (`avx2`, `fma`).
    pub features: Vec<String>,
    /// Name and version of the compiler.
    pub compiler: String,
    /// Key in the compile cache: a hash of the model, the options and the compiler.
    pub key: [u64; 2],
    /// Names of the symbolic dimensions.
    pub symbols: Vec<String>,
    /// Inputs, in the order of the pointers of `run`.
    pub inputs: Vec<Input>,
    /// Outputs, in the order of the pointers of `run`.
    pub outputs: Vec<Output>,
    /// What the compiler assumed of the dims, as text; a failed guard's status carries its number here.
    pub guards: Vec<String>,
    /// What has a size that depends on the dims, as text; the status of a size that does not fit carries its number here.
    pub sizes: Vec<String>,
    /// What the program checks of the model's data, as text; a failed check's status carries its number here.
    pub checks: Vec<String>,
    /// Names of sizes that the program computes, whose values host operators find behind those of the symbols.
    pub names: Vec<String>,
    /// Where the functions start; all zero for code that is not in an artefact.
    pub entries: Entries,
    /// Host operators, in the order of `Ctx::host`.
    pub host_ops: Vec<HostOp>,
    /// Generated functions.
    pub kernels: Vec<Kernel>,
    /// The model's nodes that `Ctx::error_node` counts.
    pub nodes: Vec<String>,
    /// The strings that have the numbers 0, 1, 2 …: elements of the type `str` are such numbers.
    pub strings: Vec<String>,
    /// Inputs that the program can update in place.
    pub aliases: Vec<Alias>,
    /// Size of the packed weights in bytes.
    pub weights_bytes: u64,
    /// So many bytes at their beginning steer a run: what it reads and writes, and when it ends, depends on no others. They are checked
    /// before anything runs.
    pub steering_bytes: u64,
}

impl Meta {
    /// How many numbers `NAME_shapes` writes.
    pub fn output_dims(&self) -> usize {
        self.outputs.iter().map(|output| output.rank as usize).sum()
    }

    /// An input's shape in terms of the symbols: `[batch, 784]`.
    pub fn input_shape(&self, input: &Input) -> String {
        let dims: Vec<String> = input
            .dims
            .iter()
            .map(|dim| match *dim {
                Dim::Const(n) => n.to_string(),
                Dim::Symbol(s) => match self.symbols.get(s as usize) {
                    Some(name) => name.clone(),
                    None => format!("?{s}"),
                },
            })
            .collect();
        format!("[{}]", dims.join(", "))
    }

    /// Checks every index. The error says what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        for input in &self.inputs {
            for dim in &input.dims {
                match *dim {
                    Dim::Const(n) if n < 0 => return Err(format!("input `{}` has the extent {n}", input.name)),
                    Dim::Symbol(s) if s as usize >= self.symbols.len() => {
                        let count = self.symbols.len();
                        return Err(format!("input `{}` names symbol {s} of {count}", input.name));
                    }
                    _ => {}
                }
            }
            if input.default.is_some() && input.default_bytes().is_none_or(|range| range.end > self.weights_bytes) {
                return Err(format!(
                    "the default of input `{}` does not lie in the weights",
                    input.name
                ));
            }
        }
        if self.steering_bytes > self.weights_bytes {
            let (steering, all) = (self.steering_bytes, self.weights_bytes);
            return Err(format!("{steering} bytes of {all} bytes of weights steer"));
        }
        // A shape has at most a few dozen extents; the bound keeps a forged rank from sizing a buffer.
        if let Some(output) = self.outputs.iter().find(|output| output.rank > MAX_RANK) {
            return Err(format!(
                "output `{}` has rank {}; at most {MAX_RANK} is possible",
                output.name, output.rank
            ));
        }
        // The bound is on what a caller's arrays of pointers hold; it keeps a forged count from reaching past them.
        let too_many = |op: &&HostOp| op.inputs > MAX_OPERANDS || op.outputs > MAX_OPERANDS;
        if let Some(op) = self.host_ops.iter().find(too_many) {
            let (inputs, outputs) = (op.inputs, op.outputs);
            return Err(format!(
                "the host operator of node `{}` has {inputs} inputs and {outputs} outputs",
                op.node
            ));
        }
        for alias in &self.aliases {
            let (input, output) = (alias.input as usize, alias.output as usize);
            if input >= self.inputs.len() || output >= self.outputs.len() {
                return Err(format!("no input {input} or no output {output} to be aliased"));
            }
        }
        Ok(())
    }
}

/// The highest rank of a tensor.
pub const MAX_RANK: u32 = 64;

/// The most inputs or outputs of a host operator.
pub const MAX_OPERANDS: u32 = 1 << 16;
