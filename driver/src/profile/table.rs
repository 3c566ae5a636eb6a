//! A profile for people: a table, the largest share first.

use super::{Profile, Row};
use crate::aligned::aligned;
use brolga_ir::figures::Origin;
use std::fmt::Write;

/// Rows that are shown where not all are asked for.
const TOP: usize = 20;

/// Characters of a row's nodes.
const NODES: usize = 48;

/// A column: its title, whether it stands to the right, and what a row has there.
type Column = (&'static str, bool, fn(&Row) -> String);

const COLUMNS: [Column; 13] = [
    ("kernel", false, |r| r.name.clone()),
    ("kind", false, |r| r.kind.to_string()),
    ("share", true, |r| format!("{:.1}%", 100.0 * r.share)),
    ("calls", true, |r| amount(r.calls)),
    ("median", true, |r| time(r.call.median)),
    ("predicted", true, |r| {
        r.predicted.map_or_else(none, |s| time(s / r.calls))
    }),
    ("p10", true, |r| time(r.call.p10)),
    ("p90", true, |r| time(r.call.p90)),
    ("GFLOP/s", true, |r| rate(r.flops())),
    ("GB/s", true, |r| rate(r.bandwidth())),
    ("roof", true, |r| {
        r.efficiency().map_or_else(none, |x| format!("{:.0}%", 100.0 * x))
    }),
    ("of", false, |r| r.roof.map_or_else(none, |roof| roof.wall.to_string())),
    ("busy", true, |r| format!("{:.2}", r.busy)),
];

fn none() -> String {
    "–".to_owned()
}

fn amount(x: f64) -> String {
    match x.fract() == 0.0 {
        true => format!("{x:.0}"),
        false => format!("{x:.1}"),
    }
}

fn rate(x: Option<f64>) -> String {
    match x.map(|x| x * 1e-9) {
        None => none(),
        Some(0.0) => "0".to_owned(),
        Some(x) if x < 10.0 => format!("{x:.2}"),
        Some(x) => format!("{x:.0}"),
    }
}

/// A duration for people.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// The first characters of a text.
fn short(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => format!("{}…", text.chars().take(most - 1).collect::<String>()),
        false => text.to_owned(),
    }
}

impl Profile {
    /// The profile as text; with `all`, every row of it, with schedules.
    pub fn text(&self, all: bool) -> String {
        let mut out = self.heading();
        let shown = if all { self.rows.len() } else { TOP.min(self.rows.len()) };
        let rows = &self.rows[..shown];
        let counters = self.counted.as_ref().map_or(&[][..], |c| &c.names);
        let mut lines: Vec<Vec<String>> = vec![COLUMNS.iter().map(|c| c.0.to_owned()).collect()];
        lines[0].extend(counters.iter().map(|n| (*n).to_owned()));
        for row in rows {
            let mut line: Vec<String> = COLUMNS.iter().map(|c| (c.2)(row)).collect();
            let count = |i: usize| row.counts.as_ref().and_then(|c| c.get(i));
            line.extend((0..counters.len()).map(|i| count(i).map_or_else(none, |x| amount(x.round()))));
            lines.push(line);
        }
        let columns = lines[0].len();
        lines[0].push("nodes".to_owned());
        for (line, row) in lines[1..].iter_mut().zip(rows) {
            let nodes = row.nodes.join(", ");
            line.push(if all { nodes } else { short(&nodes, NODES) });
        }
        let right = |c: usize| COLUMNS.get(c).map_or(c < columns, |column| column.1);
        for (n, line) in aligned(&lines, &right).iter().enumerate() {
            let _ = writeln!(out, "{line}");
            if all && n > 0 {
                for schedule in &rows[n - 1].schedules {
                    let _ = writeln!(out, "    {schedule}");
                }
            }
        }
        if shown < self.rows.len() {
            let rest: f64 = self.rows[shown..].iter().map(|r| r.share).sum();
            let (more, share) = (self.rows.len() - shown, 100.0 * rest);
            let _ = writeln!(out, "{more} more with {share:.1}% of the time; --all shows them");
        }
        for (name, why) in self.counted.iter().flat_map(|c| &c.refused) {
            let _ = writeln!(out, "no {name}: {why}");
        }
        out
    }

    fn heading(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(|(s, n)| format!(" {s}={n}")).collect();
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}{}: median {}, from {} to {} (10th to 90th percentile of {} runs, {} threads, {})",
            self.model,
            sizes.concat(),
            time(self.run.median),
            time(self.run.p10),
            time(self.run.p90),
            self.records.len(),
            self.threads,
            self.target,
        );
        let _ = writeln!(
            out,
            "noting takes {:.0} ns a step, {:.1}% of a run; {} of a run are outside of steps",
            self.hook.as_secs_f64() * 1e9,
            100.0 * self.overhead(),
            time(self.outside),
        );
        let figures = match self.figures.origin {
            Origin::Measured => "roofs are this machine's, as `brolga machine` measured it",
            Origin::BuiltIn => "roofs are a common machine's; `brolga machine` measures this one",
        };
        let _ = writeln!(out, "{figures}\n");
        out
    }
}
