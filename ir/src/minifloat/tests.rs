//! Every format against its specification: each code's number from its digits, and the nearest number by looking at all of them.

use crate::{Codes, DType, Format, Minifloat, Small};

/// The formats, by their types.
fn formats() -> Vec<(DType, Minifloat)> {
    let all = DType::ALL.into_iter();
    let float = |d: DType| match d.format() {
        Format::Small(Small::Float(f)) => Some((d, f)),
        _ => None,
    };
    all.filter_map(float).collect()
}

/// The number of a code as its name says it, digit by digit: `f8e4m3fn`'s exponent has 4 bits and its mantissa 3.
fn number(name: &str, code: u8) -> f64 {
    let digit = |letter: char| {
        let at = name.find(letter).expect("a name has both") + 1;
        name[at..at + 1].parse::<i32>().expect("a digit")
    };
    let (e, m) = (digit('e'), digit('m'));
    let bit = |i: i32| f64::from(u8::from(code >> i & 1 == 1));
    let exponent = (0..e).map(|i| bit(m + i) * 2f64.powi(i)).sum::<f64>() as i32;
    let fraction = (0..m).map(|i| bit(m - 1 - i) * 2f64.powi(-1 - i)).sum::<f64>();
    let usual = 2i32.pow(e as u32 - 1) - 1;
    let bias = if name.ends_with("fnuz") { usual + 1 } else { usual };
    let magnitude = match exponent {
        0 if m > 0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    if m > 0 && bit(e + m) == 1.0 {
        -magnitude
    } else {
        magnitude
    }
}

#[test]
fn codes_are_the_numbers_of_the_specifications() {
    for (dtype, f) in formats() {
        assert_eq!(usize::from(f.bits()), dtype.packed_bits());
        for code in 0..1u16 << f.bits() {
            let (found, code) = (f.decode(code as u8), code as u8);
            let magnitude = code & !f.sign();
            let special = match dtype {
                DType::F8E4M3FN => magnitude == 0x7f,
                DType::F8E5M2 => magnitude > 0x7c,
                DType::F8E4M3FNUZ | DType::F8E5M2FNUZ => code == 0x80,
                DType::F8E8M0 => code == 0xff,
                _ => false,
            };
            let want = match (dtype, code) {
                _ if special => f64::NAN,
                (DType::F8E5M2, 0x7c) => f64::INFINITY,
                (DType::F8E5M2, 0xfc) => f64::NEG_INFINITY,
                _ => number(dtype.name(), code),
            };
            assert!(
                f64::from(found).to_bits() == want.to_bits() || found.is_nan() && want.is_nan(),
                "{dtype} {code:#x}: {found}, expected {want}"
            );
        }
    }
    // Tables 1 and 2 of OCP's 8-bit formats, chapter 5 of its microscaling formats, and Noune et al.
    let facts = [
        (DType::F8E4M3FN, 448.0, 0x7e),
        (DType::F8E4M3FNUZ, 240.0, 0x7f),
        (DType::F8E5M2, 57344.0, 0x7b),
        (DType::F8E5M2FNUZ, 57344.0, 0x7f),
        (DType::F8E8M0, 2f32.powi(127), 0xfe),
        (DType::F6E3M2, 28.0, 0x1f),
        (DType::F6E2M3, 7.5, 0x1f),
        (DType::F4E2M1, 6.0, 0x7),
    ];
    assert_eq!(facts.len(), formats().len());
    for (dtype, most, code) in facts {
        let (_, f) = formats().into_iter().find(|(d, _)| *d == dtype).expect("it is one");
        assert_eq!((f.most(), f.largest()), (most, code), "{dtype}");
    }
}

/// Numbers around all codes: themselves, halves between neighbours, and what lies next to those.
fn interesting(f: Minifloat) -> Vec<f32> {
    let mut codes: Vec<f32> = (0..=f.largest()).map(|c| f.decode(c)).collect();
    let last = codes.len() - 1;
    // Where the next one would be.
    codes.push(codes[last] + (codes[last] - codes[last - 1]));
    let mut out = vec![
        0.0,
        f32::MIN_POSITIVE,
        1e-45,
        f32::MAX,
        f32::INFINITY,
        1e10,
        1e-10,
        2f32.powi(-127) * 0.75,
    ];
    for pair in codes.windows(2) {
        let half = ((f64::from(pair[0]) + f64::from(pair[1])) / 2.0) as f32;
        for x in [pair[0], half, pair[1]] {
            out.extend([x.next_down(), x, x.next_up()]);
        }
    }
    out.iter().flat_map(|&x| [x, -x]).chain([f32::NAN, -f32::NAN]).collect()
}

/// The code of the nearest number, by the distance to each; halves go to the even code, of scales to the larger.
fn nearest(f: Minifloat, x: f32) -> u8 {
    if x.is_nan() {
        return f.nan().unwrap_or(0);
    }
    let magnitude = f64::from(x.abs());
    let number = |c: u8| f64::from(f.decode(c));
    let (last, before) = (number(f.largest()), number(f.largest() - 1));
    // The number that would follow, halves to which are its own where its code would be even.
    let next = last + if f.is_signed() { last - before } else { last };
    let limit = (last + next) / 2.0;
    let to_next = match f.is_signed() {
        true => f.largest() % 2 == 1,
        false => true,
    };
    let code = if magnitude > limit || magnitude == limit && to_next || x.is_infinite() {
        f.overflow()
    } else {
        let distance = |c: &u8| (number(*c) - magnitude).abs();
        let least = (0..=f.largest()).map(|c| distance(&c)).fold(f64::INFINITY, f64::min);
        let mut near = (0..=f.largest()).filter(|c| distance(c) == least);
        match (near.next().expect("there are codes"), near.next()) {
            (a, Some(b)) if !f.is_signed() || b % 2 == 0 => a.max(b),
            (a, _) => a,
        }
    };
    match f.codes {
        _ if !f.is_signed() && (x < 0.0 || magnitude < number(0)) => f.overflow(),
        Codes::NanForMinusZero if code & 0x7f == 0 => code,
        _ if x.is_sign_negative() => code | f.sign(),
        _ => code,
    }
}

#[test]
fn numbers_round_to_the_nearest_code() {
    for (dtype, f) in formats() {
        for x in interesting(f) {
            let (found, want) = (f.encode(x), nearest(f, x));
            let same =
                found == want || f.decode(found).is_nan() && f.decode(want).is_nan() || x.is_nan() && f.nan().is_none();
            assert!(same, "{dtype} of {x:e}: {found:#x}, expected {want:#x}");
        }
        for code in 0..1u16 << f.bits() {
            let code = code as u8;
            let x = f.decode(code);
            assert!(x.is_nan() || f.encode(x) == code, "{dtype} {code:#x}");
        }
        if f.nan().is_none() {
            assert_eq!(f.encode(f32::NAN) & !f.sign(), 0);
        }
    }
}

#[test]
fn expansions_are_the_definition() {
    use crate::scalar::{Body, Builder, Scalar};
    use crate::{Number, decode, encode};
    let body = |from: DType, to: DType| -> Body {
        let mut b = Builder::new(&[from]);
        let x = b.input(0);
        let y = b.cast(to, x);
        let body = b.finish(&[y]);
        body.verify().expect("a body");
        body
    };
    let small = || DType::ALL.into_iter().filter(|d| d.small().is_some());
    let check = |from: DType, to: DType, bits: u64, body: &Body| {
        let x = Scalar { dtype: from, bits };
        let found = body.eval_scalars(&[x])[0];
        // Small types are reached, and leave, through f32 or their bytes.
        let way = match (from.is_real(), to.is_real()) {
            (true, true) => x.number().to(DType::F32),
            _ => x.number(),
        };
        let (mut want, mut back) = ([0; 8], [0; 8]);
        encode(to, way, &mut want[..to.bytes()]);
        back[..to.bytes()].copy_from_slice(&found.bits.to_le_bytes()[..to.bytes()]);
        let (f, w) = (decode(to, &back[..to.bytes()]), decode(to, &want[..to.bytes()]));
        let nan = |x: Number| matches!(x, Number::Float(x) if x.is_nan());
        // A NaN that has no code is a zero of either sign.
        let zero = nan(x.number()) && f.f64() == 0.0 && w.f64() == 0.0;
        assert!(
            want == back || nan(f) && nan(w) || zero,
            "{x} as {to}: {found}, expected {w}"
        );
    };
    for d in small() {
        for to in DType::ALL.into_iter().filter(|t| *t != d) {
            let b = body(d, to);
            let codes = 0..1u64 << d.packed_bits();
            codes.for_each(|c| match d.is_signed() && !d.is_real() {
                true => check(d, to, Scalar::new(d, Number::Int(c.into())).bits, &b),
                false => check(d, to, c, &b),
            });
        }
        for from in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let b = body(from, d);
            let mut xs: Vec<f32> = formats().iter().flat_map(|(_, f)| interesting(*f)).collect();
            xs.extend((0..1u32 << 16).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b1))));
            xs.iter()
                .for_each(|&x| check(from, d, Scalar::new(from, Number::Float(x.into())).bits, &b));
        }
        for from in [
            DType::I64,
            DType::I32,
            DType::I8,
            DType::U8,
            DType::U16,
            DType::U64,
            DType::Bool,
        ] {
            let b = body(from, d);
            for x in (-300..300).chain([1 << 33, (1 << 33) + 5, i64::MAX.into(), i64::MIN.into()]) {
                check(from, d, Scalar::new(from, Number::Int(x)).bits, &b);
            }
        }
    }
}
