//! The page of an e-graph in a real browser, at a desk's width and at a tablet's, in light and in dark.

use brolga::egraph::View;
use brolga::explain::Explained;
use brolga::{Options, levels, source};
use brolga_ir::Graph;
use brolga_tests::browser::{Browser, Window};
use brolga_tests::{root, skip, small_model};
use serde_json::{Value, json};
use std::path::Path;

/// Uses the page, and notes what it is like.
const USE: &str = r#"
  const $ = (id) => document.getElementById(id);
  const cells = (row) => [...row.cells].map((c) => c.textContent);
  const rows = (id) => [...$(id).tBodies[0].rows].map(cells);
  const lookAt = (when) => look(when, '.scroll, #hits, #found',
    [all('#growth svg text'), all('header > *'), all('main > section:not(#search)'), all('dl').flatMap((d) => [...d.children]),
      all('.tools > *'), all('.legend > li'), all('#hits > *'), all('#found > *'),
      ...['rules', 'kernels', 'choices', 'open'].map((id) => [...$(id).tBodies[0].rows].flatMap((r) => [...r.cells]))]);
  // Boxes lie apart, and each text within its own.
  const boxes = () => {
    const frames = all('#picture .frame').map((f) => f.getBBox());
    frames.forEach((a, i) => frames.slice(i + 1).forEach((b) => {
      if (a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height)
        found.overlaps.push(`boxes at ${a.x}, ${a.y} and ${b.x}, ${b.y}`);
    }));
    for (const g of all('#picture .box')) {
      const frame = g.querySelector('.frame').getBBox();
      for (const t of g.querySelectorAll('text')) {
        const b = t.getBBox();
        if (b.x < frame.x || b.x + b.width > frame.x + frame.width + 1 || b.y + b.height > frame.y + frame.height + 1)
          found.overflows.push(`the text ${t.textContent} leaves its box`);
      }
    }
    return frames.length;
  };
  const view = () => all('#picture svg')[0].getAttribute('viewBox');
  const state = () => ({
    title: $('h-detail').textContent,
    id: +all('#numbers dd')[0].textContent,
    inPicture: all('#picture .box.chosen').map((b) => +b.dataset.class),
    choices: rows('choices'),
    taken: all('#choices tr.is-chosen').map((r) => cells(r)[0]),
    boxes: boxes(),
  });
  const press = (e, key) => e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
  lookAt('first');
  found.first = state();
  found.rounds = rows('rounds');
  found.curves = all('#growth polyline').map((p) => p.getAttribute('points').split(' ').length);

  // A node of the model, by a part of its name; an operator; a rule; nothing.
  found.searches = SEARCHES.map((text) => {
    $('query').value = text;
    $('query').dispatchEvent(new Event('input'));
    const hits = all('#hits .chip').map((c) => c.textContent);
    lookAt(`hits of ${text}`);
    if (hits.length) press($('query'), 'Enter');
    const at = { text, hits, chips: all('#found .chip').length, pressed: all('#found .chip[aria-pressed="true"]').length, ...state() };
    lookAt(`found ${text}`);
    return at;
  });

  // Kernels by the keyboard, and the steps that the picture goes.
  found.kernels = all('#kernels tbody tr').map((row) => {
    press(row, 'Enter');
    return { cells: cells(row), rules: all('#kernel li').length, selected: all('#kernels tr[aria-selected="true"]').length, ...state() };
  });
  $('only').click();
  found.only = { boxes: boxes(), taken: all('#picture .row').length };
  $('only').click();

  const svg = all('#picture svg')[0];
  const r = svg.getBoundingClientRect();
  const wheel = (more) => new WheelEvent('wheel', { deltaY: -100, clientX: r.left + 50, clientY: r.top + 50, cancelable: true, bubbles: true, ...more });
  const zooms = [['begin', () => {}], ['plain wheel', () => svg.dispatchEvent(wheel({}))], ['whole', () => $('whole').click()],
    ['closer', () => $('closer').click()], ['wheel', () => svg.dispatchEvent(wheel({ ctrlKey: true }))],
    ['key', () => press(svg, '-')], ['arrow', () => press(svg, 'ArrowLeft')], ['wider', () => $('wider').click()], ['again', () => $('whole').click()]];
  found.zooms = zooms.map(([name, act]) => {
    act();
    return [name, ...view().split(' ').map(Number)];
  });

  // Rules by the time that they took.
  const byTime = all('#rules th button').find((b) => b.textContent === 'time');
  byTime.click();
  found.rules = rows('rules').map((r) => r[0]);
  found.sorted = all('#rules th[aria-sort]').map((h) => [h.textContent, h.getAttribute('aria-sort')]);
  $('idle').click();
  found.idle = rows('rules').length + (+all('#rules + .more')[0]?.textContent.match(/\d+/)[0] || 0);
  $('idle').click();
  const rule = all('#rules tbody tr')[0];
  rule.click();
  found.rule = { name: cells(rule)[0], note: $('found').textContent, chips: all('#found .chip').length };

  found.open = rows('open');
  all('#open tbody tr')[0]?.click();
  found.opened = state();
  lookAt('last');
  $('query').value = '';
  scrollTo(0, 0);
