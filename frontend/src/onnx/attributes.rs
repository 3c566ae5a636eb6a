//! Which attributes an operator has, in which operator set: the table is that of the schemas of ONNX and ONNX Runtime, which refuse
//! others too. An importer asks for what it needs, which may be less and may depend on its operands, so that what it asked for tells
//! nothing of a name that it never heard.
//!
//! ```text
//! Conv { pad: [1, 1, 1, 1] }                -->  it has no attribute `pad`; did you mean `pads`?
//! ReduceSum { axes: [1] }, operator set 18  -->  it has no attribute `axes` in operator set 18, only before 13
//! ```

use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// The table; `attributes.py` prints it.
static TEXT: &str = include_str!("attributes.txt");

/// The attributes of an operator, by the operator set from which on it has them.
type Versions = Vec<(i64, Vec<&'static str>)>;

/// The operators of a domain.
struct Domain {
    newest: i64,
    operators: FxHashMap<&'static str, Versions>,
}

static DOMAINS: LazyLock<FxHashMap<&str, Domain>> = LazyLock::new(|| {
    let mut domains = FxHashMap::default();
    let mut current: Option<&mut Domain> = None;
    for line in TEXT.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split(' ');
        let first = words.next().expect("a line has a word");
        if first == "domain" {
            let name = super::import::domain(words.next().expect("a domain has a name"));
            let newest = number(words.next());
            let operators = FxHashMap::default();
            current = Some(domains.entry(name).or_insert(Domain { newest, operators }));
        } else if let Some(domain) = &mut current {
            let since = number(words.next());
            domain
                .operators
                .entry(first)
                .or_default()
                .push((since, words.collect()));
        }
    }
    domains
});

fn number(word: Option<&str>) -> i64 {
    word.and_then(|w| w.parse().ok()).expect("a version is a number")
}

/// The newest operator set of a domain, where its operators are known.
pub fn newest(domain: &str) -> Option<i64> {
    DOMAINS.get(domain).map(|d| d.newest)
}

/// Checks that an operator has the attributes of these names in an operator set. Those that begin with two underscores are a
/// tool's own.
///
/// # Errors
/// When it does not have one; the error names the closest that it has.
pub fn check<'a>(
    domain: &str,
    operator: &str,
    version: i64,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), String> {
    let Some(versions) = DOMAINS.get(domain).and_then(|d| d.operators.get(operator)) else {
        return Ok(());
    };
    // An operator that is used before its first operator set is taken for that of the first.
    let at = versions.iter().rposition(|(since, _)| *since <= version).unwrap_or(0);
    let has = &versions[at].1;
    let unknown = |n: &&str| !n.starts_with("__") && !has.contains(n);
    let Some(name) = names.into_iter().find(unknown) else {
        return Ok(());
    };
    let elsewhere = |(_, all): &(i64, Vec<&str>)| all.contains(&name);
    let place = if let Some((since, _)) = versions[at..].iter().find(|v| elsewhere(v)) {
        format!("in operator set {version}, only from {since} on")
    } else if let Some(last) = versions[..at].iter().rposition(elsewhere) {
        format!("in operator set {version}, only before {}", versions[last + 1].0)
    } else {
        return Err(format!("it has no attribute `{name}`; {}", among(name, has)));
    };
    Err(format!("it has no attribute `{name}` {place}"))
}

/// What someone who gave a name may have meant of some others.
pub fn among(name: &str, names: &[&str]) -> String {
    let close =
        |n: &&&str| distance(name, n) <= name.len().max(n.len()) / 3 || n.starts_with(name) || name.starts_with(**n);
    let closest = names.iter().filter(close).min_by_key(|n| distance(name, n));
    match (closest, names) {
        (Some(n), _) => format!("did you mean `{n}`?"),
        (None, []) => "it has none".to_owned(),
        (None, all) => format!("it has `{}`", all.join("`, `")),
    }
}

/// How many letters have to be added, left out or replaced; letters in upper case are those in lower case.
fn distance(a: &str, b: &str) -> usize {
    strsim::levenshtein(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

/// Whether the table has an operator.
#[cfg(test)]
pub fn knows(domain: &str, operator: &str) -> bool {
    DOMAINS.get(domain).is_some_and(|d| d.operators.contains_key(operator))
}

#[cfg(test)]
mod tests {
    use super::{check, newest};

    #[test]
    fn names_and_versions() {
        let conv = |name| check("", "Conv", 18, [name]);
        assert_eq!(conv("pads"), Ok(()));
        assert_eq!(conv("__made_by"), Ok(()));
        let wrong = |found: Result<(), String>, expected: &str| assert_eq!(found.unwrap_err(), expected);
        wrong(conv("pad"), "it has no attribute `pad`; did you mean `pads`?");
        wrong(
            conv("kernelshape"),
            "it has no attribute `kernelshape`; did you mean `kernel_shape`?",
        );
        wrong(conv("Group"), "it has no attribute `Group`; did you mean `group`?");
        wrong(
            conv("zzz"),
            "it has no attribute `zzz`; it has `auto_pad`, `dilations`, `group`, `kernel_shape`, `pads`, `strides`",
        );
        wrong(
            check("", "Relu", 18, ["slope"]),
            "it has no attribute `slope`; it has none",
        );

        let sum = |version| check("", "ReduceSum", version, ["axes"]);
        assert_eq!(sum(12), Ok(()));
        wrong(sum(18), "it has no attribute `axes` in operator set 18, only before 13");
        let resize = |version| check("", "Resize", version, ["antialias"]);
        wrong(
            resize(13),
            "it has no attribute `antialias` in operator set 13, only from 18 on",
        );
        assert_eq!(resize(28), Ok(()));
        // Gelu is of operator set 20, and read in others.
        assert_eq!(check("", "Gelu", 17, ["approximate"]), Ok(()));
    }

    #[test]
    fn newest_operator_sets() {
        let found = ["", "ai.onnx.ml", "com.microsoft", "nobody.knows"].map(newest);
        assert_eq!(found, [Some(28), Some(5), Some(1), None]);
    }
}
