//! Memory that is shared: outputs in the memory of inputs, and programs with the pass `bufferize` and without.

use brolga::levels::{self, Level, Module, Walk};
use brolga::output::WeightsIn;
use brolga::{Options, Session, View, ViewMut, compile, source, tensors};
use brolga_ir::loops::{self, LoopKind, Stmt};
use brolga_ir::program::{Program, Step, interp};
use brolga_ir::{Graph, Target, Tensor};
use brolga_passes::memory;
use brolga_tests::aot::{Harness, Kind, has};
use brolga_tests::random::Random;
use brolga_tests::{skip, small_model};

fn graph(text: &str) -> Graph {
    let g = Graph::parse(text, &|_| None).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    g.verify().unwrap_or_else(|e| panic!("{e}"));
    g
}

fn options(aliases: &[(&str, &str)]) -> Options {
    let named = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    Options {
        aliases: aliases.iter().map(named).collect(),
        verify: true,
        ..Options::default()
    }
}

/// A cache of 512 rows, one of which is replaced; what is read of it is read behind that.
const CACHE: &str = "graph @cache(%0 past: f32[512, 64], %1 at: i64[1, 1], %2 row: f32[1, 64]) {
  %3 = scatter_nd{reduction=none}(%0, %1, %2) @\"update\"
  %4 = reduce{kind=sum axes=[0]}(%3) @\"sum\"
  return sum = %4, present = %3
}";

fn inputs(step: i64, past: Tensor) -> Vec<Tensor> {
    let row: Vec<f32> = (0..64).map(|i| (i as f32 - 30.0) * 0.5 + step as f32).collect();
    let at = Tensor::new(
        brolga_ir::DType::I64,
        vec![1, 1],
        ((step * 37) % 512).to_le_bytes().to_vec(),
    );
    vec![past, at.expect("one number"), Tensor::from_f32(&[1, 64], &row)]
}

/// Iterations of all loops around statements that store, added up; many, where the extent of a loop is not known.
fn stores(stmts: &[Stmt]) -> i64 {
    const MANY: i64 = 1 << 20;
    stmts
        .iter()
        .map(|s| match s {
            Stmt::For { extent, body, kind, .. } => {
                let n = extent.as_const().unwrap_or(MANY);
                assert!(!matches!(kind, LoopKind::Block(_) | LoopKind::Thread(_)));
                n * stores(body)
            }
            Stmt::If { then, .. } => stores(then),
            Stmt::Store { .. } => 1,
            _ => 0,
        })
        .sum()
}

fn program(g: &Graph, options: &Options) -> Program {
    let walk = Walk::new(Module::Tensor(g.clone()), options).and_then(|w| w.down(Level::Program));
    match walk.unwrap_or_else(|e| panic!("{e}")).module {
        Module::Loops(p) => p,
        _ => unreachable!("it went down"),
    }
}

#[test]
fn one_row_of_a_cache_is_written() {
    let g = graph(CACHE);
    let p = program(&g, &options(&[("past", "present")]));
    let kernel = |s: &Step| match s {
        Step::Call { kernel, .. } => Some(p.kernels[*kernel as usize].clone()),
        _ => None,
    };
    assert!(p.copies_to_itself(&p.steps[0]), "{p}");
    let update: loops::Kernel = kernel(&p.steps[1]).expect("a call");
    assert_eq!(stores(&update.body), 64, "{update}");
    // Without the alias, all rows are copied.
    let p = program(&g, &options(&[]));
    let scatters = p.kernels.iter().filter(|k| k.name.starts_with("scatter"));
    let all: i64 = scatters.map(|k| stores(&k.body)).sum();
    assert!(p.aliases.is_empty() && all >= 64 + 512 * 64, "{all}");
}

