//! Building one stage: expressions are collected as a small DAG while operators are composed from the store toward the
//! loads; the scalar body is made from it at the end, when all reads are known.

use brolga_ir::index::{Bound, Ix, Reg};
use brolga_ir::scalar::{Body, Builder, V};
use brolga_ir::structured::{Check, Place, Read, Stage};
use brolga_ir::{DType, Dim, Number, Value};
use rustc_hash::FxHashMap;

/// The id of an expression of a stage under construction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct E(u32);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Node {
    Read(u32),
    Const(DType, u64),
    Call(&'static str, Option<DType>, Vec<E>),
    /// A body of one result.
    Body(Body, Vec<E>),
}

impl Node {
    fn args(&self) -> &[E] {
        match self {
            Node::Call(_, _, args) | Node::Body(_, args) => args,
            Node::Read(_) | Node::Const(..) => &[],
        }
    }
}

/// A stage under construction: its reads and the expressions over them.
#[derive(Default)]
pub struct StageBuilder {
    reads: Vec<(Read, DType)>,
    nodes: Vec<(Node, DType)>,
    ids: FxHashMap<Node, E>,
    /// What is checked of indices that come from data.
    pub checks: Vec<Check>,
    /// Values that were composed already, by where they were composed.
    pub memo: FxHashMap<(Value, Vec<Ix>, Vec<Bound>), E>,
}

impl StageBuilder {
    fn node(&mut self, n: Node, dtype: DType) -> E {
        if let Some(&e) = self.ids.get(&n) {
            return e;
        }
        let e = E(self.nodes.len() as u32);
        self.nodes.push((n.clone(), dtype));
        self.ids.insert(n, e);
        e
    }

    /// The dtype of an expression.
    pub fn dtype(&self, e: E) -> DType {
        self.nodes[e.0 as usize].1
    }

    fn add_read(&mut self, r: Read, dtype: DType) -> u32 {
        match self.reads.iter().position(|(q, _)| *q == r) {
            Some(i) => i as u32,
            None => {
                self.reads.push((r, dtype));
                self.reads.len() as u32 - 1
            }
        }
    }

    /// Starts as a stage of one result, and gives what that is.
    pub fn resume(&mut self, stage: &Stage) -> E {
        self.reads = stage
            .reads
            .iter()
            .cloned()
            .zip(stage.body.inputs.iter().copied())
            .collect();
        self.checks.clone_from(&stage.checks);
        let reads = (0..).zip(&stage.body.inputs);
        let args = reads.map(|(k, &dtype)| self.node(Node::Read(k), dtype)).collect();
        self.inline(&stage.body, args)
    }

    /// What a body of one result gives.
    pub fn inline(&mut self, body: &Body, args: Vec<E>) -> E {
        self.node(Node::Body(body.clone(), args), body.output_dtypes()[0])
    }

    /// A read.
    pub fn read(&mut self, r: Read, dtype: DType) -> E {
        let k = self.add_read(r, dtype);
        self.node(Node::Read(k), dtype)
    }

    /// An element of a place, guarded; 0 out of bounds.
    pub fn element(&mut self, place: Place, map: Vec<Ix>, guard: Vec<Bound>, dtype: DType) -> E {
        self.read(
            Read::Element {
                place,
                map,
                guard,
                fill: 0,
            },
            dtype,
        )
    }

    /// An element of what is one number everywhere, guarded as [`StageBuilder::element`] is.
    ///
    /// # Errors
    /// Never: both numbers have one dtype.
    pub fn everywhere(&mut self, x: Number, guard: &[Bound], dtype: DType) -> Result<E, String> {
        let value = self.constant(dtype, x);
        if guard.is_empty() || brolga_ir::structured::bits(dtype, x) == 0 {
            return Ok(value);
        }
        let inside = self.read(Read::InBounds(guard.to_vec()), DType::Bool);
        let zero = self.constant(dtype, Number::Int(0).to(dtype));
        self.call("where", None, &[inside, value, zero])
    }

    /// The expression with another fill value, when it is a read guarded by exactly `guard`.
    pub fn refill(&mut self, e: E, guard: &[Bound], bits: u64) -> Option<E> {
        let (Node::Read(k), dtype) = self.nodes[e.0 as usize].clone() else {
            return None;
        };
        let (
            Read::Element {
                place, map, guard: g, ..
            },
            _,
        ) = self.reads[k as usize].clone()
        else {
            return None;
        };
        (g == guard).then(|| {
            self.read(
                Read::Element {
                    place,
                    map,
                    guard: g,
                    fill: bits,
                },
                dtype,
            )
        })
    }

    /// A constant.
    pub fn constant(&mut self, dtype: DType, x: Number) -> E {
        self.node(Node::Const(dtype, brolga_ir::structured::bits(dtype, x)), dtype)
    }

