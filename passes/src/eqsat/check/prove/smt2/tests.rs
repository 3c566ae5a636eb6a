//! Scripts are read back: what is used is declared, and small models, in which functions are as different as they can be, satisfy those of
//! wrong rules only. Where a solver is installed, it answers the same.

use super::{Question, question};
use crate::eqsat::embedded;
use crate::eqsat::generate::{Source, Values};
use crate::eqsat::rules::RuleSet;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

const PROVED: [&str; 16] = [
    "transpose-compose",
    "transpose-identity",
    "transpose-of-broadcast",
    "broadcast-of-transpose",
    "broadcast-compose",
    "transpose-unary",
    "transpose-where",
    "slice-identity",
    "slice-of-pad",
    "pad-identity",
    "concat-one",
    "concat-nested",
    "gather-stored",
    "not-not",
    "where-same",
    "where-true",
];

/// The same with reshapes: positions are taken apart by a solver only.
const RESHAPED: [&str; 4] = ["reshape-compose", "reshape-unary", "reshape-binary", "transpose-units"];

const WRONG: [&str; 8] = [
    "(transpose ?p (transpose ?q ?x)) => (transpose (compose-perm ?q ?p) ?x)",
    "(transpose ?p ?x) => ?x",
    "(broadcast ?s ?x) => ?x",
    "(slice ?start ?size ?step ?x) => ?x if (is-zeros ?start) (is-ones ?step)",
    "(slice ?start ?size ?step (pad ?low ?high ?inner ?fill ?x)) => ?x
     if (is-ones ?step) (is-zeros ?inner) (= ?size (shape-of ?x))",
    "(concat ?a (cons ?x (cons ?y nil))) => (concat ?a (cons ?y (cons ?x nil)))",
    "(where ?c ?x ?y) => (where ?c ?y ?x)",
    "(sub (transpose ?p ?x) (transpose ?p ?y)) => (transpose ?p (sub ?y ?x)) if (= (shape-of ?x) (shape-of ?y))",
];

