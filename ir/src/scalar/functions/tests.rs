//! Every row against its reference: the stated bounds on a sweep of values, special ones first.

use super::*;
use crate::Number;
use crate::scalar::Scalar;

/// A deterministic stream (Steele et al., "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn specials(dtype: DType) -> Vec<f64> {
    let (least, normal, most) = match dtype {
        DType::F64 => (f64::from_bits(1), f64::MIN_POSITIVE, f64::MAX),
        _ => (f32::from_bits(1) as f64, f32::MIN_POSITIVE as f64, f32::MAX as f64),
    };
    let mut out = vec![f64::NAN];
    let magnitudes = [
        0.0,
        f64::INFINITY,
        least,
        3.0 * least,
        normal,
        normal - least,
        most,
        0.25,
        0.5,
        0.75,
        1.0,
        1.5,
        2.0,
    ];
    let more = [
        2.5, 3.0, 4.0, 5.5, 5.6, 9.0, 31.0, 64.0, 87.0, 88.72, 89.0, 103.0, 104.0, 110.0, 709.0, 745.0, 1e5, 1e9,
    ];
    for m in magnitudes.into_iter().chain(more) {
        for x in [m, m * (1.0 - f32::EPSILON as f64), m * (1.0 + f32::EPSILON as f64)] {
            out.extend([x, -x]);
        }
    }
    out
}

/// Values of every exponent and both signs: the ends of each binade and random ones between. They include every kind of
/// subnormal, infinity and NaN.
fn all_binades(dtype: DType, inner: usize, random: &mut Random) -> Vec<f64> {
    let (exponents, digits) = if dtype == DType::F64 { (2048u64, 52) } else { (256, 23) };
    let last = (1u64 << digits) - 1;
    let mut out = vec![];
    for e in 0..2 * exponents {
        let ends = [0, 1, last / 2, last - 1, last];
        let between = (0..inner).map(|_| random.next() & last);
        for mantissa in ends.into_iter().chain(between) {
            let bits = e << digits | mantissa;
            out.push(Scalar { dtype, bits }.number().f64());
        }
    }
    out
}

/// Operands as the dtype has them: special values, all binades and their pairs, then bit patterns, then values of
/// ordinary size.
fn operands(f: &Function, dtype: DType, count: usize) -> Vec<Vec<Scalar>> {
    let special = specials(dtype);
    let mut out: Vec<Vec<f64>> = special.iter().map(|&x| vec![x; f.arity]).collect();
    if f.arity > 1 {
        for &x in &special {
            out.extend(special.iter().map(|&y| [x, y, 1.0][..f.arity].to_vec()));
        }
    }
    let mut random = Random(1);
    let binades = all_binades(dtype, 12, &mut random);
    out.extend(binades.iter().map(|&x| {
        let other = |_| binades[random.next() as usize % binades.len()];
        [x].into_iter().chain((1..f.arity).map(other)).collect()
    }));
    let count = count + out.len();
    while out.len() < count {
        let kind = out.len() % 4;
        let size = [1.2, 12.0, 120.0, 1e5][out.len() / 4 % 4];
        let one = |_| match (kind, dtype) {
            (0, DType::F64) => f64::from_bits(random.next()),
            (0, _) => f32::from_bits(random.next() as u32) as f64,
            (1, _) => random.unit() * size,
            (2, _) => (random.unit() - 0.5) * 2.0 * size,
            _ => ((random.unit() - 0.5) * 2.0 * size).round(),
        };
        out.push((0..f.arity).map(one).collect());
    }
    out.into_iter()
        .map(|v| v.into_iter().map(|x| Scalar::new(dtype, Number::Float(x))).collect())
        .collect()
}

