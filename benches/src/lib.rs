//! Criterion benches and the worker that the comparison with peers drives.
