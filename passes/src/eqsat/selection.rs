//! Which rules a compilation uses: the embedded ones, theme by theme, and those of users, which are checked first; of both, those
//! of the classes that are asked for.
//!
//! A theme is a file of embedded rules. Rules of users are a [`UserRules`], which is made by a check or by the user's word
//! that none is wanted, so that no wrong rule is applied unseen. A rule that is embedded word for word needs no check: the
//! test suite did it.

use super::check::{Check, Verdict, check_rule};
use super::hint::near;
use super::rules::{EMBEDDED, Exactness, Rule, RuleSet};
use super::{embedded, rules::theme_of, usual};
use crate::pass::{Files, NoFiles};
use rustc_hash::{FxHashMap, FxHashSet};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What floating-point arithmetic may see of the rules that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fp {
    /// Nothing: rules that are exact.
    Strict,
    /// Another order of roundings, too.
    #[default]
    Reassoc,
    /// Approximations, too.
    Fast,
}

impl Fp {
    /// All, with their names.
    pub const ALL: [(&'static str, Fp); 3] = [("strict", Fp::Strict), ("reassoc", Fp::Reassoc), ("fast", Fp::Fast)];

    /// Its name.
    pub fn name(self) -> &'static str {
        Fp::ALL[self as usize].0
    }

    /// Whether a rule may be used. Decomposing what has no kernel is no choice.
    pub fn allows(self, rule: &Rule) -> bool {
        rule.is_decompose()
            || match self {
                Fp::Strict => rule.exactness == Exactness::Exact,
                Fp::Reassoc => rule.exactness != Exactness::Approximate,
                Fp::Fast => true,
            }
    }
}

impl FromStr for Fp {
    type Err = String;

    fn from_str(name: &str) -> Result<Fp, String> {
        let names = Fp::ALL.map(|f| f.0);
        let found = Fp::ALL.iter().find(|f| f.0 == name);
        found.map(|f| f.1).ok_or_else(|| {
            let meant = near(name, names);
            format!("found `{name}`, expected {}{meant}", names.join(", "))
        })
    }
}

/// What stands in the place of the embedded rules.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Rules {
    /// The embedded ones themselves.
    #[default]
    Embedded,
    /// None: every operator is a kernel of its own.
    None,
    /// Those of a user.
    Text(UserRules),
}

/// Which rules a pass uses. What is of users was parsed and checked when this was made; clones share it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// The rules but for those beside them.
    pub rules: Rules,
    /// Themes of the embedded rules that are not used.
    pub without: Vec<&'static str>,
    /// Rules beside those.
    pub added: Vec<UserRules>,
    /// The classes that are used; by default those of [`Fp::Reassoc`].
    pub fp: Option<Fp>,
}

impl Selection {
    /// The rules that texts say: `all`, `exact` (which is `fp=strict`), `approximate` (which is `fp=fast`), `none` or a file; then,
    /// separated by commas, `-THEME`. Beside them files, and the classes that are used.
    ///
    /// # Errors
    /// When a file cannot be read, a rule is refused, or what is asked for does not go together.
    pub fn read(rules: Option<&str>, added: &[String], fp: Option<Fp>, files: &dyn Files) -> Result<Selection, String> {
        let mut all = Selection {
            fp,
            ..Selection::default()
        };
        if let Some(rules) = rules {
            all.set_rules(rules, files)?;
        }
        all.added = added.iter().map(|a| user_rules(a, files)).collect::<Result<_, _>>()?;
        all.check()?;
        Ok(all)
    }

    /// Sets what stands in the place of the embedded rules.
    pub(super) fn set_rules(&mut self, text: &str, files: &dyn Files) -> Result<(), String> {
        let mut items = text.split(",-");
        let fp = match items.next().unwrap_or_default() {
            "all" => None,
            "exact" => Some(Fp::Strict),
            "approximate" => Some(Fp::Fast),
            "none" => {
                self.rules = Rules::None;
                None
            }
            path => {
                let hint = near(path, ["all", "exact", "approximate", "none"]);
                self.rules = Rules::Text(user_rules(path, files).map_err(|e| e + &hint)?);
                None
            }
        };
        self.without = items.map(theme).collect::<Result<_, _>>()?;
        fp.map_or(Ok(()), |fp| self.set_fp(fp))
    }

    /// The rules of files.
    pub(super) fn of_user(&self) -> impl Iterator<Item = &Rule> {
        let instead = match &self.rules {
            Rules::Text(own) => Some(own),
            _ => None,
        };
        instead.into_iter().chain(&self.added).flat_map(|u| &u.set.rules)
    }

    /// Sets the classes that are used.
    pub(super) fn set_fp(&mut self, fp: Fp) -> Result<(), String> {
        match self.fp.replace(fp) {
            Some(other) if other != fp => Err(format!(
                "fp={} and fp={} contradict each other (rules=exact is fp=strict, rules=approximate is fp=fast)",
                other.name(),
                fp.name()
            )),
            _ => Ok(()),
        }
    }

    /// Adds the rules of a file.
    pub(super) fn add(&mut self, path: &str, files: &dyn Files) -> Result<(), String> {
        self.added.push(user_rules(path, files)?);
        Ok(())
    }

