//! Pictures as DOT, the language of Graphviz.

use super::{Drawing, Kind};

/// The text of a picture.
pub fn text(d: &Drawing) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&d.title));
    out += "  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\", fontsize=10];\n";
    out += "  edge [fontname=\"monospace\", fontsize=9];\n";
    for (n, node) in d.nodes.iter().enumerate() {
        let (label, whole) = (quoted(&node.lines.join("\n")), quoted(&node.whole));
        let style = style(node.kind);
        out += &format!(
            "  n{n} [label={label}, tooltip={whole}, class=\"{}\", {style}];\n",
            node.kind.name()
        );
    }
    for edge in &d.edges {
        let label = match edge.label.is_empty() {
            true => String::new(),
            false => format!(" [label={}]", quoted(&edge.label)),
        };
        out += &format!("  n{} -> n{}{label};\n", edge.from, edge.to);
    }
    out + "}\n"
}

fn style(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "shape=ellipse, fillcolor=\"#d8ecd8\"",
        Kind::Output => "shape=ellipse, fillcolor=\"#f6dcc8\"",
        Kind::Constant => "fontsize=8, margin=0.04, height=0.2, fillcolor=\"#eeeeee\"",
        Kind::Operation => "fillcolor=\"#ffffff\"",
        Kind::Kernel => "fillcolor=\"#dbe6f8\"",
        Kind::Compiled => "fillcolor=\"#e6e0ee\"",
        Kind::Loop => "fillcolor=\"#fbf3cf\"",
    }
}

/// A string of DOT; line breaks are those of centred labels.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
