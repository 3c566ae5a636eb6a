//! `brolga generate`: a text that goes on from a prompt.

use super::inputs::threads;
use super::{Outcome, ReadArgs, note, print_json, print_raw, time};
use brolga::generate::beams::{self, Beams, Early};
#[cfg(feature = "grammar")]
use brolga::generate::grammar::{Grammar, Grammars};
use brolga::generate::reply::{Finish, Reply};
use brolga::generate::stop::Stops;
use brolga::generate::text::{ChatTemplate, Tokenizer};
use brolga::generate::{Draft, End, Generator, Hold, Model, Prefixes, Sampling, Settings};
use clap::{Args, ValueEnum};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Go on from a prompt
#[derive(Args)]
#[command(after_help = "\
Without --temperature and the like, tokens are chosen as the model's generation_config.json says, or else the best one always. The same
seed gives the same text.

Examples:
  brolga generate folder \"It was a fine morning, and\"
  brolga generate model.gguf \"It was a fine morning, and\"
  brolga generate folder \"A text to translate\" --beams 4
  brolga generate large \"Emma was\" --draft small
  brolga generate folder \"A person:\" --json-schema person.json
  brolga generate folder --chat \"Which birds dance?\" --temperature 0.7 --seed 1
  brolga generate model.brolga --max-tokens 64 --json < prompt.txt")]
pub struct Generate {
    /// The model: a folder of safetensors, a GGUF file, or an artefact that `brolga compile --generator` made
    model: PathBuf,
    /// The prompt; standard input without one
    prompt: Option<String>,
    /// Make the prompt a message to the model, by its template of chats
    #[arg(long)]
    chat: bool,
    /// Search the best text as a whole, with so many that grow side by side; 1 is no search
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    /// Scores of beams are divided by the length to this power: above 0 it favours long texts
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    length_penalty: Option<f64>,
    /// When a search ends that has as many finished texts as beams
    #[arg(long, value_enum)]
    early_stopping: Option<EarlyStopping>,
    /// Print the prompt before what follows it
    #[arg(long)]
    echo: bool,
    /// Say how long it took
    #[arg(long)]
    stats: bool,
    /// Print JSON, when all is there
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    how: GenerateArgs,
}

/// As transformers calls it.
#[derive(Clone, Copy, ValueEnum)]
enum EarlyStopping {
    /// At once
    True,
    /// When no beam is better, as long as they are
    False,
    /// When no beam could become better
    Never,
}

/// What was generated, and what it took.
struct Done {
    text: String,
    tokens: Vec<i64>,
    finish: Option<Finish>,
    /// Seconds until the model was there, for the prompt, and for the text.
    seconds: [f64; 3],
}

/// What stands beside a model while it writes.
pub struct Aids {
    /// A model that proposes tokens.
    draft: Option<Model>,
    /// What texts are held to.
    hold: Hold,
}

/// Options of every command that generates.
#[derive(Args, Clone)]
pub struct GenerateArgs {
    /// Tokens at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Divides logits before a token is drawn; 0 takes the best one
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Draw from so many of the best tokens; 0 is no limit
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Draw from the best tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw from tokens that have this share of the best one's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens that were there less likely, above 1
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Take this from logits of tokens that were generated
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Take this from them as often as they were generated
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Add a bias to a token's logit (may be repeated)
    #[arg(long, value_name = "TOKEN=X", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(i64, f32)>,
    /// What draws begin with
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A text that ends the reply, and is not shown (may be repeated)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on behind tokens that end a text
    #[arg(long)]
    ignore_end: bool,
    /// Hold the text to a JSON schema: a file
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["regex", "grammar"])]
    json_schema: Option<PathBuf>,
    /// Hold it to a regular expression
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "REGEX", conflicts_with = "grammar")]
    regex: Option<String>,
    /// Hold it to a grammar in Lark's syntax: a file
    #[cfg(feature = "grammar")]
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// A smaller model of the same vocabulary, which proposes tokens that are checked together: the text is the same, and sooner there
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// Tokens that it proposes at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    draft_tokens: usize,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    #[command(flatten)]
    read: ReadArgs,
}

impl GenerateArgs {
    /// Reads and compiles the model.
    pub fn model(&self, path: &Path) -> Result<Model, super::Failure> {
        Ok(Model::load(path, &self.read.options()?, self.threads)?)
    }

