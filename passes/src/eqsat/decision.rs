//! What is decided about a program as a whole, as text, so that it can be decided otherwise: which values are in memory, what
//! computes them, and how they lie there.
//!
//! ```text
//! inline "Relu_7"                   whoever reads it computes it
//! keep "Conv_3"                     a kernel of its own writes it
//! compute "Conv_3" by "winograd"    by this one of its operators
//! last "Conv_3"                     an image with its channels innermost
//! rows "Conv_3"                     the same in row-major order
//! ```
//!
//! A value is called by the model node that it came from; of several the second one is `NODE#1`, the third one `NODE#2`. An
//! [`Alternative`] is what the extraction did not choose, and what that would cost by its figures; whoever measures knows better.

use brolga_ir::Graph;
use brolga_ir::text::{Lexer, ParseError, whole};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;
use std::str::FromStr;

/// One decision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Decision {
    /// The name of the value.
    pub value: String,
    /// What becomes of it.
    pub to: To,
}

/// What is decided about a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum To {
    /// Whoever reads it computes it.
    Inline,
    /// It is computed once, and lies in memory.
    Keep,
    /// It is computed by this operator; of several of one name the second one is `NAME#1`.
    By(String),
    /// It lies in memory with its channels innermost.
    Last,
    /// It lies in memory in row-major order.
    Rows,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = &self.value;
        match &self.to {
            To::Inline => write!(f, "inline {value:?}"),
            To::Keep => write!(f, "keep {value:?}"),
            To::By(op) => write!(f, "compute {value:?} by {op:?}"),
            To::Last => write!(f, "last {value:?}"),
            To::Rows => write!(f, "rows {value:?}"),
        }
    }
}

impl FromStr for Decision {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Decision, ParseError> {
        whole(text, Decision::parse)
    }
}

impl Decision {
    fn parse(l: &mut Lexer) -> Result<Decision, ParseError> {
        let place = l.place();
        let word = l.ident()?;
        let value = l.string()?;
        let to = match word {
            "inline" => To::Inline,
            "keep" => To::Keep,
            "compute" => {
                l.expect("by")?;
                To::By(l.string()?)
            }
            "last" => To::Last,
            "rows" => To::Rows,
            _ => {
                let message = format!("found `{word}`, expected inline, keep, compute, last or rows");
                return Err(l.error_at(place, message));
            }
        };
        Ok(Decision { value, to })
    }

    /// The decisions of a text, one behind the other.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn all(text: &str) -> Result<Vec<Decision>, ParseError> {
        whole(text, |l| {
            let mut out = vec![];
            while !l.at_end() {
                out.push(Decision::parse(l)?);
            }
            Ok(out)
        })
    }

    /// True for one about how a value lies in memory.
    pub fn is_layout(&self) -> bool {
        matches!(self.to, To::Last | To::Rows)
    }
}

/// What became of a decision: the seconds that it adds by the extraction's figures, or why it was not taken.
#[derive(Clone, PartialEq, Debug)]
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// What became of it.
    pub result: Result<f64, String>,
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(seconds) => write!(f, "{}: decided, {:+.3} ms predicted", self.decision, seconds * 1e3),
            Err(why) => write!(f, "{}: not taken: {why}", self.decision),
        }
    }
}

/// What could be decided otherwise: the same decision for all values that are alike.
#[derive(Clone, PartialEq, Debug)]
pub struct Alternative {
    /// The decisions.
    pub decisions: Vec<Decision>,
    /// What they are about: an operator and a type.
    pub about: String,
    /// The seconds that they add by the extraction's figures.
    pub seconds: f64,
}

/// Alternatives as they are found: what is decided alike about values that are alike, at the same price, is one.
#[derive(Default)]
pub(super) struct Alternatives {
    found: Vec<Alternative>,
}

