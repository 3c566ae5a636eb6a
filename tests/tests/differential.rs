//! The edges of every level: empty tensors, rank 0, NaN and infinities, integers at their limits, outputs that are inputs or
//! constants, symbols of many sizes. Each graph runs on its own evaluation (the reference), the interpreters of structured
//! kernels and of programs, machine code for every CPU level that this machine has on one thread and two, and an object
//! file linked with a C program.

use brolga::levels;
use brolga::output::WeightsIn;
use brolga::{Options, compile, tensors};
use brolga_ir::{DType, Dim, Graph, Number, Tensor, program};
use brolga_tests::aot::{Harness, Kind, dims, has};
use brolga_tests::{exact_outputs, mismatch, relative_error, skip, targets, unequal};

/// Sums in another order, over the largest magnitude of an output; everything else agrees in every bit.
const TOLERANCE: f64 = 2e-6;

/// The same for every element on its own, where elements are of very different magnitudes.
const ELEMENT: f64 = 1e-5;

/// What floats are filled with.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// Between -1 and 1.
    Plain,
    /// Infinities, NaN, zeros of both signs, subnormal and huge numbers among others; integers at their limits.
    Special,
}

const SPECIAL: [f64; 16] = [
    1.5,
    f64::NAN,
    -0.0,
    f64::INFINITY,
    -2.5,
    0.0,
    f64::NEG_INFINITY,
    1e-40,
    3e38,
    -1.0,
    0.5,
    -3e38,
    1.0,
    -1e-40,
    88.0,
    -104.0,
];

fn inputs(g: &Graph, sizes: &[(&str, i64)], fill: Fill) -> Vec<Tensor> {
    let size = |s: &str| sizes.iter().find(|(n, _)| *n == s).map(|(_, v)| *v);
    let mut state = 3u64;
    let mut next = move || {
        // A linear congruential generator (Knuth's MMIX).
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        state >> 33
    };
    let mut out = vec![];
    for (k, input) in g.inputs.iter().enumerate() {
        let ty = g.ty(input.value);
        let extent = |d: &Dim| d.eval(&size).expect("every symbol has a size") as usize;
        let shape: Vec<usize> = ty.shape.iter().map(extent).collect();
        out.push(Tensor::from_fn(ty.dtype, &shape, |i| match (ty.dtype, fill) {
            (DType::Bool, _) => Number::from(next().is_multiple_of(2)),
            // The second operand meets every value of the first.
            (d, Fill::Special) if d.is_float() => Number::Float(SPECIAL[(i * (2 * k + 1) + k * (i / 16)) % 16]),
            (d, Fill::Plain) if d.is_float() => Number::Float(next() as f64 / (1u64 << 30) as f64 - 1.0),
            (d, Fill::Special) => {
                let bits = 8 * d.bytes() as u32;
                let (least, most) = match d.is_signed() {
                    true => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
                    false => (0, (1i128 << bits) - 1),
                };
                let values = [0, 1, least, most, 2, (-1i128).max(least), 7, most - 1, i128::from(bits)];
                Number::Int(values[(i * (2 * k + 1) + k * (i / 9)) % 9])
            }
            // Small, so that they serve as indices.
            _ => Number::Int((next() % 3) as i128),
        }));
    }
    out
}

fn close(what: &str, g: &Graph, fill: Fill, found: &[Tensor], wanted: &[Tensor]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let exact = exact_outputs(g);
    for (((name, _), exact), (f, w)) in g.outputs.iter().zip(exact).zip(found.iter().zip(wanted)) {
        let difference = match fill {
            _ if exact => unequal(f, w),
            Fill::Plain if relative_error(f, w) <= TOLERANCE => None,
            Fill::Plain => Some(format!("{f:?}, expected {w:?}")),
            Fill::Special => mismatch(f, w, ELEMENT, 0.0),
        };
        assert!(
            difference.is_none(),
            "{what}: output `{name}`: {}\n{g}",
            difference.unwrap_or_default()
        );
    }
}