/// The distance in units in the last place of the wanted value, not smaller than those of `floor`; infinite where a
/// special value is missed.
fn distance(dtype: DType, got: f64, want: f64, floor: f64) -> f64 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if got == want && got != 0.0 {
        return 0.0;
    }
    if (want == 0.0 || got == 0.0) && floor == 0.0 && got.is_sign_negative() != want.is_sign_negative() {
        return f64::INFINITY;
    }
    let (digits, least, most) = if dtype == DType::F64 {
        (52, -1022, 1023)
    } else {
        (23, -126, 127)
    };
    if want.is_infinite() && dtype == DType::F64 {
        return f64::INFINITY;
    }
    let size = want.abs().max(floor).max(f64::MIN_POSITIVE);
    let exponent = ((size.to_bits() >> 52) as i32 - 1023).clamp(least, most);
    // Overflow counts as the next power of two; halved, so that it is finite in f64.
    let end = (most as f64).exp2();
    let half = |x: f64| (x * 0.5).clamp(-end, end);
    let ulp = ((exponent - digits) as f64).exp2();
    (half(got) - half(want)).abs() / ulp * 2.0
}

fn in_domain(f: &Function, x: &[Scalar]) -> bool {
    x.iter().zip(f.domain).all(|(x, &(low, high))| {
        let x = x.number().f64();
        x.is_nan() || (low..=high).contains(&x)
    })
}

fn sweep(f: &Function, dtype: DType, count: usize) -> f64 {
    let types = vec![dtype; f.arity];
    let body = f.body(&types, None).unwrap();
    body.verify().unwrap();
    let stated = if dtype == DType::F64 { f.bound.f64 } else { f.bound.f32 };
    // Rounding the reference to nearest is half a unit; where it has the result's dtype it is rounded itself.
    let limit = if stated > 0.0 || dtype == DType::F64 {
        stated
    } else {
        0.5
    };
    let mut worst = 0.0;
    for x in operands(f, dtype, count).into_iter().filter(|x| in_domain(f, x)) {
        let got = body.eval_scalars(&x)[0].number().f64();
        let values: Vec<f64> = x.iter().map(|x| x.number().f64()).collect();
        let want = (f.reference)(&values);
        let d = distance(dtype, got, want, f.bound.floor);
        assert!(
            d <= limit,
            "{}({values:?}): {dtype} {got:e}, expected {want:e}: {d} ulp, stated {limit}",
            f.name
        );
        worst = f64::max(worst, d);
    }
    println!(
        "{:12} {dtype}: {worst:.3} ulp of {limit}, {} primitives",
        f.name,
        body.cost()
    );
    worst
}

fn takes_floats(f: &Function) -> bool {
    !f.is_cast() && f.result(&vec![DType::F32; f.arity], None).is_ok()
}

#[test]
fn f32_bounds_hold() {
    for f in functions().iter().filter(|f| takes_floats(f)) {
        let worst = sweep(f, DType::F32, if f.bound == EXACT { 20_000 } else { 200_000 });
        let stated = f.bound.f32;
        assert!(
            stated < 1.0 || worst > stated / 4.0,
            "{}: {stated} ulp is stated, {worst} were found",
            f.name
        );
    }
}

#[test]
fn f64_bounds_hold() {
    for f in functions().iter().filter(|f| takes_floats(f)) {
        sweep(f, DType::F64, if f.bound == EXACT { 20_000 } else { 60_000 });
    }
}

/// On operands so small that f64 is exact and nothing wraps.
#[test]
fn integers_agree_with_the_reference() {
    for f in functions().iter().filter(|f| !f.is_cast() && f.rule != Rule::Where) {
        for dtype in DType::ALL.into_iter().filter(|d| d.is_int() || *d == DType::Bool) {
            let types = vec![dtype; f.arity];
            let Ok(body) = f.body(&types, None) else { continue };
            let low = if dtype == DType::Bool || !dtype.is_signed() || f.name == "shift_left" {
                0
            } else {
                -5
            };
            let high = if dtype == DType::Bool { 2 } else { 6 };
            for x in low..high {
                for y in low..high {
                    let args = [Number::Int(x), Number::Int(y)];
                    let (x, y) = (x as f64, y as f64);
                    let want = (f.reference)(&[x, y]);
                    let fits = match f.name {
                        "sub" | "neg" => dtype.is_signed() || want >= 0.0,
                        "bitwise_not" => dtype.is_signed(),
                        "shift_right" => y >= 0.0,
                        "pow" | "shift_left" => want.abs() < 128.0,
                        _ => true,
                    };
                    // A division by zero gives 0.
                    let want = if want.is_finite() { want.trunc() } else { 0.0 };
                    let got = body.eval(&args[..f.arity])[0];
                    assert!(
                        !fits || got == Number::Int(want as i128),
                        "{} {dtype} {x} {y}: {got:?}, {want}",
                        f.name
                    );
                }
            }
        }
    }
}

