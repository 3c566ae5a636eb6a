//! A plot of an ablation, as SVG: a panel for each model, a bar for each variant, relative to all rules.
//!
//! Bars are times over that of all rules, with their intervals where they were measured. The axis ends at [`END`]; a bar that is longer is cut there, and
//! its number says how long it is.

use super::Change;
use crate::page::escaped;
use std::fmt::Write;

/// Where the axis ends.
const END: f64 = 2.0;

/// Pixels: the column of names, the bars, that of numbers, a row, a title, and space around.
const NAMES: f64 = 190.0;
const BARS: f64 = 420.0;
const NUMBERS: f64 = 170.0;
const ROW: f64 = 18.0;
const TITLE: f64 = 34.0;
const SPACE: f64 = 12.0;

/// A bar.
pub struct Bar {
    /// The rules.
    pub change: Change,
    /// The time over that of all rules.
    pub ratio: f64,
    /// Where that lies, where it was measured.
    pub interval: Option<(f64, f64)>,
}

/// A model.
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// Its variants.
    pub bars: Vec<Bar>,
}

/// The plot.
pub fn svg(panels: &[Panel]) -> String {
    let tall = |p: &Panel| TITLE + ROW * p.bars.len() as f64 + SPACE;
    let height = SPACE + panels.iter().map(tall).sum::<f64>() + ROW;
    let width = SPACE + NAMES + BARS + NUMBERS;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut y = SPACE;
    for panel in panels {
        write_panel(&mut out, panel, y);
        y += tall(panel);
    }
    text(
        &mut out,
        (SPACE, y + 4.0),
        "fill=\"#555\"",
        "Times over that of all rules; blue without a part of them, orange with a part alone, lines are intervals.",
    );
    out + "</svg>\n"
}

fn write_panel(out: &mut String, panel: &Panel, top: f64) {
    let at = |ratio: f64| SPACE + NAMES + BARS * ratio.clamp(0.0, END) / END;
    let (first, last) = (top + TITLE, top + TITLE + ROW * panel.bars.len() as f64);
    text(
        out,
        (SPACE, top + 16.0),
        "font-size=\"14\" font-weight=\"bold\"",
        &panel.title,
    );
    for tick in [0.0, 0.5, 1.0, 1.5, 2.0] {
        let colour = if tick == 1.0 { "#333" } else { "#ddd" };
        let x = at(tick);
        line(out, (x, first - 2.0), (x, last), colour);
        text(
            out,
            (x, first - 5.0),
            "text-anchor=\"middle\" font-size=\"10\" fill=\"#555\"",
            &tick.to_string(),
        );
    }
    for (row, bar) in panel.bars.iter().enumerate() {
        let y = first + ROW * row as f64;
        let colour = match bar.change {
            Change::All => "#444",
            Change::None => "#999",
            Change::Without(_) => "#3b78b5",
            Change::Alone(_) => "#e08a2c",
        };
        let name = bar.change.to_string();
        text(out, (SPACE + NAMES - 8.0, y + 13.0), "text-anchor=\"end\"", &name);
        let long = at(bar.ratio) - at(0.0);
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            at(0.0),
            y + 3.0,
            ROW - 6.0
        );
        let mut number = format!("{:.3}", bar.ratio);
        if let Some((low, high)) = bar.interval {
            let middle = y + ROW / 2.0;
            line(out, (at(low), middle), (at(high), middle), "#000");
            [low, high]
                .into_iter()
                .for_each(|end| line(out, (at(end), middle - 3.0), (at(end), middle + 3.0), "#000"));
            let _ = write!(number, " ({low:.3} to {high:.3})");
        }
        text(out, (SPACE + NAMES + BARS + 8.0, y + 13.0), "fill=\"#333\"", &number);
    }
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    // A string takes all.
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(out: &mut String, (x, y): (f64, f64), how: &str, words: &str) {
    // A string takes all.
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {how}>{}</text>", escaped(words));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_end_where_the_axis_does_and_names_are_escaped() {
        let bar = |change, ratio, interval| Bar {
            change,
            ratio,
            interval,
        };
        let text = svg(&[Panel {
            title: "a<b & c".into(),
            bars: vec![
                bar(Change::All, 1.0, None),
                bar(Change::Without("merge".into()), 5.0, Some((0.5, 9.0))),
            ],
        }]);
        assert!(text.contains("a&lt;b &amp; c") && !text.contains("a<b"), "{text}");
        assert!(
            text.contains("width=\"210.0\"") && text.contains("width=\"420.0\""),
            "{text}"
        );
        assert!(text.contains("5.000 (0.500 to 9.000)"), "{text}");
        assert_eq!(text.matches("<rect").count(), 3);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
    }
}
