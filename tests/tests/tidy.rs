//! The tree keeps the rules that no compiler checks: documents name what exists, nothing is unfinished, no file is too
//! long, operators and rules are tested, `unsafe` says why, the runtime stays small.

use brolga_ir::graph::Graph;
use brolga_ir::ops::Role;
use brolga_ir::{Op, Target, Type, ops};
use brolga_passes::eqsat::{self, rules::Allowance, saturate::Limits};
use brolga_tests::{data, root};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No Rust file is longer.
const MOST_LINES: usize = 800;

/// The files of the repository, relative to its root: those that git tracks, else all.
fn files() -> Vec<PathBuf> {
    let git = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let tracked: Vec<PathBuf> = match git {
        Ok(out) if out.status.success() => {
            let names = String::from_utf8(out.stdout).expect("names are UTF-8");
            // A file may be removed but still be tracked.
            names
                .split_terminator('\0')
                .map(PathBuf::from)
                .filter(|f| root().join(f).is_file())
                .collect()
        }
        _ => vec![],
    };
    if !tracked.is_empty() {
        return tracked;
    }
    let (mut all, mut folders) = (vec![], vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if path.is_file() {
                all.push(path.strip_prefix(root()).expect("it is below the root").to_owned());
            }
        }
    }
    all
}

