//! `brolga bisect`: the first pass, and the first rewrite, that makes a model's results wrong, and the smallest model that shows it.

use super::inputs::{InputArgs, Ports};
use super::kept::Kept;
use super::{CompileArgs, Failure, Outcome, note, print, print_json};
use brolga::abi::Input;
use brolga::bisect::{self, Against, Cause, Found, Looked, Place, WrongRewrite};
use brolga::compile::graph_inputs;
use brolga::ir::{Graph, Strings, Tensor, plain};
use brolga::levels::Module;
use brolga::reduce::Case;
use brolga::source::Kind;
use brolga::{Error, source};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Find the pass and the rewrite that make a model's results wrong
#[derive(Args)]
#[command(after_help = "\
The interpreter of the model as it was imported says what is right. Passes are looked at by the interpreter of the level that they give, by a
binary search; machine code comes last. For `eqsat` the first wrong rewrite is found as well (`eqsat{rewrites=N}` stops after N of them). Then
the model is cut down to what shows the same, and written with its inputs. The interpreters are slow on purpose: they compute every element by
itself.

Without any input, inputs are filled with reproducible pseudo-random numbers; --set then gives symbolic dimensions a size.

Exit status: 0 when machine code gives the right results, 1 when something is wrong, 2 on any error.

Examples:
  brolga bisect model.onnx --inputs inputs.npz
  brolga bisect model.onnx --set batch=1 --rules my-own.rules --unchecked-rules -o wrong.txt")]
pub struct Bisect {
    /// The model: ONNX, a folder of safetensors, a GGUF file, or a tensor graph's text
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    /// The largest error, over the largest magnitude of an output, that is right
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = super::run::tolerance)]
    tolerance: f64,
    /// What the error of an output is measured against: results (its largest magnitude) or values (that of all values of the model, where it
    /// is larger)
    #[arg(long, value_name = "WHAT", default_value = "results")]
    against: Against,
    /// Where the smallest model is written; its inputs stand beside it, in a .npz file
    #[arg(short, long, value_name = "FILE", default_value = "bisected.txt")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compile: CompileArgs,
}

/// The pass without the folding of repeated layers.
const UNFOLDED: &str = "eqsat{fold=off}";

impl Bisect {
    /// Runs the command.
    pub fn run(self) -> Outcome {
        let mut options = self.compile.options_without_reproducers()?;
        if source::kind(&self.model)? == Kind::Folder {
            options.folder.with.extend(self.inputs.optional(&options.folder.with)?);
        }
        let Module::Tensor(graph) = source::model(&self.model, &options)? else {
            let message = "a program, expected a tensor graph: its interpreter says what is right";
            return Err(Error::file(&self.model, message).into());
        };
        let options = options.without_sizes();
        Strings::new(&graph.strings).scope(|| self.search(graph, &options))
    }

    fn search(&self, graph: Graph, options: &brolga::Options) -> Outcome {
        let inputs = self.tensors(&graph)?;
        let machine = bisect::compiled(options);
        let search = bisect::Bisect {
            options,
            tolerance: self.tolerance,
            against: self.against,
            machine: &machine,
        };
        let case = Case {
            graph,
            inputs: Some(inputs),
        };
        let Some(found) = search.search(&case)? else {
            return match self.json {
                true => print_json(&json!({"wrong": Value::Null, "tolerance": self.tolerance})),
                false => print(&format!(
                    "results are right: machine code is within {}\n",
                    self.tolerance
                )),
            };
        };
        if !self.json {
            print(&report(&found))?;
        }
        let kept = self.kept();
        kept.write(&case, "")?;
        let (best, tried) = search.smallest(case, &found, &mut |case, tried| {
            note(&format!(
                "{} still show it; {} candidates tested",
                nodes(case),
                tried.tested
            ));
            kept.write(case, "")
        })?;
        let replay = kept.replay();
        if self.json {
            print_json(&json!({
                "wrong": json_of(&found),
                "tolerance": self.tolerance,
                "smallest": {"file": self.output.display().to_string(), "nodes": best.graph.nodes.len(), "tested": tried.tested},
                "replay": replay,
            }))?;
        } else {
            print(&format!(
                "smallest: {}, in {}\nreplay with: {replay}\n",
                nodes(&best),
                self.output.display()
            ))?;
        }
        Err(Failure::Reported)
    }

