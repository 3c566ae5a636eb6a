//! Decisions about a whole program: they are listed, taken by hand, searched, recorded, taken again where they are of this machine and
//! give the program that was timed, and refused with a word elsewhere.

mod common;

use brolga::Options;
use brolga::ir::Target;
use brolga::levels::Module;
use brolga::passes::eqsat::Decision;
use brolga::profile::inside::Inside;
use brolga::tune::programs::{Program, Search, key};
use brolga::tune::record::{Choice, Line, Log, Place};
use brolga::tune::{Model, Settings};
use common::{arg, digits, json, ok};
use std::path::Path;
use std::time::{Duration, Instant};

fn native() -> Target {
    brolga::codegen::target::native().expect("tests run where there is code")
}

fn model() -> (Module, Options) {
    let options = Options::default();
    (brolga::source::model(&digits(), &options).expect("a model"), options)
}

/// A decision that gives other kernels, by the text of `brolga space`.
fn other(dir: &Path) -> Decision {
    let model = digits();
    let listed = json(dir, &["space", arg(&model), "--json"]);
    let rows = listed.as_array().expect("rows");
    assert!(rows.len() > 5, "{listed:#}");
    assert!(rows.iter().all(|r| r["seconds"].is_f64() && r["about"].is_string()));
    let kept = rows.iter().filter_map(|r| r["decisions"][0].as_str());
    let text = kept.filter(|d| d.starts_with("keep")).find(|d| d.contains("Gemm"));
    text.expect("a product may be stored")
        .parse()
        .expect("it is a decision")
}

#[test]
fn decisions_are_taken_by_hand() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dir, model) = (dir.path(), digits());
    let decision = other(dir);
    let text = format!("// by hand\n{decision}\nlast \"nothing\"\ncompute \"nothing\" by \"conv\"\n");
    std::fs::write(dir.join("decisions.txt"), text).expect("room");
    let opt = |pipeline: &str| ok(dir, &["opt", arg(&model), "--pipeline", pipeline, "--remarks"]);
    let (as_it_is, decided) = (
        opt("canonicalize,eqsat"),
        opt("canonicalize,eqsat{decide=decisions.txt}"),
    );
    let stores = |text: &str| text.matches("= store").count();
    assert_eq!(stores(&decided.out), stores(&as_it_is.out) + 1);
    assert!(
        decided.err.contains(&format!("{decision}: decided, +")),
        "{}",
        decided.err
    );
    for missed in [
        "last \"nothing\": not taken: nothing of that name is stored",
        "compute \"nothing\" by \"conv\": not taken: there is no value of that name",
    ] {
        assert!(decided.err.contains(missed), "{}", decided.err);
    }
    std::fs::write(dir.join("bad.txt"), "inline \"a\"\nfuse \"b\"\n").expect("room");
    let pipeline = "canonicalize,eqsat{decide=bad.txt}";
    let bad = common::brolga(dir, &["opt", arg(&model), "--pipeline", pipeline]);
    assert_eq!(bad.status, 2);
    assert!(
        bad.err.contains("bad.txt:2:1: found `fuse`, expected inline"),
        "{}",
        bad.err
    );
}

#[test]
fn recorded_decisions_are_taken_where_they_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (dir, path) = (dir.path(), digits());
    let decision = other(dir);
    let (module, options) = model();
    let program = Program::of(&module, &options, vec![decision.clone()]).expect("it can be taken");
    let (graph, own) = program.keys.clone().expect("it was a graph");
    let record = |cpu: Option<&str>, program: &str| {
        let mut place = Place::here(&native(), 2);
        place.cpu = cpu.map_or(place.cpu, str::to_owned);
        let choice = Choice {
            graph: graph.clone(),
            decisions: vec![decision.to_string()],
            program: program.to_owned(),
            ratio: 0.9,
        };
        let line = Line::Graph(place, choice);
        assert_eq!(Line::parse(&line.text()).as_ref(), Ok(&line));
        let log = Log { lines: vec![line] };
        std::fs::write(dir.join("model.tune"), log.text()).expect("room");
    };
    let compile = |out: &str| {
        let all = ["compile", arg(&path), "--tune", "model.tune", "-o", out, "--remarks"];
        let said = ok(dir, &all).err;
        (said, std::fs::read(dir.join(out)).expect("an object"))
    };
    record(None, &own);
    let (said, bytes) = compile("a.o");
    assert!(
        said.contains("; 1 of 1 decisions about the program are taken"),
        "{said}"
    );
    assert!(said.contains(&format!("{decision}: decided, ")), "{said}");
    assert_eq!(compile("b.o").1, bytes, "the same records give the same bytes");
    ok(dir, &["compile", arg(&path), "-o", "plain.o"]);
    let plain = std::fs::read(dir.join("plain.o")).expect("an object");
    assert!(bytes != plain, "it is another program");

    // On another machine nothing of it is taken, and it is said.
    record(Some("another CPU"), &own);
    let (said, bytes) = compile("c.o");
    assert!(
        said.contains("what was decided about the program was for another machine"),
        "{said}"
    );
    assert_eq!(bytes, plain);

    // Nor where something else comes of it.
    record(None, &graph);
    let (said, bytes) = compile("d.o");
    assert!(
        said.contains("; 0 of 1 decisions about the program are taken"),
        "{said}"
    );
    assert!(
        said.contains("not taken: the program that comes of it is not the one that was meant"),
        "{said}"
    );
    assert_eq!(bytes, plain);
}

