//! `brolga perplexity`: how well a model foretells a text.

use super::inputs::threads;
use super::{Outcome, ReadArgs, print, print_json, time};
use brolga::generate::Model;
use brolga::generate::perplexity::cost;
use brolga::generate::text::Tokenizer;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::path::PathBuf;
use std::time::Instant;

/// Tell how well a language model foretells a text
#[derive(Args)]
#[command(after_help = "\
The text is cut into windows that see nothing of each other; of each, all tokens but the first count. The lower, the better: what weights of
fewer bits cost shows here.

Examples:
  brolga perplexity folder text.txt
  brolga perplexity folder text.txt --weights int4 --window 256 --json")]
pub struct Perplexity {
    /// The model: a folder of safetensors, a GGUF file, or an artefact that `brolga compile --generator` made
    model: PathBuf,
    /// The text
    text: PathBuf,
    /// Tokens of a window; the model's context where that is less
    #[arg(long, value_name = "N", default_value_t = 512)]
    window: usize,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read: ReadArgs,
}

impl Perplexity {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let text = brolga::source::text(&self.text)?;
        let model = Model::load(&self.model, &self.read.options()?, self.threads)?;
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary)?;
        let tokens = tokenizer.encode(&text, true)?;
        let window = model.facts().context.map_or(self.window, |c| c.min(self.window));
        let bar = ProgressBar::with_draw_target(Some(tokens.len() as u64), ProgressDrawTarget::stderr());
        let start = Instant::now();
        let all = cost(&model, &tokens, window, |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let bits = all.nats / std::f64::consts::LN_2 / text.len() as f64;
        if self.json {
            return print_json(&serde_json::json!({
                "perplexity": all.perplexity(), "nats": all.nats, "tokens": all.tokens, "bits_per_byte": bits,
                "window": window, "seconds": seconds,
            }));
        }
        print(&format!(
            "perplexity {:.4} of {} tokens in windows of {window}, {bits:.4} bits a byte, in {}\n",
            all.perplexity(),
            all.tokens,
            time(seconds)
        ))
    }
}
