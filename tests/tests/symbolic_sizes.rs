//! Programs with many symbolic sizes: kernels that differ in them only are one function, and code grows with the number of
//! steps alone.

use brolga::{Options, compile, tensors};
use brolga_ir::{DType, Graph, Number, Tensor};
use std::fmt::Write;

/// A chain of kernels, each of which adds a row to a tensor, takes a column from it, or bends it.
fn chain(n: usize) -> Graph {
    let mut text = String::from("graph @chain(%0 x: f32[n, m]) symbols(n, m) {\n");
    for i in 1..=n {
        let (from, padded, cut) = (3 * i - 3, 3 * i - 2, 3 * i - 1);
        let _ = writeln!(
            text,
            "  %{padded} = pad{{low=[0, 0] high=[1, 0] interior=[0, 0] fill=0.5}}(%{from})
  %{cut} = slice{{starts=[0, 0] sizes=[n + {i}, m - {i}] steps=[1, 1]}}(%{padded})
  %{} = tanh(%{cut})",
            3 * i
        );
    }
    let _ = writeln!(text, "  return y = %{}\n}}", 3 * n);
    Graph::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn options(rules: Option<&str>) -> Options {
    Options {
        rules: rules.map(|r| r.parse().expect("these rules are embedded")),
        ..Options::default()
    }
}

#[test]
fn one_function_is_called_with_many_sizes() {
    const N: usize = 4;
    let g = chain(N);
    for rules in [None, Some("none")] {
        let compiled = compile(&g, &options(rules)).unwrap_or_else(|e| panic!("{e}"));
        let listings = compiled.listings().unwrap_or_else(|e| panic!("{e}"));
        // Bodies in wide vectors are parts of their kernels.
        let is_kernel = |name: &str| name.starts_with("chain_k") && !name.contains("_wide");
        let kernels = listings.iter().filter(|l| is_kernel(&l.name)).count();
        if rules.is_some() {
            assert_eq!(compiled.program.kernels.len(), 3 * N, "every size has its loops");
            // The first of each reads or writes tensors of which two sizes are the same.
            assert!(kernels <= 2 * 3, "{kernels} functions for three operators");
        }
        for threads in [1, 2] {
            let session = compile(&g, &options(rules)).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.unwrap_or_else(|e| panic!("{e}"));
            for (n, m) in [(0, 4), (1, 9), (3, 37), (200, 90)] {
                let x = Tensor::from_fn(DType::F32, &[n, m], |i| Number::Float((i % 7) as f64 / 8.0 - 2.0));
                let want = g.eval(std::slice::from_ref(&x)).unwrap_or_else(|e| panic!("{e}"));
                let found = session
                    .run(&[tensors::view(&x)])
                    .unwrap_or_else(|e| panic!("{n}, {m}: {e}"));
                let found = tensors::to_tensor(&found[0]);
                assert_eq!(found.shape(), want[0].shape());
                for (f, w) in found.to_f64s().iter().zip(want[0].to_f64s()) {
                    assert!(
                        (f - w).abs() <= 1e-5 * w.abs(),
                        "{n}, {m}, {threads} threads: {f}, expected {w}"
                    );
                }
            }
            let x = Tensor::from_fn(DType::F32, &[5, 3], |_| Number::Float(0.0));
            let error = session
                .run(&[tensors::view(&x)])
                .expect_err("m - 4 is negative")
                .to_string();
            assert!(error.contains("negative"), "{error}");
        }
    }
}

#[test]
fn code_grows_with_the_number_of_steps() {
    let bytes = |n: usize| {
        let compiled = compile(&chain(n), &options(Some("none"))).unwrap_or_else(|e| panic!("{e}"));
        let listings = compiled.listings().unwrap_or_else(|e| panic!("{e}"));
        listings.iter().map(|l| l.bytes).sum::<usize>() as f64
    };
    let [few, more, many] = [8, 16, 32].map(bytes);
    assert!(many - more < 2.5 * (more - few), "{few}, {more}, {many} bytes");
    // What stands in them once is the larger part: eight steps more are some hundred bytes each.
    assert!(more - few < 8.0 * 3.0 * 500.0, "{few}, {more} bytes");
}