fn of_embedded(name: &str) -> Question {
    let rule = embedded().rules.iter().find(|r| r.name == name);
    let rule = rule.unwrap_or_else(|| panic!("no rule {name}"));
    question(rule).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn of_text(law: &str) -> Result<Question, String> {
    let set = RuleSet::parse("my.rules", &format!("rule a [exact] {law}")).expect("it is a rule");
    question(&set.rules[0])
}

/// An expression of a script.
#[derive(Clone, Debug)]
enum Sexp {
    Atom(String),
    List(Vec<Sexp>),
}

/// The expressions of a text.
fn read(text: &str) -> Vec<Sexp> {
    let mut open: Vec<Vec<Sexp>> = vec![vec![]];
    for line in text.lines().filter(|l| !l.starts_with(';')) {
        let mut rest = line.trim_start();
        while let Some(c) = rest.chars().next() {
            let n = match c {
                '(' | ')' => 1,
                '|' => 2 + rest[1..].find('|').expect("a quoted symbol ends on its line"),
                _ => rest.find([' ', '(', ')']).unwrap_or(rest.len()),
            };
            match c {
                '(' => open.push(vec![]),
                ')' => {
                    let list = Sexp::List(open.pop().expect("parentheses match"));
                    open.last_mut().expect("parentheses match").push(list);
                }
                _ => open
                    .last_mut()
                    .expect("one is open")
                    .push(Sexp::Atom(rest[..n].to_owned())),
            }
            rest = rest[n..].trim_start();
        }
    }
    assert_eq!(open.len(), 1, "parentheses match");
    open.remove(0)
}

/// A case: constants that are integers, definitions, and what is asserted, the claim last.
#[derive(Default)]
struct Script {
    integers: Vec<String>,
    /// Other functions, with the number of their arguments.
    functions: BTreeMap<String, usize>,
    definitions: Vec<(String, Sexp)>,
    assertions: Vec<Sexp>,
}

/// The cases of a question, in which everything is declared before it is used.
fn cases(q: &Question) -> Vec<Script> {
    let (mut all, mut now) = (vec![], Script::default());
    for command in read(&q.text) {
        let Sexp::List(parts) = command else {
            panic!("an atom is no command")
        };
        let word = |at: usize| match &parts[at] {
            Sexp::Atom(a) => &**a,
            Sexp::List(_) => panic!("a word was expected in {parts:?}"),
        };
        match word(0) {
            "set-logic" | "declare-sort" | "check-sat" => {}
            "push" => now = Script::default(),
            "pop" => all.push(std::mem::take(&mut now)),
            "declare-const" => now.integers.push(word(1).to_owned()),
            "declare-fun" => {
                let Sexp::List(takes) = &parts[2] else {
                    panic!("{parts:?}")
                };
                assert!(
                    now.functions.insert(word(1).to_owned(), takes.len()).is_none(),
                    "{parts:?}"
                );
            }
            "define-fun" => {
                declared(&now, &parts[4]);
                now.definitions.push((word(1).to_owned(), parts[4].clone()));
            }
            "assert" => {
                declared(&now, &parts[1]);
                now.assertions.push(parts[1].clone());
            }
            other => panic!("no command: {other}"),
        }
    }
    assert_eq!(all.len(), q.cases);
    all
}

fn declared(script: &Script, e: &Sexp) {
    const KNOWN: [&str; 14] = [
        "and", "or", "not", "=>", "=", "<=", "<", "+", "-", "*", "div", "mod", "ite", "true",
    ];
    let (head, arguments) = match e {
        Sexp::Atom(a) => (a, 0),
        Sexp::List(parts) => {
            let Sexp::Atom(head) = &parts[0] else { panic!("{e:?}") };
            parts[1..].iter().for_each(|p| declared(script, p));
            (head, parts.len() - 1)
        }
    };
    let known = match arguments {
        0 => {
            head.parse::<i64>().is_ok()
                || ["true", "false"].contains(&&**head)
                || script.integers.contains(head)
                || script.definitions.iter().any(|d| d.0 == *head)
        }
        _ => KNOWN.contains(&&**head),
    };
    assert!(
        known || script.functions.get(head) == Some(&arguments),
        "{head} with {arguments} arguments"
    );
}

/// What an expression is in a model; elements and bools are integers, too.
fn value(script: &Script, model: &BTreeMap<&str, i64>, e: &Sexp) -> i64 {
    let (head, x): (&str, Vec<i64>) = match e {
        Sexp::Atom(a) => (a, vec![]),
        Sexp::List(parts) => {
            let Sexp::Atom(head) = &parts[0] else { panic!("{e:?}") };
            (head, parts[1..].iter().map(|p| value(script, model, p)).collect())
        }
    };
    match (head, &x[..]) {
        ("true", []) => 1,
        ("false", []) => 0,
        ("and", x) => x.iter().all(|x| *x == 1) as i64,
        ("or", x) => x.contains(&1) as i64,
        ("not", [a]) => 1 - a,
        ("=>", [a, b]) => (*a == 0 || *b == 1) as i64,
        ("=", [a, b]) => (a == b) as i64,
        ("<=", [a, b]) => (a <= b) as i64,
        ("<", [a, b]) => (a < b) as i64,
        ("+", x) => x.iter().sum(),
        ("*", x) => x.iter().product(),
        ("-", [a]) => -a,
        ("div", [a, b]) => a.checked_div_euclid(*b).unwrap_or(0),
        ("mod", [a, b]) => a.checked_rem_euclid(*b).unwrap_or(0),
        ("ite", [c, a, b]) => {
            if *c == 1 {
                *a
            } else {
                *b
            }
        }
        (name, x) => {
            if let Some(n) = model.get(name) {
                return *n;
            }
            if let Ok(n) = name.parse() {
                return n;
            }
            if let Some((_, e)) = script.definitions.iter().find(|d| d.0 == name) {
                return value(script, model, e);
            }
            // Unlike for unlike arguments: FNV-1a.
            let bytes = name.bytes().chain(x.iter().flat_map(|x| x.to_le_bytes()));
            let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
                (h ^ b as u64).wrapping_mul(0x0100_0000_01b3)
            });
            match (name, x) {
                // Conditions are called so in the rules of these tests.
                ("?c", _) => (hash >> 40 & 1) as i64,
                (name, [_, n]) if name.starts_with("index.") => (hash >> 8) as i64 % n.max(&1),
                _ => (hash >> 8) as i64,
            }
        }
    }
}

