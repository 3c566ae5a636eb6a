//! A network under construction, in the terms that papers and modelling code use: linear layers, norms, embeddings, attention.
//!
//! Invariant: activations are f32, and so are sums. A product with weights in f16 takes them as the same numbers in f32; one with weights in
//! bf16 rounds its other operand to bf16, as modelling code that runs in bf16 does. Both are read as they are stored; what has more bits than f32
//! is rounded to it.

use super::Form;
use super::compress::{Compressed, WeightType, multiplied};
use super::error::Fail;
use super::steps::CacheType;
use super::weights::Weights;
use brolga_ir::graph::Read;
use brolga_ir::{Attr, Build, DType, Dim, Graph, Number, Op, Tensor, Type, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// A value, or why there is none.
pub type One = Result<Value, Fail>;

/// The graph, and the weights that it takes.
pub struct Net {
    /// The graph.
    pub graph: Graph,
    /// The weights.
    pub weights: Weights,
    /// Inputs that a caller wants to give, beside those that every model has.
    pub with: Vec<String>,
    /// What the graph is for.
    pub form: Form,
    /// What keys and values are kept as, in steps.
    pub kv: CacheType,
    /// The farthest that a layer sees which keeps a ring.
    pub window: Option<usize>,
    /// What matrices become, where they do not stay as they are stored.
    pub weights_as: Option<WeightType>,
    /// Those that were, by the stored matrix and the dimension that is summed over.
    pub packed: HashMap<(Value, usize), Compressed>,
    /// Operands of products with them in integers, by the value and the zero of the weights.
    pub quantized: HashMap<(Value, i64), [Value; 4]>,
    /// Bytes of the matrices that products read, as they are kept.
    pub streamed: HashMap<Value, u64>,
    /// The module that is being built, named as its tensors are.
    pub module: Arc<str>,
}

/// How a norm is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square, with a scale.
    Rms {
        /// Added below the root.
        eps: f64,
        /// Added to the scale that is stored: 1 for Gemma.
        plus: f64,
    },
    /// Mean and variance, with a scale and a bias.
    Layer {
        /// Added below the root.
        eps: f64,
    },
}

/// Scores of attention beside the products.
pub struct Scores {
    /// A factor of the products.
    pub scale: f64,
    /// `c tanh(s / c)` of them where it is above 0.
    pub softcap: f64,
    /// Hides keys behind the query, which is this many keys behind the first one.
    pub causal: Option<Dim>,
    /// Added to the scores: `[batch, heads, queries, keys]`, each its own or 1.
    pub bias: Option<Value>,
    /// False hides a key: bools as `bias`.
    pub mask: Option<Value>,
}

impl Scores {
    /// Scores that are the products alone, with a factor.
    pub fn scaled(scale: f64) -> Scores {
        Scores {
            scale,
            softcap: 0.0,
            causal: None,
            bias: None,
            mask: None,
        }
    }
}

impl Build for Net {
    fn add(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>, String> {
        self.graph.add(op, inputs, &self.module).map_err(|e| e.message)
    }
    fn type_of(&self, v: Value) -> Type {
        self.graph.ty(v).clone()
    }
    fn scalar(&mut self, dtype: DType, x: Number) -> Value {
        self.graph.dense(Tensor::scalar(dtype, x))
    }
}

impl Net {
    /// An empty network.
    pub fn new(name: &str, weights: Weights, with: &[String], form: Form) -> Net {
        Net {
            graph: Graph::new(name),
            weights,
            with: with.to_vec(),
            form,
            kv: CacheType::F32,
            window: None,
            weights_as: None,
            packed: HashMap::new(),
            quantized: HashMap::new(),
            streamed: HashMap::new(),
            module: "".into(),
        }
    }

    /// Names the module that the next nodes belong to.
    pub fn enter(&mut self, module: &str) {
        self.module = module.into();
    }

    /// An input; extents that are texts are symbols.
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Value {
        self.graph.input(name, Type::new(dtype, shape))
    }

    /// An input that there is only where a caller wants to give it.
    pub fn optional_input(&mut self, name: &str, dtype: DType, shape: &[Dim]) -> Option<Value> {
        let at = self.with.iter().position(|w| w == name)?;
        self.with.remove(at);
        Some(self.input(name, dtype, shape))
    }

    /// Adds a result.
    pub fn output(&mut self, name: &str, v: Value) {
        self.graph.outputs.push((name.to_owned(), v));
    }

