use super::*;
use crate::eqsat::{EqSat, embedded, optimize, usual};
use crate::pass::{Context, Files, Settings, TensorPass};
use brolga_ir::Target;

const GRAPH: &str = "graph @g(%0 x: f32[2, 3]) {
  %1 = transpose{perm=[1, 0]}(%0)
  %2 = transpose{perm=[1, 0]}(%1)
  %3 = const f32[2, 3] splat 1.0
  %4 = mul(%2, %3)
  %5 = relu(%4)
  return y = %5
}";

fn graph() -> Graph {
    Graph::parse(GRAPH, &|_| None).unwrap()
}

/// A file under every name.
struct Text(&'static str);

impl Files for Text {
    fn read(&self, _: &str) -> Result<String, String> {
        Ok(self.0.to_owned())
    }
}

fn pass(text: &'static str, others: &[(&str, &str)]) -> Result<EqSat, String> {
    let own = |(n, v): &(&str, &str)| (n.to_string(), v.to_string());
    let options: Vec<_> = [("schedule", "s.txt")].iter().chain(others).map(own).collect();
    EqSat::with(&options, &Text(text))
}

fn applied(text: &'static str) -> Vec<(Vec<String>, Phased)> {
    let pass = pass(text, &[]).unwrap();
    let all = &pass.schedule.as_ref().unwrap().schedule.phases;
    // What the phases up to each applied: a schedule's beginning is a schedule.
    let upto = |n: usize| {
        let schedule = Schedule {
            phases: all[..=n].to_vec(),
        };
        let course = schedule.course(&graph(), usual());
        let (_, report) = optimize(&graph(), usual(), course, &Target::x86_64_v3()).unwrap();
        assert_eq!(report.phases.len(), n + 1);
        let names = report.applied.iter().map(|(r, _)| r.clone()).collect();
        (names, report.phases[n])
    };
    (0..all.len()).map(upto).collect()
}

#[test]
fn phases_run_their_rules_only() {
    let ran =
        applied("(phase (rules mul-one)) (phase (rules fusion movement -transpose-identity)) (phase (rules all))");
    let names: Vec<Vec<&str>> = ran.iter().map(|r| r.0.iter().map(|s| &**s).collect()).collect();
    assert_eq!(names[0], ["mul-one"]);
    assert!(names[1].contains(&"transpose-compose"), "{names:?}");
    assert!(!names[1].contains(&"transpose-identity"), "{names:?}");
    // What no rule of the phases before looked at is found behind them.
    assert!(
        names[2].len() > names[1].len() && names[2].contains(&"transpose-identity"),
        "{names:?}"
    );
    // Without the identity, transposes that change nothing are put on each other without end.
    let stops: Vec<Stop> = ran.iter().map(|r| r.1.stop).collect();
    assert_eq!(stops, [Stop::Saturated, Stop::Rounds, Stop::Saturated]);
}

#[test]
fn limits_are_those_of_each_phase() {
    let ran = applied(
        "(phase (rules all) (rounds 1)) (repeat 2 (phase (rules all) (nodes 1))) (phase (rules all) (matches 1))",
    );
    let ends: Vec<(usize, Stop)> = ran.iter().map(|r| (r.1.rounds, r.1.stop)).collect();
    let (one, nodes) = ((1, Stop::Rounds), (1, Stop::Nodes));
    assert_eq!(ends[..3], [one, nodes, nodes]);
    assert_eq!(ends[3].1, Stop::Saturated);
}

#[test]
fn what_runs_without_a_schedule_can_be_written() {
    let run = |pass: &EqSat| {
        let mut cx = Context::new(Target::x86_64_v3());
        let out = pass.rewrite(&graph(), &mut cx).unwrap().to_string();
        (out, cx.remarks, printed(&cx.saturated))
    };
    let plain = run(&EqSat::default());
    assert!(
        plain
            .2
            .starts_with("(phase (rules all) (rounds 40) (nodes by-size) (matches 64))\n; @g: "),
        "{}",
        plain.2
    );
    let text: &'static str = plain.2.clone().leak();
    assert_eq!(run(&pass(text, &[]).unwrap()), plain);
    let limited = EqSat {
        iters: 2,
        nodes: 30,
        ..EqSat::default()
    };
    let limited = run(&limited);
    assert_ne!(limited.1, plain.1);
    assert_eq!(run(&pass(limited.2.clone().leak(), &[]).unwrap()), limited);
    // Of several phases, too, and what does not run is said so.
    let several = "(repeat 2 (phase (rules all -merge) (rounds 1))) (phase (rules fusion))";
    let several = run(&pass(several, &[]).unwrap());
    assert_eq!(several.2.lines().count(), 6);
    assert!(
        several.1.iter().any(|r| r.starts_with("eqsat: phase 3: ")),
        "{:?}",
        several.1
    );
    assert_eq!(run(&pass(several.2.clone().leak(), &[]).unwrap()), several);
}

#[test]
fn rewrites_end_all_phases() {
    let pass = pass(
        "(phase (rules all) (rounds 1)) (phase (rules all))",
        &[("rewrites", "1")],
    )
    .unwrap();
    let mut cx = Context::new(Target::x86_64_v3());
    pass.rewrite(&graph(), &mut cx).unwrap();
    assert_eq!(cx.counts.get("rewrites"), 1);
    assert!(printed(&cx.saturated).contains("; @g: did not run\n"));
}

#[test]
fn mistakes_have_places() {
    for (text, message) in [
        ("", "s.txt:1:1: found the end, expected (phase (rules …) …)"),
        ("; nothing\n", "s.txt:1:1: found the end, expected (phase (rules …) …)"),
        ("(phase (rules all)", "s.txt:1:1: found `(` without its `)`"),
        (
            "phase",
            "s.txt:1:1: found `phase`, expected (phase (rules …) …) or (repeat N (phase (rules …) …) …)",
        ),
        (
            "\n(phsae (rules all))",
            "s.txt:2:2: found `phsae`, expected phase or repeat, did you mean `phase`?",
        ),
        (
            "(phase)",
            "s.txt:1:1: the phase names no rules, expected (phase (rules …) …), such as (rules all)",
        ),
        (
            "(phase (rules))",
            "s.txt:1:8: found `(rules)`, expected all, a theme or a rule",
        ),
        ("(phase (rules all) (rules all))", "s.txt:1:20: `rules` is given twice"),
        (
            "(phase (rules all) (rounds 0))",
            "s.txt:1:28: found `0`, expected a number from 1 on",
        ),
        (
            "(phase (rules all) (rounds by-size))",
            "s.txt:1:28: found `by-size`, expected a number from 1 on",
        ),
        (
            "(phase (rules all) (nodes))",
            "s.txt:1:20: found `(nodes)`, expected (nodes N)",
        ),
        (
            "(phase (rules all) (nodes 1) (nodes 2))",
            "s.txt:1:30: `nodes` is given twice",
        ),
        (
            "(phase (rules all) (ruonds 2))",
            "s.txt:1:21: found `ruonds`, expected rules, rounds, nodes, matches, did you mean `rounds`?",
        ),
        (
            "(phase (rules -merge))",
            "s.txt:1:15: found `-merge` in front, expected all, a theme or a rule that it is taken away from, such as all -merge",
        ),
        (
            "(repeat 2)",
            "s.txt:1:1: a repetition lacks its number or its phases, expected (repeat N (phase (rules …) …) …)",
        ),
        (
            "(repeat (phase (rules all)) (phase (rules all)))",
            "s.txt:1:9: found `(phase (rules all))`, expected a number from 1 on",
        ),
        (
            "(repeat 99999999 (repeat 99999999 (phase (rules all))))",
            "s.txt:1:18: there are more than 1000 phases, repetitions unrolled",
        ),
        (
            "(phase (rules all\n  -mrege))",
            "s.txt:2:3: found `mrege`, expected all, a theme or a rule, did you mean `merge`?",
        ),
        (
            "(phase (rules mul-onee))",
            "s.txt:1:15: found `mul-onee`, expected all, a theme or a rule, did you mean `mul-one`?",
        ),
        (
            "(phase (rules contract-sum))",
            "s.txt:1:15: `contract-sum` is not used: it is switched off, or of a class that fp= leaves out",
        ),
    ] {
        let found = pass(text, &[]).unwrap_err();
        assert!(found.ends_with(message), "{text}:\n{found}\n{message}");
    }
    let ok = "(phase (rules all))";
    for (option, message) in [
        (
            ("nodes", "9"),
            "nodes=9 beside schedule=s.txt: each phase has its own limit, write (nodes 9) there",
        ),
        (
            ("iters", "9"),
            "iters=9 beside schedule=s.txt: each phase has its own limit, write (rounds 9) there",
        ),
        (("rules", "none"), "s.txt:1:15: rules=none has no rules to schedule"),
        (
            ("schedule", "t.txt"),
            "`schedule=t.txt`: there is the schedule s.txt already, expected one",
        ),
    ] {
        assert_eq!(pass(ok, &[option]).unwrap_err(), message);
    }
    assert!(pass("(phase (rules contract-sum))", &[("fp", "fast")]).is_ok());
    // Names are those of embedded rules, and all of them.
    for rule in &embedded().rules {
        let text: &'static str = format!("(phase (rules {} {}))", rule.theme(), rule.name).leak();
        assert!(pass(text, &[("fp", "fast")]).is_ok(), "{text}");
    }
}
