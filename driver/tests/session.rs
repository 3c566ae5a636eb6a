//! Sessions: shared between threads, several at once, loaded and dropped, cached; constants evaluated once.

mod common;

use brolga::ir::Graph;
use brolga::output::WeightsIn;
use brolga::passes::eqsat::Fp;
use brolga::{Error, Options, Session, Specialise, View, compile};
use common::digits;

/// A small model with a weight that is used twice under two names, and one that only packing reads.
const TWINS: &str = "graph @twins(%0 x: f32[n, 4]) {
  %1 = const f32[4, 2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %2 = const f32[4, 2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %3 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
  %4 = exp(%0)
  %5 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%4, %2)
  %6 = add(%3, %5)
  return y = %6
}";

fn graph(text: &str) -> Graph {
    Graph::parse(text, &|_| None).expect("the graph is valid")
}

#[test]
fn runs_of_one_session_may_overlap() {
    fn shared<T: Send + Sync>(_: &T) {}
    let session = Session::options()
        .threads(2)
        .load(digits())
        .expect("the model is in the repository");
    shared(&session);
    let images: Vec<f32> = (0..64 * 8).map(|i| (i % 17) as f32 / 17.0).collect();
    let shape = [8, 1, 8, 8];
    let run = || {
        session.run(&[View::of(&images, &shape)]).expect("the input fits")[0]
            .bytes()
            .to_vec()
    };
    let alone = run();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..5).map(|_| run()).collect::<Vec<_>>()))
            .collect();
        for thread in all {
            assert!(
                thread
                    .join()
                    .expect("no thread panics")
                    .iter()
                    .all(|bytes| *bytes == alone)
            );
        }
    });
    let other = Session::options()
        .threads(1)
        .load(digits())
        .expect("the model is in the repository");
    assert_eq!(
        other.run(&[View::of(&images, &shape)]).expect("the input fits")[0].bytes(),
        alone
    );
}

#[test]
fn equal_constants_are_computed_and_stored_once() {
    let c = compile(&graph(TWINS), &Options::default()).expect("it compiles");
    // One panel of 4 x 32 floats for both products; the weights themselves are gone.
    assert_eq!(c.packed.bytes().len(), 4 * 32 * 4);
    let session = c.session().expect("it runs here");
    let x = [1.0f32, 0.0, 0.0, 0.0];
    let y = session.run(&[View::of(&x, &[1, 4])]).expect("the input fits");
    let e = 1f32.exp();
    let expected = [1.0 + e + 3.0 + 5.0 + 7.0, 2.0 + 2.0 * e + 4.0 + 6.0 + 8.0];
    for (got, want) in y[0].as_slice::<f32>().expect("it is f32").iter().zip(expected) {
        assert!((got - want).abs() < 1e-4, "{got} is not {want}");
    }
}

#[test]
fn constants_keep_to_the_memory_limit() {
    let options = Options {
        memory_limit: 256,
        ..Options::default()
    };
    let error = compile(&graph(TWINS), &options).expect_err("a panel has 512 bytes");
    assert!(matches!(error, Error::MemoryLimit { limit: 256, .. }), "{error}");
}

#[test]
fn sizes_make_a_program_for_one_shape() {
    let options = Options {
        sizes: vec![("n".into(), 3)],
        ..Options::default()
    };
    let session = compile(&graph(TWINS), &options)
        .and_then(|c| c.session())
        .expect("it runs here");
    assert!(session.meta().symbols.is_empty());
    let error = session
        .run(&[View::of(&[0.0f32; 8], &[2, 4])])
        .expect_err("only three rows fit");
    assert!(
        error
            .to_string()
            .contains("input `x` has shape [2, 4], expected [3, 4]"),
        "{error}"
    );
    let unknown = Options {
        sizes: vec![("m".into(), 3)],
        ..Options::default()
    };
    let error = compile(&graph(TWINS), &unknown).expect_err("there is no `m`");
    assert!(
        error.to_string().contains("no symbolic dimension `m`; it has `n`"),
        "{error}"
    );
}

