//! One kernel as a tree: its text, where each block is a box that hangs on the block around it, and statements between blocks are one box.

use super::{Drawing, Kind, Node};

/// The picture of a kernel's text.
pub fn drawing(name: &str, text: &str) -> Drawing {
    let mut out = Drawing {
        title: format!("@{name}"),
        ..Drawing::default()
    };
    let mut around: Vec<usize> = vec![];
    let mut statements: Vec<String> = vec![];
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let closes = line.starts_with('}');
        let opens = line.ends_with('{');
        if !closes && !opens {
            statements.push(line.to_owned());
            continue;
        }
        flush(&mut out, around.last(), &mut statements);
        if closes {
            around.pop();
        }
        if opens {
            let head = line.trim_start_matches('}').trim_end_matches('{').trim();
            let kind = if out.nodes.is_empty() { Kind::Kernel } else { Kind::Loop };
            let block = out.add(Node::new(kind, wrapped(head)));
            if let Some(parent) = around.last() {
                out.connect(*parent, block, String::new());
            }
            around.push(block);
        }
    }
    flush(&mut out, around.last(), &mut statements);
    out
}

/// Draws statements that are in a row.
fn flush(out: &mut Drawing, around: Option<&usize>, statements: &mut Vec<String>) {
    /// Statements that a box shows.
    const MOST: usize = 12;
    if statements.is_empty() {
        return;
    }
    let mut node = Node::new(Kind::Operation, std::mem::take(statements));
    if node.lines.len() > MOST {
        let more = node.lines.len() - (MOST - 1);
        node.lines.truncate(MOST - 1);
        node.lines.push(format!("… {more} more"));
    }
    let row = out.add(node);
    if let Some(parent) = around {
        out.connect(*parent, row, String::new());
    }
}

/// A head over several lines.
fn wrapped(head: &str) -> Vec<String> {
    /// Characters of a line, about.
    const WIDTH: usize = 40;
    let mut lines: Vec<String> = vec![String::new()];
    for word in head.split_inclusive([',', ' ']) {
        let last = lines.last_mut().expect("there is a line");
        match last.is_empty() || last.chars().count() + word.chars().count() <= WIDTH {
            true => *last += word,
            false => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|l| l.trim().to_owned()).collect()
}
