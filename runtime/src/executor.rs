//! Runs a program: checks the tensors against what the program says of itself, plans, calls.
//!
//! Invariants: the program is called only with tensors of the dtypes and sizes that it expects. Each run has its own
//! arena and context, so runs may overlap; an arena is kept for the next run and grows to the largest that was needed.

mod in_place;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use brolga_abi::{DType, Dim, Meta};

use crate::call::Call;
use crate::pool::Pool;
use crate::profile::Recorder;
use crate::program::Program;
use crate::tensor::byte_size;
use crate::{AlignedBytes, Buffer, Error, HostOps, Result, View, ViewMut};

/// How an executor runs its program.
#[derive(Clone)]
pub struct Options {
    /// Workers of a parallel loop, the calling thread included; 0 is one for each core.
    pub threads: usize,
    /// The most bytes that one run may use for its arena, its outputs and what it allocates on the way.
    pub memory_limit: u64,
    /// Who evaluates the program's host operators.
    pub host: Option<Arc<dyn HostOps>>,
    /// Notes when what ran ([`Executor::recorder`]). Steps are noted where the program's code calls [`crate::step_hook`] around them.
    pub record: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: 0,
            memory_limit: u64::MAX,
            host: None,
            record: false,
        }
    }
}

/// What a run tells of an output.
struct Told {
    shape: Vec<usize>,
    /// Its memory, where the program allocated it.
    memory: Option<AlignedBytes>,
}

/// A program, ready to run.
pub struct Executor {
    program: Arc<Program>,
    pool: Arc<Pool>,
    recorder: Option<Recorder>,
    options: Options,
    arenas: Mutex<Vec<AlignedBytes>>,
    /// The shapes of inputs that have a default.
    defaults: Vec<Option<Vec<usize>>>,
}

impl Executor {
    /// Runs `program` on this many threads; 0 is one for each core.
    pub fn new(program: Arc<Program>, threads: usize) -> Result<Executor> {
        Self::with_options(
            program,
            Options {
                threads,
                ..Options::default()
            },
        )
    }

    /// Fails with [`Error::NoHostOps`] when the program needs host operators and none are given.
    pub fn with_options(program: Arc<Program>, options: Options) -> Result<Executor> {
        if let (None, Some(op)) = (&options.host, program.meta().host_ops.first()) {
            return Err(Error::NoHostOps {
                node: op.node.clone(),
                op: op.text.clone(),
            });
        }
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let inputs = program.meta().inputs.iter();
        let defaults = inputs.map(|input| input.default.and_then(|_| input.shape())).collect();
        let pool = Pool::shared(threads);
        Ok(Executor {
            defaults,
            program,
            recorder: options.record.then(|| Recorder::new(pool.workers())),
            pool,
            options,
            arenas: Mutex::new(Vec::new()),
        })
    }

