//! The commands, one file each, and what they share: options of compiling, errors, exit codes. What `run` compares with
//! references stands in `compare`, where it runs in `device`; inputs of what runs in `inputs`.
//!
//! Exit codes: 0 for success, 1 for a comparison or a check that failed, 2 for everything that went wrong (bad arguments included).
//! Results go to standard output, everything else to standard error; colours only to a terminal.

mod ablate;
mod bench;
mod bench_folder;
mod bisect;
#[cfg(feature = "text")]
mod chat;
mod check_proof;
mod compare;
mod compile;
mod device;
mod doctor;
mod draw;
mod egraph;
mod emit;
mod equal;
mod explain;
mod extract;
mod fuzz;
#[cfg(feature = "text")]
mod generate;
mod info;
mod inputs;
mod kept;
mod machine;
mod opt;
#[cfg(feature = "text")]
mod perplexity;
mod profile;
mod reduce;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod space;
#[cfg(feature = "audio")]
mod transcribe;
mod tune;
mod verify_rules;
mod watch;
mod why_not;

use brolga::Options;
use brolga::frontend::onnx::Extent;
use brolga::frontend::safetensors::{CacheType, WeightType};
use brolga::ir::{Target, is_command, plain};
use brolga::passes::eqsat::{Fp, Selection};
use brolga::pins::{self, Pin};
use brolga::shell::quoted;
use brolga::tune::applied::Tuned;
use brolga::tune::record::Log;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// An optimising compiler for machine-learning models.
#[derive(Parser)]
#[command(name = "brolga", version, about, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  brolga run model.onnx --inputs inputs.npz --output outputs.npz
  brolga compile model.onnx -o model.o --header model.h
  brolga info model.onnx
  brolga doctor model.onnx";

#[derive(Subcommand)]
enum Command {
    /// Run a model or a compiled artefact
    Run(run::Run),
    /// Compile a model ahead of time
    Compile(compile::Compile),
    /// Run passes over a model, from any level's text to any other's below it
    Opt(opt::Opt),
    /// Print a model at one of the levels
    Emit(emit::Emit),
    /// Draw a model at one of the levels
    Draw(Box<draw::Draw>),
    /// Tell what a model holds
    Info(info::Info),
    /// Go on from a prompt, with a language model
    #[cfg(feature = "text")]
    Generate(generate::Generate),
    /// Talk to a language model
    #[cfg(feature = "text")]
    Chat(chat::Chat),
    /// Answer requests over HTTP, as OpenAI's interface has them
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Write what is said in a sound, with a model of speech
    #[cfg(feature = "audio")]
    Transcribe(transcribe::Transcribe),
    /// Tell how well a language model foretells a text
    #[cfg(feature = "text")]
    Perplexity(perplexity::Perplexity),
    /// Tell what each kernel of a model takes
    Profile(profile::Profile),
    /// Say what keeps a model from being compiled, all at once
    Doctor(doctor::Doctor),
    /// Find the pass and the rewrite that make a model's results wrong
    Bisect(Box<bisect::Bisect>),
    /// Compare random models on every level, and keep new findings
    Fuzz(Box<fuzz::FuzzCommand>),
    /// Shrink a model as long as a script says that it still shows something
    Reduce(Box<reduce::Reduce>),
    /// Search better schedules for a model's kernels, on this machine
    Tune(tune::Tune),
    /// Time one kernel alone, or what a language model takes
    Bench(bench::Bench),
    /// List the schedules that a kernel may have
    Space(space::Space),
    /// Time candidates for `brolga tune`, over standard input and output
    #[command(hide = true)]
    TuneWorker(tune::Serve),
    /// Measure this machine, and keep its figures for the cost model
    Machine(machine::Machine),
    /// Check rewrite rules on random instances
    VerifyRules(verify_rules::VerifyRules),
    /// Say which rules made each kernel of a model, out of which of its nodes
    Explain(explain::Explain),
    /// Check the derivation of a program, step by step through the interpreter
    CheckProof(check_proof::CheckProof),
    /// Say why a rewrite rule did nothing to a node of a model
    WhyNot(why_not::WhyNot),
    /// Say whether two models are equal by rewrite rules, and by which steps
    Equal(equal::EqualTo),
    /// Say what a model costs without each theme of rules, with each alone, or without each rule
    Ablate(Box<ablate::Ablate>),
    /// Show how the e-graph of a model grew, what was chosen from it, and what was rejected
    Egraph(Box<egraph::EGraph>),
    /// Choose the cheapest terms of an e-graph in a file
    Extract(extract::Extract),
}

