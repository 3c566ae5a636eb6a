//! Strings at the edges of programs: given and read by name, through artefacts and the text of every level, without growth from run to run.

use brolga::compile::compile_through_text;
use brolga::levels::Level;
use brolga::output::WeightsIn;
use brolga::{Options, Session, compile, source, tensors};
use brolga_ir::{Graph, Strings, Tensor};
use brolga_tests::{data, npz};
use std::path::PathBuf;

/// A model that changes letters and leaves words out.
fn normalizer() -> PathBuf {
    data("onnx-node").join("node/test_strnormalizer_export_monday_casesensintive_upper/model.onnx")
}

fn graph(path: &std::path::Path) -> Graph {
    source::graph(path, Options::default().memory_limit).unwrap_or_else(|e| panic!("{e}"))
}

fn upper(session: &Session, words: [&str; 4]) -> (Vec<String>, usize) {
    let strings = session.strings();
    let given = strings.tensor(&[4], &words).unwrap();
    let outputs = strings.scope(|| session.run(&[tensors::view(&given)])).unwrap();
    let texts = strings.texts(&tensors::to_tensor(&outputs[0])).unwrap();
    (texts.iter().map(|s| s.to_string()).collect(), strings.all().len())
}

#[test]
fn runs_leave_nothing_behind() {
    let session = compile(&graph(&normalizer()), &Options::default())
        .and_then(|c| c.session())
        .unwrap();
    let known = session.strings().all().len();
    let (texts, first) = upper(&session, ["monday", "tuesday", "é", "thursday"]);
    assert_eq!(texts, ["TUESDAY", "É", "THURSDAY"]);
    let (texts, second) = upper(&session, ["monday", "a", "b", "c"]);
    assert_eq!(texts, ["A", "B", "C"]);
    assert_eq!(session.strings().all().len(), known);
    // What a run makes is there with it only: as many strings each time.
    assert!(first > known && first == second, "{known}, {first}, {second}");
    let (texts, _) = upper(&session, ["monday"; 4]);
    assert_eq!(texts, [""]);
}

#[test]
fn who_holds_no_strings_is_told() {
    let session = compile(&graph(&normalizer()), &Options::default())
        .and_then(|c| c.session())
        .unwrap();
    let given = session.strings().tensor(&[4], &["a", "b", "c", "d"]).unwrap();
    let error = session.run(&[tensors::view(&given)]).unwrap_err().to_string();
    assert!(error.contains("nobody holds them"), "{error}");
}

#[test]
fn artefacts_and_texts_know_the_programs_strings() {
    let g = graph(&normalizer());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.brolga");
    compile(&g, &Options::default())
        .and_then(|c| c.write_artefact(&path))
        .unwrap();
    let words = ["monday", "tuesday", "wednesday", "thursday"];
    let wanted = ["TUESDAY", "WEDNESDAY", "THURSDAY"];
    assert_eq!(upper(&Session::load(&path).unwrap(), words).0, wanted);
    for level in Level::ALL {
        let session = compile_through_text(&g, &Options::default(), level).and_then(|c| c.session());
        let session = session.unwrap_or_else(|e| panic!("{level:?}: {e}"));
        assert_eq!(upper(&session, words).0, wanted, "{level:?}");
    }
}

/// What is looked up among known strings needs no host; a C caller finds their numbers in the header.
#[test]
fn headers_list_the_strings() {
    let dir = data("classical-models");
    let g = graph(&dir.join("case_category_strings.onnx"));
    let c = compile(&g, &Options::default()).unwrap();
    assert!(c.meta.host_ops.is_empty());
    let header = c.header(WeightsIn::Object);
    let strings = Strings::new(&g.strings);
    for s in ["monday", "Tuesday", "été"] {
        let line = header
            .lines()
            .find(|l| l.contains(&format!("_STRING_{} ", strings.number(s))));
        assert!(line.is_some(), "no line for `{s}` in {header}");
    }
    assert!(header.contains("BROLGA_STR\n"), "{header}");
    let session = c.session().unwrap();
    let given = strings.scope(|| npz(&dir.join("case_category_strings.in.npz")));
    let wanted: Vec<Tensor> = npz(&dir.join("case_category_strings.ref.npz")).into_values().collect();
    let found = session.run(&[tensors::view(&given["X"])]).unwrap();
    assert_eq!(found.iter().map(tensors::to_tensor).collect::<Vec<_>>(), wanted);
}
