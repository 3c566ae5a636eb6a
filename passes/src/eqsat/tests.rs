use super::check::{Check, Counterexample, Verdict};
use super::saturate::Limits;
use super::*;
use brolga_ir::{Attr, Build, DType, Dim, GraphBuilder, Number, Tensor, Type, Value};

/// Small values, the same everywhere.
fn values(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    Tensor::from_fn(dtype, shape, |i| {
        Number::Float((((i + 1) * (seed * 7 + 5)) % 17) as f64 / 8.0 - 1.0)
    })
}

/// A residual block: conv, batch-norm, relu, conv, bias, addition, global average, classifier.
pub fn block() -> Graph {
    let mut g = Graph::new("block");
    let x = g.input("x", Type::fixed(DType::F32, &[1, 8, 6, 6]));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "conv1".into(),
    };
    let conv = |b: &mut GraphBuilder, x: Value, seed| {
        let w = b.graph.dense(values(DType::F32, &[8, 8, 3, 3], seed));
        let pads = Attr::dims(&[1, 1]);
        let ones = Attr::ints(&[1, 1]);
        let attrs = [
            ones.clone(),
            ones,
            pads.clone(),
            pads,
            Attr::Int(1),
            Attr::DType(DType::F32),
            Attr::DType(DType::F32),
        ];
        b.call("conv", &attrs, &[x, w]).unwrap()
    };
    let c = conv(&mut b, x, 1);
    b.origin = "bn".into();
    let vectors: Vec<Value> = (0..4)
        .map(|i| {
            let t = values(DType::F32, &[8], i + 2);
            b.graph.dense(if i == 3 {
                Tensor::from_fn(DType::F32, &[8], |k| Number::Float(1.0 + t.get(k).f64().abs()))
            } else {
                t
            })
        })
        .collect();
    let c = b
        .call(
            "batch_norm",
            &[Attr::num(1e-5)],
            &[c, vectors[0], vectors[1], vectors[2], vectors[3]],
        )
        .unwrap();
    b.origin = "relu".into();
    let c = b.call("relu", &[], &[c]).unwrap();
    b.origin = "conv2".into();
    let c = conv(&mut b, c, 3);
    let bias = b.graph.dense(values(DType::F32, &[1, 8, 1, 1], 4));
    let shape: Vec<Dim> = [1usize, 8, 6, 6].map(Dim::from).to_vec();
    let bias = b.call("broadcast", &[Attr::Dims(shape)], &[bias]).unwrap();
    let c = b.call("add", &[], &[c, bias]).unwrap();
    b.origin = "sum".into();
    let c = b.call("add", &[], &[c, x]).unwrap();
    let c = b.call("relu", &[], &[c]).unwrap();
    b.origin = "pool".into();
    let c = b
        .call("reduce", &[Attr::word("sum"), Attr::ints(&[2, 3])], &[c])
        .unwrap();
    let n = b.splat(DType::F32, &[1, 8, 1, 1].map(Dim::Const), 36.0).unwrap();
    let c = b.call("div", &[], &[c, n]).unwrap();
    let c = b.call("reshape", &[Attr::dims(&[1, 8])], &[c]).unwrap();
    g.outputs.push(("y".into(), c));
    g
}

/// The largest difference of the outputs of two graphs, over the largest magnitude.
pub fn distance(a: &Graph, b: &Graph) -> f64 {
    let inputs: Vec<Tensor> = a
        .inputs
        .iter()
        .map(|i| {
            let shape: Vec<usize> = a
                .ty(i.value)
                .shape
                .iter()
                .map(|d| d.eval(&|_| Some(cost::SYMBOL)).unwrap() as usize)
                .collect();
            values(a.ty(i.value).dtype, &shape, 9)
        })
        .collect();
    let (x, y) = (a.eval(&inputs).unwrap(), b.eval(&inputs).unwrap());
    let mut worst = 0.0f64;
    for (x, y) in x.iter().zip(&y) {
        assert_eq!(x.shape(), y.shape());
        let scale = x.to_f64s().iter().fold(1e-30f64, |m, v| m.max(v.abs()));
        worst = x
            .to_f64s()
            .iter()
            .zip(y.to_f64s())
            .fold(worst, |m, (a, b)| m.max((a - b).abs() / scale));
    }
    worst
}