/// Runs a graph everywhere, for each list of sizes.
fn everywhere(name: &str, text: &str, sizes: &[&[(&str, i64)]], fill: Fill) {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{name}: {e}"));
    g.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
    let cases: Vec<(String, Vec<Tensor>, Vec<Tensor>)> = sizes
        .iter()
        .map(|s| {
            let inputs = inputs(&g, s, fill);
            let wanted = g.eval(&inputs).unwrap_or_else(|e| panic!("{name} {s:?}: {e}"));
            (format!("{name} {s:?}"), inputs, wanted)
        })
        .collect();
    for target in targets() {
        let options = Options {
            target,
            ..Options::default()
        };
        let cpu = options.target.name;
        let s = levels::optimise(&g, &options)
            .and_then(|(cut, _)| levels::structured(&cut, &options))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let p = levels::program(&s, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (what, inputs, wanted) in &cases {
            let found = program::interp::run(&s, inputs).unwrap_or_else(|e| panic!("{what}: {e}\n{s}"));
            close(&format!("{what}, structured for {cpu}"), &g, fill, &found, wanted);
            let found = program::interp::run(&p, inputs).unwrap_or_else(|e| panic!("{what}: {e}\n{p}"));
            close(&format!("{what}, loops for {cpu}"), &g, fill, &found, wanted);
        }
        for threads in [1, 2] {
            let session = compile(&g, &options).and_then(|c| c.session_with(threads, u64::MAX));
            let session = session.unwrap_or_else(|e| panic!("{name}: {e}"));
            for (what, inputs, wanted) in &cases {
                let views: Vec<_> = inputs.iter().map(tensors::view).collect();
                let found = session.run(&views).unwrap_or_else(|e| panic!("{what}: {e}"));
                let found: Vec<Tensor> = found.iter().map(tensors::to_tensor).collect();
                close(
                    &format!("{what}, compiled for {cpu}, {threads} threads"),
                    &g,
                    fill,
                    &found,
                    wanted,
                );
            }
        }
    }
    if !has("cc") {
        return skip("there is no C compiler `cc`");
    }
    let c = compile(&g, &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    if !c.meta.host_ops.is_empty() {
        return;
    }
    let meta = c.meta.clone();
    let harness = Harness::build(c, Kind::Object, WeightsIn::Object);
    for (what, inputs, wanted) in &cases {
        close(
            &format!("{what}, an object file"),
            &g,
            fill,
            &harness.run(inputs, &dims(&meta, inputs)),
            wanted,
        );
    }
}

fn plain(name: &str, text: &str) {
    everywhere(name, text, &[&[]], Fill::Plain);
}

fn special(name: &str, text: &str) {
    everywhere(name, text, &[&[]], Fill::Special);
}

const PRODUCT: &str = "lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32";

#[test]
fn empty_tensors() {
    plain("a map", "graph @g(%0 x: f32[0, 3]) { %1 = exp(%0) return y = %1 }");
    plain(
        "reductions of nothing",
        "graph @g(%0 x: f32[3, 0]) {
          %1 = reduce{kind=sum axes=[1]}(%0)
          %2 = reduce{kind=max axes=[1]}(%0)
          %3 = reduce{kind=sum axes=[0]}(%0)
          return s = %1, m = %2, n = %3
        }",
    );
    plain(
        "products",
        &format!(
            "graph @g(%0 a: f32[4, 0], %1 b: f32[0, 5], %2 c: f32[0, 4], %3 d: f32[4, 3], %4 e: f32[3, 0]) {{
              %5 = contract{{{PRODUCT}}}(%0, %1)
              %6 = contract{{{PRODUCT}}}(%2, %3)
              %7 = contract{{{PRODUCT}}}(%3, %4)
              return k = %5, m = %6, n = %7
            }}"
        ),
    );
    plain(
        "movement",
        "graph @g(%0 x: f32[0, 3], %1 z: f32[2, 3], %2 i: i64[0]) {
          %3 = concat{axis=0}(%0, %1)
          %4 = gather{axis=1}(%1, %2)
          %5 = pad{low=[1, 0] high=[1, 0] interior=[0, 0] fill=2.0}(%0)
          %6 = slice{starts=[1, 0] sizes=[0, 3] steps=[1, 1]}(%1)
          %7 = transpose{perm=[1, 0]}(%0)
          %8 = softmax{axis=1 zeros=never}(%0)
          return c = %3, g = %4, p = %5, s = %6, t = %7, m = %8
        }",
    );
}

