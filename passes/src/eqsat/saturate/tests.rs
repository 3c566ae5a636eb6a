//! Rules with several roots, and with matrices of numbers.

use super::super::build::build;
use super::super::check::{Check, Verdict, check_rule};
use super::super::clock::Clock;
use super::super::embedded;
use super::super::tests::distance;
use super::*;
use crate::eqsat::{Choices, kernels};
use brolga_ir::{Attr, Build, DType, Graph, GraphBuilder, Number, Target, Tensor, Type, Value};

/// x·a and x·b are parts of x·[a b].
const MERGE: &str = "rule merge-products [reassociate]
  (contract [] [] [1] [0] ?acc ?out ?x ?a)
  (contract [] [] [1] [0] ?acc ?out ?x ?b)
  => (slice [0 0] (shape-of (contract [] [] [1] [0] ?acc ?out ?x ?a)) [1 1]
       (contract [] [] [1] [0] ?acc ?out ?x (concat 1 (cons ?a (cons ?b nil)))))
     (slice (scale-dims [0 1] (shape-of (contract [] [] [1] [0] ?acc ?out ?x ?a))) (shape-of (contract [] [] [1] [0] ?acc ?out ?x ?b)) [1 1]
       (contract [] [] [1] [0] ?acc ?out ?x (concat 1 (cons ?a (cons ?b nil)))))
  if (is-constant ?a) (is-constant ?b) (has-rank ?x 2) (has-rank ?a 2) (has-rank ?b 2) (= (dtype-of ?a) (dtype-of ?b))";

fn rules(text: &str) -> RuleSet {
    RuleSet::parse("own.rules", text).unwrap_or_else(|e| panic!("{e}"))
}

/// These rules beside fusion and decomposition.
fn with_fusion(text: &str) -> RuleSet {
    RuleSet {
        rules: [&embedded().rules[..2], &rules(text).rules[..]].concat(),
    }
}

/// Products of one operand, or of one each, with constants, whose results are outputs.
fn products(n: usize, shared: bool) -> Graph {
    let mut g = Graph::new("products");
    let mut x = g.input("x", Type::fixed(DType::F32, &[4, 8]));
    let ty = Attr::DType(DType::F32);
    for i in 0..n {
        let w = g.dense(Tensor::from_fn(DType::F32, &[8, 2 + i % 3], |k| {
            Number::Float(((k * 7 + i * 5) % 11) as f64 / 8.0 - 0.5)
        }));
        if !shared && i > 0 {
            x = g.input(&format!("x{i}"), Type::fixed(DType::F32, &[4, 8]));
        }
        let mut b = GraphBuilder {
            graph: &mut g,
            origin: format!("product{i}").as_str().into(),
        };
        let [none, one, zero] = [&[][..], &[1], &[0]].map(Attr::ints);
        let y = b
            .call(
                "contract",
                &[none.clone(), none, one, zero, ty.clone(), ty.clone()],
                &[x, w],
            )
            .unwrap();
        let y: Value = b.call("tanh", &[], &[y]).unwrap();
        g.outputs.push((format!("y{i}").as_str().into(), y));
    }
    g
}

fn saturated(g: &Graph, set: &RuleSet) -> (Graph, Report) {
    let limits = Limits {
        iters: 40,
        nodes: 20_000,
        rewrites: usize::MAX,
    };
    let (choices, report) = Choices::saturated(g, set, limits, &Target::x86_64_v4()).unwrap();
    (choices.graph(g).unwrap(), report)
}

fn applied(report: &Report, rule: &str) -> usize {
    report.applied.iter().find(|(r, _)| r == rule).map_or(0, |(_, n)| *n)
}

#[test]
fn products_that_share_an_operand_are_merged() {
    let set = with_fusion(MERGE);
    for n in [2, 3, 20] {
        let g = products(n, true);
        let (out, report) = saturated(&g, &set);
        out.verify().unwrap();
        assert!(distance(&g, &out) < 1e-6);
        assert_eq!(report.stop, Stop::Saturated, "{report}");
        // n products are joined n - 1 times, and each time both roots change.
        assert_eq!(applied(&report, "merge-products"), 2 * (n - 1), "{report}");
        assert!(report.nodes < 120 * n, "{report}");
        assert!(kernels(&out) <= n + 1);
    }
    let (_, report) = saturated(&products(3, false), &set);
    assert_eq!(applied(&report, "merge-products"), 0, "they share nothing: {report}");
}