#[test]
fn without_rules_every_operator_is_a_kernel() {
    let g = block();
    let out = unfused(&g, &Target::x86_64_v4()).unwrap();
    out.verify().unwrap();
    assert!(
        distance(&g, &out) < 1e-6,
        "the decomposition of batch-norm rounds otherwise"
    );
    let stores = out.nodes.iter().filter(|n| n.op.name() == "store").count();
    let others = out
        .nodes
        .iter()
        .filter(|n| !["store", "reshape"].contains(&n.op.name()))
        .count();
    assert_eq!(stores, others, "every operator but a reshape of a tensor is stored");
}

#[test]
fn the_embedded_rules_fuse_a_residual_block() {
    let g = block();
    let mut cx = Context::new(Target::x86_64_v4());
    let out = EqSat::default().rewrite(&g, &mut cx).unwrap();
    out.verify().unwrap();
    assert!(distance(&g, &out) < 1e-5);
    assert!(cx.remarks[0].starts_with("eqsat: saturated after"), "{}", cx.remarks[0]);
    let baseline = kernels(&unfused(&g, &Target::x86_64_v4()).unwrap());
    assert!(
        kernels(&out) * 2 <= baseline,
        "{} kernels, {baseline} without rules",
        kernels(&out)
    );
}

#[test]
fn every_rule_is_sound() {
    let check = |seed| Check {
        seed,
        ..Check::default()
    };
    let reports: Vec<check::Report> = (7..10).flat_map(|s| check::check_rules(embedded(), check(s))).collect();
    let why = |r: &check::Report| match &r.verdict {
        Verdict::Wrong(e) => Some(e.to_string()),
        Verdict::Untested(e) => Some(e.clone()),
        Verdict::Tested if !r.varied => {
            Some("no instance of rank 3 with an extent of 1 and different extents".to_string())
        }
        Verdict::Tested => None,
    };
    let bad: Vec<String> = reports
        .iter()
        .filter_map(|r| why(r).map(|e| format!("rule `{}` ({} of {}): {e}", r.rule, r.accepted, r.attempts)))
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {} rules:\n{}",
        bad.len(),
        reports.len(),
        bad.join("\n\n")
    );
    // What the drawing of instances promises.
    let all = |f: fn(&check::Report) -> Vec<String>| -> std::collections::BTreeSet<String> {
        reports.iter().flat_map(f).collect()
    };
    let ranks = all(|r| r.ranks.iter().map(usize::to_string).collect());
    assert!((0..=5).all(|r| ranks.contains(&r.to_string())), "{ranks:?}");
    let dtypes = all(|r| r.dtypes.iter().map(DType::to_string).collect());
    for dtype in DType::ALL.iter().filter(|d| d.small().is_none()) {
        assert!(dtypes.contains(&dtype.to_string()), "{dtype} in {dtypes:?}");
    }
}

/// What a rule may do beyond rounding is what it cannot do without.
#[test]
fn every_allowance_is_needed() {
    const SEEDS: u64 = 60;
    let is_wrong = |rule: &rules::Rule, seed| {
        let check = Check {
            seed,
            ..Check::default()
        };
        matches!(check::check_rule(rule, check).verdict, Verdict::Wrong(_))
    };
    let mut idle = vec![];
    for rule in &embedded().rules {
        for allowance in &rule.allows {
            let mut strict = rule.clone();
            strict.allows.retain(|a| a != allowance);
            let wrong = (0..SEEDS).any(|seed| is_wrong(&strict, seed));
            idle.extend((!wrong).then(|| format!("{} {allowance:?}", rule.name)));
        }
    }
    assert!(idle.is_empty(), "rules do not need {}", idle.join(", "));
}

#[test]
fn numbers_fold_to_what_operators_give() {
    let folded = check::check_splats(3).unwrap();
    assert!(folded > 1000, "only {folded} instances");
}

/// Both sides of a counterexample read back, and give what it says.
fn replays(found: &Counterexample) {
    let result = |g: &Graph| {
        Graph::parse(&g.to_string(), &|_| None)
            .unwrap()
            .eval(&found.inputs)
            .unwrap()
            .remove(0)
    };
    let (Some(right), Some([l, r])) = (&found.right, &found.results) else {
        assert!(found.right.is_none(), "a right side that cannot be evaluated: {found}");
        return;
    };
    // NaN is no value of its own: what is printed tells the bits.
    assert_eq!(format!("{:?}", result(&found.left)), format!("{l:?}"));
    assert_eq!(format!("{:?}", result(right)), format!("{r:?}"));
}

