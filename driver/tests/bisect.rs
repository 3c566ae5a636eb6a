//! `brolga bisect`, shown on planted faults: in a pass, in a rule, in lowering, in code generation.

mod common;

use brolga::bisect::{Against, Bisect, Cause, Found, Machine, Place, compiled};
use brolga::ir::{Graph, NodeError, Number, Op, Tensor};
use brolga::levels::Module;
use brolga::passes::descend::Lower;
use brolga::passes::eqsat::EqSat;
use brolga::passes::pass::{Context, NoFiles, Pass, PassError, Setting, Settings, TensorPass};
use brolga::passes::registry::Registry;
use brolga::reduce::Case;
use brolga::{Options, npy};
use common::{brolga, json};

/// The graph in which every `tanh` is a `sigmoid`.
fn mistaken(g: &Graph) -> Result<Graph, NodeError> {
    g.rewrite(|out, node, inputs| {
        let op = match node.op.name() {
            "tanh" => Op::new("sigmoid", &[])?,
            _ => node.op.clone(),
        };
        out.add(op, inputs, &node.origin).map_err(|e| e.message)
    })
}

/// A pass over graphs that is wrong.
#[derive(Default)]
struct WrongPass;

impl Settings for WrongPass {
    const NAME: &'static str = "planted";
    const SUMMARY: &'static str = "is wrong";
    const SETTINGS: &'static [Setting<WrongPass>] = &[];
}

impl TensorPass for WrongPass {
    fn rewrite(&self, g: &Graph, _: &mut Context) -> Result<Graph, NodeError> {
        mistaken(g)
    }
}

/// A lowering that is wrong.
#[derive(Default)]
struct WrongLower;

impl Settings for WrongLower {
    const NAME: &'static str = "lower";
    const SUMMARY: &'static str = "is wrong";
    const SETTINGS: &'static [Setting<WrongLower>] = &[];
}

impl Pass for WrongLower {
    fn name(&self) -> &'static str {
        WrongLower::NAME
    }
    fn options(&self) -> String {
        self.given()
    }
    fn run(&self, m: Module, cx: &mut Context) -> Result<Module, PassError> {
        let Module::Tensor(g) = m else { return Lower.run(m, cx) };
        let g = mistaken(&g).map_err(|e| PassError::at(Self::NAME, e))?;
        Lower.run(Module::Tensor(g), cx)
    }
}

/// The pass with rules, which is wrong where it folds layers.
#[derive(Default)]
struct WrongFolding {
    given: Vec<(String, String)>,
}

impl Settings for WrongFolding {
    const NAME: &'static str = EqSat::NAME;
    const SUMMARY: &'static str = "is wrong";
    const SETTINGS: &'static [Setting<WrongFolding>] = &[];