    /// What stands beside the model, once for all replies.
    pub fn aids(&self, model: &Model, tokenizer: &Tokenizer) -> Result<Aids, super::Failure> {
        #[cfg(feature = "grammar")]
        let hold = match self.grammar()? {
            Some(grammar) => Grammars::of(tokenizer, model.facts())?.constraint(&grammar)?.into(),
            None => Hold::default(),
        };
        #[cfg(not(feature = "grammar"))]
        let hold = Hold::default();
        #[cfg(not(feature = "grammar"))]
        let _ = (model, tokenizer);
        // A draft is as its folder has it.
        let mut options = self.read.options()?;
        options.folder = Default::default();
        let load = |path| Model::load(path, &options, self.threads);
        Ok(Aids {
            draft: self.draft.as_ref().map(load).transpose()?,
            hold,
        })
    }

    /// How a model's tokens are chosen, and how many.
    pub fn settings(&self, model: &Model) -> Settings {
        let own = Sampling::of(model.facts());
        Settings {
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(own.temperature),
                top_k: self.top_k.unwrap_or(own.top_k),
                top_p: self.top_p.unwrap_or(own.top_p),
                min_p: self.min_p.unwrap_or(own.min_p),
                repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
                presence_penalty: self.presence_penalty.unwrap_or(own.presence_penalty),
                frequency_penalty: self.frequency_penalty.unwrap_or(own.frequency_penalty),
                logit_bias: self.logit_bias.clone(),
                seed: self.seed,
            },
            max_tokens: self.max_tokens,
            ignore_end: self.ignore_end,
        }
    }

    /// What the text is held to.
    #[cfg(feature = "grammar")]
    fn grammar(&self) -> brolga::Result<Option<Grammar>> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| brolga::Error::io(path, e));
        if let Some(path) = &self.json_schema {
            let schema = serde_json::from_str(&read(path)?).map_err(|e| brolga::Error::file(path, e.to_string()))?;
            return Ok(Some(Grammar::Schema(schema)));
        }
        if let Some(path) = &self.grammar {
            return Ok(Some(Grammar::Lark(read(path)?)));
        }
        Ok(self.regex.clone().map(Grammar::Regex))
    }

    /// A reply to a prompt, as a text of its own or one that goes on.
    pub fn reply<'m, 't>(
        &self,
        model: &'m Model,
        aids: &'m Aids,
        tokenizer: &'t Tokenizer,
        prefixes: Option<&'m Prefixes>,
        prompt: &[i64],
        goes_on: bool,
    ) -> brolga::Result<Reply<'m, 't>> {
        let generator = Generator::new(model, prefixes, prompt, self.settings(model))?;
        let mut generator = generator.held_to(aids.hold.clone());
        if let Some(draft) = &aids.draft {
            generator = generator.with_draft(Draft::new(draft, model, self.draft_tokens)?);
        }
        let before = if goes_on { prompt } else { &[] };
        Ok(Reply::new(generator, tokenizer, before, &self.stop))
    }
}

