use super::*;
use crate::loops::interp::{self, BufferData};

/// Runs a kernel of one operand of these bytes both ways.
fn same(text: &str) {
    let k: Kernel = text.parse().expect("a kernel");
    let moves = Moves::of(&k).unwrap_or_else(|| panic!("only moves: {text}"));
    let bytes = |i: usize| k.buffers[i].len.as_const().unwrap() as usize * k.buffers[i].dtype.bytes();
    let from: Vec<u8> = (0..bytes(0)).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut want, mut got) = (vec![0xa5; bytes(1)], vec![0xa5; bytes(1)]);
    interp::run(
        &k,
        &|_| None,
        &[BufferData::from(&from[..]), BufferData::from(&mut want[..])],
    )
    .expect("it runs");
    moves.run(&[&from], &mut [&mut got]).expect("it runs");
    assert!(got == want, "{text}");
}

fn is_none(text: &str) -> bool {
    Moves::of(&text.parse().expect("a kernel")).is_none()
}

#[test]
fn panels() {
    for (dtype, zero) in [("f32", "0.0"), ("f16", "0.0"), ("f64", "0.0"), ("i8", "0")] {
        same(&format!(
            "loops @pack(b0: {dtype}[1800] in, b1: {dtype}[2560] out) {{
                for i0 parallel(1280 from 40000) 0..2 {{
                    for i2 serial 0..40 {{
                        for i3 unrolled 0..2 {{
                            for i4 vector 0..16 {{
                                r0: {dtype} = load b0[1280*i0 + i2 + 640*i3 + 40*i4] where (32*i0 + 16*i3 + i4 in 0..45) else {dtype} {zero}
                                store b1[1280*i0 + 32*i2 + 16*i3 + i4] = r0
                            }}
                        }}
                    }}
                }}
            }}"
        ));
    }
}

#[test]
fn transpositions_of_divided_positions() {
    same(
        "loops @transpose(b0: f32[2352] in, b1: f32[2352] out) {
            for i0 parallel 0..147 {
                for i1 vector 0..16 {
                    r0: f32 = load b0[div(i0, 3) + 49*rem(i0, 3) + 147*i1]
                    store b1[16*i0 + i1] = r0
                }
            }
        }",
    );
}

#[test]
fn margins_on_two_sides_and_in_two_dimensions() {
    same(
        "loops @pad(b0: f32[35] in, b1: f32[120] out) {
            for i0 parallel 0..10 {
                for i1 serial 0..12 {
                    r0: f32 = load b0[7*i0 + i1 - 16] where (i0 - 2 in 0..5, i1 - 2 in 0..7) else f32 1.5
                    store b1[12*i0 + i1] = r0
                }
            }
        }",
    );
    // From the end on, two elements at once; both dimensions decide whether one is there.
    same(
        "loops @flip(b0: i16[20] in, b1: i16[24] out) {
            for i0 serial 0..2 {
                for i1 serial 0..12 {
                    r0: i16 = load b0[18 - 2*i1 + i0] where (18 - 2*i1 + i0 in 0..20) else i16 -1
                    store b1[12*i0 + i1] = r0
                }
            }
        }",
    );
}

#[test]
fn pieces_and_constants() {
    same(
        "loops @pieces(b0: i64[30] in, b1: i64[60] out) {
            for i0 parallel 0..3 {
                for i1 unrolled 0..2 {
                    for i2 vector 0..4 {
                        r0: i64 = load b0[10*i0 + 4*i1 + i2]
                        store b1[20*i0 + 4*i1 + i2] = r0
                    }
                }
                for i3 serial 0..2 {
                    r1: i64 = load b0[10*i0 + i3 + 8]
                    r2: i64 = const i64 -7
                    store b1[20*i0 + i3 + 8] = r1
                    store b1[20*i0 + i3 + 10] = r2
                }
                for i4 serial 0..8 {
                    r3: i64 = const i64 9
                    store b1[20*i0 + i4 + 12] = r3
                }
                for i5 serial 0..0 { r4: i64 = load b0[0] store b1[0] = r4 }
            }
        }",
    );
}

#[test]
fn what_does_more_is_left_to_machine_code() {
    let with =
        |body: &str| format!("loops @k(b0: f32[64] in, b1: f32[64] out) {{ for i0 parallel 0..8 {{ {body} }} }}");
    assert!(!is_none(&with("r0: f32 = load b0[i0] store b1[i0] = r0")));
    // Arithmetic; what was written; one place for many; another dtype; places from data.
    assert!(is_none(&with(
        "r0: f32 = load b0[i0] r1: f32 = add r0 r0 store b1[i0] = r1"
    )));
    assert!(is_none(&with("r0: f32 = load b1[i0 + 8] store b1[i0] = r0")));
    assert!(is_none(&with(
        "for i1 serial 0..8 { r0: f32 = load b0[i0 + i1] store b1[i0] = r0 }"
    )));
    assert!(!is_none(&with(
        "for i1 serial 0..8 { r0: f32 = load b0[i0 + i1] store b1[8*i0 + i1] = r0 }"
    )));
    assert!(is_none(
        "loops @k(b0: bool[64] in, b1: bool[64] out) { for i0 parallel 0..8 { r0: bool = load b0[i0] store b1[i0] = r0 } }"
    ));
    assert!(is_none(
        "loops @k(b0: f32[n] in, b1: f32[n] out) symbols(n) {
        for i0 parallel 0..n { r0: f32 = load b0[i0] store b1[i0] = r0 } }"
    ));
}

#[test]
fn errors_say_what_does_not_fit() {
    let k: Kernel = "loops @k(b0: f32[4] in, b1: f32[8] out) {
        for i0 parallel 0..8 { r0: f32 = load b0[i0] store b1[i0] = r0 } }"
        .parse()
        .expect("a kernel");
    let moves = Moves::of(&k).expect("it moves");
    let mut to = [0; 32];
    assert_eq!(
        moves.run(&[&[0; 16]], &mut [&mut to]).unwrap_err(),
        "elements 0 to 7 of 4"
    );
    assert!(
        moves
            .run(&[&[0; 15]], &mut [&mut to])
            .unwrap_err()
            .contains("[[16], [32]] bytes")
    );
}

#[test]
fn bounds_are_solved_exactly() {
    for first in -9..9 {
        for stride in [-3, -2, -1, 1, 2, 3] {
            for extent in 0..9 {
                let holds = |k: &i64| (0..extent).contains(&(first + k * stride));
                let want: Vec<i64> = (-30..30).filter(holds).collect();
                let got: Vec<i64> = solutions(first, stride, extent).collect();
                assert_eq!(got, want, "0 <= {first} + {stride}*k < {extent}");
            }
        }
    }
}