    /// The inputs of a graph, in its order.
    fn tensors(&self, graph: &Graph) -> Result<Vec<Tensor>, Failure> {
        let inputs = graph_inputs(graph)?;
        let symbols: Vec<String> = graph.symbols.iter().map(|s| s.to_string()).collect();
        let default = |name: &str| {
            graph
                .defaults
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, c)| c.to_tensor())
        };
        let ports = Ports {
            inputs: &inputs,
            symbols: &symbols,
            has_default: &|i| default(&i.name).is_some(),
        };
        let given = self.inputs.tensors(&ports, &self.compile.model)?;
        if let Some((name, _)) = given.iter().find(|(n, _)| inputs.iter().all(|i| i.name != *n)) {
            let known: Vec<&str> = inputs.iter().map(|i| &*i.name).collect();
            let known = known.join(", ");
            return Err(format!("the model has no input `{}`; it has {known}", plain(name)).into());
        }
        let of = |i: &Input| {
            let found = given.iter().find(|(n, _)| *n == i.name).map(|(_, t)| t.clone());
            found
                .or_else(|| default(&i.name))
                .ok_or_else(|| Failure::from(format!("input `{}` is not given", plain(&i.name))))
        };
        inputs.iter().map(of).collect()
    }

    fn kept(&self) -> Kept<'_> {
        Kept {
            file: &self.output,
            tolerance: self.tolerance,
            against: self.against,
            compile: &self.compile,
        }
    }
}

/// How many nodes a case has, in words.
fn nodes(case: &Case) -> String {
    match case.graph.nodes.len() {
        1 => "1 node".to_owned(),
        n => format!("{n} nodes"),
    }
}

/// What was found, for people.
pub fn report(found: &Found) -> String {
    let line = |l: &Looked| format!("  {}: {}\n", l.at, l.apart);
    let looked: String = found.looked.iter().map(line).collect();
    let cause = match (&found.cause, &found.place) {
        (Some(Cause::Rewrite(r)), _) => wrong_rewrite(r),
        (Some(Cause::Folding), _) => {
            format!("wrong in it: the folding of repeated layers: try {UNFOLDED}, which is right with all rewrites\n")
        }
        (None, Place::Pass { name, .. }) if name == "eqsat" => {
            "no rewrite is to blame: results are wrong without any, too\n".to_owned()
        }
        (None, _) => String::new(),
    };
    format!(
        "errors of results:\n{looked}first wrong: {}: {}\n{cause}",
        found.place, found.apart
    )
}

/// A rewrite that is wrong, for people.
fn wrong_rewrite(r: &WrongRewrite) -> String {
    let names: Vec<String> = r.rewrite.nodes.iter().map(|n| format!("`{}`", plain(n))).collect();
    let nodes = match names.is_empty() {
        true => "nodes without a name".to_owned(),
        false => names.join(", "),
    };
    format!(
        "first wrong rewrite: {} of {}: rule `{}` ({}) at {nodes}\n",
        r.number, r.of, r.rewrite.rule, r.rewrite.origin
    )
}

fn json_of(found: &Found) -> Value {
    let looked = found
        .looked
        .iter()
        .map(|l| json!({"at": l.at.to_string(), "error": l.apart.to_string()}));
    let mut out = json!({
        "at": found.place.to_string(),
        "error": found.apart.to_string(),
        "looked": looked.collect::<Vec<_>>(),
    });
    match &found.cause {
        Some(Cause::Rewrite(r)) => {
            out["rewrite"] = json!({
                "number": r.number, "of": r.of, "rule": r.rewrite.rule, "origin": r.rewrite.origin, "nodes": r.rewrite.nodes,
            });
        }
        Some(Cause::Folding) => out["folding"] = json!({"try": UNFOLDED}),
        None => {}
    }
    out
}
