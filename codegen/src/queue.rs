//! Functions on their way from Cranelift's IR to machine code, by one thread or several.
//!
//! Functions are built one after the other, because each declares what it calls. Compiling them takes most of the time and
//! needs nothing of each other, so whoever helps ([`Queue::work`]) takes the next one that waits.
//!
//! Invariant: functions and data stand in the order in which they were built, whoever compiled them, and the code of a function
//! is a function of its IR and of the target; so the bytes of a module do not depend on threads.

use crate::Error;
use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{DataDescription, DataId, FuncId, ModuleReloc};
use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A function to be compiled.
pub(crate) struct Job {
    pub id: FuncId,
    /// Its symbol, for errors.
    pub name: String,
    pub function: Function,
    /// The target, and how hard Cranelift tries.
    pub isa: OwnedTargetIsa,
    /// Whether the instructions are wanted as text.
    pub listed: bool,
}

/// A compiled function.
pub(crate) struct Code {
    pub id: FuncId,
    pub alignment: u64,
    pub bytes: Vec<u8>,
    pub relocations: Vec<ModuleReloc>,
    /// The instructions as text, where they are wanted.
    pub text: Option<String>,
}

/// What a module is made of.
pub(crate) enum Definition {
    Function(Code),
    Data(DataId, DataDescription),
}

/// What a thread compiles with: memory that is used again for the next function.
pub(crate) struct Compiler(Context);

impl Compiler {
    pub fn new() -> Compiler {
        Compiler(Context::new())
    }

    pub fn compile(&mut self, job: Job) -> Result<Code, Error> {
        let context = &mut self.0;
        context.clear();
        context.func = job.function;
        context.set_disasm(job.listed);
        let compiled = context.compile(&*job.isa, &mut ControlPlane::default());
        let code = compiled.map_err(|e| Error::Cranelift {
            function: job.name,
            what: cranelift_codegen::print_errors::pretty_error(e.func, e.inner),
        })?;
        let buffer = &code.buffer;
        let (alignment, bytes) = (u64::from(buffer.alignment), buffer.data().to_vec());
        let (relocations, text) = (buffer.relocs().to_vec(), code.vcode.clone());
        let relocation = |r| ModuleReloc::from_mach_reloc(r, &context.func, job.id);
        Ok(Code {
            id: job.id,
            alignment,
            bytes,
            relocations: relocations.iter().map(relocation).collect(),
            text,
        })
    }
}

/// Functions that are built by one thread and compiled by all that help it.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// With their places in the order.
    waiting: VecDeque<(usize, Job)>,
    /// How many are being compiled.
    running: usize,
    /// In the order in which they were built.
    made: Vec<Option<Result<Definition, Error>>>,
    /// No more functions come.
    closed: bool,
}

impl Queue {
    /// Compiles functions until no more come. Threads that help call it.
    pub fn work(&self) {
        let mut compiler = Compiler::new();
        let mut state = self.lock();
        loop {
            if let Some((place, job)) = state.waiting.pop_front() {
                state.running += 1;
                drop(state);
                let running = Running(self);
                let made = compiler.compile(job).map(Definition::Function);
                self.lock().made[place] = Some(made);
                drop(running);
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state = self.wait(state);
            }
        }
    }

    pub(crate) fn push(&self, job: Job) {
        let mut state = self.lock();
        let place = state.made.len();
        state.made.push(None);
        state.waiting.push_back((place, job));
        drop(state);
        self.changed.notify_one();
    }

    /// Gives what is ready already its place in the order.
    pub(crate) fn push_made(&self, made: Definition) {
        self.lock().made.push(Some(Ok(made)));
    }

    /// Says that no more functions come; those that wait are dropped. Without it, or a unit that is finished, those who help
    /// wait for ever.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Says that no more functions come, helps with those that wait, and hands out all.
    pub(crate) fn finish(&self) -> Result<Vec<Definition>, Error> {
        self.lock().closed = true;
        self.changed.notify_all();
        self.work();
        let mut state = self.lock();
        while state.running > 0 {
            state = self.wait(state);
        }
        let all = mem::take(&mut state.made).into_iter();
        all.map(|made| made.expect("a thread that panics takes its caller with it"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A function that is being compiled; whether that succeeds, fails or panics, nobody waits for it afterwards.
struct Running<'q>(&'q Queue);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}
