//! Pipelines until the registry of passes is wired.

use brolga_ir::{Graph, NodeError};
use brolga_passes::pass::{Context, Pass, PassError};

pub const DEFAULT: &str = "unfused";

struct Unfused;
impl Pass for Unfused {
    fn name(&self) -> &'static str {
        "unfused"
    }
    fn options(&self) -> String {
        String::new()
    }
    fn run(&self, g: &Graph, cx: &mut Context) -> Result<Graph, PassError> {
        brolga_passes::eqsat::unfused(g, &cx.target).map_err(|message| PassError {
            pass: "unfused",
            error: NodeError { node: String::new(), message },
        })
    }
}

pub fn parse(_: &str) -> Result<Vec<Box<dyn Pass>>, String> {
    Ok(vec![Box::new(Unfused)])
}
