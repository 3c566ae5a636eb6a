use super::prove;
use crate::eqsat::embedded;
use crate::eqsat::functions::{Arg, FUNCTIONS, Mark, Stream, predicates};
use crate::eqsat::generate::{Source, Values};
use crate::eqsat::lang::{EGraph, Facts};
use crate::eqsat::rules::RuleSet;
use crate::eqsat::sorts::Sort;
use brolga_ir::{Attr, DType, Dim, Graph, Type};
use std::sync::Arc;

fn proof(rule: &str) -> Option<String> {
    let set = RuleSet::parse("my.rules", rule).expect("it is a rule");
    prove(&set.rules[0]).map(|p| p.to_string())
}

#[test]
fn embedded_rules_that_move_elements_are_proved() {
    let proved = |name: &str| {
        let rule = embedded().rules.iter().find(|r| r.name == name);
        prove(rule.unwrap_or_else(|| panic!("no rule {name}"))).map(|p| p.to_string())
    };
    const WHOLE: &str = "for ranks to 5 and all extents";
    for name in [
        "transpose-compose",
        "transpose-identity",
        "transpose-units",
        "transpose-of-broadcast",
        "broadcast-of-transpose",
        "transpose-unary",
        "transpose-cast",
        "transpose-binary-left",
        "transpose-binary-right",
        "transpose-where",
        "reshape-compose",
        "reshape-identity",
        "reshape-unary",
        "reshape-binary",
        "reshape-binary-number",
        "broadcast-compose",
        "broadcast-identity",
        "broadcast-unary",
        "broadcast-binary",
        "broadcast-binary-number",
        "broadcast-number-binary",
        "slice-identity",
        "slice-of-pad",
        "pad-identity",
        "concat-one",
        "gather-stored",
        "not-not",
        "and-true",
        "or-false",
        "where-same",
        "where-true",
        "where-false",
        "max-same",
        "min-same",
    ] {
        assert_eq!(proved(name).as_deref(), Some(WHOLE), "{name}");
    }
    for name in ["slice-compose", "pad-compose", "transpose-pad", "transpose-slice"] {
        let found = proved(name).unwrap_or_else(|| panic!("{name} is not proved"));
        assert!(found.ends_with("steps and the like from -1 to 2"), "{name}: {found}");
    }
    let found = proved("transpose-concat").expect("it is proved");
    assert!(found.ends_with("lists of up to 2 more"), "{found}");
    // What is not of this kind is not.
    for name in [
        "transpose-reshape",
        "mul-one",
        "transpose-reduce",
        "conv-pads",
        "decompose",
    ] {
        assert_eq!(proved(name), None, "{name}");
    }
}

/// What is right for most extents, ranks, orders or values only.
#[test]
fn what_is_wrong_somewhere_is_not_proved() {
    let wrong = [
        "(transpose ?p (transpose ?q ?x)) => (transpose (compose-perm ?q ?p) ?x)",
        "(transpose ?p ?x) => ?x",
        "(transpose ?p ?x) => (reshape (permute ?p (shape-of ?x)) ?x)",
        "(reshape ?s ?x) => ?x",
        "(broadcast ?s ?x) => ?x",
        "(slice ?start ?size ?step ?x) => ?x if (is-zeros ?start) (is-ones ?step)",
        // The same position, beyond the end of a row.
        "(slice [1 0] ?z [1 1] ?x) => (slice (scale-dims [0 1] (shape-of ?x)) ?z [1 1] ?x)",
        // A margin may be cut off again.
        "(pad ?low ?high ?inner ?fill (pad ?lo ?hi ?in ?fill ?x)) => (pad (add-dims ?low ?lo) (add-dims ?high ?hi) ?in ?fill ?x)
         if (is-zeros ?inner)",
        "(pad ?low ?high ?inner ?fill (pad ?lo ?hi ?in ?other ?x)) => (pad (add-dims ?low ?lo) (add-dims ?high ?hi) ?in ?fill ?x)
         if (is-zeros ?inner) (is-natural ?lo) (is-natural ?hi)",
        "(slice ?start ?size ?step (pad ?low ?high ?inner ?fill ?x)) => ?x
         if (is-ones ?step) (is-zeros ?inner) (= ?size (shape-of ?x))",
        "(concat ?a (cons ?x (cons ?y nil))) => (concat ?a (cons ?y (cons ?x nil)))",
        "(concat ?a (cons ?x ?rest)) => ?x",
        "(neg (broadcast ?s ?x)) => (broadcast ?s ?x)",
        "(sub (reshape ?s ?x) (reshape ?s ?y)) => (reshape ?s (sub ?y ?x)) if (= (shape-of ?x) (shape-of ?y))",
        // Which extents are equal is not told.
        "(sub (reshape ?s ?x) (reshape ?s ?y)) => (reshape ?s (sub ?x ?y))",
        "(gather ?a (transpose ?p ?x) ?i) => (transpose ?p (gather (axis-through-perm ?p ?a) ?x ?i))",
        "(where ?c ?x ?y) => ?x",
        "(or~ ?x 1) => ?x",
        "(pad ?low ?high ?inner ?fill ?x) => (pad ?low ?high ?inner 1 ?x)",
        "(cast ?t (cast ?u ?x)) => (cast ?u (cast ?t ?x))",
        // A number of another dtype.
        "(where ?c (transpose ?p ?x) ?n) => (transpose ?p (where (transpose (inverse-perm ?p) ?c) ?x (splat ?c ?x))) if (is-number ?c)",
        // Right in small dtypes, not in large ones.
        "(sub (add ?x ?y) ?y) => ?x",
    ];
    for law in wrong {
        assert_eq!(proof(&format!("rule a [exact] {law}")), None, "{law}");
    }
}

