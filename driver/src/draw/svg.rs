//! Pictures as SVG, in light or dark as the reader has it.

use super::layout::{Layout, Placed, Size, layout};
use super::{Drawing, Kind};
use crate::page::escaped;

/// The height of a line of text; the width of a character of the first line and of the others.
const LINE: f64 = 15.0;
const WIDE: f64 = 7.3;
const SMALL: f64 = 6.1;

const STYLE: &str = "
svg { --page: #ffffff; --ink: #1c2430; --faint: #667080; --line: #8b95a5; --box: #f7f8fa; --edge: #b9c1cc;
      --input: #dcefdc; --output: #f8e0cd; --constant: #eceef1; --kernel: #dbe7fa; --compiled: #e9e2f3; --loop: #fbf2cc;
      background: var(--page); font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14181f; --ink: #e6eaf0; --faint: #9aa5b5; --line: #6d7a8c; --box: #222934; --edge: #465263;
        --input: #22402a; --output: #4a3221; --constant: #2a303a; --kernel: #1f3657; --compiled: #372c4c; --loop: #45401f; }
}
rect { fill: var(--box); stroke: var(--edge); }
.input rect { fill: var(--input); } .output rect { fill: var(--output); } .constant rect { fill: var(--constant); }
.kernel rect { fill: var(--kernel); } .compiled rect { fill: var(--compiled); } .loop rect { fill: var(--loop); }
text { fill: var(--faint); font-size: 10px; text-anchor: middle; }
text.head { fill: var(--ink); font-size: 12px; font-weight: 600; }
text.value { stroke: var(--page); stroke-width: 4px; paint-order: stroke; }
path { fill: none; stroke: var(--line); stroke-width: 1.2; }
marker path { fill: var(--line); stroke: none; }
";

/// The text of a picture.
pub fn text(d: &Drawing) -> String {
    let placed = layout(d, &|n| size(d, n), &|label| {
        (label.chars().count() as f64 * SMALL, 12.0)
    });
    let (w, h) = placed.size;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
        escaped(&d.title)
    );
    out += "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n";
    arrows(d, &placed, &mut out);
    for (label, at) in &placed.labels {
        let (x, y) = (at.x, at.y + 3.5);
        out += &format!(
            "<text class=\"value\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n",
            escaped(label)
        );
    }
    for (n, at) in placed.nodes.iter().enumerate() {
        node(d, n, at, &mut out);
    }
    out + "</svg>\n"
}

/// The size of a box, by its text.
fn size(d: &Drawing, n: usize) -> Size {
    let node = &d.nodes[n];
    let small = node.kind == Kind::Constant;
    let width = |(k, line): (usize, &String)| {
        let each = if k == 0 && !small { WIDE } else { SMALL };
        line.chars().count() as f64 * each
    };
    let widest = node.lines.iter().enumerate().map(width).fold(24.0, f64::max);
    let (x, y) = if small { (12.0, 4.0) } else { (22.0, 12.0) };
    (widest + x, node.lines.len().max(1) as f64 * LINE + y)
}

fn arrows(d: &Drawing, placed: &Layout, out: &mut String) {
    for (edge, points) in d.edges.iter().zip(&placed.edges) {
        let mut path = format!("M{:.1} {:.1}", points[0].0, points[0].1);
        for pair in points.windows(2) {
            let [(ax, ay), (bx, by)] = [pair[0], pair[1]];
            if (ax - bx).abs() < 0.5 {
                path += &format!("L{bx:.1} {by:.1}");
            } else {
                let middle = (ay + by) / 2.0;
                path += &format!("C{ax:.1} {middle:.1} {bx:.1} {middle:.1} {bx:.1} {by:.1}");
            }
        }
        let (from, to) = (edge.from, edge.to);
        *out += &format!("<path data-from=\"n{from}\" data-to=\"n{to}\" marker-end=\"url(#tip)\" d=\"{path}\"/>\n");
    }
}

fn node(d: &Drawing, n: usize, at: &Placed, out: &mut String) {
    let node = &d.nodes[n];
    let ((w, h), round) = (
        at.size,
        match node.kind {
            Kind::Input | Kind::Output => at.size.1 / 2.0,
            _ => 5.0,
        },
    );
    let (x, y) = (at.x - w / 2.0, at.y - h / 2.0);
    *out += &format!(
        "<g id=\"n{n}\" class=\"{}\"><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{round:.1}\"/>",
        node.kind.name(),
        escaped(&node.whole)
    );
    let top = at.y - node.lines.len() as f64 * LINE / 2.0 + 11.0;
    for (k, line) in node.lines.iter().enumerate() {
        let class = if k == 0 && node.kind != Kind::Constant {
            " class=\"head\""
        } else {
            ""
        };
        let y = top + k as f64 * LINE;
        *out += &format!("<text{class} x=\"{:.1}\" y=\"{y:.1}\">{}</text>", at.x, escaped(line));
    }
    *out += "</g>\n";
}
