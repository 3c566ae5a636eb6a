//! A loaded Brolga program: artefact mapping, arena, worker pool, profiler, CUDA driver.