/// Symbols in an argument of each sort, for a stream of this rank.
fn argument(draw: &mut Source, sort: Sort, rank: usize, symbols: &mut usize) -> Option<Arg> {
    let mut dims = |draw: &mut Source| -> Vec<Dim> {
        let mut one = || {
            *symbols += 1;
            if draw.chance(30) {
                Dim::ONE
            } else {
                Dim::sym(&format!("s{symbols}"))
            }
        };
        (0..rank).map(|_| one()).collect()
    };
    let attr = |a: Attr| Arg::Attr(Arc::new(a));
    Some(match sort {
        Sort::Stream => Arg::Stream(stream(dims(draw))),
        Sort::Dims | Sort::Entries => attr(Attr::Dims(dims(draw))),
        Sort::Ints => {
            let mut left: Vec<i64> = (0..rank as i64).collect();
            attr(Attr::Ints(
                (0..rank).map(|_| left.remove(draw.below(left.len()))).collect(),
            ))
        }
        Sort::Int => attr(Attr::Int(draw.below(rank.max(1)) as i64)),
        _ => return None,
    })
}

fn stream(shape: Vec<Dim>) -> Stream {
    Stream {
        ty: Arc::new(Type::new(DType::F32, shape)),
        constant: false,
        splat: None,
        class: None,
    }
}

/// An argument with numbers for its symbols.
fn valued(arg: &Arg, values: &dyn Fn(&Dim) -> Dim) -> Arg {
    let all = |v: &[Dim]| v.iter().map(values).collect::<Vec<Dim>>();
    match arg {
        Arg::Stream(s) => Arg::Stream(stream(all(&s.ty.shape))),
        Arg::Attr(a) => match &**a {
            Attr::Dims(v) => Arg::Attr(Arc::new(Attr::Dims(all(v)))),
            _ => arg.clone(),
        },
        Arg::List(_) => unreachable!("none is drawn"),
    }
}

/// What `Uniform` and `Units` promise: with symbols the result is the one for their values, of which `Units` has none that is 1.
#[test]
fn marked_functions_do_not_look_at_extents() {
    let empty = EGraph::new(Facts::new(&Graph::new("empty")));
    let mut draw = Source::new(11, Values::Plain);
    let mut compared = 0;
    for round in 0..300 {
        let value = |name: &str| 2 + (name[1..].parse::<i64>().expect("a number") * 7 + round) % 5;
        let values = |d: &Dim| d.substitute(&|name| Some(Dim::Const(value(name))));
        let rank = draw.below(6);
        let mut arguments = |takes: &[Sort]| -> Option<Vec<Arg>> {
            let mut symbols = 0;
            takes
                .iter()
                .map(|s| argument(&mut draw, *s, rank, &mut symbols))
                .collect()
        };
        for f in FUNCTIONS.iter().filter(|f| f.marks.contains(&Mark::Uniform)) {
            let args = arguments(f.takes).expect("of these sorts arguments are drawn");
            let known: Vec<Arg> = args.iter().map(|a| valued(a, &values)).collect();
            let symbolic = (f.run)(&args).map(|a| format!("{:?}", valued(&Arg::Attr(Arc::new(a)), &values)));
            let wanted = (f.run)(&known).map(|a| format!("{:?}", Arg::Attr(Arc::new(a))));
            assert_eq!(symbolic, wanted, "{} of {args:?}", f.name);
            compared += wanted.is_some() as usize;
        }
        for p in predicates().iter().filter(|p| p.marks.contains(&Mark::Units)) {
            let args = arguments(p.takes).expect("of these sorts arguments are drawn");
            let known: Vec<Arg> = args.iter().map(|a| valued(a, &values)).collect();
            assert_eq!(
                (p.run)(&empty, &args),
                (p.run)(&empty, &known),
                "{} of {args:?}",
                p.name
            );
        }
    }
    assert!(compared > 3_000, "{compared}");
}
