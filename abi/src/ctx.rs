//! The context that a program runs in, and the signatures of everything that is called through it.
//!
//! Invariants: [`Ctx`] has one layout on every 64-bit target, asserted at compile time against [`offset`]; a row of the
//! table below is at once the Rust field, the constant that code generators use, and the line in the C header. A change
//! of the layout is a new [`ABI_VERSION`].

use std::ffi::c_void;

/// The version of [`Ctx`] and of the functions' contracts; stands in `Ctx::abi_version`.
pub const ABI_VERSION: u32 = 2;

/// `Ctx::error_node` when no node is to blame.
pub const NO_NODE: u32 = u32::MAX;

/// Alignment in bytes of the arena and of the weights.
pub const ALIGN: usize = 64;

/// Defines a Rust function with the calling convention of generated code.
///
/// ```
/// brolga_abi::abi_fn! {
///     /// Doubles what it is given.
///     unsafe fn twice(n: i64) -> i64 { 2 * n }
/// }
/// // SAFETY: `twice` touches no memory.
/// assert_eq!(unsafe { twice(4) }, 8);
/// ```
#[macro_export]
macro_rules! abi_fn {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        $vis unsafe extern "sysv64" fn $name($($arg: $type),*) $(-> $result)? $body

        $(#[$meta])*
        #[cfg(not(target_arch = "x86_64"))]
        $vis unsafe extern "C" fn $name($($arg: $type),*) $(-> $result)? $body
    };
}

