//! The language itself: every primitive on every dtype, the text form, verification, building.

use super::*;
use crate::Number;

/// Bit patterns that matter: zeros, ones, extremes, signs, infinities, NaN, and what lies between.
fn patterns(dtype: DType) -> Vec<u64> {
    let width = dtype.bits();
    let all = u64::MAX >> (64 - width);
    if dtype == DType::Bool {
        return vec![0, 1];
    }
    let mut out = vec![
        0,
        1,
        2,
        3,
        7,
        width as u64 - 1,
        width as u64,
        width as u64 + 1,
        all,
        all - 1,
        all >> 1,
        (all >> 1) + 1,
    ];
    out.extend([0x55, 0xaaaa_aaaa_aaaa_aaaa & all, 0x0123_4567_89ab_cdef & all]);
    if dtype.is_float() {
        let values = [
            1.0,
            -1.0,
            0.5,
            2.5,
            -3.5,
            1e-40,
            1e10,
            -1e10,
            1e20,
            65504.0,
            300.0,
            f64::MAX,
            f64::INFINITY,
        ];
        out.extend(values.map(|x| Scalar::new(dtype, Number::Float(x)).bits));
        out.extend([f64::NEG_INFINITY, f64::NAN, -0.0].map(|x| Scalar::new(dtype, Number::Float(x)).bits));
    }
    out.sort();
    out.dedup();
    out
}

fn valid(p: Prim, t: DType) -> bool {
    let operands = if p.chooses() {
        vec![DType::Bool, t, t]
    } else {
        vec![t; p.arity()]
    };
    p.result(&operands).is_ok()
}

/// What the table in [`Prim`] says of integers, in arithmetic that cannot overflow.
fn integer(p: Prim, t: DType, x: i128, y: i128) -> i128 {
    let width = t.bits() as i128;
    let unsigned = |v: i128| if v < 0 { v + (1 << width) } else { v };
    match p {
        Prim::Add => x + y,
        Prim::Sub => x - y,
        Prim::Mul => x.wrapping_mul(y),
        Prim::Div => x.checked_div(y).unwrap_or(0),
        Prim::Rem => x.checked_rem(y).unwrap_or(0),
        Prim::Neg => -x,
        Prim::Abs => x.abs(),
        Prim::Min => x.min(y),
        Prim::Max => x.max(y),
        Prim::Eq => (x == y) as i128,
        Prim::Ne => (x != y) as i128,
        Prim::Lt => (x < y) as i128,
        Prim::Le => (x <= y) as i128,
        Prim::And => x & y,
        Prim::Or => x | y,
        Prim::Xor => x ^ y,
        Prim::Not if t == DType::Bool => 1 - x,
        Prim::Not => !x,
        Prim::Shl if unsigned(y) >= width => 0,
        Prim::Shl => x << y,
        Prim::Shr if unsigned(y) >= width => -((x < 0) as i128),
        Prim::Shr => x >> y,
        p => unreachable!("{p:?}"),
    }
}

