//! What arithmetic keeps, however a model is compiled: long sums are as exact as pairwise ones on every schedule, and 16-bit
//! floats are rounded after every operator, stored or fused.

use brolga::{Options, compile, levels, tensors};
use brolga_ir::{DType, Graph, Number, Tensor, program};
use brolga_passes::schedule::{Gpu, Machine, to_loops};

fn parse(text: &str) -> Graph {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    g.verify().unwrap_or_else(|e| panic!("{e}\n{text}"));
    g
}

/// The outputs by rules and threads.
fn compiled(g: &Graph, inputs: &[Tensor]) -> Vec<(String, Vec<Tensor>)> {
    let mut out = vec![];
    for rules in [None, Some("none")] {
        let options = Options {
            rules: rules.map(|r| r.parse().expect("these rules are embedded")),
            ..Options::default()
        };
        for threads in [1, 2] {
            let what = format!("rules {rules:?}, {threads} threads");
            let session = compile(g, &options).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.unwrap_or_else(|e| panic!("{what}: {e}\n{g}"));
            let views: Vec<_> = inputs.iter().map(tensors::view).collect();
            let found = session.run(&views).unwrap_or_else(|e| panic!("{what}: {e}\n{g}"));
            out.push((what, found.iter().map(tensors::to_tensor).collect()));
        }
    }
    out
}

/// What the loops of the GPU schedules give.
fn on_gpu_schedules(g: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let options = Options::default();
    let cut = levels::optimise(g, &options).unwrap_or_else(|e| panic!("{e}\n{g}")).0;
    let s = levels::structured(&cut, &options).unwrap_or_else(|e| panic!("{e}\n{g}"));
    let p = to_loops(&s, &Machine::Gpu(Gpu::default())).unwrap_or_else(|e| panic!("{e}\n{s}"));
    program::interp::run(&p, inputs).unwrap_or_else(|e| panic!("{e}\n{p}"))
}

fn assert_near(what: &str, found: &Tensor, wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (f, w)) in found.to_f64s().iter().zip(wanted).enumerate() {
        assert!(
            (f - w).abs() <= tolerance * w.abs(),
            "{what}: element {i} is {f}, expected {w}"
        );
    }
}

/// The error of 64 additions in f32, each in the same direction.
const LONG: f64 = 64.0 * f32::EPSILON as f64 / 2.0;

const VALUES: [f32; 4] = [0.1, 0.3, 0.7, 1.1];

fn values(shape: &[usize]) -> Tensor {
    Tensor::from_fn(DType::F32, shape, |i| Number::Float(VALUES[i % 4] as f64))
}

/// Sums of a repeated value: axis last, first, in the middle, all; whole vectors and a tail.
#[test]
fn long_sums_of_broadcast_values_are_exact() {
    for n in [1usize << 20, (1 << 20) + 5] {
        for (from, to, axes) in [
            ("4, 1", format!("4, {n}"), "1"),
            ("1, 4", format!("{n}, 4"), "0"),
            ("2, 1, 2", format!("2, {n}, 2"), "1"),
            ("4, 1, 1", format!("4, {n}, 3"), "1, 2"),
            ("1, 4, 1", format!("3, 4, {n}"), "0, 2"),
        ] {
            let g = parse(&format!(
                "graph @g(%0 x: f32[{from}]) {{
                  %1 = broadcast{{shape=[{to}]}}(%0)
                  %2 = reduce{{kind=sum axes=[{axes}]}}(%1)
                  %3 = mul(%1, %1)
                  %4 = reduce{{kind=sum axes=[{axes}]}}(%3)
                  return s = %2, q = %4
                }}"
            ));
            let shape: Vec<usize> = from.split(", ").map(|d| d.parse().expect("an extent")).collect();
            let times = n as f64 * if axes.len() > 1 { 3.0 } else { 1.0 };
            let sums: Vec<f64> = VALUES.iter().map(|&v| v as f64 * times).collect();
            let squares: Vec<f64> = VALUES.iter().map(|&v| (v * v) as f64 * times).collect();
            for (what, found) in compiled(&g, &[values(&shape)]) {
                assert_near(&format!("[{to}] over {axes}, {what}"), &found[0], &sums, LONG);
                assert_near(
                    &format!("squares of [{to}] over {axes}, {what}"),
                    &found[1],
                    &squares,
                    LONG,
                );
            }
        }
    }
}