#[test]
fn a_cache_is_updated_for_many_steps() {
    let g = graph(CACHE);
    let options = options(&[("past", "present")]);
    let p = program(&g, &options);
    let start = Tensor::from_fn(brolga_ir::DType::F32, &[512, 64], |i| {
        brolga_ir::Number::Float((i % 71) as f64 * 0.25)
    });
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let artefact = dir.path().join("cache.brolga");
    let c = compile(&g, &options).unwrap_or_else(|e| panic!("{e}"));
    c.write_artefact(&artefact).expect("an artefact is written");
    let sessions = [
        c.session_with(1, u64::MAX).expect("a session"),
        Session::options()
            .threads(2)
            .load(&artefact)
            .expect("the artefact is read"),
    ];
    assert_eq!(sessions[1].meta().aliases.len(), 1);
    let mut caches: Vec<Vec<f32>> = vec![start.to_f32s(); 2];
    let mut past = start;
    for step in 0..20 {
        let given = inputs(step, past.clone());
        let wanted = g.eval(&given).expect("the graph has a value");
        assert_eq!(interp::run(&p, &given).expect("it runs")[1], wanted[1], "step {step}");
        for (session, cache) in sessions.iter().zip(&mut caches) {
            // With memory of its own for the output, the input stays.
            let views: Vec<View> = given.iter().map(tensors::view).collect();
            let apart = session.run(&views).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(apart[1].bytes(), wanted[1].bytes(), "step {step}");
            let mut sum = [0.0f32; 64];
            let shapes = session.run_in_place(
                &views[1..],
                &mut [ViewMut::of(&mut sum, &[1, 64]), ViewMut::of(cache, &[512, 64])],
            );
            assert_eq!(shapes.unwrap_or_else(|e| panic!("{e}")), [vec![1, 64], vec![512, 64]]);
            assert_eq!(*cache, wanted[1].to_f32s(), "step {step}");
            assert_eq!(apart[0].as_slice::<f32>(), Some(&sum[..]), "step {step}");
        }
        past = wanted[1].clone();
    }
    let e = sessions[0]
        .run_in_place(
            &[],
            &mut [
                ViewMut::of(&mut [0.0f32; 64], &[1, 64]),
                ViewMut::of(&mut caches[0], &[512, 64]),
            ],
        )
        .expect_err("inputs are missing")
        .to_string();
    assert!(e.contains("at, row") || e.contains("`at`, `row`"), "{e}");
}

#[test]
fn a_cache_is_updated_from_c() {
    if !has("cc") {
        return skip("there is no C compiler `cc`");
    }
    let g = graph(CACHE);
    let c = compile(&g, &options(&[("past", "present")])).unwrap_or_else(|e| panic!("{e}"));
    let given = inputs(
        5,
        Tensor::splat(brolga_ir::DType::F32, &[512, 64], brolga_ir::Number::Float(1.5)),
    );
    let found = Harness::build(c, Kind::Object, WeightsIn::Object).run(&given, &[]);
    assert_eq!(found[1], g.eval(&given).expect("the graph has a value")[1]);
}

