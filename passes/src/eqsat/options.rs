//! The options of the e-graph pass.

use super::selection::{self, Rules, UserRules};
use super::{Decision, DecisionFile, EqSat};
use crate::pass::{Files, Setting, Settings, number};

impl Settings for EqSat {
    const NAME: &'static str = "eqsat";
    const SUMMARY: &'static str = "rewrites by rules in an e-graph and decides which operations share a kernel";
    const SETTINGS: &'static [Setting<EqSat>] = &[
        Setting {
            name: "rules",
            default: "all",
            meaning: "all, exact, approximate (those too that are), none or a file of rules; `,-THEME` behind the first three switches a theme of rules off",
            get: |p| {
                let rules = match &p.rules {
                    Rules::All => "all",
                    Rules::Approximate => "approximate",
                    Rules::None => "none",
                    Rules::Exact => "exact",
                    Rules::Text(text) => text.name(),
                };
                let without = p.without.iter().map(|t| format!(",-{t}"));
                let text: String = [rules.to_owned()].into_iter().chain(without).collect();
                (text != "all").then_some(text).into_iter().collect()
            },
            set: |p, value, files| p.set_rules(value, files),
        },
        Setting {
            name: "add",
            default: "",
            meaning: "a file of rules beside those; may be repeated",
            get: |p| p.added.iter().map(|a| a.name().to_owned()).collect(),
            set: |p, value, files| {
                p.added.push(user_rules(value, files)?);
                Ok(())
            },
        },
        Setting {
            name: "nodes",
            default: "by size",
            meaning: "e-nodes at which saturation stops",
            get: |p| (p.nodes > 0).then(|| p.nodes.to_string()).into_iter().collect(),
            set: |p, value, _| {
                p.nodes = number(value)?;
                Ok(())
            },
        },
        Setting {
            name: "iters",
            default: "40",
            meaning: "rounds after which saturation stops",
            get: |p| (p.iters > 0).then(|| p.iters.to_string()).into_iter().collect(),
            set: |p, value, _| {
                p.iters = number(value)?;
                Ok(())
            },
        },
        Setting {
            name: "decide",
            default: "",
            meaning: "a file of decisions about fusion, operators and layouts, such as `inline \"Relu_7\"`; may be repeated",
            get: |p| p.decisions.iter().map(|d| d.file.clone()).collect(),
            set: |p, value, files| {
                let text = files.read(value)?;
                let decisions = Decision::all(&text).map_err(|e| format!("{value}:{e}"))?;
                p.decisions.push(DecisionFile {
                    file: value.to_owned(),
                    decisions,
                });
                Ok(())
            },
        },
    ];

    /// What cannot go together is said now, not when the pass runs.
    fn check(&self) -> Result<(), String> {
        selection::validate(&self.rules, &self.without, &self.added)
    }
}

impl EqSat {
    /// The pass with rules as text (`all`, `exact`, `approximate`, `none` or a file; then, separated by commas, `-THEME`), and with files of
    /// rules beside those.
    ///
    /// # Errors
    /// When a file cannot be read, a rule is refused, or what is asked for does not go together.
    pub fn with_rules(rules: &str, added: &[String], files: &dyn Files) -> Result<EqSat, String> {
        let mut pass = EqSat::default();
        pass.set_rules(rules, files)?;
        pass.added = added.iter().map(|a| user_rules(a, files)).collect::<Result<_, _>>()?;
        selection::validate(&pass.rules, &pass.without, &pass.added)?;
        Ok(pass)
    }

    fn set_rules(&mut self, text: &str, files: &dyn Files) -> Result<(), String> {
        let mut items = text.split(",-");
        self.rules = match items.next().unwrap_or_default() {
            "all" => Rules::All,
            "approximate" => Rules::Approximate,
            "none" => Rules::None,
            "exact" => Rules::Exact,
            path => Rules::Text(user_rules(path, files)?),
        };
        self.without = items.map(selection::theme).collect::<Result<_, _>>()?;
        Ok(())
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
