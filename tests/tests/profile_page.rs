//! The page of a profile in a real browser: Chromium without a window, at a desk's width and at a tablet's, in light and in dark.
//!
//! A copy of the page gets two scripts of ours: the first keeps what goes wrong, the second uses the page as people do and writes what
//! it finds into the document, which the browser prints. `BROLGA_CHROMIUM` names the browser where it is not in the path;
//! `BROLGA_SCREENSHOTS` a folder for pictures of what is tested.

use brolga::profile::{Profiler, Runs};
use brolga::{Options, View, tensors};
use brolga_ir::{DType, Number, Tensor};
use brolga_tests::{root, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names under which it is installed.
const BROWSERS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];

/// Keeps what goes wrong from the beginning on.
const WATCH: &str = "<script>
window.wrong = [];
addEventListener('error', (e) => wrong.push(`error: ${e.message}`));
addEventListener('unhandledrejection', (e) => wrong.push(`rejection: ${e.reason}`));
for (const kind of ['error', 'warn']) console[kind] = (...words) => wrong.push(`${kind}: ${words.join(' ')}`);
</script>";

/// Uses the page, and writes down what it is like.
const USE: &str = r#"<script>
addEventListener('load', () => {
  const all = (query) => [...document.querySelectorAll(query)];
  const found = { wrong, counts: {}, overflows: [], overlaps: [], clicks: [] };
  const look = (when) => {
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > wide) found.overflows.push(`${when}: the page is wider than the window`);
    for (const e of all('body *')) {
      const r = e.getBoundingClientRect();
      const scrolls = e.closest('.scroll, pre, #nodes') || e.closest('svg');
      if (r.width && !scrolls && (r.right > wide + 1 || r.left < -1)) found.overflows.push(`${when}: ${e.tagName} ${e.id} ${e.className}`);
    }
    for (const s of all('svg')) {
      const box = s.getBoundingClientRect();
      for (const t of s.querySelectorAll('text')) {
        const r = t.getBoundingClientRect();
        if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1)
          found.overflows.push(`${when}: the text ${t.textContent} leaves its plot`);
      }
    }
    // Texts that lie on one another, within the plots and among the blocks of the page.
    const groups = [...all('svg').map((s) => [...s.querySelectorAll('text:not(.slope)')]), all('header > *'), all('main > section'),
      all('dl').flatMap((d) => [...d.children]), all('.tools > *'), all('#legend > li'), all('#kernels tbody tr:not([hidden]) td')];
    for (const group of groups) {
      const boxes = group.map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
      boxes.forEach(([e, a], i) => boxes.slice(i + 1).forEach(([f, b]) => {
        const [x, y] = [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
        if (x > 1 && y > 2)
          found.overlaps.push(`${when}: ${e.textContent.slice(0, 40)} / ${f.textContent.slice(0, 40)}`);
      }));
    }
  };
  look('first');
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
  look('last');
  all('#kernels tbody tr')[0].click();
  scrollTo(0, 0);
  const out = document.createElement('script');
  out.type = 'application/json';
  out.id = 'found';
  out.textContent = JSON.stringify(found).replaceAll('<', '\\u003c');
  document.body.append(out);
});
</script>"#;

fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BROLGA_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = BROWSERS.iter().flat_map(|b| folders.iter().map(move |f| f.join(b)));
    places.into_iter().find(|p| p.is_file())
}

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

/// Runs the browser on a file; what it prints.
fn open(browser: &Path, file: &Path, (width, dark): (u32, bool), more: &[String]) -> String {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let out = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--run-all-compositor-stages-before-draw",
        ])
        .arg("--virtual-time-budget=5000")
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .arg(format!("--window-size={width},1000"))
        .args(dark.then_some("--blink-settings=preferredColorScheme=0"))
        .args(more)
        .arg(format!("file://{}", file.display()))
        .output();
    let out = out.unwrap_or_else(|e| panic!("{}: {e}", browser.display()));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        return skip("no Chromium is installed, which shows the page of a profile; BROLGA_CHROMIUM names one");
    };
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let page = page();
    let watched =
        page.replacen("<head>", &format!("<head>{WATCH}"), 1)
            .replacen("</body>", &format!("{USE}</body>"), 1);
    let file = dir.path().join("page.html");
    std::fs::write(&file, watched).expect("a file is written");
    for (width, dark) in [(1280, false), (1280, true), (700, false)] {
        let place = format!("{width} px, dark: {dark}");
        let dom = open(&browser, &file, (width, dark), &["--dump-dom".to_owned()]);
        let found = dom
            .split(r#"id="found">"#)
            .nth(1)
            .and_then(|t| t.split("</script>").next());
        let found = found.unwrap_or_else(|| panic!("{place}: the page did not get to its end: {dom:.2000}"));
        let found: Value = serde_json::from_str(found).unwrap_or_else(|e| panic!("{place}: {e}: {found}"));
        for field in ["wrong", "overflows", "overlaps"] {
            assert!(
                found[field].as_array().is_some_and(Vec::is_empty),
                "{place}: {:#}",
                found[field]
            );
        }
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
        if let Some(folder) = std::env::var_os("BROLGA_SCREENSHOTS") {
            let name = format!("page-{width}{}.png", if dark { "-dark" } else { "" });
            let picture = PathBuf::from(folder).join(name);
            let plain = dir.path().join("plain.html");
            std::fs::write(&plain, &page).expect("a file is written");
            let shot = format!("--screenshot={}", picture.display());
            open(
                &browser,
                &plain,
                (width, dark),
                &[shot, format!("--window-size={width},3000")],
            );
        }
    }
}
