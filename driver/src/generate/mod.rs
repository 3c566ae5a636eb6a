//! Text from language models.

pub mod bench;
pub mod model;

pub use model::{Cache, Model};