/// What goes wrong: an error for people, or a comparison, a check or an examination whose bad result has been printed.
enum Failure {
    Error(String),
    Reported,
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(e: E) -> Failure {
        Failure::Error(e.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Whoever asked for JSON gets some, also of arguments that are no command.
    let json = arguments.iter().any(|a| a == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(e) => {
            if json && e.use_stderr() {
                error_json(&e.to_string());
            }
            e.exit()
        }
    };
    let outcome = match cli.command {
        Command::Run(c) => c.run(),
        Command::Compile(c) => c.run(),
        Command::Opt(c) => c.run(),
        Command::Emit(c) => c.run(),
        Command::Draw(c) => c.run(),
        Command::Info(c) => c.run(),
        #[cfg(feature = "text")]
        Command::Generate(c) => c.run(),
        #[cfg(feature = "text")]
        Command::Chat(c) => c.run(),
        #[cfg(feature = "serve")]
        Command::Serve(c) => c.run(),
        #[cfg(feature = "audio")]
        Command::Transcribe(c) => c.run(),
        #[cfg(feature = "text")]
        Command::Perplexity(c) => c.run(),
        Command::Profile(c) => c.run(),
        Command::Doctor(c) => c.run(),
        Command::Bisect(c) => c.run(),
        Command::Fuzz(c) => c.run(),
        Command::Reduce(c) => c.run(),
        Command::Tune(c) => c.run(),
        Command::Bench(c) => c.run(),
        Command::Space(c) => c.run(),
        Command::TuneWorker(c) => c.run(),
        Command::Machine(c) => c.run(),
        Command::VerifyRules(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::CheckProof(c) => c.run(),
        Command::WhyNot(c) => c.run(),
        Command::Equal(c) => c.run(),
        Command::Ablate(c) => c.run(),
        Command::Egraph(c) => c.run(),
        Command::Extract(c) => c.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(1),
        Err(Failure::Error(message)) => {
            let (red, end) = if std::io::stderr().is_terminal() {
                ("\x1b[1;31m", "\x1b[0m")
            } else {
                ("", "")
            };
            // Where standard error is closed, nobody is left to tell.
            let _ = writeln!(std::io::stderr(), "{red}error:{end} {}", shown(&message));
            if json {
                error_json(&message);
            }
            ExitCode::from(2)
        }
    }
}

/// An error as what a command prints with --json.
fn error_json(message: &str) {
    let message = message.strip_prefix("error: ").unwrap_or(message).trim_end();
    // The exit status says it, too.
    let _ = print_json(&serde_json::json!({ "error": message }));
}

/// A text of several lines as a terminal may get it. Names in it that have a line break were made [`plain`] before.
fn shown(text: &str) -> String {
    let mut lines = text
        .split('\n')
        .map(|l| l.split('\t').map(plain).collect::<Vec<_>>().join("\t"));
    let first = lines.next().unwrap_or_default();
    lines.fold(first, |all, l| all + "\n" + &l)
}

/// A note to standard error.
fn note(message: &str) {
    let (cyan, end) = if std::io::stderr().is_terminal() {
        ("\x1b[1;36m", "\x1b[0m")
    } else {
        ("", "")
    };
    // Where standard error is closed, nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{cyan}note:{end} {}", shown(message));
}

/// A warning to standard error.
fn warning(message: &str) {
    let (yellow, end) = if std::io::stderr().is_terminal() {
        ("\x1b[1;33m", "\x1b[0m")
    } else {
        ("", "")
    };
    // Where standard error is closed, nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{yellow}warning:{end} {}", shown(message));
}

/// Prints a report to standard output.
fn print(text: &str) -> Outcome {
    print_raw(&shown(text))
}

/// Prints JSON to standard output.
fn print_json(report: &serde_json::Value) -> Outcome {
    // JSON leaves some control characters of strings as they are; line breaks are its own.
    let text: String = format!("{report:#}\n")
        .chars()
        .map(|c| match is_command(c) && c != '\n' {
            true => format!("\\u{:04x}", u32::from(c)),
            false => c.into(),
        })
        .collect();
    print_raw(&text)
}

/// Writes to standard output; a reader that has gone away (`| head`) ends the program quietly.
fn print_raw(text: &str) -> Outcome {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Writes to a file, or to standard output where there is none, or `-`.
fn print_to(path: Option<&Path>, text: &str) -> Outcome {
    match path {
        Some(path) if !is_stdout(path) => {
            brolga::output::write(path, text.as_bytes())?;
            Ok(())
        }
        _ => print_raw(text),
    }
}

/// Whether an output is standard output, which can then hold nothing else.
fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Options of every command that reads models.
#[derive(Args, Clone)]
struct ModelArgs {
    /// Size of a symbolic dimension, such as seq=128 (may be repeated)
    #[arg(long = "set", value_name = "SYMBOL=N", value_parser = size)]
    sizes: Vec<(String, i64)>,
    /// Make an input a constant: sr=16000, axes=1,2, language=en or mask=@mask.npy (may be repeated)
    #[arg(long = "pin", value_name = "NAME=VALUE", value_parser = Pin::parse)]
    pins: Vec<(String, Pin)>,
    /// Extents of an input before the model is read, such as image=1,3,?,? (? or a name is a symbol; may be repeated)
    #[arg(long = "input-shape", value_name = "NAME=EXTENTS", value_parser = pins::shape)]
    shapes: Vec<(String, Vec<Extent>)>,
    /// Make inputs constants that have an initializer, which is their default otherwise; the code may be faster
    #[arg(long)]
    constant_defaults: bool,
    /// The family of a model's folder or GGUF file, in place of what it says itself
    #[arg(long, value_name = "NAME")]
    family: Option<String>,
    /// A field of a folder's config.json, or of what a GGUF file says in its place, such as sliding_window=null (may be repeated)
    #[arg(long = "config", value_name = "FIELD=JSON", value_parser = field)]
    fields: Vec<(String, String)>,
    /// An input of a folder's model beside those that it needs: attention_mask, position_ids, token_type_ids (may be repeated)
    #[arg(long = "with", value_name = "INPUT")]
    with: Vec<String>,
    /// A LoRA adapter's folder that is merged into a folder's weights, with a factor: FOLDER or FOLDER=0.5 (may be repeated)
    #[arg(long = "lora", value_name = "FOLDER[=SCALE]", value_parser = adapter)]
    lora: Vec<(PathBuf, f64)>,
    /// What the matrices of a folder or a GGUF file become: f32, bf16, f16, or int8 or int4 in blocks of 32. Of `compile`, another value is a file that the
    /// weights are written to, instead of into the object
    #[arg(long, value_name = "TYPE|FILE")]
    weights: Vec<String>,
    /// What a model that generates keeps of each token: keys and values in f32, f16, or int8 with a scale for each token of each head
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = cache_type)]
    kv: CacheType,
    /// Most memory for constants and for a run, such as 512M or 16G
    #[arg(long, value_name = "BYTES", default_value = "16G", value_parser = bytes)]
    memory_limit: u64,
}

impl ModelArgs {
    /// The file that weights are written to, where one is given. What is left of the option are types.
    fn take_weights_file(&mut self) -> Result<Option<PathBuf>, String> {
        let (types, files): (Vec<_>, Vec<_>) = std::mem::take(&mut self.weights)
            .into_iter()
            .partition(|w| WeightType::named(w).is_some());
        self.weights = types;
        match &files[..] {
            [] => Ok(None),
            [file] => Ok(Some(file.into())),
            [a, b, ..] => Err(format!("--weights is given the files {a} and {b}")),
        }
    }

    fn weights_type(&self) -> Result<Option<WeightType>, String> {
        let known = || WeightType::ALL.map(WeightType::name).join(", ");
        let each =
            |w: &String| WeightType::named(w).ok_or_else(|| format!("--weights {w}: expected one of {}", known()));
        match &self.weights.iter().map(each).collect::<Result<Vec<_>, _>>()?[..] {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(format!(
                "--weights is given {}, expected one",
                self.weights.join(" and ")
            )),
        }
    }

    fn options(&self) -> Result<Options, String> {
        for (i, (symbol, n)) in self.sizes.iter().enumerate() {
            if let Some((_, other)) = self.sizes[..i].iter().find(|(s, m)| s == symbol && m != n) {
                return Err(format!(
                    "--set {symbol}={other} and --set {symbol}={n} contradict each other"
                ));
            }
        }
        for (i, (name, _)) in self.shapes.iter().enumerate() {
            if self.shapes[..i].iter().any(|(n, _)| n == name) {
                return Err(format!("--input-shape is given twice for `{name}`"));
            }
        }
        Ok(Options {
            sizes: self.sizes.clone(),
            pins: self.pins.clone(),
            shapes: self.shapes.clone(),
            constant_defaults: self.constant_defaults,
            folder: brolga::frontend::safetensors::Options {
                family: self.family.clone(),
                config: self.fields.clone(),
                with: self.with.clone(),
                lora: self.lora.clone(),
                weights: self.weights_type()?,
                kv: self.kv,
                ..Default::default()
            },
            memory_limit: self.memory_limit,
            ..Options::default()
        })
    }
}

fn cache_type(name: &str) -> Result<CacheType, String> {
    let known = || CacheType::ALL.map(CacheType::name).join(", ");
    CacheType::named(name).ok_or_else(|| format!("expected one of {}", known()))
}

/// Rewrite rules, of every command that compiles.
#[derive(Args, Clone)]
struct RuleArgs {
    /// Rewrite rules: all, exact, approximate, none, or a file of rules instead (see docs/rules.md); all,-THEME switches a theme off
    #[arg(long, value_name = "RULES")]
    rules: Option<String>,
    /// A file of rules beside the embedded ones (may be repeated)
    #[arg(long, value_name = "FILE")]
    add_rules: Vec<String>,
    /// What floating-point arithmetic may see of rules: strict (nothing), reassoc (another order of roundings, the default) or fast
    /// (approximations, too)
    #[arg(long, value_name = "CLASS", value_parser = fp)]
    fp: Option<Fp>,
    /// Take rules in files without checking them
    #[arg(long)]
    unchecked_rules: bool,
}

impl RuleArgs {
    /// Whether anything is said of rules.
    fn are_given(&self) -> bool {
        self.rules.is_some() || !self.add_rules.is_empty() || self.fp.is_some()
    }

    /// That nothing is said of rules for a kernel.
    fn none_for_kernels(&self) -> Result<(), String> {
        match self.are_given() {
            true => {
                Err("--rules, --add-rules and --fp are for models: a kernel has no operators that rules rewrite".into())
            }
            false => Ok(()),
        }
    }

    /// The rules, where something is said of them. Files are read and checked here, once.
    fn selection(&self) -> Result<Option<Selection>, String> {
        if !self.are_given() {
            return Ok(None);
        }
        brolga::options::rules(self.rules.as_deref(), &self.add_rules, self.fp, self.unchecked_rules)
            .map(Some)
            .map_err(|e| e.to_string())
    }
}

/// Options of commands that compile what they read for this machine, with the default pipeline.
#[derive(Args, Clone)]
struct ReadArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    rules: RuleArgs,
}

impl ReadArgs {
    fn options(&self) -> Result<Options, String> {
        Ok(Options {
            rules: self.rules.selection()?,
            ..self.model.options()?
        })
    }
}

fn fp(name: &str) -> Result<Fp, String> {
    name.parse()
}

/// Options of every command that compiles; [`WatchArgs`] stand beside them where what passes do can be shown.
#[derive(Args, Clone)]
struct CompileArgs {
    #[arg(long, alias = "cpu", value_name = "TARGET", value_parser = target, help = targets())]
    target: Option<Target>,
    #[command(flatten)]
    model: ModelArgs,
    /// An output that may be the memory of an input, which it updates, such as past=present (may be repeated)
    #[arg(long = "alias", value_name = "INPUT=OUTPUT", value_parser = alias)]
    aliases: Vec<(String, String)>,
    /// Passes, such as canonicalize,eqsat{fp=strict}; what is missing on the way down follows them
    #[arg(long, visible_alias = "passes", value_name = "PASSES")]
    pipeline: Option<String>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Verify the IR after every pass
    #[arg(long)]
    verify_each: bool,
    /// The folder that a file is written to which shows a failing pass again, instead of the system's for temporary files
    #[arg(long, value_name = "DIR")]
    crash_reproducer: Option<PathBuf>,
    /// Records of `brolga tune`: kernels that have one for this machine get its schedule (may be repeated)
    #[arg(long, value_name = "FILE")]
    tune: Vec<PathBuf>,
    /// The user's own records as well, to which `brolga tune` adds that has no -o
    #[arg(long)]
    tuned: bool,
}

impl CompileArgs {
    fn options(&self) -> Result<Options, String> {
        let target = match &self.target {
            Some(t) => t.clone(),
            None => brolga::codegen::target::native()
                .ok_or("this machine's architecture is none that Brolga makes code for; give --target")?,
        };
        let read = self.model.options()?;
        let mut tuned = Log::default();
        let own = self.tuned.then(Log::of_user);
        for log in self.tune.iter().map(|path| Log::read(path)).chain(own) {
            tuned.lines.extend(log.map_err(|e| e.to_string())?.lines);
        }
        Ok(Options {
            target,
            tuned: self.has_records().then(|| Arc::new(tuned)),
            pipeline: self.pipeline.clone(),
            rules: self.rules.selection()?,
            unchecked_rules: self.rules.unchecked_rules,
            aliases: self.aliases.clone(),
            verify: self.verify_each || read.verify,
            reproducers: Some(self.crash_reproducer.clone().unwrap_or_else(std::env::temp_dir)),
            ..read
        })
    }