/// The same of values in memory, under a symbol, and by a pool that covers everything.
#[test]
fn long_sums_of_memory_are_exact() {
    let n = (1usize << 22) + 9;
    let x = Tensor::from_fn(DType::F32, &[n], |_| Number::Float(0.1f32 as f64));
    let wanted = [0.1f32 as f64 * n as f64];
    let symbolic = parse("graph @g(%0 x: f32[n]) { %1 = reduce{kind=sum axes=[0]}(%0) return s = %1 }");
    for (what, found) in compiled(&symbolic, std::slice::from_ref(&x)) {
        assert_near(&what, &found[0], &wanted, LONG);
    }
    let pool = parse(&format!(
        "graph @g(%0 x: f32[{n}]) {{
          %1 = reshape{{shape=[1, 1, {n}]}}(%0)
          %2 = pool{{kind=sum kernel=[{n}] strides=[1] dilations=[1] pads_low=[0] pads_high=[0] sizes=[1]}}(%1)
          return s = %2
        }}"
    ));
    for (what, found) in compiled(&pool, &[x]) {
        assert_near(&format!("a pool, {what}"), &found[0], &wanted, LONG);
    }
}

/// Softmax, its logarithm and the normalisation of a long row, whose parts are known.
#[test]
fn statistics_of_long_rows_are_exact() {
    let n = 1usize << 20;
    let g = parse(&format!(
        "graph @g(%0 x: f32[1, {n}], %1 w: f32[{n}], %2 b: f32[{n}]) {{
          %3 = softmax{{axis=1 zeros=never}}(%0)
          %4 = log_softmax{{axis=1}}(%0)
          %5 = layer_norm{{axis=1 eps=1e-5}}(%0, %1, %2)
          return s = %3, l = %4, n = %5
        }}"
    ));
    let x = Tensor::from_fn(DType::F32, &[1, n], |i| Number::Float(VALUES[i % 4] as f64));
    let ones = |v: f64| Tensor::from_fn(DType::F32, &[n], |_| Number::Float(v));
    let four: Vec<f64> = VALUES.iter().map(|&v| v as f64).collect();
    let sum: f64 = four.iter().map(|v| v.exp()).sum::<f64>() * (n / 4) as f64;
    let mean = four.iter().sum::<f64>() / 4.0;
    let variance = four.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4.0;
    let each = |f: &dyn Fn(f64) -> f64| -> Vec<f64> { (0..n).map(|i| f(four[i % 4])).collect() };
    for (what, found) in compiled(&g, &[x, ones(1.0), ones(0.0)]) {
        assert_near(&format!("softmax, {what}"), &found[0], &each(&|v| v.exp() / sum), 1e-5);
        assert_near(
            &format!("log_softmax, {what}"),
            &found[1],
            &each(&|v| v - sum.ln()),
            1e-6,
        );
        let normal = each(&|v| (v - mean) / (variance + 1e-5).sqrt());
        assert_near(&format!("layer_norm, {what}"), &found[2], &normal, 3e-5);
    }
}

/// The loops that a GPU would run: a thread a row, and a block a row.
#[test]
fn long_sums_are_exact_on_gpu_schedules() {
    let n = 1usize << 18;
    for (from, to, axes) in [("1, 4", format!("{n}, 4"), "0"), ("4, 1", format!("4, {n}"), "1")] {
        let g = parse(&format!(
            "graph @g(%0 x: f32[{from}]) {{
              %1 = broadcast{{shape=[{to}]}}(%0)
              %2 = reduce{{kind=sum axes=[{axes}]}}(%1)
              return s = %2
            }}"
        ));
        let shape: Vec<usize> = from.split(", ").map(|d| d.parse().expect("an extent")).collect();
        let found = on_gpu_schedules(&g, &[values(&shape)]);
        let wanted: Vec<f64> = VALUES.iter().map(|&v| v as f64 * n as f64).collect();
        assert_near(&format!("[{to}]"), &found[0], &wanted, LONG);
    }
}