/// `b` is what the caller gives, or what the model says.
const DEFAULT: &str =
    "graph @biased(%0 x: f32[n, 2], %1 b: f32[2], %2 z: f32[2]) symbols(n) defaults(b = f32[2] [10.0, 20.0]) {
  %3 = reshape{shape=[1, 2]}(%1)
  %4 = broadcast{shape=[n, 2]}(%3)
  %5 = add(%0, %4)
  %6 = mul(%1, %2)
  return y = %5, w = %6, b = %1
}";

#[test]
fn defaults_stand_for_inputs_that_are_not_given() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let artefact = folder.path().join("biased.brolga");
    let compiled = compile(&graph(DEFAULT), &Options::default()).expect("it compiles");
    compiled.write_artefact(&artefact).expect("it is written");
    let mapped = Session::load(&artefact).expect("it was written");
    for session in [compiled.session().expect("it runs here"), mapped] {
        let (x, b, z) = ([1.0f32, 2.0, 3.0, 4.0], [-1.0f32, -2.0], [2.0f32, 3.0]);
        let (x, b, z) = (View::of(&x, &[2, 2]), View::of(&b, &[2]), View::of(&z, &[2]));
        let check = |outputs: Vec<brolga::Buffer>, expected: [&[f32]; 3]| {
            for (o, e) in outputs.iter().zip(expected) {
                assert_eq!(o.as_slice::<f32>().expect("it is f32"), e);
            }
        };
        let own: [&[f32]; 3] = [&[0.0, 0.0, 2.0, 2.0], &[-2.0, -6.0], &[-1.0, -2.0]];
        let default: [&[f32]; 3] = [&[11.0, 22.0, 13.0, 24.0], &[20.0, 60.0], &[10.0, 20.0]];
        check(session.run(&[x, b, z]).expect("the inputs fit"), own);
        check(session.run(&[x, z]).expect("the inputs fit"), default);
        check(
            session
                .run_named(&[("z", z), ("b", b), ("x", x)])
                .expect("the inputs fit"),
            own,
        );
        check(
            session.run_named(&[("z", z), ("x", x)]).expect("the inputs fit"),
            default,
        );
        assert_eq!(session.output_shapes(&[x, z]).expect("the inputs fit")[0], [2, 2]);
        let error = session.run_named(&[("b", b), ("x", x)]).expect_err("z has no default");
        assert!(error.to_string().contains("input `z`"), "{error}");
        let error = session.run(&[x]).expect_err("z has no default");
        assert!(error.to_string().contains("1 inputs given, 3 expected"), "{error}");
    }
}

#[test]
fn guards_are_checked_before_a_run() {
    let text = "graph @guarded(%0 x: f32[n, 4], %1 y: f32[m, 4]) guards(m in {1, n} \"Add_0\", 2 <= n \"TopK_1\") {
      %2 = broadcast{shape=[n, 4]}(%1)
      %3 = add(%0, %2)
      return z = %3
    }";
    let session = compile(&graph(text), &Options::default())
        .and_then(|c| c.session())
        .expect("it runs here");
    let ramp: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let run = |n: usize, m: usize| {
        let (x, y) = (&ramp[..4 * n], &ramp[..4 * m]);
        session.run(&[View::of(x, &[n, 4]), View::of(y, &[m, 4])])
    };
    for m in [1, 3] {
        let z = run(3, m).expect("both fit");
        let want: Vec<f32> = (0..12).map(|i| (i + i % (4 * m)) as f32).collect();
        assert_eq!(z[0].as_slice::<f32>().expect("it is f32"), want);
    }
    let error = run(3, 2).expect_err("two rows are neither one nor three").to_string();
    let expected = "m in {1, n} (Add_0), but here n = 3 (axis 0 of input `x`), m = 2 (axis 0 of input `y`)";
    assert!(error.contains(expected), "{error}");
    let error = run(1, 1).expect_err("one row is too few").to_string();
    assert!(
        error.contains("2 <= n (TopK_1), but here n = 1 (axis 0 of input `x`)"),
        "{error}"
    );
}