    /// The same program with another number of threads; 0 is one for each core.
    pub fn with_threads(&self, threads: usize) -> Result<Executor> {
        let options = Options {
            threads,
            ..self.options.clone()
        };
        Executor::with_options(self.program.clone(), options)
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Who notes what runs do, where the options ask for it.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// How many workers parallel loops have.
    pub fn workers(&self) -> u32 {
        self.pool.workers()
    }

    /// Runs on inputs in the order of the program's, all of them or those without a default, and returns the outputs in
    /// theirs.
    pub fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Buffer>> {
        let inputs = &*self.complete(inputs);
        let dims = self.bind(inputs)?;
        let arena_bytes = self.program.plan(&dims, self.pool.workers())?;
        let shapes = self.program.known_shapes(&dims, false)?;
        let outputs = &self.program.meta().outputs;
        let sizes = outputs
            .iter()
            .zip(&shapes)
            .filter_map(|(output, shape)| Some(byte_size(output.dtype, shape.as_ref()?)));
        let bytes = sizes.fold(0u64, |sum, size| sum.saturating_add(size.unwrap_or(u64::MAX)));
        self.keep_to_limit(&dims, arena_bytes, bytes)?;
        let buffers = outputs
            .iter()
            .zip(shapes)
            .map(|(output, shape)| shape.map(|shape| Buffer::zeroed(output.dtype, shape)).transpose());
        let mut buffers = buffers.collect::<Result<Vec<Option<Buffer>>>>()?;
        let views = buffers.iter_mut().map(|b| b.as_mut().map(Buffer::bytes_mut));
        let given: Vec<Option<View>> = inputs.iter().copied().map(Some).collect();
        let told = self.call(&dims, &given, views.collect(), arena_bytes, bytes)?;
        let mut made = told.into_iter();
        let all = outputs.iter().zip(buffers).map(|(output, known)| {
            let of = |t: Told| Some(Buffer::of(output.dtype, t.shape, t.memory?));
            known
                .or_else(|| made.next().and_then(of))
                .ok_or_else(|| Error::Program {
                    program: self.program.meta().name.clone(),
                    reason: format!("it gave output `{}` no memory", output.name),
                })
        });
        all.collect()
    }

    /// [`Executor::run`] with inputs by name, in any order.
    pub fn run_named(&self, inputs: &[(&str, View<'_>)]) -> Result<Vec<Buffer>> {
        self.run(&self.order(inputs)?)
    }

    /// Runs into the caller's tensors, and returns their shapes. They must be those that [`Executor::output_shapes`] tells;
    /// where only the run tells extents, the tensor is memory of any shape that is large enough, and the elements stand at
    /// its start. After an error the contents of all are unspecified.
    pub fn run_into(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) -> Result<Vec<Vec<usize>>> {
        let inputs = &*self.complete(inputs);
        self.count_outputs(outputs)?;
        let dims = self.bind(inputs)?;
        let given: Vec<Option<View>> = inputs.iter().copied().map(Some).collect();
        self.fill(&dims, &given, outputs)
    }

    fn count_outputs(&self, outputs: &[ViewMut<'_>]) -> Result<()> {
        let meta = self.program.meta();
        if outputs.len() != meta.outputs.len() {
            let names = list(meta.outputs.iter().map(|output| &output.name));
            return Err(Error::Count {
                what: "output",
                found: outputs.len(),
                expected: meta.outputs.len(),
                names,
            });
        }
        Ok(())
    }

    /// Runs into the caller's tensors. An input that is not given is the output that it may be the memory of.
    fn fill(&self, dims: &[i64], inputs: &[Option<View<'_>>], outputs: &mut [ViewMut<'_>]) -> Result<Vec<Vec<usize>>> {
        let arena_bytes = self.program.plan(dims, self.pool.workers())?;
        let shapes = self.program.known_shapes(dims, false)?;
        let meta = self.program.meta();
        for ((output, shape), view) in meta.outputs.iter().zip(&shapes).zip(outputs.iter()) {
            let tensor = || format!("output `{}`", output.name);
            check_dtype(tensor, view.dtype, output.dtype)?;
            if let Some(shape) = shape
                && view.shape != shape
            {
                let (found, expected) = (format!("{:?}", view.shape), format!("{shape:?}"));
                return Err(Error::Shape {
                    tensor: tensor(),
                    found,
                    expected,
                });
            }
            check_bytes(tensor, view.dtype, view.shape, view.bytes.len())?;
        }
        let bytes = outputs.iter().map(|view| view.bytes.len() as u64).sum();
        self.keep_to_limit(dims, arena_bytes, bytes)?;
        let views = outputs.iter_mut().map(|view| Some(&mut *view.bytes));
        let mut told = self
            .call(dims, inputs, views.collect(), arena_bytes, bytes)?
            .into_iter();
        let shape = |known: Option<Vec<usize>>| known.or_else(|| told.next().map(|t| t.shape)).unwrap_or_default();
        Ok(shapes.into_iter().map(shape).collect())
    }

    /// The shapes of the outputs for inputs like these, or the largest where only a run tells them; of the inputs only dtypes and shapes matter here, but they are
    /// checked whole.
    pub fn output_shapes(&self, inputs: &[View<'_>]) -> Result<Vec<Vec<usize>>> {
        self.program.shapes(&self.bind(&self.complete(inputs))?)
    }

    /// The values of the symbols for inputs like these, in the order of the program's.
    pub fn sizes(&self, inputs: &[View<'_>]) -> Result<Vec<i64>> {
        self.bind(&self.complete(inputs))
    }

    /// The default of an input.
    fn default(&self, position: usize) -> Option<View<'_>> {
        let input = &self.program.meta().inputs[position];
        Some(View {
            dtype: input.dtype,
            shape: self.defaults[position].as_deref()?,
            bytes: input.default_in(self.program.weights())?,
        })
    }

    /// All inputs, where those are given that have no default.
    fn complete<'a>(&'a self, inputs: &'a [View<'a>]) -> Cow<'a, [View<'a>]> {
        let without = self.defaults.iter().filter(|d| d.is_none()).count();
        if inputs.len() == self.defaults.len() || inputs.len() != without {
            return Cow::Borrowed(inputs);
        }
        let mut given = inputs.iter().copied();
        let all = (0..self.defaults.len()).map_while(|i| self.default(i).or_else(|| given.next()));
        Cow::Owned(all.collect())
    }

    /// Puts named inputs into the program's order; what is not given is its default.
    pub fn order<'a>(&'a self, inputs: &[(&str, View<'a>)]) -> Result<Vec<View<'a>>> {
        let meta = self.program.meta();
        let mut ordered: Vec<Option<View<'a>>> = vec![None; meta.inputs.len()];
        for &(name, view) in inputs {
            let Some(position) = meta.inputs.iter().position(|input| input.name == name) else {
                let names = list(meta.inputs.iter().map(|input| &input.name));
                return Err(Error::UnknownInput {
                    name: name.to_owned(),
                    names,
                });
            };
            if ordered[position].replace(view).is_some() {
                return Err(Error::DuplicateInput { name: name.to_owned() });
            }
        }
        let found = ordered
            .into_iter()
            .zip(&meta.inputs)
            .enumerate()
            .map(|(i, (view, input))| {
                let expected = || format!("{} {}", input.dtype, meta.input_shape(input));
                view.or_else(|| self.default(i)).ok_or_else(|| Error::MissingInput {
                    name: input.name.clone(),
                    expected: expected(),
                })
            });
        found.collect()
    }

    /// Checks the inputs, and reads the values of the symbols off their shapes.
    fn bind(&self, inputs: &[View<'_>]) -> Result<Vec<i64>> {
        let meta = self.program.meta();
        if inputs.len() != meta.inputs.len() {
            let names = list(meta.inputs.iter().map(|input| &input.name));
            return Err(Error::Count {
                what: "input",
                found: inputs.len(),
                expected: meta.inputs.len(),
                names,
            });
        }
        let mut values: Vec<Option<(i64, usize)>> = vec![None; meta.symbols.len()];
        for (position, (input, view)) in meta.inputs.iter().zip(inputs).enumerate() {
            let tensor = || format!("input `{}`", input.name);
            check_dtype(tensor, view.dtype, input.dtype)?;
            let mismatch = || Error::Shape {
                tensor: tensor(),
                found: format!("{:?}", view.shape),
                expected: meta.input_shape(input),
            };
            if view.shape.len() != input.dims.len() {
                return Err(mismatch());
            }
            for (axis, (&extent, &dim)) in view.shape.iter().zip(&input.dims).enumerate() {
                let extent = i64::try_from(extent).map_err(|_| mismatch())?;
                match dim {
                    Dim::Const(n) if n != extent => return Err(mismatch()),
                    Dim::Const(_) => {}
                    // In range: `Meta::validate` looked at every symbol.
                    Dim::Symbol(s) => match values[s as usize] {
                        None => values[s as usize] = Some((extent, position)),
                        Some((value, _)) if value == extent => {}
                        Some((value, first)) => {
                            return Err(disagreement(meta, tensor(), axis, extent, s as usize, value, first));
                        }
                    },
                }
            }
            check_bytes(tensor, view.dtype, view.shape, view.bytes.len())?;
        }
        let named = values.into_iter().zip(&meta.symbols);
        named
            .map(|(value, symbol)| match value {
                Some((value, _)) => Ok(value),
                None => Err(Error::UnboundSymbol { symbol: symbol.clone() }),
            })
            .collect()
    }

    /// Refuses an arena that, with `other_bytes`, passes the limit.
    fn keep_to_limit(&self, dims: &[i64], arena_bytes: u64, other_bytes: u64) -> Result<()> {
        let (needed, limit) = (arena_bytes.saturating_add(other_bytes), self.options.memory_limit);
        if needed > limit {
            let program = self.program.meta().name.clone();
            return Err(Error::MemoryLimit {
                program,
                needed,
                limit,
                dims: self.program.describe_dims(dims),
            });
        }
        Ok(())
    }

    /// Calls the program. Inputs that are not given are in the memory of outputs, by [`Meta::aliases`]. Outputs without memory
    /// are those that it allocates; what it tells of outputs whose extents only the run tells is returned, in their order.
    fn call(
        &self,
        dims: &[i64],
        inputs: &[Option<View<'_>>],
        mut outputs: Vec<Option<&mut [u8]>>,
        arena_bytes: u64,
        output_bytes: u64,
    ) -> Result<Vec<Told>> {
        let meta = self.program.meta();
        // The program relies on elements being aligned; what is not, passes through a copy.
        let input_copies = meta.inputs.iter().zip(inputs).map(|(input, view)| match view {
            Some(view) if !is_aligned(view.bytes, input.dtype) => AlignedBytes::copy_of(view.bytes).map(Some),
            _ => Ok(None),
        });
        let input_copies = input_copies.collect::<Result<Vec<_>>>()?;
        let output_copies = meta.outputs.iter().zip(&outputs).map(|(output, bytes)| match bytes {
            Some(bytes) if !is_aligned(bytes, output.dtype) => AlignedBytes::copy_of(bytes).map(Some),
            _ => Ok(None),
        });
        let mut output_copies = output_copies.collect::<Result<Vec<_>>>()?;

        let to = outputs.iter_mut().zip(&mut output_copies);
        let mut to: Vec<*mut u8> = to
            .map(|(bytes, copy)| match (copy, bytes) {
                (Some(copy), _) => copy.as_mut_ptr(),
                (None, Some(bytes)) => bytes.as_mut_ptr(),
                (None, None) => std::ptr::null_mut(),
            })
            .collect();
        let from = inputs.iter().zip(&input_copies).enumerate();
        let from: Vec<*const u8> = from
            .map(|(i, (view, copy))| match (copy, view) {
                (Some(copy), _) => copy.as_ptr(),
                (None, Some(view)) => view.bytes.as_ptr(),
                (None, None) => {
                    let alias = meta.aliases.iter().find(|a| a.input as usize == i);
                    alias.map_or(std::ptr::null(), |a| to[a.output as usize].cast_const())
                }
            })
            .collect();
        let dynamic = meta.outputs.iter().any(|output| output.dynamic);
        let mut out_dims = vec![0; if dynamic { meta.output_dims() } else { 0 }];
        let out_bytes: Vec<u64> = match dynamic {
            true => outputs
                .iter()
                .map(|o| o.as_ref().map_or(0, |bytes| bytes.len() as u64))
                .collect(),
            false => vec![],
        };

        let mut arena = self.take_arena(arena_bytes)?;
        let budget =
            self.options.memory_limit - arena_bytes.saturating_add(output_bytes).min(self.options.memory_limit);
        let call = Call {
            program: &self.program,
            pool: &self.pool,
            host: self.options.host.as_deref(),
            recorder: self.recorder.as_ref(),
            dims,
            arena: &mut arena,
            budget,
            out_bytes: &out_bytes,
            out_dims: &mut out_dims,
        };
        // SAFETY: `bind` checked the inputs and the callers of this function the outputs; the borrows of both keep other
        // threads away; the arena was planned for these dims and this pool.
        let result = unsafe { call.run(&from, &mut to) };
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        let mut heap = result?;
        for (bytes, copy) in outputs.iter_mut().zip(&output_copies) {
            if let (Some(bytes), Some(copy)) = (bytes, copy) {
                bytes.copy_from_slice(copy);
            }
        }
        let (mut told, mut rest) = (vec![], out_dims.as_slice());
        for (output, pointer) in meta.outputs.iter().zip(&to).filter(|_| dynamic) {
            let (own, others) = rest.split_at(output.rank as usize);
            rest = others;
            if output.dynamic {
                let block = heap.iter().position(|block| block.as_ptr() == pointer.cast_const());
                told.push(Told {
                    shape: own.iter().map(|&n| n as usize).collect(),
                    memory: block.map(|i| heap.swap_remove(i)),
                });
            }
        }
        Ok(told)
    }

    /// The largest idle arena, or a new one when that is too small.
    fn take_arena(&self, bytes: u64) -> Result<AlignedBytes> {
        let mut idle = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let largest = (0..idle.len()).max_by_key(|&i| idle[i].len());
        let arena = largest.map(|i| idle.swap_remove(i));
        drop(idle);
        match arena {
            Some(arena) if arena.len() as u64 >= bytes => Ok(arena),
            // The small one is given back before the large one is asked for.
            small => {
                drop(small);
                AlignedBytes::zeroed(bytes)
            }
        }
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("program", &self.program)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

fn is_aligned(bytes: &[u8], dtype: DType) -> bool {
    bytes.as_ptr().addr().is_multiple_of(dtype.size())
}

fn check_dtype(tensor: impl Fn() -> String, found: DType, expected: DType) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::DType {
            tensor: tensor(),
            found,
            expected,
        })
    }
}

fn check_bytes(tensor: impl Fn() -> String, dtype: DType, shape: &[usize], found: usize) -> Result<()> {
    let expected = byte_size(dtype, shape);
    if expected == Some(found as u64) {
        return Ok(());
    }
    let (shape, expected) = (format!("{shape:?}"), expected.unwrap_or(u64::MAX));
    Err(Error::Bytes {
        tensor: tensor(),
        found,
        expected,
        shape,
        dtype,
    })
}

fn disagreement(
    meta: &Meta,
    tensor: String,
    axis: usize,
    found: i64,
    symbol: usize,
    expected: i64,
    first: usize,
) -> Error {
    let first = format!("input `{}`", meta.inputs[first].name);
    Error::Symbol {
        tensor,
        axis,
        found,
        symbol: meta.symbols[symbol].clone(),
        expected,
        first,
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        "none".to_owned()
    } else {
        quoted.join(", ")
    }
}

#[cfg(test)]
mod tests;