/// A right operand in 16 bits beside one in f32, which a run gives or which is a constant behind a cast, has tiles of its own; a left one has none.
#[test]
fn products_of_two_types() {
    for dtype in ["f16", "bf16"] {
        let text = format!(
            "graph @g(%0 x: f32[n, 40], %1 w: {dtype}[40, 70], %2 v: {dtype}[n, 40], %3 u: f32[40, 33]) symbols(n) {{
              %4 = contract{{{PRODUCT}}}(%0, %1)
              %5 = contract{{{PRODUCT}}}(%2, %3)
              %6 = iota{{dtype=f32 shape=[40, 96] axis=0}}()
              %7 = iota{{dtype=f32 shape=[40, 96] axis=1}}()
              %8 = mul(%6, %7)
              %9 = sin(%8)
              %10 = cast{{to={dtype}}}(%9)
              %11 = cast{{to=f32}}(%10)
              %12 = contract{{{PRODUCT}}}(%0, %11)
              %13 = relu(%12)
              return a = %4, b = %5, c = %13
            }}"
        );
        let sizes: [&[(&str, i64)]; 4] = [&[("n", 1)], &[("n", 3)], &[("n", 33)], &[("n", 0)]];
        everywhere(&format!("products by {dtype}"), &text, &sizes, Fill::Plain);
    }
}

#[test]
fn rank_zero() {
    plain(
        "scalars",
        "graph @g(%0 x: f32[], %1 v: f32[7], %2 i: i64[]) {
          %3 = const f32[] [2.5]
          %4 = mul(%0, %3)
          %5 = reduce{kind=sum axes=[0]}(%1)
          %6 = reshape{shape=[]}(%5)
          %7 = add(%4, %6)
          %8 = reshape{shape=[1]}(%7)
          %9 = broadcast{shape=[7]}(%8)
          %10 = sub(%9, %1)
          %11 = gather{axis=0}(%1, %2)
          return a = %7, b = %10, c = %3, d = %11
        }",
    );
}

#[test]
fn specials_in_functions() {
    let unary = [
        "exp",
        "log",
        "tanh",
        "erf",
        "sigmoid",
        "sqrt",
        "reciprocal",
        "sin",
        "cos",
        "neg",
        "abs",
        "floor",
        "ceil",
        "round",
        "relu",
        "gelu",
        "softplus",
        "sign",
    ];
    for dtype in ["f32", "f64", "f16", "bf16"] {
        let mut text = format!("graph @g(%0 x: {dtype}[37]) {{\n");
        let mut outs = vec![];
        for (i, f) in unary.iter().enumerate() {
            text += &format!("  %{} = {f}(%0)\n", i + 1);
            outs.push(format!("{f} = %{}", i + 1));
        }
        special(dtype, &format!("{text}  return {}\n}}", outs.join(", ")));
    }
}

#[test]
fn specials_in_arithmetic() {
    let binary = [
        "add",
        "sub",
        "mul",
        "div",
        "min",
        "max",
        "pow",
        "equal",
        "less",
        "less_or_equal",
        "greater",
    ];
    for dtype in ["f32", "f64", "f16", "bf16", "i8", "u8", "i32", "u32", "i64", "u64"] {
        let mut text = format!("graph @g(%0 x: {dtype}[256], %1 y: {dtype}[256]) {{\n");
        let mut outs = vec![];
        for (i, f) in binary.iter().enumerate() {
            text += &format!("  %{} = {f}(%0, %1)\n", i + 2);
            outs.push(format!("{f} = %{}", i + 2));
        }
        special(dtype, &format!("{text}  return {}\n}}", outs.join(", ")));
    }
}

