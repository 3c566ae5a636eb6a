//! Pictures of models: each operation is one box, arrows are those of the graph, boxes do not overlap, and what is written is DOT and XML.

mod common;

use brolga::draw::layout::{Placed, layout};
use brolga::draw::{Drawing, Edge, Kind, Node, dot, svg};
use brolga::levels::{Level, Module, Walk};
use brolga::{Options, source};
use common::{arg, brolga, digits, ok};
use std::collections::{BTreeSet, HashMap};

const LEVELS: [&str; 5] = ["imported", "tensor", "structured", "loops", "program"];

/// The names of an XML text's elements, which are closed in the order in which they were opened.
fn elements(xml: &str) -> Vec<String> {
    let (mut open, mut all, mut rest) = (vec![], vec![], xml);
    while let Some((text, tag)) = rest.split_once('<') {
        for reference in text.split('&').skip(1) {
            let name = reference.split(';').next().unwrap_or_default();
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "{text}");
        }
        let (tag, behind) = tag.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name), "{name} is closed"),
            (None, inner) => {
                let name = inner.unwrap_or(tag).split(' ').next().unwrap_or_default();
                all.push(name.to_owned());
                if inner.is_none() {
                    open.push(name);
                }
            }
        }
        rest = behind;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    all
}

/// The values of an attribute in an SVG.
fn values<'x>(xml: &'x str, attribute: &str) -> Vec<&'x str> {
    let key = format!(" {attribute}=\"");
    let rest = xml.split(&key).skip(1);
    rest.map(|r| r.split('"').next().unwrap_or_default()).collect()
}

/// The boxes and arrows of DOT as this is written: strings are whole, every line is a statement.
fn statements(dot: &str) -> (BTreeSet<String>, Vec<(String, String)>) {
    let lines: Vec<&str> = dot.lines().collect();
    let (first, last) = (lines[0], lines[lines.len() - 1]);
    assert!(
        first.starts_with("digraph \"") && first.ends_with('{') && last == "}",
        "{first} {last}"
    );
    let (mut boxes, mut arrows) = (BTreeSet::new(), vec![]);
    for line in &lines[1..lines.len() - 1] {
        let plain = line.replace("\\\\", "").replace("\\\"", "");
        assert!(plain.matches('"').count() % 2 == 0 && plain.ends_with(';'), "{line}");
        let words: Vec<&str> = line.trim().split([' ', ';']).collect();
        match words[..] {
            [from, "->", to, ..] => arrows.push((from.to_owned(), to.to_owned())),
            ["node" | "edge", ..] => {}
            [name, ..] => assert!(boxes.insert(name.to_owned()), "{name} is there twice"),
            [] => unreachable!("a split gives a word"),
        }
    }
    (boxes, arrows)
}

/// Fails where a picture, or what is written of it, is not what it should be.
fn check(d: &Drawing) {
    for edge in &d.edges {
        assert!(edge.from < edge.to, "boxes stand behind what they read: {edge:?}");
    }
    let name = |n: usize| format!("n{n}");
    let wanted: Vec<(String, String)> = d.edges.iter().map(|e| (name(e.from), name(e.to))).collect();
    let picture = svg::text(d);
    let found = elements(&picture);
    assert_eq!(found.iter().filter(|e| *e == "rect").count(), d.nodes.len());
    let from = values(&picture, "data-from").into_iter().map(str::to_owned);
    let to = values(&picture, "data-to").into_iter().map(str::to_owned);
    assert_eq!(from.zip(to).collect::<Vec<_>>(), wanted);
    let (boxes, arrows) = statements(&dot::text(d));
    assert_eq!(boxes, (0..d.nodes.len()).map(name).collect());
    assert_eq!(arrows, wanted);
    let size = |n: usize| (10.0 + (n % 7) as f64 * 30.0, 20.0 + (n % 3) as f64 * 15.0);
    let placed = layout(d, &size, &|text| (text.len() as f64 * 6.0, 12.0));
    let labels = placed.labels.iter().map(|l| l.1);
    let all: Vec<Placed> = placed.nodes.iter().copied().chain(labels).collect();
    for (i, a) in all.iter().enumerate() {
        assert!(a.x - a.size.0 / 2.0 >= 0.0 && a.x + a.size.0 / 2.0 <= placed.size.0);
        assert!(a.y - a.size.1 / 2.0 >= 0.0 && a.y + a.size.1 / 2.0 <= placed.size.1);
        for b in &all[..i] {
            let apart = |p: f64, q: f64, x: f64, y: f64| (p - q).abs() >= (x + y) / 2.0 - 1e-6;
            assert!(
                apart(a.x, b.x, a.size.0, b.size.0) || apart(a.y, b.y, a.size.1, b.size.1),
                "{a:?} {b:?}"
            );
        }
    }
    // Arrows lead down, from the edge of one box to that of the other.
    for (edge, points) in d.edges.iter().zip(&placed.edges) {
        let (a, b) = (placed.nodes[edge.from], placed.nodes[edge.to]);
        assert_eq!(points[0], (a.x, a.y + a.size.1 / 2.0));
        assert_eq!(points[points.len() - 1], (b.x, b.y - b.size.1 / 2.0));
        assert!(points.windows(2).all(|p| p[0].1 <= p[1].1), "{points:?}");
    }
}