    /// Adds a result that a caller looks at: it stands before caches.
    pub fn result(&mut self, name: &str, v: Value) {
        self.graph.outputs.insert(0, (name.to_owned(), v));
    }

    /// The extents of a value.
    pub fn shape(&self, v: Value) -> Vec<Dim> {
        self.graph.ty(v).shape.clone()
    }

    /// A size that the elements of a run tell, at most `bound`.
    ///
    /// # Errors
    /// Never for one integer.
    pub fn read(&mut self, name: &str, v: Value, bound: Dim) -> Result<Dim, Fail> {
        let value = self.reshaped(v, &[])?;
        self.graph.reads.push(Read {
            symbol: name.into(),
            value,
            bound: Some(bound),
            origin: self.module.clone(),
        });
        Ok(Dim::sym(name))
    }

    /// A stored tensor.
    pub fn weight(&mut self, name: &str, shape: &[usize]) -> Value {
        self.weights.take(&mut self.graph, name, shape)
    }

    /// A stored tensor in f32: for vectors, which are small.
    ///
    /// # Errors
    /// Never.
    pub fn vector(&mut self, name: &str, shape: &[usize]) -> One {
        let v = self.weight(name, shape);
        let v = self.elements(v)?;
        self.cast(v, DType::F32)
    }

    /// A value in another type.
    ///
    /// # Errors
    /// When there is no such conversion.
    pub fn cast(&mut self, v: Value, to: DType) -> One {
        match self.graph.ty(v).dtype == to {
            true => Ok(v),
            false => Ok(self.call("cast", &[Attr::DType(to)], &[v])?),
        }
    }

    /// An element-wise function, of operands that broadcast to the first one's shape.
    ///
    /// # Errors
    /// When they do not.
    pub fn map(&mut self, name: &str, operands: &[Value]) -> One {
        let shape = self.shape(operands[0]);
        let mut all = vec![];
        for &v in operands {
            all.push(self.spread(v, &shape)?);
        }
        Ok(self.call(name, &[], &all)?)
    }

    /// An element-wise function of a value and a number.
    ///
    /// # Errors
    /// When the function has no such operands.
    pub fn map_num(&mut self, name: &str, v: Value, x: f64) -> One {
        let ty = self.type_of(v);
        let x = self.splat(ty.dtype, &ty.shape, x)?;
        Ok(self.call(name, &[], &[v, x])?)
    }

    /// An activation by the name that modelling code has for it.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn activation(&mut self, name: &str, x: Value) -> One {
        let function = match name {
            "gelu" | "gelu_python" => "gelu",
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => "gelu_tanh",
            "relu" => return self.map_num("max", x, 0.0),
            "relu2" | "relu_squared" => {
                let x = self.map_num("max", x, 0.0)?;
                return self.map("mul", &[x, x]);
            }
            "silu" | "swish" => "silu",
            "quick_gelu" => {
                let wide = self.map_num("mul", x, 1.702)?;
                let gate = self.map("sigmoid", &[wide])?;
                return self.map("mul", &[x, gate]);
            }
            "mish" => "mish",
            "tanh" => "tanh",
            "sigmoid" => "sigmoid",
            "linear" => return Ok(x),
            _ => {
                let known =
                    "gelu, gelu_new, gelu_pytorch_tanh, relu, relu2, silu, quick_gelu, mish, tanh, sigmoid or linear";
                return Err(Fail::Module(format!(
                    "activation `{name}` is not supported, expected {known}"
                )));
            }
        };
        self.map(function, &[x])
    }

    /// `x wᵀ` over the last dimension of `x` and dimension `over` of a stored matrix.
    ///
    /// # Errors
    /// When extents differ.
    pub fn product(&mut self, x: Value, w: Value, over: usize) -> One {
        if let Some(compressed) = self.compressed(w, over)? {
            self.streamed.insert(w, compressed.bytes());
            return self.compressed_product(x, &compressed);
        }
        let stored = self.type_of(w).dtype;
        let w = self.floats(w)?;
        let ty = self.type_of(w);
        let [other, kept] = multiplied(ty.dtype);
        let elements = ty.len().as_const().unwrap_or(0) as u64;
        // What is stored in 16 bits is read so where f32 is asked for, too.
        let bytes = if stored.is_half() {
            kept.bytes().min(stored.bytes())
        } else {
            kept.bytes()
        };
        self.streamed.insert(w, elements * bytes as u64);
        let (x, w) = (self.cast(x, other)?, self.cast(w, kept)?);
        let last = self.graph.ty(x).rank() - 1;
        let f32 = || Attr::DType(DType::F32);
        let attrs = [
            Attr::axes(&[]),
            Attr::axes(&[]),
            Attr::axes(&[last]),
            Attr::axes(&[over]),
            f32(),
            f32(),
        ];
        Ok(self.call("contract", &attrs, &[x, w])?)
    }

