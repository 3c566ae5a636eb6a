//! What generated code, a C caller and Brolga's runtime agree on.
