//! Programs on an NVIDIA GPU: PTX through the driver API.
//!
//! ```text
//! compiler ── Plan ── Gpu::load ─▶ Gpu ── run(inputs, outputs)
//! ```
//!
//! A [`Plan`] is plain data with concrete sizes: a PTX module, buffers, steps. The library `libcuda` is loaded when the
//! first [`Gpu`] is made; building needs no CUDA toolkit, and without a driver there is an [`Error`].
//!
//! Invariants: `unsafe` calls of the driver stand in `driver` alone; every address that a kernel is given was allocated for
//! its buffer, of the buffer's size at least and aligned to 256 bytes (64 inside of the arena); a plan's numbers are
//! checked before anything is allocated ([`Plan::check`]); everything that was allocated is freed when a [`Gpu`] is
//! dropped. Steps run in order on one stream, and a run ends when all of them have.

mod driver;

use driver::{Device, Function, Memory, Module};
use std::sync::Mutex;

/// What went wrong on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no driver on this machine.
    #[error("no CUDA driver: libcuda.so.1 could not be loaded; install NVIDIA's driver, or run on the CPU")]
    NoDriver,
    /// The driver has no device of this number.
    #[error("no CUDA device {ordinal}: the driver has {count}")]
    NoDevice {
        /// The number asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// The driver refused a call.
    #[error("CUDA: {what}: {why}")]
    Driver {
        /// What was being done.
        what: String,
        /// The driver's words.
        why: String,
    },
    /// An index in the model's data names no element.
    #[error("node `{node}`: {}", brolga_abi::ErrorCode::IndexOutOfRange)]
    IndexOutOfRange {
        /// The model's node.
        node: String,
    },
    /// A plan contradicts itself.
    #[error("plan of `{plan}`: {what}")]
    Plan {
        /// The plan's name.
        plan: String,
        /// What was found and what was expected.
        what: String,
    },
    /// The caller's memory does not fit the plan.
    #[error("{what} {index} has {found} bytes, expected {expected}")]
    Size {
        /// `input` or `output`.
        what: &'static str,
        /// Its number.
        index: usize,
        /// Bytes given.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// Too many or too few tensors.
    #[error("{found} {what}s given, {expected} expected")]
    Count {
        /// `input` or `output`.
        what: &'static str,
        /// How many were given.
        found: usize,
        /// How many there are.
        expected: usize,
    },
}

/// What a buffer's memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage<'a> {
    /// The caller's, copied to the device before the steps.
    Input,
    /// The caller's, copied from the device after them.
    Output,
    /// Part of the arena, from this byte on.
    Arena(u64),
    /// Constant bytes, copied to the device once.
    Constant(std::borrow::Cow<'a, [u8]>),
    /// A constant that an initial step computes.
    Computed,
}

/// A tensor's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer<'a> {
    /// Its size.
    pub bytes: u64,
    /// Where it is.
    pub storage: Storage<'a>,
}

/// A kernel's launch. Its parameters are the buffers' addresses, then the dims, then the word for checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Number of the entry in [`Plan::entries`].
    pub entry: usize,
    /// Blocks along x, y, z; nothing runs when one is 0.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Numbers of the buffers.
    pub buffers: Vec<usize>,
    /// Values of the symbols.
    pub dims: Vec<i64>,
    /// The model's node, for errors.
    pub node: String,
    /// The model's node of each number of the kernel's checks; a kernel that has some gets a pointer to a word of 32 bits
    /// as its last parameter, which becomes the number of a check that fails, plus 1.
    pub checks: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Launches a kernel.
    Launch(Launch),
    /// Copies one buffer to another of the same size.
    Copy {
        /// From this buffer.
        from: usize,
        /// To this one.
        to: usize,
    },
}

impl Step {
    /// The nodes of the checks of a launch of a kernel that has some.
    fn checks(&self) -> Option<&[String]> {
        match self {
            Step::Launch(l) if !l.checks.is_empty() => Some(&l.checks),
            _ => None,
        }
    }
}

/// A program as a GPU runs it: plain data, all sizes known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// The program's name.
    pub name: String,
    /// PTX text.
    pub module: String,
    /// Names of the module's entries.
    pub entries: Vec<String>,
    /// Memory.
    pub buffers: Vec<Buffer<'a>>,
    /// Bytes of the arena.
    pub arena_bytes: u64,
    /// Steps that compute constants, run once when the plan is loaded.
    pub init: Vec<Step>,
    /// Steps of a run.
    pub steps: Vec<Step>,
    /// The buffers of the inputs, in order.
    pub inputs: Vec<usize>,
    /// The buffers of the outputs, in order.
    pub outputs: Vec<usize>,
}