/// How large a counterexample to a wrong rule is: elements of all values, and operations.
#[test]
fn counterexamples_are_small() {
    let found = |rule: &str| {
        let set = RuleSet::parse("wrong.rules", rule).unwrap();
        match check::check_rule(&set.rules[0], Check::default()).verdict {
            Verdict::Wrong(e) => e,
            v => panic!("{rule}: {v:?}"),
        }
    };
    // One element, two operations.
    let e = found("rule a [exact] (sub ?x ?y) => (sub ?y ?x)");
    assert!(e.size() <= 8, "{}: {e}", e.size());
    assert!(
        e.inputs
            .iter()
            .all(|t| t.iter().all(|x| [0.0, 1.0].contains(&x.f64().abs()))),
        "plain elements: {e}"
    );
    // Two elements are the least that a transpose moves: an operand swapped, an attribute taken unchanged.
    let e = found("rule a [exact] (concat ?a (cons ?x (cons ?y nil))) => (concat ?a (cons ?y (cons ?x nil)))");
    assert!(e.size() <= 14, "{}: {e}", e.size());
    let e = found("rule a [reassociate] (softmax ?a ?z (transpose ?p ?x)) => (transpose ?p (softmax ?a ?z ?x))");
    assert!(e.size() <= 40, "{}: {e}", e.size());
    // A side condition that is missing: 0 · inf.
    let e = found("rule a [exact] (mul~ ?x 0) => (splat 0 ?x)");
    assert!(e.size() <= 8, "{}: {e}", e.size());
}

#[test]
fn wrong_rules_are_caught() {
    let verdict = |rule: &str| {
        let set = RuleSet::parse("wrong.rules", rule).unwrap();
        check::check_rules(&set, Check::default()).remove(0).verdict
    };
    let wrong = |rule: &str, what: &str| match verdict(rule) {
        Verdict::Wrong(e) => {
            assert!(e.to_string().contains(what), "{rule}: {e}");
            replays(&e);
        }
        v => panic!("{rule}: {v:?}"),
    };
    // A sign, an order of operands, an axis that a transpose moved, a zero that was negative, a type.
    wrong("rule a [reassociate] (relu (neg ?x)) => (neg (relu ?x))", "element");
    wrong("rule a [reassociate] (sub ?x ?y) => (sub ?y ?x)", "element");
    wrong(
        "rule a [reassociate] (softmax ?a ?z (transpose ?p ?x)) => (transpose ?p (softmax ?a ?z ?x))",
        "element",
    );
    wrong("rule a [exact] (add ?x 0) => ?x", "element");
    wrong("rule a [exact] (mul (mul ?x ?y) ?z) => (mul ?x (mul ?y ?z))", "element");
    wrong("rule a [exact] (less ?x ?y) => ?x", "the left side has type bool");
    wrong("rule a [exact] (is_nan ?x) => (and ?x ?x)", "and: ");
    // What infinities, NaN and the sign of a zero do.
    wrong("rule a [reassociate] (add~ ?x 0) => ?x", "-0.0");
    wrong("rule a [reassociate] (sub 0 ?x) => (neg ?x)", "-0.0");
    wrong(
        "rule a [reassociate] (pow ?x 0.5) => (sqrt ?x) if (is-float ?x)",
        "element",
    );
    wrong(
        "rule a [exact] (mul~ ?x -1) => (neg (neg ?x)) if (is-integer ?x)",
        "element",
    );
    wrong(
        "rule a [reassociate] (sub ?x ?x) => (splat 0 ?x) if (is-float ?x)",
        "NaN",
    );
    wrong(
        "rule a [reassociate] (div ?x ?x) => (splat 1 ?x) if (is-float ?x)",
        "NaN",
    );
    wrong(
        "rule a [reassociate] (mul~ ?x 0) => (splat 0 ?x) if (is-float ?x)",
        "element",
    );
    wrong(
        "rule a [reassociate] (max~ ?x -inf) => (where (is_nan ?x) (splat 0 ?x) ?x) if (is-float ?x)",
        "NaN",
    );
    // What is near, but not near enough: a constant in its fifth digit, half of the precision.
    wrong(
        "rule a [reassociate] (mul~ ?x 0.70710678) => (mul ?x (splat 0.70711 ?x)) if (is-float ?x)",
        "may differ",
    );
    wrong(
        "rule a [reassociate] (sqrt ?x) => (pow ?x (splat 0.50001 ?x)) if (is-compute ?x)",
        "may differ",
    );
    // An overflow, and one of 16 bits.
    wrong(
        "rule a [reassociate] (div (mul ?x ?y) ?y) => ?x if (is-float ?x)",
        "element",
    );
    wrong(
        "rule a [reassociate range] (mul~ (mul~ ?x ?a) ?b) => (mul ?x (mul ?b ?b)) if (is-number ?a) (is-number ?b)",
        "element",
    );
    // The second match: with the operands in the other order.
    wrong("rule a [exact] (sub~ ?x ?y) => (sub ?x ?y)", "element");
    // Padding before the image and behind it taken one for the other, where windows see little of it.
    wrong(
        "rule a [exact] (conv ?s ?d ?h ?l ?g ?acc ?out ?x ?w) => (concat (cut-axis ?s ?d ?l ?h ?x ?w)
           (cons (conv ?s ?d ?l (cut-high ?s ?d ?l ?h ?x ?w) ?g ?acc ?out ?x ?w)
             (cons (conv ?s ?d (cut-low ?s ?d ?l ?h ?x ?w) ?h ?g ?acc ?out ?x ?w) nil)))
         if (sees-little ?s ?d ?l ?h ?x ?w)",
        "left",
    );
    let unknown = |rule: &str, what: &str| match verdict(rule) {
        Verdict::Untested(e) => assert!(e.contains(what), "{rule}: {e}"),
        v => panic!("{rule}: {v:?}"),
    };
    unknown(
        "rule a [exact] (neg ?x) => ?x if (is-number ?x) (not (is-number ?x))",
        "it matched only 0 of",
    );
    unknown(
        "rule a [exact] (top_k ?a ?k ?l ?x) => ?x",
        "no instance of its left side could be made",
    );
}

