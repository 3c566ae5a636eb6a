//! Small element types (floats of 8 bits and fewer, integers of 4 and 2) on every level: all their codes, and numbers around all
//! of them, converted, moved, chosen and compared by the interpreters and by machine code for each CPU level that runs here.
//! Everything agrees bit for bit with the reference evaluation, whose meaning of codes `ir/src/minifloat/tests.rs` holds against
//! the specifications.

use brolga::levels;
use brolga::{Options, compile, tensors};
use brolga_ir::{DType, Graph, Number, Small, Tensor, program};
use brolga_tests::{targets, unequal};

fn small_types() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|d| d.small().is_some())
}

/// Runs a graph on every level, and compares it with its own evaluation.
fn everywhere(text: &str, inputs: &[Tensor]) {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(Graph::parse(&g.to_string(), &|_| None).unwrap(), g);
    let wanted = g.eval(inputs).unwrap_or_else(|e| panic!("{e}\n{g}"));
    let same = |what: &str, found: &[Tensor]| {
        assert_eq!(found.len(), wanted.len(), "{what}");
        for (i, (f, w)) in found.iter().zip(&wanted).enumerate() {
            if let Some(m) = unequal(f, w) {
                panic!("{what}: output `{}`: {m}\n{g}", g.outputs[i].0);
            }
        }
    };
    for target in targets() {
        let options = Options {
            target,
            ..Options::default()
        };
        let cpu = options.target.name;
        let structured = levels::optimise(&g, &options).and_then(|(cut, _)| levels::structured(&cut, &options));
        let structured = structured.unwrap_or_else(|e| panic!("{e}\n{g}"));
        let loops = levels::program(&structured, &options).unwrap_or_else(|e| panic!("{e}\n{g}"));
        same(
            &format!("structured for {cpu}"),
            &program::interp::run(&structured, inputs).unwrap(),
        );
        same(
            &format!("loops for {cpu}"),
            &program::interp::run(&loops, inputs).unwrap(),
        );
        let session = compile(&g, &options).and_then(|c| c.session_with(1, u64::MAX));
        let session = session.unwrap_or_else(|e| panic!("{e}\n{g}"));
        let views: Vec<_> = inputs.iter().map(tensors::view).collect();
        let found: Vec<Tensor> = session.run(&views).unwrap().iter().map(tensors::to_tensor).collect();
        same(&format!("compiled for {cpu}"), &found);
    }
}

/// All codes of a type, twice and some more, so that vectors and what is left of them see each.
fn codes(d: DType) -> Tensor {
    let n = 1usize << d.packed_bits();
    let code = |i: usize| match d.small() {
        Some(Small::Signed(_)) => Tensor::scalar(d, Number::Int((i % n) as i128)).bytes()[0],
        _ => (i % n) as u8,
    };
    let bytes: Vec<u8> = (0..2 * n + 37).map(code).collect();
    Tensor::new(d, vec![bytes.len()], bytes).unwrap()
}

/// Numbers around all that a type has: themselves, halves, what lies next to them, and what is far outside.
fn numbers(d: DType) -> Vec<f64> {
    let mut own: Vec<f64> = codes(d).to_f64s().into_iter().filter(|x| x.is_finite()).collect();
    own.sort_by(f64::total_cmp);
    own.dedup();
    let last = own.len() - 1;
    own.push(2.0 * own[last] - own[last - 1]);
    let mut out = vec![
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        1e-60,
    ];
    for pair in own.windows(2) {
        let half = ((pair[0] + pair[1]) / 2.0) as f32;
        let near = [pair[0] as f32, half, pair[1] as f32];
        out.extend(
            near.iter()
                .flat_map(|x| [x.next_down(), *x, x.next_up()])
                .map(f64::from),
        );
    }
    out
}

#[test]
fn codes_become_numbers() {
    for d in small_types() {
        let x = codes(d);
        let others = ["f32", "f64", "f16", "bf16", "i64", "i32", "i8", "u8", "bool"];
        let mut text = format!("graph @g(%0 x: {d}[{}]) {{\n", x.len());
        let mut outs = vec![];
        for (i, to) in others.iter().enumerate() {
            text += &format!("  %{} = cast{{to={to}}}(%0)\n", i + 1);
            outs.push(format!("{to} = %{}", i + 1));
        }
        everywhere(&format!("{text}  return {}\n}}", outs.join(", ")), &[x]);
    }
}

