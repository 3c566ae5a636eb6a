//! Profiled models: the same code but for the entry, every step accounted for, traces and pages that hold together.

use brolga::ir::program::nested;
use brolga::ir::{Number, Tensor};
use brolga::profile::counters::Counters;
use brolga::profile::{Profile, Profiler, Runs, StepKind};
use brolga::{Options, Session, View, tensors};
use brolga_codegen::object::object;
use brolga_codegen::{Unit, compile_program};
use brolga_tests::root;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn digits() -> PathBuf {
    root().join("examples/digits/digits.onnx")
}

/// Doubles `x` until it is beyond `limit`, then takes one of two ways.
const REGIONS: &str = r#"graph @regions(%0 x: f32[n], %1 limit: f32[]) symbols(n) {
  %2 = const i64[] splat 0
  %3, %4 = while{cond=graph @below(%0 i: i64[], %1 x: f32[n], %2 limit: f32[]) symbols(n) {
      %3 = reduce{kind=max axes=[0]}(%1) : f32[1]
      %4 = reshape{shape=[]}(%3) : f32[]
      %5 = less(%4, %2) : bool[]
      return go = %5
    } body=graph @twice(%0 i: i64[], %1 x: f32[n], %2 limit: f32[]) symbols(n) {
      %3 = const i64[] splat 1
      %4 = add(%0, %3) : i64[]
      %5 = add(%1, %1) : f32[n]
      return i = %4, x = %5
    }}(%2, %0, %1) : i64[], f32[n] @"Loop_0"
  %5 = const i64[] splat 3
  %6 = less(%5, %3) : bool[] @"Less_1"
  %7 = if{then=graph @many(%0 x: f32[n]) symbols(n) {
      %1 = neg(%0) : f32[n]
      return y = %1
    } else=graph @few(%0 x: f32[n]) symbols(n) {
      return y = %0
    }}(%6, %4) : f32[n] @"If_2"
  return steps = %3, y = %7
}
"#;

fn options() -> Options {
    Options::default()
}

fn images(n: usize) -> Tensor {
    let number = |i: usize| Number::Float((i % 17) as f64 / 17.0);
    let mut at = 0;
    Tensor::from_fn(brolga::ir::DType::F32, &[n, 1, 8, 8], |_| {
        at += 1;
        number(at)
    })
}

fn profile(path: &Path, inputs: &[(&str, Tensor)], threads: usize, how: Runs) -> (Profile, Vec<Tensor>) {
    let profiler = Profiler::load(path, &options(), threads, false).unwrap_or_else(|e| panic!("{e}"));
    let views: Vec<(&str, View)> = inputs.iter().map(|(n, t)| (*n, tensors::view(t))).collect();
    let outputs = profiler.session().run_named(&views).unwrap_or_else(|e| panic!("{e}"));
    let profile = profiler.profile(&views, how).unwrap_or_else(|e| panic!("{e}"));
    (profile, outputs.iter().map(tensors::to_tensor).collect())
}

fn some(runs: usize) -> Runs {
    Runs {
        runs: Some(runs),
        counters: false,
    }
}

/// Hooks change the entry function and nothing else; code without them is what it is when nobody profiles.
#[test]
fn hooks_are_in_the_entry_only() {
    let compiled = brolga::compile_file(digits(), &options()).unwrap_or_else(|e| panic!("{e}"));
    let (program, offsets) = (&compiled.program, compiled.packed.offsets());
    let code = |hooked: bool| {
        let made = object(
            &compiled.target,
            &compiled.prefix,
            &program.symbols,
            None,
            |unit: &mut Unit| {
                unit.keep_listings();
                if hooked {
                    unit.call_around_steps(brolga_runtime::step_hook);
                }
                compile_program(unit, program, &|s| offsets.get(&s).copied())?;
                Ok(unit.take_listings())
            },
        );
        made.unwrap_or_else(|e| panic!("{e}"))
    };
    let (before, plain) = code(false);
    let (_, hooked) = code(true);
    let (after, _) = code(false);
    assert_eq!(before, after);
    assert_eq!(plain.len(), hooked.len());
    let entry = format!("{}_run", compiled.prefix);
    for (p, h) in plain.iter().zip(&hooked) {
        assert_eq!(p.name, h.name);
        if p.name != entry {
            assert_eq!(p, h);
            continue;
        }
        let calls = |text: &str| text.matches("call_indirect").count();
        assert_eq!(
            calls(&h.ir),
            calls(&p.ir) + 2 * nested(&program.steps).len(),
            "{}",
            h.ir
        );
    }
}

