//! Models with sizes that only a run tells, against the same compiled for these sizes.
//!
//! `cargo bench -p brolga-benches --bench dynamic [-- FILE SYMBOL=N … FILE SYMBOL=N …]`, without arguments for small graphs of
//! its own. A line a model and number of threads: milliseconds of both, medians of interleaved rounds, and their ratio.

use brolga::ir::{Graph, Number, Tensor};
use brolga::{Compiled, Options, Session, View, compile, compile_file, tensors};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rounds, in each of which every session runs for a while.
const ROUNDS: usize = 7;
/// How long a session runs in a round.
const ROUND: Duration = Duration::from_millis(60);

/// Sizes of symbols.
type Sizes = &'static [(&'static str, i64)];

/// Graphs for a run without arguments: name, text, sizes.
const GRAPHS: [(&str, &str, Sizes); 3] = [
    (
        "convolutions",
        "graph @g(%0 x: f32[n, 16, h, w]) symbols(n, h, w) {
          %1 = const f32[32, 16, 3, 3] splat 0.01
          %2 = const f32[32, 1, 5, 5] splat 0.02
          %3 = conv{strides=[2, 2] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}(%0, %1)
          %4 = mish(%3)
          %5 = conv{strides=[1, 1] dilations=[1, 1] pads_low=[2, 2] pads_high=[2, 2] groups=32 acc=f32 out=f32}(%4, %2)
          %6 = relu(%5)
          %7 = add(%4, %6)
          return y = %7
        }",
        &[("n", 1), ("h", 70), ("w", 90)],
    ),
    (
        "extents equal at run time",
        "graph @g(%0 x: f32[n, 64, h, w], %1 y: f32[m, 64, h, w]) symbols(n, m, h, w)
          guards(n in {1, min(m*n, max(m, n))}, m in {1, min(m*n, max(m, n))}) {
          %2 = broadcast{shape=[min(m*n, max(m, n)), 64, h, w]}(%0)
          %3 = broadcast{shape=[min(m*n, max(m, n)), 64, h, w]}(%1)
          %4 = add(%2, %3)
          %5 = relu(%4)
          return y = %5
        }",
        &[("n", 2), ("m", 2), ("h", 28), ("w", 28)],
    ),
    (
        "products",
        "graph @g(%0 x: f32[s, 128]) symbols(s) {
          %1 = const f32[128, 512] splat 0.01
          %2 = const f32[512, 128] splat 0.02
          %3 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%0, %1)
          %4 = gelu(%3)
          %5 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32}(%4, %2)
          %6 = add(%0, %5)
          %7 = softmax{axis=1 zeros=never}(%6)
          return y = %7
        }",
        &[("s", 61)],
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    println!(
        "{:32} {:>7} {:>11} {:>11} {:>6}",
        "model", "threads", "ms dynamic", "ms fixed", "ratio"
    );
    if arguments.is_empty() {
        for (name, text, sizes) in GRAPHS {
            let graph = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{name}: {e}"));
            let sizes: Vec<(String, i64)> = sizes.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect();
            line(name, &sizes, &|options| compile(&graph, options));
        }
        return;
    }
    let mut rest = &arguments[..];
    while let [file, more @ ..] = rest {
        let sizes: Vec<(String, i64)> = more.iter().map_while(|a| size(a)).collect();
        line(file, &sizes, &|options| compile_file(Path::new(file), options));
        rest = &more[sizes.len()..];
    }
}

fn size(argument: &str) -> Option<(String, i64)> {
    let (name, n) = argument.split_once('=')?;
    Some((name.to_owned(), n.parse().ok()?))
}

/// Compares a model's two sessions on one thread and on two.
fn line(name: &str, sizes: &[(String, i64)], compiled: &dyn Fn(&Options) -> brolga::Result<Compiled>) {
    for threads in [1, 2] {
        let session = |sizes: &[(String, i64)]| -> brolga::Result<Session> {
            let options = Options {
                sizes: sizes.to_vec(),
                ..Options::default()
            };
            compiled(&options)?.session_with(threads, options.memory_limit)
        };
        match session(&[]).and_then(|dynamic| Ok((dynamic, session(sizes)?))) {
            Ok((dynamic, fixed)) => {
                let (d, f) = measure(&dynamic, &fixed);
                println!("{name:32} {threads:>7} {d:>11.4} {f:>11.4} {:>6.3}", d / f);
            }
            Err(e) => println!("{name:32} {threads:>7} {e}"),
        }
    }
}

/// The median milliseconds of a run of both.
fn measure(dynamic: &Session, fixed: &Session) -> (f64, f64) {
    // The fixed session knows every extent.
    let inputs: Vec<Tensor> = fixed
        .inputs()
        .iter()
        .map(|input| {
            let shape = input.shape().expect("every symbol has a size");
            let dtype = tensors::ir_dtype(input.dtype);
            Tensor::from_fn(dtype, &shape, |i| match dtype.is_float() {
                true => Number::Float((i % 17) as f64 / 17.0 - 0.5),
                false => Number::Int((i % 2) as i128),
            })
        })
        .collect();
    let views: Vec<View> = inputs.iter().map(tensors::view).collect();
    let mut times = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (session, times) in [dynamic, fixed].into_iter().zip(&mut times) {
            session.run(&views).expect("the inputs fit");
            let (start, mut runs) = (Instant::now(), 0);
            while start.elapsed() < ROUND {
                session.run(&views).expect("the inputs fit");
                runs += 1;
            }
            times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(runs));
        }
    }
    let [d, f] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    (d, f)
}