/// A root that appears after the other one is matched, too.
#[test]
fn a_root_that_a_rule_makes_is_joined() {
    let text = "rule twice [exact] (add ?x ?x) => (mul ?x (splat 2 ?x))
        rule pair [exact] (mul ?x 2) (exp ?x) => (mul (splat 2 ?x) ?x) (exp (neg (neg ?x)))";
    let mut g = Graph::new("g");
    let x = g.input("x", Type::fixed(DType::F32, &[4]));
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    let (sum, exp) = (b.call("add", &[], &[x, x]).unwrap(), b.call("exp", &[], &[x]).unwrap());
    g.outputs.push(("sum".into(), sum));
    g.outputs.push(("exp".into(), exp));
    let (out, report) = saturated(&g, &with_fusion(text));
    out.verify().unwrap();
    assert!(distance(&g, &out) == 0.0);
    assert_eq!(applied(&report, "pair"), 2, "{report}");
}

#[test]
fn rules_with_several_roots_are_checked() {
    let verdict = |text: &str| check_rule(&rules(text).rules[0], Check::default()).verdict;
    let v = verdict(MERGE);
    assert!(matches!(v, Verdict::Tested), "{v:?}");
    // The weights in the other order.
    let swapped = MERGE.replacen("(cons ?a (cons ?b nil))", "(cons ?b (cons ?a nil))", 1);
    // The second part begins at the end of the wrong one.
    let shifted = MERGE.replace(
        "(scale-dims [0 1] (shape-of (contract [] [] [1] [0] ?acc ?out ?x ?a)))",
        "[0 1]",
    );
    for wrong in [swapped, shifted] {
        match verdict(&wrong) {
            Verdict::Wrong(e) => assert!(e.size() < 90, "{}: {e}", e.size()),
            v => panic!("{wrong}: {v:?}"),
        }
    }
}

#[test]
fn matrices_are_matched_and_made() {
    // Rows that are exchanged and scaled, in integers.
    let text = "rule swap-scale [exact]
      (contract [] [] [1] [0] ?acc ?out (contract [] [] [1] [0] ?acc ?out ?x [[0 1] [1 0]]) [[2 0] [0 3]])
      => (contract [] [] [1] [0] ?acc ?out ?x (dense [[0 3] [2 0]] ?x))
      if (has-rank ?x 2) (is-integer ?x) (= ?acc (dtype-of ?x)) (= ?out (dtype-of ?x))";
    let v = check_rule(&rules(text).rules[0], Check::default()).verdict;
    assert!(matches!(v, Verdict::Tested), "{v:?}");
    let wrong = text.replace("(dense [[0 3] [2 0]] ?x)", "(dense [[0 2] [3 0]] ?x)");
    let v = check_rule(&rules(&wrong).rules[0], Check::default()).verdict;
    assert!(matches!(v, Verdict::Wrong(_)), "{v:?}");

    let graph = |second: [i64; 4]| {
        let mut g = Graph::new("g");
        let x = g.input("x", Type::fixed(DType::I32, &[3, 2]));
        let matrix =
            |g: &mut Graph, m: [i64; 4]| g.dense(Tensor::from_fn(DType::I32, &[2, 2], |i| Number::Int(m[i].into())));
        let (a, b) = (matrix(&mut g, [0, 1, 1, 0]), matrix(&mut g, second));
        let mut build = GraphBuilder {
            graph: &mut g,
            origin: "n".into(),
        };
        let [none, one, zero] = [&[][..], &[1], &[0]].map(Attr::ints);
        let ty = Attr::DType(DType::I32);
        let attrs = [none.clone(), none, one, zero, ty.clone(), ty];
        let y = build.call("contract", &attrs, &[x, a]).unwrap();
        let y = build.call("contract", &attrs, &[y, b]).unwrap();
        g.outputs.push(("y".into(), y));
        g
    };
    let (g, other) = (graph([2, 0, 0, 3]), graph([2, 0, 0, 4]));
    let (out, report) = saturated(&g, &with_fusion(text));
    assert_eq!(applied(&report, "swap-scale"), 1);
    out.verify().unwrap();
    assert_eq!(out.to_string().matches("= contract").count(), 1, "{out}");
    let x = Tensor::from_fn(DType::I32, &[3, 2], |i| Number::Int(i as i128 * 3 - 4));
    let x = [x];
    assert_eq!(g.eval(&x).unwrap(), out.eval(&x).unwrap());
    let (_, report) = saturated(&other, &with_fusion(text));
    assert_eq!(applied(&report, "swap-scale"), 0, "another matrix");
}

