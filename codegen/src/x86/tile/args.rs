//! What a tile is called with.

use brolga_ir::{TileFamily, TileKind};
use std::ffi::c_void;
use std::mem::offset_of;

/// The argument of a tile: `extern "sysv64" fn(*const TileArgs)`. All strides are in bytes and may be negative.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// The first row of A, at its first step.
    pub a: *const c_void,
    /// The packed panel, at the kernel's first column.
    pub b: *const c_void,
    /// The first row of C, at the kernel's first column.
    pub c: *mut c_void,
    /// From a row of A to the next.
    pub a_row: i64,
    /// From a step of A to the next; ignored by `unit_k` kernels, which take the size of an element.
    pub a_k: i64,
    /// From a row of C to the next.
    pub c_row: i64,
    /// Steps in an innermost block; 0 or less makes the sum zero.
    pub k: i64,
    /// Outer blocks; 0 or less makes the sum zero.
    pub blocks0: i64,
    /// From an outer block of A to the next.
    pub a_block0: i64,
    /// Inner blocks; 0 or less makes the sum zero.
    pub blocks1: i64,
    /// From an inner block of A to the next.
    pub a_block1: i64,
    /// Columns of C that are read and written, from 1 to the kernel's width (more counts as the width; a kernel of several panels
    /// does all). B is read in full.
    pub cols: i64,
    /// 0: `C = sum`; else `C += sum`.
    pub accumulate: i64,
    /// [`TileArgs::scratch_bytes`] bytes that the kernel may overwrite, at a multiple of 4.
    pub scratch: *mut c_void,
    /// What kernels that fetch lines for later ones ask for at the first step. Nothing is read or written there.
    pub ahead: *const c_void,
    /// How far on that is at the next step, or group of steps.
    pub ahead_step: i64,
    /// Of kinds with scales: those of the first block, of rows.
    pub a_scale: *const c_void,
    /// What is added to the sums of rows.
    pub a_offset: *const c_void,
    /// The totals of rows; any pointer where there are no minima.
    pub a_total: *const c_void,
    /// From a block of these three to the next.
    pub a_scale_block: i64,
    /// The scales of columns.
    pub b_scale: *const c_void,
    /// The minima of columns; null where there are none.
    pub b_minima: *const c_void,
}

impl TileArgs {
    /// Nothing anywhere: for what a kernel of a kind does not look at.
    pub const NONE: TileArgs = TileArgs {
        a: std::ptr::null(),
        b: std::ptr::null(),
        c: std::ptr::null_mut(),
        a_row: 0,
        a_k: 0,
        c_row: 0,
        k: 0,
        blocks0: 0,
        a_block0: 0,
        blocks1: 0,
        a_block1: 0,
        cols: 0,
        accumulate: 0,
        scratch: std::ptr::null_mut(),
        ahead: std::ptr::null(),
        ahead_step: 0,
        a_scale: std::ptr::null(),
        a_offset: std::ptr::null(),
        a_total: std::ptr::null(),
        a_scale_block: 0,
        b_scale: std::ptr::null(),
        b_minima: std::ptr::null(),
    };
}

/// Byte offsets of the fields of [`TileArgs`], for generated code that fills it.
impl TileArgs {
    /// Bytes of the whole structure; its alignment is 8.
    pub const SIZE: usize = size_of::<TileArgs>();
    /// Offset of `a`.
    pub const A: usize = offset_of!(TileArgs, a);
    /// Offset of `b`.
    pub const B: usize = offset_of!(TileArgs, b);
    /// Offset of `c`.
    pub const C: usize = offset_of!(TileArgs, c);
    /// Offset of `a_row`.
    pub const A_ROW: usize = offset_of!(TileArgs, a_row);
    /// Offset of `a_k`.
    pub const A_K: usize = offset_of!(TileArgs, a_k);
    /// Offset of `c_row`.
    pub const C_ROW: usize = offset_of!(TileArgs, c_row);
    /// Offset of `k`.
    pub const K: usize = offset_of!(TileArgs, k);
    /// Offset of `blocks0`.
    pub const BLOCKS0: usize = offset_of!(TileArgs, blocks0);
    /// Offset of `a_block0`.
    pub const A_BLOCK0: usize = offset_of!(TileArgs, a_block0);
    /// Offset of `blocks1`.
    pub const BLOCKS1: usize = offset_of!(TileArgs, blocks1);
    /// Offset of `a_block1`.
    pub const A_BLOCK1: usize = offset_of!(TileArgs, a_block1);
    /// Offset of `cols`.
    pub const COLS: usize = offset_of!(TileArgs, cols);
    /// Offset of `accumulate`.
    pub const ACCUMULATE: usize = offset_of!(TileArgs, accumulate);
    /// Offset of `scratch`.
    pub const SCRATCH: usize = offset_of!(TileArgs, scratch);
    /// Offset of `ahead`.
    pub const AHEAD: usize = offset_of!(TileArgs, ahead);
    /// Offset of `ahead_step`.
    pub const AHEAD_STEP: usize = offset_of!(TileArgs, ahead_step);
    /// Offset of `a_scale`.
    pub const A_SCALE: usize = offset_of!(TileArgs, a_scale);
    /// Offset of `a_offset`.
    pub const A_OFFSET: usize = offset_of!(TileArgs, a_offset);
    /// Offset of `a_total`.
    pub const A_TOTAL: usize = offset_of!(TileArgs, a_total);
    /// Offset of `a_scale_block`.
    pub const A_SCALE_BLOCK: usize = offset_of!(TileArgs, a_scale_block);
    /// Offset of `b_scale`.
    pub const B_SCALE: usize = offset_of!(TileArgs, b_scale);
    /// Offset of `b_minima`.
    pub const B_MINIMA: usize = offset_of!(TileArgs, b_minima);

    /// How much scratch kernels of a kind need: a vector for each row of A, or all accumulators and what becomes a part of them. It is best at
    /// a multiple of 64.
    pub const fn scratch_bytes(family: TileFamily, kind: TileKind) -> usize {
        match (family, kind) {
            (TileFamily::Amx, TileKind::Q8 | TileKind::Q4 | TileKind::Bf16Pairs) => super::matrix::SCRATCH_BYTES,
            (_, TileKind::F16) => 28 * 64,
            (_, TileKind::Q8 | TileKind::Q4) => super::blocks::SCRATCH_BYTES,
            _ => 0,
        }
    }
}

// The kernels are 64-bit code whatever machine compiles them.
const _: () = assert!(TileArgs::SIZE == 22 * 8, "TileArgs is laid out for 64-bit pointers");