    /// A linear layer of the module `name`, `weight` of `[out, in]` and perhaps `bias`.
    ///
    /// # Errors
    /// When `x` has no such last extent.
    pub fn linear(&mut self, x: Value, name: &str, [out, inner]: [usize; 2], bias: bool) -> One {
        self.enter(name);
        let w = self.weight(&format!("{name}.weight"), &[out, inner]);
        let y = self.product(x, w, 1)?;
        match bias {
            true => self.add_vector(y, &format!("{name}.bias"), out),
            false => Ok(y),
        }
    }

    /// `x` plus a stored vector of its last extent.
    ///
    /// # Errors
    /// When it is of another length.
    pub fn add_vector(&mut self, x: Value, name: &str, size: usize) -> One {
        let b = self.vector(name, &[size])?;
        self.map("add", &[x, b])
    }

    /// A norm over the last dimension.
    ///
    /// # Errors
    /// When `x` has another last extent.
    pub fn norm(&mut self, x: Value, name: &str, norm: Norm) -> One {
        self.enter(name);
        let last = self.graph.ty(x).rank() - 1;
        let size = self.shape(x)[last].as_const().unwrap_or(0) as usize;
        // Early folders have names that TensorFlow gave.
        let [weight, bias] = match self.weights.has(&format!("{name}.gamma")) {
            true => ["gamma", "beta"],
            false => ["weight", "bias"],
        };
        let mut scale = self.vector(&format!("{name}.{weight}"), &[size])?;
        let axis = Attr::Int(last as i64);
        Ok(match norm {
            Norm::Rms { eps, plus } => {
                if plus != 0.0 {
                    scale = self.map_num("add", scale, plus)?;
                }
                self.call("rms_norm", &[axis, Attr::num(eps)], &[x, scale])?
            }
            Norm::Layer { eps } => {
                let bias = self.vector(&format!("{name}.{bias}"), &[size])?;
                self.call("layer_norm", &[axis, Attr::num(eps)], &[x, scale, bias])?
            }
        })
    }

    /// Rows of a stored table, by index.
    ///
    /// # Errors
    /// When the indices are no integers.
    pub fn embedding(&mut self, ids: Value, name: &str, [rows, size]: [usize; 2]) -> One {
        self.enter(name);
        let table = self.weight(&format!("{name}.weight"), &[rows, size]);
        if let Some(v) = self.packed_rows(ids, table)? {
            return Ok(v);
        }
        if let Some(compressed) = self.compressed(table, 1)? {
            return self.compressed_rows(ids, &compressed);
        }
        let table = self.floats(table)?;
        let v = self.call("gather", &[Attr::Int(0)], &[table, ids])?;
        self.cast(v, DType::F32)
    }

    /// `[0, 1, …]` along an axis.
    ///
    /// # Errors
    /// When there is no such axis.
    pub fn iota(&mut self, shape: &[Dim], axis: usize) -> One {
        let attrs = [
            Attr::DType(DType::I64),
            Attr::Dims(shape.to_vec()),
            Attr::Int(axis as i64),
        ];
        Ok(self.call("iota", &attrs, &[])?)
    }

    /// A size as an integer of rank 0.
    ///
    /// # Errors
    /// Never.
    pub fn size(&mut self, d: &Dim) -> One {
        let v = self.call("dims", &[Attr::Dims(vec![d.clone()])], &[])?;
        Ok(self.reshaped(v, &[])?)
    }

    /// `size` elements from `start` on along an axis.
    ///
    /// # Errors
    /// When they are not there.
    pub fn slice(&mut self, v: Value, axis: usize, start: Dim, size: Dim) -> One {
        let mut sizes = self.shape(v);
        if start.is(0) && sizes[axis] == size {
            return Ok(v);
        }
        let mut starts = vec![Dim::ZERO; sizes.len()];
        (starts[axis], sizes[axis]) = (start, size);
        let steps = Attr::Ints(vec![1; sizes.len()]);
        Ok(self.call("slice", &[Attr::Dims(starts), Attr::Dims(sizes), steps], &[v])?)
    }

