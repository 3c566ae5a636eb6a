//! Which rules a compilation uses: the embedded ones, theme by theme, and those of users, which are checked first.
//!
//! A theme is a file of embedded rules. Rules of users are a [`UserRules`], which is made by a check or by the user's word
//! that none is wanted, so that no wrong rule is applied unseen. A rule that is embedded word for word needs no check: the
//! test suite did it.

use super::check::{Verdict, check_rule};
use super::rules::{EMBEDDED, Exactness, Rule, RuleSet};
use super::{embedded, rules::theme_of, usual};
use rustc_hash::{FxHashMap, FxHashSet};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Which rules a pass uses, those beside them apart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Rules {
    /// The embedded ones but those that are approximate.
    #[default]
    All,
    /// All embedded ones.
    Approximate,
    /// None: every operator is a kernel of its own.
    None,
    /// The embedded ones that are exact.
    Exact,
    /// Those of a user, which replace the embedded ones.
    Text(UserRules),
}

/// Remembers which rules were checked and found sound.
pub trait Verdicts {
    /// Whether this was remembered.
    fn is_sound(&self, rule: &str) -> bool;
    /// Remembers a sound rule.
    fn remember(&self, rule: &str);
}

/// Remembers nothing: every check is done.
pub struct Forgetful;

impl Verdicts for Forgetful {
    fn is_sound(&self, _: &str) -> bool {
        false
    }
    fn remember(&self, _: &str) {}
}

/// The seed of the check of users' rules.
const SEED: u64 = 1;

/// Rules of a user, parsed, and checked unless the user wanted none of that.
#[derive(Clone)]
pub struct UserRules {
    name: Arc<str>,
    set: Arc<RuleSet>,
}

impl UserRules {
    /// Rules that are taken at the user's word.
    ///
    /// # Errors
    /// The first mistake in the text, with its place.
    pub fn unchecked(name: &str, text: &str) -> Result<UserRules, String> {
        Ok(UserRules {
            name: name.into(),
            set: Arc::new(RuleSet::parse(name, text).map_err(|e| e.to_string())?),
        })
    }

    /// Rules that pass the check of rules, or are remembered to have passed it.
    ///
    /// # Errors
    /// The first mistake in the text, with its place; every rule that is wrong, with a counterexample, or that cannot be
    /// checked, with the reason.
    pub fn checked(name: &str, text: &str, verdicts: &dyn Verdicts) -> Result<UserRules, String> {
        let rules = UserRules::unchecked(name, text)?;
        let known: FxHashSet<String> = embedded().rules.iter().map(Rule::text).collect();
        let mut refused = vec![];
        for rule in &rules.set.rules {
            let text = rule.text();
            if known.contains(&text) || verdicts.is_sound(&text) {
                continue;
            }
            match check_rule(rule, SEED).verdict {
                Verdict::Sound => verdicts.remember(&text),
                Verdict::Wrong(why) => refused.push(format!("{}: rule `{}` is wrong: {why}", rule.origin, rule.name)),
                Verdict::Unknown(why) => {
                    refused.push(format!(
                        "{}: rule `{}` could not be checked: {why}",
                        rule.origin, rule.name
                    ));
                }
            }
        }
        match refused.is_empty() {
            true => Ok(rules),
            false => Err(format!(
                "{}\n(--unchecked-rules takes rules without a check)",
                refused.join("\n")
            )),
        }
    }

    /// The name of the text.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl PartialEq for UserRules {
    fn eq(&self, other: &UserRules) -> bool {
        let text = |u: &UserRules| u.set.rules.iter().map(Rule::text).collect::<Vec<_>>();
        self.name == other.name && text(self) == text(other)
    }
}

impl Eq for UserRules {}

impl fmt::Debug for UserRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserRules({})", self.name)
    }
}

/// The theme of embedded rules of a name, which is a file's in `passes/rules`.
///
/// # Errors
/// When there is none, or it cannot be switched off.
pub fn theme(name: &str) -> Result<&'static str, String> {
    let themes = || EMBEDDED.iter().map(|(file, _)| theme_of(file));
    match themes().find(|t| *t == name) {
        Some("fusion") => Err(
            "the theme `fusion` cannot be switched off: without it every operator is a kernel of its \
             own, which `rules=none` gives"
                .into(),
        ),
        Some(t) => Ok(t),
        None => {
            let names: Vec<&str> = themes().filter(|t| *t != "fusion").collect();
            Err(format!(
                "there is no theme `{name}` of rules, expected {}",
                names.join(", ")
            ))
        }
    }
}

/// Whether what is chosen goes together.
///
/// # Errors
/// When themes of rules that are not used are switched off, or two rules have one name.
pub fn validate(rules: &Rules, without: &[&str], added: &[UserRules]) -> Result<(), String> {
    match rules {
        Rules::None if !(added.is_empty() && without.is_empty()) => {
            return Err("rules=none has no rules to switch off or to add to".into());
        }
        Rules::Text(_) if !without.is_empty() => {
            return Err("themes are of the embedded rules, which a file of rules replaces".into());
        }
        _ => {}
    }
    if added.is_empty() {
        return Ok(());
    }
    let mut first: FxHashMap<&str, &str> = chosen(rules, without).map(|r| (&*r.name, &*r.origin)).collect();
    for rule in added.iter().flat_map(|u| &u.set.rules) {
        if let Some(first) = first.insert(&rule.name, &rule.origin) {
            return Err(format!("{}: there is a rule `{}` at {first}", rule.origin, rule.name));
        }
    }
    Ok(())
}

/// The rules of a selection; none for [`Rules::None`].
///
/// # Errors
/// As [`validate`].
pub fn select<'a>(rules: &'a Rules, without: &[&str], added: &[UserRules]) -> Result<Option<Cow<'a, RuleSet>>, String> {
    validate(rules, without, added)?;
    Ok(match rules {
        Rules::None => None,
        Rules::All if without.is_empty() && added.is_empty() => Some(Cow::Borrowed(usual())),
        Rules::Text(u) if added.is_empty() => Some(Cow::Borrowed(&*u.set)),
        _ => {
            let added = added.iter().flat_map(|u| &u.set.rules);
            let rules = chosen(rules, without).chain(added).cloned().collect();
            Some(Cow::Owned(RuleSet { rules }))
        }
    })
}

/// The rules of a selection but for those added to them.
fn chosen<'a>(rules: &'a Rules, without: &[&str]) -> impl Iterator<Item = &'a Rule> {
    let all: &[Rule] = match rules {
        Rules::None => &[],
        Rules::All | Rules::Exact => &usual().rules,
        Rules::Approximate => &embedded().rules,
        Rules::Text(u) => &u.set.rules,
    };
    let exact = matches!(rules, Rules::Exact);
    all.iter()
        .filter(move |r| !exact || r.exactness == Exactness::Exact || r.is_decompose())
        .filter(move |r| !without.contains(&r.theme()))
}
