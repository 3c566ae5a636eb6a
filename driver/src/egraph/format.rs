//! The format of the crate `egraph-serialize`, version 0.3: what is written, and what is read of others' files.
//!
//! ```text
//! {"nodes": {"ID": {"op": "+", "children": ["ID", …], "eclass": "CLASS", "cost": 1.0, "subsumed": false}, …},
//!  "root_eclasses": ["CLASS", …], "class_data": {"CLASS": {"type": "…", …}, …}}
//! ```
//!
//! A child names any node of its class. `children` are none, `cost` is 1 and `subsumed` false where nothing is said; `root_eclasses` and
//! `class_data` may be left out, but nothing can be chosen without roots.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value, json};

/// A node.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Its name in the file.
    pub id: String,
    /// Its operator.
    pub op: String,
    /// Nodes of the classes that are its operands, by name.
    pub children: Vec<String>,
    /// Its class.
    pub class: String,
    /// What it costs by itself.
    pub cost: f64,
    /// True for one that is not to be chosen.
    pub subsumed: bool,
}

/// An e-graph.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EGraph {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The classes that are asked for.
    pub roots: Vec<String>,
    /// What else is told of classes: a type, and strings by name.
    pub data: Vec<(String, Vec<(String, String)>)>,
}

impl EGraph {
    /// The e-graph as JSON.
    pub fn to_json(&self) -> Value {
        let node = |n: &Node| {
            let fields = json!({
                "op": n.op, "children": n.children, "eclass": n.class, "cost": n.cost, "subsumed": n.subsumed,
            });
            (n.id.clone(), fields)
        };
        let data = |(class, fields): &(String, Vec<(String, String)>)| {
            let fields: Map<String, Value> = fields.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            (class.clone(), Value::Object(fields))
        };
        json!({
            "nodes": self.nodes.iter().map(node).collect::<Map<_, _>>(),
            "root_eclasses": self.roots,
            "class_data": self.data.iter().map(data).collect::<Map<_, _>>(),
        })
    }

    /// Reads an e-graph.
    ///
    /// # Errors
    /// Which field is missing or of another kind, which cost is none, or which node or class is named that there is not.
    pub fn parse(text: &str) -> Result<EGraph, String> {
        let file: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let nodes = file["nodes"].as_object().ok_or("found no object `nodes`")?;
        let mut out = EGraph::default();
        for (id, fields) in nodes {
            out.nodes
                .push(node(id, fields).map_err(|e| format!("node `{id}`: {e}"))?);
        }
        if let Some(roots) = file.get("root_eclasses") {
            out.roots = strings(roots).map_err(|e| format!("`root_eclasses`: {e}"))?;
        }
        if let Some(data) = file.get("class_data") {
            let classes = data.as_object().ok_or("`class_data`: expected an object")?;
            for (class, fields) in classes {
                let fields = fields
                    .as_object()
                    .ok_or_else(|| format!("data of class `{class}`: expected an object"))?;
                let text = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
                out.data.push((class.clone(), fields.iter().filter_map(text).collect()));
            }
        }
        out.check()?;
        Ok(out)
    }

    /// The position of the class of each node, in the order in which classes first appear, and their names.
    pub fn classes(&self) -> (Vec<usize>, Vec<&str>) {
        let mut at: FxHashMap<&str, usize> = FxHashMap::default();
        let mut names = vec![];
        let of = self.nodes.iter().map(|n| {
            *at.entry(&n.class).or_insert_with(|| {
                names.push(n.class.as_str());
                names.len() - 1
            })
        });
        let of = of.collect();
        (of, names)
    }

    /// The position of each node by its name.
    pub fn positions(&self) -> FxHashMap<&str, usize> {
        self.nodes.iter().enumerate().map(|(i, n)| (n.id.as_str(), i)).collect()
    }

    fn check(&self) -> Result<(), String> {
        let known = self.positions();
        for n in &self.nodes {
            if let Some(child) = n.children.iter().find(|c| !known.contains_key(c.as_str())) {
                return Err(format!("node `{}` has the child `{child}`, which is no node", n.id));
            }
        }
        let classes: FxHashSet<&str> = self.nodes.iter().map(|n| n.class.as_str()).collect();
        match self.roots.iter().find(|r| !classes.contains(r.as_str())) {
            Some(root) => Err(format!("the root `{root}` is no class")),
            None => Ok(()),
        }
    }
}

fn node(id: &str, fields: &Value) -> Result<Node, String> {
    let text = |name: &str| {
        let found = fields.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
        found
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("`{name}`: expected a string"))
    };
    let cost = match fields.get("cost") {
        None => 1.0,
        Some(x) => x
            .as_f64()
            .filter(|c| *c >= 0.0)
            .ok_or_else(|| format!("`cost` is {x}, expected a number from 0 on"))?,
    };
    Ok(Node {
        id: id.to_owned(),
        op: text("op")?,
        children: match fields.get("children") {
            None => vec![],
            Some(list) => strings(list).map_err(|e| format!("`children`: {e}"))?,
        },
        class: text("eclass")?,
        cost,
        subsumed: match fields.get("subsumed") {
            None => false,
            Some(x) => x.as_bool().ok_or("`subsumed`: expected true or false")?,
        },
    })
}

fn strings(list: &Value) -> Result<Vec<String>, String> {
    let items = list
        .as_array()
        .and_then(|l| l.iter().map(|s| s.as_str().map(str::to_owned)).collect());
    items.ok_or_else(|| format!("found {list}, expected a list of strings"))
}