/// Models of what is asserted beside the claim, and of all.
fn models(q: &Question) -> (usize, usize) {
    let mut draw = Source::new(5, Values::Plain);
    let (mut fit, mut satisfy) = (0, 0);
    for script in cases(q) {
        for _ in 0..60 {
            let model = script.integers.iter().map(|n| (&**n, draw.below(4) as i64)).collect();
            let (claim, types) = script.assertions.split_last().expect("a claim is asserted");
            if types.iter().all(|a| value(&script, &model, a) == 1) {
                fit += 1;
                satisfy += value(&script, &model, claim) as usize;
            }
        }
    }
    (fit, satisfy)
}

#[test]
fn small_models_satisfy_wrong_rules_only() {
    for name in PROVED.into_iter().filter(|n| *n != "not-not") {
        let (fit, satisfy) = models(&of_embedded(name));
        assert!(fit > 20 && satisfy == 0, "{name}: {satisfy} of {fit} models");
    }
    for law in WRONG {
        let q = of_text(law).unwrap_or_else(|why| panic!("{law}: {why}"));
        let (fit, satisfy) = models(&q);
        assert!(satisfy > 0, "{law}: none of {fit} models");
    }
}

#[test]
fn every_script_is_well_formed() {
    let mut written = 0;
    for rule in &embedded().rules {
        let Ok(q) = question(rule) else { continue };
        cases(&q);
        assert!(q.text.starts_with(&format!("; Rule {} (", rule.name)), "{}", rule.name);
        assert_eq!(q.text.matches("(check-sat)").count(), q.cases, "{}", rule.name);
        written += 1;
    }
    assert!(written > 30, "{written} rules are questions");
}

#[test]
fn rules_that_are_no_questions_say_why() {
    for (law, why) in [
        ("(mul~ ?x 1) => ?x", "it is about what `mul` computes"),
        ("(max ?x ?x) => ?x", "it is about what `max` computes"),
        (
            "(reduce ?k ?a (transpose ?p ?x)) => (transpose ?p (reduce ?k (sorted-axes-through-perm ?p ?a) ?x))",
            "it does more than",
        ),
    ] {
        let found = of_text(law).err().unwrap_or_default();
        assert!(found.starts_with(why), "{law}: {found}");
    }
    let decompose = embedded()
        .rules
        .iter()
        .find(|r| r.is_decompose())
        .expect("there is one");
    assert_eq!(question(decompose).err().as_deref(), Some("it is not text"));
}

/// The answers of a solver; `None` where none is installed.
fn answers(q: &Question) -> Option<Vec<String>> {
    let solver = Command::new("z3")
        .args(["-in", "-t:20000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut solver = solver.ok()?;
    solver
        .stdin
        .take()
        .expect("it is piped")
        .write_all(q.text.as_bytes())
        .expect("it reads");
    let out = solver.wait_with_output().expect("it ends").stdout;
    Some(
        String::from_utf8(out)
            .expect("it writes text")
            .lines()
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn a_solver_says_the_same() {
    for name in PROVED.into_iter().chain(RESHAPED) {
        let q = of_embedded(name);
        let Some(answers) = answers(&q) else {
            assert!(std::env::var_os("CI").is_none(), "z3 is not installed");
            eprintln!("z3 is not installed: nothing was asked");
            return;
        };
        assert_eq!(answers, vec!["unsat"; q.cases], "{name}");
    }
    for law in WRONG {
        let q = of_text(law).unwrap_or_else(|why| panic!("{law}: {why}"));
        let answers = answers(&q).expect("it is installed");
        assert!(answers.iter().any(|a| a == "sat"), "{law}: {answers:?}");
        assert!(
            answers.iter().all(|a| ["sat", "unsat", "unknown"].contains(&&**a)),
            "{law}: {answers:?}"
        );
    }
}
