//! The encoder of a model that has a decoder as well: what it says of a source, as keys and values for each layer of the decoder.

use crate::compile::{Draft, draft};
use crate::options::Options;
use crate::session::Session;
use crate::source;
use crate::{Error, Result};
use brolga_abi::Dim;
use brolga_frontend::safetensors::Form;
use brolga_runtime::{Buffer, View};
use std::path::Path;
use std::sync::Arc;

/// The input of encoders of texts.
const TOKENS: &str = "input_ids";

/// A compiled encoder.
pub struct Encoder {
    session: Session,
}

/// What an encoder says of a source: keys, then values of each layer of the decoder. All sequences of a cache share it.
pub struct Encoded {
    sides: Vec<Buffer>,
}

impl Encoded {
    /// All of it, in the order of the decoder's inputs.
    pub(super) fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.sides.iter().map(Buffer::view)
    }
}

impl Encoder {
    /// Reads the encoder of a folder.
    pub(super) fn draft(folder: &Path, options: &Options) -> Result<Draft> {
        let mut options = options.clone();
        options.folder.form = Form::Encoder;
        let (graph, _) = source::folder(folder, &options)?;
        draft(&graph, &options.without_sizes())
    }

    /// The encoder of a session.
    pub(super) fn of(session: Session) -> Encoder {
        Encoder { session }
    }

    /// The same with another number of threads.
    pub(super) fn with_threads(self, threads: usize) -> Result<Encoder> {
        Ok(Encoder {
            session: self.session.with_threads(threads)?,
        })
    }

    /// Whether it reads tokens, and not features of sounds.
    pub fn reads_tokens(&self) -> bool {
        self.session.inputs()[0].name == TOKENS
    }

    /// Bins and frames of the sounds that it reads.
    pub fn extents(&self) -> Option<[usize; 2]> {
        match self.session.inputs()[0].dims[..] {
            [Dim::Const(1), Dim::Const(mels), Dim::Const(frames)] => Some([mels as usize, frames as usize]),
            _ => None,
        }
    }

    /// What it says of a text.
    ///
    /// # Errors
    /// When it reads no texts, there is no token, or there is no memory.
    pub fn tokens(&self, tokens: &[i64]) -> Result<Arc<Encoded>> {
        if !self.reads_tokens() {
            let message = "the model reads sounds: `brolga transcribe FOLDER FILE.wav`";
            return Err(Error::Option(message.into()));
        }
        self.encode(View::of(tokens, &[1, tokens.len()]))
    }

    /// What it says of features `[1, mels, frames]`.
    ///
    /// # Errors
    /// When it reads no features of that shape, or there is no memory.
    pub fn features(&self, features: &[f32], mels: usize) -> Result<Arc<Encoded>> {
        self.encode(View::of(features, &[1, mels, features.len() / mels.max(1)]))
    }

    fn encode(&self, input: View<'_>) -> Result<Arc<Encoded>> {
        let sides = self.session.run(&[input])?;
        Ok(Arc::new(Encoded { sides }))
    }
}
