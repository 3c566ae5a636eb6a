//! `brolga reduce`: the smallest model for which a user's script says yes.

use super::{ModelArgs, Outcome, note, print_json};
use brolga::levels::Module;
use brolga::reduce::{Case, Tried, Weight, reduce};
use brolga::{Error, output, source};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Shrink a model as long as a script says that it still shows something
#[derive(Args)]
#[command(after_help = "\
The script is started with a candidate's file as its last argument, in the current folder. Exit status 0 says that the candidate is still
interesting; any other status, or no end within --timeout, that it is not. (So of llvm-reduce and C-Reduce.) What it prints is not shown.

The result is text IR. The best so far is in the file of -o at any time: whoever interrupts loses nothing.

Exit status: 0 when nothing more can go, 2 on any error, and when the model is not interesting to begin with.

Examples:
  brolga reduce model.onnx --test ./fails.sh -o small.txt
  brolga reduce model.onnx --test grep --test-arg=-q --test-arg 'max_pool\\|pool{' -o small.txt")]
pub struct Reduce {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or a tensor graph's text
    model: PathBuf,
    /// The program that says whether a candidate is interesting
    #[arg(long, value_name = "SCRIPT")]
    test: PathBuf,
    /// An argument before the candidate's file (may be repeated)
    #[arg(long = "test-arg", value_name = "ARG", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// Where the best model is kept
    #[arg(short, long, value_name = "FILE", default_value = "reduced.txt")]
    output: PathBuf,
    /// Seconds that the program may take
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: ModelArgs,
}

impl Reduce {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let options = self.options.options()?;
        let Module::Tensor(graph) = source::model(&self.model, &options)? else {
            let message = "a program, expected a tensor graph: models are reduced before they are lowered";
            return Err(Error::file(&self.model, message).into());
        };
        let before = Weight::of(&graph);
        let folder = tempfile::tempdir()?;
        let candidate = folder.path().join("candidate.txt");
        let mut test = |case: &Case| {
            std::fs::write(&candidate, case.graph.to_string()).map_err(|e| Error::io(&candidate, e))?;
            self.accepts(&candidate)
        };
        let case = Case { graph, inputs: None };
        if !test(&case)? {
            let message = format!("not interesting to begin with: {} says no", self.test.display());
            return Err(Error::file(&self.model, message).into());
        }
        let keep = |case: &Case| output::write(&self.output, case.graph.to_string().as_bytes()).map(|_| ());
        keep(&case)?;
        let (best, tried) = reduce(case, &mut test, &mut |case, tried| {
            let w = Weight::of(&case.graph);
            note(&format!("{}; {} candidates tested", size(w), tried.tested));
            keep(case)
        })?;
        let after = Weight::of(&best.graph);
        if self.json {
            return print_json(&self.report(before, after, tried));
        }
        note(&format!(
            "{}: {}, of {}; {} of {} candidates were interesting",
            self.output.display(),
            size(after),
            size(before),
            tried.taken,
            tried.tested
        ));
        Ok(())
    }

    fn report(&self, before: Weight, after: Weight, tried: Tried) -> serde_json::Value {
        let weight = |w: Weight| json!({"nodes": w.nodes, "inputs": w.inputs, "outputs": w.outputs});
        json!({
            "output": self.output.display().to_string(),
            "before": weight(before),
            "after": weight(after),
            "tested": tried.tested,
            "interesting": tried.taken,
        })
    }

    /// Whether the program says yes to a candidate.
    fn accepts(&self, candidate: &Path) -> brolga::Result<bool> {
        let fail = |e| Error::io(&self.test, e);
        let mut child = Command::new(&self.test)
            .args(&self.arguments)
            .arg(candidate)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(fail)?;
        ends_well(&mut child, Duration::from_secs(self.timeout)).map_err(fail)
    }
}

/// Waits for a process; whether it ended in time, with status 0.
fn ends_well(child: &mut Child, timeout: Duration) -> std::io::Result<bool> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What people are told of a model's size.
fn size(w: Weight) -> String {
    let many = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    [
        many(w.nodes, "node"),
        many(w.inputs, "input"),
        many(w.outputs, "output"),
    ]
    .join(", ")
}
