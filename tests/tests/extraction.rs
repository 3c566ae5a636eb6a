//! The e-graph's choice: near the exact optimum on random e-graphs and on pieces of real models, never dearer than the
//! program that was imported, and no product computed twice.

use brolga::{Options, levels, source};
use brolga_ir::{Attr, Build, DType, Def, Graph, GraphBuilder, Target, Type, Value};
use brolga_passes::eqsat::account::account;
use brolga_passes::eqsat::bound::lower_bound;
use brolga_passes::eqsat::exact::exact;
use brolga_passes::eqsat::lang::Term;
use brolga_passes::eqsat::saturate::Limits;
use brolga_passes::eqsat::search::{LEAST, Search};
use brolga_passes::eqsat::{self, Choices, Extract, Plan, build, extract};
use brolga_tests::optimum::{Outcome, cheaper};
use brolga_tests::{SMALL_MODELS, data, small_model};
use std::path::Path;

/// How far above the exact optimum a program may be.
const GAP: f64 = 1.02;

/// Multiply-adds over those of the program as it was imported: recomputing something small to save bytes is allowed.
const WORK: f64 = 1.03;

/// Numbers that look random and are the same everywhere (Marsaglia's xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// A random operator on values of one square type.
fn operator(b: &mut GraphBuilder, d: &mut Draw, values: &[Value]) -> Value {
    let x = values[d.below(values.len())];
    let y = values[d.below(values.len())];
    let f = Attr::DType(DType::F32);
    let none = || Attr::ints(&[]);
    let made = match d.below(8) {
        0 | 1 => {
            let attrs = [none(), none(), Attr::ints(&[1]), Attr::ints(&[0]), f.clone(), f];
            b.call("contract", &attrs, &[x, y])
        }
        2 => b.call("exp", &[], &[x]),
        3 => b.call("relu", &[], &[x]),
        4 => b.call("softmax", &[Attr::Int(1), Attr::word("never")], &[x]),
        5 => b.call("transpose", &[Attr::ints(&[1, 0])], &[x]),
        _ => b.call("add", &[], &[x, y]),
    };
    made.expect("the types fit")
}

/// A graph of a few operators, and its e-graph, in which some of them are declared equal whatever they mean: with sharing
/// and with cycles.
fn random_choices(seed: u64) -> (Graph, Choices) {
    let mut d = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let n = [16, 64, 256, 1024][d.below(4)];
    let mut g = Graph::new("random");
    let mut values = vec![
        g.input("x", Type::fixed(DType::F32, &[n, n])),
        g.input("w", Type::fixed(DType::F32, &[n, n])),
    ];
    let mut b = GraphBuilder {
        graph: &mut g,
        origin: "n".into(),
    };
    for _ in 0..5 + d.below(5) {
        let v = operator(&mut b, &mut d, &values);
        values.push(v);
    }
    g.outputs.push(("y".into(), values[values.len() - 1]));
    g.outputs.push(("z".into(), values[values.len() - 2]));
    let mut built = build::build(&g).expect("it is valid");
    for _ in 0..2 + d.below(3) {
        let a = 2 + d.below(values.len() - 2);
        let c = 2 + d.below(values.len() - 2);
        let (a, c) = (built.tensors[values[a].0 as usize], built.tensors[values[c].0 as usize]);
        built.eg.union(a, c);
    }
    build::rebuild(&mut built.eg);
    // Streams of equal tensors are equal, and what is stored and loaded is what it was.
    let fuse = eqsat::rules::RuleSet::parse("fuse", "rule fuse [exact] (load (store ?s)) => ?s").expect("it is a rule");
    eqsat::saturate::saturate(
        &mut built.eg,
        &fuse,
        Limits {
            iters: 20,
            nodes: 4000,
            rewrites: usize::MAX,
        },
    )
    .expect("it is sound");
    let choices = Choices::new(built, &[], &Target::x86_64_v4()).expect("it is well sorted");
    (g, choices)
}

/// Those graphs, and each with classes that stand for several layers: what cannot be computed without `w`.
fn random_layers() -> impl Iterator<Item = (String, Graph, Choices)> {
    (0..400).flat_map(|seed| {
        let (g, choices) = random_choices(seed);
        let (h, mut layered) = random_choices(seed);
        layered.classes.times = times(&layered);
        [
            (format!("seed {seed}"), g, choices),
            (format!("seed {seed} in layers"), h, layered),
        ]
    })
}