#[test]
fn integer_powers_wrap() {
    let pow = |d, x, y| {
        lookup("pow")
            .unwrap()
            .body(&[d, d], None)
            .unwrap()
            .eval(&[Number::Int(x), Number::Int(y)])[0]
            .int()
    };
    assert_eq!(pow(DType::I64, 3, 40), 12157665459056928801u64 as i64 as i128);
    assert_eq!(pow(DType::I64, -2, 63), i64::MIN as i128);
    assert_eq!(pow(DType::I64, 2, 64), 0);
    assert_eq!(pow(DType::I64, 6, 1 << 40), 0);
    assert_eq!(pow(DType::I64, -1, i64::MIN as i128), 1);
    assert_eq!(pow(DType::I64, -1, i64::MAX as i128), -1);
    assert_eq!(pow(DType::I64, 0, -1), 0);
    assert_eq!(pow(DType::U8, 3, 5), 243);
    assert_eq!(pow(DType::U8, 3, 6), 729 % 256);
}

/// Values to 20 digits by mpmath 1.4, rounded to f64.
#[test]
fn erf_in_f64_agrees_with_a_table() {
    let erf = lookup("erf").unwrap().body(&[DType::F64], None).unwrap();
    for (x, want) in ERF_TABLE {
        let got = erf.eval(&[Number::Float(x)])[0].f64();
        assert!(
            distance(DType::F64, got, want, 0.0) <= 2.0,
            "erf({x}) = {got}, expected {want}"
        );
    }
}

const ERF_TABLE: [(f64, f64); 22] = [
    (0.001, 0.0011283787909692365),
    (0.1, 0.1124629160182849),
    (0.3125, 0.341468633501595),
    (0.5, 0.5204998778130465),
    (0.75, 0.7111556336535151),
    (0.875, 0.7840750610598597),
    (0.9999, 0.8426592780487595),
    (1.0, 0.8427007929497149),
    (1.0009, 0.8430740535612369),
    (1.125, 0.8883882317017078),
    (1.25, 0.9229001282564583),
    (1.39, 0.9506732958050964),
    (1.5, 0.9661051464753108),
    (1.5576435, 0.9723940119255753),
    (1.75, 0.9866716712191824),
    (1.9192725, 0.9933576229534213),
    (2.125, 0.9973459706405177),
    (2.5, 0.999593047982555),
    (3.25, 0.9999956972205363),
    (4.0, 0.9999999845827421),
    (5.0, 0.9999999999984626),
    (5.9, 0.9999999999999999),
];

/// Arguments that lie nearest to a quarter turn (Muller, "Elementary Functions", chapter 9, and Kahan's search), and round
/// ones; sine and tangent to 17 digits by integer arithmetic.
#[test]
fn large_arguments_are_reduced_in_full() {
    for (x, sin, cos) in TURNS {
        for (name, want) in [("sin", sin), ("cos", cos), ("tan", sin / cos)] {
            for dtype in [DType::F32, DType::F64] {
                if dtype == DType::F32 && x as f32 as f64 != x {
                    continue;
                }
                let body = lookup(name).unwrap().body(&[dtype], None).unwrap();
                let got = body.eval(&[Number::Float(x)])[0].f64();
                assert!(
                    distance(dtype, got, want, 0.0) <= 3.0,
                    "{name}({x:e}) {dtype} = {got:e}, expected {want:e}"
                );
                let opposite = body.eval(&[Number::Float(-x)])[0].f64();
                assert_eq!(opposite, if name == "cos" { got } else { -got }, "{name}(-{x:e})");
            }
        }
    }
}