    /// A scalar function of expressions.
    ///
    /// # Errors
    /// When the function does not accept the dtypes.
    pub fn call(&mut self, name: &str, to: Option<DType>, args: &[E]) -> Result<E, String> {
        let f = brolga_ir::scalar::lookup(name).ok_or_else(|| format!("there is no scalar function `{name}`"))?;
        let dtypes: Vec<DType> = args.iter().map(|&a| self.dtype(a)).collect();
        let dtype = f.result(&dtypes, to)?;
        Ok(self.node(Node::Call(f.name, to, args.to_vec()), dtype))
    }

    /// The expression converted to a dtype.
    ///
    /// # Errors
    /// Never for dtypes that casts accept.
    pub fn cast(&mut self, e: E, to: DType) -> Result<E, String> {
        if self.dtype(e) == to {
            Ok(e)
        } else {
            self.call("cast", Some(to), &[e])
        }
    }

    /// The expression as a run-time integer that index maps can use.
    ///
    /// # Errors
    /// When the expression is not of integer type.
    pub fn index(&mut self, e: E) -> Result<Reg, String> {
        let e = self.cast(e, DType::I64)?;
        if let Node::Read(k) = self.nodes[e.0 as usize].0 {
            return Ok(Reg(k));
        }
        let (body, args) = self.body(&[e])?;
        Ok(Reg(self.add_read(Read::Computed(body, args), DType::I64)))
    }

    /// Checks that a run-time integer is in bounds, where the guard holds.
    pub fn check(&mut self, number: u32, index: Reg, extent: &Dim, guard: &[Bound]) {
        let check = Check {
            number,
            bounds: vec![Bound {
                index: Ix::reg(index),
                extent: extent.clone(),
            }],
            guard: guard.to_vec(),
        };
        if !self.checks.contains(&check) {
            self.checks.push(check);
        }
    }

    /// The value of an earlier read.
    pub fn value(&mut self, r: Reg) -> E {
        let dtype = self.reads[r.0 as usize].1;
        self.node(Node::Read(r.0), dtype)
    }

    /// The body that computes expressions from the reads they use, and those reads.
    fn body(&self, outputs: &[E]) -> Result<(Body, Vec<u32>), String> {
        let mut used: Vec<u32> = vec![];
        let mut needed = vec![false; self.nodes.len()];
        outputs.iter().for_each(|e| needed[e.0 as usize] = true);
        for i in (0..self.nodes.len()).rev() {
            if needed[i] {
                self.nodes[i].0.args().iter().for_each(|a| needed[a.0 as usize] = true);
            }
        }
        for (i, (n, _)) in self.nodes.iter().enumerate() {
            if needed[i]
                && let Node::Read(k) = n
            {
                used.push(*k);
            }
        }
        let dtypes: Vec<DType> = used.iter().map(|&k| self.reads[k as usize].1).collect();
        let mut b = Builder::new(&dtypes);
        let mut vs: Vec<V> = vec![V(0); self.nodes.len()];
        for (i, (n, dtype)) in self.nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
            let args: Vec<V> = n.args().iter().map(|a| vs[a.0 as usize]).collect();
            vs[i] = match n {
                Node::Read(k) => b.input(used.iter().position(|u| u == k).expect("collected above")),
                Node::Const(_, bits) => {
                    b.constant(*dtype, brolga_ir::decode(*dtype, &bits.to_le_bytes()[..dtype.bytes()]))
                }
                Node::Call(name, to, _) => b.call(name, &args, *to)?,
                Node::Body(body, _) => b.inline(body, &args)[0],
            };
        }
        let outs: Vec<V> = outputs.iter().map(|e| vs[e.0 as usize]).collect();
        Ok((b.finish(&outs), used))
    }

    /// The reads and the body of the finished stage. Every read is an input of the body, in order.
    ///
    /// # Errors
    /// When a function does not accept its dtypes.
    pub fn finish(self, outputs: &[E]) -> Result<(Vec<Read>, Body), String> {
        let (mut body, used) = self.body(outputs)?;
        // Reads that only indices use are inputs too: the body ignores them.
        let n = self.reads.len();
        let old = body.inputs.len() as u32;
        let renumber = |v: V| {
            V(if v.0 < old {
                used[v.0 as usize]
            } else {
                v.0 - old + n as u32
            })
        };
        for i in &mut body.insts {
            if let brolga_ir::scalar::Inst::Prim(_, args) = i {
                args.iter_mut().for_each(|a| *a = renumber(*a));
            }
        }
        body.outputs.iter_mut().for_each(|v| *v = renumber(*v));
        body.inputs = self.reads.iter().map(|(_, d)| *d).collect();
        Ok((self.reads.into_iter().map(|(r, _)| r).collect(), body))
    }
}