"#;

/// The graph of a model and the options behind it.
fn imported(path: &Path) -> (Graph, Options) {
    let options = Options::default();
    let graph = source::graph_for(path, &options).unwrap_or_else(|e| panic!("{e}"));
    (graph, options)
}

fn numbers(row: &Value) -> Vec<usize> {
    let cells = row.as_array().expect("a row has cells");
    cells[1..4]
        .iter()
        .map(|c| c.as_str().and_then(|s| s.parse().ok()).expect("a number"))
        .collect()
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|s| s.as_str().expect("a text")).collect()
}

/// What a page of a model has to hold, whatever the window is.
fn check(place: &str, found: &Value, data: &Value, sizes: &[[usize; 3]]) {
    let rounds: Vec<Vec<usize>> = found["rounds"].as_array().expect("rows").iter().map(numbers).collect();
    assert_eq!(rounds, sizes, "{place}");
    assert_eq!(found["curves"], json!([sizes.len(), sizes.len()]), "{place}");

    let class_of = |state: &Value| {
        let at = state["inPicture"].as_array().expect("it has a picture");
        assert_eq!(at.len(), 1, "{place}: {state}");
        let class = &data["classes"][at[0].as_u64().expect("a position") as usize];
        assert_eq!(class["id"], state["id"], "{place}: {state}");
        assert!(state["boxes"].as_u64() >= Some(1), "{place}: {state}");
        // Every e-node is listed, up to the number of rows that are shown at first.
        let listed = state["choices"].as_array().map_or(0, Vec::len);
        let all = class["enodes"].as_array().map_or(0, Vec::len);
        assert!(listed >= all.min(20), "{place}: {state}");
        class
    };
    class_of(&found["first"]);

    for search in found["searches"].as_array().expect("it was searched") {
        let text = search["text"].as_str().expect("a text");
        if text == "no such thing" {
            assert_eq!(search["hits"], json!([]), "{place}");
            continue;
        }
        let hits = strings(&search["hits"]);
        assert!(
            hits[0].to_lowercase().contains(&text.to_lowercase()),
            "{place}: {search}"
        );
        assert!(search["chips"].as_u64() >= Some(1), "{place}: {search}");
        assert_eq!(search["pressed"], 1, "{place}: {search}");
        let class = class_of(search);
        if let Some(name) = hits[0].strip_prefix("node") {
            let of = class["nodes"].as_array().expect("it came from nodes").iter();
            let mut of = of.map(|n| &data["nodes"][n.as_u64().expect("a position") as usize]);
            assert!(of.any(|n| n == name), "{place}: {search}");
        }
    }

    let kernels = found["kernels"].as_array().expect("kernels were chosen");
    assert!(!kernels.is_empty(), "{place}");
    for k in kernels {
        assert_eq!(k["selected"], 1, "{place}: {k}");
        assert!(k["rules"].as_u64() >= Some(1), "{place}: {k}");
        let class = class_of(k);
        let taken = strings(&k["taken"]);
        let op = class["enodes"][class["chosen"].as_u64().expect("it is computed") as usize]["op"].as_str();
        assert!(taken[0].starts_with(op.expect("it has an operator")), "{place}: {k}");
        // What could be decided otherwise is there with what it costs, the cheapest first.
        let priced = class["open"].as_array().into_iter().flatten();
        let priced = priced.filter(|o| o["seconds"].is_number()).count();
        let shown = k["choices"].as_array().expect("rows").iter().map(|r| strings(r)[3]);
        let shown: Vec<&str> = shown
            .filter(|t| t.starts_with(['+', '−']) || *t == "the same")
            .collect();
        assert!(shown.len() >= priced.min(15), "{place}: {k}");
    }
    let only = &found["only"];
    assert!(only["boxes"].as_u64() >= only["taken"].as_u64(), "{place}: {only}");

    let zooms = found["zooms"].as_array().expect("it was zoomed");
    let box_of = |name: &str| {
        let found = zooms.iter().find(|z| z[0] == name);
        let found = found.and_then(Value::as_array).expect("it was taken");
        [1, 2, 3, 4].map(|i| found[i].as_f64().expect("a number"))
    };
    assert_eq!(box_of("begin"), box_of("plain wheel"), "{place}");
    assert_eq!(box_of("whole"), box_of("again"), "{place}");
    for (wider, closer) in [
        ("whole", "closer"),
        ("closer", "wheel"),
        ("key", "wheel"),
        ("wider", "arrow"),
    ] {
        assert!(box_of(closer)[2] < box_of(wider)[2], "{place}, {closer}: {zooms:?}");
    }
    assert!(box_of("arrow")[0] < box_of("key")[0], "{place}: {zooms:?}");

    let rules = data["rules"].as_array().expect("rules");
    let seconds = |name: &str| {
        let rule = rules.iter().find(|r| r["name"] == name).expect("a rule of that name");
        ["search_seconds", "apply_seconds"].map(|f| rule[f].as_f64().expect("seconds"))
    };
    let times: Vec<f64> = strings(&found["rules"])
        .into_iter()
        .map(|n| seconds(n).iter().sum())
        .collect();
    assert!(
        times.len() > 2 && times.is_sorted_by(|a, b| a >= b),
        "{place}: {times:?}"
    );
    assert_eq!(found["sorted"], json!([["time", "descending"]]), "{place}");
    assert_eq!(found["idle"].as_u64(), Some(rules.len() as u64), "{place}");
    let name = found["rule"]["name"].as_str().expect("a rule");
    assert!(
        found["rule"]["note"].as_str().is_some_and(|n| n.contains(name)),
        "{place}: {}",
        found["rule"]
    );

    let open = found["open"].as_array().expect("rows");
    assert!(!open.is_empty(), "{place}");
    let decision = strings(&open[0])[0];
    let choices = found["opened"]["choices"].as_array().expect("rows");
    assert!(
        choices.iter().any(|r| strings(r)[4] == decision),
        "{place}: {decision}: {choices:?}"
    );
    class_of(&found["opened"]);
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return skip("no Chromium is installed, which shows the page of an e-graph; BROLGA_CHROMIUM names one");
    };
    let digits = root().join("examples/digits/digits.onnx");
    let bert = small_model("bert").path;
    for (path, searches) in [
        (&digits, ["10/relu", "conv", "conv-scale", "no such thing"]),
        (&bert, ["node_gelu", "attention", "merge-products", "no such thing"]),
    ] {
        let (graph, options) = imported(path);
        // The sizes of a saturation that nobody watches.
        let kept = levels::saturated(&graph, &options, None).unwrap_or_else(|e| panic!("{e}"));
        let sizes: Vec<[usize; 3]> = (kept.report.growth.iter())
            .map(|s| [s.nodes, s.classes, s.rewrites])
            .collect();
        let explained = Explained::new(graph, &options).unwrap_or_else(|e| panic!("{e}"));
        let view = View::new(&explained, &options.target).unwrap_or_else(|e| panic!("{e}"));
        let (data, page) = (view.json(), view.page());
        let script = USE.replace("SEARCHES", &json!(searches).to_string());
        for window in [Window(1280, false), Window(1280, true), Window(700, false)] {
            let place = format!("{}, {} px, dark: {}", explained.graph.name, window.0, window.1);
            let found = browser.found(&page, &script, window);
            check(&place, &found, &data, &sizes);
            browser.picture(&page, &format!("egraph-{}", explained.graph.name), window);
        }
    }
}
