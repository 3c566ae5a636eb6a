use super::{Allowance, Exactness, RuleSet};

fn error(rules: &str) -> String {
    RuleSet::parse("r", rules).err().expect(rules).to_string()
}

/// Mistakes with the message that each gives: file, line and column, what was expected, and what is likely meant.
#[test]
fn mistakes_in_rule_files_have_places() {
    let cases = [
        // Brackets and the head of a rule.
        ("rule a [exact] (neg ?x => ?x", "r:1:16: found `(` without its `)`"),
        (
            "rul a [exact] (neg ?x) => ?x",
            "r:1:1: found `rul`, expected `rule`, did you mean `rule`?",
        ),
        ("rule", "r:1:1: expected the rule's name behind `rule`"),
        (
            "rule a (neg ?x) => ?x",
            "r:1:8: rule `a` has no class, expected [exact], [reassociate] or [approximate]",
        ),
        (
            "rule a [exat] (neg ?x) => ?x",
            "r:1:9: found `exat`, expected [exact], [reassociate] or [approximate], did you mean `exact`?",
        ),
        (
            "rule a [reassociate rnage] (neg ?x) => ?x",
            "r:1:21: found `rnage`, expected range, zero, finite-weights, did you mean `range`?",
        ),
        (
            "rule a [exact zero] (neg ?x) => ?x",
            "r:1:15: only a `reassociate` rule allows differences by name",
        ),
        (
            "rule a [exact] (neg ?x) => ?x\nrule a [exact]\n  (neg ?x) => ?x",
            "r:2:1: there is a rule `a` at r:1:1, expected another name",
        ),
        (
            "rule a [exact] for ?f in unary-mpa (?f ?x) => (?f ?x)",
            "r:1:26: there is no operator set `unary-mpa`, expected one of ",
        ),
        (
            "rule a [exact] for ?f on unary-map (?f ?x) => (?f ?x)",
            "r:1:16: expected `for ?f in SET`",
        ),
        // The sides.
        (
            "rule a [exact] (neg ?x)",
            "r:1:16: rule `a`: expected LEFT => RIGHT, found no `=>`",
        ),
        ("rule a [exact] (neg ?x) =>", "r:1:25: rule `a`: expected LEFT => RIGHT"),
        (
            "rule a [exact] (neg ?x) => ?x ?x",
            "r:1:31: found `?x`, expected `if` or the next rule",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if",
            "r:1:31: expected a condition `(name …)` behind `if`",
        ),
        (
            "rule a [exact] ?x => ?x",
            "r:1:16: a left side that is a variable would match everything",
        ),
        (
            "rule a [exact]\n  (trnaspose ?p ?x) => ?x",
            "r:2:4: there is no operator `trnaspose`, did you mean `transpose`?",
        ),
        (
            "rule a [exact] (frobnicate ?x) => ?x",
            "r:1:17: there is no operator `frobnicate`",
        ),
        (
            "rule a [exact] (neg ?x ?y) => ?x",
            "r:1:16: `neg` with 2 arguments, expected 1: attributes [], then 1 operands",
        ),
        (
            "rule a [exact] (neg~ ?x) => ?x",
            "r:1:16: `neg` has no two operands to be in either order",
        ),
        (
            "rule a [exact] (add ?x y) => ?x",
            "r:1:24: found `y`, expected an operand: a variable `?x`, a number or `(operator …)`",
        ),
        (
            "rule a [exact] (concat ?a ?x) => ?x",
            "r:1:34: `?x` is a list of streams, expected a stream",
        ),
        (
            "rule a [exact] (concat ?a 1) => ?x",
            "r:1:27: found `1`, expected a list of operands: `?list`, `nil` or `(cons ?x ?list)`",
        ),
        // Attributes.
        (
            "rule a [exact] (reduce summ ?a ?x) => ?x",
            "r:1:24: `summ` is no kind of `reduce`, expected one of and, max, min, or, prod, sum, did you mean `sum`?",
        ),
        (
            "rule a [exact] (cast f23 ?x) => ?x",
            "r:1:22: found `f23`, expected a dtype, did you mean `f32`?",
        ),
        (
            "rule a [exact] (transpose 1 ?x) => ?x",
            "r:1:27: found `1`, expected integers such as [0 1]",
        ),
        (
            "rule a [exact] (transpose (neg ?x) ?x) => ?x",
            "r:1:27: found `(neg ?x)`, expected an attribute: a variable or integers such as [0 1]",
        ),
        (
            "rule a [exact] (reduce sum ?x ?x) => ?x",
            "r:1:31: `?x` is integers such as [0 1] before, expected a stream here",
        ),
        // The right side.
        (
            "rule a [exact] (neg ?x) => ?y",
            "r:1:28: `?y` does not occur on the left",
        ),
        (
            "rule a [exact] (neg ?input) => ?inptu",
            "r:1:32: `?inptu` does not occur on the left, did you mean `?input`?",
        ),
        (
            "rule a [exact] (neg ?x) => (rehsape (shape-of ?x) ?x)",
            "r:1:29: there is no operator or function `rehsape`, did you mean `reshape`?",
        ),
        (
            "rule a [exact] (neg ?x) => (reshape (shape_of ?x) ?x)",
            "r:1:38: there is no operator or function `shape_of`, did you mean `shape-of`?",
        ),
        (
            "rule a [exact] (neg ?x) => (reshape (shape-of ?x ?x) ?x)",
            "r:1:37: `shape-of` with 2 arguments, expected 1: a stream",
        ),
        (
            "rule a [exact] (transpose ?p ?x) => (transpose (inverse-perm ?x) ?x)",
            "r:1:62: `?x` is a stream, expected integers such as [0 1]",
        ),
        (
            "rule a [exact] (transpose ?p ?x) => (transpose (shape-of ?x) ?x)",
            "r:1:48: `(shape-of ?x)` is extents such as [2 3], expected integers such as [0 1]",
        ),
        (
            "rule a [exact] (neg ?x) => (shape-of ?x)",
            "r:1:28: `(shape-of ?x)` is extents such as [2 3], expected a stream",
        ),
        (
            "rule a [exact] (mul ?x 2) => (mul ?x 2)",
            "r:1:38: found `2`, expected an operand: a number is `(splat 2 ?like)`",
        ),
        (
            "rule a [exact] (mul ?x 2) => (mul ?x [2])",
            "r:1:38: found `[2]`, expected an operand: a matrix is `(dense [2] ?like)`",
        ),
        (
            "rule a [exact] (neg ?x) => (splat 1)",
            "r:1:28: expected `(splat x ?like)` or `(splat x ?dtype shape)`",
        ),
        // Conditions.
        (
            "rule a [exact] (neg ?x) => ?x if (is-flaot ?x)",
            "r:1:35: there is no predicate `is-flaot`, did you mean `is-float`?",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (is-big ?x)",
            "r:1:35: there is no predicate `is-big`",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if ?x",
            "r:1:34: found `?x`, expected a condition `(name …)`",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (has-rank ?x)",
            "r:1:34: `has-rank` with 1 arguments, expected 2: a stream, an integer",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (has-rank ?x f32)",
            "r:1:47: found `f32`, expected an integer",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (= ?x ?x)",
            "r:1:37: `?x` is a stream, expected an attribute: `=` compares those",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (= (dtype-of ?x) f23)",
            "r:1:51: found `f23`, expected a dtype, did you mean `f32`?",
        ),
        (
            "rule a [exact] (neg ?x) => ?x if (= (dtype-of ?x) (shape-of ?x))",
            "r:1:51: `(shape-of ?x)` is extents such as [2 3], expected a dtype as `(dtype-of ?x)` is",
        ),
        // Matrices.
        (
            "rule a [exact] (add ?x [[1 2] [3]]) => ?x",
            "r:1:31: a row of 1 elements, expected 2 as in the first",
        ),
        (
            "rule a [exact] (add ?x [[1 2] 3]) => ?x",
            "r:1:31: found `3`, expected a number, or rows all the way",
        ),
        (
            "rule a [exact] (add ?x []) => ?x",
            "r:1:24: a matrix without elements, expected numbers such as [[1 2] [3 4]]",
        ),
        (
            "rule a [exact] (neg ?x) => (dense ?x ?x)",
            "r:1:28: expected `(dense [[1 2] [3 4]] ?like)`",
        ),
        // Several roots.
        (
            "rule a [exact] (neg ?x) (abs ?x) => ?x",
            "r:1:34: rule `a` has 2 left sides and 1 right sides, expected one for each",
        ),
        (
            "rule a [exact] (neg ?x) (abs ?y) => ?x ?y",
            "r:1:25: this left side shares no stream with the others, expected one of their variables as an operand",
        ),
    ];
    for (rules, message) in cases {
        let found = error(rules);
        assert!(
            found.starts_with(message),
            "{rules}\n   found {found}\nexpected {message}"
        );
        let whole = message.ends_with("one of ") || found == message;
        assert!(whole, "{rules}\n   found {found}\nexpected {message}");
    }
}

#[test]
fn what_a_rule_says_is_read() {
    let text = "; The law,\n; in two lines.\nrule a [reassociate range zero]\n  (mul~ ?x 1) ; a comment\n  => ?x\n  if (is-float ?x)";
    let set = RuleSet::parse("my.rules", text).unwrap();
    let rule = &set.rules[0];
    assert_eq!((&*rule.name, &*rule.origin, rule.theme()), ("a", "my.rules:3:1", "my"));
    assert_eq!(rule.doc, "The law, in two lines.");
    assert_eq!(rule.exactness, Exactness::Reassociate);
    assert_eq!(rule.allows, [Allowance::Range, Allowance::Zero]);
    assert_eq!(
        rule.text(),
        "a [reassociate range zero] (mul~ ?x 1) => ?x if (is-float ?x)"
    );
}