/// How often classes are computed where `w` is another one in each layer.
fn times(choices: &Choices) -> Vec<f64> {
    const LAYERS: f64 = 6.0;
    let cs = &choices.classes;
    let mut times = vec![LAYERS; cs.ids.len()];
    loop {
        let before = times.clone();
        for (c, all) in cs.choices.iter().enumerate() {
            let of = |choice: &extract::Choice| {
                let own = if choice.term == Term::Input(1) { LAYERS } else { 1.0 };
                choice.distinct.iter().map(|&o| times[o]).fold(own, f64::max)
            };
            times[c] = all.iter().map(of).fold(times[c], f64::min);
        }
        if times == before {
            return times;
        }
    }
}

/// How the program found compares with the exact optimum.
fn compare(what: &str, choices: &Choices, steps: usize) -> Outcome {
    let settling = extract::settle(&choices.classes, &|_, _| true);
    let plan = choices.best().unwrap_or_else(|e| panic!("{what}: {e}"));
    let cost = Search::new(&choices.classes, &settling, &plan, &choices.roots).cost();
    assert!(cost.is_finite(), "{what}: a kernel is not legal");
    cheaper(&choices.classes, &settling, &choices.roots, cost / GAP, steps)
}

/// Fails when a program is not near the optimum; gives how many were proven to be.
fn near_the_optimum(all: impl Iterator<Item = (String, Choices)>, steps: usize) -> (usize, usize) {
    let (mut proven, mut unknown, mut bad) = (0, 0, vec![]);
    for (what, choices) in all {
        match compare(&what, &choices, steps) {
            Outcome::Optimal => proven += 1,
            Outcome::Unknown => unknown += 1,
            Outcome::Cheaper(seconds) => bad.push(format!("{what}: there is a program of {seconds:e} s")),
        }
    }
    assert!(
        bad.is_empty(),
        "{} of {}:\n{}",
        bad.len(),
        bad.len() + proven + unknown,
        bad.join("\n")
    );
    (proven, unknown)
}

#[test]
fn random_e_graphs_are_extracted_near_the_optimum() {
    let all = (0..400).map(|seed| (format!("seed {seed}"), random_choices(seed).1));
    let (proven, unknown) = near_the_optimum(all, 20_000);
    assert!(proven > 300, "{proven} proven, {unknown} not told");
}

/// The nodes `from..to` of a graph as a graph of their own.
fn piece(g: &Graph, from: usize, to: usize) -> Graph {
    let mut out = Graph::new("piece");
    out.symbols.clone_from(&g.symbols);
    let mut map: Vec<Option<Value>> = vec![None; g.values.len()];
    for node in &g.nodes[from..to] {
        for &v in &node.inputs {
            if map[v.0 as usize].is_none() {
                map[v.0 as usize] = Some(match g.def(v) {
                    Def::Const(c) => out.constant(g.constants[c as usize].clone()),
                    _ => out.input(&format!("v{}", v.0), g.ty(v).clone()),
                });
            }
        }
        let inputs: Vec<Value> = node
            .inputs
            .iter()
            .map(|v| map[v.0 as usize].expect("made before"))
            .collect();
        let outputs = out.add(node.op.clone(), &inputs, &node.origin).expect("it was valid");
        for (&o, v) in node.outputs.iter().zip(outputs) {
            map[o.0 as usize] = Some(v);
        }
    }
    let read = |v: Value| {
        let later = g.nodes[to..].iter().any(|n| n.inputs.contains(&v));
        later || g.outputs.iter().any(|(_, o)| *o == v)
    };
    for node in &g.nodes[from..to] {
        for &o in node.outputs.iter().filter(|&&o| read(o)) {
            out.outputs
                .push((format!("v{}", o.0), map[o.0 as usize].expect("made above")));
        }
    }
    out
}