#[test]
fn integer_primitives_follow_the_table() {
    for t in DType::ALL.into_iter().filter(|d| !d.is_float()) {
        for p in Prim::all().filter(|&p| valid(p, t) && !p.chooses() && p.target().is_none()) {
            for a in patterns(t) {
                for b in patterns(t) {
                    let (x, y) = (Scalar { dtype: t, bits: a }, Scalar { dtype: t, bits: b });
                    let got = eval_prim(p, t, &[x, y][..p.arity()]);
                    let want = integer(p, t, x.number().int(), y.number().int());
                    assert_eq!(
                        got,
                        Scalar::new(p.result(&vec![t; p.arity()]).unwrap(), Number::Int(want)),
                        "{p:?} {x} {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn results_are_canonical_for_every_dtype() {
    for t in DType::ALL {
        for p in Prim::all().filter(|&p| valid(p, t)) {
            for a in patterns(t) {
                for b in patterns(t) {
                    let (x, y) = (Scalar { dtype: t, bits: a }, Scalar { dtype: t, bits: b });
                    let got = match p {
                        Prim::Select | Prim::Rarely => eval_prim(p, t, &[true.into(), x, y]),
                        _ => eval_prim(p, t, &[x, y, x][..p.arity()]),
                    };
                    let fits = got.bits.checked_shr(got.dtype.bits() as u32).unwrap_or(0) == 0;
                    assert!(
                        fits && (got.dtype != DType::Bool || got.bits < 2),
                        "{p:?} {x} {y} = {got:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn float_corner_cases() {
    let inf = f32::INFINITY;
    let f = |p: Prim, x: &[f32]| {
        let x: Vec<Scalar> = x.iter().map(|&x| x.into()).collect();
        f32::from_bits(eval_prim(p, DType::F32, &x).bits as u32)
    };
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for (p, x, want) in [
        (Prim::Min, [0.0, -0.0, 0.0], -0.0),
        (Prim::Min, [-0.0, 0.0, 0.0], -0.0),
        (Prim::Max, [0.0, -0.0, 0.0], 0.0),
        (Prim::Max, [-0.0, 0.0, 0.0], 0.0),
        (Prim::Min, [f32::NAN, 1.0, 0.0], f32::NAN),
        (Prim::Max, [1.0, f32::NAN, 0.0], f32::NAN),
        (Prim::Div, [1.0, -0.0, 0.0], -inf),
        (Prim::Div, [0.0, 0.0, 0.0], f32::NAN),
        (Prim::Rem, [-5.5, 2.0, 0.0], -1.5),
        (Prim::Rem, [5.5, inf, 0.0], 5.5),
        (Prim::Rem, [-4.0, 2.0, 0.0], -0.0),
        (Prim::Rem, [1.0, 0.0, 0.0], f32::NAN),
        (Prim::Fma, [inf, 0.0, f32::NAN], f32::NAN),
    ] {
        let got = f(p, &x[..p.arity()]);
        assert!(same(got, want), "{p:?} {x:?}: {got}");
    }
    // One rounding: the product alone would round to 1.
    let e = f32::EPSILON;
    assert_eq!(f(Prim::Fma, &[1.0 + e, 1.0 - e, -1.0]), -e * e);
    for (p, x, want) in [
        (Prim::Round, 2.5, 2.0),
        (Prim::Round, -0.5, -0.0),
        (Prim::Trunc, -1.5, -1.0),
        (Prim::Floor, -0.5, -1.0),
        (Prim::Ceil, -0.5, -0.0),
        (Prim::Sqrt, -0.0, -0.0),
        (Prim::Sqrt, -1.0, f32::NAN),
        (Prim::Abs, -inf, inf),
        (Prim::Neg, 0.0, -0.0),
    ] {
        assert!(same(f(p, &[x]), want), "{p:?} {x}");
    }
    let nan = Scalar::from(f32::NAN);
    assert_eq!(eval_prim(Prim::Ne, DType::F32, &[nan, nan]), true.into());
    for p in [Prim::Eq, Prim::Lt, Prim::Le] {
        assert_eq!(eval_prim(p, DType::F32, &[nan, nan]), false.into());
    }
}

#[test]
fn casts_follow_the_table() {
    use DType::*;
    let float = Number::Float;
    let int = Number::Int;
    for (from, x, to, want) in [
        (F32, float(f64::NAN), I32, int(0)),
        (F32, float(f64::NAN), Bool, int(1)),
        (F32, float(-0.0), Bool, int(0)),
        (F32, float(3e9), I32, int(i32::MAX as i128)),
        (F64, float(-1e300), I64, int(i64::MIN as i128)),
        (F32, float(-1.9), U8, int(0)),
        (F32, float(-1.9), I8, int(-1)),
        (F32, float(300.0), U8, int(255)),
        (F64, float(f64::INFINITY), U64, int(u64::MAX as i128)),
        (I32, int(-1), U8, int(255)),
        (I8, int(-1), U32, int(u32::MAX as i128)),
        (U8, int(200), I8, int(-56)),
        (U64, int(u64::MAX as i128), F32, float(18446744073709551616.0)),
        (I64, int((1 << 53) + 1), F64, float(9007199254740992.0)),
        (F64, float(65520.0), F16, float(f64::INFINITY)),
        (F32, float(1.00390625), BF16, float(1.0)),
        (F64, float(f64::MAX), F32, float(f64::INFINITY)),
        (F16, float(0.1), F32, float(0.0999755859375)),
        (Bool, int(1), F16, float(1.0)),
        (I64, int(70000), F16, float(f64::INFINITY)),
    ] {
        let got = eval_prim(Prim::Cast(to), from, &[Scalar::new(from, x)]);
        assert_eq!(got, Scalar::new(to, want), "{from} {x:?} -> {to}");
    }
    assert_eq!(
        eval_prim(Prim::Bitcast(I32), F32, &[1f32.into()]).number(),
        int(0x3f80_0000)
    );
}

#[test]
fn text_reads_back() {
    for f in functions() {
        for s in f.samples() {
            let types: Vec<_> = s.inputs.iter().map(|i| i.0).collect();
            let to = match &s.attrs[..] {
                [crate::ops::Attr::DType(d)] => Some(*d),
                _ => None,
            };
            let body = f.body(&types, to).unwrap();
            assert_eq!(body.to_string().parse::<Body>().unwrap(), body);
            assert_eq!(format!("{body:#}").parse::<Body>().unwrap(), body);
        }
    }
    for dtype in DType::ALL {
        for bits in patterns(dtype) {
            let s = Scalar { dtype, bits };
            assert_eq!(
                Scalar::parse(&mut crate::text::Lexer::new(&s.to_string())).unwrap(),
                s,
                "{s}"
            );
        }
    }
}

#[test]
fn text_looks_as_documented() {
    let text = "(v0: f32, v1: f32) { v2 = add v0 v1; v3 = const f32 1.0; v4 = max v2 v3 } -> v4";
    let body: Body = text.parse().unwrap();
    assert_eq!(body.to_string(), text);
    assert_eq!(
        body.eval(&[Number::Float(0.25), Number::Float(0.5)]),
        [Number::Float(1.0)]
    );
    let named: Body = "(a: f32, b: f32) { // sum\n s = add a b one = const f32:0x3f800000 m = max s one } -> m"
        .parse()
        .unwrap();
    assert_eq!(named, body);
    let many = "(v0: i64) { v1 = cast bool v0 } -> (v1, v0)";
    assert_eq!(many.parse::<Body>().unwrap().to_string(), many);
    assert_eq!(
        Body::identity(DType::BF16).to_string().parse::<Body>().unwrap(),
        Body::identity(DType::BF16)
    );
}

#[test]
fn bad_text_names_its_place() {
    for (text, message) in [
        ("(a: f32) { b = add a c } -> b", "1:22: `c` is not defined"),
        ("(a: f32) { a = neg a } -> a", "1:12: `a` is defined twice"),
        (
            "(a: f32, b: i32) { c = add a b } -> c",
            "1:24: `add` of (f32, i32), expected equal dtypes",
        ),
        ("(a: f32) {\n  b = frob a } -> b", "2:7: `frob` is no primitive"),
        ("(a: u8) { b = const u8 256 } -> b", "1:24: 256 does not fit in u8"),
        ("(a: f32) { b = neg a } -> c", "1:27: `c` is not defined"),
        ("(a: f32) { } -> a a", "1:19: found `a`, expected the end of the text"),
        (
            "(a: f16) { b = neg a } -> b",
            "1:16: `neg` of (f16), expected no f16 and bf16: only casts take them",
        ),
    ] {
        assert_eq!(text.parse::<Body>().unwrap_err().to_string(), message);
    }
}

#[test]
fn verification_finds_faults() {
    let good = || {
        "(a: f32, b: bool) { c = const f32 1.0; d = select b a c } -> d"
            .parse::<Body>()
            .unwrap()
    };
    assert_eq!(good().verify(), Ok(()));
    let faults: [fn(&mut Body); 6] = [
        |b| b.insts[1] = Inst::Prim(Prim::Select, [V(1), V(0), V(3)]),
        |b| b.insts[1] = Inst::Prim(Prim::Select, [V(0), V(0), V(2)]),
        |b| b.insts[1] = Inst::Prim(Prim::Neg, [V(0), V(0), V(1)]),
        |b| b.insts[0] = Inst::Const(DType::F32, 1 << 32),
        |b| b.insts[0] = Inst::Const(DType::Bool, 2),
        |b| b.outputs[0] = V(4),
    ];
    for fault in faults {
        let mut body = good();
        fault(&mut body);
        assert!(body.verify().is_err(), "{body:?}");
    }
}

/// Building with constants for the inputs leaves constants only, and those that evaluation gives.
#[test]
fn folding_equals_evaluation() {
    for f in functions() {
        for s in f.samples() {
            let types: Vec<_> = s.inputs.iter().map(|i| i.0).collect();
            let to = match &s.attrs[..] {
                [crate::ops::Attr::DType(d)] => Some(*d),
                _ => None,
            };
            let body = f.body(&types, to).unwrap();
            for i in 0..patterns(types[0]).len() {
                let at = |d: DType, k: usize| patterns(d)[(i + k) % patterns(d).len()];
                let x: Vec<_> = types
                    .iter()
                    .enumerate()
                    .map(|(k, &dtype)| Scalar {
                        dtype,
                        bits: at(dtype, 5 * k),
                    })
                    .collect();
                let mut b = Builder::new(&[]);
                let args: Vec<V> = x.iter().map(|&s| b.scalar(s)).collect();
                let v = b.inline(&body, &args)[0];
                let folded = b.as_const(v).expect("a function of constants is a constant");
                let nan = |s: Scalar| s.number().f64().is_nan();
                let want = body.eval_scalars(&x)[0];
                assert!(
                    folded == want || (nan(folded) && nan(want)),
                    "{} {x:?}: {folded} and {want}",
                    f.name
                );
            }
        }
    }
}

#[test]
fn the_builder_shares_and_drops() {
    let mut b = Builder::new(&[DType::F32, DType::F32]);
    let (x, y) = (b.input(0), b.input(1));
    let (first, second) = (b.add(x, y), b.add(y, x));
    assert_eq!(first, second);
    b.sqrt(x);
    let exp = b.call("exp", &[first], None).unwrap();
    assert_eq!(exp, b.call("exp", &[second], None).unwrap());
    assert!(b.call("exp", &[x, y], None).is_err() && b.call("frobnicate", &[x], None).is_err());
    let never = b.scalar(false.into());
    assert_eq!(b.select(never, x, y), y);
    let body = b.finish(&[first]);
    assert_eq!(body.to_string(), "(v0: f32, v1: f32) { v2 = add v0 v1 } -> v2");
    assert_eq!(body.dtype(V(2)), DType::F32);
    assert_eq!(body.cost(), 1);
}
