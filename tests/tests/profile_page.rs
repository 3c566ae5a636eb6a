//! The page of a profile in a real browser, at a desk's width and at a tablet's, in light and in dark.

use brolga::profile::{Profiler, Runs};
use brolga::{Options, View, tensors};
use brolga_ir::{DType, Number, Tensor};
use brolga_tests::browser::{Browser, Window};
use brolga_tests::{root, skip};
use serde_json::Value;

/// Uses the page, and notes what it is like.
const USE: &str = r#"
  found.counts = {};
  found.clicks = [];
  const lookAt = (when) => look(when, '.scroll, pre, #nodes',
    [...all('svg').map((s) => [...s.querySelectorAll('text:not(.slope)')]), all('header > *'), all('main > section'),
      all('dl').flatMap((d) => [...d.children]), all('.tools > *'), all('#legend > li'), all('#kernels tbody tr:not([hidden]) td')]);
  lookAt('first');
  for (const query of ['#facts div', '#kernels tbody tr', '#roofline circle.kernel', '#roofline line.wall', '#memory rect.block', '#legend li'])
    found.counts[query] = all(query).length;
  const canvas = document.querySelector('#timeline canvas');
  const painted = () => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let n = 0;
    for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
    return { n, sum: data.reduce((sum, x, i) => (sum * 31 + x * (i % 251)) % 1000003, 0) };
  };
  const whole = painted();
  document.getElementById('closer').click();
  const closer = painted();
  document.getElementById('whole').click();
  found.timeline = { painted: whole.n, zooms: whole.sum !== closer.sum, back: painted().sum === whole.sum };
  all('#kernels tbody tr').forEach((row) => {
    row.click();
    const name = row.cells[0].textContent;
    found.clicks.push({
      name,
      kind: all('#numbers dd')[0].textContent,
      title: document.getElementById('h-detail').textContent,
      selected: all('#kernels tr[aria-selected="true"]').length,
      code: all('#code pre').map((p) => p.textContent.length),
      schedule: document.getElementById('schedules').textContent,
      nodes: document.getElementById('nodes').textContent,
    });
  });
  lookAt('last');
  all('#kernels tbody tr')[0].click();
  scrollTo(0, 0);
"#;

/// A page of the digits, profiled.
fn page() -> String {
    let path = root().join("examples/digits/digits.onnx");
    let profiler = Profiler::load(&path, &Options::default(), 2, true).unwrap_or_else(|e| panic!("{e}"));
    let images = Tensor::from_fn(DType::F32, &[4, 1, 8, 8], |_| Number::Float(0.25));
    let runs = Runs {
        runs: Some(20),
        counters: true,
    };
    let inputs: [(&str, View); 1] = [("images", tensors::view(&images))];
    profiler.profile(&inputs, runs).unwrap_or_else(|e| panic!("{e}")).page()
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = Browser::find() else {
        return skip("no Chromium is installed, which shows the page of a profile; BROLGA_CHROMIUM names one");
    };
    let page = page();
    for window in [Window(1280, false), Window(1280, true), Window(700, false)] {
        let place = format!("{} px, dark: {}", window.0, window.1);
        let found = browser.found(&page, USE, window);
        for (query, least) in [
            ("#facts div", 5),
            ("#kernels tbody tr", 5),
            ("#roofline circle.kernel", 2),
            ("#roofline line.wall", 4),
            ("#memory rect.block", 3),
            ("#legend li", 1),
        ] {
            assert!(
                found["counts"][query].as_u64() >= Some(least),
                "{place}, {query}: {:#}",
                found["counts"]
            );
        }
        let timeline = &found["timeline"];
        assert!(timeline["painted"].as_u64() > Some(1000), "{place}: {timeline}");
        assert!(
            timeline["zooms"] == true && timeline["back"] == true,
            "{place}: {timeline}"
        );
        let clicks = found["clicks"].as_array().expect("rows were chosen");
        for c in clicks {
            assert!(c["title"] == c["name"] && c["selected"] == 1, "{place}: {c}");
            if c["kind"] != "kernel" {
                continue;
            }
            let code = c["code"].as_array().expect("there is code");
            assert!(code.first().and_then(Value::as_u64) > Some(40), "{place}: no code: {c}");
            assert!(c["schedule"].as_str().is_some_and(|s| s.contains('{')), "{place}: {c}");
            assert!(c["nodes"].as_str().is_some_and(|s| !s.is_empty()), "{place}: {c}");
        }
        assert!(clicks.iter().any(|c| c["kind"] == "kernel"), "{place}");
        browser.picture(&page, "profile", window);
    }
}
