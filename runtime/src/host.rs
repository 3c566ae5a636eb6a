//! Operators that no kernel exists for: the program calls back, and whoever loaded it evaluates them.
//!
//! Invariant: the runtime knows no operator. It passes on an operator's number and its pointers; the supplier reads the
//! operator's text from `Meta::host_ops` when the program is loaded.

/// The host operators of one program.
pub trait HostOps: Send + Sync {
    /// Evaluates host operator number `index` of the program. `dims` are the values of the program's symbols and,
    /// behind them, those of `Meta::names`; `inputs`
    /// and `outputs` are as many dense tensors as the operator's entry in `Meta::host_ops` says, of the shapes that its
    /// text has under these dims. The pointers are valid during the call, and outputs overlap nothing.
    ///
    /// The error is for people; the run ends with it.
    fn call(&self, index: u32, dims: &[i64], inputs: &[*const u8], outputs: &[*mut u8]) -> Result<(), String>;
}
