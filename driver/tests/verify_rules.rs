//! `brolga verify-rules`: verdicts, counterexamples that replay, and exit statuses.

mod common;

use common::{brolga, json};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with a file of rules.
fn folder(rules: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    std::fs::write(dir.path().join("my.rules"), rules).expect("a file is written");
    dir
}

/// Runs a command as a user would who copies it; gives its exit status and what it printed.
#[cfg(unix)]
fn shell(dir: &Path, command: &str) -> common::Ran {
    let bin = PathBuf::from(env!("CARGO_BIN_EXE_brolga"));
    let folder = bin.parent().expect("a binary lies in a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let out = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path)
        .output();
    common::ran(out.expect("there is a shell"))
}

/// The command behind `replay: `.
fn replay(text: &str) -> &str {
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix("replay: "));
    line.unwrap_or_else(|| panic!("no command in\n{text}"))
}

#[test]
fn embedded_rules_pass_few_cases() {
    let dir = folder("");
    let report = json(dir.path(), &["verify-rules", "--cases", "5", "--json"]);
    assert_eq!(
        (&report["wrong"], &report["untested"]),
        (&Value::from(0), &Value::from(0))
    );
    let rules = report["rules"].as_array().expect("there are rules");
    let count = |what: &str| report[what].as_u64().expect("it is counted");
    assert!(
        rules.len() > 100 && count("proved") > 30 && count("proved") + count("tested") == rules.len() as u64,
        "{} rules",
        rules.len()
    );
    assert!(rules.iter().all(
        |r| ["tested", "proved"].contains(&r["verdict"].as_str().expect("a word")) && r["tested"].as_u64() >= Some(5)
    ));
    let rule = |name: &str| rules.iter().find(|r| r["rule"] == name);
    let compose = rule("transpose-compose").expect("it is embedded");
    assert_eq!(
        (&compose["verdict"], &compose["proof"]["of"]),
        (&Value::from("proved"), &Value::from("for ranks to 5 and all extents"))
    );
    assert!(rule("mul-one").is_some_and(|r| r["verdict"] == "tested" && r.get("proof").is_none()));
    // Of what moves elements, all small instances were gone through, too.
    assert!(compose["enumerated"]["instances"].as_u64() > Some(500), "{compose}");
    let enumerated = rules.iter().filter(|r| r.get("enumerated").is_some()).count();
    assert!(enumerated > 10, "{enumerated} rules");
}

#[test]
fn verdicts_of_each_rule() {
    let rules = "rule abs-abs [exact]\n  (abs (abs ?x)) => (abs ?x)\n\
        rule never [exact]\n  (neg ?x) => ?x if (is-number ?x) (not (is-number ?x))\n";
    let dir = folder(rules);
    let verify = |more: &[&str]| {
        brolga(
            dir.path(),
            &[&["verify-rules", "my.rules", "--cases", "20"], more].concat(),
        )
    };
    let ran = verify(&[]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "abs-abs (my.rules:1:1): tested 20 times");
    assert!(
        lines[1].starts_with("never (my.rules:3:1): untested: it matched only 0 of "),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2..], ["2 rules: 0 proved, 1 tested, 0 wrong, 1 untested"]);
    assert_eq!(ran.err, "", "progress is for terminals");
    assert_eq!(verify(&["--allow-untested"]).status, 0);
    let ran = verify(&["--rule", "abs-abs"]);
    assert_eq!(
        (ran.status, &*ran.out),
        (
            0,
            "abs-abs (my.rules:1:1): tested 20 times\n1 rule: 0 proved, 1 tested, 0 wrong, 0 untested\n"
        )
    );
    // The seed decides, whatever the threads.
    let told = |threads| verify(&["--json", "--seed", "3", "--threads", threads]).out;
    assert_eq!(told("1"), told("4"));
}

