//! Pages: HTML files that need nothing else, with their style, their script and their data in them.
//!
//! What all of them share is in `page/base.html`, `page/base.css` and `page/base.js`; the script finds the data as `data`.

use serde_json::Value;

const HTML: &str = include_str!("page/base.html");
const STYLE: &str = include_str!("page/base.css");
const SCRIPT: &str = include_str!("page/base.js");

/// A kind of page.
pub(crate) struct Page {
    /// The command that writes it.
    pub name: &'static str,
    /// The document from its main part on, with the places `"DATA"` and `SCRIPT`.
    pub html: &'static str,
    /// Its own style.
    pub style: &'static str,
    /// Its own script.
    pub script: &'static str,
}

impl Page {
    /// The page of some data.
    pub fn with(&self, title: &str, data: &Value) -> String {
        // What stands in a script element ends at `</script`, and `<!--` begins a comment.
        let data = data.to_string().replace('<', "\\u003c");
        let joined = |base: &str, own: &str| format!("{}\n{}", base.trim_end(), own.trim_end());
        let mut page = HTML.to_owned();
        // The data and the title may hold any text, so they come behind those that have none of the places.
        for (place, text) in [
            ("BODY", self.html.trim_end().to_owned()),
            ("NAME", self.name.to_owned()),
            ("STYLE", joined(STYLE, self.style)),
            ("SCRIPT", joined(SCRIPT, self.script)),
            ("\"DATA\"", data),
            ("TITLE", escaped(title)),
        ] {
            page = page.replacen(place, &text, 1);
        }
        page
    }
}

/// Text of an element or attribute of HTML or XML.
pub(crate) fn escaped(text: &str) -> String {
    let special = |c: char| match c {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        '"' => "&quot;".into(),
        c => String::from(c),
    };
    text.chars().map(special).collect()
}
