//! `specialise`: symbolic dimensions become numbers.
//!
//! ```text
//! (%0: f32[n, 64])                      (%0: f32[8, 64])
//! %1 = reshape{shape: [n*64]}(%0)  -->  %1 = reshape{shape: [512]}(%0)
//! ```

use crate::pass::{Context, Setting, Settings, TensorPass};
use brolga_ir::graph::unknown_symbol;
use brolga_ir::{Dim, Graph, NodeError, Type};

/// The pass; its options are the sizes, by the names of the symbols.
#[derive(Clone, Default, Debug)]
pub struct Specialise {
    /// Sizes of symbols.
    pub sizes: Vec<(String, i64)>,
}

impl Settings for Specialise {
    const NAME: &'static str = "specialise";
    const SUMMARY: &'static str = "gives symbolic dimensions sizes: `specialise{seq=128}`";
    const SETTINGS: &'static [Setting<Specialise>] = &[];

    fn set_other(&mut self, name: &str, value: &str) -> Result<(), String> {
        let size = value.parse().ok().filter(|n| *n >= 0);
        let size = size.ok_or_else(|| format!("`{name}={value}`: expected a size from 0 on"))?;
        self.sizes.push((name.to_owned(), size));
        Ok(())
    }

    fn others(&self) -> Vec<String> {
        self.sizes.iter().map(|(s, n)| format!("{s}={n}")).collect()
    }
}

impl TensorPass for Specialise {
    fn rewrite(&self, g: &Graph, cx: &mut Context) -> Result<Graph, NodeError> {
        specialise(g, &self.sizes).map_err(|e| cx.refuse(e))
    }
    /// Sizes are put into regions where they stand, since not every region has every symbol.
    fn enters_regions(&self) -> bool {
        false
    }
}

/// The graph with some symbols replaced by numbers.
///
/// # Errors
/// When there is no such symbol, a number contradicts the model, or an input becomes too large.
pub fn specialise(g: &Graph, sizes: &[(String, i64)]) -> Result<Graph, NodeError> {
    let fail = |message| NodeError {
        node: String::new(),
        message,
    };
    if let Some((s, _)) = sizes.iter().find(|(s, _)| g.symbols.iter().all(|x| **x != **s)) {
        return Err(fail(unknown_symbol(s, g.symbols.iter().map(|s| &**s))));
    }
    let value = |s: &str| sizes.iter().find(|(n, _)| *n == *s).map(|(_, v)| Dim::Const(*v));
    for i in &g.inputs {
        let ty = g.ty(i.value);
        let known = Type::new(
            ty.dtype,
            ty.shape.iter().map(|d| d.substitute(&value)).collect::<Vec<_>>(),
        );
        known
            .check_size()
            .map_err(|e| fail(format!("input `{}`: {e}", i.name)))?;
    }
    g.substitute(&value)
}
