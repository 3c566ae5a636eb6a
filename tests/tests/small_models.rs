//! The small networks of real architectures, compiled and run: against their references, at every
//! CPU level that this machine has, on one thread and two, through the text of every level, and against the interpreter of
//! programs.

use brolga::levels::{self, Level};
use brolga::output::WeightsIn;
use brolga::{Options, compile, source};
use brolga_ir::{Graph, Tensor, program};
use brolga_tests::{SmallModel, relative_error, run, small_model, targets};

/// The largest error, over the largest magnitude of the reference. The references were computed in f32 by another
/// implementation, which sums in another order; both differ from the real numbers by about 1e-6 of the largest magnitude
/// in these networks. An error in one element shows at 1e-2 and more.
const TOLERANCE: f64 = 2e-5;

fn graph(m: &SmallModel) -> Graph {
    source::graph(&m.path, Options::default().memory_limit).unwrap_or_else(|e| panic!("{e}"))
}

fn check(what: &str, m: &SmallModel, outputs: &[(String, Tensor)]) {
    assert_eq!(outputs.len(), m.outputs.len(), "{what}");
    for (name, found) in outputs {
        let error = relative_error(found, &m.outputs[name]);
        assert!(error <= TOLERANCE, "{what}: output `{name}` is off by {error:e}");
    }
}

/// Against the reference at each CPU level and number of threads; as many threads compile, to the same bytes.
fn references(name: &str) {
    let m = small_model(name);
    let g = graph(&m);
    for target in targets() {
        let mut bytes = vec![];
        let mut results = vec![];
        for threads in [1, 2] {
            let options = Options {
                target: target.clone(),
                threads,
                ..Options::default()
            };
            let what = format!("{name} for {}, {threads} threads", options.target.name);
            let c = compile(&g, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
            bytes.push(c.object(WeightsIn::Object).unwrap_or_else(|e| panic!("{what}: {e}")));
            let session = c
                .session_with(threads, u64::MAX)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let outputs = run(&session, &m.inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
            check(&what, &m, &outputs);
            results.push(outputs);
        }
        assert!(
            bytes[0] == bytes[1],
            "{name}: two threads compile to other bytes than one"
        );
        // Threads share out whole rows of work: they cannot change a bit.
        assert!(results[0] == results[1], "{name}: two threads give other bits than one");
    }
}

/// Each level, printed and read back, goes on to the same object.
fn texts(name: &str) {
    let g = graph(&small_model(name));
    let options = Options::default();
    let object = |c: brolga::Compiled| c.object(WeightsIn::Object).expect("it was made before");
    let straight = object(compile(&g, &options).unwrap_or_else(|e| panic!("{name}: {e}")));
    for level in Level::ALL {
        let c = brolga::compile::compile_through_text(&g, &options, level);
        let through = object(c.unwrap_or_else(|e| panic!("{name}, {level:?}: {e}")));
        assert!(
            straight == through,
            "{name}: the text of level {level:?} gives another object"
        );
    }
}

/// The interpreter of programs on the very program that is compiled: an error of code generation shows as a difference
/// even where the reference's tolerance would hide it.
fn interpreted(name: &str) {
    let m = small_model(name);
    let g = graph(&m);
    let options = Options::default();
    let p = levels::optimise(&g, &options)
        .and_then(|(cut, _)| levels::structured(&cut, &options))
        .and_then(|s| levels::program(&s, &options))
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let inputs: Vec<Tensor> = p.inputs.iter().map(|(n, _)| m.inputs[n].clone()).collect();
    let expected = program::interp::run(&p, &inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
    let session = compile(&g, &options).and_then(|c| c.session_with(1, u64::MAX));
    let found = run(&session.unwrap_or_else(|e| panic!("{name}: {e}")), &m.inputs).expect("it runs");
    for ((n, f), e) in found.iter().zip(&expected) {
        let error = relative_error(f, e);
        // Code may fuse a multiplication with an addition and sum a row in lanes: a few ulp of the largest magnitude.
        assert!(error <= 2e-6, "{name}: output `{n}` is {error:e} off the interpreter's");
    }
    let found: Vec<(String, Tensor)> = p.outputs.iter().map(|(n, _)| n.clone()).zip(expected).collect();
    check(&format!("{name}, interpreted"), &m, &found);
}

macro_rules! models {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn matches_its_reference_everywhere() {
                super::references(stringify!($name));
            }
            #[test]
            fn survives_the_text_of_every_level() {
                super::texts(stringify!($name));
            }
            #[test]
            fn agrees_with_the_interpreter_of_programs() {
                super::interpreted(stringify!($name));
            }
        }
    )*
        #[test]
        fn no_model_is_left_out() {
            assert_eq!([$(stringify!($name)),*], brolga_tests::SMALL_MODELS);
        }
    };
}
models! {
    mlp resnet mobilenet efficientnet densenet inception unet convnext vit swin bert bert_dyn gpt2 llama whisper t5 tcn
    detector generator video moe
}

/// Those with recurrent layers, control flow, halves and bytes: the interpreter of the tensor IR, and code with one thread and two. Results of
/// the last two differ from ONNX Runtime's as roundings of bytes do.
#[test]
fn recurrent_branching_and_quantised() {
    let all = [
        ("lstm", TOLERANCE),
        ("gru", TOLERANCE),
        ("seq2seq", TOLERANCE),
        ("control", TOLERANCE),
        // Eight units of f16: of many layers, each is rounded once.
        ("resnet_f16", 4e-3),
        ("resnet_int8", 0.05),
        ("bert_int8", 0.05),
    ];
    for (name, tolerance) in all {
        let m = small_model(name);
        let g = graph(&m);
        let check = |what: &str, outputs: &[(String, Tensor)]| {
            assert_eq!(outputs.len(), m.outputs.len(), "{what}");
            for (n, found) in outputs {
                let error = relative_error(found, &m.outputs[n]);
                assert!(error <= tolerance, "{what}: output `{n}` is off by {error:e}");
            }
        };
        let inputs: Vec<Tensor> = g.inputs.iter().map(|i| m.inputs[&i.name].clone()).collect();
        let evaluated = g.eval(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        let names = g.outputs.iter().map(|(n, _)| n.clone());
        check(&format!("{name}, evaluated"), &names.zip(evaluated).collect::<Vec<_>>());
        for threads in [1, 2] {
            let session = compile(&g, &Options::default()).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.unwrap_or_else(|e| panic!("{name}: {e}"));
            let outputs = run(&session, &m.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
            check(&format!("{name}, {threads} threads"), &outputs);
        }
    }
}
