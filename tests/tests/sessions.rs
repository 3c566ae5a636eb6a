//! Sessions side by side, runs into the caller's memory, and what is left after a thousand of them.
//!
//! One test, so that nothing else of this process allocates while memory is measured.

use brolga::{Buffer, Session, tensors};
use brolga_tests::{relative_error, run, skip, small_model};

/// As for the small models: other orders of sums.
const TOLERANCE: f64 = 2e-5;

/// Sessions of several models, made and run by threads of their own, at the same time.
fn side_by_side() {
    std::thread::scope(|s| {
        for (i, name) in ["mlp", "tcn", "moe", "mlp", "bert_dyn"].into_iter().enumerate() {
            s.spawn(move || {
                let m = small_model(name);
                let session = Session::options()
                    .threads(1 + i % 2)
                    .load(&m.path)
                    .unwrap_or_else(|e| panic!("{e}"));
                for _ in 0..5 {
                    for (n, found) in run(&session, &m.inputs).unwrap_or_else(|e| panic!("{name}: {e}")) {
                        let error = relative_error(&found, &m.outputs[&n]);
                        assert!(error <= TOLERANCE, "{name}: output `{n}` is off by {error:e}");
                    }
                }
            });
        }
    });
}

/// `run_into` writes what `run` returns, and nothing else.
fn into_the_callers_memory() {
    let m = small_model("bert_dyn");
    let session = Session::load(&m.path).unwrap_or_else(|e| panic!("{e}"));
    let inputs: Vec<_> = session
        .inputs()
        .iter()
        .map(|i| tensors::view(&m.inputs[&i.name]))
        .collect();
    let expected = session.run(&inputs).expect("it runs");
    let shapes = session.output_shapes(&inputs).expect("the inputs fit");
    let outputs = session.outputs().iter().zip(shapes);
    let mut buffers: Vec<Buffer> = outputs
        .map(|(o, shape)| Buffer::zeroed(o.dtype, shape).expect("there is memory"))
        .collect();
    for b in &mut buffers {
        b.bytes_mut().fill(0xa5);
    }
    let mut views: Vec<_> = buffers.iter_mut().map(Buffer::view_mut).collect();
    session.run_into(&inputs, &mut views).expect("it runs");
    for (b, e) in buffers.iter().zip(&expected) {
        assert_eq!((b.shape(), b.bytes()), (e.shape(), e.bytes()));
    }
    // A buffer of another shape is an error that names the output.
    let mut small = Buffer::zeroed(buffers[0].dtype(), vec![1]).expect("there is memory");
    let e = session
        .run_into(&inputs, &mut [small.view_mut()])
        .expect_err("it does not fit")
        .to_string();
    assert!(e.contains(&session.outputs()[0].name), "{e}");
}

/// Resident memory of this process in bytes, where there is a `/proc`.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<usize>().ok().map(|pages| pages * 4096)
}

/// Loading from a file and dropping, compiled and from an artefact.
fn a_thousand() {
    let Some(_) = resident() else {
        return skip("there is no /proc/self/statm");
    };
    let m = small_model("mlp");
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let artefact = dir.path().join("mlp.brolga");
    brolga::compile_file(&m.path, &brolga::Options::default())
        .and_then(|c| c.write_artefact(&artefact))
        .unwrap_or_else(|e| panic!("{e}"));
    for (path, what) in [(&m.path, "compiled"), (&artefact, "mapped")] {
        let once = || {
            let session = Session::options()
                .threads(2)
                .load(path)
                .unwrap_or_else(|e| panic!("{e}"));
            run(&session, &m.inputs).expect("it runs");
        };
        (0..100).for_each(|_| once());
        let before = resident().unwrap_or(0);
        (100..1000).for_each(|_| once());
        let growth = resident().unwrap_or(0).saturating_sub(before);
        // A leak of one page of code a session would be 3.6 MB.
        assert!(growth < 3 << 20, "{growth} bytes more after 900 {what} sessions");
    }
}

#[test]
fn sessions() {
    side_by_side();
    into_the_callers_memory();
    a_thousand();
}
