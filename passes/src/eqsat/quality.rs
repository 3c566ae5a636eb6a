//! How a program is chosen from an e-graph, and how good the one that was chosen is.
//!
//! ```text
//! predicted 0.110 ms, lower bound 0.102 ms (gap 8.1 %); runner-up +0.001 ms: inline "Relu_7"
//! ```
//!
//! All figures are those of the cost model. The runner-up is the cheapest program met that differs in one decision, with what is around it settled
//! anew.

use super::decision::Decision;
use super::draft::LEAST;
use std::fmt;
use std::str::FromStr;

/// How a program is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Extract {
    /// Bottom up, each class by its dearest path.
    Greedy,
    /// The same, improved by local search.
    #[default]
    Search,
    /// The same, improved by branch and bound, within a limit of partial programs.
    Exact,
}

impl Extract {
    /// All of them.
    pub const ALL: [Extract; 3] = [Extract::Greedy, Extract::Search, Extract::Exact];

    /// Its name in pipelines.
    pub fn name(self) -> &'static str {
        match self {
            Extract::Greedy => "greedy",
            Extract::Search => "search",
            Extract::Exact => "exact",
        }
    }
}

impl FromStr for Extract {
    type Err = String;

    fn from_str(name: &str) -> Result<Extract, String> {
        let found = Extract::ALL.into_iter().find(|e| e.name() == name);
        found.ok_or_else(|| {
            let known = Extract::ALL.map(Extract::name).join(", ");
            format!("found `{name}`, expected one of {known}")
        })
    }
}

/// How good a program is.
#[derive(Clone, PartialEq, Debug)]
pub struct Quality {
    /// Its seconds.
    pub seconds: f64,
    /// Seconds that any program costs at least; `None` where the e-graph is too large to tell.
    pub bound: Option<f64>,
    /// What branch and bound did, where it ran: whether no program is cheaper, and the partial programs that it looked at.
    pub exact: Option<(bool, usize)>,
    /// The cheapest other program that was met: what it decides otherwise, and the seconds that it costs more.
    pub runner_up: Option<(Decision, f64)>,
}

impl Quality {
    /// How much dearer the program is than the bound, as a share of it; `None` where that says nothing.
    pub fn gap(&self) -> Option<f64> {
        let gap = |b: f64| (self.seconds / b - 1.0).max(0.0);
        self.bound.filter(|b| *b > 0.0).map(gap)
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicted {:.3} ms", self.seconds * 1e3)?;
        match (self.bound, self.gap()) {
            (Some(b), Some(gap)) => write!(f, ", lower bound {:.3} ms (gap {:.1} %)", b * 1e3, gap * 100.0)?,
            (Some(_), None) => f.write_str(", lower bound 0 ms")?,
            (None, _) => f.write_str(", the e-graph is too large for a lower bound")?,
        }
        match self.exact {
            Some((true, n)) => write!(f, "; no program is cheaper ({n} partial programs looked at)")?,
            Some((false, n)) => write!(f, "; stopped at the limit of {n} partial programs: one may be cheaper")?,
            None => {}
        }
        match &self.runner_up {
            Some((decision, more)) if *more < LEAST => write!(f, "; another of the same cost: {decision}"),
            Some((decision, more)) => write!(f, "; runner-up {:+.6} ms: {decision}", more * 1e3),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualities_say_what_is_known() {
        let mut q = Quality {
            seconds: 1.1e-3,
            bound: Some(1e-3),
            exact: Some((true, 12)),
            runner_up: Some(("keep \"Conv_3\"".parse().unwrap(), 1.2e-5)),
        };
        let said = "predicted 1.100 ms, lower bound 1.000 ms (gap 10.0 %); no program is cheaper (12 partial programs looked at); \
                    runner-up +0.012000 ms: keep \"Conv_3\"";
        assert_eq!(q.to_string(), said);
        q.runner_up = Some(("keep \"Conv_3\"".parse().unwrap(), -1e-20));
        assert!(q.to_string().ends_with("; another of the same cost: keep \"Conv_3\""));
        (q.bound, q.exact, q.runner_up) = (None, None, None);
        assert_eq!(q.gap(), None);
        assert_eq!(
            q.to_string(),
            "predicted 1.100 ms, the e-graph is too large for a lower bound"
        );
        assert_eq!("exact".parse(), Ok(Extract::Exact));
        assert!("best".parse::<Extract>().unwrap_err().contains("greedy, search, exact"));
    }
}
