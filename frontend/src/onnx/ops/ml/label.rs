//! Labels of classes.

use super::*;
use brolga_ir::{DType, Tensor};

/// The labels of a classifier, by class.
pub enum Labels<'m> {
    /// Integers.
    Ints(&'m [i64]),
    /// Texts.
    Strings(Vec<&'m str>),
}

impl<'m> Labels<'m> {
    /// From a node's attributes, the name of that of integers given; `None` when there are none.
    ///
    /// # Errors
    /// When an attribute is of another type.
    pub fn of(ctx: &NodeCtx<'m>, ints: &str) -> Result<Option<Labels<'m>>, Fail> {
        match ctx.strings("classlabels_strings")? {
            Some(s) if !s.is_empty() => return Ok(Some(Labels::Strings(s))),
            _ => {}
        }
        Ok(ctx.ints(ints)?.filter(|i| !i.is_empty()).map(Labels::Ints))
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        match self {
            Labels::Ints(i) => i.len(),
            Labels::Strings(s) => s.len(),
        }
    }

    /// The labels of classes `[N]`, integers below [`Labels::len`].
    ///
    /// # Errors
    /// When a class may be none.
    pub fn at(&self, graph: &mut Builder<'_>, classes: Value) -> One {
        let table = self.table(graph)?;
        graph.gather(0, table, classes)
    }

    /// Those of the second class where a condition `[N]` holds, else of the first.
    ///
    /// # Errors
    /// When the condition is no bool.
    pub fn second_where(&self, graph: &mut Builder<'_>, condition: Value) -> One {
        let table = self.table(graph)?;
        let class = graph.cast(condition, DType::I64)?;
        graph.gather(0, table, class)
    }

    fn table(&self, graph: &mut Builder<'_>) -> One {
        match self {
            Labels::Ints(labels) => Ok(graph.dense(Tensor::from_i64(&[labels.len()], labels))),
            Labels::Strings(labels) => graph.strings(&[labels.len()], labels),
        }
    }
}
