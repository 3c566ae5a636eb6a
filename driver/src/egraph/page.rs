//! The e-graph of a model as one HTML file that needs nothing else: `page.html` with its style, its scripts and the data in it.

use super::View;
use crate::page::Page;

const PAGE: Page = Page {
    name: "egraph",
    html: include_str!("page.html"),
    style: include_str!("page.css"),
    script: concat!(include_str!("picture.js"), "\n", include_str!("page.js")),
};

impl View<'_> {
    /// The page.
    pub fn page(&self) -> String {
        PAGE.with(&self.explained.graph.name, &self.json())
    }
}