/// Small inputs whose sum is not.
const OUTER: &str = "graph @outer(%0 x: f32[a, 1, 1], %1 y: f32[1, b, 1], %2 z: f32[1, 1, c]) {
  %3 = broadcast{shape=[a, b, c]}(%0)
  %4 = broadcast{shape=[a, b, c]}(%1)
  %5 = broadcast{shape=[a, b, c]}(%2)
  %6 = add(%3, %4) @\"Add_0\"
  %7 = add(%6, %5) @\"Add_1\"
  %8 = softmax{axis=2 zeros=never}(%7) @\"Softmax_2\"
  return y = %8
}";

#[test]
fn sizes_beyond_64_bits_are_errors_that_say_what_is_too_large() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("outer.brolga");
    let compiled = || compile(&graph(OUTER), &Options::default()).expect("it compiles");
    compiled().write_artefact(&path).expect("it is written");
    let jit = compiled().session().expect("there is executable memory");
    let artefact = Session::load(&path).expect("it was written");
    let n = 1usize << 21;
    let zeros = vec![0f32; n];
    let inputs = [[n, 1, 1], [1, n, 1], [1, 1, n]];
    let views = inputs.each_ref().map(|shape| View::of(&zeros, shape));
    for session in [&jit, &artefact] {
        let e = session.run(&views).expect_err("2^65 bytes").to_string();
        assert!(e.contains("output `y`, f32[a, b, c], is too large"), "{e}");
        assert!(e.contains("a = 2097152, b = 2097152, c = 2097152"), "{e}");
        let e = session.output_shapes(&views);
        assert_eq!(e.expect("each extent fits"), [[n, n, n]]);
        let small = [[2, 1, 1], [1, 3, 1], [1, 1, 4]];
        let views = small
            .each_ref()
            .map(|shape| View::of(&zeros[..shape.iter().product::<usize>()], shape));
        assert!(session.run(&views).is_ok());
    }
    // Sizes come modulo 2^64: one row more than 2^61 would be one row of 8 bytes.
    let plan = |dims: [i64; 3]| jit.executor().program().plan(&dims, 2);
    let one = plan([1, 1, 2]).expect("it is small");
    let e = plan([(1 << 61) + 1, 1, 2]).expect_err("2^64 + 8 bytes").to_string();
    assert!(e.contains("a = 2305843009213693953"), "{e}");
    assert!(plan([1 << 45, 1, 2]).expect("2^48 bytes can be counted") >= one);
}

/// One number summed more often than 64 bits count: no tensor is large.
const OFTEN: &str = "graph @often(%0 x: f32[1, 1], %1 y: f32[a, 1], %2 z: f32[1, b]) {
  %3 = broadcast{shape=[a, b]}(%0)
  %4 = reduce{kind=sum axes=[0, 1]}(%3) @\"Sum_0\"
  %5 = exp(%1)
  %6 = exp(%2)
  return s = %4, y = %5, z = %6
}";

#[test]
fn positions_beyond_64_bits_are_errors() {
    let session = compile(&graph(OFTEN), &Options::default()).and_then(|c| c.session());
    let session = session.expect("it compiles");
    let plan = |dims: [i64; 2]| session.executor().program().plan(&dims, 1);
    assert!(plan([1 << 20, 1 << 20]).is_ok());
    let e = plan([1 << 32, 1 << 32]).expect_err("2^64 sums").to_string();
    assert!(e.contains("a position in node `Sum_0` is too large"), "{e}");
}

#[test]
fn constant_sizes_beyond_64_bits_are_errors() {
    let sized = Options {
        sizes: ["a", "b", "c"].map(|s| (s.to_string(), 1 << 21)).to_vec(),
        ..Options::default()
    };
    let e = compile(&graph(OUTER), &sized).expect_err("2^65 bytes").to_string();
    assert!(e.contains("f32[2097152, 2097152, 2097152]"), "{e}");
    assert!(e.contains("too large"), "{e}");
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let object = |threads: usize| {
        let options = Options {
            threads,
            ..Options::default()
        };
        compile(&graph(TWINS), &options).and_then(|c| c.object(WeightsIn::Object))
    };
    let alone = object(1).expect("it compiles");
    for threads in [1, 2, 2, 3, 8] {
        assert!(object(threads).expect("it compiles") == alone, "{threads} threads");
    }
}