#[test]
fn specials_in_casts() {
    let all = [
        "f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool",
    ];
    for from in ["f64", "f32", "f16", "i64", "u8"] {
        let mut text = format!("graph @g(%0 x: {from}[37]) {{\n");
        let mut outs = vec![];
        for (i, to) in all.iter().filter(|t| **t != from).enumerate() {
            text += &format!("  %{} = cast{{to={to}}}(%0)\n", i + 1);
            outs.push(format!("{to} = %{}", i + 1));
        }
        special(from, &format!("{text}  return {}\n}}", outs.join(", ")));
    }
}

#[test]
fn specials_in_reductions() {
    special(
        "reductions",
        "graph @g(%0 x: f32[16, 5]) {
          %1 = reduce{kind=max axes=[1]}(%0)
          %2 = reduce{kind=min axes=[0]}(%0)
          %3 = softmax{axis=1 zeros=never}(%0)
          %4 = reshape{shape=[1, 16, 5]}(%0)
          %5 = pool{kind=max kernel=[2] strides=[1] dilations=[1] pads_low=[0] pads_high=[0] sizes=[4]}(%4)
          return a = %1, b = %2, c = %3, d = %5
        }",
    );
    special(
        "a product",
        &format!(
            "graph @g(%0 x: f32[4, 16], %1 w: f32[16, 40]) {{
              %2 = contract{{{PRODUCT}}}(%0, %1)
              return y = %2
            }}"
        ),
    );
}

#[test]
fn outputs_that_need_no_kernel() {
    plain(
        "inputs and constants",
        "graph @g(%0 x: f32[4], %1 i: i64[2]) {
          %2 = const f32[3] [1.0, 2.0, 3.0]
          %3 = const i64[2, 2] splat 9
          %4 = reshape{shape=[2, 2]}(%0)
          return x = %0, same = %0, i = %1, c = %2, d = %3, twice = %2, r = %4
        }",
    );
    plain(
        "repeated results",
        "graph @g(%0 x: f32[4, 3]) {
          %1 = exp(%0)
          %2 = reshape{shape=[12]}(%1)
          %3 = neg(%1)
          return a = %1, b = %1, c = %2, d = %3
        }",
    );
}

/// Sizes of one symbol: none, one, less and more than a vector, a register tile, and several.
const SIZES: [&[(&str, i64)]; 8] = [
    &[("n", 0)],
    &[("n", 1)],
    &[("n", 2)],
    &[("n", 7)],
    &[("n", 16)],
    &[("n", 17)],
    &[("n", 33)],
    &[("n", 70)],
];

#[test]
fn symbolic_products() {
    let w = |k: usize, n: usize| -> String {
        let values: Vec<u8> = (0..k * n)
            .flat_map(|i| (((i * 7) % 13) as f32 / 8.0 - 0.75).to_le_bytes())
            .collect();
        base64(&values)
    };
    let text = format!(
        "graph @g(%0 x: f32[n, 24], %1 b: f32[40]) symbols(n) {{
          %2 = const f32[24, 40] dense \"{}\"
          %3 = contract{{{PRODUCT}}}(%0, %2)
          %4 = reshape{{shape=[1, 40]}}(%1)
          %5 = broadcast{{shape=[n, 40]}}(%4)
          %6 = add(%3, %5)
          %7 = relu(%6)
          return y = %7
        }}",
        w(24, 40)
    );
    everywhere("rows", &text, &SIZES, Fill::Plain);
    // The summed dimension and the columns are symbols.
    let text = format!(
        "graph @g(%0 x: f32[5, n], %1 y: f32[n, 6], %2 z: f32[n, n]) symbols(n) {{
          %3 = contract{{{PRODUCT}}}(%0, %1)
          %4 = contract{{{PRODUCT}}}(%0, %2)
          %5 = contract{{{PRODUCT}}}(%2, %1)
          return k = %3, n = %4, m = %5
        }}"
    );
    everywhere("everything", &text, &SIZES, Fill::Plain);
    let text = "graph @g(%0 q: f32[b, n, 8], %1 k: f32[b, n, 8], %2 v: f32[b, n, 8]) symbols(b, n) {
        %3 = contract{lhs_batch=[0] rhs_batch=[0] lhs_contract=[2] rhs_contract=[2] acc=f32 out=f32}(%0, %1)
        %4 = softmax{axis=2 zeros=never}(%3)
        %5 = contract{lhs_batch=[0] rhs_batch=[0] lhs_contract=[2] rhs_contract=[1] acc=f32 out=f32}(%4, %2)
        return y = %5
      }";
    let sizes: [&[(&str, i64)]; 6] = [
        &[("b", 0), ("n", 3)],
        &[("b", 1), ("n", 1)],
        &[("b", 2), ("n", 0)],
        &[("b", 3), ("n", 5)],
        &[("b", 1), ("n", 40)],
        &[("b", 5), ("n", 17)],
    ];
    everywhere("attention", text, &sizes, Fill::Plain);
}

