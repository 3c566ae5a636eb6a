//! Kernels that are made of others.

use crate::lower::Structured;
use brolga_ir::index::{Ix, Var};
use brolga_ir::structured::{Kernel, Operand, Place, Read, Role};
use rustc_hash::FxHashMap;

/// The kernels of a program by structure (their names cleared), once one was made.
#[derive(Default)]
pub(super) struct Kernels(Option<FxHashMap<Kernel, u32>>);

impl Kernels {
    /// The number of a kernel, which is added when there is none like it.
    pub fn number(&mut self, p: &mut Structured, mut k: Kernel) -> u32 {
        let kernels = &mut p.kernels;
        let known = self.0.get_or_insert_with(|| {
            let each = (0..).zip(kernels.iter());
            each.map(|(i, k)| {
                (
                    Kernel {
                        name: String::new(),
                        ..k.clone()
                    },
                    i,
                )
            })
            .collect()
        });
        let name = std::mem::take(&mut k.name);
        *known.entry(k).or_insert_with_key(|k| {
            let base = name.split("_part").next().unwrap_or(&name).to_owned() + "_part";
            let taken = |name: &str| kernels.iter().any(|k| k.name == name);
            let mut names = (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}{n}") });
            let name = names.find(|n| !taken(n)).unwrap_or(base.clone());
            kernels.push(Kernel { name, ..k.clone() });
            kernels.len() as u32 - 1
        })
    }
}

/// A kernel without loops with some of its stages, and which of its operands are left. What the others wrote stays as it is.
pub(super) fn only(k: &Kernel, stages: &[usize]) -> (Kernel, Vec<usize>) {
    let mut k = Kernel {
        parts: stages.iter().map(|&i| k.parts[i].clone()).collect(),
        ..k.clone()
    };
    let mut kept = vec![];
    each_place(&mut k, &mut |p| {
        if let Place::Operand(o) = p {
            kept.push(*o as usize);
        }
    });
    kept.sort_unstable();
    kept.dedup();
    let number = |o: u32| kept.binary_search(&(o as usize)).expect("collected above") as u32;
    each_place(&mut k, &mut |p| {
        if let Place::Operand(o) = p {
            *o = number(*o);
        }
    });
    k.operands = kept.iter().map(|&o| k.operands[o].clone()).collect();
    k.operands
        .iter_mut()
        .filter(|o| o.role == Role::Out)
        .for_each(|o| o.role = Role::Part);
    (k, kept)
}

fn each_place(k: &mut Kernel, f: &mut dyn FnMut(&mut Place)) {
    k.for_each_stage_mut(&mut |s| {
        for r in &mut s.reads {
            if let Read::Element { place, .. } = r {
                f(place);
            }
        }
        s.writes.iter_mut().for_each(|(p, _)| f(p));
    });
}

/// Makes an operand of a kernel the part of a larger tensor that a map leads to.
///
/// ```text
/// o1: f32[16, 8] out … write o1[i0, i1]  -->  o1: f32[16, 32] part … write o1[i0, i1 + 24]
/// ```
pub(super) fn within(k: &mut Kernel, operand: usize, whole: &Operand, map: &[Ix]) {
    let place = Place::Operand(operand as u32);
    let moved = |at: &[Ix]| -> Vec<Ix> {
        let coordinate = |v: Var| at[v.0 as usize].clone();
        map.iter().map(|ix| ix.substitute(&coordinate, &Ix::reg)).collect()
    };
    k.for_each_stage_mut(&mut |s| {
        for r in &mut s.reads {
            if let Read::Element { place: p, map, .. } = r
                && *p == place
            {
                *map = moved(map);
            }
        }
        for (p, map) in &mut s.writes {
            if *p == place {
                *map = moved(map);
            }
        }
    });
    let o = &mut k.operands[operand];
    o.ty.shape.clone_from(&whole.ty.shape);
    if o.role == Role::Out {
        o.role = Role::Part;
    }
}
