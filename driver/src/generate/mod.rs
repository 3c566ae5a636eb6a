//! Text from language models.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`model`], [`cache`] | a compiled model; what it keeps of sequences |
//! | [`continuation`], [`hold`] | what is chosen behind a prompt, and when it ends; what holds it to a form |
//! | [`encoder`] | what models with an encoder say of a source |
//! | [`draft`] | tokens that a smaller model proposes |
//! | `grammar`, `schema` | with the feature `grammar` (on by default): texts of a form; where in a schema something is wrong |
//! | [`generator`] | tokens behind a prompt, and caches of prompts that begin alike |
//! | [`beams`] | the best of several texts side by side |
//! | [`sampling`], [`stop`] | how tokens are chosen, and what ends a text |
//! | [`likelihood`] | how likely the model found a token |
//! | `text`, `chat`, `reply` | with the feature `text` (on by default): tokenizers, templates of chats; replies as text |
//! | [`files`] | what a model has beside its graph and weights |
//! | [`perplexity`] | how well a model foretells a text |
//! | [`bench`] | what a prompt takes, and each token behind it |

pub mod beams;
pub mod bench;
pub mod cache;
#[cfg(feature = "text")]
pub mod chat;
pub mod continuation;
pub mod draft;
pub mod encoder;
pub mod files;
pub mod generator;
#[cfg(feature = "grammar")]
pub mod grammar;
pub mod hold;
#[cfg(feature = "text")]
mod jinja;
pub mod likelihood;
pub mod model;
pub mod perplexity;
#[cfg(feature = "text")]
pub mod reply;
pub mod sampling;
#[cfg(feature = "grammar")]
mod schema;
pub mod stop;
#[cfg(feature = "text")]
pub mod text;

pub use beams::Beams;
pub use cache::Cache;
pub use continuation::{Continuation, End, Settings};
pub use draft::Draft;
pub use encoder::{Encoded, Encoder};
pub use generator::{Generator, Prefixes};
pub use hold::Hold;
pub use likelihood::Likelihood;
pub use model::Model;
pub use sampling::Sampling;
