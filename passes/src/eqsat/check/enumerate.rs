//! All small instances of a rule that only moves elements: what random ones may miss where index spaces are small.
//!
//! Everything that a random instance draws, ranks, extents, attributes, lists and which operands are constants, is chosen in every way, and
//! each instance is compared once. Elements are integers of which no two are alike, so that equal results are the same movement. Where there
//! are too many instances, sizes are smaller.

use super::instance::{Outcome, attempt};
use super::{Counterexample, only_moves};
use crate::eqsat::choices::Choices;
use crate::eqsat::generate::{Generator, Instance, Size, Source};
use crate::eqsat::rules::{Law, Rule};
use std::collections::BTreeSet;
use std::fmt;

/// Sizes, the largest first.
const SIZES: [Size; 6] = [
    to(&[0, 1, 2, 3], &[0, 1, 2, 3]),
    to(&[0, 1, 2, 3], &[0, 1, 2]),
    to(&[0, 1, 2], &[0, 1, 2, 3]),
    to(&[0, 1, 2], &[0, 1, 2]),
    to(&[0, 1], &[0, 1, 2, 3]),
    to(&[0, 1], &[0, 1, 2]),
];

/// The most instances of a rule.
const MOST: usize = 3_000;

/// The most choices that are gone through to find them.
const MOST_CHOICES: usize = 15_000;

const fn to(ranks: &'static [usize], extents: &'static [usize]) -> Size {
    Size {
        ranks,
        extents,
        // An extent of 0 is among them.
        empty: 0,
    }
}

/// What was gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enumerated {
    /// The highest rank of a shape that nothing else decides.
    pub rank: usize,
    /// The largest such extent.
    pub extent: usize,
    /// The instances on which the rule matched.
    pub instances: usize,
}

impl fmt::Display for Enumerated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Enumerated {
            rank,
            extent,
            instances,
        } = self;
        write!(f, "all {instances} instances to rank {rank} and extent {extent}")
    }
}

/// Compares all small instances of a rule; `None` where it does more than move elements, or has too many even of the smallest.
///
/// # Errors
/// The first on which it is wrong.
pub(super) fn enumerate(rule: &Rule, law: &Law) -> Result<Option<Enumerated>, Box<(Instance, Counterexample)>> {
    if !only_moves(law) {
        return Ok(None);
    }
    let Some((size, all)) = SIZES.into_iter().find_map(|s| Some((s, instances(rule, law, s)?))) else {
        return Ok(None);
    };
    let mut found = Enumerated {
        rank: size.ranks.len() - 1,
        extent: size.extents.len() - 1,
        instances: 0,
    };
    for instance in all {
        match attempt(rule, law, &instance, &mut |_, _| false) {
            Ok(Outcome::NoMatch) => {}
            Ok(Outcome::Agrees { .. }) => found.instances += 1,
            Err(wrong) => return Err(Box::new((instance, *wrong))),
        }
    }
    Ok(Some(found).filter(|f| f.instances > 0))
}

/// All instances to a size, each once; `None` where there are too many.
fn instances(rule: &Rule, law: &Law, size: Size) -> Option<Vec<Instance>> {
    let (mut all, mut seen, mut choices) = (vec![], BTreeSet::new(), Choices::default());
    for _ in 0..MOST_CHOICES {
        let source = Source::of_choices(choices);
        let (instance, source) = Generator::from(source, size, rule, law).draw(law);
        choices = source.into_choices().expect("it is made of choices");
        if let Some(instance) = instance
            && seen.insert(instance.graph.to_string())
        {
            all.push(instance);
        }
        match choices.next() {
            _ if all.len() > MOST => return None,
            true => {}
            false => return Some(all),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eqsat::embedded;
    use crate::eqsat::rules::RuleSet;

    fn enumerated(law: &str) -> Result<Option<Enumerated>, String> {
        let set = RuleSet::parse("my.rules", &format!("rule a [exact] {law}")).expect("it is a rule");
        let rule = &set.rules[0];
        enumerate(rule, rule.law.as_ref().expect("it is text")).map_err(|found| found.1.to_string())
    }

    #[test]
    fn all_permutations_of_all_extents() {
        let found = enumerated("(transpose ?p ?x) => (transpose ?p ?x)");
        let found = found.expect("it is right").expect("there are few");
        // Shapes to rank 3 with extents to 3, each with each permutation; of constants too, but for those that are one number.
        let shapes = |rank: u32| 4usize.pow(rank);
        let all = 1 + shapes(1) + 2 * shapes(2) + 6 * shapes(3);
        assert!((all..=2 * all).contains(&found.instances), "{found}, not {all}");
        assert_eq!((found.rank, found.extent), (3, 3));
    }

    #[test]
    fn embedded_rules_are_right_on_all_small_instances() {
        let mut found = vec![];
        for rule in embedded().rules.iter().filter(|r| !r.is_decompose()) {
            let law = rule.law.as_ref().expect("it is text");
            let right = enumerate(rule, law).unwrap_or_else(|wrong| panic!("{}: {}", rule.name, wrong.1));
            found.extend(right.map(|e| format!("{}: {e}", rule.name)));
        }
        assert!(found.len() > 10, "{found:#?}");
    }

    #[test]
    fn a_rule_that_is_wrong_of_small_extents_only_is_caught() {
        // Each is right where extents are large, or of most shapes.
        for law in [
            "(slice ?s ?z ?t ?x) => ?x if (is-ones ?z) (is-ones ?t)",
            "(transpose ?p ?x) => ?x if (= (permute ?p (shape-of ?x)) (shape-of ?x))",
            "(transpose ?p ?x) => (reshape (permute ?p (shape-of ?x)) ?x)",
        ] {
            assert!(enumerated(law).is_err(), "{law}");
        }
        assert_eq!(enumerated("(neg (neg ?x)) => ?x"), Ok(None));
    }
}
