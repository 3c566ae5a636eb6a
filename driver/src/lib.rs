//! Brolga, an optimising compiler for machine-learning models: library and command line.