    /// The options of a command that keeps what fails in its own way.
    fn options_without_reproducers(&self) -> Result<Options, String> {
        if self.crash_reproducer.is_some() {
            return Err(
                "a pass that fails is a finding here, and is kept as others are; leave out --crash-reproducer".into(),
            );
        }
        Ok(Options {
            reproducers: None,
            ..self.options()?
        })
    }

    /// True where records are to be applied.
    fn has_records(&self) -> bool {
        self.tuned || !self.tune.is_empty()
    }

    /// Says what became of records, where there are any.
    fn say_tuned(&self, tuned: &Tuned) {
        if self.has_records() {
            note(&tuned.to_string());
        }
    }

    /// What of these options is about passes, as words of a command.
    fn words(&self) -> Vec<String> {
        let mut words = vec![];
        let mut word = |name: &str, value: &str| words.push(format!("{name} {}", quoted(value)));
        if let Some(t) = &self.target {
            word("--target", t.name);
        }
        if let Some(p) = &self.pipeline {
            word("--pipeline", p);
        }
        if let Some(r) = &self.rules.rules {
            word("--rules", r);
        }
        self.rules.add_rules.iter().for_each(|r| word("--add-rules", r));
        if let Some(fp) = self.rules.fp {
            word("--fp", fp.name());
        }
        self.tune.iter().for_each(|t| word("--tune", &t.display().to_string()));
        if self.tuned {
            words.push("--tuned".to_owned());
        }
        if self.rules.unchecked_rules {
            words.push("--unchecked-rules".to_owned());
        }
        words
    }