macro_rules! abi_type {
    ($(#[$meta:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        pub type $name = unsafe extern "sysv64" fn($($arg: $type),*) $(-> $result)?;

        $(#[$meta])*
        #[cfg(not(target_arch = "x86_64"))]
        pub type $name = unsafe extern "C" fn($($arg: $type),*) $(-> $result)?;
    };
}

abi_type! {
    /// The body of a parallel loop: runs iterations `begin..end` as worker number `worker`. No two calls of one loop that
    /// run at the same time have the same worker number.
    Body(arg: *mut c_void, begin: i64, end: i64, worker: u32)
}
abi_type! {
    /// Calls `body` on pieces that together cover `0..n` once, on at most `Ctx::workers` workers, and returns when all
    /// have returned. 0 is success.
    ParallelFor(ctx: *mut Ctx, body: Body, arg: *mut c_void, n: i64) -> i32
}
abi_type! {
    /// Memory for one run, of a size that is known only while it runs; `align` is a power of two up to 64. The caller of
    /// the program frees it after the run; what became the memory of an output is the caller's as long as it likes. May be
    /// called by several workers at once. NULL is failure.
    AllocFn(ctx: *mut Ctx, bytes: u64, align: u64) -> *mut c_void
}
abi_type! {
    /// A host operator: `index` is its number among the program's host operators, `user` is `Ctx::host_user`. 0 is success.
    HostFn(user: *mut c_void, index: u32, ctx: *mut Ctx, inputs: *const *const c_void, outputs: *const *mut c_void) -> i32
}
abi_type! {
    /// `NAME_run`: reads the inputs, writes the outputs; returns a status and leaves the first error in the context. An
    /// output whose extents only the run tells may be NULL: the run allocates it, and leaves its address there.
    RunFn(ctx: *mut Ctx, inputs: *const *const c_void, outputs: *mut *mut c_void) -> i32
}
abi_type! {
    /// `NAME_plan`: the arena that a run with these dims and this many workers needs, in bytes; a non-zero status when the
    /// dims violate a guard.
    PlanFn(dims: *const i64, workers: u32, arena_bytes: *mut u64) -> i32
}
abi_type! {
    /// `NAME_shapes`: the extents of all outputs, one output after the other. Where only a run tells an extent, the largest
    /// that it can be, or -1 where nothing bounds it.
    ShapesFn(dims: *const i64, out: *mut i64) -> i32
}

abi_type! {
    /// Called by code of this process that was made to be profiled, before (`end` is 0) and after (`end` is 1) each step of
    /// `NAME_run`: its number among all steps, blocks behind the steps that they belong to. A step that fails the run does not end.
    StepHook(ctx: *mut Ctx, step: u32, end: u32)
}

/// An input and an output that are the same memory, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Alias {
    /// Number of the input.
    pub input: u32,
    /// Number of the output.
    pub output: u32,
}

macro_rules! ctx {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty, $offset_name:ident = $offset:literal, $c:literal;)*) => {
        /// What a caller gives to a program for one run. It is not shared: a run that overlaps another has its own
        /// context and its own arena; the weights are read only and shared by all.
        #[derive(Debug)]
        #[repr(C)]
        pub struct Ctx {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        /// Byte offsets of the fields of [`Ctx`] on every 64-bit target, for code generators.
        pub mod offset {
            $($(#[doc = $doc])+ pub const $offset_name: i32 = $offset;)*
        }

        #[cfg(target_pointer_width = "64")]
        const _: () = {
            $(assert!(std::mem::offset_of!(Ctx, $field) == $offset);)*
        };

        /// The fields as they stand in the C header: declaration, offset, comment lines.
        pub(crate) const C_FIELDS: &[(&str, usize, &[&str])] = &[$(($c, $offset, &[$($doc),+]),)*];
    };
}

ctx! {
    /// Must be BROLGA_ABI_VERSION.
    abi_version: u32, ABI_VERSION = 0, "uint32_t abi_version";
    /// How many workers parallel_for may use, at least 1; the number that plan was called with.
    workers: u32, WORKERS = 4, "uint32_t workers";
    /// The packed weights, aligned to 64 bytes, read only.
    weights: *const u8, WEIGHTS = 8, "const uint8_t *weights";
    /// Scratch memory of this run, aligned to 64 bytes; its contents on entry do not matter.
    arena: *mut u8, ARENA = 16, "uint8_t *arena";
    /// Size of the arena in bytes, at least what plan returned.
    arena_bytes: u64, ARENA_BYTES = 24, "uint64_t arena_bytes";
    /// The values of the model's symbolic dimensions, in the order of its symbols.
    dims: *const i64, DIMS = 32, "const int64_t *dims";
    /// Runs a parallel loop; NULL means serial.
    parallel_for: Option<ParallelFor>, PARALLEL_FOR = 40, "brolga_parallel_for parallel_for";
    /// Memory of a size known only at run time; NULL makes a program that needs it fail.
    alloc: Option<AllocFn>, ALLOC = 48, "brolga_alloc alloc";
    /// One function for each host operator of the program, or NULL when it has none.
    host: *const HostFn, HOST = 56, "const brolga_host *host";
    /// The first argument of every host function.
    host_user: *mut c_void, HOST_USER = 64, "void *host_user";
    /// Status of the first error of the last run, BROLGA_OK when there was none; run sets it.
    error_code: i32, ERROR_CODE = 72, "int32_t error_code";
    /// The model's node that this error belongs to, or UINT32_MAX.
    error_node: u32, ERROR_NODE = 76, "uint32_t error_node";
    /// Inputs and outputs of this run that are the same memory (a cache updated in place), or NULL. Programs compare the
    /// pointers themselves; this is for callbacks that look at the context.
    aliases: *const Alias, ALIASES = 80, "const brolga_alias *aliases";
    /// How many pairs aliases points to.
    alias_count: u64, ALIAS_COUNT = 88, "uint64_t alias_count";
    /// The caller's own; programs do not touch it.
    user: *mut c_void, USER = 96, "void *user";
    /// Where a program with outputs whose extents only the run tells writes the extents of all its outputs, one output
    /// after the other, or NULL.
    out_dims: *mut i64, OUT_DIMS = 104, "int64_t *out_dims";
    /// The size in bytes of each output's memory, for those whose extents only the run tells and that are not NULL.
    out_bytes: *const u64, OUT_BYTES = 112, "const uint64_t *out_bytes";
    /// The number that a failed check of the model's data found, INT64_MIN where that is beyond 64 bits; the bytes that an output needs when it is too small.
    error_value: i64, ERROR_VALUE = 120, "int64_t error_value";
}

/// What `error_value` holds where the number that a check found is beyond 64 bits.
pub const UNCOUNTABLE: i64 = i64::MIN;

/// Size of [`Ctx`] in bytes on every 64-bit target.
pub const CTX_BYTES: usize = 128;

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Ctx>() == CTX_BYTES);

impl Ctx {
    /// A serial context without weights, arena, dims or host operators.
    pub const fn new() -> Ctx {
        Ctx {
            abi_version: ABI_VERSION,
            workers: 1,
            weights: std::ptr::null(),
            arena: std::ptr::null_mut(),
            arena_bytes: 0,
            dims: std::ptr::null(),
            parallel_for: None,
            alloc: None,
            host: std::ptr::null(),
            host_user: std::ptr::null_mut(),
            error_code: 0,
            error_node: NO_NODE,
            aliases: std::ptr::null(),
            alias_count: 0,
            user: std::ptr::null_mut(),
            out_dims: std::ptr::null_mut(),
            out_bytes: std::ptr::null(),
            error_value: 0,
        }
    }
}

impl Default for Ctx {
    fn default() -> Ctx {
        Ctx::new()
    }
}