    fn set_other(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.given.push((name.to_owned(), value.to_owned()));
        Ok(())
    }
    fn others(&self) -> Vec<String> {
        self.given
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

impl TensorPass for WrongFolding {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        let fail = |message| NodeError {
            node: String::new(),
            message,
        };
        let given = EqSat::with(&self.given, &NoFiles).map_err(fail)?;
        let out = given.rewrite(g, cx)?;
        match cx.remarks.iter().any(|r| r.starts_with("eqsat: folded: ")) {
            true => mistaken(&out),
            false => Ok(out),
        }
    }
}

/// A graph of many layers, in the middle of which is one `tanh`, called `the_tanh`.
fn model(layers: usize) -> Graph {
    let mut text = "graph @deep(%0 x: f32[4, 8]) {\n  %1 = const f32[8, 8] splat 0.125\n".to_owned();
    let mut last = 0;
    for layer in 0..layers {
        let (n, middle) = (2 + 3 * layer, layer == layers / 2);
        let (function, name) = if middle {
            ("tanh", "the_tanh".to_owned())
        } else {
            ("relu", format!("relu_{layer}"))
        };
        let product = "contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}";
        text += &format!("  %{n} = {product}(%{last}, %1) @\"product_{layer}\"\n");
        text += &format!("  %{} = {function}(%{n}) @\"{name}\"\n", n + 1);
        text += &format!("  %{} = add(%{}, %{last}) @\"sum_{layer}\"\n", n + 2, n + 1);
        last = n + 2;
    }
    text += &format!("  return y = %{last}\n}}");
    parsed(&text)
}

fn parsed(text: &str) -> Graph {
    Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

fn case(layers: usize) -> Case {
    let numbers = (0..32).map(|i| (i * 7 % 23) as f32 / 23.0 - 0.4).collect::<Vec<_>>();
    Case {
        graph: model(layers),
        inputs: Some(vec![Tensor::from_f32(&[4, 8], &numbers)]),
    }
}

fn bisect<'a>(options: &'a Options, machine: Machine<'a>) -> Bisect<'a> {
    Bisect {
        options,
        tolerance: 1e-4,
        against: Against::Results,
        machine,
    }
}

/// What is found, and the smallest case that shows it.
fn found(search: &Bisect) -> (Found, Case) {
    let found = search
        .search(&case(9))
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("a fault is planted");
    let smallest = search.smallest(case(9), &found, &mut |_, _| Ok(()));
    let (smallest, _) = smallest.unwrap_or_else(|e| panic!("{e}"));
    // It shows the same by itself.
    let again = search
        .search(&smallest)
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("it shows it");
    assert_eq!(again.place, found.place);
    (found, smallest)
}

fn names(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.name()).collect()
}

#[test]
fn a_fault_in_a_pass_is_found() {
    let options = Options {
        registry: Registry::default().with::<WrongPass>(),
        pipeline: Some("canonicalize,planted,eqsat".into()),
        ..Options::default()
    };
    let machine = compiled(&options);
    let (found, smallest) = found(&bisect(&options, &machine));
    assert_eq!(
        found.place,
        Place::Pass {
            number: 1,
            name: "planted".into()
        }
    );
    assert_eq!(found.cause, None);
    assert_eq!(names(&smallest.graph), ["tanh"]);
    assert_eq!(&*smallest.graph.nodes[0].origin, "the_tanh");
}

#[test]
fn a_fault_in_folding_accuses_no_rewrite() {
    let options = Options {
        registry: Registry::default().with::<WrongFolding>(),
        ..Options::default()
    };
    let machine = compiled(&options);
    let search = bisect(&options, &machine);
    let alike = Case {
        graph: parsed(&model(6).to_string().replace("= relu(", "= tanh(")),
        ..case(6)
    };
    let found = search.search(&alike).unwrap_or_else(|e| panic!("{e}"));
    let found = found.expect("a fault is planted");
    assert_eq!(found.place.to_string(), "pass `eqsat`");
    assert_eq!(found.cause, Some(Cause::Folding));
    // What is left still has layers to fold.
    let smallest = search.smallest(alike, &found, &mut |_, _| Ok(()));
    let (smallest, _) = smallest.unwrap_or_else(|e| panic!("{e}"));
    let again = search.search(&smallest).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.expect("it shows it").cause, Some(Cause::Folding));
    assert!(smallest.graph.nodes.len() > 1, "{}", smallest.graph);
}

#[test]
fn a_fault_in_lowering_is_found() {
    let options = Options {
        registry: Registry::default().with::<WrongLower>(),
        ..Options::default()
    };
    let machine = compiled(&options);
    let (found, smallest) = found(&bisect(&options, &machine));
    assert_eq!(found.place.to_string(), "pass `lower`");
    assert_eq!(names(&smallest.graph), ["tanh"]);
}

#[test]
fn a_fault_in_code_generation_is_found() {
    let options = Options::default();
    let right = compiled(&options);
    // Of programs with a kernel of that name, machine code adds one to the first number.
    let machine = |m: &Module, inputs: &[Tensor]| {
        let mut found = right(m, inputs)?;
        if m.to_string().contains("tanh") {
            let t = found[0].clone();
            let wrong = |i: usize| Number::Float(t.get(i).f64() + if i == 0 { 1.0 } else { 0.0 });
            found[0] = Tensor::from_fn(t.dtype(), t.shape(), wrong);
        }
        Ok(found)
    };
    let (found, smallest) = found(&bisect(&options, &machine));
    assert_eq!(found.place, Place::Code);
    assert_eq!(names(&smallest.graph), ["tanh"]);
}

#[test]
fn a_pass_that_fails_is_found_too() {
    #[derive(Default)]
    struct Panics;
    impl Settings for Panics {
        const NAME: &'static str = "planted";
        const SUMMARY: &'static str = "panics at a tanh";
        const SETTINGS: &'static [Setting<Panics>] = &[];
    }
    impl TensorPass for Panics {
        fn rewrite(&self, g: &Graph, _: &mut Context) -> Result<Graph, NodeError> {
            assert!(!names(g).contains(&"tanh"), "planted");
            Ok(g.clone())
        }
    }
    let options = Options {
        registry: Registry::default().with::<Panics>(),
        pipeline: Some("canonicalize,planted,eqsat".into()),
        ..Options::default()
    };
    let machine = compiled(&options);
    let (found, smallest) = found(&bisect(&options, &machine));
    assert_eq!(found.place.to_string(), "pass `planted`");
    assert_eq!(found.apart.to_string(), "panicked: planted");
    assert_eq!(names(&smallest.graph), ["tanh"]);
}