#[test]
fn symbolic_maps_and_reductions() {
    everywhere(
        "rows and columns",
        "graph @g(%0 x: f32[n, 10], %1 y: f32[10, n]) symbols(n) {
          %2 = softmax{axis=1 zeros=never}(%0)
          %3 = softmax{axis=1 zeros=never}(%1)
          %4 = reduce{kind=sum axes=[0]}(%0)
          %5 = reduce{kind=max axes=[1]}(%1)
          %6 = transpose{perm=[1, 0]}(%1)
          %7 = add(%0, %6)
          %8 = gelu(%7)
          return a = %2, b = %3, c = %4, d = %5, e = %8
        }",
        &SIZES,
        Fill::Plain,
    );
    everywhere(
        "movement",
        "graph @g(%0 x: f32[n, 3], %1 y: f32[4, 3]) symbols(n) {
          %2 = concat{axis=0}(%0, %1)
          %3 = reshape{shape=[3*n]}(%0)
          %4 = pad{low=[2, 0] high=[1, 1] interior=[0, 0] fill=0.5}(%0)
          %5 = slice{starts=[1, 1] sizes=[n + 2, 2] steps=[1, 1]}(%2)
          return c = %2, r = %3, p = %4, s = %5
        }",
        &SIZES,
        Fill::Plain,
    );
    let sizes: [&[(&str, i64)]; 4] = [
        &[("b", 0), ("n", 5)],
        &[("b", 1), ("n", 3)],
        &[("b", 2), ("n", 8)],
        &[("b", 1), ("n", 21)],
    ];
    let weights: Vec<u8> = (0..4 * 3 * 9)
        .flat_map(|i| (((i * 5) % 11) as f32 / 8.0 - 0.6).to_le_bytes())
        .collect();
    let text = format!(
        "graph @g(%0 x: f32[b, 3, n, n]) symbols(b, n) {{
          %1 = const f32[4, 3, 3, 3] dense \"{}\"
          %2 = conv{{strides=[1, 1] dilations=[1, 1] pads_low=[1, 1] pads_high=[1, 1] groups=1 acc=f32 out=f32}}(%0, %1)
          %3 = relu(%2)
          %4 = reduce{{kind=max axes=[2, 3]}}(%3)
          return y = %3, m = %4
        }}",
        base64(&weights)
    );
    everywhere("a convolution", &text, &sizes, Fill::Plain);
}

/// What two symbols broadcast to, as the importer writes it.
const BOTH: &str = "min(b*c, max(b, c))";

