//! Laws of dims: canonical forms are equal exactly when the polynomials are, and operations agree with integers.

use super::{Atom, Dim, DimOp, NoValue, constants, product};

fn n() -> Dim {
    Dim::sym("n")
}
fn m() -> Dim {
    Dim::sym("m")
}
fn at(d: &Dim, n: i64, m: i64) -> Option<i64> {
    d.eval(&|s| match s {
        "n" => Some(n),
        "m" => Some(m),
        _ => None,
    })
}

#[test]
fn equal_polynomials_are_equal() {
    assert_eq!(n() + m(), m() + n());
    assert_eq!(n() * m() + n(), (m() + Dim::ONE) * n());
    assert_eq!((n() + m()) * (n() - m()), n() * n() - m() * m());
    assert_eq!(n() - n(), Dim::ZERO);
    assert_eq!(n() * Dim::ZERO, Dim::Const(0));
    assert_eq!(&(&n() * 3) - &(&n() * 2), n());
    assert_ne!(n() * n(), n());
    assert_ne!(n() + Dim::ONE, n());
}

#[test]
fn operations_fold() {
    let k = |x| Dim::Const(x);
    assert_eq!(k(-7).floor_div(&k(2)), k(-4));
    assert_eq!(k(-7).ceil_div(&k(2)), k(-3));
    assert_eq!(k(-7).modulo(&k(2)), k(1));
    assert_eq!((&n() * 6).floor_div(&k(3)), &n() * 2);
    assert_eq!((n() * m()).ceil_div(&m()), n());
    assert_eq!((&n() * 6).modulo(&k(3)), k(0));
    assert_eq!(Dim::min(&n(), &(&n() + 1)), n());
    assert_eq!(Dim::max(&n(), &(&n() + 1)), &n() + 1);
    assert_eq!(Dim::max(&n(), &k(0)), n());
    assert_eq!(Dim::min(&k(0), &n()), k(0));
    assert_eq!(Dim::min(&n(), &m()), Dim::min(&m(), &n()));
    assert!(matches!(k(1).floor_div(&k(0)), Dim::Sum(_)), "a division by zero stays");
    assert_eq!(at(&k(1).floor_div(&k(0)), 0, 0), None);
}

#[test]
fn division_is_exact_or_none() {
    assert_eq!((&(n() * m()) * 6).exact_div(&(&n() * 2)), Some(&m() * 3));
    assert_eq!((&n() * 6 + m()).exact_div(&Dim::Const(3)), None);
    assert_eq!((&n() + 1).exact_div(&(&n() + 1)), Some(Dim::ONE));
    assert_eq!((n() * n() - Dim::ONE).exact_div(&(&n() + 1)), None);
    assert_eq!(n().exact_div(&Dim::ZERO), None);
    assert_eq!(Dim::ZERO.exact_div(&Dim::ZERO), None);
    assert_eq!(Dim::ZERO.exact_div(&n()), Some(Dim::ZERO));
    assert_eq!(Dim::Const(i64::MIN).exact_div(&Dim::Const(-1)), None);
}

#[test]
fn substitution_canonicalises_again() {
    let half = n().floor_div(&Dim::Const(2));
    let twice = |s: &str| (s == "n").then(|| &m() * 2);
    assert_eq!(half.substitute(&twice), m());
    assert_eq!((n() * m() + half).substitute(&twice), &(m() * m()) * 2 + m());
    assert_eq!(Dim::min(&n(), &m()).substitute(&|_| Some(Dim::Const(3))), Dim::Const(3));
    assert_eq!(n().substitute(&|_| None), n());
}

#[test]
fn text_is_readable() {
    for (d, text) in [
        (Dim::ZERO, "0"),
        (Dim::Const(-3), "-3"),
        (&n() + 3, "n + 3"),
        (&(&(n() * m()) * 2) - &Dim::Const(1), "2*m*n - 1"),
        (&Dim::ZERO - &n(), "-n"),
        (&Dim::Const(5) - &(&n() * 2), "-2*n + 5"),
        ((&n() + 1).floor_div(&Dim::Const(2)), "floordiv(n + 1, 2)"),
        (m() * Dim::max(&n(), &Dim::Const(4)), "m*max(4, n)"),
        (Dim::sym("a b"), "\"a b\""),
    ] {
        assert_eq!(d.to_string(), text);
        assert_eq!(crate::text::parse_dim(&mut crate::text::Lexer::new(text)).unwrap(), d);
    }
}

#[test]
fn evaluation_has_no_value_beyond_integers() {
    assert_eq!(at(&(n() * m()), 1 << 40, 1 << 40), None);
    assert_eq!(at(&n().floor_div(&m()), 1, 0), None);
    assert_eq!(at(&Dim::sym("other"), 1, 1), None);
    assert_eq!(at(&(n() * m() - n()), 6, 7), Some(36));
}