#[test]
fn a_rule_that_changes_a_type_is_an_error_with_its_name() {
    let set = RuleSet::parse("r", "rule shrink [exact] (relu ?x) => (reduce max [1] ?x)").unwrap();
    let with_fusion = RuleSet {
        rules: [&embedded().rules[..2], &set.rules[..]].concat(),
    };
    let e = optimize(
        &block(),
        &with_fusion,
        Limits {
            iters: 9,
            nodes: 9000,
            rewrites: usize::MAX,
        },
        &Target::x86_64_v4(),
    )
    .unwrap_err();
    assert!(e.starts_with("rule `shrink` (r:1:1): the left side has type"), "{e}");
}

#[test]
fn the_same_graph_gives_the_same_kernels() {
    let run = || {
        EqSat::default()
            .rewrite(&block(), &mut Context::new(Target::x86_64_v4()))
            .unwrap()
    };
    let (a, b) = (run(), run());
    assert!(a == b, "two runs differ");
}

/// Optimises and compares; gives the number of kernels.
fn same(g: &Graph) -> usize {
    let mut cx = Context::new(Target::x86_64_v4());
    let out = EqSat::default().rewrite(g, &mut cx).unwrap();
    out.verify().unwrap();
    assert!(distance(g, &out) < 1e-5);
    let none = EqSat {
        selection: "none".parse().unwrap(),
        ..EqSat::default()
    }
    .rewrite(g, &mut cx)
    .unwrap();
    none.verify().unwrap();
    assert!(distance(g, &none) < 1e-5);
    kernels(&out)
}

#[test]
fn outputs_that_nothing_computes() {
    let mut g = Graph::new("leaves");
    let x = g.input("x", Type::fixed(DType::F32, &[2, 3]));
    let c = g.dense(values(DType::F32, &[3], 1));
    let s = g.dense(Tensor::scalar(DType::F32, Number::Float(2.0)));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let r = b.call("reshape", &[Attr::dims(&[3, 2])], &[x]).unwrap();
    let one = b.splat(DType::F32, &[2.into(), 3.into()], 1.0).unwrap();
    let same_as_x = b.call("mul", &[], &[x, one]).unwrap();
    for (name, v) in [
        ("x", x),
        ("c", c),
        ("s", s),
        ("r", r),
        ("one", one),
        ("y", same_as_x),
        ("again", same_as_x),
    ] {
        g.outputs.push((name.into(), v));
    }
    assert_eq!(same(&g), 0);
}

