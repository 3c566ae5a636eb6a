//! Text from speech, with the feature `audio` (on by default): Whisper's way from a sound to a transcript.
//!
//! ```text
//! speech.wav ──wav──▶ samples at 16 kHz ──mel──▶ frames of log-mel bins ──windows of 30 s──▶ tokens ──▶ segments
//! ```
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`wav`] | sounds from files |
//! | [`mel`] | log-mel spectrograms, which models read |
//! | [`prompt`] | what a transcript begins with: language, task, whether there are timestamps |
//! | [`rules`] | which tokens may come next |
//! | [`transcribe`] | segments of a sound, window by window |
//!
//! Invariant: tokens are those of transformers' `generate` without sampling, to the token.

pub mod mel;
pub mod prompt;
pub mod rules;
pub mod transcribe;
pub mod wav;

pub use prompt::Task;
pub use transcribe::{Segment, Transcriber, Wanted};