#[test]
fn operations_agree_with_integers() {
    // Whatever folding and canonicalising did, the values are those of the operation on the operands' values.
    let ops = [DimOp::FloorDiv, DimOp::CeilDiv, DimOp::Mod, DimOp::Min, DimOp::Max];
    let k = |x| Dim::Const(x);
    let dims = [
        k(0),
        k(1),
        k(-3),
        k(4),
        n(),
        m(),
        &n() * 4,
        &n() - &m(),
        n() * m(),
        &(&n() * 2) + 1,
    ];
    for a in &dims {
        for b in &dims {
            for (x, y) in [(0, 0), (1, 3), (5, 2), (7, 7)] {
                let (u, v) = (at(a, x, y).unwrap(), at(b, x, y).unwrap());
                assert_eq!(at(&(a + b), x, y), Some(u + v));
                assert_eq!(at(&(a - b), x, y), Some(u - v));
                assert_eq!(at(&(a * b), x, y), Some(u * v));
                for op in ops {
                    if let Ok(want) = op.eval(u, v) {
                        let d = Dim::op(op, a.clone(), b.clone());
                        assert_eq!(at(&d, x, y), Some(want), "{d} at n = {x}, m = {y}");
                    }
                }
                if a.is_nonnegative() {
                    assert!(u >= 0, "{a} at n = {x}, m = {y}");
                }
            }
        }
    }
}

#[test]
fn parts_are_found() {
    assert_eq!(n().as_symbol().map(|s| &**s), Some("n"));
    assert_eq!((&n() * 2).as_symbol(), None);
    let mut seen = vec![];
    (n() * Dim::min(&n(), &m())).for_each_symbol(&mut |s| seen.push(s.to_string()));
    seen.sort();
    assert_eq!(seen, ["m", "n", "n"]);
    assert_eq!(product(&[Dim::Const(2), n(), Dim::Const(3)]), &n() * 6);
    assert_eq!(constants(&[Dim::Const(2), Dim::Const(0)]), Some(vec![2, 0]));
    assert_eq!(constants(&[Dim::Const(-1)]), None);
    assert_eq!(constants(&[n()]), None);
    assert!(!Dim::atom(Atom::Op(DimOp::Max, Dim::Const(-1), Dim::Const(-2))).is_nonnegative());
}

#[test]
fn bounds_hold_for_all_values() {
    let k = |x: i64| Dim::Const(x);
    let half = n().floor_div(&k(2));
    let shown = [
        (&half * 2, n()),
        (n(), &n().ceil_div(&k(3)) * 3),
        (Dim::min(&n(), &m()), m()),
        (Dim::min(&k(10), &n()), n()),
        (k(1), Dim::max(&(&half - &k(1)), &k(1))),
        (k(0), n().modulo(&k(5))),
        (n().modulo(&k(5)), k(4)),
        (half.clone(), n()),
        (k(-1), &n() - &k(1)),
        (Dim::min(&(n() * m()), &Dim::max(&n(), &m())), &n() + &m()),
    ];
    for (small, large) in &shown {
        assert!(small.at_most(large), "{small} <= {large}");
        for (a, b) in (0..12).flat_map(|a| (0..12).map(move |b| (a, b))) {
            assert!(at(small, a, b) <= at(large, a, b), "{small} <= {large} for {a}, {b}");
        }
    }
    let open = [
        (n(), m()),
        (k(1), n()),
        (n(), k(7)),
        (n(), &half * 2),
        (&n() * 2, n()),
        (n(), n() * m()),
    ];
    for (small, large) in &open {
        assert!(!small.at_most(large), "{small} <= {large}");
    }
    assert_eq!(Dim::min(&n(), &Dim::max(&n(), &m())), n());
    assert!((&n() * 2).is_never_one() && (&n() + 2).is_never_one() && k(0).is_never_one());
    assert!(!n().is_never_one() && !(&n() * 2 + k(1)).is_never_one() && !k(1).is_never_one());
}

#[test]
fn extents_broadcast_in_any_order() {
    let l = Dim::sym("l");
    let all = n().broadcast(&m()).broadcast(&l);
    assert_eq!(all, l.broadcast(&n()).broadcast(&m()));
    assert_eq!(all, n().broadcast(&m()).broadcast(&l.broadcast(&n())));
    assert_eq!(n().broadcast(&Dim::ONE), n());
    assert_eq!(n().broadcast(&Dim::Const(4)), Dim::Const(4));
    assert_eq!((&n() * 2).broadcast(&m()), &n() * 2);
    let value = |[x, y, z]: [i64; 3]| {
        all.eval(&|s| match s {
            "n" => Some(x),
            "m" => Some(y),
            _ => Some(z),
        })
    };
    for c in [0, 1, 4] {
        for (i, sizes) in [[c, 1, 1], [1, c, c], [c, c, c], [1, 1, c], [c, 1, c]]
            .into_iter()
            .enumerate()
        {
            assert_eq!(value(sizes), Some(c), "{c}, {i}");
        }
    }
    for (d, step) in [(1, 0), (2, 1), (9, 1)] {
        assert_eq!(at(&n().broadcast_step(), d, 0), Some(step));
    }
    let half = n().floor_div(&Dim::Const(2));
    for (d, to, may) in [
        (n(), m(), true),
        (n(), Dim::Const(5), true),
        (Dim::min(&n(), &Dim::Const(512)), n(), false),
        (n(), Dim::min(&n(), &Dim::Const(512)), false),
        (n(), &half * 2, false),
        (half.clone(), n(), true),
        (n().modulo(&Dim::Const(3)), n(), true),
    ] {
        assert_eq!(d.may_stretch_to(&to), may, "{d} to {to}");
    }
    assert!(n().broadcast_step().is_broadcast_step() && !n().is_broadcast_step());
}

