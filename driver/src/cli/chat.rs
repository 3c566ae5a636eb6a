//! `brolga chat`: a conversation, line by line.

use super::generate::{GenerateArgs, show};
use super::{Outcome, note};
use brolga::generate::Prefixes;
use brolga::generate::text::{ChatTemplate, Tokenizer};
use clap::Args;
use serde_json::{Value as Json, json};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Talk to a model
#[derive(Args)]
#[command(after_help = "\
Each line is a message; the reply is shown as it comes. Ctrl-C ends a reply, ctrl-D the conversation. What was said is kept, and only what is
new is computed. Lines that begin with a slash are commands: /clear forgets the conversation, /retry asks for another reply.

Examples:
  brolga chat folder
  brolga chat folder --system \"Answer in one sentence.\" --temperature 0.7")]
pub struct Chat {
    /// The model: a folder of safetensors, a GGUF file, or an artefact that `brolga compile --generator` made
    model: PathBuf,
    /// What the model is told first
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    how: GenerateArgs,
}

impl Chat {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let model = self.how.model(&self.model)?;
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary)?;
        let template = ChatTemplate::of(model.files())?;
        let aids = self.how.aids(&model, &tokenizer)?;
        let prefixes = Prefixes::new(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = stopped.clone();
        ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).map_err(|e| e.to_string())?;
        let system = || {
            self.system
                .iter()
                .map(|s| json!({ "role": "system", "content": s }))
                .collect::<Vec<Json>>()
        };
        let mut messages = system();
        let asks = std::io::stdin().is_terminal();
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if asks {
                show("> ")?;
            }
            let Some(line) = lines.next() else {
                return Ok(());
            };
            let line = line?;
            match line.trim() {
                "" => continue,
                "/clear" => {
                    messages = system();
                    continue;
                }
                "/retry" => {
                    if messages.last().is_none_or(|m| m["role"] != "assistant") {
                        note("there is no reply yet");
                        continue;
                    }
                    messages.pop();
                }
                command if command.starts_with('/') => {
                    note(&format!("{command} is no command; there are /clear and /retry"));
                    continue;
                }
                text => messages.push(json!({ "role": "user", "content": text })),
            }
            stopped.store(false, Ordering::Relaxed);
            let text = template.render(&messages, None)?;
            let tokens = tokenizer.encode(&text, false)?;
            let mut reply = match self
                .how
                .reply(&model, &aids, &tokenizer, Some(&prefixes), &tokens, false)
            {
                Ok(reply) => reply,
                Err(e) => {
                    note(&e.to_string());
                    messages.pop();
                    continue;
                }
            };
            let mut said = String::new();
            while !stopped.load(Ordering::Relaxed) {
                let Some(piece) = reply.next() else { break };
                let piece = piece?;
                show(&piece)?;
                said += &piece;
            }
            show("\n")?;
            messages.push(json!({ "role": "assistant", "content": said }));
        }
    }
}
