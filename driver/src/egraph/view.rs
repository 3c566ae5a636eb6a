//! The e-graph of a model as `brolga egraph` tells it: how it grew, what rules did, and the program with what was rejected for it.

use super::{NO_KERNEL, label, seconds, type_of};
use crate::explain::{Explained, law};
use crate::{Error, Result};
use brolga_ir::Target;
use brolga_passes::eqsat::Alternative;
use brolga_passes::eqsat::derive::{Derivation, Kernel};
use brolga_passes::eqsat::extract::At;
use brolga_passes::eqsat::search::Way;
use brolga_passes::eqsat::view::Open;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

/// What the data calls itself.
pub const SCHEMA: &str = "brolga-egraph-1";

/// What there is to see.
pub struct View<'e> {
    pub(super) explained: &'e Explained,
    target: Target,
    /// The kernels, in the order in which they run, those of compile time included.
    pub kernels: Vec<Kernel>,
    /// What could be decided otherwise, in the order of classes.
    pub open: Vec<Open>,
    /// What could be decided otherwise about layouts, the cheapest first.
    pub layouts: Vec<Alternative>,
    /// Seconds that any program of the e-graph costs at least; `None` where it is too large to tell.
    pub bound: Option<f64>,
}

impl<'e> View<'e> {
    /// What there is to see of what the e-graph pass does for a target.
    ///
    /// # Errors
    /// When the program has no kernels, which is a mistake of this compiler.
    pub fn new(explained: &'e Explained, target: &Target) -> Result<View<'e>> {
        let (d, g) = (&explained.derivation, &explained.graph);
        let layouts = d.layouts(g, target).map_err(|source| Error::Lower {
            model: g.name.clone(),
            source,
        })?;
        Ok(View {
            explained,
            target: target.clone(),
            kernels: d.kernels(g),
            open: d.open(g),
            layouts,
            bound: d.bound(),
        })
    }

    pub(super) fn derivation(&self) -> &'e Derivation {
        &self.explained.derivation
    }

    /// The same as JSON; docs/explaining.md has its fields.
    pub fn json(&self) -> Value {
        let d = self.derivation();
        let rule_at = positions(self.explained.rules.rules.iter().map(|r| &*r.name));
        let nodes = self.nodes();
        let node_at = positions(nodes.iter().copied());
        let kernels = self.kernels.iter().map(|k| self.kernel(k, &node_at, &rule_at));
        let running = self.kernels.iter().filter(|k| !k.constant).count();
        let report = &d.report;
        json!({
            "schema": SCHEMA,
            "model": self.explained.graph.name,
            "target": self.target.name,
            "saturation": {
                "stop": report.stop.to_string(),
                "rounds": report.rounds,
                "nodes": report.nodes,
                "classes": report.classes,
                "rewrites": report.rewrites,
                "seconds": short(d.times.rounds.iter().map(|t| t.as_secs_f64()).sum()),
            },
            "growth": self.growth(),
            "rules": self.rules(),
            "program": {
                "seconds": short(d.seconds()),
                "bound": self.bound.map(short),
                "kernels": running,
                "constant": self.kernels.len() - running,
            },
            "kernels": kernels.collect::<Vec<_>>(),
            "layouts": self.layouts.iter().map(layout).collect::<Vec<_>>(),
            "nodes": nodes,
            "classes": self.classes(&node_at, &rule_at),
            "inputs": self.explained.graph.inputs.iter().map(|i| &*i.name).collect::<Vec<_>>(),
            "results": self.results(),
        })
    }

    /// What a run has to compute, with the class of each: sizes that data tell, then the outputs.
    fn results(&self) -> Vec<Value> {
        let g = &self.explained.graph;
        let sizes = g.reads.iter().map(|r| format!("size {}", r.symbol));
        let names = sizes.chain(g.outputs.iter().map(|(name, _)| name.clone()));
        let roots = names.zip(&self.derivation().choices.roots);
        roots
            .map(|(name, class)| json!({ "name": name, "class": class }))
            .collect()
    }

    /// The model's nodes by name, each once, in the order of the graph.
    fn nodes(&self) -> Vec<&str> {
        let g = &self.explained.graph;
        let all = g.origins(0..g.nodes.len() as u32);
        all.into_iter().map(|n| &**n).collect()
    }

    /// Sizes before the first round and behind each, with what a round took.
    fn growth(&self) -> Vec<Value> {
        let d = self.derivation();
        let times = d.times.rounds.iter().map(|t| short(t.as_secs_f64()));
        let sizes = d.report.growth.iter().enumerate();
        (sizes.zip(std::iter::once(Value::Null).chain(times)))
            .map(|((round, size), seconds)| {
                json!({
                    "round": round, "nodes": size.nodes, "classes": size.classes, "rewrites": size.rewrites,
                    "seconds": seconds,
                })
            })
            .collect()
    }