#[test]
fn long_operations_are_left_out_of_messages() {
    let mut d = n();
    for _ in 0..6 {
        d = &(&d + 1).floor_div(&Dim::Const(2)) + 3;
    }
    assert!(d.to_string().len() > 100);
    assert_eq!(d.brief(), "floordiv(…) + 3");
    assert_eq!(
        super::shorten("x is f32[floordiv(n, 2), m] (a dim)"),
        "x is f32[floordiv(n, 2), m] (a dim)"
    );
    assert_eq!(super::shorten("max(n, 2"), "max(n, 2");
}

#[test]
fn division_rounds_the_same_way_for_every_sign() {
    let edges = [
        i64::MIN,
        i64::MIN + 1,
        -8,
        -7,
        -2,
        -1,
        0,
        1,
        2,
        3,
        7,
        8,
        i64::MAX - 1,
        i64::MAX,
    ];
    for a in edges {
        for b in edges.into_iter().filter(|b| *b != 0) {
            let (x, y) = (i128::from(a), i128::from(b));
            let floor = (0..2)
                .map(|up| x / y - up)
                .find(|q| (x - q * y) * y.signum() >= 0)
                .unwrap();
            let ceil = floor + i128::from(floor * y != x);
            for (op, want) in [
                (DimOp::FloorDiv, floor),
                (DimOp::CeilDiv, ceil),
                (DimOp::Mod, x - floor * y),
            ] {
                let folded = Dim::op(op, a.into(), b.into());
                match (op.eval(a, b), i64::try_from(want)) {
                    (Ok(found), Ok(want)) => {
                        assert_eq!(found, want, "{} of {a} and {b}", op.name());
                        assert_eq!(folded, want.into());
                    }
                    (Err(NoValue::TooLarge(_)), Err(_)) => assert!(folded.is_too_large()),
                    (found, _) => panic!("{} of {a} and {b}: {found:?}, expected {want}", op.name()),
                }
            }
        }
    }
    assert!(matches!(DimOp::Mod.eval(1, 0), Err(NoValue::DivisionByZero(_))));
}

#[test]
fn nothing_saturates() {
    let (max, min) = (Dim::Const(i64::MAX), Dim::Const(i64::MIN));
    let large = [
        &max + 1,
        &min - &Dim::ONE,
        &Dim::Const(1 << 62) * 2,
        &(&n() * i64::MAX) + &n(),
        &(&n() * (1 << 40)) * (1 << 40),
        min.floor_div(&Dim::Const(-1)),
        Dim::from(usize::MAX),
        product(&[Dim::Const(1 << 32), Dim::Const(1 << 32), n()]),
    ];
    for d in &large {
        assert!(d.is_too_large(), "{d}");
        assert_eq!((d.as_const(), at(d, 0, 0), d.is_nonnegative()), (None, None, false));
        // It stays so, whatever is done to it.
        let more = [
            d - d,
            d + &n(),
            d * -1,
            d.floor_div(d),
            d.modulo(&Dim::ONE),
            Dim::min(d, &Dim::ZERO),
            d.substitute(&|_| Some(Dim::ZERO)),
        ];
        assert!(more.iter().all(Dim::is_too_large), "{more:?}");
        assert_eq!(d.exact_div(d), None);
    }
    assert_eq!(&large[0] * &Dim::ZERO, Dim::ZERO);
    assert_eq!(&min - &min, Dim::ZERO);
    assert_eq!((&n() + i64::MIN).split_constant(), (n(), i64::MIN));
    assert_eq!(n().split_constant(), (n(), 0));
    assert_eq!(Dim::Const(7).split_constant(), (Dim::ZERO, 7));
    assert_eq!(&large[0].to_string(), "(beyond 64 bits)");
}

#[test]
fn the_reason_for_no_value_is_said() {
    let value = |d: &Dim, n| d.value(&|s| (s == "n").then_some(n)).unwrap_err().to_string();
    assert_eq!(value(&m(), 1), "the symbol `m` has no value");
    assert_eq!(value(&(&n() * 4), 1 << 61), "`4*n` is too large: beyond 64 bits");
    assert_eq!(value(&Dim::ONE.modulo(&n()), 0), "`mod(1, n)` divides by zero");
    assert_eq!(
        value(&(n() * n().ceil_div(&Dim::Const(2))), i64::MAX),
        "`n*ceildiv(n, 2)` is too large: beyond 64 bits"
    );
}
