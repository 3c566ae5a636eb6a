//! Runs whose outputs lie in the memory of inputs.
//!
//! Invariant: such an input is nowhere given as a slice beside the output's; the program gets one pointer for both.

use super::{Executor, list};
use crate::{Error, Result, View, ViewMut};

impl Executor {
    /// [`Executor::run_into`] with outputs in the memory of inputs: those that the program may write there
    /// ([`Meta::aliases`](brolga_abi::Meta::aliases)) hold the inputs before the run, and `inputs` are the others, in order.
    /// After an error the contents of all outputs are unspecified, those of such inputs with them.
    pub fn run_in_place(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) -> Result<Vec<Vec<usize>>> {
        self.count_outputs(outputs)?;
        let meta = self.program.meta();
        let output = |input: usize| {
            let alias = meta.aliases.iter().find(|a| a.input as usize == input)?;
            Some(alias.output as usize)
        };
        let own: Vec<usize> = (0..meta.inputs.len()).filter(|i| output(*i).is_none()).collect();
        let without: Vec<usize> = own.iter().copied().filter(|i| self.defaults[*i].is_none()).collect();
        let places = match inputs.len() {
            n if n == own.len() => own,
            n if n == without.len() => without,
            found => {
                return Err(Error::Count {
                    what: "input",
                    found,
                    expected: own.len(),
                    names: list(own.iter().map(|i| &meta.inputs[*i].name)),
                });
            }
        };
        let mut given: Vec<Option<View>> = vec![None; meta.inputs.len()];
        for (place, view) in places.into_iter().zip(inputs) {
            given[place] = Some(*view);
        }
        for (i, view) in given.iter_mut().enumerate().filter(|(i, _)| output(*i).is_none()) {
            *view = view.or_else(|| self.default(i));
        }
        let all = given.iter().enumerate().filter_map(|(i, view)| {
            let held = || {
                let o = &outputs[output(i)?];
                Some(View {
                    dtype: o.dtype,
                    shape: o.shape,
                    bytes: &*o.bytes,
                })
            };
            view.or_else(held)
        });
        let dims = self.bind(&all.collect::<Vec<_>>())?;
        self.fill(&dims, &given, outputs)
    }
}
