//! One run: the context is filled, the program is called, and it calls back.
//!
//! Invariant: whatever a callback meets — a failing operator, a panic, a lack of memory — is remembered in the run and
//! becomes its error; nothing unwinds through generated code.

use std::ffi::c_void;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use brolga_abi::ctx::{ALIGN, UNCOUNTABLE};
use brolga_abi::{Body, Ctx, ErrorCode, HostFn, NO_NODE, abi_fn};

use crate::pool::Pool;
use crate::profile::Recorder;
use crate::program::Program;
use crate::{AlignedBytes, Error, HostOps, Result};

/// What a run is given besides its tensors.
pub(crate) struct Call<'a> {
    pub program: &'a Program,
    pub pool: &'a Pool,
    pub host: Option<&'a dyn HostOps>,
    /// Who notes what the run does; its program was made for that.
    pub recorder: Option<&'a Recorder>,
    pub dims: &'a [i64],
    pub arena: &'a mut [u8],
    /// How many bytes the program may still allocate while it runs.
    pub budget: u64,
    /// Bytes of each output's memory; read for those whose extents only the run tells.
    pub out_bytes: &'a [u64],
    /// Where the extents of all outputs go, or nothing where all are known.
    pub out_dims: &'a mut [i64],
}

/// What the callbacks find behind `Ctx::user`. Shared by the workers.
struct Run<'a> {
    program: &'a Program,
    dims: &'a [i64],
    pool: &'a Pool,
    host: Option<&'a dyn HostOps>,
    recorder: Option<&'a Recorder>,
    heap: Mutex<Heap>,
    /// The first words of a host operator that failed.
    complaint: Mutex<Option<String>>,
}

struct Heap {
    blocks: Vec<AlignedBytes>,
    budget: u64,
}

impl Call<'_> {
    /// Calls the program.
    ///
    /// # Safety
    /// `inputs` and `outputs` hold a pointer for each input and output of the program, to tensors of the sizes that these
    /// dims mean; no other thread writes the inputs or touches the outputs, and outputs overlap nothing but the inputs that
    /// they may be the memory of, as a whole. The arena is as large as the plan for these dims and this pool's workers says, and begins at a multiple of 64. An output whose extents
    /// only the run tells may be null: then it is among the memory that is returned. `out_dims` has a place for each extent
    /// of the outputs, or is empty where the run tells none of them.
    pub unsafe fn run(self, inputs: &[*const u8], outputs: &mut [*mut u8]) -> Result<Vec<AlignedBytes>> {
        let Call {
            program,
            pool,
            host,
            recorder,
            dims,
            arena,
            budget,
            out_bytes,
            out_dims,
        } = self;
        let heap = Mutex::new(Heap {
            blocks: Vec::new(),
            budget,
        });
        let run = Run {
            program,
            dims,
            pool,
            host,
            recorder,
            heap,
            complaint: Mutex::new(None),
        };
        let host_fns: Vec<HostFn> = vec![call_host; program.meta().host_ops.len()];
        let user = ptr::from_ref(&run).cast_mut().cast::<c_void>();
        let mut ctx = Ctx {
            workers: pool.workers(),
            weights: program.weights().as_ptr(),
            arena: arena.as_mut_ptr(),
            arena_bytes: arena.len() as u64,
            dims: dims.as_ptr(),
            parallel_for: match recorder {
                _ if pool.workers() < 2 => None,
                None => Some(parallel_for),
                Some(_) => Some(parallel_for_noted),
            },
            alloc: Some(alloc),
            host: host_fns.as_ptr(),
            host_user: user,
            user,
            out_dims: if out_dims.is_empty() {
                ptr::null_mut()
            } else {
                out_dims.as_mut_ptr()
            },
            out_bytes: out_bytes.as_ptr(),
            ..Ctx::new()
        };
        let run_fn = program.functions().run;
        program.make_way(pool.workers())?;
        let running = recorder.map(Recorder::begin);
        // SAFETY: the tensors and the arena are as the caller promises; the context is complete, and all that it points
        // to outlives the call.
        let status = unsafe { run_fn(&raw mut ctx, inputs.as_ptr().cast(), outputs.as_mut_ptr().cast()) };
        // What damage did to a run is not its result, nor its error.
        program.check_weights()?;
        run.result(status, &ctx)?;
        if let Some(running) = running {
            running.done();
        }
        Ok(run.heap.into_inner().unwrap_or_else(PoisonError::into_inner).blocks)
    }
}

impl Run<'_> {
    fn result(&self, status: i32, ctx: &Ctx) -> Result<()> {
        let meta = self.program.meta();
        // The slot in the context has the first error; the return value is what the last function made of it.
        let first = if ctx.error_code != 0 { ctx.error_code } else { status };
        let Some((code, number)) = ErrorCode::split(first) else {
            return Err(Error::Status {
                program: meta.name.clone(),
                function: "run",
                status: first,
            });
        };
        if code == ErrorCode::Ok {
            return Ok(());
        }
        let node = (ctx.error_node != NO_NODE).then(|| match meta.nodes.get(ctx.error_node as usize) {
            Some(node) => node.clone(),
            None => format!("number {}", ctx.error_node),
        });
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take();
        let found = ctx.error_value;
        let words = match code {
            ErrorCode::CheckFailed => meta.checks.get(number as usize).map(|c| {
                let known = match self.program.told(c, self.dims) {
                    known if known.is_empty() => known,
                    known => format!("; here {known}"),
                };
                match found {
                    UNCOUNTABLE => format!("{c}, found more than 64 bits can count{known}"),
                    found => format!("{c}, found {found}{known}"),
                }
            }),
            ErrorCode::TooLarge => meta.sizes.get(number as usize).cloned(),
            ErrorCode::BadDims => (number.checked_sub(1)).and_then(|n| meta.sizes.get(n as usize).cloned()),
            ErrorCode::OutputTooSmall => Some(format!("{found} bytes are needed")),
            _ => None,
        };
        let complaint = complaint.or(words.map(|w| w.trim_end_matches(',').to_owned()));
        Err(Error::Run {
            code,
            node,
            detail: complaint.map_or_else(String::new, |words| format!(": {words}")),
        })
    }

    fn complain(&self, words: String) -> i32 {
        self.complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(words);
        ErrorCode::HostFailed as i32
    }
}

