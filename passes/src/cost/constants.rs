//! The numbers of the cost model that no machine's figures tell: cycles of instructions and of what stands around them.
//!
//! Throughputs and latencies are those of Zen 4 and of Intel's cores from Ice Lake on where both agree or nearly (uops.info, Agner Fog's
//! tables); what is not an instruction was fitted on the times of kernels (`cargo bench -p brolga-benches --bench schedules`).

use brolga_ir::DType;
use brolga_ir::scalar::Prim;

/// Cycles that an instruction takes where it does not wait for another one.
pub fn throughput(p: Prim, d: DType) -> f64 {
    use Prim::*;
    let wide = d.bytes() == 8;
    match p {
        // Integers are divided one lane at a time.
        Div | Rem if !d.is_float() => 24.0,
        Rem => 24.0,
        Div if wide => 16.0,
        Div => 8.0,
        Sqrt if wide => 20.0,
        Sqrt => 10.0,
        Mul if wide && !d.is_float() => 1.5,
        Floor | Ceil | Trunc | Round | Cast(_) => 1.0,
        // A branch that is not taken, and the choice behind it.
        Rarely => 2.0,
        Bitcast(_) => 0.0,
        Add | Sub | Mul | Fma | Neg | Abs | Min | Max => 0.5,
        Eq | Ne | Lt | Le | And | Or | Xor | Not | Shl | Shr | Select => 0.5,
    }
}

/// Cycles until the result is there.
pub fn latency(p: Prim, d: DType) -> f64 {
    use Prim::*;
    match p {
        Div | Rem if !d.is_float() => 24.0,
        Rem => 40.0,
        Div => 11.0,
        Sqrt => 14.0,
        Bitcast(_) => 0.0,
        Select | Rarely | And | Or | Xor | Not | Shl | Shr => 1.0,
        Add | Sub | Min | Max | Neg | Abs if !d.is_float() => 1.0,
        Eq | Ne | Lt | Le => 3.0,
        Add | Sub | Mul | Fma | Neg | Abs | Min | Max | Floor | Ceil | Trunc | Round | Cast(_) => 4.0,
    }
}

/// Cycles of a load of consecutive elements, of one register.
pub const LOAD: f64 = 0.5;
/// Cycles of a store of consecutive elements, of one register.
pub const STORE: f64 = 1.0;
/// Cycles of each lane that is loaded or stored by itself.
pub const LANE: f64 = 1.0;
/// Cycles of each bound of a load, for each register.
pub const GUARD: f64 = 1.5;
/// Cycles of a scalar statement: four such run at once.
pub const SCALAR: f64 = 0.3;
/// Cycles of a quotient or remainder in an index by a number that is known; by one that is not.
pub const QUOTIENT: [f64; 2] = [4.0, 24.0];
/// Cycles of an iteration of a loop beside its body: the counter, the branch, the pointers.
pub const ITERATION: f64 = 1.0;
/// Cycles to enter and to leave a loop: its end is mispredicted where it has few iterations.
pub const LOOP: f64 = 4.0;
/// Cycles of a branch.
pub const BRANCH: f64 = 1.5;
/// Cycles of a tile beside its steps: the call, its arguments, what it does once a panel.
pub const TILE: f64 = 40.0;
/// Cycles of a row of a tile in one register: sums are cleared, and stored.
pub const TILE_ROW: f64 = 1.5;
/// Cycles until a sum of a tile can be added to again.
pub const TILE_LATENCY: f64 = 4.0;
/// Loads of a cycle in a tile.
pub const TILE_LOADS: f64 = 2.0;
/// Cycles of a call of a kernel: its arguments, its sizes, registers that are saved.
pub const CALL: f64 = 20.0;
/// How many times a byte that is written moves: it is fetched, and goes back.
pub const WRITE: f64 = 2.0;
/// The part of the shorter of computing and moving bytes that is not hidden behind the longer one.
pub const NOT_HIDDEN: f64 = 0.3;
/// The share of a cache that a kernel's data have to themselves.
pub const SHARE: f64 = 0.8;
/// Bytes that caches move at once.
pub const LINE: f64 = 64.0;