fn model() -> Module {
    source::model(&digits(), &Options::default()).expect("it is in the repository")
}

/// What a box of an operation is called, as often as there are such.
fn counted<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    let mut out = HashMap::new();
    names.for_each(|n| *out.entry(n).or_insert(0) += 1);
    out
}

#[test]
fn graphs_are_drawn_as_they_are() {
    let imported = model();
    let options = Options::default();
    let cut = Walk::new(model(), &options).unwrap().module;
    for module in [imported, cut] {
        let Module::Tensor(g) = &module else {
            panic!("it is a graph")
        };
        let d = Drawing::new(&module, None).unwrap();
        check(&d);
        let operations = d
            .nodes
            .iter()
            .filter(|n| matches!(n.kind, Kind::Operation | Kind::Kernel));
        let drawn = counted(operations.map(|n| &*n.lines[0]));
        assert_eq!(drawn, counted(g.nodes.iter().map(|n| n.op.name())));
        let of = |kind: Kind| d.nodes.iter().filter(|n| n.kind == kind).count();
        assert_eq!((of(Kind::Input), of(Kind::Output)), (g.inputs.len(), g.outputs.len()));
        // One arrow for each operand, where no node reads a value twice, and for each output.
        let reads: usize = (g.nodes.iter())
            .map(|n| n.inputs.iter().collect::<BTreeSet<_>>().len())
            .sum();
        assert_eq!(d.edges.len(), reads + g.outputs.len());
    }
}

#[test]
fn programs_are_drawn_over_their_memory() {
    let options = Options::default();
    for level in [Level::Structured, Level::Loops, Level::Program] {
        let module = Walk::new(model(), &options).unwrap().down(level).unwrap().module;
        let d = Drawing::new(&module, None).unwrap();
        check(&d);
        let of = |kind: Kind| d.nodes.iter().filter(|n| n.kind == kind).count();
        assert!(
            of(Kind::Kernel) > 1 && of(Kind::Input) == 1 && of(Kind::Output) == 1,
            "{d:?}"
        );
        // Every kernel is read, and reads something, but for what fills a margin.
        for (n, node) in d.nodes.iter().enumerate().filter(|n| n.1.kind == Kind::Kernel) {
            let fills = node.lines[0].starts_with("@pad_");
            assert!(fills || d.edges.iter().any(|e| e.to == n), "{node:?}");
            assert!(d.edges.iter().any(|e| e.from == n), "{node:?}");
        }
        let kernel = d.nodes.iter().find(|n| n.kind == Kind::Kernel).unwrap();
        let tree = Drawing::new(&module, Some(&kernel.lines[0])).unwrap();
        check(&tree);
        assert_eq!(tree.edges.len(), tree.nodes.len() - 1, "it is a tree");
        assert!(tree.nodes.iter().any(|n| n.kind == Kind::Loop));
        let wrong = Drawing::new(&module, Some("nope")).unwrap_err().to_string();
        assert!(wrong.contains("there is no kernel @nope"), "{wrong}");
    }
}