#[test]
fn every_step_is_accounted_for() {
    for threads in [1, 2] {
        let input = [("images", images(5))];
        let (p, outputs) = profile(&digits(), &input, threads, some(7));
        let session = Session::load(digits()).unwrap_or_else(|e| panic!("{e}"));
        let plain = session.run_named(&[("images", tensors::view(&input[0].1))]);
        let plain = plain.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outputs, plain.iter().map(tensors::to_tensor).collect::<Vec<_>>());

        assert_eq!((p.records.len(), p.threads), (7, threads as u32));
        assert_eq!(
            p.sizes.iter().map(|(s, n)| format!("{s}={n}")).collect::<Vec<_>>(),
            ["batch=5"]
        );
        let mut seen: Vec<u32> = p.rows.iter().flat_map(|r| r.steps.clone()).collect();
        seen.sort();
        assert_eq!(seen, (0..p.steps.len() as u32).collect::<Vec<_>>());
        assert!(p.steps.iter().all(|s| (s.calls - 1.0).abs() < 1e-9));
        let share: f64 = p.rows.iter().map(|r| r.share).sum();
        assert!(share > 0.0 && share <= 1.0, "{share}");
        assert!(p.rows.windows(2).all(|w| w[0].share >= w[1].share));
        for r in p.rows.iter().filter(|r| r.kind == StepKind::Kernel) {
            let work = r.work.unwrap_or_else(|| panic!("{}: no work", r.name));
            assert!(work.bytes() > 0.0, "{}", r.name);
            assert!(
                !r.schedules.is_empty() && r.schedules.iter().all(|s| s.contains('{')),
                "{r:?}"
            );
            assert!(!r.nodes.is_empty() && r.symbol.is_some(), "{r:?}");
            assert!(r.busy > 0.0 && r.busy <= threads as f64, "{r:?}");
            let roof = r.roof.unwrap_or_else(|| panic!("{}: no roof", r.name));
            assert!(roof.seconds > 0.0, "{r:?}");
            let t = r.call;
            assert!(
                t.min <= t.p10 && t.p10 <= t.median && t.median <= t.p90 && t.p90 <= t.max,
                "{t:?}"
            );
        }
        assert!(p.rows.iter().any(|r| r.work.is_some_and(|w| w.flops > 1e4)));
        let blocks = &p.arena.blocks;
        assert!(!blocks.is_empty() && p.arena.unknown == 0);
        assert!(
            blocks
                .iter()
                .all(|b| b.offset + b.bytes <= p.arena.bytes && b.first <= b.last)
        );
        for (i, a) in blocks.iter().enumerate() {
            for b in &blocks[i + 1..] {
                let times = a.first <= b.last && b.first <= a.last;
                let places = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
                assert!(!(times && places), "{a:?} {b:?}");
            }
        }
        nests(&p);
        explains(&p);
    }
}

/// Steps inside of loops and branches are counted as often as they run, and not in what is around them.
#[test]
fn blocks_are_counted_by_themselves() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("regions.txt");
    std::fs::write(&path, REGIONS).expect("a file is written");
    let input = [
        ("x", Tensor::from_f32(&[3], &[1.0, 0.5, -1.0])),
        ("limit", Tensor::from_f32(&[], &[5.0])),
    ];
    let (p, outputs) = profile(&path, &input, 1, some(3));
    assert_eq!(outputs[1], Tensor::from_f32(&[3], &[8.0, 4.0, -8.0]));
    let of = |kind: StepKind| p.steps.iter().enumerate().filter(move |(_, s)| s.kind == kind);
    let inside = |step: usize| p.steps.iter().filter(move |s| s.parent == Some(step as u32));
    let (at, _) = of(StepKind::While).next().expect("there is a loop");
    // Three times round.
    assert!(
        inside(at).count() > 0 && inside(at).all(|s| (s.calls - 3.0).abs() < 1e-9),
        "{:?}",
        p.steps
    );
    let (at, _) = of(StepKind::If).next().expect("there is a branch");
    let taken: Vec<f64> = inside(at).map(|s| s.calls).collect();
    assert!(taken.iter().all(|c| *c == 0.0 || (*c - 1.0).abs() < 1e-9), "{taken:?}");
    assert!(taken.contains(&0.0), "one arm is not taken: {taken:?}");
    let share: f64 = p.rows.iter().map(|r| r.share).sum();
    assert!(share <= 1.0, "{share}");
    nests(&p);
}

