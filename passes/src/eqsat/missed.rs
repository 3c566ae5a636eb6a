//! What was not fused, and why: values that one kernel writes and others read, though they could be computed where they are read.

use super::extract::{At, Classes};
use super::search::{Search, Way};
use std::fmt;

/// A value in memory that might be none.
#[derive(Clone, PartialEq, Debug)]
pub struct Missed {
    /// The model nodes that it and what reads it came from.
    pub nodes: (String, String),
    /// Why it is in memory.
    pub why: Why,
    /// The seconds in which it is written and read, and its kernel is started: the most that can be won.
    pub at_stake: f64,
}

/// Why a value is in memory.
#[derive(Clone, PartialEq, Debug)]
pub enum Why {
    /// No kernel may hold both: the reason.
    Illegal(String),
    /// It would take so many seconds more.
    Dearer(f64),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, reader) = &self.nodes;
        write!(
            f,
            "not fused: {value:?} into {reader:?}, at most {:.4} ms: ",
            self.at_stake * 1e3
        )?;
        match &self.why {
            Why::Illegal(why) => f.write_str(why),
            Why::Dearer(seconds) => write!(
                f,
                "would take {:.4} ms longer by the cost model's figures",
                seconds * 1e3
            ),
        }
    }
}

/// What a program has in memory for other reasons than that it is a result, the most at stake first.
pub fn missed(cs: &Classes, roots: &[At], search: &mut Search, name: &dyn Fn(At) -> String) -> Vec<Missed> {
    let plan = search.plan();
    let order = plan.order(cs, roots);
    let Ok(forms) = plan.forms(cs, &order) else {
        return vec![];
    };
    let mut readers: Vec<Vec<At>> = vec![vec![]; cs.ids.len()];
    for &c in &order {
        for &o in plan.operands(cs, c) {
            if !readers[o].contains(&c) {
                readers[o].push(c);
            }
        }
    }
    let mut inlined = plan.clone();
    let mut out = vec![];
    for (c, way) in search.open_ways() {
        if way != Way::Stored(false) || readers[c].is_empty() {
            continue;
        }
        inlined.stored[c] = false;
        let refused = readers[c]
            .iter()
            .find_map(|&r| Some((r, inlined.form(cs, &forms, r).err()?)));
        inlined.stored[c] = true;
        let (reader, why) = match refused {
            Some((r, why)) => (r, Why::Illegal(why)),
            None => match search.price(c, way) {
                Ok(seconds) => (readers[c][0], Why::Dearer(seconds.max(0.0))),
                Err(_) => (readers[c][0], Why::Illegal("what reads it would be no kernel".into())),
            },
        };
        out.push(Missed {
            nodes: (name(c), name(reader)),
            why,
            at_stake: cs.times[c] * (cs.traffic[c] + cs.model.per_kernel())
                + cs.traffic[c] * readers[c].iter().map(|&r| cs.times[r]).sum::<f64>(),
        });
    }
    out.sort_by(|a, b| b.at_stake.total_cmp(&a.at_stake));
    out
}
