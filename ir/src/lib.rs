//! Brolga's four levels of intermediate representation, with text forms, verifiers and interpreters.
