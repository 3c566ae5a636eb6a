//! Kernels that differ in their sizes only, as one function.
//!
//! A network with symbolic sizes has many: a convolution of `h` rows, the next one of `floordiv(h, 2)`. Such kernels are
//! one function of their sizes, which each call passes.
//!
//! ```text
//! loops @pad_0(…) symbols(n, m) { for i0 parallel 0..n + 1 { … load b0[(m)*i0 + …] …
//! loops @pad_2(…) symbols(n, m) { for i0 parallel 0..n + 2 { … load b0[(m - 1)*i0 + …] …
//!     ──▶  one function of [d0, d1], called with [n + 1, m] and [n + 2, m - 1]
//! ```
//!
//! Invariant: a kernel that no other one equals stays as it is. What is known of a size's sign stays known.

use brolga_ir::loops::{Kernel, LoopKind, Scope, Stmt, for_each_dim_mut};
use brolga_ir::program::{Program, Step, nested};
use brolga_ir::{Dim, Symbol};
use rustc_hash::FxHashMap;

/// The function of a kernel.
pub(crate) struct Shared {
    /// The first kernel that is this function.
    pub first: u32,
    /// What a call passes for the symbols of the function.
    pub dims: Vec<Dim>,
}

/// The functions that several kernels are.
#[derive(Default)]
pub(crate) struct Sharing {
    /// By the number of the kernel, for those that share theirs.
    pub of: FxHashMap<u32, Shared>,
    /// The functions, as kernels over symbols of their own, by their first kernels.
    pub functions: FxHashMap<u32, Kernel>,
}

impl Sharing {
    /// What the kernels that a program's steps call have in common.
    pub fn of(program: &Program) -> Sharing {
        let mut known: FxHashMap<Kernel, Vec<(u32, Vec<Dim>)>> = FxHashMap::default();
        let mut seen = vec![false; program.kernels.len()];
        for s in nested(&program.steps) {
            let Step::Call { kernel, .. } = s else { continue };
            let Some(k) = program.kernels.get(*kernel as usize) else {
                continue;
            };
            if !std::mem::replace(&mut seen[*kernel as usize], true)
                && let Some((function, dims)) = over_sizes(k)
            {
                known.entry(function).or_default().push((*kernel, dims));
            }
        }
        let mut out = Sharing::default();
        for (function, kernels) in known.into_iter().filter(|(_, kernels)| kernels.len() > 1) {
            let first = kernels[0].0;
            let name = program.kernels[first as usize].name.clone();
            out.functions.insert(first, Kernel { name, ..function });
            out.of
                .extend(kernels.into_iter().map(|(k, dims)| (k, Shared { first, dims })));
        }
        out
    }

    /// The most sizes that a call passes.
    pub fn longest(&self) -> usize {
        self.of.values().map(|s| s.dims.len()).max().unwrap_or(0)
    }
}

/// A kernel over symbols for its sizes, and the sizes; `None` when it has none but numbers.
fn over_sizes(k: &Kernel) -> Option<(Kernel, Vec<Dim>)> {
    let mut places: FxHashMap<Dim, Dim> = FxHashMap::default();
    let (mut symbols, mut dims): (Vec<Symbol>, Vec<Dim>) = (vec![], vec![]);
    let mut symbol = |value: &Dim| {
        let s: Symbol = format!("d{}", symbols.len()).into();
        symbols.push(s.clone());
        dims.push(value.clone());
        Dim::sym(&s)
    };
    let mut zero: Option<Dim> = None;
    let mut replace = |d: &mut Dim| {
        if d.as_const().is_some() {
            return;
        }
        let place = places.entry(d.clone()).or_insert_with(|| {
            let place = symbol(d);
            if d.is_nonnegative() {
                return place;
            }
            // A symbol is at least 0; a difference may be anything.
            let zero = zero.get_or_insert_with(|| symbol(&Dim::ZERO));
            &place - &*zero
        });
        *d = place.clone();
    };
    let mut function = Kernel {
        name: String::new(),
        ..k.clone()
    };
    for b in &mut function.buffers {
        match b.scope {
            // Nothing in the code depends on them.
            Scope::In | Scope::Out => b.len = Dim::ZERO,
            Scope::Worker | Scope::Kernel | Scope::Shared | Scope::Private => replace(&mut b.len),
        }
    }
    if let Some(Stmt::For {
        kind: LoopKind::Parallel(grain),
        ..
    }) = function.body.last_mut()
    {
        // The caller looks at it.
        grain.work = Dim::ZERO;
        grain.least = 0;
    }
    for_each_dim_mut(&mut function.body, &mut replace);
    if dims.is_empty() {
        return None;
    }
    function.symbols = symbols;
    Some((function, dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(rows: &str, from: &str) -> Kernel {
        format!(
            "loops @k(b0: f32[n*m] in, b1: f32[({rows})*m] out) symbols(n, m) {{
                for i0 parallel(96*n from 40000) 0..{rows} {{
                    for i1 serial 0..m {{
                        r0: f32 = load b0[(m)*i0 + i1] where (i0{from} in 0..n) else f32 0.0
                        store b1[(m)*i0 + i1] = r0
                    }}
                }}
            }}"
        )
        .parse()
        .expect("a kernel")
    }

    #[test]
    fn kernels_that_differ_in_sizes_are_one_function() {
        let (a, sizes_a) = over_sizes(&kernel("n + 1", "")).expect("it has sizes");
        let (b, sizes_b) = over_sizes(&kernel("n + 2", "")).expect("it has sizes");
        assert!(a == b);
        let text = |sizes: &[Dim]| sizes.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(text(&sizes_a), "n + 1, m, n");
        assert_eq!(text(&sizes_b), "n + 2, m, n");
        a.verify().expect("it is a kernel");
    }

    #[test]
    fn sizes_that_are_equal_in_one_only_and_numbers_are_told_apart() {
        let (a, _) = over_sizes(&kernel("n + 1", "")).expect("it has sizes");
        let (square, _) = over_sizes(&kernel("n", "")).expect("it has sizes");
        assert!(a != square, "two of its sizes are the same");
        let (number, _) = over_sizes(&kernel("7", "")).expect("it has sizes");
        assert!(a != number);
        let (shifted, sizes) = over_sizes(&kernel("n + 1", " - n")).expect("it has sizes");
        assert!(a != shifted);
        // The sign of -n is not that of a symbol.
        assert!(sizes.contains(&Dim::ZERO), "{sizes:?}");
        assert!(sizes.iter().any(|d| d.to_string() == "-n"), "{sizes:?}");
    }
}