/// Values of every binade of a 16-bit type, both signs, up to its infinity.
fn binades(dtype: DType, n: usize) -> Tensor {
    let (low, step) = if dtype == DType::F16 {
        (-16.0, 0.5)
    } else {
        (-120.0, 4.0)
    };
    Tensor::from_fn(dtype, &[n], |i| {
        let size = (low + step * (i / 2) as f64).exp2() * 1.37;
        Number::Float(if i.is_multiple_of(2) { size } else { -size })
    })
}

/// Arithmetic that the rules for f32 would associate otherwise, or compute by one function.
const CHAINS: [(&str, &str); 9] = [
    ("scale and back", "%first = mul(%0, %two)  %second = mul(%first, %half)"),
    (
        "shift and back",
        "%first = add(%0, %large)  %second = sub(%first, %large)",
    ),
    ("two shifts", "%first = add(%0, %large)  %second = add(%first, %two)"),
    ("division", "%first = div(%0, %three)  %second = mul(%first, %three)"),
    ("reciprocal", "%first = reciprocal(%0)  %second = mul(%first, %three)"),
    ("silu", "%first = sigmoid(%0)  %second = mul(%first, %0)"),
    ("square and root", "%first = pow(%0, %two)  %second = sqrt(%first)"),
    ("cube", "%first = pow(%0, %three)  %second = mul(%first, %half)"),
    (
        "bias, then scale",
        "%first = add(%0, %three)  %second = mul(%first, %two)",
    ),
];

#[test]
fn fused_16_bit_floats_are_rounded_like_stored_ones() {
    const N: usize = 64;
    for (dtype, name, large) in [(DType::F16, "f16", 30000.0), (DType::BF16, "bf16", 2.5e38)] {
        for (what, chain) in CHAINS {
            let (mut text, mut chain, mut next) = (String::new(), chain.to_owned(), 1);
            for (number, x) in [("%two", 2.0), ("%half", 0.5), ("%three", 3.0), ("%large", large)] {
                if chain.contains(number) {
                    let (a, b, c) = (next, next + 1, next + 2);
                    text += &format!("%{a} = const {name}[] [{x:?}] %{b} = reshape{{shape=[1]}}(%{a}) ");
                    text += &format!("%{c} = broadcast{{shape=[{N}]}}(%{b})\n");
                    chain = chain.replace(number, &format!("%{c}"));
                    next += 3;
                }
            }
            let chain = chain.replace("%first", &format!("%{next}"));
            let chain = chain.replace("%second", &format!("%{}", next + 1));
            let second = next + 1;
            let g = parse(&format!(
                "graph @g(%0 x: {name}[{N}]) {{\n{text}{chain}\nreturn y = %{second} }}"
            ));
            let x = binades(dtype, N);
            let wanted = g
                .eval(std::slice::from_ref(&x))
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            for (how, found) in compiled(&g, &[x]) {
                for i in 0..N {
                    let (f, w) = (found[0].get(i).f64(), wanted[0].get(i).f64());
                    assert!(
                        f.to_bits() == w.to_bits() || f.is_nan() && w.is_nan(),
                        "{name} {what}, {how}: element {i} is {f}, expected {w}"
                    );
                }
            }
        }
    }
}

/// A product of small integers, exact in any order, whose scaling must not go into the weights.
#[test]
fn a_product_in_f16_is_rounded_before_it_is_scaled() {
    let g = parse(
        "graph @g(%0 x: f16[4, 8]) {
          %1 = const f16[8, 4] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0,
            4.0, 5.0, 6.0, 7.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]
          %2 = contract{lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f16}(%0, %1)
          %3 = const f16[] [0.1]
          %4 = reshape{shape=[1, 1]}(%3)
          %5 = broadcast{shape=[4, 4]}(%4)
          %6 = mul(%2, %5)
          return y = %6
        }",
    );
    let x = Tensor::from_fn(DType::F16, &[4, 8], |i| Number::Float((i * i % 1999) as f64));
    let wanted = g.eval(std::slice::from_ref(&x)).expect("it evaluates");
    for (how, found) in compiled(&g, &[x]) {
        assert_eq!(found[0].to_f64s(), wanted[0].to_f64s(), "{how}");
    }
}