#[test]
fn extents_that_broadcast_when_the_model_runs() {
    let sizes = |b: i64, c: i64, n: i64, m: i64| [("b", b), ("c", c), ("n", n), ("m", m)];
    let sizes = [
        sizes(3, 3, 21, 21),
        sizes(1, 3, 1, 21),
        sizes(3, 1, 21, 1),
        sizes(1, 1, 1, 1),
        sizes(1, 2, 9, 1),
        sizes(2, 1, 1, 40),
        sizes(0, 1, 1, 5),
        sizes(1, 0, 5, 1),
        sizes(2, 2, 0, 0),
    ];
    let sizes: Vec<&[(&str, i64)]> = sizes.iter().map(|s| &s[..]).collect();
    let columns = "min(m*n, max(m, n))";
    let guards = format!("b in {{1, {BOTH}}}, c in {{1, {BOTH}}}, n in {{1, {columns}}}, m in {{1, {columns}}}");
    let maps = format!(
        "graph @g(%0 x: f32[b, 2, n], %1 y: f32[c, 1, m]) symbols(b, c, n, m) guards({guards}) {{
          %2 = broadcast{{shape=[{BOTH}, 2, {columns}]}}(%0)
          %3 = broadcast{{shape=[{BOTH}, 2, {columns}]}}(%1)
          %4 = mul(%2, %3)
          %5 = softmax{{axis=2 zeros=never}}(%4)
          %6 = reduce{{kind=sum axes=[0, 2]}}(%4)
          %7 = less(%3, %2)
          %8 = where(%7, %2, %3)
          %9 = transpose{{perm=[2, 1, 0]}}(%8)
          return p = %4, s = %5, r = %6, t = %9
        }}"
    );
    everywhere("maps and reductions", &maps, &sizes, Fill::Plain);
    let narrow = maps
        .replace("f32[", "f16[")
        .replace("%5 = softmax{axis=2 zeros=never}(%4)", "%5 = exp(%4)");
    everywhere(
        "maps of halves",
        &narrow.replace("%6 = reduce{kind=sum axes=[0, 2]}(%4)", "%6 = neg(%4)"),
        &sizes,
        Fill::Plain,
    );
    // The last operand is a bias, or one number.
    let sizes = |b: i64, c: i64, n: i64, m: i64, l: i64| [("b", b), ("c", c), ("n", n), ("m", m), ("l", l)];
    let sizes = [
        sizes(3, 3, 5, 40, 40),
        sizes(1, 3, 5, 40, 1),
        sizes(3, 1, 1, 7, 7),
        sizes(1, 1, 9, 33, 1),
        sizes(0, 1, 2, 3, 1),
        sizes(2, 2, 3, 1, 1),
    ];
    let sizes: Vec<&[(&str, i64)]> = sizes.iter().map(|s| &s[..]).collect();
    let products = format!(
        "graph @g(%0 x: f32[b, n, 6], %1 y: f32[c, 6, m], %2 z: f32[l]) symbols(b, c, n, m, l)
          guards(b in {{1, {BOTH}}}, c in {{1, {BOTH}}}, l in {{1, m}}) {{
          %3 = broadcast{{shape=[{BOTH}, n, 6]}}(%0)
          %4 = broadcast{{shape=[{BOTH}, 6, m]}}(%1)
          %5 = contract{{lhs_batch=[0] rhs_batch=[0] lhs_contract=[2] rhs_contract=[1] acc=f32 out=f32}}(%3, %4)
          %6 = reshape{{shape=[1, 1, l]}}(%2)
          %7 = broadcast{{shape=[{BOTH}, n, m]}}(%6)
          %8 = add(%5, %7)
          return y = %8
        }}"
    );
    everywhere("products", &products, &sizes, Fill::Plain);
}

/// Base64 of RFC 4648, as the text form of graphs has it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { digit as char } else { '=' });
        }
    }
    out
}