#[test]
fn graphs_of_other_weights_have_the_same_key() {
    let (module, _) = model();
    let Module::Tensor(mut g) = module else {
        panic!("a graph")
    };
    let before = key(&g);
    assert_eq!(before.len(), 32);
    g.name = "other".into();
    let large = g.constants.iter_mut().find(|c| c.ty.len().as_const() > Some(16));
    let large = large.expect("weights");
    let shape = brolga::ir::dim::constants(&large.ty.shape).expect("known");
    let zeros = brolga::ir::Tensor::from_fn(large.ty.dtype, &shape, |_| brolga::ir::Number::Int(0));
    large.data = brolga::ir::ConstData::Dense(zeros);
    assert_eq!(key(&g), before);
    g.inputs[0].name = "another".into();
    assert_ne!(key(&g), before);
}

/// Where one kernel is said to take next to nothing, the decision that brings it is taken, and no other.
#[test]
fn programs_of_faster_kernels_are_found() {
    let (module, options) = model();
    let settings = Settings {
        sizes: vec![("batch".into(), 1)],
        ..Settings::default()
    };
    let alternatives = Model::read(&digits(), &options, &settings)
        .and_then(|m| m.alternatives())
        .expect("alternatives");
    let base = Program::of(&module, &options, vec![]).expect("a program");
    let search = |until: Duration| Search {
        module: &module,
        options: &options,
        predict: &|_| Some(1.0),
        until: Instant::now() + until,
        whole: 20.0,
    };
    let long = Duration::from_secs(600);
    // Every kernel takes a second: only programs of fewer calls gain, and there are none.
    let none = search(long).run(&base, &alternatives, vec![], &mut |_| Some(1.0), &mut |_| true);
    assert!(none.iter().all(|t| t.gain > 0.0), "{none:?}");
    let fewer = none.len();
    // Without time nothing is tried.
    let late = search(Duration::ZERO).run(&base, &alternatives, vec![], &mut |_| Some(1.0), &mut |_| true);
    assert!(late.is_empty(), "{late:?}");
    // All that are new take nothing.
    let known: Vec<String> = base.kernels().map(|f| f.workload.key()).collect();
    let mut seconds = |f: &brolga::kernels::Found| {
        let new = !known.contains(&f.workload.key());
        Some(if new { 0.001 } else { 1.0 })
    };
    let found = search(long).run(&base, &alternatives, vec![], &mut seconds, &mut |_| true);
    assert!(found.len() > fewer, "{found:?}");
    let all = found.iter().flat_map(|t| t.decisions.clone()).collect();
    let other = Program::of(&module, &options, all).expect("they can be taken together");
    assert!(other.kernels().any(|f| !known.contains(&f.workload.key())));
}

#[test]
fn kernels_are_timed_inside_of_models() {
    let (module, options) = model();
    let program = Program::of(&module, &options, vec![]).expect("a program");
    let inside = Inside::new(&program.structured, &options, 1).expect("code");
    let (images, _) = common::images();
    let first = images.shape()[1..].iter().product::<usize>();
    let one = brolga::ir::Tensor::from_fn(images.dtype(), &[&[1], &images.shape()[1..]].concat(), |i| {
        images.get(i)
    });
    assert_eq!(one.len(), first);
    let name = inside.session().inputs()[0].name.clone();
    let seconds = inside.run(&[(&name, brolga::tensors::view(&one))]).expect("a run");
    assert_eq!(seconds.len(), program.structured.kernels.len());
    let timed = program.kernels().filter(|f| seconds[f.kernel] > 0.0).count();
    assert!(timed + 1 >= program.kernels().count(), "{seconds:?}");
}