/// Constants that are the same bytes of memory put together in other orders, and a weight whose copy is read by another kernel
/// than the weight itself.
const PIECES: &str = "graph @pieces(%0 x: f32[4, 4]) {
  %1 = const f32[2, 2] [1.0, 2.0, 3.0, 4.0]
  %2 = const f32[2, 2] [5.0, 6.0, 7.0, 8.0]
  %3 = const f32[4, 2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %4 = const f32[4, 2] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
  %5 = concat{axis=0}(%1, %2)
  %6 = concat{axis=1}(%1, %2)
  %7 = reshape{shape=[4, 2]}(%6)
  %8 = exp(%3)
  %9 = exp(%4)
  %10 = transpose{perm=[1, 0]}(%8)
  %11 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %5)
  %12 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %7)
  %13 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[1] acc=f32 out=f32}(%0, %10)
  %14 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %9)
  return a = %11, b = %12, c = %13, d = %14
}";

#[test]
fn constants_of_the_same_pieces_are_not_the_same() {
    let identity: Vec<f32> = (0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect();
    for rules in ["all", "none"] {
        for threads in [1, 2] {
            let options = Options {
                rules: Some(rules.parse().expect("these rules are embedded")),
                threads,
                ..Options::default()
            };
            let session = compile(&graph(PIECES), &options).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.expect("it runs here");
            let y = session.run(&[View::of(&identity, &[4, 4])]).expect("the input fits");
            let y: Vec<&[f32]> = y.iter().map(|y| y.as_slice().expect("it is f32")).collect();
            let (along, across) = (
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
                [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0],
            );
            assert_eq!([y[0], y[1]], [&along, &across], "rules={rules}, {threads} threads");
            for exp in [y[2], y[3]] {
                let close = exp
                    .iter()
                    .zip(along)
                    .all(|(got, x): (&f32, f32)| (got / x.exp() - 1.0).abs() < 1e-6);
                assert!(close, "{exp:?}, rules={rules}, {threads} threads");
            }
        }
    }
}

#[test]
fn the_cache_maps_what_was_compiled_before() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let load = || {
        Session::options()
            .cache(folder.path())
            .load(digits())
            .expect("the model is in the repository")
    };
    let files = || std::fs::read_dir(folder.path()).expect("the folder is there").count();
    let first = load();
    assert!(!first.timings().codegen.is_zero());
    assert_eq!(files(), 1);
    let second = load();
    assert!(second.timings().codegen.is_zero());
    let image = [0.5f32; 64];
    let run = |s: &Session| {
        s.run(&[View::of(&image, &[1, 1, 8, 8])]).expect("the input fits")[0]
            .bytes()
            .to_vec()
    };
    assert_eq!(run(&first), run(&second));
    // A damaged artefact is made again; other options have their own.
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(&file, b"not an artefact").expect("the file is ours");
    assert!(!load().timings().codegen.is_zero());
    assert!(load().timings().codegen.is_zero());
    let sized = Session::options().cache(folder.path()).size("batch", 1).load(digits());
    assert!(
        !sized
            .expect("the model is in the repository")
            .timings()
            .codegen
            .is_zero()
    );
    assert_eq!(files(), 2);
    // Rules are known by their text and their classes, wherever the text stands.
    let texts = tempfile::tempdir().expect("there is room for temporary files");
    let is_new = |options: Options| {
        let session = Session::options().compile(options).cache(folder.path()).load(digits());
        !session
            .expect("the model is in the repository")
            .timings()
            .codegen
            .is_zero()
    };
    let with_rules = |name: &str, text: &str, fp: Option<Fp>| {
        let path = texts.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        let rules = brolga::options::rules(None, &[path.display().to_string()], fp, true).expect("they are rules");
        is_new(Options {
            rules: Some(rules),
            ..Options::default()
        })
    };
    let rule = "rule abs-abs [exact] (abs (abs ?x)) => (abs ?x)";
    assert!(with_rules("a.rules", rule, None));
    assert!(!with_rules("b.rules", &format!("; A comment.\n{rule}"), None));
    assert!(with_rules("b.rules", rule, Some(Fp::Strict)));
    assert!(with_rules(
        "a.rules",
        "rule abs-neg [exact] (abs (neg ?x)) => (abs ?x)",
        None
    ));
    assert_eq!(files(), 5);
    // So are files that a pipeline names.
    let with_pipeline = |text: &str, pipeline: &str| {
        let path = texts.path().join("named.txt");
        std::fs::write(&path, text).expect("a file is written");
        is_new(Options {
            pipeline: Some(pipeline.replace("FILE", &path.display().to_string())),
            ..Options::default()
        })
    };
    for (pipeline, text, other) in [
        (
            "eqsat{schedule=FILE}",
            "(phase (rules all))",
            "(phase (rules all) (rounds 1))",
        ),
        ("eqsat{decide=FILE}", "keep \"a\"", "keep \"b\""),
    ] {
        assert!(with_pipeline(text, pipeline));
        assert!(!with_pipeline(text, pipeline));
        assert!(with_pipeline(other, pipeline));
        assert!(!with_pipeline(other, pipeline));
    }
    assert_eq!(files(), 9);
}

