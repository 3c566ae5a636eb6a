//! `tree_leaves{depth}(x, feature, threshold, child, root) -> u32[N, T]`: the leaf that each of the `N` rows of `x [N, F]` reaches in each
//! of `T` decision trees. A node `n` of `M` sends a row to `child[2n + 1]` where `x[feature[n]] <= threshold[n]`, else (NaN too) to
//! `child[2n]`; a leaf sends it to itself. `depth` steps are taken from `root [T]`. The tables are `feature u32[M]`, `threshold [M]`
//! of the dtype of `x` (f32 or f64) and `child u32[2M]`; a number in them that is too large stands for the last one.
//!
//! All rows take the same number of steps, so that a step is the same gathers for many trees at once: the traversal of Nakandala et al.,
//! "A Tensor Compiler for Unified Machine Learning Prediction Serving", OSDI 2020, with tables for all trees together.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, OwnKernel, OwnStages, Role, Sample, SampleType, arity, shape};
use crate::index::{Ix, Reg, Var};
use crate::scalar::{Body, Builder};
use crate::structured::build::{self, Reads, parallel};
use crate::structured::{Kernel, Local, Loop, Part, Place, Read};
use crate::{DType, Dim, Number, Tensor, Type};

/// The operator's definition.
pub struct Def;

/// The longest way from a root to a leaf, in steps: beyond that of any tree that is worth the time.
const DEEPEST: i64 = 1 << 20;
/// Steps that one stage takes; deeper trees take them in a loop of such.
const STEPS: i64 = 8;

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "tree_leaves"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("depth", AttrKind::Int)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        arity(inputs, 5)?;
        let [x, feature, threshold, child, root] = inputs else {
            unreachable!("the operands were counted");
        };
        if x.rank() != 2 || !matches!(x.dtype, DType::F32 | DType::F64) {
            return Err(format!("x is {x}, expected f32 or f64 of rank 2"));
        }
        if feature.rank() != 1 || root.rank() != 1 {
            return Err(format!("feature {feature} and root {root}, expected rank 1"));
        }
        if let Some(d) = [&x.shape[1], &feature.shape[0]].into_iter().find(|d| !d.is_at_least(1)) {
            return Err(format!("{d} features or nodes, expected at least one"));
        }
        let nodes = &feature.shape[0];
        shape::check_type("feature", feature, DType::U32, std::slice::from_ref(nodes))?;
        shape::check_type("threshold", threshold, x.dtype, std::slice::from_ref(nodes))?;
        shape::check_type("child", child, DType::U32, &[nodes * 2])?;
        shape::check_type("root", root, DType::U32, &root.shape)?;
        let depth = op.int("depth");
        if !(0..=DEEPEST).contains(&depth) {
            return Err(format!("depth {depth}, expected 0 to {DEEPEST}"));
        }
        Ok(vec![Type::new(DType::U32, [&x.shape[..1], &root.shape].concat())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let [x, feature, threshold, child, root] = inputs else {
            unreachable!("`infer` counted the operands");
        };
        let (features, nodes, trees) = (x.shape()[1], feature.len(), root.len());
        let entry = |table: &Tensor, i: usize, n: usize| (table.get(i).int() as usize).min(n - 1);
        let leaf = |row: usize, tree: usize| {
            let mut n = entry(root, tree, nodes);
            for _ in 0..op.int("depth") {
                let value = x.get(row * features + entry(feature, n, features)).f64();
                n = entry(child, 2 * n + usize::from(value <= threshold.get(n).f64()), nodes);
            }
            Number::Int(n as i128)
        };
        let shape = [x.shape()[0], trees];
        Ok(vec![Tensor::from_fn(DType::U32, &shape, |p| leaf(p / trees, p % trees))])
    }
    fn role(&self) -> Role {
        Role::Own(&Def)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        use DType::{F32, F64, U32};
        let s = |depth: i64, x: SampleType, [m, twice, t]: [&'static [usize]; 3]| {
            let tables = [x, (U32, m), (x.0, m), (U32, twice), (U32, t)];
            Sample::new(&[Attr::Int(depth)], &tables)
        };
        vec![
            s(3, (F32, &[4, 5]), [&[12], &[24], &[9]]),
            s(6, (F32, &[3, 3]), [&[11], &[22], &[40]]),
            s(0, (F64, &[2, 1]), [&[3], &[6], &[2]]),
            s(5, (F64, &[5, 7]), [&[10], &[20], &[17]]),
            s(19, (F32, &[2, 12]), [&[14], &[28], &[33]]),
            s(2, (F32, &[0, 2]), [&[1], &[2], &[3]]),
        ]
    }
}

/// The operands of the kernel.
const X: Place = Place::Operand(0);
const FEATURE: Place = Place::Operand(1);
const THRESHOLD: Place = Place::Operand(2);
const CHILD: Place = Place::Operand(3);
const ROOT: Place = Place::Operand(4);
const LEAF: Place = Place::Operand(5);
/// The nodes where a row stands.
const AT: Place = Place::Local(0);

