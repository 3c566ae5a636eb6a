//! Memory that a step reads and writes.

use crate::program::Program;
use crate::{Tensor, loops, structured};

const NEGATE: &str = "loops @negate(b0: f32[4] in, b1: f32[4] out) {
  for i0 parallel 0..4 { r0: f32 = load b0[i0] r1: f32 = neg r0 store b1[i0] = r1 }
}";

/// `y = kernel(kernel(x))`, the second time in the memory of a temporary.
fn program(view: &str, kernel: &str) -> String {
    format!(
        "program @p(x: s0) -> (y: s3) {{
  input s0: f32[4] = 0
  temp s1: f32[6]
  view s2: f32[4] = {view}
  output s3: f32[4] = 0
  view s4: f32[4] = s1
  call @negate(s0, s4)
  call @negate(s4, s2)
  copy s2 -> s3
}}
{kernel}"
    )
}

fn parse(text: &str) -> Program {
    Program::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e} in\n{text}"))
}

#[test]
fn a_kernel_writes_over_its_operand() {
    let p = parse(&program("s1", NEGATE));
    p.verify().expect("points read what they write");
    let x = Tensor::from_f32(&[4], &[1., 2., 3., 4.]);
    assert_eq!(
        crate::program::interp::run(&p, std::slice::from_ref(&x)).expect("it runs")[0],
        x
    );
}

#[test]
fn other_sharing_is_refused() {
    let refused = |view: &str, kernel: &str| {
        let e = parse(&program(view, kernel)).verify().expect_err("shared memory");
        assert_eq!(
            e, "program @p, step 1: s2 is written and may share memory with s4",
            "{view}"
        );
    };
    // A part of what is read, but another place of it.
    refused("s1 + 8", NEGATE);
    // Positions that data give.
    refused(
        "s1",
        "loops @negate(b0: f32[4] in, b1: f32[4] out) {
  for i0 parallel 0..4 { r0: i64 = index i0 r1: f32 = load b0[r0] r2: f32 = neg r1 store b1[i0] = r2 }
}",
    );
    // The operand of a product.
    refused(
        "s1",
        "loops @negate(b0: f32[4] in, b1: f32[4] out) {
  buffer b2: f32[32] private
  for i0 serial 0..32 { r0: f32 = const f32 1.0 store b2[i0] = r0 }
  tile b1[0; row 1] = b0[0; row 1, k 1] * b2[0] sum(1 by 0, 1 by 0, 1) rows 4 max 4 cols 1
}",
    );
}

#[test]
fn a_structured_kernel_is_proven() {
    let text = |at: &str| {
        program(
            "s1",
            &format!(
                "kernel @negate(o0: f32[4] in, o1: f32[4] out) outer(4) {{
  stage {{ read o0[{at}] body (v0: f32) {{ v1 = neg v0 }} -> v1 write o1[i0] }}
}}"
            ),
        )
    };
    let verify = |at: &str| {
        let p: Program<structured::Kernel> =
            Program::parse(&text(at), &|_| None).unwrap_or_else(|e| panic!("{e} in\n{}", text(at)));
        p.verify()
    };
    assert_eq!(verify("i0"), Ok(()));
    assert_eq!(
        verify("3 - i0"),
        Err("program @p, step 1: s2 is written and may share memory with s4".into())
    );
}

#[test]
fn the_interpreter_reports_what_was_overwritten() {
    let run = |loops: &str| {
        let kernel = format!("loops @negate(b0: f32[4] in, b1: f32[4] out) {{ {loops} }}");
        let p: Program<loops::Kernel> = parse(&program("s1", &kernel));
        let x = Tensor::from_f32(&[4], &[1., 2., 3., 4.]);
        crate::program::interp::run(&p, &[x]).map_err(|e| e.to_string())
    };
    let e = run("for i0 serial 0..4 { r0: f32 = load b0[0] store b1[i0] = r0 }").expect_err("a read behind a write");
    assert!(
        e.ends_with("load from b0[0], which is the memory of b1 and was written"),
        "{e}"
    );
    let e = run("for i0 parallel 0..4 { r0: f32 = load b0[3] store b1[i0] = r0 }").expect_err("a race");
    assert!(e.contains("a race: thread 0 of block 3 writes b1[3]"), "{e}");
}

/// A program that writes `y`, by default in the memory of `x`, and `z`.
fn aliased(over: &str, steps: &str) -> Result<(), String> {
    let text = format!(
        "program @p(x: s0) -> (y: s1, z: s2) {{
  input s0: f32[4] = 0
  output s1: f32[4] = 0{over}
  output s2: f32[4] = 1
  {steps}
}}
{NEGATE}"
    );
    parse(&text).verify()
}

#[test]
fn an_output_in_the_memory_of_an_input() {
    for over in ["", " over s0"] {
        for steps in [
            "copy s0 -> s2 copy s0 -> s1",
            // It still holds what the input held.
            "copy s0 -> s1 copy s0 -> s2",
            "copy s0 -> s2 call @negate(s0, s1)",
            "call @negate(s0, s1) call @negate(s1, s2)",
        ] {
            assert_eq!(aliased(over, steps), Ok(()), "{steps}");
        }
    }
}

#[test]
fn what_was_overwritten_is_not_read() {
    for steps in [
        "call @negate(s0, s1) copy s0 -> s2",
        "copy s0 -> s1 copy s0 -> s2 call @negate(s2, s1) call @negate(s0, s2)",
    ] {
        assert_eq!(aliased("", steps), Ok(()), "{steps}");
        let e = aliased(" over s0", steps).expect_err("the input is gone");
        assert!(
            e.ends_with("s0 is read when the output that may be its memory was written"),
            "{e}"
        );
    }
    // Neither in the next iteration of a loop.
    let text = "program @p(x: s0, c: s3) -> (y: s1) {
  input s0: f32[4] = 0
  output s1: f32[4] = 0 over s0
  temp s2: bool[]
  input s3: bool[] = 1
  copy s3 -> s2
  copy s0 -> s1
  while s2 {
    call @negate(s0, s1)
    copy s3 -> s2
  }
}";
    let e = parse(&format!("{text}\n{NEGATE}"))
        .verify()
        .expect_err("the input is gone");
    assert!(
        e.ends_with("step 3: s0 is read when the output that may be its memory was written"),
        "{e}"
    );
    let text = text.replace(" over s0", "");
    assert_eq!(parse(&format!("{text}\n{NEGATE}")).verify(), Ok(()));
}

#[test]
fn rejected_aliases() {
    let of = |text: &str| parse(text).verify().expect_err("no such alias");
    assert_eq!(
        of("program @p(x: s0) -> (y: s1) { input s0: f32[4] = 0 output s1: f32[2, 2] = 0 over s0 copy s0 -> s1 }"),
        "program @p: output 0 and input 0 in one memory: f32[2, 2] and f32[4]"
    );
    assert_eq!(
        of(
            "program @p(x: s0) -> (y: s1, z: s2) { input s0: f32[4] = 0 output s1: f32[4] = 0 over s0
            output s2: f32[4] = 1 over s0 copy s0 -> s1 copy s0 -> s2 }"
        ),
        "program @p: output 1 and input 0 in one memory: one of them shares with another"
    );
    let e = Program::<loops::Kernel>::parse(
        "program @p(x: s0) -> (y: s1) { input s0: f32[4] = 0 output s1: f32[4] = 0 over s1 copy s0 -> s1 }",
        &|_| None,
    );
    assert_eq!(e.map(|_| ()).expect_err("no input").to_string(), "1:80: s1 is no input");
}
