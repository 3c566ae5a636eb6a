//! Pages in a real browser: Chromium without a window.
//!
//! A copy of a page gets two scripts of ours: the first keeps what goes wrong, the second uses the page as people do and writes what
//! it finds into the document, which the browser prints. `BROLGA_CHROMIUM` names the browser where it is not in the path;
//! `BROLGA_SCREENSHOTS` a folder for pictures of what is tested.

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

/// What scripts that use a page have: `all` elements of a query, what they `found`, and a `look` at the page for what leaves the window
/// (but for what may scroll), for texts that leave their plots, and for what lies on one another within groups of elements.
const BEFORE: &str = r"<script>
addEventListener('load', () => {
  const all = (query) => [...document.querySelectorAll(query)];
  const found = { wrong, overflows: [], overlaps: [] };
  const look = (when, scrolling, groups) => {
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > wide) found.overflows.push(`${when}: the page is wider than the window`);
    for (const e of all('body *')) {
      const r = e.getBoundingClientRect();
      const scrolls = e.closest(scrolling) || e.closest('svg');
      if (r.width && !scrolls && (r.right > wide + 1 || r.left < -1)) found.overflows.push(`${when}: ${e.tagName} ${e.id} ${e.className}`);
    }
    for (const s of all('.plot svg')) {
      const box = s.getBoundingClientRect();
      for (const t of s.querySelectorAll('text')) {
        const r = t.getBoundingClientRect();
        if (r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1)
          found.overflows.push(`${when}: the text ${t.textContent} leaves its plot`);
      }
    }
    for (const group of groups) {
      const boxes = group.map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
      boxes.forEach(([e, a], i) => boxes.slice(i + 1).forEach(([f, b]) => {
        const [x, y] = [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
        if (x > 1 && y > 2)
          found.overlaps.push(`${when}: ${e.textContent.slice(0, 40)} / ${f.textContent.slice(0, 40)}`);
      }));
    }
  };
";

const BEHIND: &str = r"
  const out = document.createElement('script');
  out.type = 'application/json';
  out.id = 'found';
  out.textContent = JSON.stringify(found).replaceAll('<', '\\u003c');
  document.body.append(out);
});
</script>";

/// A window: its width in pixels, and whether it is dark.
#[derive(Clone, Copy)]
pub struct Window(pub u32, pub bool);

/// The browser.
pub struct Browser(PathBuf);

impl Browser {
    /// The one that is named or in the path.
    pub fn find() -> Option<Browser> {
        if let Some(named) = std::env::var_os("BROLGA_CHROMIUM") {
            return Some(Browser(named.into()));
        }
        let path = std::env::var_os("PATH")?;
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let mut places = BROWSERS.iter().flat_map(|b| folders.iter().map(move |f| f.join(b)));
        places.find(|p| p.is_file()).map(Browser)
    }

    /// What a script finds that uses a page. Nothing may have gone wrong, left the window, or lie on something else.
    ///
    /// # Panics
    /// When the browser does not start, the page does not get to its end, or is not in order.
    pub fn found(&self, page: &str, script: &str, window: Window) -> Value {
        let place = format!("{} px, dark: {}", window.0, window.1);
        let watched = page.replacen("<head>", &format!("<head>{WATCH}"), 1);
        let watched = watched.replacen("</body>", &format!("{BEFORE}{script}{BEHIND}</body>"), 1);
        let dom = self.open(&watched, window, &["--dump-dom".to_owned()]);
        let found = dom
            .split(r#"id="found">"#)
            .nth(1)
            .and_then(|t| t.split("</script>").next());
        let found = found.unwrap_or_else(|| panic!("{place}: the page did not get to its end: {dom:.2000}"));
        let found: Value = serde_json::from_str(found).unwrap_or_else(|e| panic!("{place}: {e}: {found}"));
        for field in ["wrong", "overflows", "overlaps"] {
            let none = found[field].as_array().is_some_and(Vec::is_empty);
            assert!(none, "{place}: {:#}", found[field]);
        }
        found
    }

    /// Takes a picture of a page, where `BROLGA_SCREENSHOTS` names a folder for it.
    ///
    /// # Panics
    /// When the browser does not start.
    pub fn picture(&self, page: &str, name: &str, window: Window) {
        let Some(folder) = std::env::var_os("BROLGA_SCREENSHOTS") else {
            return;
        };
        let name = format!("{name}-{}{}.png", window.0, if window.1 { "-dark" } else { "" });
        let shot = format!("--screenshot={}", Path::new(&folder).join(name).display());
        self.open(page, window, &[shot, format!("--window-size={},3000", window.0)]);
    }

    /// Runs the browser on a page; what it prints.
    fn open(&self, page: &str, Window(width, dark): Window, more: &[String]) -> String {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let file = folder.path().join("page.html");
        std::fs::write(&file, page).expect("a file is written");
        let out = Command::new(&self.0)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--run-all-compositor-stages-before-draw",
            ])
            .arg("--virtual-time-budget=5000")
            .arg(format!("--user-data-dir={}", folder.path().join("user").display()))
            .arg(format!("--window-size={width},1000"))
            .args(dark.then_some("--blink-settings=preferredColorScheme=0"))
            .args(more)
            .arg(format!("file://{}", file.display()))
            .output();
        let out = out.unwrap_or_else(|e| panic!("{}: {e}", self.0.display()));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}