/// An argument that generated code hands to a loop's body; the body is written to be called with it by many threads.
#[derive(Clone, Copy)]
struct Arg(*mut c_void);

// SAFETY: `parallel_for`'s contract is that the body may be called with this argument by several threads at once.
unsafe impl Sync for Arg {}

impl Arg {
    fn get(self) -> *mut c_void {
        self.0
    }
}

abi_fn! {
    /// `Ctx::parallel_for`.
    unsafe fn parallel_for(ctx: *mut Ctx, body: Body, arg: *mut c_void, n: i64) -> i32 {
        // SAFETY: generated code passes on the context that `Call::run` made, whose `user` is a `Run` that outlives it.
        let run = unsafe { &*(*ctx).user.cast::<Run>() };
        let arg = Arg(arg);
        // SAFETY: the ranges and the worker numbers are what `Body` is to be called with.
        run.pool.run(n, &|piece, worker| unsafe { body(arg.get(), piece.start, piece.end, worker) });
        0
    }
}

abi_fn! {
    /// `Ctx::parallel_for` of a run that is recorded.
    unsafe fn parallel_for_noted(ctx: *mut Ctx, body: Body, arg: *mut c_void, n: i64) -> i32 {
        // SAFETY: as in `parallel_for`.
        let run = unsafe { &*(*ctx).user.cast::<Run>() };
        let arg = Arg(arg);
        // SAFETY: as in `parallel_for`.
        let body = |piece: Range<i64>, worker| unsafe { body(arg.get(), piece.start, piece.end, worker) };
        match run.recorder {
            Some(recorder) => recorder.share(run.pool, n, &body),
            None => run.pool.run(n, &body),
        }
        0
    }
}

abi_fn! {
    /// What programs that are to be profiled call around their steps. It does nothing in a run that nobody records; the context is that
    /// of a run of an [`Executor`](crate::Executor).
    pub unsafe fn step_hook(ctx: *mut Ctx, step: u32, end: u32) {
        // SAFETY: as in `parallel_for`.
        let run = unsafe { &*(*ctx).user.cast::<Run>() };
        if let Some(recorder) = run.recorder {
            recorder.step(step, end != 0);
        }
    }
}

abi_fn! {
    /// `Ctx::alloc`.
    unsafe fn alloc(ctx: *mut Ctx, bytes: u64, align: u64) -> *mut c_void {
        // SAFETY: as in `parallel_for`.
        let run = unsafe { &*(*ctx).user.cast::<Run>() };
        let mut heap = run.heap.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > heap.budget || align > ALIGN as u64 {
            return ptr::null_mut();
        }
        let Ok(mut block) = AlignedBytes::zeroed(bytes) else { return ptr::null_mut() };
        let pointer = block.as_mut_ptr().cast();
        heap.budget -= bytes;
        heap.blocks.push(block);
        pointer
    }
}

abi_fn! {
    /// Every entry of `Ctx::host`.
    unsafe fn call_host(
        user: *mut c_void,
        index: u32,
        ctx: *mut Ctx,
        inputs: *const *const c_void,
        outputs: *const *mut c_void,
    ) -> i32 {
        // SAFETY: generated code passes on `Ctx::host_user`, which `Call::run` pointed at its `Run`.
        let run = unsafe { &*user.cast::<Run>() };
        let (Some(op), Some(host)) = (run.program.meta().host_ops.get(index as usize), run.host) else {
            return run.complain(format!("no host operator has the number {index}"));
        };
        // SAFETY: generated code passes as many pointers as the operator's entry in the metadata says.
        let (inputs, outputs) = unsafe {
            (pointers(inputs.cast::<*const u8>(), op.inputs), pointers(outputs.cast::<*mut u8>(), op.outputs))
        };
        // SAFETY: behind the context's dims are as many numbers as the program has symbols and names; they are those that
        // `Call::run` was given where it has no names.
        let dims = unsafe { pointers((*ctx).dims, (run.program.meta().symbols.len() + run.program.meta().names.len()) as u32) };
        // What a panicking operator leaves half done is its outputs, which the failing run does not hand out.
        let result = catch_unwind(AssertUnwindSafe(|| host.call(index, dims, inputs, outputs)));
        match result {
            Ok(Ok(())) => 0,
            Ok(Err(words)) => run.complain(format!("node `{}`: {words}", op.node)),
            Err(_) => run.complain(format!("node `{}`: the operator's evaluation panicked", op.node)),
        }
    }
}

/// An array that generated code passes.
///
/// # Safety
/// `first` points to `count` values that live as long as the result, unless `count` is 0.
unsafe fn pointers<'a, T>(first: *const T, count: u32) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
