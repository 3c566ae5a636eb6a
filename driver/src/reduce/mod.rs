//! Smaller models that still show what a larger one shows: delta debugging on tensor graphs.
//!
//! ```text
//! %1 = conv(%0, %c0)                                             (%0 cut_1: f32[2])
//! %2 = relu(%1)            whatever is wrong needs only the --> %1 = softmax(%0)
//! %3 = softmax(%2)         softmax                              return y = %1
//! return y = %3
//! ```
//!
//! Whoever asks says whether a candidate still shows it; nothing else is known of it. Nodes are cut away first, in halves, quarters, and
//! so on (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002), then outputs, inputs and single nodes, then
//! constants and extents become simpler ([`simpler`]), until nothing more can go.
//!
//! Invariant: every candidate is a valid graph and has less than the best so far, in the order of [`Weight`]; so it ends.

mod cut;
mod simpler;

use crate::Result;
use brolga_ir::{ConstData, Graph, Tensor};
pub use cut::keep;
use std::collections::HashMap;

/// A model, and what its inputs are where that is known: then they stay what they are while it is cut.
#[derive(Clone)]
pub struct Case {
    /// The model.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Option<Vec<Tensor>>,
}

/// How much a model has, in the order of what counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Weight {
    /// Operations.
    pub nodes: usize,
    /// Outputs.
    pub outputs: usize,
    /// Inputs.
    pub inputs: usize,
    /// Symbols of its shapes.
    pub symbols: usize,
    /// Elements of constants that are not the same everywhere.
    pub elements: usize,
    /// The sum of all extents.
    pub extents: usize,
}

impl Weight {
    /// Of a graph; its symbols count as extents of 1.
    pub fn of(g: &Graph) -> Weight {
        let dense = g.constants.iter().filter(|c| !matches!(c.data, ConstData::Splat(_)));
        let len = |c: &brolga_ir::Constant| c.ty.len().as_const().unwrap_or(i64::MAX) as usize;
        let extents = g.values.iter().flat_map(|v| &v.ty.shape);
        Weight {
            nodes: g.nodes.len(),
            outputs: g.outputs.len(),
            inputs: g.inputs.len(),
            symbols: g.symbols.len(),
            elements: dense.map(len).fold(0, usize::saturating_add),
            extents: extents
                .map(|d| d.as_const().unwrap_or(1) as usize)
                .fold(0, usize::saturating_add),
        }
    }
}

/// What a reduction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tried {
    /// Candidates that were tested.
    pub tested: usize,
    /// Those that were taken.
    pub taken: usize,
}

/// Says whether a candidate still shows it.
///
/// # Errors
/// When that cannot be told, which ends the reduction.
pub type Test<'a> = &'a mut dyn FnMut(&Case) -> Result<bool>;

/// Shown every model that is taken, with what has been tried so far.
///
/// # Errors
/// When it cannot be kept, which ends the reduction.
pub type Better<'a> = &'a mut dyn FnMut(&Case, Tried) -> Result<()>;

/// The smallest model found that `test` says yes to, beginning with one that it says yes to.
///
/// # Errors
/// Those of `test` and `better`.
pub fn reduce(case: Case, test: Test, better: Better) -> Result<(Case, Tried)> {
    let mut r = Reducer {
        best: case,
        trace: None,
        test,
        better,
        tried: Tried::default(),
    };
    loop {
        let before = Weight::of(&r.best.graph);
        r.sizes()?;
        r.outputs()?;
        r.nodes()?;
        r.singles()?;
        r.inputs()?;
        r.constants()?;
        r.extents()?;
        if Weight::of(&r.best.graph) >= before {
            return Ok((r.best, r.tried));
        }
    }
}

/// A reduction on its way.
struct Reducer<'a> {
    best: Case,
    /// What every value of the best is, once that was asked for.
    trace: Option<Vec<Option<Tensor>>>,
    test: Test<'a>,
    better: Better<'a>,
    tried: Tried,
}