#[test]
fn numbers_become_codes() {
    for d in small_types() {
        let floats = numbers(d);
        let whole: Vec<i128> = (-40..300).chain([1 << 31, -(1 << 33), 1 << 40]).collect();
        let of = |t: DType| match t.is_float() {
            true => Tensor::from_fn(t, &[floats.len()], |i| Number::Float(floats[i])),
            false => Tensor::from_fn(t, &[whole.len()], |i| Number::Int(whole[i])),
        };
        let from = [
            DType::F32,
            DType::F64,
            DType::F16,
            DType::BF16,
            DType::I64,
            DType::I32,
            DType::U8,
            DType::I8,
            DType::Bool,
        ];
        let inputs: Vec<Tensor> = from.into_iter().map(of).collect();
        let params = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| format!("%{i} x{i}: {}[{}]", t.dtype(), t.len()));
        let n = inputs.len();
        let mut text = format!("graph @g({}) {{\n", params.collect::<Vec<_>>().join(", "));
        let mut outs = vec![];
        for i in 0..n {
            text += &format!("  %{} = cast{{to={d}}}(%{i})\n", n + i);
            outs.push(format!("y{i} = %{}", n + i));
        }
        everywhere(&format!("{text}  return {}\n}}", outs.join(", ")), &inputs);
    }
}

#[test]
fn codes_become_codes() {
    for d in small_types() {
        let x = codes(d);
        let mut text = format!("graph @g(%0 x: {d}[{}]) {{\n", x.len());
        let mut outs = vec![];
        for (i, to) in small_types().filter(|t| *t != d).enumerate() {
            text += &format!("  %{} = cast{{to={to}}}(%0)\n", i + 1);
            outs.push(format!("{to} = %{}", i + 1));
        }
        everywhere(&format!("{text}  return {}\n}}", outs.join(", ")), &[x]);
    }
}

#[test]
fn codes_are_moved_chosen_and_compared() {
    for d in small_types() {
        let byte = d.stored();
        let text = format!(
            "graph @g(%0 x: {d}[6, 10], %1 z: {d}[6, 10], %2 c: bool[6, 10], %3 i: i64[4]) {{
               %4 = transpose{{perm=[1, 0]}}(%0)
               %5 = pad{{low=[1, 0] high=[0, 3] interior=[0, 0] fill=1.0}}(%0)
               %6 = concat{{axis=0}}(%0, %1)
               %7 = slice{{starts=[1, 2] sizes=[3, 4] steps=[2, 2]}}(%0)
               %8 = gather{{axis=1}}(%0, %3)
               %9 = where(%2, %0, %1)
               %10 = equal(%0, %1)
               %11 = bitcast{{to={byte}}}(%0)
               %12 = reshape{{shape=[4, 15]}}(%0)
               %13 = const {d}[3] [0.0, 1.0, 0.0]
               %14 = cast{{to=f32}}(%0)
               %15 = cast{{to={d}}}(%14)
               %16 = cast{{to=f32}}(%13)
               return t = %4, p = %5, j = %6, s = %7, g = %8, w = %9, e = %10, b = %11, r = %12, k = %13, back = %15, wide = %16
             }}"
        );
        // Scales have no zero, and whole numbers no point.
        let one = |n: &str| match d.is_real() {
            true => n.to_string(),
            false => n.trim_end_matches(".0").to_string(),
        };
        let text = text.replace(
            "[0.0, 1.0, 0.0]",
            &format!("[{}, {}, {}]", one("1.0"), one("1.0"), one("1.0")),
        );
        let all = codes(d);
        let of = |step: usize| {
            let bytes: Vec<u8> = (0..60).map(|i| all.bytes()[i * step % all.len()]).collect();
            Tensor::new(d, vec![6, 10], bytes).unwrap()
        };
        let chosen = Tensor::from_fn(DType::Bool, &[6, 10], |i| Number::Int((i * 7 % 3 == 0).into()));
        everywhere(&text, &[of(1), of(5), chosen, Tensor::from_i64(&[4], &[3, 0, 9, 3])]);
    }
}

#[test]
fn nothing_computes_with_them() {
    for d in small_types() {
        for (op, rest) in [
            ("add", "(%0, %0)"),
            ("neg", "(%0)"),
            ("less", "(%0, %0)"),
            ("reduce{kind=sum axes=[0]}", "(%0)"),
        ] {
            let text = format!("graph @g(%0 x: {d}[4]) {{ %1 = {op}{rest} return y = %1 }}");
            let e = Graph::parse(&text, &|_| None).expect_err(op).to_string();
            assert!(e.contains(d.name()), "{e}");
        }
    }
}