/// Every eleventh piece of five nodes of the small models, and what the rules make of it.
fn pieces() -> impl Iterator<Item = (String, Graph, Choices)> {
    const NODES: usize = 5;
    const APART: usize = 11;
    let mut pieces = vec![];
    for name in SMALL_MODELS {
        let options = Options {
            pipeline: Some("canonicalize".into()),
            ..Options::default()
        };
        let g = source::graph(&small_model(name).path, options.memory_limit).expect("it is imported");
        let (g, _) = levels::optimise(&g, &options).expect("it is valid");
        for from in (0..g.nodes.len().saturating_sub(NODES)).step_by(APART) {
            let piece = piece(&g, from, from + NODES);
            if !piece.outputs.is_empty() {
                pieces.push((format!("{name} from {from}"), piece));
            }
        }
    }
    let limits = Limits {
        iters: 10,
        nodes: 600,
        rewrites: usize::MAX,
    };
    pieces.into_iter().map(move |(what, g)| {
        let choices = Choices::saturated(&g, eqsat::usual(), limits, &Target::x86_64_v4());
        let choices = choices.unwrap_or_else(|e| panic!("{what}: {e}")).0;
        (what, g, choices)
    })
}

#[test]
fn pieces_of_models_are_extracted_near_the_optimum() {
    let (proven, unknown) = near_the_optimum(pieces().map(|(what, _, choices)| (what, choices)), 30_000);
    assert!(proven > 100 && proven > unknown, "{proven} proven, {unknown} not told");
}

/// The account of a program is what the search took it to cost, but for what is computed when the model is compiled.
#[test]
fn accounts_agree_with_the_search() {
    let random = (0..400).map(|seed| {
        let (g, choices) = random_choices(seed);
        (format!("seed {seed}"), g, choices)
    });
    let (mut compared, mut bad) = (0, vec![]);
    for (what, g, choices) in random.chain(pieces()) {
        let cs = &choices.classes;
        let plan = choices.best().unwrap_or_else(|e| panic!("{what}: {e}"));
        if (0..cs.ids.len()).any(|c| plan.stored[c] && cs.constant[c]) {
            continue;
        }
        let settling = extract::settle(cs, &|_, _| true);
        let searched = Search::new(cs, &settling, &plan, &choices.roots).cost();
        let cut = choices.emit(&g, &plan).unwrap_or_else(|e| panic!("{what}: {e}"));
        let accounted = account(&cut, &Target::x86_64_v4()).seconds;
        if (accounted - searched).abs() > 1e-9 * searched {
            bad.push(format!("{what}: {accounted:e} s accounted, {searched:e} s searched"));
        }
        compared += 1;
    }
    assert!(bad.is_empty(), "{} of {compared}:\n{}", bad.len(), bad.join("\n"));
    assert!(compared > 450, "{compared} compared");
}

/// What is wrong with a model's program, if it costs more than it did as imported.
fn dearer(path: &Path) -> Option<String> {
    let options = |rules: Option<&str>| Options {
        rules: rules.map(|r| r.parse().expect("these rules are embedded")),
        verify: false,
        target: Target::x86_64_v4(),
        ..Options::default()
    };
    let graph = source::graph(path, Options::default().memory_limit).ok()?;
    let cut = |rules| {
        levels::optimise(&graph, &options(rules))
            .ok()
            .map(|(g, _)| account(&g, &Target::x86_64_v4()))
    };
    let (none, all) = (cut(Some("none"))?, cut(None)?);
    if all.multiply_adds > none.multiply_adds * WORK {
        return Some(format!(
            "{} times the multiply-adds",
            all.multiply_adds / none.multiply_adds
        ));
    }
    if all.seconds > none.seconds * 1.0001 + 1e-9 {
        return Some(format!(
            "predicted {} s, {} s as it was imported",
            all.seconds, none.seconds
        ));
    }
    (all.reduced > none.reduced * WORK && all.reduced > none.reduced + 1e4)
        .then(|| format!("{} times the reduced elements", all.reduced / none.reduced))
}