impl Reducer<'_> {
    /// Takes a candidate where it is valid, has less, and is still what is looked for.
    fn take(&mut self, candidate: Option<Case>) -> Result<bool> {
        let Some(case) = candidate else { return Ok(false) };
        if Weight::of(&case.graph) >= Weight::of(&self.best.graph) || case.graph.verify().is_err() {
            return Ok(false);
        }
        self.tried.tested += 1;
        if !(self.test)(&case)? {
            return Ok(false);
        }
        self.tried.taken += 1;
        (self.best, self.trace) = (case, None);
        (self.better)(&self.best, self.tried)?;
        Ok(true)
    }

    /// What the values of the best are; nothing where inputs are not known, or it cannot be interpreted.
    fn traced(&mut self) -> &[Option<Tensor>] {
        if self.trace.is_none() {
            self.trace = Some(values(&self.best));
        }
        self.trace.as_deref().unwrap_or_default()
    }

    /// The best with only some of its nodes.
    fn kept(&mut self, nodes: &[bool]) -> Option<Case> {
        let (graph, from) = keep(&self.best.graph, nodes)?;
        let inputs = match self.best.inputs {
            None => None,
            Some(_) => {
                let values = self.traced();
                let of = |v: &brolga_ir::Value| values.get(v.0 as usize)?.clone();
                Some(from.iter().map(of).collect::<Option<_>>()?)
            }
        };
        Some(Case { graph, inputs })
    }

    /// Symbols become numbers.
    fn sizes(&mut self) -> Result<()> {
        for case in simpler::sized(&self.best) {
            if self.take(Some(case))? {
                break;
            }
        }
        Ok(())
    }

    /// Nodes are cut away: all but a part, then parts, in smaller and smaller ones.
    fn nodes(&mut self) -> Result<()> {
        let mut size = self.best.graph.nodes.len().div_ceil(2);
        while size > 0 {
            let n = self.best.graph.nodes.len();
            let mut halved = false;
            for start in (0..n).step_by(size).filter(|_| size < n) {
                let part: Vec<bool> = (0..n).map(|i| (start..start + size).contains(&i)).collect();
                let case = self.kept(&part);
                if self.take(case)? {
                    halved = true;
                    break;
                }
            }
            if halved {
                size = size.min(self.best.graph.nodes.len().div_ceil(2));
                continue;
            }
            // From the end, so that parts that are left keep their numbers.
            let mut end = n;
            while end > 0 {
                let (now, start) = (self.best.graph.nodes.len(), end.saturating_sub(size));
                let rest: Vec<bool> = (0..now).map(|i| !(start..end).contains(&i)).collect();
                let case = self.kept(&rest);
                self.take(case)?;
                end = start.min(self.best.graph.nodes.len());
            }
            size = match size {
                1 => 0,
                size => size.div_ceil(2).min(self.best.graph.nodes.len().max(1)),
            };
        }
        Ok(())
    }

    /// Outputs go, in halves, then one after the other.
    fn outputs(&mut self) -> Result<()> {
        let mut size = self.best.graph.outputs.len() / 2;
        while size > 0 {
            let mut start = 0;
            while start < self.best.graph.outputs.len() {
                let case = simpler::without_outputs(&self.best, start..start + size);
                if !self.take(case)? {
                    start += size;
                }
            }
            size /= 2;
        }
        Ok(())
    }

    /// Single nodes become one of their operands.
    fn singles(&mut self) -> Result<()> {
        let mut n = self.best.graph.nodes.len();
        while n > 0 {
            n -= 1;
            for case in simpler::bypassed(&self.best, n) {
                if self.take(Some(case))? {
                    break;
                }
            }
            n = n.min(self.best.graph.nodes.len());
        }
        Ok(())
    }

    /// Inputs that nothing reads go; others become another input or a constant.
    fn inputs(&mut self) -> Result<()> {
        let mut n = self.best.graph.inputs.len();
        while n > 0 {
            n -= 1;
            for case in simpler::without_input(&self.best, n) {
                if self.take(Some(case))? {
                    break;
                }
            }
            n = n.min(self.best.graph.inputs.len());
        }
        Ok(())
    }

    /// Constants become one number.
    fn constants(&mut self) -> Result<()> {
        for c in 0..self.best.graph.constants.len() {
            for case in simpler::splat(&self.best, c) {
                if self.take(Some(case))? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Extents become smaller.
    fn extents(&mut self) -> Result<()> {
        for n in simpler::extents(&self.best.graph) {
            // The smallest that will do.
            for m in [1, 2, 3, n / 4, n / 2, n - 1] {
                if m < 1 || m >= n {
                    continue;
                }
                let mut taken = false;
                for case in simpler::resized(&self.best, n, m) {
                    taken = self.take(Some(case))?;
                    if taken {
                        break;
                    }
                }
                if taken {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What every value of a case is; nothing where its inputs are not known, or it cannot be interpreted.
fn values(case: &Case) -> Vec<Option<Tensor>> {
    let mut out = vec![None; case.graph.values.len()];
    let Some(inputs) = &case.inputs else { return out };
    let mut all = case.graph.clone();
    let results = case.graph.nodes.iter().flat_map(|n| n.outputs.iter().copied());
    all.outputs = results.map(|v| (v.to_string(), v)).collect();
    if let Ok(found) = all.eval(inputs) {
        let of: HashMap<u32, Tensor> = all.outputs.iter().map(|(_, v)| v.0).zip(found).collect();
        of.into_iter().for_each(|(v, t)| out[v as usize] = Some(t));
    }
    for (input, t) in case.graph.inputs.iter().zip(inputs) {
        out[input.value.0 as usize] = Some(t.clone());
    }
    out
}

#[cfg(test)]
mod tests;