/// The reads of a stage whose body gives the node where a row stands after some steps.
struct Walk<'t> {
    reads: Reads,
    /// The type of `x`.
    x: &'t Type,
    /// The number of nodes.
    nodes: &'t Dim,
}

impl Walk<'_> {
    fn computed(&mut self, body: Body, of: &[usize]) -> usize {
        let of = of.iter().map(|&i| i as u32).collect();
        self.reads.add(Read::Computed(body, of), DType::I64)
    }

    /// An entry of a table as an index below an extent; gives its read.
    fn entry(&mut self, place: Place, at: Ix, extent: &Dim) -> usize {
        let entry = self.reads.element(place, vec![at], DType::U32);
        let last = self.reads.add(Read::Index(Ix::constant(extent - 1)), DType::I64);
        let mut b = Builder::new(&[DType::U32, DType::I64]);
        let (found, most) = (b.input(0), b.input(1));
        let wide = b.cast(DType::I64, found);
        let index = b.min(wide, most);
        self.computed(b.finish(&[index]), &[entry, last])
    }

    /// The node after a node, as reads.
    fn step(&mut self, node: usize, row: &Ix) -> usize {
        let (features, nodes) = (self.x.shape[1].clone(), self.nodes.clone());
        let feature = self.entry(FEATURE, index(node), &features);
        let value = self.reads.element(X, vec![row.clone(), index(feature)], self.x.dtype);
        let threshold = self.reads.element(THRESHOLD, vec![index(node)], self.x.dtype);
        let mut b = Builder::new(&[self.x.dtype, self.x.dtype, DType::I64]);
        let (x, t, n) = (b.input(0), b.input(1), b.input(2));
        let below = b.le(x, t);
        let twice = b.add(n, n);
        let one = b.int(n, 1);
        let next = b.add(twice, one);
        let place = b.select(below, next, twice);
        let place = self.computed(b.finish(&[place]), &[value, threshold, node]);
        self.entry(CHILD, index(place), &nodes)
    }

    /// A stage that stores a node as a dtype.
    fn stage(self, trees: &Dim, node: usize, dtype: DType, to: (Place, Vec<Ix>)) -> Part {
        let mut b = self.reads.body();
        let n = b.input(node);
        let n = b.cast(dtype, n);
        Part::Stage(build::map(vec![parallel(trees)], self.reads, b.finish(&[n]), vec![to]))
    }
}

/// What a read holds, as an index.
fn index(read: usize) -> Ix {
    Ix::reg(Reg(read as u32))
}

impl OwnKernel for Def {
    fn kernel(&self, op: &Op, inputs: &[Type], results: &[Type]) -> Result<OwnStages, String> {
        let (x, nodes, trees) = (&inputs[0], &inputs[1].shape[0], &inputs[4].shape[0]);
        let depth = op.int("depth");
        let row = Ix::var(Var(0));
        let walk = || Walk {
            reads: Reads::default(),
            x,
            nodes,
        };
        let tree = |v: u32| Ix::var(Var(v));
        let mut locals = vec![];
        let mut parts = vec![];
        if depth <= STEPS {
            let mut w = walk();
            let mut node = w.entry(ROOT, tree(1), nodes);
            for _ in 0..depth {
                node = w.step(node, &row);
            }
            parts.push(w.stage(trees, node, DType::U32, (LEAF, vec![row, tree(1)])));
        } else {
            locals.push(Local {
                dtype: DType::I64,
                shape: vec![trees.clone()],
            });
            let mut w = walk();
            let node = w.entry(ROOT, tree(1), nodes);
            parts.push(w.stage(trees, node, DType::I64, (AT, vec![tree(1)])));
            let rounds = (depth as u64).div_ceil(STEPS as u64) as i64;
            let each = (depth as u64).div_ceil(rounds as u64) as i64;
            for (steps, extent) in [(each, depth / each), (depth % each, 1)] {
                if steps == 0 {
                    continue;
                }
                let mut w = walk();
                let from = w.reads.element(AT, vec![tree(2)], DType::I64);
                let mut node = from;
                for _ in 0..steps {
                    node = w.step(node, &row);
                }
                let body = vec![w.stage(trees, node, DType::I64, (AT, vec![tree(2)]))];
                let extent = Dim::Const(extent);
                parts.push(Part::Loop(Loop {
                    extent,
                    needed: vec![],
                    body,
                }));
            }
            let mut w = walk();
            let from = w.reads.element(AT, vec![tree(1)], DType::I64);
            parts.push(w.stage(trees, from, DType::U32, (LEAF, vec![row, tree(1)])));
        }
        Ok(OwnStages {
            operands: (0..inputs.len()).collect(),
            kernel: Kernel {
                locals,
                outer: vec![x.shape[0].clone()],
                parts,
..Kernel::of(inputs, results)
},
        })
    }
}