    /// The first token of `[batch, sequence, hidden]`, as `[batch, hidden]`.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(&mut self, x: Value) -> One {
        let s = self.shape(x);
        let first = self.slice(x, 1, Dim::ZERO, Dim::ONE)?;
        Ok(self.reshaped(first, &[s[0].clone(), s[2].clone()])?)
    }

    /// Parts of the last dimension, of these sizes.
    ///
    /// # Errors
    /// When they are more than it has.
    pub fn split<const N: usize>(&mut self, v: Value, sizes: [usize; N]) -> Result<[Value; N], Fail> {
        let last = self.graph.ty(v).rank() - 1;
        let (mut parts, mut at) = ([v; N], 0);
        for (part, size) in parts.iter_mut().zip(sizes) {
            *part = self.slice(v, last, Dim::from(at), Dim::from(size))?;
            at += size;
        }
        Ok(parts)
    }

    /// `[…, heads · size]` as `[…, heads, size]`.
    ///
    /// # Errors
    /// When the last extent is another one.
    pub fn heads(&mut self, v: Value, heads: usize, size: usize) -> One {
        let mut shape = self.shape(v);
        shape.pop();
        shape.extend([Dim::from(heads), Dim::from(size)]);
        Ok(self.reshaped(v, &shape)?)
    }

    /// Attention of `q` `[batch, queries, heads, size]` to `k` and `v` `[batch, keys, heads, size]`, of which the heads may be fewer, as
    /// `[batch, queries, heads · size]`.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn attention(&mut self, q: Value, k: Value, v: Value, scores: &Scores) -> One {
        self.attention_in(q, [k, v], [[0, 2, 1, 3]; 2], scores)
    }

    /// The same of keys and values whose axes stand in orders of their own: where `[batch, heads, keys, size]` are in each.
    ///
    /// # Errors
    /// When extents do not fit.
    pub fn attention_in(&mut self, q: Value, [k, v]: [Value; 2], orders: [[usize; 4]; 2], scores: &Scores) -> One {
        const HEADS: [usize; 4] = [0, 2, 1, 3];
        let hides = scores.mask.is_some() || scores.causal.is_some() || scores.bias.is_some();
        let attrs = [
            Attr::axes(&HEADS),
            Attr::axes(&orders[0]),
            Attr::axes(&orders[1]),
            Attr::axes(&HEADS),
            Attr::num(scores.scale),
            Attr::num(scores.softcap),
            Attr::num(f64::NEG_INFINITY),
            Attr::Bool(scores.causal.is_some()),
            Attr::Dims(vec![scores.causal.clone().unwrap_or(Dim::ZERO)]),
            Attr::word(if hides { "unseen" } else { "never" }),
        ];
        let operands: Vec<Value> = [q, k, v].into_iter().chain(scores.bias).chain(scores.mask).collect();
        let y = self.call("attention", &attrs, &operands)?;
        let s = self.shape(y);
        Ok(self.reshaped(y, &[s[0].clone(), s[1].clone(), &s[2] * &s[3]])?)
    }

    /// Both bools, where there are two.
    ///
    /// # Errors
    /// When neither broadcasts to the other.
    pub fn both(&mut self, a: Option<Value>, b: Option<Value>) -> Result<Option<Value>, Fail> {
        let (Some(a), Some(b)) = (a, b) else {
            return Ok(a.or(b));
        };
        let wider = |a: &Dim, b: &Dim| if a.is(1) { b.clone() } else { a.clone() };
        let shape: Vec<Dim> = self
            .shape(a)
            .iter()
            .zip(&self.shape(b))
            .map(|(a, b)| wider(a, b))
            .collect();
        let (a, b) = (self.spread(a, &shape)?, self.spread(b, &shape)?);
        Ok(Some(self.call("and", &[], &[a, b])?))
    }

    /// A mask of tokens `[batch, keys]`, 0 for padding, as bools that hide keys from scores.
    ///
    /// # Errors
    /// Never.
    pub fn padding(&mut self, mask: Value) -> One {
        let s = self.shape(mask);
        let seen = self.cast(mask, DType::Bool)?;
        Ok(self.reshaped(seen, &[s[0].clone(), Dim::ONE, Dim::ONE, s[1].clone()])?)
    }
}
