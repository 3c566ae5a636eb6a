//! A profile as one HTML file that needs nothing else: `page.html` with its style, its script and the data in it.

use super::Profile;
use serde_json::{Value, json};

/// The page, with places for what follows.
const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

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
        // What stands in a script element ends at `</script`, and `<!--` begins a comment.
        let data = data.to_string().replace('<', "\\u003c");
        let title: String = self.model.chars().map(escape).collect();
        let mut page = PAGE.to_owned();
        // The data and the title may hold any text, so they come behind those that have none of the places.
        for (place, text) in [
            ("STYLE", STYLE.trim_end()),
            ("SCRIPT", SCRIPT.trim_end()),
            ("\"DATA\"", &data),
            ("TITLE", &title),
        ] {
            page = page.replacen(place, text, 1);
        }
        page
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

fn escape(c: char) -> String {
    match c {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        c => c.into(),
    }
}