#[test]
fn integers_beyond_an_f64_stay_what_they_are() {
    let odd = (1i128 << 53) + 1;
    for (dtype, big) in [(DType::I64, odd), (DType::I64, -odd), (DType::U64, u64::MAX as i128)] {
        let mut g = Graph::new("big");
        let x = g.input("x", Type::fixed(dtype, &[2, 3]));
        let big = Number::Int(big);
        let dense = g.dense(Tensor::from_fn(dtype, &[3], |i| {
            if i == 1 { big } else { Number::Int(i as i128) }
        }));
        let scalar = g.dense(Tensor::scalar(dtype, big));
        let mut b = GraphBuilder {
            graph: &mut g,
            origin: "n".into(),
        };
        let shape = [Dim::from(2usize), 3usize.into()];
        let (row, splat) = (b.spread(dense, &shape).unwrap(), b.spread(scalar, &shape).unwrap());
        let sum = b.call("add", &[], &[x, splat]).unwrap();
        let product = b.call("mul", &[], &[sum, splat]).unwrap();
        let most = b.call("max", &[], &[product, row]).unwrap();
        let pads = [
            Attr::dims(&[0, 1]),
            Attr::dims(&[1, 0]),
            Attr::ints(&[0, 0]),
            Attr::number(big),
        ];
        let padded = b.call("pad", &pads, &[most]).unwrap();
        // Only numbers that an f64 holds are the same as their neighbours.
        let near = b.splat(dtype, &shape, big.f64()).unwrap();
        let equal = b.call("equal", &[], &[splat, near]).unwrap();
        g.outputs.push(("y".into(), padded));
        g.outputs.push(("equal".into(), equal));
        let x = [Tensor::from_fn(dtype, &[2, 3], |i| Number::Int(i as i128 * 5))];
        let want = g.eval(&x).unwrap();
        let mut cx = Context::new(brolga_ir::Target::x86_64_v3());
        let out = EqSat::default().rewrite(&g, &mut cx).unwrap();
        assert_eq!(out.eval(&x).unwrap(), want);
        let read = Graph::parse(&out.to_string(), &|_| None).unwrap();
        assert_eq!(read.eval(&x).unwrap(), want);
    }
}

#[test]
fn a_rule_matches_only_its_own_number() {
    // No law: it shows where it was applied.
    let rules = "rule odd [exact]\n  (mul~ ?x 9007199254740993) => (mul ?x (splat 9007199254740995 ?x))";
    let odd = RuleSet::parse("odd", rules).unwrap();
    let set = RuleSet {
        rules: [&embedded().rules[..2], &odd.rules[..]].concat(),
    };
    let found = |number: i64| {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::fixed(DType::I64, &[2]));
        let c = g.dense(Tensor::from_i64(&[2], &[number; 2]));
        let mut b = GraphBuilder {
            graph: &mut g,
            origin: "n".into(),
        };
        let y = b.call("mul", &[], &[x, c]).unwrap();
        g.outputs.push(("y".into(), y));
        let limits = Limits {
            iters: 9,
            nodes: 9000,
            rewrites: usize::MAX,
        };
        let (_, report) = optimize(&g, &set, limits, &Target::x86_64_v4()).unwrap();
        report.applied.iter().any(|(rule, _)| rule == "odd")
    };
    assert!(found((1 << 53) + 1));
    assert!(!found(1 << 53));
}

