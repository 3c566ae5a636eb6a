//! Brolga's optimiser: the e-graph, extraction, lowering, tiling and the memory plan.
