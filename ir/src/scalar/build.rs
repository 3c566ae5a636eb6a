//! Building bodies: instructions are shared (hash-consed), operations on constants are evaluated at once, and dead
//! instructions are dropped at the end. Nothing here changes a bit of any result, NaN payloads apart.

use super::{Body, Inst, Prim, Scalar, V, eval_prim, functions, small};
use crate::{DType, Number};
use rustc_hash::FxHashMap;

/// A body under construction.
#[derive(Clone, Debug)]
pub struct Builder {
    body: Body,
    dtypes: Vec<DType>,
    known: FxHashMap<Inst, V>,
}

impl Builder {
    /// A body with these inputs and no instructions.
    pub fn new(inputs: &[DType]) -> Builder {
        let body = Body {
            inputs: inputs.to_vec(),
            insts: vec![],
            outputs: vec![],
        };
        Builder {
            body,
            dtypes: inputs.to_vec(),
            known: FxHashMap::default(),
        }
    }

    /// An input by position; panics when there is none.
    pub fn input(&self, i: usize) -> V {
        assert!(i < self.body.inputs.len(), "input {i} of {}", self.body.inputs.len());
        V(i as u32)
    }

    /// The dtype of a value.
    pub fn dtype(&self, v: V) -> DType {
        self.dtypes[v.0 as usize]
    }

    /// A constant, converted to the dtype as [`Prim::Cast`] says.
    pub fn constant(&mut self, dtype: DType, x: Number) -> V {
        self.scalar(Scalar::new(dtype, x))
    }

    /// A constant.
    pub fn scalar(&mut self, s: Scalar) -> V {
        self.push(Inst::Const(s.dtype, s.bits), s.dtype)
    }

    /// The value of a constant.
    pub fn as_const(&self, v: V) -> Option<Scalar> {
        match self.body.inst(v) {
            Some(Inst::Const(dtype, bits)) => Some(Scalar { dtype, bits }),
            _ => None,
        }
    }

    fn push(&mut self, inst: Inst, dtype: DType) -> V {
        *self.known.entry(inst).or_insert_with(|| {
            self.body.insts.push(inst);
            self.dtypes.push(dtype);
            V(self.dtypes.len() as u32 - 1)
        })
    }

    /// A primitive; panics when [`Prim::result`] rejects the operands, which is a mistake of the caller.
    pub fn prim(&mut self, p: Prim, args: &[V]) -> V {
        let types: Vec<DType> = args.iter().map(|&v| self.dtype(v)).collect();
        let dtype = p.result(&types).unwrap_or_else(|m| panic!("{m}"));
        if let Some(v) = self.simplify(p, args, &types) {
            return v;
        }
        let mut operands = [args[0]; 3];
        operands[..args.len()].copy_from_slice(args);
        if p.is_commutative() && operands[1] < operands[0] {
            operands = [args[1], args[0], args[1]];
        } else if args.len() < 3 {
            operands[2] = args[0];
        }
        self.push(Inst::Prim(p, operands), dtype)
    }

    /// A value that the primitive equals, known without evaluating it at run time.
    fn simplify(&mut self, p: Prim, args: &[V], types: &[DType]) -> Option<V> {
        let constants: Vec<Option<Scalar>> = args.iter().map(|&v| self.as_const(v)).collect();
        match p {
            Prim::Cast(to) | Prim::Bitcast(to) if to == types[0] => return Some(args[0]),
            // Bits there and back.
            Prim::Bitcast(to) => {
                if let Some(Inst::Prim(Prim::Bitcast(_), [x, ..])) = self.body.inst(args[0])
                    && self.dtype(x) == to
                {
                    return Some(x);
                }
            }
            _ if p.chooses() && args[1] == args[2] => return Some(args[1]),
            _ if p.chooses() => {
                if let Some(c) = constants[0] {
                    return Some(if c.bits != 0 { args[1] } else { args[2] });
                }
            }
            Prim::And | Prim::Or | Prim::Min | Prim::Max if args[0] == args[1] => return Some(args[0]),
            _ => {}
        }
        let scalars: Vec<Scalar> = constants.into_iter().collect::<Option<_>>()?;
        let s = eval_prim(p, *types.last()?, &scalars);
        Some(self.scalar(s))
    }

    /// A function of the table by name, expanded in place; f16 and bf16 operands are computed in f32 and rounded at the
    /// end. `to` is the target of `cast` and `bitcast`.
    ///
    /// # Errors
    /// When there is no such function, or it does not take these dtypes.
    pub fn call(&mut self, name: &str, args: &[V], to: Option<DType>) -> Result<V, String> {
        let f = functions::lookup(name).ok_or_else(|| format!("there is no scalar function `{name}`"))?;
        f.expand(self, args, to)
    }

