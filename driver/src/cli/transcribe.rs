//! `brolga transcribe`: text from speech.

use super::generate::show;
use super::inputs::threads;
use super::{Outcome, ReadArgs, note, print_json, time};
use brolga::generate::Model;
use brolga::generate::text::Tokenizer;
use brolga::speech::mel::Extractor;
use brolga::speech::{Task, Transcriber, Wanted, wav};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Write what is said
#[derive(Args)]
#[command(after_help = "\
The sound is a WAV file of any rate; channels are averaged. It is read in windows, of 30 s mostly: where timestamps say that a segment ended, the
next window begins. Without --language the model tells it by the first window. Tokens are the best ones, always.

Examples:
  brolga transcribe folder speech.wav
  brolga transcribe folder speech.wav --language de --task translate
  brolga transcribe folder speech.wav --timestamps --json
  brolga transcribe whisper.brolga speech.wav           made by `brolga compile folder --generator -o whisper.brolga`")]
pub struct Transcribe {
    /// The model: a folder of safetensors of Whisper, or an artefact that `brolga compile --generator` made
    model: PathBuf,
    /// The sound
    sound: PathBuf,
    /// The language that is spoken, such as en
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// What is written: what is said, or what it means in English
    #[arg(long, value_enum)]
    task: Option<Which>,
    /// Print segments, each with its time
    #[arg(long)]
    timestamps: bool,
    /// Say how long it took
    #[arg(long)]
    stats: bool,
    /// Print JSON, when all is there
    #[arg(long)]
    json: bool,
    /// Threads; 0 is one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = threads)]
    threads: usize,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Transcribe,
    Translate,
}

impl Transcribe {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        // What is said of the sound does not wait for the model, whose rate is nearly always this one.
        let usual = Extractor::default().rate;
        let mut sound = wav::read(&self.sound, usual as u32)?;
        let start = Instant::now();
        let model = Model::load(&self.model, &self.read.options()?, self.threads)?;
        let tokenizer = Tokenizer::of(model.files(), model.facts().vocabulary)?;
        let rate = Extractor::of(model.files())?.rate;
        if rate != usual {
            sound = wav::read(&self.sound, rate as u32)?;
        }
        let loaded = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let wanted = Wanted {
            language: self.language,
            task: self.task.map(|t| match t {
                Which::Transcribe => Task::Transcribe,
                Which::Translate => Task::Translate,
            }),
            timestamps: self.timestamps,
        };
        let mut transcriber = Transcriber::new(&model, &sound, &wanted)?;
        let (mut text, mut segments) = (String::new(), vec![]);
        while let Some(segment) = transcriber.next() {
            let segment = segment?;
            let piece = tokenizer.decode(&transcriber.words(&segment))?;
            if !self.json {
                if self.timestamps {
                    let (from, to) = (clock(segment.start), clock(segment.end));
                    show(&format!("[{from} --> {to}] {}\n", piece.trim()))?;
                } else {
                    show(if text.is_empty() { piece.trim_start() } else { &piece })?;
                }
            }
            text += &piece;
            segments.push(json!({
                "start": segment.start, "end": segment.end, "text": piece, "tokens": segment.tokens,
            }));
        }
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            return print_json(&json!({
                "text": text.trim(), "language": transcriber.language(), "segments": segments,
                "seconds": { "load": loaded, "transcribe": seconds, "sound": sound.len() as f64 / rate as f64 },
            }));
        }
        if !self.timestamps {
            show("\n")?;
        }
        if self.stats {
            let of = sound.len() as f64 / rate as f64;
            note(&format!(
                "loaded in {}; {} of speech in {}, {:.1} times as fast as it is spoken",
                time(loaded),
                time(of),
                time(seconds),
                of / seconds
            ));
        }
        Ok(())
    }
}

/// A time as `MM:SS.mmm`, with hours where there are any.
fn clock(seconds: f64) -> String {
    let all = (seconds * 1000.0).round().max(0.0) as u64;
    let (minutes, rest) = (all / 60_000, all % 60_000);
    let tail = format!("{:02}:{:02}.{:03}", minutes % 60, rest / 1000, rest % 1000);
    match minutes / 60 {
        0 => tail,
        hours => format!("{hours:02}:{tail}"),
    }
}