/// Forms of updates: each writes the output in the memory of the input, and agrees with the graph's own evaluation.
#[test]
fn forms_of_updates() {
    let forms = [
        // Two updates, one after the other.
        "graph @g(%0 x: f32[8, 4], %1 i: i64[1, 1], %2 u: f32[1, 4]) {
           %3 = scatter_nd{reduction=none}(%0, %1, %2)
           %4 = scatter_nd{reduction=add}(%3, %1, %2)
           return y = %4 }",
        "graph @g(%0 x: f32[8, 4], %1 i: i64[2, 4], %2 u: f32[2, 4]) {
           %3 = scatter_elements{axis=0 reduction=max}(%0, %1, %2)
           return y = %3 }",
        // A position by a comparison: every element is read and written, at its own place.
        "graph @g(%0 x: f32[8, 4], %1 c: bool[8, 1], %2 u: f32[1, 4]) {
           %3 = broadcast{shape=[8, 4]}(%1)
           %4 = broadcast{shape=[8, 4]}(%2)
           %5 = where(%3, %4, %0)
           return y = %5 }",
        // What stays is put together with what is new.
        "graph @g(%0 x: f32[8, 4], %1 u: f32[2, 4]) {
           %2 = slice{starts=[0, 0] sizes=[3, 4] steps=[1, 1]}(%0)
           %3 = slice{starts=[5, 0] sizes=[3, 4] steps=[1, 1]}(%0)
           %4 = concat{axis=0}(%2, %1, %3)
           return y = %4 }",
        "graph @g(%0 x: f32[8, 4], %1 u: f32[2, 4, 3]) {
           %2 = slice{starts=[0, 0] sizes=[3, 4] steps=[1, 1]}(%0)
           %3 = slice{starts=[5, 0] sizes=[3, 4] steps=[1, 1]}(%0)
           %4 = reduce{kind=max axes=[2]}(%1)
           %5 = reshape{shape=[2, 4]}(%4)
           %6 = concat{axis=0}(%2, %5, %3)
           return y = %6 }",
        // Nothing changes.
        "graph @g(%0 x: f32[8, 4], %1 u: f32[2, 4]) {
           %2 = relu(%1)
           return y = %0, z = %2 }",
    ];
    for (n, text) in forms.into_iter().enumerate() {
        let g = graph(text);
        let options = options(&[("x", "y")]);
        let given: Vec<Tensor> = (g.inputs.iter())
            .map(|i| {
                let shape = brolga_ir::dim::constants(&g.ty(i.value).shape).expect("known");
                Tensor::from_fn(g.ty(i.value).dtype, &shape, |k| match g.ty(i.value).dtype {
                    brolga_ir::DType::F32 => brolga_ir::Number::Float(k as f64 * 0.5 - 3.0),
                    d => brolga_ir::Number::Int(if d == brolga_ir::DType::Bool {
                        i128::from(k % 2 == 0)
                    } else {
                        3 + k as i128 / 4
                    }),
                })
            })
            .collect();
        let wanted = g.eval(&given).expect("the graph has a value");
        let p = program(&g, &options);
        assert_eq!(
            interp::run(&p, &given).unwrap_or_else(|e| panic!("{n}: {e}")),
            wanted,
            "{n}"
        );
        let session = compile(&g, &options)
            .and_then(|c| c.session())
            .unwrap_or_else(|e| panic!("{n}: {e}"));
        let views: Vec<View> = given.iter().map(tensors::view).collect();
        let apart = session.run(&views).unwrap_or_else(|e| panic!("{n}: {e}"));
        assert_eq!(apart[0].bytes(), wanted[0].bytes(), "{n}");
        let mut cache = given[0].to_f32s();
        let mut other = vec![0.0f32; wanted.get(1).map_or(0, Tensor::len)];
        let mut outputs = vec![ViewMut::of(&mut cache, &[8, 4])];
        if wanted.len() > 1 {
            outputs.push(ViewMut::of(&mut other, wanted[1].shape()));
        }
        session
            .run_in_place(&views[1..], &mut outputs)
            .unwrap_or_else(|e| panic!("{n}: {e}"));
        assert_eq!(cache, wanted[0].to_f32s(), "{n}");
        // No temporary holds a whole cache.
        let temps = p.arena.as_ref().and_then(|a| a.as_const());
        assert!(temps.is_some_and(|n| n < 8 * 4 * 4), "{n}: {p}");
    }
}

#[test]
fn what_cannot_share_memory_is_an_error() {
    let refused = |text: &str, alias: (&str, &str)| {
        let e = Walk::new(Module::Tensor(graph(text)), &options(&[alias]))
            .and_then(|w| w.down(Level::Program))
            .map(|w| w.module.to_string());
        e.expect_err("memory cannot be shared").to_string()
    };
    let e = refused(
        "graph @g(%0 x: f32[8, 4], %1 i: i64[1, 1], %2 u: f32[1, 4]) {
           %3 = scatter_nd{reduction=none}(%0, %1, %2) @\"update\"
           %4 = reduce{kind=sum axes=[1]}(%0) @\"late\"
           return y = %3, z = %4 }",
        ("x", "y"),
    );
    assert!(
        e.contains("node `late`: it reads input `x` when node `update` has written output `y`"),
        "{e}"
    );
    let e = refused(
        "graph @g(%0 x: f32[8, 8]) { %1 = transpose{perm=[1, 0]}(%0) @\"turn\" return y = %1 }",
        ("x", "y"),
    );
    assert!(
        e.contains("node `turn`: it writes output `y` while it reads input `x`"),
        "{e}"
    );
    let e = refused("graph @g(%0 x: f32[8]) { %1 = relu(%0) return y = %1 }", ("x", "z"));
    assert!(e.contains("there is no such output, expected one of `y`"), "{e}");
    let e = refused(
        "graph @g(%0 x: f32[8]) { %1 = cast{to=i32}(%0) return y = %1 }",
        ("x", "y"),
    );
    assert!(
        e.contains("found i32[8] for the output, expected the input's type, f32[8]"),
        "{e}"
    );
}

