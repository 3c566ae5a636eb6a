use super::interp::run;
use super::*;
use crate::graph::Source;
use crate::{DType, Number, structured};
use std::sync::Arc;

/// A file of the f32 values 0, 1, 2, ….
struct Ramp(Vec<u8>);

impl Source for Ramp {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn name(&self) -> &str {
        "ramp.bin"
    }
}

fn files(name: &str) -> Option<Arc<dyn Source>> {
    let bytes = (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect();
    (name == "ramp.bin").then(|| Arc::new(Ramp(bytes)) as Arc<dyn Source>)
}

#[track_caller]
fn parse<K: Callable>(text: &str) -> Program<K> {
    let p = Program::parse(text, &files).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    assert!(Program::parse(&p.to_string(), &files).unwrap() == p, "{p}");
    p
}

const KERNELS: &str = "
loops @double(b0: f32[4] in, b1: f32[4] out) {
  for i0 serial 0..4 {
    r0: f32 = load b0[i0]
    r1: f32 = add r0 r0
    store b1[i0] = r1
  }
}
loops @add(b0: f32[4*n] in, b1: f32[4] in, b2: f32[4*n] out) symbols(n) {
  for i0 parallel 0..n {
    for i1 vector 0..4 {
      r0: f32 = load b0[4*i0 + i1]
      r1: f32 = load b1[i1]
      r2: f32 = add r0 r1
      store b2[4*i0 + i1] = r2
    }
  }
}";

/// Indices reach a gather through a copy and a kernel; what is gathered from, and what is added, do not steer.
#[test]
fn what_reaches_an_index_steers() {
    let p: Program = parse(
        "program @p(x: s0) -> (y: s5) {
  input s0: f32[4] = 0
  weight s1: f32[4] file(\"ramp.bin\", 0)
  weight s2: f32[4] file(\"ramp.bin\", 16)
  temp s3: f32[4]
  temp s4: f32[4]
  output s5: f32[4] = 0
  weight s6: f32[4] splat 0.5
  copy s1 -> s3
  call @double(s3, s4)
  call @look_up(s0, s4, s2, s5)
  call @double(s6, s3)
}
loops @look_up(b0: f32[4] in, b1: f32[4] in, b2: f32[4] in, b3: f32[4] out) {
  for i0 serial 0..4 {
    r0: f32 = load b1[i0]
    r1: i64 = cast i64 r0
    r2: f32 = load b0[r1]
    r3: f32 = load b2[i0]
    r4: f32 = add r2 r3
    store b3[i0] = r4
  }
}
loops @double(b0: f32[4] in, b1: f32[4] out) {
  for i0 serial 0..4 {
    r0: f32 = load b0[i0]
    r1: f32 = add r0 r0
    store b1[i0] = r1
  }
}",
    );
    let mut found: Vec<u32> = p.steering().into_iter().map(|s| s.0).collect();
    found.sort_unstable();
    // The last step makes what it writes steer as a whole, and so what it reads: order does not count.
    assert_eq!(found, [1, 3, 4, 6]);
}

/// y = relu(x + 2w) + 0.5 + (x + 2w), z = w.
fn model(arena: &str, places: [&str; 3]) -> String {
    let [a, b, c] = places;
    format!(
        "program @model(x: s0) -> (y: s8, \"the w\": s9) symbols(n){arena} {{
  guard n == 2*floordiv(n, 2): \"rows come in pairs\"
  input s0: f32[n, 4] = 0
  weight s1: f32[4] file(\"ramp.bin\", 12)
  computed s2: f32[4]
  weight s3: f32[4] splat 0.5
  temp s4: f32[n, 4]{a}
  view s5: f32[4*n] = s4
  temp s6: f32[4*n]{b}
  temp s7: f32[n, 4]{c}
  output s8: f32[n, 4] = 0
  output s9: f32[4] = 1
  init {{
    call @double(s1, s2)
  }}
  call @add(s0, s2, s4) origin(\"Add_0\", \"Mul \\\"1\\\"\")
  host relu(s5) -> (s6) origin(\"Relu_2\")
  call @add(s6, s3, s7)
  host add(s4, s7) -> (s8)
  copy s1 -> s9
}}{KERNELS}"
    )
}

fn check(p: &Program, rows: usize) -> bool {
    let x = Tensor::from_fn(DType::F32, &[rows, 4], |i| Number::Float(i as f64 * 3.0 - 20.0));
    let out = run(p, std::slice::from_ref(&x)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(out[1].to_f32s(), [3., 4., 5., 6.]);
    let want = (0..rows * 4).map(|i| {
        let t = x.to_f32s()[i] + 2.0 * ((i % 4) as f32 + 3.0);
        t.max(0.0) + 0.5 + t
    });
    out[0].to_f32s() == want.collect::<Vec<f32>>()
}

#[test]
fn a_program_runs_with_and_without_a_plan() {
    let free = parse(&model("", ["", "", ""]));
    let planned = parse(&model(" arena 48*n", [" at 0", " at 16*n", " at 32*n"]));
    for rows in [0, 2, 6] {
        assert!(check(&free, rows) && check(&planned, rows), "{rows} rows");
    }
    // s6 dies where s7 is born: with known sizes the verifier would see it, with symbols the result is wrong.
    let wrong = parse(&model(" arena 32*n", [" at 0", " at 16*n", " at 0"]));
    assert!(!check(&wrong, 2));
    assert_ne!(free, planned);
    assert_eq!(planned.scratch_bytes(), Dim::ZERO);
}

#[test]
fn a_structured_program() {
    let text = "program @two(x: s0) -> (y: s3) symbols(n) {
  input s0: f32[n, 4] = 0
  weight s1: f32[4, 3] file(\"ramp.bin\", 0)
  computed s2: f32[4, 3] layout(1, 0, 1:32)
  output s3: f32[n, 3] = 0
  init { call @pack(s1, s2) }
  call @dense(s0, s2, s3) origin(\"MatMul\")
}
kernel @pack(o0: f32[4, 3] in, o1: f32[4, 3] out layout(1, 0, 1:32)) outer(4, 3) {
  stage { read o0[i0, i1] body (v0: f32) { } -> v0 write o1[i0, i1] }
}
kernel @dense(o0: f32[n, 4] in, o1: f32[4, 3] in layout(1, 0, 1:32), o2: f32[n, 3] out) symbols(n) outer(n, 3) {
  stage reduce(4) {
    read o0[i0, i2]
    read o1[i2, i1]
    body (v0: f32, v1: f32) { v2 = mul v0 v1 } -> v2
    combine free init(f32 0.0) (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
      merge (v0: f32, v1: f32) { v2 = add v0 v1 } -> v2
    write o2[i0, i1]
  }
}";
    let p: Program<structured::Kernel> = parse(text);
    let x = Tensor::from_f32(&[2, 4], &[1., 0., 0., 0., 1., 1., 1., 1.]);
    assert_eq!(run(&p, &[x]).unwrap()[0].to_f32s(), [0., 1., 2., 18., 22., 26.]);
    let e = parse::<structured::Kernel>(&text.replace("s2: f32[4, 3] layout(1, 0, 1:32)", "s2: f32[4, 3]"))
        .verify()
        .unwrap_err();
    assert_eq!(
        e,
        "program @two, initial step 0: s2 has 12 elements, but parameter 1 of @pack has 128"
    );
    parse::<structured::Kernel>(&text.replace("output s3: f32[n, 3]", "output s3: f32[3, n]"))
        .verify()
        .unwrap();
    let e = parse::<structured::Kernel>(&text.replace("s2: f32[4, 3] layout", "s2: f32[4, 5] layout")).verify();
    assert_eq!(
        e.unwrap_err(),
        "program @two, initial step 0: s2 is f32[4, 5] layout(1, 0, 1:32), but parameter 1 of @pack is f32[4, 3] layout(1, 0, 1:32)"
    );
}

#[test]
fn what_the_interpreter_reports() {
    let p: Program = parse(&model("", ["", "", ""]));
    let fails = |p: &Program, inputs: &[Tensor], message: &str| {
        assert_eq!(run(p, inputs).unwrap_err().to_string(), format!("@model{message}"));
    };
    let x = |shape: &[usize]| Tensor::splat(DType::F32, shape, Number::Float(1.0));
    fails(&p, &[], ": 0 inputs given, 1 expected");
    fails(
        &p,
        &[x(&[2, 3])],
        ": input `x` is f32[2, 3], expected f32[n, 4] (symbols: [(\"n\", 2)])",
    );
    fails(
        &p,
        &[x(&[3, 4])],
        ": n == 2*floordiv(n, 2) (rows come in pairs) does not hold: found 3 and 2",
    );
    let outside: Program = parse(&model(" arena 16*n", [" at 0", " at 16*n", " at 0"]));
    fails(
        &outside,
        &[x(&[2, 4])],
        ": s6 lies at 32, outside of an arena of 32 bytes",
    );
    let bad: Program = parse(&model("", ["", "", ""]).replace("load b1[i1]", "load b1[i1 + 1]"));
    fails(
        &bad,
        &[x(&[2, 4])],
        ", step 0: @add, statement 0.0.1: load from b1[4], which has 4 elements",
    );
}

#[track_caller]
fn reject(change: &[(&str, &str)], message: &str) {
    let mut text = model("", ["", "", ""]);
    for (from, to) in change {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let p: Program = Program::parse(&text, &files).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    assert_eq!(p.verify().unwrap_err(), format!("program @model{message}"));
}

/// A view of rows with gaps has such rows, whatever its rank.
#[test]
fn views_of_rows_with_gaps() {
    let refused = |view: &str| {
        let text = model("", ["", "", ""])
            .replacen("temp s4: f32[n, 4]", "temp s4: f32[n, 4] layout(0, 1 gap 16)", 1)
            .replacen("s5: f32[4*n]", &format!("s5: {view}"), 1);
        let p: Program = parse(&text);
        let e = p.verify().expect_err("the kernels have no gaps");
        e.contains("a view of s4, which has the layout")
    };
    assert!(!refused("f32[n, 1, 4] layout(0, 1, 2 gap 16)"));
    assert!(refused("f32[n, 4] layout(0, 1 gap 8)"));
    assert!(refused("f32[n, 4]"));
}

#[test]
fn rejected_slots() {
    reject(
        &[("guard n ==", "guard m ==")],
        ": guard `rows come in pairs`: the symbol `m` is not declared",
    );
    reject(
        &[("temp s4: f32[n, 4]", "temp s4: f32[n, m]")],
        ": s4: the symbol `m` is not declared",
    );
    reject(
        &[("temp s4: f32[n, 4]", "temp s4: f32[n, 4] at m")],
        ": s4: the symbol `m` is not declared",
    );
    reject(
        &[("temp s4: f32[n, 4]", "temp s4: f32[n, -4]")],
        ": s4: a negative extent in f32[n, -4]",
    );
    reject(
        &[("symbols(n)", "symbols(n) arena k")],
        ": arena: the symbol `k` is not declared",
    );
    reject(&[("= s4", "= s5")], ": s5: a view of itself");
    reject(&[("= s4", "= s40")], ": s5: a view of s40, which does not exist");
    reject(
        &[("s5: f32[4*n]", "s5: f32[8*n]")],
        ": s5: a view of 32*n bytes at 0 of s4, which has 16*n",
    );
    reject(
        &[("input s0: f32[n, 4]", "input s0: f32[n, 4] layout(1, 0)")],
        ": s0: the layout (1, 0) in the memory of the model or the caller",
    );
    reject(
        &[("temp s6: f32[4*n]", "temp s6: f32[4*n] layout(1, 0, 1:32)")],
        ": s6: the layout (1, 0, 1:32) of 2 axes for rank 1",
    );
    reject(
        &[("(x: s0)", "(x: s4)")],
        ": s0: input 0 is another slot or does not exist",
    );
    reject(&[("(x: s0)", "(x: s0, z: s4)")], ": s4 is not input 1, `z`");
    reject(
        &[("(y: s8,", "(y: s4,")],
        ": s8: output 0 is another slot or does not exist",
    );
    reject(
        &[("f32[4] = 1", "f32[4] = 2")],
        ": s9: output 2 is another slot or does not exist",
    );
}

#[test]
fn rejected_steps() {
    let second = "\nloops @twice(b0: f32[1] in) { }";
    let mut p: Program = Program::parse(&(model("", ["", "", ""]) + second), &files).unwrap();
    p.kernels[2].name = "add".into();
    assert_eq!(p.verify().unwrap_err(), "program @model: a second kernel @add");
    reject(
        &[("load b1[i1]", "load b1[i9]")],
        ": kernel @add, statement 0.0.1: i9 is no variable here",
    );
    reject(
        &[
            ("symbols(n) {\n  guard", "symbols(k) {\n  guard"),
            ("guard n == 2*floordiv(n, 2)", "guard 0 == 0"),
            ("s0: f32[n, 4]", "s0: f32[k, 4]"),
            ("s4: f32[n, 4]", "s4: f32[k, 4]"),
            ("s5: f32[4*n]", "s5: f32[4*k]"),
            ("s6: f32[4*n]", "s6: f32[4*k]"),
            ("s7: f32[n, 4]", "s7: f32[k, 4]"),
            ("s8: f32[n, 4]", "s8: f32[k, 4]"),
        ],
        ": kernel @add has a symbol that the program has not: Some(\"n\")",
    );
    reject(
        &[("call @add(s0, s2, s4)", "call @add(s0, s4)")],
        ", step 0: 2 arguments for @add, which has 3 parameters",
    );
    reject(
        &[("call @add(s0, s2, s4)", "call @add(s0, s77, s4)")],
        ", step 0: s77 does not exist",
    );
    reject(
        &[("call @add(s0, s2, s4)", "call @add(s0, s6, s4)")],
        ", step 0: s6 has 4*n elements, but parameter 1 of @add has 4",
    );
    reject(
        &[("s3: f32[4] splat", "s3: i64[4] splat")],
        ", step 2: s3 is i64, but parameter 1 of @add is f32",
    );
    reject(
        &[("copy s1 -> s9", "copy s4 -> s9")],
        ", step 4: a copy of 16*n bytes from s4 to 16 bytes of s9",
    );
    reject(
        &[("copy s1 -> s9", "copy s3 -> s1")],
        ", step 4: s1 is written, which this step must not do",
    );
    reject(
        &[("s4) origin", "s6) origin"), ("relu(s5)", "relu(s5)")],
        ", step 1: s5 is read before it is written",
    );
    reject(
        &[("copy s1 -> s9", "copy s9 -> s9")],
        ", step 4: s9 is read before it is written",
    );
    reject(&[("copy s1 -> s9", "")], ": no step writes the output `the w`, s9");
    reject(&[("call @double(s1, s2)", "")], ": no initial step computes s2");
    reject(
        &[("call @double(s1, s2)", "copy s1 -> s9")],
        ", initial step 0: s9 is written, which this step must not do",
    );
    reject(
        &[("call @add(s6, s3, s7)", "copy s1 -> s2")],
        ", step 2: s2 is written, which this step must not do",
    );
    reject(
        &[("relu(s5) -> (s6)", "relu(s4) -> (s6)")],
        ", step 1: relu gives [f32[n, 4]], the slots are [f32[4*n]]",
    );
    reject(
        &[("relu(s5) -> (s6)", "add(s5) -> (s6)")],
        ", step 1: add: `add` of (f32), expected 2 operands",
    );
}

#[test]
fn rejected_plans() {
    let known = |arena: &str, places: [&str; 3]| {
        let text = model(arena, places)
            .replace("symbols(n)", "")
            .replace("4*n", "8")
            .replace("for i0 parallel 0..n", "for i0 parallel 0..2");
        let text = text
            .replace("[n, 4]", "[2, 4]")
            .replace("n == 2*floordiv(n, 2)", "0 == 0");
        Program::<loops::Kernel>::parse(&text, &files).unwrap().verify()
    };
    known(" arena 96", [" at 0", " at 32", " at 64"]).unwrap();
    let e = known(" arena 96", [" at 0", " at 32", ""]).unwrap_err();
    assert_eq!(e, "program @model: s7 has no place in the arena");
    let e = known(" arena 64", [" at 0", " at 32", " at 64"]).unwrap_err();
    assert_eq!(e, "program @model: s7 lies at 64..96 of an arena of 64 bytes");
    let e = known(" arena 96", [" at 0", " at 64", " at 16"]).unwrap_err();
    assert_eq!(
        e,
        "program @model: s4 and s7 live at the same time and overlap in the arena"
    );
}

#[test]
fn bad_text_names_its_place() {
    let err = |s: &str| Program::<loops::Kernel>::parse(s, &files).unwrap_err().to_string();
    assert_eq!(err("programme @p"), "1:1: found `programme`, expected `program`");
    assert_eq!(
        err("program @p() -> () {\n  temp s1: f32[]\n}"),
        "2:8: found s1, expected s0"
    );
    assert_eq!(
        err("program @p() -> () {\n  call @k()\n}"),
        "2:8: there is no kernel @k"
    );
    assert_eq!(
        err("program @p() -> () {\n  jump\n}"),
        "2:3: found `jump`, expected a slot, a step or `}`"
    );
    assert_eq!(
        err("program @p() -> () { host relu(s0) -> (s1) origin(\"a\", \"b\") }"),
        "1:44: a host operator with several origins"
    );
    assert_eq!(
        err("program @p() -> () { }\nloops @k() { }\nloops @k() { }"),
        "3:1: a second kernel @k"
    );
    let e = err("program @p() -> () { weight s0: f32[2] file(\"x.bin\", 0) }");
    assert_eq!(e, "1:45: there is no file \"x.bin\" at hand");
}

const HEAD: &str = include_str!("../../../tests/programs/head.ir");
const POWERS: &str = include_str!("../../../tests/programs/powers.ir");

fn range(n: usize) -> Tensor {
    Tensor::from_f32(&[n], &(0..n).map(|i| i as f32 + 1.0).collect::<Vec<_>>())
}

fn number(dtype: DType, shape: &[usize], n: i64) -> Tensor {
    Tensor::splat(dtype, shape, Number::Int(n.into()))
}

/// A program with every temporary at an offset, as far as something bounds its size: one behind the other.
fn placed(text: &str, offsets: &[(&str, &str)], arena: &str) -> Program {
    let mut text = text.replacen("symbols(n) {", &format!("symbols(n) arena {arena} {{"), 1);
    for (slot, at) in offsets {
        assert!(text.contains(slot), "{slot}");
        text = text.replacen(slot, &format!("{slot} at {at}"), 1);
    }
    parse(&text)
}

fn heads() -> [Program; 2] {
    let places = [
        ("s2: f32[n + 4]", "0"),
        ("s5: f32[k]", "4*n + 16"),
        ("s10: f32[twice]", "8*n + 16"),
    ];
    [parse(HEAD), placed(HEAD, &places, "16*n + 16")]
}

#[test]
fn a_size_that_is_read_bounds_what_is_allocated() {
    for p in heads() {
        for (n, k) in [(5, 3), (5, 5), (1, 1)] {
            let out = run(&p, &[range(n), number(DType::I64, &[], k as i64)]).unwrap_or_else(|e| panic!("{e}"));
            let first: Vec<f32> = (0..k).map(|i| i as f32 + 1.0).collect();
            let twice: Vec<f32> = first.iter().map(|x| 2.0 * x).collect();
            assert_eq!(out[0].to_f32s(), [first, twice].concat());
            assert_eq!(out[1].shape(), [2 * n]);
        }
        let fails = |k: i64| {
            run(&p, &[range(5), number(DType::I64, &[], k)])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(fails(6), "@head, step 1: node `Shape_0`: `k` is 6, expected 0 to 5");
        assert_eq!(fails(-1), "@head, step 1: node `Shape_0`: `k` is -1, expected 0 to 5");
        let kept = "node `Check_1`: 1 <= k (something is kept) does not hold: found 1 and 0";
        assert_eq!(fails(0), format!("@head, step 2: {kept}"));
    }
}

#[test]
fn branches_and_loops_run() {
    let p = parse::<loops::Kernel>(POWERS);
    for (k, again) in [(3, true), (0, true), (4, false)] {
        let inputs = [
            range(3),
            number(DType::I32, &[1], k),
            number(DType::Bool, &[], again.into()),
        ];
        let out = run(&p, &inputs).unwrap_or_else(|e| panic!("{e}"));
        let f = |x: f32| if again { x * 2f32.powi(k as i32) } else { 1.0 - x };
        assert_eq!(out[0].to_f32s(), [f(1.0), f(2.0), f(3.0)]);
        assert_eq!(out[1], number(DType::I32, &[k as usize], k));
    }
    let inputs = [range(3), number(DType::I32, &[1], -2), number(DType::Bool, &[], 1)];
    let e = run(&p, &inputs).unwrap_err().to_string();
    assert_eq!(e, "@powers, step 0: node `Loop_0`: `k` is -2, expected 0");
}

#[test]
fn lives_go_on_throughout_a_loop() {
    let p = parse::<loops::Kernel>(POWERS);
    let lives = p.lives();
    // Steps are numbered in the order of the text: `if` is 5, `while` 9, its body 10 to 17.
    assert_eq!(lives[5], Some((6, 18)), "carried, and read behind the loop");
    assert_eq!(lives[6], Some((10, 11)), "written anew in each iteration");
    assert_eq!(lives[7], Some((7, 17)), "carried");
    assert_eq!(lives[9], Some((8, 17)), "the condition");
    assert_eq!(lives[11], Some((13, 14)), "of a size that an iteration tells");
}

#[test]
fn names_have_bounds_where_something_gives_them() {
    let bounds = |text: &str| {
        let b = parse::<loops::Kernel>(text).bounds();
        let mut all: Vec<String> = b.iter().map(|(s, d)| format!("{s} <= {d:?}")).collect();
        all.sort();
        all
    };
    assert_eq!(bounds(HEAD), ["k <= Some(n)", "twice <= Some(2*n)"]);
    assert_eq!(bounds(POWERS), ["k <= None", "left <= None"]);
}

#[track_caller]
fn refuse(text: &str, change: &[(&str, &str)], message: &str) {
    let mut text = text.to_string();
    for (from, to) in change {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let p: Program = Program::parse(&text, &files).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    let e = p.verify().unwrap_err();
    assert_eq!(e.split_once(": ").map(|(_, e)| e), Some(message), "{e}");
}

#[test]
fn rejected_names() {
    refuse(
        HEAD,
        &[("let most = 2*n", "let most = 2*k")],
        "`let most = 2*k`: the symbol `k` is not declared",
    );
    refuse(
        HEAD,
        &[("let most = 2*n", "let n = 2*n")],
        "`let n = 2*n`: the symbol is known already",
    );
    refuse(
        HEAD,
        &[("let most = 2*n", "let most = -2")],
        "`let most = -2`: it is negative",
    );
    refuse(HEAD, &[("let twice = 2*k", "let most = 2*k")], "a second symbol `most`");
    refuse(
        HEAD,
        &[("input s0: f32[n]", "input s0: f32[k]")],
        "s0: the symbol `k` is not declared",
    );
    refuse(
        HEAD,
        &[
            ("  let twice = 2*k\n", ""),
            ("alloc s10", "let twice = 2*k\n alloc s10"),
            ("alloc s5 origin", "alloc s10 alloc s5 origin"),
        ],
        "s10: the symbol `twice` is not declared",
    );
    refuse(
        HEAD,
        &[("read k = s1 <= n", "read k = s0 <= n")],
        "s0 is f32[n], expected one integer or bool",
    );
    refuse(
        HEAD,
        &[("check 1 <= k", "check 1 <= twice")],
        "the symbol `twice` is not declared",
    );
    // A name of a block is unknown behind it.
    refuse(
        POWERS,
        &[("    copy s5 -> s3\n", "    copy s5 -> s3\n alloc s11\n")],
        "s11: the symbol `left` is not declared",
    );
}

#[test]
fn rejected_memory() {
    refuse(
        HEAD,
        &[("  alloc s5 origin(\"Mul_2\")\n", "")],
        "s5 is used before it has memory",
    );
    refuse(
        HEAD,
        &[("  alloc s3 origin(\"Concat_3\")\n", "")],
        "s8 is used before it has memory",
    );
    refuse(
        HEAD,
        &[("alloc s10\n", "alloc s10 alloc s2\n")],
        "s2 has its memory from the start, or is a view",
    );
    refuse(
        HEAD,
        &[("alloc s10\n", "alloc s10 alloc s3\n")],
        "the output s3 is given memory twice",
    );
    refuse(
        POWERS,
        &[(
            "  alloc s4 origin(\"Expand_1\")\n  copy s10 -> s4",
            "if s2 { alloc s4 copy s10 -> s4 }",
        )],
        "the output s4 is given memory in a block",
    );
    refuse(
        HEAD,
        &[("s3 + 4*k", "s3 + 8*k")],
        "s9: a view of 4*k bytes at 8*k of s3, which has 8*k",
    );
    refuse(
        HEAD,
        &[("s4: f32[k] = s2 + 16", "s4: f32[k] = s2 + n")],
        "s4: a view of 4*k bytes at n of s2, which has 4*n + 16",
    );
    refuse(HEAD, &[("  copy s5 -> s9\n", "")], "no step writes the output `y`, s3");
    refuse(
        HEAD,
        &[("copy s4 -> s8", "copy s3 -> s3")],
        "s3 is read before it is written",
    );
    refuse(
        HEAD,
        &[("copy s0 -> s6", "copy s0 -> s6 copy s6 -> s6")],
        "s6 is written and may share memory with s6",
    );
}

#[test]
fn rejected_blocks() {
    refuse(POWERS, &[("if s2", "if s1")], "s1 is i32[1], expected one bool");
    refuse(
        POWERS,
        &[("while s9", "while s2")],
        "s2 is the condition of a loop that never writes it",
    );
    refuse(
        POWERS,
        &[("    call @complement(s0, s3)\n", "")],
        "no step writes the output `y`, s3",
    );
    refuse(
        POWERS,
        &[("    copy s0 -> s5\n", "")],
        "s5 is read before it is written",
    );
    // The loop may not run at all.
    refuse(
        POWERS,
        &[("copy s5 -> s3", "copy s6 -> s3")],
        "s6 is read before it is written",
    );
    refuse(
        POWERS,
        &[("  read k = s1", "  init { check 0 == 0: \"\" }\n  read k = s1")],
        "the compiler runs calls and copies only",
    );
}

#[test]
fn blocks_print_and_have_a_depth() {
    let text = "program @p() -> () {\n  init {\n  }\n  let a = 1\n  if s0 {\n    while s0 {\n      let b = a\n    }\n  } else {\n    read c = s0\n  }\n}";
    assert_eq!(parse::<loops::Kernel>(text).to_string(), text);
    let deep = format!("program @p() -> () {{ {} }}", "while s0 { ".repeat(70));
    let e = Program::<loops::Kernel>::parse(&deep, &files).unwrap_err();
    assert_eq!(e.message, "more than 64 blocks inside each other");
}
