//! What the e-graph pass of a pipeline is given, so that what it does can be explained, proved, and asked about.

use crate::levels::{Level, Module, Walk};
use crate::options::Options;
use crate::{Error, Result};
use brolga_ir::{Def, Graph, Type, Value};
use brolga_passes::eqsat::build::build;
use brolga_passes::eqsat::derive::{Derivation, steps};
use brolga_passes::eqsat::hint::near;
use brolga_passes::eqsat::journal::Journal;
use brolga_passes::eqsat::rules::{Rule, RuleSet};
use brolga_passes::eqsat::saturate::Report;
use brolga_passes::eqsat::{EqSat, Selection};
use brolga_passes::pass::Settings;
use brolga_passes::proof::{Claim, Proof};
use std::any::Any;

/// A graph before the e-graph pass, and what that does with it.
pub struct Explained {
    /// The graph that the pass is given: after the passes before it.
    pub graph: Graph,
    /// The rules.
    pub rules: RuleSet,
    /// What they were selected from.
    selection: Selection,
    /// The program, with its reasons.
    pub derivation: Derivation,
}

/// What a rule says, in a line.
pub fn law(rule: &Rule) -> &str {
    match rule.is_decompose() {
        true => "an operator is what it is defined as",
        false => rule.doc.lines().next().unwrap_or_default(),
    }
}

/// The e-graph pass of a pipeline, and a graph after the passes before it.
///
/// # Errors
/// When the pipeline has none, or a pass before it fails.
pub fn before_eqsat(g: Graph, options: &Options) -> Result<(Graph, EqSat)> {
    let mut walk = Walk::here(Module::Tensor(g), options);
    for pass in options.passes(Level::Tensor)? {
        let any: &dyn Any = &*pass;
        if let (Some(eqsat), Module::Tensor(graph)) = (any.downcast_ref::<EqSat>(), &walk.module) {
            return Ok((graph.clone(), eqsat.clone()));
        }
        walk.run(vec![pass])?;
    }
    Err(Error::Option(format!(
        "the pipeline has no pass `{}` to explain",
        EqSat::NAME
    )))
}

impl Explained {
    /// What the e-graph pass does with a graph. Layouts, which are chosen for its kernels afterwards, are not part of it.
    ///
    /// # Errors
    /// When the pipeline has no such pass or it has no rules, or a pass fails.
    pub fn new(g: Graph, options: &Options) -> Result<Explained> {
        let (graph, eqsat) = before_eqsat(g, options)?;
        let rules = eqsat.selection.rules();
        let rules = rules.ok_or_else(|| Error::Option("without rules there is nothing to explain".into()))?;
        let rules = rules.into_owned();
        let made = Derivation::new(&graph, &rules, &eqsat, &options.target);
        let derivation = made.map_err(|e| Error::Option(format!("{}: {e}", graph.name)))?;
        Ok(Explained {
            graph,
            rules,
            selection: eqsat.selection,
            derivation,
        })
    }

    /// The positions of the nodes that came from a model node.
    ///
    /// # Errors
    /// When there is none of the name; the message has the name that is likely meant.
    pub fn nodes(&self, name: &str) -> Result<Vec<usize>> {
        let wanted = name.strip_prefix('%').unwrap_or(name);
        let is = |n: &brolga_ir::Node| *n.origin == *wanted || *n.origin == *name;
        let found: Vec<usize> = (0..self.graph.nodes.len())
            .filter(|&n| is(&self.graph.nodes[n]))
            .collect();
        if found.is_empty() {
            let mut known: Vec<&str> = self
                .graph
                .nodes
                .iter()
                .map(|n| &*n.origin)
                .filter(|n| !n.is_empty())
                .collect();
            known.dedup();
            let meant = match near(wanted, known.iter().copied()) {
                meant if meant.is_empty() => format!("; {}", some(&known)),
                meant => meant,
            };
            return Err(Error::Option(format!(
                "{}: there is no node `{wanted}`{meant}",
                self.graph.name
            )));
        }
        Ok(found)
    }

    /// The position of a rule.
    ///
    /// # Errors
    /// When there is none of the name among those that are used.
    pub fn rule(&self, name: &str) -> Result<usize> {
        let found = self.rules.rules.iter().position(|r| r.name == name);
        found.ok_or_else(|| {
            let meant = near(name, self.rules.rules.iter().map(|r| &*r.name));
            Error::Option(match self.selection.knows(name) {
                true => {
                    format!("the rule `{name}` is not used: it is switched off, or of a class that --fp leaves out")
                }
                false => format!("there is no rule `{name}`{meant}"),
            })
        })
    }
}