#[test]
fn searches_that_end_at_the_most_matches_are_reported() {
    let rules = "rule regroup [reassociate] (add~ (add~ ?x ?y) ?z) => (add ?x (add ?y ?z))";
    let regroup = RuleSet::parse("sums", rules).unwrap();
    let set = RuleSet {
        rules: [&embedded().rules[..2], &regroup.rules[..]].concat(),
    };
    let report = |terms: usize| {
        let mut g = Graph::new("sum");
        let inputs: Vec<Value> = (0..terms)
            .map(|i| g.input(&format!("x{i}"), Type::fixed(DType::F32, &[2])))
            .collect();
        let mut b = GraphBuilder {
            graph: &mut g,
            origin: "n".into(),
        };
        let add = |sum, x: &Value| b.call("add", &[], &[sum, *x]).unwrap();
        let sum = inputs[1..].iter().fold(inputs[0], add);
        g.outputs.push(("sum".into(), sum));
        let limits = Limits {
            iters: 9,
            nodes: 9000,
            rewrites: usize::MAX,
        };
        optimize(&g, &set, limits, &Target::x86_64_v4()).unwrap().1
    };
    let small = report(3);
    assert!(small.cut.is_empty(), "{small}");
    assert!(!small.to_string().contains("searches that ended"), "{small}");
    // A sum of seven terms is one of two parts in 63 ways, and most parts have parts.
    let large = report(7);
    let [(rule, n)] = &large.cut[..] else { panic!("{large}") };
    assert_eq!(rule, "regroup");
    let said = format!("; searches that ended at the most matches: regroup {n}");
    assert!(large.to_string().ends_with(&said), "{large}");
}

#[test]
fn empty_and_rank_zero() {
    let mut g = Graph::new("odd");
    let x = g.input("x", Type::fixed(DType::F32, &[0, 3]));
    let y = g.input("y", Type::fixed(DType::F32, &[]));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let sum = b.call("reduce", &[Attr::word("sum"), Attr::ints(&[0])], &[x]).unwrap();
    let root = b.call("exp", &[], &[y]).unwrap();
    let root = b.call("neg", &[], &[root]).unwrap();
    let t = b.call("transpose", &[Attr::ints(&[1, 0])], &[x]).unwrap();
    let t = b.call("relu", &[], &[t]).unwrap();
    for (name, v) in [("sum", sum), ("root", root), ("t", t)] {
        g.outputs.push((name.into(), v));
    }
    same(&g);
}

#[test]
fn symbolic_extents() {
    let mut g = Graph::new("dyn");
    let (n, s) = (Dim::sym("n"), Dim::sym("s"));
    let x = g.input("x", Type::new(DType::F32, vec![n.clone(), s.clone(), 8.into()]));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let half = b.splat(DType::F32, &[n.clone(), s.clone(), 8.into()], 0.5).unwrap();
    let y = b.call("mul", &[], &[x, half]).unwrap();
    let y = b.call("transpose", &[Attr::ints(&[0, 2, 1])], &[y]).unwrap();
    let y = b.call("tanh", &[], &[y]).unwrap();
    let y = b.call("transpose", &[Attr::ints(&[0, 2, 1])], &[y]).unwrap();
    let flat = b.call("reshape", &[Attr::Dims(vec![&n * &s, 8.into()])], &[y]).unwrap();
    g.outputs.push(("y".into(), y));
    g.outputs.push(("half".into(), half));
    g.outputs.push(("flat".into(), flat));
    // The transposes cancel; the symbolic splat is an output of its own.
    assert_eq!(same(&g), 2);
}

#[test]
fn a_long_chain_is_cut() {
    let mut g = Graph::new("chain");
    let x = g.input("x", Type::fixed(DType::F32, &[4]));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let mut y = x;
    for _ in 0..2000 {
        y = b.call("sin", &[], &[y]).unwrap();
    }
    g.outputs.push(("y".into(), y));
    let n = same(&g);
    assert!((2000 / extract::MOST_OPERATORS..200).contains(&n), "{n} kernels");
}

#[test]
fn a_value_with_several_consumers_is_computed_once() {
    let mut g = Graph::new("shared");
    let x = g.input("x", Type::fixed(DType::F32, &[64, 64]));
    let w = g.dense(values(DType::F32, &[64, 64], 3));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let ty = Attr::DType(DType::F32);
    let product = |b: &mut GraphBuilder, x| {
        let attrs = [
            Attr::ints(&[]),
            Attr::ints(&[]),
            Attr::ints(&[1]),
            Attr::ints(&[0]),
            ty.clone(),
            ty.clone(),
        ];
        b.call("contract", &attrs, &[x, w]).unwrap()
    };
    let p = product(&mut b, x);
    let p = b.call("relu", &[], &[p]).unwrap();
    let a = product(&mut b, p);
    let c = product(&mut b, a);
    let sum = b.call("add", &[], &[c, p]).unwrap();
    g.outputs.push(("sum".into(), sum));
    assert_eq!(same(&g), 3);
}