    /// The options that are given and that passes read.
    fn of_passes(&self) -> Vec<&'static str> {
        let given = [
            ("--target", self.target.is_some()),
            ("--pipeline", self.pipeline.is_some()),
            ("--rules", self.rules.rules.is_some()),
            ("--add-rules", !self.rules.add_rules.is_empty()),
            ("--fp", self.rules.fp.is_some()),
            ("--unchecked-rules", self.rules.unchecked_rules),
            ("--verify-each", self.verify_each),
            ("--tune", !self.tune.is_empty()),
        ];
        named(&given)
    }
}

/// The names of those that are given.
fn named(options: &[(&'static str, bool)]) -> Vec<&'static str> {
    options
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name)
        .collect()
}

/// What `--help` says of targets.
fn targets() -> String {
    let names = |targets: &[Target]| targets.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
    format!(
        "Machine to compile for: native (the default), a CPU ({}), its triple, or a GPU for `emit` ({})",
        names(&Target::CPUS),
        names(&Target::GPUS)
    )
}

/// A target by its name, or the plainest one with a triple: this machine where it has that one.
fn target(name: &str) -> Result<Target, String> {
    let native = brolga::codegen::target::native();
    let has_triple = |t: &Target| t.cpu().is_some_and(|c| c.triple == name);
    brolga::codegen::target::by_name(name)
        .or_else(|| native.into_iter().chain(Target::CPUS).find(has_triple))
        .ok_or_else(|| {
            let names: Vec<&str> = Target::all().map(|t| t.name).collect();
            format!("expected native, one of {}, or a CPU's triple", names.join(", "))
        })
}

fn adapter(text: &str) -> Result<(PathBuf, f64), String> {
    match text.rsplit_once('=') {
        None => Ok((text.into(), 1.0)),
        Some((folder, scale)) => match scale.parse::<f64>() {
            Ok(x) if x.is_finite() => Ok((folder.into(), x)),
            // A folder's name may have the sign, too.
            _ if Path::new(text).is_dir() => Ok((text.into(), 1.0)),
            _ => Err("expected FOLDER or FOLDER=SCALE".into()),
        },
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected FIELD=JSON")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn size(text: &str) -> Result<(String, i64), String> {
    let (name, n) = text.split_once('=').ok_or("expected SYMBOL=N")?;
    match n.trim().parse() {
        Ok(n) if n >= 0 => Ok((name.trim().to_owned(), n)),
        _ => Err(format!("`{n}` is no size, expected a number from 0 on")),
    }
}

fn alias(text: &str) -> Result<(String, String), String> {
    let (input, output) = text.split_once('=').ok_or("expected INPUT=OUTPUT")?;
    Ok((input.trim().to_owned(), output.trim().to_owned()))
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("unknown unit `{unit}`, expected K, M, G or T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{digits}` is no number of bytes"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more bytes than 64 bits can count".into())
}

/// A duration for people.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_units() {
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("1024"), Ok(1024));
        assert!(bytes("x").is_err() && bytes("1q").is_err() && bytes("99999999999G").is_err());
        assert_eq!(size("seq=128"), Ok(("seq".into(), 128)));
        assert!(size("seq").is_err() && size("seq=-1").is_err());
    }
}