/// A trace has what its format asks for, and slices of a track nest.
fn nests(p: &Profile) {
    let trace = p.trace();
    let events = trace["traceEvents"].as_array().expect("there are events");
    let mut tracks: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let mut named = 0;
    for e in events {
        assert!(e["pid"].is_u64() && e["tid"].is_u64() && e["name"].is_string(), "{e}");
        match e["ph"].as_str() {
            Some("M") => named += usize::from(e["name"] == "thread_name"),
            Some("X") => {
                let number = |field: &str| e[field].as_f64().unwrap_or_else(|| panic!("no {field}: {e}"));
                assert!(e["cat"].is_string() && e["args"].is_object(), "{e}");
                let (begin, length) = (number("ts"), number("dur"));
                assert!(begin >= 0.0 && length >= 0.0, "{e}");
                let track = tracks.entry(e["tid"].as_u64().expect("it is one")).or_default();
                track.push((begin, begin + length));
            }
            _ => panic!("another kind of event: {e}"),
        }
    }
    assert_eq!(named, p.threads as usize);
    let steps: usize = p.records.iter().map(|r| 1 + r.steps.len()).sum();
    assert!(tracks[&0].len() >= steps);
    for (_, mut slices) in tracks {
        slices.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = vec![];
        for (begin, end) in slices {
            // Half a nanosecond, for what is lost when numbers are written in microseconds.
            open.retain(|e| *e > begin + 0.0005);
            assert!(open.iter().all(|e| end <= *e + 0.0005), "{begin} to {end} in {open:?}");
            open.push(end);
        }
    }
}

/// The text and the JSON name every kernel.
fn explains(p: &Profile) {
    let (text, json) = (p.text(true), p.json());
    let rows = json["kernels"].as_array().expect("there are rows");
    assert_eq!(rows.len(), p.rows.len());
    for (row, r) in rows.iter().zip(&p.rows) {
        assert!(text.contains(&r.name), "{}\n{text}", r.name);
        assert!(r.schedules.iter().all(|s| text.contains(s)), "{text}");
        assert_eq!(row["name"], Value::from(r.name.clone()));
        assert_eq!(row["calls"], Value::from(r.calls));
        for field in [
            "flops",
            "bytes_read",
            "share",
            "busy",
            "roof",
            "schedules",
            "nodes",
            "call",
        ] {
            assert!(row.get(field).is_some(), "no {field}: {row}");
        }
    }
    assert!(json["hook"].as_f64().is_some_and(|x| x > 0.0));
    let few = p.text(false);
    assert!(
        few.lines().all(|l| l.chars().count() < 260 && l.trim_end() == l),
        "{few}"
    );
}

#[test]
fn counters_are_read_or_refused() {
    let input = [("images", images(2))];
    let how = Runs {
        runs: Some(3),
        counters: true,
    };
    let (p, _) = profile(&digits(), &input, 2, how);
    let counted = p.counted.as_ref().expect("it was asked for");
    assert!(counted.names.len() + counted.refused.len() >= 3);
    assert!(counted.refused.iter().all(|(_, why)| !why.is_empty()));
    for r in &p.rows {
        let counts = r.counts.as_ref().map_or(0, Vec::len);
        assert_eq!(counts, counted.names.len(), "{r:?}");
    }
    let text = p.text(false);
    for (name, _) in &counted.refused {
        assert!(text.contains(&format!("no {name}: ")), "{text}");
    }
    for name in &counted.names {
        assert!(text.contains(name), "{text}");
    }
    drop(Counters::open());
}

#[test]
fn what_is_compiled_already_is_refused() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let path = dir.path().join("digits.brolga");
    let compiled = brolga::compile_file(digits(), &options()).unwrap_or_else(|e| panic!("{e}"));
    compiled.write_artefact(&path).unwrap_or_else(|e| panic!("{e}"));
    let e = Profiler::load(&path, &options(), 1, false)
        .err()
        .expect("it is refused");
    assert!(e.to_string().ends_with("profile the model that it was made of"), "{e}");
}