/// Runs a graph of `data` f32, `indices` i64 and more inputs everywhere, with indices that are in range, then with one that
/// is not: every way to run it says so, and names the node.
fn out_of_range(name: &str, text: &str, good: &[i64], bad: &[i64], node: &str) {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{name}: {e}"));
    g.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
    let given = |indices: &[i64]| -> Vec<Tensor> {
        let mut all = inputs(&g, &[], Fill::Plain);
        for (input, t) in g.inputs.iter().zip(&mut all) {
            if input.name == "i" {
                *t = Tensor::from_fn(t.dtype(), t.shape(), |k| Number::Int(indices[k % indices.len()].into()));
            }
        }
        all
    };
    let (good, bad) = (given(good), given(bad));
    let wanted = g.eval(&good).unwrap_or_else(|e| panic!("{name}: {e}"));
    let says = |what: &str, error: &dyn std::fmt::Display| {
        let error = error.to_string();
        assert!(
            error.contains(&format!("`{node}`")) && error.contains("out of range"),
            "{name}, {what}: {error}"
        );
    };
    says("the graph", &g.eval(&bad).expect_err(name));
    for pipeline in [None, Some("canonicalize,eqsat{rules=none}".to_owned())] {
        for target in targets() {
            let options = Options {
                target,
                pipeline: pipeline.clone(),
                ..Options::default()
            };
            let cpu = options.target.name;
            let s = levels::optimise(&g, &options)
                .and_then(|(cut, _)| levels::structured(&cut, &options))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            let p = levels::program(&s, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            let found = program::interp::run(&s, &good).unwrap_or_else(|e| panic!("{name}: {e}\n{s}"));
            close(&format!("{name}, structured"), &g, Fill::Plain, &found, &wanted);
            says("structured", &program::interp::run(&s, &bad).expect_err(name));
            let found = program::interp::run(&p, &good).unwrap_or_else(|e| panic!("{name}: {e}\n{p}"));
            close(&format!("{name}, loops for {cpu}"), &g, Fill::Plain, &found, &wanted);
            says("loops", &program::interp::run(&p, &bad).expect_err(name));
            for threads in [1, 2] {
                let session = compile(&g, &options).and_then(|c| c.session_with(threads, u64::MAX));
                let session = session.unwrap_or_else(|e| panic!("{name}: {e}"));
                let run = |t: &[Tensor]| session.run(&t.iter().map(tensors::view).collect::<Vec<_>>());
                let what = format!("{name}, compiled for {cpu}, {threads} threads");
                // One error does not spoil the next run.
                says(&what, &run(&bad).expect_err(&what));
                let found = run(&good).unwrap_or_else(|e| panic!("{what}: {e}"));
                let found: Vec<Tensor> = found.iter().map(tensors::to_tensor).collect();
                close(&what, &g, Fill::Plain, &found, &wanted);
            }
        }
    }
    if !has("cc") {
        return skip("there is no C compiler `cc`");
    }
    let c = compile(&g, &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let harness = Harness::build(c, Kind::Object, WeightsIn::Object);
    close(
        &format!("{name}, an object file"),
        &g,
        Fill::Plain,
        &harness.run(&good, &[]),
        &wanted,
    );
    let given: Vec<Option<&Tensor>> = bad.iter().map(Some).collect();
    let error = harness.try_run(&given, &[]).expect_err(name);
    assert!(error.contains(&format!("{node}: an index")), "{name}: {error}");
}

#[test]
fn an_index_out_of_range_is_an_error_everywhere() {
    let graph = |inputs: &str, body: &str| format!("graph @g(%0 x: {inputs}) {{ {body} }}");
    let (good, low, high) = ([-5, 4, 0, 2, -1], [0, 1, -6, 2], [3, 2, 5]);
    for bad in [&low[..], &high[..], &[i64::MIN], &[i64::MAX]] {
        out_of_range(
            "gather of rows",
            &graph(
                "f32[5, 24], %1 i: i64[7]",
                "%2 = gather{axis=0}(%0, %1) @\"emb\" %3 = exp(%2) @\"exp\" return y = %3",
            ),
            &good,
            bad,
            "emb",
        );
    }
    for (name, types, body) in [
        (
            "gather of columns",
            "f32[24, 5], %1 i: i64[33]",
            "gather{axis=1}(%0, %1)",
        ),
        (
            "gather of bools",
            "bool[3, 5], %1 i: i64[2, 9]",
            "gather{axis=1}(%0, %1)",
        ),
        ("gather by i32", "f32[5], %1 i: i32[3]", "gather{axis=0}(%0, %1)"),
        (
            "gather_elements",
            "f32[4, 5], %1 i: i64[3, 37]",
            "gather_elements{axis=1}(%0, %1)",
        ),
        (
            "gather_nd",
            "f32[5, 6, 3], %1 i: i64[4, 2]",
            "gather_nd{batch_dims=0}(%0, %1)",
        ),
        (
            "scatter_elements",
            "f32[5, 4], %1 i: i64[5, 3], %2 u: f32[5, 3]",
            "scatter_elements{axis=0 reduction=none}(%0, %1, %2)",
        ),
        (
            "scatter_nd",
            "f32[5, 4], %1 i: i64[4, 1], %2 u: f32[4, 4]",
            "scatter_nd{reduction=add}(%0, %1, %2)",
        ),
    ] {
        let result = if name.starts_with("scatter") { "%3" } else { "%2" };
        let text = graph(types, &format!("{result} = {body} @\"node\" return y = {result}"));
        out_of_range(name, &text, &good, &high, "node");
    }
}

#[test]
fn the_node_whose_index_is_out_of_range_is_named() {
    // Both gathers are in one kernel, over a reduction, behind padding.
    let text = "graph @g(%0 x: f32[9, 40], %1 w: f32[5, 40], %2 i: i64[6]) {
      %3 = gather{axis=0}(%0, %2) @\"tokens\"
      %4 = gather{axis=0}(%1, %2) @\"positions\"
      %5 = add(%3, %4) @\"sum\"
      %6 = softmax{axis=1 zeros=never}(%5) @\"softmax\"
      %7 = pad{low=[2, 0] high=[1, 3] interior=[0, 0] fill=1.0}(%3) @\"pad\"
      return y = %6, z = %7
    }";
    out_of_range("two gathers", text, &[4, 0, -2], &[4, 6, 0], "positions");
    out_of_range("two gathers", text, &[4, 0, -2], &[4, 9, 0], "tokens");
}

#[test]
fn padding_is_not_indexed() {
    plain(
        "a gather behind padding",
        "graph @g(%0 x: f32[3, 4], %1 i: i64[2]) {
          %2 = gather{axis=0}(%0, %1)
          %3 = pad{low=[3, 1] high=[0, 2] interior=[1, 0] fill=0.5}(%2)
          return y = %3
        }",
    );
}

