//! Brolga's file, differential, conformance and tidy tests.