/// An operand swapped, an attribute off by one, a side condition missing, a sign of zero, a rounding that is too far off: each is
/// caught, with a counterexample whose command finds the difference again.
#[test]
#[cfg(unix)]
fn counterexamples_replay() {
    let wrong = [
        "(sub ?x ?y) => (sub ?y ?x)",
        "(concat ?a (cons ?x (cons ?y nil))) => (concat ?a (cons ?y (cons ?x nil)))",
        "(transpose ?p (transpose ?q ?x)) => (transpose (compose-perm ?q ?p) ?x) if (= (shape-of ?x) [2 2 2])",
        "(slice ?l ?n [1 1] ?x) => (slice (zeros ?l) ?n [1 1] ?x)",
        "(mul~ ?x 0) => (splat 0 ?x) if (is-float ?x)",
        "(add~ ?x 0) => ?x",
        "(max ?x ?y) => ?x if (is-compute ?x)",
        "(less ?x ?y) => (less_or_equal ?x ?y)",
    ];
    for (n, law) in wrong.into_iter().enumerate() {
        let dir = folder(&format!("rule wrong-{n} [exact]\n  {law}\n"));
        let verify = ["verify-rules", "my.rules", "--write", "found it"];
        let ran = brolga(dir.path(), &verify);
        assert_eq!(ran.status, 1, "{law}: {}", ran.err);
        for part in [
            ": wrong: element",
            "graph @left(",
            "graph @right(",
            "\n  left = ",
            "\n  right = ",
        ] {
            assert!(ran.out.contains(part), "{law}: no `{part}` in\n{}", ran.out);
        }
        assert!(
            ran.out.lines().count() < 30,
            "{law}: a small one was expected\n{}",
            ran.out
        );
        let command = replay(&ran.out);
        assert!(command.starts_with("brolga run 'found it/wrong-"), "{command}");
        let again = shell(dir.path(), command);
        assert_eq!(
            again.status, 1,
            "{law}: {command}\n{}{}\n{}",
            again.out, again.err, ran.out
        );
        assert!(again.out.contains("DIFFERS"), "{law}: {}", again.out);
        // The left side beside its own result is no difference: what differs are the rule's sides.
        let left = shell(dir.path(), &command.replace(".right.txt", ".left.txt"));
        assert_eq!(left.status, 0, "{law}: {}{}", left.out, left.err);
    }
    // A right side that cannot be made, and a rule that rounds too much.
    let dir = folder("rule less-x [exact] (less ?x ?y) => ?x");
    let ran = brolga(
        dir.path(),
        &["verify-rules", "my.rules", "--cases", "9", "--write", "found"],
    );
    assert!(ran.out.contains("wrong: the left side has type bool"), "{}", ran.out);
    let axes = folder("rule sum-of-sum [exact] (reduce sum ?a (reduce sum ?b ?x)) => (reduce sum [9] ?x)");
    let refused = brolga(axes.path(), &["verify-rules", "my.rules"]);
    assert!(
        refused
            .out
            .contains("wrong: what it makes is not valid: reduce: axes: axis 9 for rank"),
        "{}",
        refused.out
    );
    assert_eq!(
        replay(&ran.out),
        "brolga verify-rules my.rules --rule less-x --seed 1 --cases 9"
    );
    assert_eq!(shell(dir.path(), replay(&ran.out)).out, ran.out);
    let dir = folder("rule half [reassociate] (mul~ ?x 0.5) => (mul ?x (splat 0.50001 ?x)) if (is-compute ?x)");
    let ran = brolga(dir.path(), &["verify-rules", "my.rules", "--write", "found"]);
    assert!(replay(&ran.out).contains(" --tolerance "), "{}", ran.out);
    assert_eq!(shell(dir.path(), replay(&ran.out)).status, 1, "{}", ran.out);
}

