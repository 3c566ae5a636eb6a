//! `brolga serve`: a language model, or an encoder, for programs that speak OpenAI's interface.

use super::inputs::threads;
use super::{Outcome, ReadArgs, bytes, note};
use brolga::serve::{Server, Settings};
use clap::Args;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::exit;

/// The exit code of a program that ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// The variable that holds the key where no option does: options are seen by who lists processes.
const API_KEY: &str = "BROLGA_API_KEY";

/// Answer requests over HTTP, as OpenAI's interface has them
#[derive(Args)]
#[command(after_help = "\
Answers POST /v1/chat/completions, /v1/completions and /v1/embeddings (of encoders), and GET /v1/models and /health. Requests that come while
others run are computed together with them, and what prompts have in common is computed once. Ctrl-C or SIGTERM lets those that run finish and
takes no more; again, it ends at once.

Without temperature and the like, tokens are chosen as the model's generation_config.json says, or else the best one always. `response_format` and
`structured_outputs` hold replies to schemas, regular expressions and grammars, `tool_choice` to calls; `logprobs` tells how likely the model found
tokens, before anything is done to its logits. A field that would change the answer and is not supported is refused by name.

Examples:
  brolga serve folder
  brolga serve large --draft small
  brolga serve model.brolga --port 0 --slots 8 --api-key secret
  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Emma was\", \"max_tokens\": 32}'
  curl http://127.0.0.1:8080/v1/chat/completions -N -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"stream\": true}'")]
pub struct Serve {
    /// The model: a folder of safetensors, a GGUF file, or an artefact that `brolga compile --generator` made
    model: PathBuf,
    /// The address to listen on; 0.0.0.0 is all of the machine's
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen on; 0 is any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// What requests call the model; its file's name without this
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Sequences that are computed together at most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = slots)]
    slots: usize,
    /// Requests that wait at most; others are answered with 429
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: usize,
    /// Sequences that ended and are kept, for prompts that begin alike
    #[arg(long, value_name = "N", default_value_t = 8)]
    keep: usize,
    /// A smaller model of the same vocabulary, which proposes tokens that are checked together: texts are the same, and sooner there
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// Tokens that it proposes at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    draft_tokens: usize,
    /// Most bytes of a request, such as 64K or 4M
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = bytes)]
    max_body: u64,
    /// What requests have to give as `Authorization: Bearer KEY`; without this, what BROLGA_API_KEY holds, where it is set
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    #[command(flatten)]
    read: ReadArgs,
}

impl Serve {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        // A port that is taken is told before a model is compiled.
        let listener = TcpListener::bind((self.host.as_str(), self.port));
        let listener = listener.map_err(|e| format!("{}:{}: {e}", self.host, self.port))?;
        let settings = Settings {
            slots: self.slots,
            queue: self.queue,
            kept: self.keep,
            max_body: usize::try_from(self.max_body)?,
            draft: self.draft,
            draft_tokens: self.draft_tokens,
            api_key: self.api_key.or_else(|| std::env::var(API_KEY).ok()),
            ..Settings::new(self.name.unwrap_or_else(|| name(&self.model)))
        };
        let server = Server::load(&self.model, &self.read.options()?, self.threads, settings)?;
        note(&format!("listening on http://{}", listener.local_addr()?));
        Ok(server.run(listener, stopped())?)
    }
}

/// Ready when the program is asked to end. Asked again, it ends at once.
async fn stopped() {
    asked().await;
    note("finishing what runs; ctrl-C again ends at once");
    tokio::spawn(async {
        asked().await;
        exit(INTERRUPTED);
    });
}

/// Ready at ctrl-C or SIGTERM. Where the system tells of neither, the server runs until it is killed.
async fn asked() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => terminated.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        _ = terminated => {}
    }
}

/// The name of a model's file or folder.
fn name(model: &Path) -> String {
    let whole = model.canonicalize();
    let whole = whole.as_deref().unwrap_or(model);
    let name = if whole.is_dir() {
        whole.file_name()
    } else {
        whole.file_stem()
    };
    name.map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}

fn slots(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("expected a number of sequences from 1 on".into()),
    }
}
