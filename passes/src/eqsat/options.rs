//! The options of the e-graph pass.

use super::schedule::Schedule;
use super::{Decision, DecisionFile, EqSat, Extract, ScheduleFile};
use crate::pass::{Setting, Settings, number};

impl Settings for EqSat {
    const NAME: &'static str = "eqsat";
    const SUMMARY: &'static str = "rewrites by rules in an e-graph and decides which operations share a kernel";
    const SETTINGS: &'static [Setting<EqSat>] = &[
        Setting {
            name: "rules",
            default: "all",
            meaning: "all, exact (as fp=strict), approximate (as fp=fast), none or a file of rules; `,-THEME` behind the first three switches a theme of rules off",
            get: |p| {
                let text = p.selection.text();
                (text != "all").then_some(text).into_iter().collect()
            },
            set: |p, value, files| p.selection.set_rules(value, files),
        },
        Setting {
            name: "add",
            default: "",
            meaning: "a file of rules beside those; may be repeated",
            get: |p| p.selection.added.iter().map(|a| a.name().to_owned()).collect(),
            set: |p, value, files| p.selection.add(value, files),
        },
        Setting {
            name: "fp",
            default: "reassoc",
            meaning: "the rules that are used: strict (exact ones), reassoc (those too that round in another order) or fast (all)",
            get: |p| p.selection.fp.map(|fp| fp.name().to_owned()).into_iter().collect(),
            set: |p, value, _| p.selection.set_fp(value.parse()?),
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
            name: "extract",
            default: "search",
            meaning: "how a program is chosen: greedy, search (that, improved by local search) or exact (that, by branch and bound)",
            get: |p| {
                (p.extract != Extract::default())
                    .then(|| p.extract.name().to_owned())
                    .into_iter()
                    .collect()
            },
            set: |p, value, _| {
                p.extract = value.parse()?;
                Ok(())
            },
        },
        Setting {
            name: "fold",
            default: "on",
            meaning: "on optimises one of several layers that are alike for all of them; off each by itself",
            get: |p| p.unfolded.then(|| "off".to_owned()).into_iter().collect(),
            set: |p, value, _| {
                p.unfolded = match value {
                    "on" => false,
                    "off" => true,
                    _ => return Err("expected on or off".into()),
                };
                Ok(())
            },
        },
        Setting {
            name: "rewrites",
            default: "no limit",
            meaning: "rewrites after which saturation stops: what `brolga bisect` finds the first wrong one with",
            get: |p| p.rewrites.map(|n| n.to_string()).into_iter().collect(),
            set: |p, value, _| {
                p.rewrites = Some(number(value)?);
                Ok(())
            },
        },
        Setting {
            name: "schedule",
            default: "",
            meaning: "a file that says which rules run for how many rounds, phase after phase, such as `(phase (rules all -merge) (rounds 3))`, in place of nodes= and iters=",
            get: |p| p.schedule.iter().map(|s| s.file.clone()).collect(),
            set: |p, value, files| {
                let schedule = Schedule::parse(value, &files.read(value)?).map_err(|e| e.to_string())?;
                let given = ScheduleFile {
                    file: value.to_owned(),
                    schedule,
                };
                match p.schedule.replace(given) {
                    Some(other) => Err(format!("there is the schedule {} already, expected one", other.file)),
                    None => Ok(()),
                }
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
        self.selection.check()?;
        let Some(ScheduleFile { file, schedule }) = &self.schedule else {
            return Ok(());
        };
        for (option, form, given) in [("nodes", "nodes", self.nodes), ("iters", "rounds", self.iters)] {
            if given > 0 {
                return Err(format!(
                    "{option}={given} beside schedule={file}: each phase has its own limit, write ({form} {given}) there"
                ));
            }
        }
        schedule.check(file, &self.selection).map_err(|e| e.to_string())
    }
}