impl Alternatives {
    /// Adds a decision, with what it is about and the seconds that it adds.
    pub(super) fn add(&mut self, decision: Decision, about: String, seconds: f64) {
        // Equal work has equal prices, but for the order in which they are added up.
        let equal = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (a.abs() + b.abs());
        let alike = self.found.iter_mut().find(|a| {
            a.about == about && a.decisions[0].to == decision.to && equal(a.seconds / a.decisions.len() as f64, seconds)
        });
        match alike {
            Some(a) => {
                a.decisions.push(decision);
                a.seconds += seconds;
            }
            None => self.found.push(Alternative {
                decisions: vec![decision],
                about,
                seconds,
            }),
        }
    }

    /// Adds an alternative of its own.
    pub(super) fn push(&mut self, alternative: Alternative) {
        self.found.push(alternative);
    }

    /// All of them, the cheapest first.
    pub(super) fn sorted(mut self) -> Vec<Alternative> {
        self.found.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        self.found
    }
}

/// Who decides otherwise than the extraction does.
pub trait Decide: Send + Sync {
    /// What is decided about a graph, before kernels are chosen.
    fn decisions(&self, graph: &Graph) -> Vec<Decision>;

    /// Whether that gave the program which was meant; if not, nothing of it is taken.
    fn accepts(&self, _graph: &Graph, _cut: &Graph) -> bool {
        true
    }
}

impl Decide for Vec<Decision> {
    fn decisions(&self, _graph: &Graph) -> Vec<Decision> {
        self.clone()
    }
}

/// Names for what came from nodes of these names, each its own; nothing has none.
pub(super) fn names<'a>(nodes: impl Iterator<Item = Option<&'a str>>) -> Vec<Option<String>> {
    let mut taken: FxHashSet<String> = FxHashSet::default();
    let mut next: FxHashMap<&str, usize> = FxHashMap::default();
    let mut name = |node: &'a str| loop {
        let n = next.entry(node).or_default();
        let name = match *n {
            0 => node.to_owned(),
            n => format!("{node}#{n}"),
        };
        *n += 1;
        if taken.insert(name.clone()) {
            return name;
        }
    };
    nodes.map(|n| n.filter(|n| !n.is_empty()).map(&mut name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_print_what_they_are_read_from() {
        let text = "inline \"a b\"\nkeep \"x#1\"\ncompute \"x\" by \"winograd#1\"\nlast \"\\\"\"\nrows \"y\"";
        let all = Decision::all(text).unwrap();
        let printed: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(printed.join("\n"), text);
        assert!(all.iter().zip(&printed).all(|(d, p)| p.parse() == Ok(d.clone())));
        let e = Decision::all("inline \"a\"\nfuse \"b\"").unwrap_err();
        assert_eq!(
            e.to_string(),
            "2:1: found `fuse`, expected inline, keep, compute, last or rows"
        );
        assert!(Decision::all("inline a").is_err() && Decision::all("compute \"a\" with \"b\"").is_err());
    }

    #[test]
    fn names_are_told_apart() {
        let nodes = ["a", "b", "a", "a#1", "a"]
            .map(Some)
            .into_iter()
            .chain([Some(""), None]);
        let names: Vec<Option<String>> = names(nodes);
        let names: Vec<Option<&str>> = names.iter().map(|n| n.as_deref()).collect();
        assert_eq!(
            names,
            [
                Some("a"),
                Some("b"),
                Some("a#1"),
                Some("a#1#1"),
                Some("a#2"),
                None,
                None
            ]
        );
    }

    #[test]
    fn what_is_alike_is_one_alternative() {
        let mut all = Alternatives::default();
        let inline = |value: &str| Decision {
            value: value.into(),
            to: To::Inline,
        };
        all.add(inline("a"), "relu".into(), 2.0);
        all.add(inline("b"), "relu".into(), 2.0);
        all.add(inline("c"), "relu".into(), 3.0);
        all.add(inline("d"), "exp".into(), 2.0);
        let all = all.sorted();
        let seconds: Vec<f64> = all.iter().map(|a| a.seconds).collect();
        assert_eq!(seconds, [2.0, 3.0, 4.0]);
        assert_eq!(all[2].decisions, [inline("a"), inline("b")]);
    }
}