    /// The rules, in their order, with what each did and how long it took.
    fn rules(&self) -> Vec<Value> {
        let d = self.derivation();
        let report = &d.report;
        let count = |all: &[(String, usize)]| -> FxHashMap<String, usize> { all.iter().cloned().collect() };
        let (applied, cut) = (count(&report.applied), count(&report.cut));
        let effects: FxHashMap<&str, _> = report.effects.iter().map(|e| (&*e.rule, e)).collect();
        let mut rewritten: FxHashMap<String, Vec<At>> = d.rewritten().into_iter().collect();
        (self.explained.rules.rules.iter().zip(&d.times.rules))
            .map(|(rule, time)| {
                let effect = effects.get(&*rule.name);
                json!({
                    "name": rule.name,
                    "law": law(rule),
                    "text": if rule.is_decompose() { None } else { Some(rule.text()) },
                    "class": rule.exactness.name(),
                    "matches": effect.map_or(0, |e| e.matches),
                    "nodes": effect.map_or(0, |e| e.nodes),
                    "rewrites": applied.get(&rule.name).copied().unwrap_or(0),
                    "cut": cut.get(&rule.name).copied().unwrap_or(0),
                    "search_seconds": short(time.search.as_secs_f64()),
                    "apply_seconds": short(time.apply.as_secs_f64()),
                    "classes": rewritten.remove(&rule.name).unwrap_or_default(),
                })
            })
            .collect()
    }

    fn kernel(&self, k: &Kernel, nodes: &FxHashMap<&str, usize>, rules: &FxHashMap<&str, usize>) -> Value {
        let counted = |all: &[(String, usize)]| -> Vec<Value> {
            let row =
                |(rule, steps): &(String, usize)| json!({"name": rule, "rule": rules.get(&**rule), "steps": steps});
            all.iter().map(row).collect()
        };
        json!({
            "class": k.class,
            "classes": k.inside,
            "nodes": k.nodes.iter().filter_map(|n| nodes.get(&**n)).collect::<Vec<_>>(),
            "operators": k.operators.iter().map(|o| o.name()).collect::<Vec<_>>(),
            "type": k.ty.to_string(),
            "constant": k.constant,
            "seconds": short(k.seconds),
            "rules": counted(&k.rules),
            "constants": counted(&k.constants),
        })
    }

    /// The classes of values, by position, with their e-nodes.
    fn classes(&self, nodes: &FxHashMap<&str, usize>, rules: &FxHashMap<&str, usize>) -> Vec<Value> {
        let d = self.derivation();
        let (cs, names) = (&d.choices.classes, d.choices.names(&self.explained.graph));
        let makers = d.makers();
        let mut open: Vec<Vec<Value>> = vec![vec![]; cs.ids.len()];
        for o in &self.open {
            open[o.class].push(self.alternative(o));
        }
        let mut out = vec![];
        for (c, open) in open.into_iter().enumerate() {
            let data = &d.choices.eg[cs.ids[c]].data;
            let origins = self.explained.graph.origins(data.origins.iter().copied());
            let mut class = Map::new();
            let mut put = |field: &str, value: Value| class.insert(field.to_owned(), value);
            put("id", usize::from(cs.ids[c]).into());
            put("type", type_of(&data.kind).into());
            put("stream", data.stream.into());
            put(
                "nodes",
                json!(origins.iter().filter_map(|n| nodes.get(&***n)).collect::<Vec<_>>()),
            );
            put("value", json!(names[c]));
            put("constant", cs.constant[c].into());
            put("number", json!(data.splat.map(|x| x.to_string())));
            put("chosen", json!(d.plan.choice[c]));
            put("stored", d.plan.stored[c].into());
            let each = |k: usize| {
                let rule = makers[c][k].and_then(|s| rules.get(&*d.steps[s].rule));
                self.node(c, k, rule.copied())
            };
            put("enodes", (0..cs.choices[c].len()).map(each).collect());
            put("open", open.into());
            // What is so of most classes is not said.
            class.retain(|_, v| *v != json!(false) && !v.is_null() && *v != json!([]));
            out.push(Value::Object(class));
        }
        out
    }

    /// An e-node, with the rule that made it.
    fn node(&self, c: At, k: usize, rule: Option<usize>) -> Value {
        let cs = &self.derivation().choices.classes;
        let choice = &cs.choices[c][k];
        let op = choice
            .op
            .as_ref()
            .map_or_else(|| label(&choice.term), ToString::to_string);
        let mut out = json!({ "op": op, "operands": choice.operands });
        match seconds(cs, c, k) {
            s if s >= NO_KERNEL => out["composite"] = true.into(),
            s => out["seconds"] = short(s),
        }
        if let Some(rule) = rule {
            out["rule"] = rule.into();
        }
        out
    }

    /// What could be decided otherwise about a class: by which e-node it is computed, or whether it is stored.
    fn alternative(&self, open: &Open) -> Value {
        let mut out = match open.way {
            Way::By(k) => json!({ "enode": k }),
            Way::Stored(stored) => json!({ "stored": stored }),
        };
        if let Some(decision) = &open.decision {
            out["decision"] = decision.to_string().into();
        }
        match open.price {
            Ok(seconds) => out["seconds"] = short(seconds),
            Err(why) => out["refused"] = why.into(),
        }
        out
    }
}

fn layout(a: &Alternative) -> Value {
    json!({
        "about": a.about,
        "decisions": a.decisions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "seconds": short(a.seconds),
    })
}

fn positions<'a>(names: impl Iterator<Item = &'a str>) -> FxHashMap<&'a str, usize> {
    names.enumerate().map(|(i, name)| (name, i)).collect()
}

/// A number to four digits.
fn short(x: f64) -> Value {
    format!("{x:.3e}").parse::<f64>().map_or(Value::Null, Value::from)
}