const TURNS: [(f64, f64, f64); 9] = [
    (100000.0, 0.03574879797201651, -0.9993608074382124),
    (1000000.0, -0.34999350217129294, 0.9367521275331447),
    (10000000.0, 0.4205477931907825, -0.9072703861817396),
    (1.152921504606847e+18, -0.8306492176372546, -0.5567960822766417),
    (7.729178919452902e+28, 1.0, -1.6147697982476211e-09),
    (3.4028234663852886e+38, -0.5218765233336585, 0.8530210398303042),
    (1e+22, -0.8522008497671888, 0.523214785395139),
    (5.319372648326541e+255, 1.0, -4.687165924254628e-19),
    (1.7976931348623157e+308, 0.004961954789184062, -0.9999876894265599),
];

#[test]
fn sines_stay_bounded() {
    for name in ["sin", "cos"] {
        for dtype in [DType::F32, DType::F64] {
            let body = lookup(name).unwrap().body(&[dtype], None).unwrap();
            for x in operands(lookup(name).unwrap(), dtype, 50_000) {
                let y = body.eval_scalars(&x)[0].number().f64();
                let finite = x[0].number().f64().is_finite();
                assert!(if finite { y.abs() <= 1.0 } else { y.is_nan() }, "{name} {x:?} = {y}");
            }
        }
    }
}

#[test]
fn narrow_floats_are_computed_in_f32() {
    for f in functions().iter().filter(|f| takes_floats(f)) {
        for dtype in [DType::F16, DType::BF16] {
            let types = vec![dtype; f.arity];
            let narrow = f.body(&types, None).unwrap();
            let wide = f.body(&vec![DType::F32; f.arity], None).unwrap();
            narrow.verify().unwrap();
            let mut random = Random(7);
            for _ in 0..500 {
                let x: Vec<Scalar> = types
                    .iter()
                    .map(|&dtype| Scalar {
                        dtype,
                        bits: random.next() & 0xffff,
                    })
                    .collect();
                let numbers: Vec<Number> = x.iter().map(|x| x.number()).collect();
                let want = Scalar::new(narrow.output_dtypes()[0], wide.eval(&numbers)[0]);
                assert_eq!(narrow.eval_scalars(&x)[0], want, "{} {x:?}", f.name);
            }
        }
    }
}

#[test]
fn rows_are_sound() {
    let names: Vec<_> = functions().iter().map(|f| f.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "names are unique and sorted");
    for f in functions() {
        assert!(std::ptr::eq(lookup(f.name).unwrap(), f));
        assert!(f.domain.len() >= f.arity, "{}", f.name);
        let samples = f.samples();
        assert!(!samples.is_empty());
        for s in samples {
            let types: Vec<_> = s.inputs.iter().map(|i| i.0).collect();
            let to = match &s.attrs[..] {
                [Attr::DType(d)] => Some(*d),
                _ => None,
            };
            let body = f.body(&types, to).unwrap();
            body.verify().unwrap();
            assert_eq!(body.output_dtypes(), [f.result(&types, to).unwrap()]);
        }
        assert!(f.result(&[], None).is_err());
        assert!(f.body(&vec![DType::F32; f.arity + 1], None).is_err());
    }
    assert!(lookup("no_such_function").is_none());
}

/// The hot functions must not grow unnoticed.
#[test]
fn hot_functions_are_short() {
    for (name, most) in [
        ("exp", 21),
        ("sin", 36),
        ("cos", 34),
        ("tanh", 30),
        ("erf", 30),
        ("gelu", 26),
        ("gelu_tanh", 27),
        ("sigmoid", 23),
        ("silu", 24),
    ] {
        let cost = lookup(name).unwrap().body(&[DType::F32], None).unwrap().cost();
        assert!(cost <= most, "{name} has {cost} primitives, expected at most {most}");
    }
}