#[test]
fn a_counterexample_as_json() {
    let dir = folder("rule swap [exact] (sub ?x ?y) => (sub ?y ?x)");
    let ran = brolga(dir.path(), &["verify-rules", "my.rules", "--json"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).expect("it prints JSON");
    let rule = &report["rules"][0];
    assert_eq!(rule["verdict"], "wrong");
    assert_eq!(
        rule["replay"],
        "brolga verify-rules my.rules --rule swap --seed 1 --cases 100"
    );
    let found = &rule["counterexample"];
    for side in ["left", "right"] {
        let text = found[side].as_str().expect("a graph is text");
        brolga::ir::Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    }
    let inputs = found["inputs"].as_object().expect("inputs have names");
    assert!(
        inputs
            .values()
            .all(|x| x["values"].as_array().is_some_and(|v| v.len() == 1)),
        "{inputs:?}"
    );
    assert_ne!(found["results"][0]["values"], found["results"][1]["values"]);
}

/// Of one rule a file, of more a folder; a rule that is no question is an error only where it is the only one.
#[test]
fn questions_for_a_solver() {
    let rules = "rule twice [exact] (transpose ?p (transpose ?q ?x)) => (transpose (compose-perm ?p ?q) ?x)\n\
        rule one [exact] (mul~ ?x 1) => ?x\n";
    let dir = folder(rules);
    let verify = |more: &[&str]| {
        brolga(
            dir.path(),
            &[&["verify-rules", "my.rules", "--cases", "5"], more].concat(),
        )
    };
    let ran = verify(&["--rule", "twice", "--smt2", "q.smt2"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(
        ran.out.ends_with("0 untested\n1 as questions in q.smt2\n"),
        "{}",
        ran.out
    );
    let text = std::fs::read_to_string(dir.path().join("q.smt2")).expect("it was written");
    assert!(text.starts_with("; Rule twice (my.rules:1:1):\n"), "{text}");
    // Of ranks 0 to 3, each pair of permutations.
    assert_eq!(text.matches("(check-sat)").count(), 1 + 1 + 4 + 36);
    let ran = verify(&["--smt2", "all", "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).expect("it prints JSON");
    let file = report["rules"][0]["smt2"].as_str().expect("it is a path");
    assert_eq!(std::fs::read_to_string(dir.path().join(file)).ok(), Some(text));
    let why = report["rules"][1]["no_smt2"].as_str().expect("a reason");
    assert!(why.contains("`mul`"), "{why}");
    let ran = verify(&["--rule", "one", "--smt2", "one.smt2"]);
    assert_eq!(ran.status, 2, "{}", ran.out);
    assert!(
        ran.err
            .contains("--smt2: rule one is no question: it is about what `mul` computes"),
        "{}",
        ran.err
    );
    assert!(!dir.path().join("one.smt2").exists());
}

#[test]
fn what_is_wrong_with_the_command() {
    let dir = folder("rule a [exact]\n  (trnaspose ?p ?x) => ?x\n");
    std::fs::write(
        dir.path().join("a.rules"),
        "rule abs-abs [exact] (abs (abs ?x)) => (abs ?x)",
    )
    .expect("a file is written");
    std::fs::copy(dir.path().join("a.rules"), dir.path().join("b.rules")).expect("a file is copied");
    for (args, message) in [
        (
            &["my.rules"][..],
            "my.rules:2:4: there is no operator `trnaspose`, did you mean `transpose`?",
        ),
        (&["none.rules"], "none.rules"),
        (
            &["a.rules", "b.rules"],
            "b.rules:1:1: there is a rule `abs-abs` at a.rules:1:1, expected another name",
        ),
        (
            &["a.rules", "--rule", "abs-asb"],
            "--rule abs-asb: there is no rule of this name, did you mean `abs-abs`?",
        ),
        (&["a.rules", "--cases", "0"], "--cases"),
    ] {
        let ran = brolga(dir.path(), &[&["verify-rules"], args].concat());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
        assert!(ran.err.contains(message), "{args:?}: {}", ran.err);
    }
}

/// `--fp` decides which classes of rules are used, of files as well.
#[test]
fn classes_of_rules() {
    let rules = "rule exp-twice [approximate] (exp (exp ?x)) => (mul (exp ?x) (exp ?x))\n\
        rule sum-twice [reassociate] (add ?x ?x) => (mul ?x (splat 2 ?x))\n";
    let dir = folder(rules);
    let graph = "graph @g(%0 x: f32[4]) {\n  %1 = exp(%0)\n  %2 = exp(%1)\n  %3 = add(%2, %2)\n  return y = %3\n}\n";
    std::fs::write(dir.path().join("g.txt"), graph).expect("a file is written");
    let opt = |more: &[&str]| {
        let args = [
            "opt",
            "g.txt",
            "--add-rules",
            "my.rules",
            "--unchecked-rules",
            "--remarks",
        ];
        brolga(dir.path(), &[&args, more].concat())
    };
    for (fp, used, out) in [
        (
            &["--fp", "strict"][..],
            &[][..],
            "fp=strict leaves out exp-twice, sum-twice",
        ),
        (&[], &["sum-twice"], "fp=reassoc leaves out exp-twice"),
        (&["--fp", "fast"], &["exp-twice", "sum-twice"], ""),
    ] {
        let ran = opt(fp);
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert!(ran.err.contains(out), "{fp:?}: {}", ran.err);
        for rule in ["exp-twice", "sum-twice"] {
            let fired = ran.err.contains(&format!("; {rule} ")) || ran.err.contains(&format!(", {rule} 1"));
            assert_eq!(fired, used.contains(&rule), "{fp:?} {rule}: {}", ran.err);
        }
        assert_eq!(ran.err.contains("leaves out"), !out.is_empty(), "{}", ran.err);
    }
    for (args, message) in [
        (
            &["--fp", "stirct"][..],
            "found `stirct`, expected strict, reassoc, fast, did you mean `strict`?",
        ),
        (&["--rules", "exact", "--fp", "fast"], "contradict each other"),
    ] {
        let ran = opt(args);
        assert_eq!(ran.status, 2, "{args:?}");
        assert!(ran.err.contains(message), "{args:?}: {}", ran.err);
    }
    let ran = brolga(dir.path(), &["opt", "g.txt", "--pipeline", "eqsat", "--fp", "strict"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("give either a pipeline or rules"), "{}", ran.err);
}

/// With `--bits` zeros of the other sign differ.
#[test]
fn results_are_compared_bit_for_bit() {
    let dir = folder("");
    let graph = |f: &str| format!("graph @g(%0 x: f32[2]) {{\n  %1 = {f}(%0)\n  return y = %1\n}}\n");
    for f in ["neg", "abs"] {
        std::fs::write(dir.path().join(f), graph(f)).expect("a file is written");
    }
    let x = brolga::ir::Tensor::from_f32(&[2], &[0.0, f32::NAN]);
    brolga::npy::write_npz(&dir.path().join("x.npz"), &[("x".into(), x)]).expect("a file is written");
    common::ok(dir.path(), &["run", "abs", "--inputs", "x.npz", "--output", "abs.npz"]);
    let run = |f: &str, more: &[&str]| {
        let args = ["run", f, "--inputs", "x.npz", "--expect", "abs.npz"];
        brolga(dir.path(), &[&args, more].concat())
    };
    assert_eq!(run("neg", &["--tolerance", "0"]).status, 0);
    assert_eq!(run("abs", &["--bits"]).status, 0);
    let ran = run("neg", &["--bits"]);
    assert_eq!((ran.status, &*ran.out), (1, "y: 1 elements have other bits: DIFFERS\n"));
    let told: Value = serde_json::from_str(&run("neg", &["--bits", "--json"]).out).expect("it prints JSON");
    assert_eq!(told["differences"][0]["other_bits"], 1);
    assert_eq!(told["tolerance"], Value::Null);
}

/// Whatever compiles takes rules, language models too; a kernel has no operators left.
#[test]
#[cfg(feature = "text")]
fn commands_that_take_rules() {
    let dir = folder("rule odd [exact] (frob ?x) => ?x");
    std::fs::write(dir.path().join("text.txt"), "Once upon a time.").expect("a file is written");
    let llama = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tiny_llama");
    let (llama, digits) = (common::arg(&llama), common::digits());
    let digits = common::arg(&digits);
    for command in [
        &["generate", llama, "Once"][..],
        &["perplexity", llama, "text.txt"],
        &["bench", llama],
        &["serve", llama, "--port", "0"],
        &["tune", digits, "-o", "tuned"],
        &["profile", digits, "--set", "batch=1"],
        &["doctor", digits],
        &["space", digits],
    ] {
        let ran = brolga(dir.path(), &[command, &["--add-rules", "my.rules"]].concat());
        let name = command[0];
        assert_eq!(ran.status, 2, "{name}: {}", ran.out);
        assert!(
            ran.err.contains("my.rules:1:19: there is no operator `frob`"),
            "{name}: {}",
            ran.err
        );
    }
    let kernel = brolga(
        dir.path(),
        &[
            "emit",
            digits,
            "--set",
            "batch=1",
            "--stage",
            "structured",
            "--output",
            "kernel.txt",
        ],
    );
    assert_eq!(kernel.status, 0, "{}", kernel.err);
    for command in ["bench", "space"] {
        let ran = brolga(dir.path(), &[command, "kernel.txt", "--fp", "strict"]);
        assert_eq!(ran.status, 2, "{command}: {}", ran.out);
        assert!(ran.err.contains("are for models"), "{command}: {}", ran.err);
    }
}