impl Generate {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let prompt = match &self.prompt {
            Some(p) => p.clone(),
            None => {
                if std::io::stdin().is_terminal() {
                    note("reading the prompt from standard input; end it with ctrl-D");
                }
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text.trim_end_matches('\n').to_owned()
            }
        };
        let start = Instant::now();
        let model = self.how.model(&self.model)?;
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary)?;
        let tokens = if self.chat {
            let message = serde_json::json!({ "role": "user", "content": prompt });
            let text = ChatTemplate::of(model.files())?.render(&[message], None)?;
            tokenizer.encode(&text, false)?
        } else {
            tokenizer.encode(&prompt, true)?
        };
        let loaded = start.elapsed().as_secs_f64();
        let beams = self.beams(&model)?;
        if beams.width > 1 && self.how.draft.is_some() {
            let message = "beams have no draft; --beams 1 goes on token by token";
            return Err(message.to_owned().into());
        }
        let aids = self.how.aids(&model, &tokenizer)?;
        if !self.json && self.echo {
            show(&prompt)?;
        }
        // A model with an encoder writes a text of its own.
        let goes_on = !self.chat && model.encoder().is_none();
        let done = match beams.width {
            1 => self.grow(&model, &aids, &tokenizer, &tokens, (goes_on, loaded))?,
            _ => self.search(&model, aids.hold, &tokenizer, &tokens, goes_on, (&beams, loaded))?,
        };
        self.report(&done, tokens.len())
    }

    fn beams(&self, model: &Model) -> Result<Beams, super::Failure> {
        let own = Beams::of(model.files())?;
        Ok(Beams {
            width: self.beams.unwrap_or(own.width),
            length_penalty: self.length_penalty.unwrap_or(own.length_penalty),
            early: match self.early_stopping {
                None => own.early,
                Some(EarlyStopping::True) => Early::Yes,
                Some(EarlyStopping::False) => Early::No,
                Some(EarlyStopping::Never) => Early::Never,
            },
        })
    }

    /// A text token by token, shown as it grows.
    fn grow(
        &self,
        model: &Model,
        aids: &Aids,
        tokenizer: &Tokenizer,
        prompt: &[i64],
        (goes_on, loaded): (bool, f64),
    ) -> Result<Done, super::Failure> {
        let start = Instant::now();
        let mut reply = self.how.reply(model, aids, tokenizer, None, prompt, goes_on)?;
        let read = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut text = String::new();
        for piece in reply.by_ref() {
            let piece = piece?;
            if !self.json {
                show(&piece)?;
            }
            text += &piece;
        }
        Ok(Done {
            text,
            tokens: reply.generator().generated().to_vec(),
            finish: reply.finish(),
            seconds: [loaded, read, start.elapsed().as_secs_f64()],
        })
    }

    /// The best text by beams, shown when it is there.
    fn search(
        &self,
        model: &Model,
        hold: Hold,
        tokenizer: &Tokenizer,
        prompt: &[i64],
        goes_on: bool,
        (beams, loaded): (&Beams, f64),
    ) -> Result<Done, super::Failure> {
        let start = Instant::now();
        let found = beams::search_held(model, prompt, beams, &self.how.settings(model), hold)?;
        let mut stream = tokenizer.stream_behind(if goes_on { prompt } else { &[] });
        let mut text = String::new();
        for &token in &found.tokens {
            text += &stream.push(token)?;
        }
        text += &stream.rest()?;
        let mut stops = Stops::new(&self.how.stop);
        let (mut text, stopped) = stops.push(&text);
        text += &stops.rest();
        if !self.json {
            show(&text)?;
        }
        Ok(Done {
            text,
            tokens: found.tokens,
            finish: Some(match stopped || found.end == End::Token {
                true => Finish::Stop,
                false => Finish::Length,
            }),
            seconds: [loaded, 0.0, start.elapsed().as_secs_f64()],
        })
    }

    /// What is printed behind the text, or JSON in its place.
    fn report(&self, done: &Done, prompt: usize) -> Outcome {
        let [loaded, read, seconds] = done.seconds;
        if self.json {
            return print_json(&serde_json::json!({
                "text": done.text, "tokens": done.tokens, "prompt_tokens": prompt,
                "finish": done.finish.map(Finish::name),
                "seconds": { "load": loaded, "prompt": read, "generate": seconds },
            }));
        }
        if !done.text.ends_with('\n') {
            show("\n")?;
        }
        if self.stats {
            let n = done.tokens.len();
            note(&format!(
                "loaded in {}; a prompt of {prompt} tokens in {}; {n} tokens in {} ({:.1} a second)",
                time(loaded),
                time(read),
                time(seconds),
                n as f64 / seconds
            ));
        }
        Ok(())
    }
}

/// Writes a piece of text at once. What a model says is no command to a terminal.
pub fn show(piece: &str) -> Outcome {
    let safe = |c: char| c == '\n' || c == '\t' || !brolga::ir::is_command(c);
    let text: String = piece.chars().filter(|c| safe(*c)).collect();
    print_raw(&text)
}

fn bias(text: &str) -> Result<(i64, f32), String> {
    let wrong = || "expected TOKEN=X, a token's number and what is added to its logit".to_owned();
    let (token, x) = text.split_once('=').ok_or_else(wrong)?;
    Ok((token.parse().map_err(|_| wrong())?, x.parse().map_err(|_| wrong())?))
}