#[test]
fn regions_and_strange_names_are_drawn() {
    let text = "graph @g(%0 c: bool[], %1 x: f32[3]) {
      %2 = if{then=graph @t(%0 x: f32[3]) {
          %1 = neg(%0)
          return a = %1
        } else=graph @e(%0 x: f32[3]) {
          return a = %0
        }}(%0, %1)
      %3 = add(%2, %2)
      return y = %3
    }";
    let module = Module::parse(text, &|_| None).unwrap();
    let mut d = Drawing::new(&module, None).unwrap();
    assert!(
        d.nodes
            .iter()
            .any(|n| n.lines.iter().any(|l| l == "regions of 1 operations, 0 operations")),
        "{d:?}"
    );
    check(&d);
    // A value that is read twice by one node has one arrow.
    assert_eq!(d.edges.len(), 4);
    d.nodes[1].lines = vec!["a<b & \"c\" \\ -> d".into()];
    d.nodes[1].whole = "a<b & \"c\"\n\\".into();
    check(&d);
}

/// A ladder of boxes with long arrows, which passes many layers.
#[test]
fn large_pictures_have_places_too() {
    let node = |n: usize| Node {
        kind: Kind::Operation,
        lines: vec![format!("op{n}")],
        whole: format!("op{n}"),
    };
    let mut d = Drawing {
        nodes: (0..400).map(node).collect(),
        ..Drawing::default()
    };
    for n in 1..400usize {
        for back in [1, 5, 1 + n % 23, 1 + (n * n) % 97] {
            if let Some(from) = n.checked_sub(back) {
                let label = if back % 2 == 0 {
                    format!("f32[{from}]")
                } else {
                    String::new()
                };
                d.edges.push(Edge { from, to: n, label });
            }
        }
    }
    check(&d);
    check(&Drawing {
        nodes: vec![node(0)],
        ..Drawing::default()
    });
}

#[test]
fn the_command_draws_every_level() {
    let dir = tempfile::tempdir().unwrap();
    let digits = digits();
    let model = arg(&digits);
    for level in LEVELS {
        let picture = ok(dir.path(), &["draw", model, "--level", level]).out;
        assert!(
            elements(&picture).len() > 20 && picture.contains("prefers-color-scheme: dark"),
            "{level}"
        );
        ok(dir.path(), &["draw", model, "--level", level, "-o", "m.dot"]);
        let text = std::fs::read_to_string(dir.path().join("m.dot")).unwrap();
        assert_eq!(
            statements(&text).0.len(),
            elements(&picture).iter().filter(|e| *e == "rect").count()
        );
        // Where Graphviz is there, it reads it.
        if let Ok(read) = std::process::Command::new("dot")
            .args(["-Tplain", "m.dot"])
            .current_dir(dir.path())
            .output()
        {
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        }
    }
    ok(dir.path(), &["emit", model, "--stage", "loops", "-o", "l.txt"]);
    ok(dir.path(), &["draw", "l.txt", "--level", "program", "-o", "l.svg"]);
    std::fs::write(
        dir.path().join("bad.txt"),
        "graph @g(%0 x: f32[3]) {\n  %1 = rlu(%0)\n}",
    )
    .unwrap();
    for (args, words) in [
        (
            &["draw", "l.txt"][..],
            "l.txt: a program that is below this level already",
        ),
        (&["draw", "none.onnx"], "none.onnx"),
        (&["draw", "bad.txt"], "bad.txt:2:"),
        (
            &["draw", model, "--kernel", "k"],
            "expected --level structured, loops or program",
        ),
        (
            &["draw", model, "--level", "loops", "--kernel", "k"],
            "there is no kernel @k",
        ),
        (&["draw", model, "-o", "no/such/m.svg"], "no/such"),
        (&["draw", model, "--level", "tensr"], "tensor"),
    ] {
        let ran = brolga(dir.path(), args);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.out);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
}