#[test]
fn a_gpu_updates_nothing_in_place() {
    let g = graph("graph @g(%0 x: f32[8]) { %1 = relu(%0) return y = %1 }");
    let gpu = Options {
        target: Target::sm_80(),
        ..options(&[("x", "y")])
    };
    let e = Walk::new(Module::Tensor(g), &gpu).and_then(|w| w.down(Level::Program));
    let e = e.map(|w| w.module.to_string()).expect_err("no alias").to_string();
    assert!(
        e.contains("outputs in the memory of inputs are for CPUs only; for a GPU, give no aliases"),
        "{e}"
    );
}

/// The program of a module that is lowered without the pass.
fn without(structured: &Module, options: &Options) -> Program {
    let plain = Options {
        pipeline: Some("schedule,plan-memory".into()),
        ..options.clone()
    };
    match Walk::new(structured.clone(), &plain)
        .unwrap_or_else(|e| panic!("{e}"))
        .module
    {
        Module::Loops(p) => p,
        _ => unreachable!("it was scheduled"),
    }
}

/// Real networks: memory falls, or rises a little where margins are laid out, and every bit stays.
#[test]
fn networks_agree_with_and_without() {
    let options = Options::default();
    for name in [
        "mlp",
        "tcn",
        "moe",
        "densenet",
        "inception",
        "vit",
        "bert",
        "efficientnet",
        "unet",
        "resnet",
    ] {
        let m = small_model(name);
        let g = source::graph(&m.path, u64::MAX).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (cut, _) = levels::optimise(&g, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let s = levels::structured(&cut, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let with = levels::program(&s, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let plain = without(&Module::Structured(s), &options);
        let bytes = |p: &Program| p.arena.as_ref().and_then(|a| a.as_const()).expect("a known size");
        assert!(
            bytes(&with) <= bytes(&plain) * 9 / 8,
            "{name}: {} bytes, {} without",
            bytes(&with),
            bytes(&plain)
        );
        // Margins are filled by kernels that read nothing.
        let fills = |s: &&Step| matches!(s, Step::Call { args, .. } if args.len() == 1);
        let steps = with.steps.len() - with.steps.iter().filter(fills).count();
        assert!(steps <= plain.steps.len(), "{name}");
        let given: Vec<Tensor> = g.inputs.iter().map(|i| m.inputs[&i.name].clone()).collect();
        let results = [&with, &plain].map(|p| interp::run(p, &given).unwrap_or_else(|e| panic!("{name}: {e}")));
        assert!(results[0] == results[1], "{name}: other bits in place");
    }
}

/// A graph of operators that share memory or must not, over matrices.
fn random_graph(r: &mut Random) -> String {
    const EXTENTS: [usize; 4] = [1, 3, 16, 20];
    let mut shapes: Vec<[usize; 2]> = vec![];
    let mut head = vec![];
    for i in 0..2 {
        let shape = [EXTENTS[1 + r.below(3)], EXTENTS[1 + r.below(3)]];
        head.push(format!("%{i} x{i}: f32[{}, {}]", shape[0], shape[1]));
        shapes.push(shape);
    }
    head.push("%2 i: i64[1, 1]".into());
    // No matrix: nothing picks it.
    shapes.push([0, 0]);
    let mut body = String::new();
    for n in 3..3 + 6 + r.below(8) {
        // Rather a recent value than an old one.
        let pick = |r: &mut Random, fits: &dyn Fn([usize; 2]) -> bool| {
            let all: Vec<usize> = (0..shapes.len())
                .filter(|&i| shapes[i][0] > 0 && fits(shapes[i]))
                .collect();
            let last = all.len().min(4);
            (last > 0).then(|| all[all.len() - 1 - r.below(last)])
        };
        let x = pick(r, &|_| true).expect("there are inputs");
        let [a, b] = shapes[x];
        let (text, shape) = match r.below(10) {
            0 => (format!("relu(%{x})"), [a, b]),
            1 => (format!("transpose{{perm=[1, 0]}}(%{x})"), [b, a]),
            2 => (format!("softmax{{axis=1 zeros=never}}(%{x})"), [a, b]),
            3 => {
                let y = pick(r, &|s| s == [a, b]).unwrap_or(x);
                (format!("add(%{x}, %{y})"), [a, b])
            }
            4 if a > 1 => {
                let text = format!("slice{{starts=[1, 0] sizes=[{}, {b}] steps=[1, 1]}}(%{x})", a - 1);
                (text, [a - 1, b])
            }
            5 if a + b < 200 => {
                let y = pick(r, &|s| s[0] == a && s[1] + b < 100).unwrap_or(x);
                (format!("concat{{axis=1}}(%{x}, %{y})"), [a, b + shapes[y][1]])
            }
            6 if a + b < 200 => {
                let y = pick(r, &|s| s[1] == b && s[0] + a < 100).unwrap_or(x);
                (format!("concat{{axis=0}}(%{y}, %{x})"), [a + shapes[y][0], b])
            }
            7 => match pick(r, &|s| s == [1, b]) {
                Some(u) => (format!("scatter_nd{{reduction=none}}(%{x}, %2, %{u})"), [a, b]),
                None => (
                    format!("slice{{starts=[0, 0] sizes=[1, {b}] steps=[1, 1]}}(%{x})"),
                    [1, b],
                ),
            },
            8 => match pick(r, &|s| s[0] == b) {
                Some(y) => {
                    let attrs = "lhs_batch=[] rhs_batch=[] lhs_contract=[1] rhs_contract=[0] acc=f32 out=f32";
                    (format!("contract{{{attrs}}}(%{x}, %{y})"), [a, shapes[y][1]])
                }
                None => (format!("neg(%{x})"), [a, b]),
            },
            9 if a + b < 200 => {
                let [low, high, left, right] = [0; 4].map(|_: usize| r.below(3));
                let text = format!("pad{{low=[{low}, {left}] high=[{high}, {right}] interior=[0, 0] fill=0.5}}(%{x})");
                (text, [a + low + high, b + left + right])
            }
            _ => (format!("mul(%{x}, %{x})"), [a, b]),
        };
        body += &format!("  %{n} = {text}\n");
        shapes.push(shape);
    }
    let last = shapes.len() - 1;
    let other = 3 + r.below(last - 2);
    format!(
        "graph @random({}) {{\n{body}  return y = %{last}, z = %{other}\n}}",
        head.join(", ")
    )
}

/// Random programs give the same bits with the pass and without, on the interpreter and compiled.
#[test]
fn random_programs_agree_with_and_without() {
    let mut r = Random(11);
    let mut moved = 0;
    for n in 0..150 {
        let text = random_graph(&mut r);
        let g = graph(&text);
        let options = Options {
            rules: Some(
                if n % 3 == 0 { "all" } else { "none" }
                    .parse()
                    .expect("these rules are embedded"),
            ),
            verify: true,
            ..Options::default()
        };
        let (cut, _) = levels::optimise(&g, &options).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        let options = Options { rules: None, ..options };
        let s = levels::structured(&cut, &options).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        let with = levels::program(&s, &options).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        let alone = Options {
            pipeline: Some("bufferize".into()),
            ..options.clone()
        };
        let needs = |m: &Module| match m {
            Module::Structured(s) => memory::needs(s)[0],
            _ => unreachable!("it was not scheduled"),
        };
        let s = Module::Structured(s);
        let placed = Walk::new(s.clone(), &alone)
            .unwrap_or_else(|e| panic!("{e} in\n{text}"))
            .module;
        let [before, after] = [needs(&s), needs(&placed)];
        assert!(after <= before + before / 8, "{after} bytes, {before} without:\n{text}");
        moved += usize::from(after < before);
        let plain = without(&s, &options);
        let given: Vec<Tensor> = (g.inputs.iter())
            .map(|i| {
                let shape = brolga_ir::dim::constants(&g.ty(i.value).shape).expect("known");
                Tensor::from_fn(g.ty(i.value).dtype, &shape, |_| match g.ty(i.value).dtype {
                    brolga_ir::DType::F32 => brolga_ir::Number::Float(r.below(2000) as f64 / 1000.0 - 1.0),
                    _ => brolga_ir::Number::Int(0),
                })
            })
            .collect();
        let [a, b] = [&with, &plain].map(|p| interp::run(p, &given).unwrap_or_else(|e| panic!("{e} in\n{text}\n{p}")));
        assert!(a == b, "other bits in place:\n{text}\n{with}");
        let views: Vec<View> = given.iter().map(tensors::view).collect();
        let session =
            brolga::compile::compile_module(Module::Loops(with), &options).and_then(|c| c.session_with(2, u64::MAX));
        let found = session
            .and_then(|s| s.run(&views))
            .unwrap_or_else(|e| panic!("{e} in\n{text}"));
        for (f, w) in found.iter().zip(&b) {
            assert_eq!(f.bytes(), w.bytes(), "machine code differs:\n{text}");
        }
    }
    assert!(moved > 50, "only {moved} programs take less memory");
}
