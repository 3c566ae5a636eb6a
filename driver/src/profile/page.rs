//! A profile as one HTML file that needs nothing else: `page.html` with its style, its script and the data in it.

use super::Profile;
use crate::page::Page;
use serde_json::{Value, json};

const PAGE: Page = Page {
    name: "profile",
    html: include_str!("page.html"),
    style: include_str!("page.css"),
    script: include_str!("page.js"),
};

/// Pieces of a run that the timeline shows, at most: the longest.
const PIECES: usize = 20_000;

impl Profile {
    /// The page.
    pub fn page(&self) -> String {
        let mut data = self.json();
        data["timeline"] = self.timeline();
        let listings = self
            .listings
            .iter()
            .map(|l| json!({"name": l.name, "bytes": l.bytes, "asm": l.asm.trim_end(), "refers": l.refers}));
        data["listings"] = listings.collect();
        PAGE.with(&self.model, &data)
    }

    /// The run of median length, in nanoseconds from its begin on.
    fn timeline(&self) -> Value {
        let Some(run) = self.typical() else {
            return Value::Null;
        };
        let at = |ns: u64| ns.saturating_sub(run.begin);
        let steps = run.steps.iter().map(|s| json!([s.step, at(s.begin), at(s.end)]));
        let pieces = run.pieces.iter().enumerate();
        let mut pieces: Vec<_> = pieces.flat_map(|(w, all)| all.iter().map(move |p| (w, *p))).collect();
        pieces.sort_by_key(|(_, p)| std::cmp::Reverse(p.ns()));
        let left_out = pieces.len().saturating_sub(PIECES);
        pieces.truncate(PIECES);
        let pieces = pieces.iter().map(|(w, p)| json!([w, p.step, at(p.begin), at(p.end)]));
        json!({
            "ns": run.ns(),
            "steps": steps.collect::<Vec<_>>(),
            "pieces": pieces.collect::<Vec<_>>(),
            "left_out": left_out,
        })
    }
}