impl Plan<'_> {
    /// Checks that every number is in range, and that sizes agree.
    ///
    /// # Errors
    /// [`Error::Plan`] with the first contradiction.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |what: String| {
            let plan = self.name.clone();
            Err(Error::Plan { plan, what })
        };
        for (i, b) in self.buffers.iter().enumerate() {
            match &b.storage {
                Storage::Arena(at) => {
                    let end = at.checked_add(b.bytes);
                    if at % 64 != 0 || end.is_none_or(|end| end > self.arena_bytes) {
                        let (n, all) = (b.bytes, self.arena_bytes);
                        return fail(format!("buffer {i} has {n} bytes at {at} of an arena of {all}"));
                    }
                }
                Storage::Constant(c) if c.len() as u64 != b.bytes => {
                    return fail(format!(
                        "buffer {i} has {} bytes, and {} constant ones",
                        b.bytes,
                        c.len()
                    ));
                }
                _ => {}
            }
        }
        let exists = |i: &usize| *i < self.buffers.len();
        let ports = self.inputs.iter().chain(&self.outputs);
        if let Some(i) = ports.clone().find(|i| !exists(i)) {
            return fail(format!("buffer {i} of {}", self.buffers.len()));
        }
        let of = |i: &usize| &self.buffers[*i].storage;
        if self.inputs.iter().any(|i| *of(i) != Storage::Input)
            || self.outputs.iter().any(|i| *of(i) != Storage::Output)
        {
            return fail("an input or output whose buffer is none".into());
        }
        for s in self.init.iter().chain(&self.steps) {
            match s {
                Step::Launch(l) => {
                    if l.entry >= self.entries.len() || !l.buffers.iter().all(exists) {
                        return fail(format!("node `{}` launches what does not exist", l.node));
                    }
                    let threads = l.block.iter().try_fold(1u32, |n, &d| n.checked_mul(d));
                    if !threads.is_some_and(|n| (1..=1024).contains(&n)) {
                        return fail(format!("node `{}` has blocks of {:?} threads", l.node, l.block));
                    }
                    if l.grid[0] > i32::MAX as u32 || l.grid[1..].iter().any(|&n| n > 65535) {
                        return fail(format!("node `{}` has a grid of {:?} blocks", l.node, l.grid));
                    }
                }
                Step::Copy { from, to } => {
                    if !exists(from) || !exists(to) || self.buffers[*from].bytes != self.buffers[*to].bytes {
                        return fail(format!("a copy from buffer {from} to buffer {to}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A program on a GPU, ready to run.
pub struct Gpu {
    name: String,
    functions: Vec<Function>,
    /// Address and size of every buffer.
    buffers: Vec<(u64, u64)>,
    steps: Vec<Step>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// A word for each launch of a kernel with checks.
    faults: Memory,
    /// One run at a time: they share the arena.
    running: Mutex<()>,
    // Dropped in this order: memory and module before the device's context.
    _memory: Vec<Memory>,
    _module: Module,
    device: Device,
}

impl Gpu {
    /// The compute capability of a device: (9, 0) for a Hopper.
    ///
    /// # Errors
    /// When there is no driver, or no such device.
    pub fn capability(ordinal: u32) -> Result<(i32, i32), Error> {
        Device::new(ordinal)?.capability()
    }

    /// Loads a plan on a device: the driver assembles the module, constants are copied and computed.
    ///
    /// # Safety
    /// The module's entries must take one pointer for each buffer of their launches, one `s64` for each of the dims, and
    /// where there are checks a pointer to a word, and must touch nothing beyond those buffers' bytes and the word.
    ///
    /// # Errors
    /// When there is no driver or device, the plan contradicts itself, or the driver refuses the module or the memory.
    pub unsafe fn load(plan: &Plan, ordinal: u32) -> Result<Gpu, Error> {
        plan.check()?;
        let device = Device::new(ordinal)?;
        let module = device.module(&plan.module, &plan.name)?;
        let functions = plan
            .entries
            .iter()
            .map(|e| module.function(e))
            .collect::<Result<_, _>>()?;
        let mut memory = vec![device.allocate(plan.arena_bytes)?];
        let arena = memory[0].address();
        let mut buffers = vec![];
        for b in &plan.buffers {
            let address = match &b.storage {
                Storage::Arena(at) => arena + at,
                storage => {
                    let own = device.allocate(b.bytes)?;
                    if let Storage::Constant(bytes) = storage {
                        own.write(bytes)?;
                    }
                    memory.push(own);
                    memory.last().expect("just pushed").address()
                }
            };
            buffers.push((address, b.bytes));
        }
        let gpu = Gpu {
            name: plan.name.clone(),
            functions,
            buffers,
            steps: plan.steps.clone(),
            inputs: plan.inputs.clone(),
            outputs: plan.outputs.clone(),
            faults: device.allocate(
                4 * plan
                    .init
                    .iter()
                    .chain(&plan.steps)
                    .filter(|s| s.checks().is_some())
                    .count() as u64,
            )?,
            running: Mutex::new(()),
            _memory: memory,
            _module: module,
            device,
        };
        gpu.walk(&plan.init)?;
        Ok(gpu)
    }

    /// The program's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs once: inputs are copied to the device, outputs from it.
    ///
    /// # Errors
    /// When sizes do not fit, an index in the data is out of range, or the driver reports an error. An error of the driver
    /// that a kernel caused leaves the process's context unusable, as CUDA has it.
    pub fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) -> Result<(), Error> {
        self.fits("input", &self.inputs, inputs.iter().map(|b| b.len()))?;
        self.fits("output", &self.outputs, outputs.iter().map(|b| b.len()))?;
        // A run that panicked left nothing behind that the next one relies on.
        let _one = self.running.lock().unwrap_or_else(|e| e.into_inner());
        self.device.enter()?;
        for (&i, bytes) in self.inputs.iter().zip(inputs) {
            self.device.copy_in(self.buffers[i].0, bytes)?;
        }
        self.walk(&self.steps)?;
        for (&i, bytes) in self.outputs.iter().zip(outputs) {
            self.device.copy_out(bytes, self.buffers[i].0)?;
        }
        Ok(())
    }

    /// Runs steps to their end; the first check that failed is the error.
    fn walk(&self, steps: &[Step]) -> Result<(), Error> {
        self.device.enter()?;
        let checks: Vec<&[String]> = steps.iter().filter_map(Step::checks).collect();
        let mut words = vec![0u8; 4 * checks.len()];
        if !checks.is_empty() {
            self.device.copy_in(self.faults.address(), &words)?;
        }
        let mut word = self.faults.address();
        for s in steps {
            let fault = s.checks().map(|_| {
                word += 4;
                word - 4
            });
            match s {
                Step::Launch(l) if l.grid.contains(&0) => {}
                Step::Launch(l) => {
                    let addresses = l.buffers.iter().map(|&i| self.buffers[i].0);
                    let dims = l.dims.iter().map(|&d| d as u64);
                    let params: Vec<u64> = addresses.chain(dims).chain(fault).collect();
                    self.device
                        .launch(&self.functions[l.entry], l.grid, l.block, params, &l.node)?;
                }
                Step::Copy { from, to } => {
                    let ((from, bytes), (to, _)) = (self.buffers[*from], self.buffers[*to]);
                    self.device.copy(to, from, bytes)?;
                }
            }
        }
        self.device.wait()?;
        if !checks.is_empty() {
            self.device.copy_out(&mut words, self.faults.address())?;
        }
        for (nodes, word) in checks.iter().zip(words.chunks_exact(4)) {
            let number = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            if let Some(node) = number.checked_sub(1).and_then(|n| nodes.get(n as usize)) {
                return Err(Error::IndexOutOfRange { node: node.clone() });
            }
        }
        Ok(())
    }

    fn fits(
        &self,
        what: &'static str,
        buffers: &[usize],
        sizes: impl ExactSizeIterator<Item = usize>,
    ) -> Result<(), Error> {
        if sizes.len() != buffers.len() {
            return Err(Error::Count {
                what,
                found: sizes.len(),
                expected: buffers.len(),
            });
        }
        for (index, (&b, found)) in buffers.iter().zip(sizes).enumerate() {
            let (found, expected) = (found as u64, self.buffers[b].1);
            if found != expected {
                return Err(Error::Size {
                    what,
                    index,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
