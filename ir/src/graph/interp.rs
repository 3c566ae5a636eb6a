//! The reference interpreter of graphs: one node after the other, by its operator's reference evaluation.

use super::{Def, Graph, NodeError, Read, Value};
use crate::{Symbol, Tensor};

impl Graph {
    /// The reference interpreter of level 1: the outputs for the given inputs, in the graph's orders.
    ///
    /// # Errors
    /// When an input does not fit its type, two inputs give a symbol different values, or an operator's reference
    /// evaluation fails; the error names the node.
    pub fn eval(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, NodeError> {
        let fail = |node: &str, message: String| NodeError {
            node: node.to_string(),
            message,
        };
        let mut env = self.bind(inputs).map_err(|e| fail("", e))?;
        // Values are dropped at their last use: an interpreter of a large network would else hold all of it.
        let mut last = vec![0usize; self.values.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| last[v.0 as usize] = n);
        }
        self.roots().for_each(|v| last[v.0 as usize] = usize::MAX);
        let mut values: Vec<Option<Tensor>> = vec![None; self.values.len()];
        let get = |values: &Vec<Option<Tensor>>, v: Value| match self.def(v) {
            Def::Input(i) => inputs[i as usize].clone(),
            Def::Const(c) => self.constants[c as usize].to_tensor(),
            Def::Node(..) => values[v.0 as usize].clone().expect("the graph is in topological order"),
        };
        let mut reads = self.reads.iter().peekable();
        let mut read = |env: &mut Vec<(Symbol, i64)>, values: &Vec<Option<Tensor>>| {
            let known = |r: &&Read| values[r.value.0 as usize].is_some() || !matches!(self.def(r.value), Def::Node(..));
            while let Some(r) = reads.next_if(known) {
                let n = r.number(&get(values, r.value), &|s| number(env, s));
                env.push((r.symbol.clone(), n.map_err(|e| fail(&r.origin, e))?));
                self.check_guards(env).map_err(|e| fail(&r.origin, e))?;
            }
            Ok(())
        };
        read(&mut env, &values)?;
        for (n, node) in self.nodes.iter().enumerate() {
            let lookup = |s: &str| number(&env, s);
            let args: Vec<Tensor> = node.inputs.iter().map(|&v| get(&values, v)).collect();
            let op = node.op.concrete(&lookup).map_err(|e| fail(&node.origin, e))?;
            let outs = op
                .eval(&args)
                .map_err(|e| fail(&node.origin, format!("{}: {e}", op.name())))?;
            for (&o, t) in node.outputs.iter().zip(outs) {
                values[o.0 as usize] = Some(t);
            }
            read(&mut env, &values)?;
            for v in &node.inputs {
                if last[v.0 as usize] == n {
                    values[v.0 as usize] = None;
                }
            }
        }
        Ok(self.outputs.iter().map(|&(_, v)| get(&values, v)).collect())
    }

    /// The symbols' values under which the inputs have the given shapes.
    ///
    /// # Errors
    /// When dtype, rank or an extent contradicts an input's type.
    pub fn bind(&self, inputs: &[Tensor]) -> Result<Vec<(Symbol, i64)>, String> {
        if inputs.len() != self.inputs.len() {
            return Err(format!("{} inputs given, {} expected", inputs.len(), self.inputs.len()));
        }
        let mut env: Vec<(Symbol, i64)> = vec![];
        for (input, t) in self.inputs.iter().zip(inputs) {
            let ty = self.ty(input.value);
            let bad = || format!("input `{}` is {}{:?}, expected {ty}", input.name, t.dtype(), t.shape());
            if t.dtype() != ty.dtype || t.shape().len() != ty.rank() {
                return Err(bad());
            }
            for (d, &n) in ty.shape.iter().zip(t.shape()) {
                if let Some(s) = d.as_symbol() {
                    match env.iter().find(|(k, _)| k == s) {
                        Some((_, v)) if *v != n as i64 => return Err(format!("{}: `{s}` is {v} elsewhere", bad())),
                        Some(_) => {}
                        None => env.push((s.clone(), n as i64)),
                    }
                } else if d.as_const().is_some_and(|c| c != n as i64) {
                    return Err(bad());
                }
            }
        }
        self.check_guards(&env)?;
        Ok(env)
    }

    /// Checks the guards that are about known symbols only.
    fn check_guards(&self, env: &[(Symbol, i64)]) -> Result<(), String> {
        let mut known = self.guards.iter().filter(|g| {
            let mut all = true;
            g.for_each_symbol(&mut |s| all &= number(env, s).is_some());
            all
        });
        known.try_for_each(|g| g.check(&|s| number(env, s)))
    }
}

fn number(env: &[(Symbol, i64)], symbol: &str) -> Option<i64> {
    env.iter().find(|(k, _)| **k == *symbol).map(|(_, v)| *v)
}

impl Read {
    /// The size that a value tells, where symbols have these values.
    ///
    /// # Errors
    /// When it is negative, or above the bound.
    pub fn number(&self, value: &Tensor, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, String> {
        let n = i64::try_from(value.get(0).int()).unwrap_or(-1);
        if n < 0 {
            return Err(format!(
                "the size `{}` is {}, expected at least 0",
                self.symbol,
                value.get(0).int()
            ));
        }
        if let Some(bound) = &self.bound {
            let most = bound.value(lookup).map_err(|e| e.to_string())?;
            if n > most {
                return Err(format!("the size `{}` is {n}, expected at most {most}", self.symbol));
            }
        }
        Ok(n)
    }
}
