//! What the equations that types and conditions demand say of single symbols.

use super::case::Stop;
use brolga_ir::Dim;
use brolga_ir::dim::Atom;
use std::collections::BTreeMap;

/// Equations solved for symbols that stand alone on a side.
///
/// # Errors
/// [`Stop::Impossible`] where known numbers would be equal that are not.
pub(super) fn solve(equations: &[(Dim, Dim)]) -> Result<BTreeMap<String, Dim>, Stop> {
    let mut solution: BTreeMap<String, Dim> = BTreeMap::new();
    for (a, b) in equations {
        let now = |d: &Dim, s: &BTreeMap<String, Dim>| d.substitute(&|name| s.get(name).cloned());
        let (a, b) = (now(a, &solution), now(b, &solution));
        if a == b {
            continue;
        }
        if a.as_const().is_some() && b.as_const().is_some() {
            return Err(Stop::Impossible);
        }
        let difference = &a - &b;
        if let Some((name, value)) = alone(&difference) {
            let with = |d: &Dim| d.substitute(&|s| (s == name).then(|| value.clone()));
            solution.values_mut().for_each(|d| *d = with(d));
            solution.insert(name, value);
        }
    }
    Ok(solution)
}

/// A symbol that is in one term only, and there alone, and what it is where the sum is 0. That a symbol is not negative is then no longer
/// known of it, which leaves more to prove and no instance out.
fn alone(sum: &Dim) -> Option<(String, Dim)> {
    for (atoms, factor) in sum.terms() {
        let ([Atom::Sym(name)], 1 | -1) = (atoms, factor) else {
            continue;
        };
        let rest = sum - &(&Dim::sym(name) * factor);
        let mut used = false;
        rest.for_each_symbol(&mut |s| used |= s == name);
        if !used {
            return Some((name.to_string(), &rest * -factor));
        }
    }
    None
}