    /// The rules, as [`Selection::read`] reads them.
    pub(super) fn text(&self) -> String {
        let rules = match &self.rules {
            Rules::Embedded => "all",
            Rules::None => "none",
            Rules::Text(text) => text.name(),
        };
        let without = self.without.iter().map(|t| format!(",-{t}"));
        [rules.to_owned()].into_iter().chain(without).collect()
    }

    /// What decides the rules: two selections that give the same text use the same rules, whatever files they came from.
    pub fn describe(&self) -> String {
        let mut out = self.fp.unwrap_or_default().name().to_owned();
        match &self.rules {
            Rules::Text(own) => out += &own.text(),
            _ => out += &self.text(),
        }
        self.added.iter().for_each(|a| out += &a.text());
        out
    }

    /// The rules of users that the classes leave out.
    pub fn left_out(&self) -> Vec<&Rule> {
        self.of_user()
            .filter(|r| !self.fp.unwrap_or_default().allows(r))
            .collect()
    }

    /// Whether what is chosen goes together.
    ///
    /// # Errors
    /// When themes of rules that are not used are switched off, or two rules have one name.
    pub fn check(&self) -> Result<(), String> {
        match &self.rules {
            Rules::None if !(self.added.is_empty() && self.without.is_empty()) => {
                return Err("rules=none has no rules to switch off or to add to".into());
            }
            Rules::Text(_) if !self.without.is_empty() => {
                return Err("themes are of the embedded rules, which a file of rules replaces".into());
            }
            _ => {}
        }
        let mut first: FxHashMap<&str, &str> = self.chosen().map(|r| (&*r.name, &*r.origin)).collect();
        for rule in self.added.iter().flat_map(|u| &u.set.rules) {
            if let Some(first) = first.insert(&rule.name, &rule.origin) {
                return Err(format!(
                    "{}: there is a rule `{}` at {first}, expected another name",
                    rule.origin, rule.name
                ));
            }
        }
        Ok(())
    }

    /// The rules; none for [`Rules::None`].
    pub fn rules(&self) -> Option<Cow<'_, RuleSet>> {
        let fp = self.fp.unwrap_or_default();
        let plain = self.without.is_empty() && self.added.is_empty();
        Some(match &self.rules {
            Rules::None => return None,
            Rules::Embedded if plain && fp == Fp::Reassoc => Cow::Borrowed(usual()),
            Rules::Text(u) if plain && u.set.rules.iter().all(|r| fp.allows(r)) => Cow::Borrowed(&*u.set),
            _ => {
                let added = self.added.iter().flat_map(|u| &u.set.rules);
                let all = self.chosen().chain(added).filter(|r| fp.allows(r));
                Cow::Owned(RuleSet {
                    rules: all.cloned().collect(),
                })
            }
        })
    }

    /// The same with those of its rules only that are kept. Operators that have no kernel are decomposed in any case; [`Rules::None`] stays
    /// what it is.
    pub fn only(&self, keep: impl Fn(&Rule) -> bool) -> Selection {
        let Some(all) = self.rules() else {
            return self.clone();
        };
        let kept = all.rules.iter().filter(|r| r.is_decompose() || keep(r));
        let rules = UserRules {
            name: self.text().into(),
            set: Arc::new(RuleSet {
                rules: kept.cloned().collect(),
            }),
        };
        Selection {
            rules: Rules::Text(rules),
            fp: self.fp,
            ..Selection::default()
        }
    }

    /// Whether there is a rule of this name, used or not: one of the embedded ones, or of a user.
    pub fn knows(&self, name: &str) -> bool {
        let left_out = self.left_out();
        let mut all = embedded().rules.iter().chain(left_out);
        all.any(|r| r.name == name)
    }

    /// The rules of all classes but for those beside them.
    fn chosen(&self) -> impl Iterator<Item = &Rule> {
        let all: &[Rule] = match &self.rules {
            Rules::None => &[],
            Rules::Embedded => &embedded().rules,
            Rules::Text(u) => &u.set.rules,
        };
        all.iter().filter(|r| !self.without.contains(&r.theme()))
    }
}

impl FromStr for Selection {
    type Err = String;

    /// The embedded rules that a text says, as [`Selection::read`] has it.
    fn from_str(rules: &str) -> Result<Selection, String> {
        Selection::read(Some(rules), &[], None, &NoFiles)
    }
}

/// The rules of a file, checked unless the files say otherwise.
fn user_rules(path: &str, files: &dyn Files) -> Result<UserRules, String> {
    let text = files.read(path)?;
    match files.verdicts() {
        Some(verdicts) => UserRules::checked(path, &text, verdicts),
        None => UserRules::unchecked(path, &text),
    }
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
            match check_rule(rule, Check::default()).verdict {
                Verdict::Tested => verdicts.remember(&text),
                Verdict::Wrong(why) => refused.push(format!("{}: rule `{}` is wrong: {why}", rule.origin, rule.name)),
                Verdict::Untested(why) => {
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

    /// The rules, without comments and with single blanks.
    fn text(&self) -> String {
        self.set.rules.iter().map(|r| format!("\n{}", r.text())).collect()
    }
}

impl PartialEq for UserRules {
    fn eq(&self, other: &UserRules) -> bool {
        self.name == other.name && self.text() == other.text()
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
fn theme(name: &str) -> Result<&'static str, String> {
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
                "there is no theme `{name}` of rules, expected {}{}",
                names.join(", "),
                near(name, names.iter().copied())
            ))
        }
    }
}