/// The text files with one of these extensions (all, for none).
fn texts(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let wanted =
        |f: &PathBuf| extensions.is_empty() || extensions.iter().any(|e| f.extension().is_some_and(|x| x == *e));
    let read = |f: PathBuf| {
        let bytes = std::fs::read(root().join(&f)).expect("the file is there");
        String::from_utf8(bytes).ok().map(|text| (f, text))
    };
    files().into_iter().filter(wanted).filter_map(read).collect()
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn documents_name_what_exists() {
    let all = files();
    let folders: BTreeSet<&str> = all
        .iter()
        .filter_map(|f| f.components().next()?.as_os_str().to_str())
        .filter(|f| root().join(f).is_dir())
        .collect();
    let mut missing = vec![];
    let mut checked = 0;
    for (file, text) in texts(&["md"]) {
        let beside = file.parent().unwrap_or(Path::new(""));
        let mut check = |path: &str| {
            checked += 1;
            // A pattern has to match something.
            let exists = match path.split_once('*') {
                Some((before, after)) => all.iter().any(|f| {
                    let f = f.to_string_lossy();
                    f.starts_with(before) && f.ends_with(after)
                }),
                None => root().join(path).exists() || root().join(beside).join(path).exists(),
            };
            if !exists {
                missing.push(format!("{}: `{path}`", file.display()));
            }
        };
        // Code spans that begin with one of the repository's folders; outside of fenced blocks.
        let prose: String = text.split("```").step_by(2).collect();
        for span in prose.split('`').skip(1).step_by(2) {
            let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./*".contains(c));
            if plain && span.split_once('/').is_some_and(|(first, _)| folders.contains(first)) {
                check(span);
            }
        }
        // Links to files.
        for link in prose.split("](").skip(1).filter_map(|l| l.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                check(path);
            }
        }
    }
    none("documents name what does not exist", missing);
    assert!(checked > 10, "only {checked} paths were found in the documents");
}

#[test]
fn nothing_is_unfinished() {
    // Spelled in halves, so that this file does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["to", "do!"],
        ["unimple", "mented!"],
        ["XX", "X"],
    ]
    .map(|w| w.concat());
    let mut found = vec![];
    for (file, text) in texts(&["rs", "md", "toml", "rules", "ir", "c", "h", "py"]) {
        for (n, line) in text.lines().enumerate() {
            found.extend(
                words
                    .iter()
                    .filter(|w| line.contains(*w))
                    .map(|w| format!("{}:{}: {w}", file.display(), n + 1)),
            );
        }
    }
    none("unfinished", found);
}

#[test]
fn no_file_is_too_long() {
    let long = texts(&["rs"]).into_iter().filter_map(|(f, text)| {
        let n = text.lines().count();
        (n > MOST_LINES).then(|| format!("{}: {n} lines", f.display()))
    });
    none("longer than 800 lines", long.collect());
}

#[test]
fn no_machine_stands_in_a_file() {
    let homes = [
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["/Use", "rs/"],
        ["/tm", "p/"],
        ["/wo", "rk/"],
        ["C:", "\\"],
    ]
    .map(|w| w.concat());
    let mut found = vec![];
    for (file, text) in texts(&[]) {
        for (n, line) in text.lines().enumerate() {
            for home in &homes {
                // A path begins there; `a/home/b` is none.
                let starts =
                    |(at, _): (usize, &str)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.}".contains(c));
                // The one place where `perf` looks for names.
                let perf = |(at, _): &(usize, &str)| line[*at..].starts_with(&["/tm", "p/perf-"].concat());
                if line.match_indices(home.as_str()).filter(|m| !perf(m)).any(starts) {
                    found.push(format!("{}:{}: {home}", file.display(), n + 1));
                }
            }
        }
    }
    none("paths of a machine", found);
}

#[test]
fn unsafe_code_says_why() {
    let mut found = vec![];
    for (file, text) in texts(&["rs"]) {
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // Not in a text, as here.
            let keyword = code.split('"').next().unwrap_or_default();
            if !keyword.contains("unsafe {") && !keyword.contains("unsafe impl") {
                continue;
            }
            // The comment stands above the statement, which may be a few lines long; several lines may share it.
            let above = &lines[n.saturating_sub(12)..n];
            if !above.iter().any(|l| l.contains("SAFETY:")) {
                found.push(format!("{}:{}", file.display(), n + 1));
            }
        }
    }
    none("unsafe code without a SAFETY sentence", found);
}

#[test]
fn every_module_says_what_it_is() {
    // A file `tests.rs` is of the module beside it.
    let silent = texts(&["rs"])
        .into_iter()
        .filter(|(f, text)| !text.starts_with("//!") && !f.ends_with("tests.rs"));
    none(
        "without a header",
        silent.map(|(f, _)| f.display().to_string()).collect(),
    );
}

#[test]
fn licences() {
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let text = std::fs::read_to_string(root().join(file)).expect("the licence is there");
        assert!(text.len() > 500, "{file}");
    }
    for (file, text) in texts(&["toml"]) {
        let package = text.contains("[package]");
        // What is no member of the workspace says it itself.
        let named = ["license.workspace = true", "license = \"MIT OR Apache-2.0\""];
        assert!(
            !package || named.iter().any(|line| text.contains(line)),
            "{} names no licence",
            file.display()
        );
    }
}

#[test]
fn members_stand_in_the_code_map() {
    let map = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the code map is there");
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let members = workspace
        .split("members = [")
        .nth(1)
        .and_then(|m| m.split(']').next())
        .expect("a list of members");
    for member in members.split(',').map(|m| m.trim().trim_matches('"')) {
        assert!(
            map.contains(&format!("`{member}/`")),
            "docs/architecture.md does not name `{member}/`"
        );
    }
}

/// What a shipped program needs has none of the compiler in it.
#[test]
fn the_runtime_links_no_compiler() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let tree = Command::new(cargo)
        .args([
            "tree",
            "-p",
            "brolga-runtime",
            "--no-default-features",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs this test");
    let text = String::from_utf8_lossy(&tree.stdout);
    assert!(
        tree.status.success() && text.contains("brolga-abi"),
        "{text}{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    for name in text.lines().filter_map(|l| l.split(' ').next()) {
        let compiler =
            name.starts_with("cranelift") || ["brolga-ir", "egg", "iced-x86", "onnx-protobuf"].contains(&name);
        assert!(!compiler, "brolga-runtime depends on {name}:\n{text}");
    }
}

/// Every pass of the e-graph's rules over a graph of one operation, and over the small models: which rules were applied.
fn fired() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut add = |g: &Graph| {
        let limits = Limits {
            nodes: 20_000,
            iters: 20,
            rewrites: usize::MAX,
        };
        let (_, report) =
            eqsat::optimize(g, eqsat::embedded(), limits, &Target::x86_64_v3()).unwrap_or_else(|e| panic!("{e}"));
        out.extend(report.applied.into_iter().map(|(rule, _)| rule));
    };
    for def in ops::all() {
        for sample in def.samples() {
            let op = Op::new(def.name(), &sample.attrs).expect("samples are valid");
            if matches!(op.role(), Role::Host) {
                continue;
            }
            let mut g = Graph::new("sample");
            let inputs: Vec<_> = (0..)
                .zip(&sample.inputs)
                .map(|(i, (d, s))| g.input(&format!("x{i}"), Type::fixed(*d, s)))
                .collect();
            let outs = g.add(op, &inputs, &"node".into()).expect("samples are valid");
            g.outputs = outs
                .into_iter()
                .enumerate()
                .map(|(i, v)| (format!("y{i}"), v))
                .collect();
            add(&g);
        }
    }
    let home = data("small-models");
    for name in ["resnet", "bert", "swin", "generator", "llama", "detector", "convnext"] {
        let g = brolga::source::graph(&home.join(format!("{name}.onnx")), u64::MAX).unwrap_or_else(|e| panic!("{e}"));
        add(&g);
    }
    out
}

/// Operators say what they are themselves: passes match on roles and facts, never on a name.
/// The code of a file: without comments, tests, and the instances of operators that tests run.
fn code(text: &str) -> String {
    let mut out = vec![];
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let content = line.trim_start();
        if line == "#[cfg(test)]" && lines.peek() == Some(&"mod tests {") {
            break;
        }
        if content.contains("fn samples(") && line.ends_with('{') {
            let end = format!("{}}}", &line[..line.len() - content.len()]);
            lines.by_ref().find(|l| **l == *end);
        } else if !content.starts_with("//") {
            out.push(line.split(" // ").next().unwrap_or_default());
        }
    }
    out.join("\n")
}

/// True where a text has a word, in which hyphens count as letters.
fn has_word(text: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(letter) && !after.starts_with(letter)
    })
}

#[test]
fn changes_touch_what_the_architecture_says() {
    let (_, document) = texts(&["md"])
        .into_iter()
        .find(|(f, _)| f == Path::new("docs/architecture.md"))
        .expect("the document is there");
    let sources: Vec<(String, String)> = texts(&["rs", "rules"])
        .into_iter()
        .map(|(f, text)| (f.to_str().expect("names are UTF-8").to_owned(), text))
        .filter(|(f, _)| !f.ends_with("/tests.rs") && !f.contains("/tests/"))
        .map(|(f, text)| (f, code(&text)))
        .collect();
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut wrong = vec![];
    let mut rows = 0;
    let table = document.lines().skip_while(|l| !l.starts_with("| to add |")).skip(2);
    for row in table.take_while(|l| l.starts_with('|')) {
        rows += 1;
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [what, _, words, folders, files] = cells[..] else {
            panic!("a row of five cells: {row}");
        };
        let (words, folders) = (quoted(words), quoted(folders));
        let expected: BTreeSet<String> = quoted(files).into_iter().collect();
        let found: BTreeSet<String> = sources
            .iter()
            .filter(|(f, _)| folders.iter().any(|folder| f.starts_with(&format!("{folder}/"))))
            .filter(|(_, text)| words.iter().any(|w| has_word(text, w)))
            .map(|(f, _)| f.clone())
            .collect();
        if found != expected {
            wrong.push(format!("{}: {words:?} stands in {found:?}", what.trim()));
        }
    }
    assert_eq!(rows, 12, "kinds of changes in the table");
    none("the table of what one touches is not true", wrong);
}

#[test]
fn no_pass_matches_the_name_of_an_operator() {
    let names: BTreeSet<&str> = ops::all().iter().map(|d| d.name()).collect();
    let mut wrong = vec![];
    for (file, text) in texts(&["rs"]) {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        // The words of rules' text are read there.
        let words = file.ends_with("eqsat/rules/parse.rs");
        if !file.starts_with("passes/src") || file.ends_with("tests.rs") || words {
            continue;
        }
        let parts: Vec<&str> = code.split('"').collect();
        for (i, name) in parts.iter().enumerate().skip(1).step_by(2) {
            let (before, after) = (parts[i - 1].trim_end(), parts.get(i + 1).map_or("", |p| p.trim_start()));
            let compared = ["==", "!=", "name(),"].iter().any(|e| before.ends_with(e));
            let pattern = after.starts_with("=>") || after.starts_with('|') || before.ends_with('|');
            if names.contains(name) && (compared || pattern) {
                wrong.push(format!("{}: \"{name}\"", file.display()));
            }
        }
        if code.contains("match op.name()") || code.contains("&op.name())") {
            wrong.push(format!("{}: the name of an operator is matched", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every rule is checked alone on random instances (in `brolga-passes`); that it is of use beyond its own check shows here:
/// it is applied to a real model or to an operator's samples, or a file test makes sure that it is.
#[test]
fn every_rule_fires() {
    let fired = fired();
    let headers: Vec<String> = texts(&["ir"])
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|l| l.strip_prefix("// fires: "))
        .flat_map(|l| l.split(", ").map(str::to_owned))
        .collect();
    let rules = eqsat::embedded().rules.iter().map(|r| &r.name);
    let idle = rules.filter(|r| !fired.contains(*r) && !headers.contains(r));
    none(
        "rules that no model, no sample and no file test applies",
        idle.cloned().collect(),
    );
}

#[test]
fn rules_are_named_subject_law() {
    let mut seen = BTreeSet::new();
    for rule in &eqsat::embedded().rules {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        assert!(rule.name.chars().all(kebab), "`{}` is no kebab-case name", rule.name);
        assert!(seen.insert(&rule.name), "two rules are called `{}`", rule.name);
    }
}

/// Every name that rules may use is said, with what it takes.
#[test]
fn documents_list_what_rules_may_use() {
    let text = std::fs::read_to_string(root().join("docs/rules.md")).expect("the document is there");
    let takes = |sorts: &[eqsat::Sort]| sorts.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    let functions = eqsat::functions::FUNCTIONS.iter();
    let functions =
        functions.map(|f| format!("| `{}` | {} | {} | {} |", f.name, takes(f.takes), f.gives.name(), f.doc));
    let predicates = eqsat::functions::predicates().iter();
    let predicates = predicates.map(|p| format!("| `{}` | {} | {} |", p.name, takes(p.takes), p.doc));
    let rows = functions.chain(predicates);
    let missing: Vec<String> = rows.filter(|row| text.lines().all(|l| l != row)).collect();
    none("docs/rules.md lacks lines", missing);
}

/// What rules may do beyond rounding is said, rule by rule.
#[test]
fn documents_list_what_rules_may_do() {
    let text = std::fs::read_to_string(root().join("docs/rules.md")).expect("the document is there");
    for (name, allowance) in Allowance::ALL {
        let all = eqsat::embedded().rules.iter().filter(|r| r.allows.contains(&allowance));
        let rules: Vec<&str> = all.map(|r| r.name.as_str()).collect();
        let row = format!("| `{name}` | {} |", rules.join(", "));
        assert!(text.lines().any(|l| l == row), "docs/rules.md has no line\n{row}");
    }
}