/// A small network with an extent that only a run tells.
const POOLED: &str = "graph @pooled(%0 x: f32[n, 5, 3]) symbols(n) {
  %1 = reduce{kind=sum axes=[1]}(%0)
  %2 = exp(%1)
  %3 = reshape{shape=[n, 3]}(%2)
  %4 = softmax{axis=1 zeros=never}(%3)
  return y = %4
}";

/// The outputs of a session for `n` examples.
fn pooled(session: &Session, n: usize) -> Vec<f32> {
    let x: Vec<f32> = (0..n * 15).map(|i| (i % 11) as f32 / 7.0 - 0.5).collect();
    let outputs = session.run(&[View::of(&x, &[n, 5, 3])]).expect("the input fits");
    assert_eq!(outputs[0].shape(), [n, 3]);
    outputs[0].as_slice::<f32>().expect("it is f32").to_vec()
}

#[test]
fn versions_are_compiled_for_sizes_that_were_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("pooled.ir");
    std::fs::write(&model, POOLED).expect("it is written");
    let general = Session::options().threads(1).load(&model).expect("it compiles");
    assert!(general.specialised().is_empty());
    for at_once in [true, false] {
        let how = Specialise { versions: 2, at_once };
        let options = Session::options().threads(1).specialise(how);
        let session = options.load(&model).expect("it compiles");
        for n in [3, 5, 3, 8, 0, 3] {
            let wanted = pooled(&general, n);
            // The second run has a version also where the first did not wait for it.
            for _ in 0..2 {
                let found = pooled(&session, n);
                let near = wanted.iter().zip(&found).all(|(w, f)| (w - f).abs() <= 1e-6);
                assert!(near, "{n}: {found:?}, expected {wanted:?}");
                assert_eq!(session.specialised().last(), Some(&vec![n as i64]));
            }
        }
        assert_eq!(session.specialised(), [[0], [3]]);
        let x = [0.0f32; 15];
        let named = session
            .run_named(&[("x", View::of(&x, &[1, 5, 3]))])
            .expect("the input fits");
        assert_eq!(named[0].shape(), [1, 3]);
        let wrong = session.run(&[View::of(&x, &[3, 5])]);
        assert!(matches!(wrong, Err(Error::Runtime(_))), "{wrong:?}");
    }
}

#[test]
fn what_is_lowered_is_not_specialised() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pooled.brolga");
    let compiled = compile(&graph(POOLED), &Options::default()).expect("it compiles");
    compiled.write_artefact(&file).expect("it is written");
    let how = Specialise {
        versions: 1,
        at_once: false,
    };
    let error = Session::options()
        .specialise(how)
        .load(&file)
        .expect_err("it is refused");
    assert!(error.to_string().contains("cannot be specialised"), "{error}");
}