/// With a limit, what was rewritten are the first rewrites of a run without one, and the last is told with its operations.
#[test]
fn rewrites_stop_at_their_limit() {
    let g = products(6, true);
    let set = with_fusion(MERGE);
    let run = |rewrites: usize| {
        let limits = Limits {
            iters: 40,
            nodes: 20_000,
            rewrites,
        };
        Choices::saturated(&g, &set, limits, &Target::x86_64_v4()).unwrap()
    };
    let (_, whole) = run(usize::MAX);
    assert_eq!(whole.stop, Stop::Saturated);
    assert!(whole.rewrites > 5, "{whole}");
    let (none, report) = run(0);
    assert_eq!((report.stop, report.rewrites, report.last), (Stop::Rewrites, 0, None));
    assert!(distance(&g, &none.graph(&g).unwrap()) < 1e-6);
    let mut merged = 0;
    for n in 1..=whole.rewrites {
        let (choices, report) = run(n);
        assert_eq!(report.rewrites, n);
        // At the last one, too: matches that would change nothing are left.
        assert_eq!(report.stop, Stop::Rewrites);
        let last = report.last.expect("something was rewritten").named(&g, report.rewrites);
        assert!(set.rules.iter().any(|r| r.name == last.rule), "{last:?}");
        // What is loaded as it was stored may be an input, which no operation made.
        merged += usize::from(last.rule == "merge-products" && !last.nodes.is_empty());
        assert!(last.nodes.iter().all(|n| n.starts_with("product")), "{last:?}");
        assert!(distance(&g, &choices.graph(&g).unwrap()) < 1e-6);
    }
    assert_eq!(merged, 5, "six products are joined five times");
    let (_, all) = run(whole.rewrites);
    assert_eq!((all.last, all.applied), (whole.last, whole.applied));
}

/// Somebody who counts what there is to see.
#[derive(Default)]
struct Counted {
    rounds: usize,
    rewrites: usize,
}

impl Watch for Counted {
    fn applied(&mut self, _eg: &EGraph, changed: bool) {
        self.rewrites += changed as usize;
    }
    fn round(&mut self, _eg: &EGraph) {
        self.rounds += 1;
    }
}

#[test]
fn sizes_of_all_rounds_are_kept_and_a_clock_changes_nothing() {
    let (g, set, target) = (products(3, true), with_fusion(MERGE), Target::x86_64_v4());
    let built = || build(&g).unwrap_or_else(|e| panic!("{e}"));
    let first = Size::of(&built().eg, 0);
    for iters in [1, 2, 40] {
        let limits = Limits {
            iters,
            ..Limits::of(&g)
        };
        let (_, alone) = Choices::saturated(&g, &set, limits, &target).unwrap_or_else(|e| panic!("{e}"));
        let mut seen = Counted::default();
        let mut clock = Clock::new(set.rules.len(), &mut seen);
        let watched = Choices::watched(built(), &set, &limits.into(), &target, &mut clock);
        let (_, report) = watched.unwrap_or_else(|e| panic!("{e}"));
        let times = clock.times();
        assert_eq!(report, alone);
        assert_eq!(times.rounds.len(), report.rounds);
        assert_eq!(times.rules.len(), set.rules.len());
        assert_eq!((seen.rounds, seen.rewrites), (report.rounds, report.rewrites));
        let last = Size {
            nodes: report.nodes,
            classes: report.classes,
            rewrites: report.rewrites,
        };
        assert_eq!(report.growth.len(), report.rounds + 1);
        assert_eq!((report.growth[0], report.growth[report.rounds]), (first, last));
    }
}