#[test]
fn no_small_model_is_dearer_than_it_was() {
    let bad: Vec<String> = SMALL_MODELS
        .iter()
        .filter_map(|name| dearer(&small_model(name).path).map(|e| format!("{name}: {e}")))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Cases in which scores of attention are a result too: to compute them again takes less than the kernels that it spares.
const AGAIN: [&str; 2] = [
    "test_attention_4d_with_qk_matmul",
    "test_attention_4d_with_qk_matmul_expanded",
];

#[test]
fn no_case_is_dearer_than_it_was() {
    let home = data("onnx-node");
    let mut cases = vec![];
    for folder in ["node", "simple"] {
        let dir = std::fs::read_dir(home.join(folder)).expect("it was unpacked");
        cases.extend(dir.flatten().map(|c| c.path().join("model.onnx")));
    }
    let reported = std::fs::read_dir(data("reported-cases").join("reported-cases")).expect("it was unpacked");
    cases.extend(reported.flatten().map(|c| c.path().join("model.onnx")));
    cases.sort();
    assert!(cases.len() > 2000, "{} cases", cases.len());
    let name = |path: &Path| {
        path.parent()
            .and_then(|p| p.file_name())
            .map(|n| n.to_string_lossy().into_owned())
    };
    let bad: Vec<(String, String)> = cases
        .iter()
        .filter_map(|path| Some((name(path)?, dearer(path)?)))
        .filter(|(case, _)| !AGAIN.contains(&&**case))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// What greedy, search, exact and the lower bound make of an e-graph, in seconds, and whether exact has proven its own.
struct Compared {
    greedy: f64,
    search: f64,
    exact: f64,
    bound: f64,
    proven: bool,
}

/// All ways to choose a program, each emitted, which fails for one with a cycle or a kernel that is not legal.
fn compared(what: &str, g: &Graph, choices: &Choices) -> Compared {
    let cs = &choices.classes;
    let settling = extract::settle(cs, &|_, _| true);
    let cost = |plan: &Plan| {
        choices.emit(g, plan).unwrap_or_else(|e| panic!("{what}: {e}"));
        Search::new(cs, &settling, plan, &choices.roots).cost()
    };
    let of = |how| {
        let (plan, seconds) = choices.chosen(how).unwrap_or_else(|e| panic!("{what}: {e}"));
        let again = cost(&plan);
        assert!(
            (again - seconds).abs() <= 1e-9 * seconds,
            "{what}: {seconds:e} s, then {again:e} s"
        );
        seconds
    };
    let plan = choices.best().unwrap_or_else(|e| panic!("{what}: {e}"));
    let run = || exact(cs, &settling, &plan, &choices.roots, 3000);
    let (found, again) = (run(), run());
    assert!(
        found.plan.choice == again.plan.choice
            && found.plan.stored == again.plan.stored
            && found.looked_at == again.looked_at,
        "{what}: not the same twice"
    );
    let added = cost(&found.plan);
    assert!(
        (added - found.seconds).abs() <= 1e-9 * added,
        "{what}: {added:e} s, not {:e}",
        found.seconds
    );
    Compared {
        greedy: of(Extract::Greedy),
        search: of(Extract::Search),
        exact: added,
        bound: lower_bound(cs, &settling, &plan, &choices.roots).expect("it is small"),
        proven: found.proven,
    }
}

/// With cycles, too: bound ≤ exact ≤ search ≤ greedy, and exact as cheap as the other branch and bound finds programs to be.
#[test]
fn bounds_and_programs_are_in_order() {
    let (mut all, mut proven, mut near, mut improved, mut bad) = (0, 0, 0, 0, vec![]);
    for (what, g, choices) in random_layers().chain(pieces()) {
        let c = compared(&what, &g, &choices);
        let above = |a: f64, b: f64| a > b * (1.0 + 1e-9) + 1e-15;
        if above(c.bound, c.exact) || above(c.exact, c.search) || above(c.search, c.greedy) || !c.greedy.is_finite() {
            let Compared {
                greedy,
                search,
                exact,
                bound,
                ..
            } = c;
            bad.push(format!(
                "{what}: bound {bound:e}, exact {exact:e}, search {search:e}, greedy {greedy:e}"
            ));
        }
        if c.proven {
            let settling = extract::settle(&choices.classes, &|_, _| true);
            let other = cheaper(
                &choices.classes,
                &settling,
                &choices.roots,
                c.exact - 2.0 * LEAST,
                5_000,
            );
            if let Outcome::Cheaper(seconds) = other {
                bad.push(format!(
                    "{what}: {:e} s proven, but there is a program of {seconds:e} s",
                    c.exact
                ));
            }
        }
        all += 1;
        proven += c.proven as usize;
        near += (c.exact <= c.bound * 1.2 + 1e-12) as usize;
        improved += (c.exact < c.search - LEAST) as usize;
    }
    println!(
        "{all} e-graphs: {proven} proven, {near} within 20 % of the bound, {improved} improved by branch and bound"
    );
    assert!(bad.is_empty(), "{} of {all}:\n{}", bad.len(), bad.join("\n"));
    assert!(
        proven > all / 2 && near > all / 2,
        "{proven} proven, {near} near of {all}"
    );
}