#[test]
fn wide_concatenations() {
    let concat = |n: usize, shape: &str, axis: usize, each: &str| {
        let inputs: Vec<String> = (0..n).map(|i| format!("%{i} x{i}: {shape}")).collect();
        let mut text = format!("graph @g({}) {{\n", inputs.join(", "));
        let mut last = n;
        let mut parts: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
        if !each.is_empty() {
            for (i, part) in parts.iter_mut().enumerate().filter(|(i, _)| i % 3 == 0) {
                text += &format!("  %{last} = {each}(%{i})\n");
                *part = format!("%{last}");
                last += 1;
            }
        }
        format!(
            "{text}  %{last} = concat{{axis={axis}}}({})\n  return y = %{last}\n}}",
            parts.join(", ")
        )
    };
    plain("rows", &concat(40, "f32[3, 16]", 0, ""));
    plain("columns", &concat(40, "f32[3, 16]", 1, ""));
    plain("short columns", &concat(40, "f32[33, 2]", 1, ""));
    plain("bytes", &concat(20, "bool[2, 77]", 1, ""));
    plain("some computed", &concat(30, "f32[4, 20]", 1, "exp"));
    plain("scalars' worth", &concat(20, "i64[1]", 0, ""));
    everywhere(
        "symbols",
        &concat(20, "f32[n, 16, m]", 1, ""),
        &[
            &[("n", 2), ("m", 3)],
            &[("n", 1), ("m", 40)],
            &[("n", 0), ("m", 5)],
            &[("n", 300), ("m", 64)],
        ],
        Fill::Plain,
    );
}