#[test]
fn code_that_panics_is_a_fault_too() {
    let options = Options::default();
    let machine = |_: &Module, _: &[Tensor]| panic!("planted");
    let search = bisect(&options, &machine);
    let found = search
        .search(&case(2))
        .unwrap_or_else(|e| panic!("{e}"))
        .expect("a fault is planted");
    assert_eq!(
        (found.place, found.apart.to_string().as_str()),
        (Place::Code, "panicked: planted")
    );
}

#[test]
fn a_wrong_rule_is_named_with_its_rewrite_and_node() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("deep.txt"), case(9).graph.to_string()).expect("a file is written");
    let inputs = case(9).inputs.expect("they are told").remove(0);
    npy::write_npz(&at("in.npz"), &[("x".into(), inputs)]).expect("a file is written");
    std::fs::write(
        at("wrong.rules"),
        "rule wrong-tanh [exact]\n  (tanh ?x) => (sigmoid ?x)\nrule worse-tanh [exact]\n  (sigmoid ?x) => (neg ?x)\n",
    )
    .expect("a file is written");
    let rules = ["--add-rules", "wrong.rules", "--unchecked-rules"];
    let command = [&["bisect", "deep.txt", "--inputs", "in.npz"][..], &rules].concat();
    let ran = brolga(dir.path(), &[&command[..], &["--json"]].concat());
    assert_eq!(ran.status, 1, "{}", ran.err);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("it is JSON");
    let wrong = &report["wrong"];
    assert_eq!(wrong["at"], "pass `eqsat`", "{report:#}");
    let rewrite = &wrong["rewrite"];
    assert_eq!(
        rewrite["origin"].as_str().map(|o| o.starts_with("wrong.rules:")),
        Some(true),
        "{report:#}"
    );
    assert_eq!(rewrite["nodes"], serde_json::json!(["the_tanh"]), "{report:#}");
    let number = rewrite["number"].as_u64().expect("a number");
    assert!(
        number >= 1 && number <= rewrite["of"].as_u64().expect("a number"),
        "{report:#}"
    );
    assert_eq!(report["smallest"]["nodes"], 1, "{report:#}");
    // With one rewrite less results are right, with that one they are not.
    for (limit, status) in [(number - 1, 0), (number, 1)] {
        let eqsat = format!("eqsat{{rewrites={limit} add=wrong.rules}}");
        let pipeline = format!("canonicalize,prune,{eqsat}");
        let args = [
            "bisect",
            "deep.txt",
            "--inputs",
            "in.npz",
            "--unchecked-rules",
            "--pipeline",
            &pipeline,
            "-o",
            "again.txt",
        ];
        let ran = brolga(dir.path(), &args);
        assert_eq!(ran.status, status, "{limit}: {}{}", ran.out, ran.err);
    }
    // The command that is told shows it again, from the files that were written.
    let replay = report["replay"].as_str().expect("a command");
    let words: Vec<&str> = replay.split(' ').skip(1).collect();
    let ran = brolga(dir.path(), &words);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(
        ran.out.contains("first wrong: pass `eqsat`") && ran.out.contains("first wrong rewrite: "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("at `the_tanh`\n"), "{}", ran.out);
    // Without the rules nothing is wrong.
    let right = json(dir.path(), &["bisect", "deep.txt", "--inputs", "in.npz", "--json"]);
    assert_eq!(right["wrong"], serde_json::Value::Null);
}

#[test]
fn inputs_are_checked() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(dir.path().join("deep.txt"), model(1).to_string()).expect("a file is written");
    let wrong = Tensor::from_f32(&[2], &[0.0, 1.0]);
    npy::write_npz(&dir.path().join("in.npz"), &[("y".into(), wrong.clone())]).expect("a file is written");
    let ran = brolga(dir.path(), &["bisect", "deep.txt", "--inputs", "in.npz"]);
    assert!(
        ran.status == 2 && ran.err.contains("the model has no input `y`; it has x"),
        "{}",
        ran.err
    );
    npy::write_npz(&dir.path().join("in.npz"), &[("x".into(), wrong)]).expect("a file is written");
    let ran = brolga(dir.path(), &["bisect", "deep.txt", "--inputs", "in.npz"]);
    assert!(
        ran.status == 2 && ran.err.contains("input `x` is f32[2], expected f32[4, 8]"),
        "{}",
        ran.err
    );
}
