//! Text from language models.

pub mod model;

pub use model::{Cache, Model};