    /// The results of a valid body, expanded in place; panics when the operands' dtypes are not its inputs'.
    pub fn inline(&mut self, body: &Body, args: &[V]) -> Vec<V> {
        let types: Vec<DType> = args.iter().map(|&v| self.dtype(v)).collect();
        assert_eq!(types, body.inputs, "operands of a body");
        let mut map = args.to_vec();
        for inst in &body.insts {
            let v = match *inst {
                Inst::Const(dtype, bits) => self.scalar(Scalar { dtype, bits }),
                Inst::Prim(p, operands) => {
                    let operands = operands.map(|v| map[v.0 as usize]);
                    self.prim(p, &operands[..p.arity()])
                }
            };
            map.push(v);
        }
        body.outputs.iter().map(|v| map[v.0 as usize]).collect()
    }

    /// The finished body, without the instructions that no output needs. All inputs stay.
    pub fn finish(self, outputs: &[V]) -> Body {
        let n = self.body.inputs.len();
        let mut live = vec![false; self.body.len()];
        for v in outputs {
            live[v.0 as usize] = true;
        }
        for (i, inst) in self.body.insts.iter().enumerate().rev() {
            if let (true, Inst::Prim(_, args)) = (live[n + i], inst) {
                for v in args {
                    live[v.0 as usize] = true;
                }
            }
        }
        let mut map: Vec<V> = (0..n as u32).map(V).collect();
        let mut body = Body {
            inputs: self.body.inputs,
            insts: vec![],
            outputs: vec![],
        };
        for (i, inst) in self.body.insts.into_iter().enumerate() {
            map.push(V(body.len() as u32));
            if live[n + i] {
                body.insts.push(match inst {
                    Inst::Prim(p, args) => Inst::Prim(p, args.map(|v| map[v.0 as usize])),
                    constant => constant,
                });
            }
        }
        body.outputs = outputs.iter().map(|v| map[v.0 as usize]).collect();
        body
    }
}

/// Shorthands, in which the expansions are written.
macro_rules! shorthand {
    ($($name:ident($($arg:ident),*) = $prim:ident;)*) => {
        impl Builder {$(
            #[doc = concat!("[`Prim::", stringify!($prim), "`].")]
            pub fn $name(&mut self, $($arg: V),*) -> V {
                self.prim(Prim::$prim, &[$($arg),*])
            }
        )*}
    };
}
shorthand! {
    add(a, b) = Add;
    sub(a, b) = Sub;
    mul(a, b) = Mul;
    div(a, b) = Div;
    rem(a, b) = Rem;
    fma(a, b, c) = Fma;
    neg(a) = Neg;
    abs(a) = Abs;
    min(a, b) = Min;
    max(a, b) = Max;
    floor(a) = Floor;
    ceil(a) = Ceil;
    trunc(a) = Trunc;
    round(a) = Round;
    sqrt(a) = Sqrt;
    eq(a, b) = Eq;
    ne(a, b) = Ne;
    lt(a, b) = Lt;
    le(a, b) = Le;
    and(a, b) = And;
    or(a, b) = Or;
    xor(a, b) = Xor;
    not(a) = Not;
    shl(a, b) = Shl;
    shr(a, b) = Shr;
    select(c, a, b) = Select;
    rarely(c, a, b) = Rarely;
}

impl Builder {
    /// A conversion: [`Prim::Cast`], expanded for small types.
    pub fn cast(&mut self, to: DType, a: V) -> V {
        let from = self.dtype(a);
        if from == to {
            return a;
        }
        let number = match from.small() {
            Some(s) => small::decode(self, s, a),
            None => a,
        };
        match to.small() {
            Some(s) => small::encode(self, to, s, number),
            None => self.prim(Prim::Cast(to), &[number]),
        }
    }
    /// [`Prim::Bitcast`].
    pub fn bitcast(&mut self, to: DType, a: V) -> V {
        self.prim(Prim::Bitcast(to), &[a])
    }
    /// A constant of the dtype of `like`: the float or integer nearest to `x`.
    pub fn lit(&mut self, like: V, x: f64) -> V {
        self.constant(self.dtype(like), Number::Float(x))
    }
    /// An integer constant of the dtype of `like`.
    pub fn int(&mut self, like: V, x: i128) -> V {
        self.constant(self.dtype(like), Number::Int(x))
    }
}