/// The first few of a model's nodes, for who knows none.
fn some(nodes: &[&str]) -> String {
    const SOME: usize = 8;
    let names: Vec<String> = nodes.iter().take(SOME).map(|n| format!("`{n}`")).collect();
    match (names.join(", "), nodes.len()) {
        (_, 0) => "its nodes have no names".to_owned(),
        (names, n) if n > SOME => format!(
            "it has {names} and {} more, which `brolga opt` prints behind @",
            n - SOME
        ),
        (names, _) => format!("it has {names}"),
    }
}

/// Whether two models compute the same, by rules.
pub struct Equal {
    /// What saturation did.
    pub report: Report,
    /// The steps that show it, where they do.
    pub proof: Option<Proof>,
    /// The outputs that are not shown to be equal.
    pub open: Vec<String>,
}

impl Equal {
    /// Asks it of two graphs, whose inputs and outputs are matched by their order.
    ///
    /// # Errors
    /// When these differ in number or type, the pipeline has no pass with rules, or a rule is wrong.
    pub fn new(left: Graph, right: Graph, options: &Options) -> Result<Equal> {
        let both = beside(&left, &right).map_err(Error::Option)?;
        let (both, eqsat) = before_eqsat(both, options)?;
        let rules = eqsat.selection.rules();
        let rules = rules.ok_or_else(|| Error::Option("without rules only what is alike is equal".into()))?;
        let fail = |e: String| Error::Option(format!("{}: {e}", left.name));
        let built = build(&both).map_err(fail)?;
        let mut journal = Journal::new(&both, &built);
        let report = journal
            .saturate(built, &rules, &eqsat.course(&both, &rules))
            .map_err(fail)?;
        let value = |k: usize| journal.sources[both.outputs[k].1.0 as usize];
        let names = left.outputs.iter().map(|(name, _)| name.clone()).enumerate();
        let claims = names.map(|(k, name)| Claim {
            name,
            left: value(k),
            right: value(left.outputs.len() + k),
        });
        let (proof, open) = match Proof::new(&journal.terms, &steps(&journal, &rules), claims.collect()) {
            Ok(proof) => (Some(proof), vec![]),
            Err(open) => (None, open.into_iter().map(|c| c.name).collect()),
        };
        Ok(Equal { report, proof, open })
    }
}

/// A graph that computes what two do, from the inputs of the first.
fn beside(left: &Graph, right: &Graph) -> std::result::Result<Graph, String> {
    let types = |g: &Graph, vs: &mut dyn Iterator<Item = Value>| vs.map(|v| g.ty(v).clone()).collect::<Vec<_>>();
    let inputs = |g: &Graph| types(g, &mut g.inputs.iter().map(|i| i.value));
    let outputs = |g: &Graph| types(g, &mut g.outputs.iter().map(|o| o.1));
    for (what, a, b) in [
        ("inputs", inputs(left), inputs(right)),
        ("outputs", outputs(left), outputs(right)),
    ] {
        if a != b {
            let list = |ts: &[Type]| ts.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "the models have {what} of other types: {} and {}",
                list(&a),
                list(&b)
            ));
        }
    }
    if !right.reads.is_empty() {
        return Err(format!("{}: sizes that data tell cannot be compared", right.name));
    }
    if left.strings != right.strings {
        return Err("the models number strings differently, which cannot be compared".into());
    }
    let mut both = left.clone();
    let mut map: Vec<Option<Value>> = vec![None; right.values.len()];
    for (a, b) in left.inputs.iter().zip(&right.inputs) {
        map[b.value.0 as usize] = Some(a.value);
    }
    for (v, info) in right.values.iter().enumerate() {
        if let Def::Const(c) = info.def {
            map[v] = Some(both.constant(right.constants[c as usize].clone()));
        }
    }
    for node in &right.nodes {
        let operands: Vec<Value> = node
            .inputs
            .iter()
            .map(|v| map[v.0 as usize].expect("operands come first"))
            .collect();
        let made = both
            .add(node.op.clone(), &operands, &node.origin)
            .map_err(|e| e.to_string())?;
        for (old, new) in node.outputs.iter().zip(made) {
            map[old.0 as usize] = Some(new);
        }
    }
    let theirs = right.outputs.iter().map(|(name, v)| {
        (
            format!("{name} of the other"),
            map[v.0 as usize].expect("it is defined"),
        )
    });
    both.outputs.extend(theirs.collect::<Vec<_>>());
    Ok(both)
}
