//! The element-wise calculus in which cells are written once: over the scalars of a kernel's stage, and over the tensors of a
//! decomposition.

use crate::scalar::{Builder, V};
use crate::{Build, Number, Value};

/// Something that functions of [`crate::scalar::functions`] are called in.
pub trait Calls {
    /// A value.
    type V: Copy;
    /// A function of values.
    ///
    /// # Errors
    /// When it does not take them.
    fn call(&mut self, name: &str, args: &[Self::V]) -> Result<Self::V, String>;
    /// A number, of the type of another value.
    ///
    /// # Errors
    /// Never for valid types.
    fn number(&mut self, like: Self::V, x: f64) -> Result<Self::V, String>;
    /// A function of a value and a number.
    ///
    /// # Errors
    /// When it does not take them.
    fn with(&mut self, name: &str, v: Self::V, x: f64) -> Result<Self::V, String> {
        let x = self.number(v, x)?;
        self.call(name, &[v, x])
    }
}

impl Calls for Builder {
    type V = V;
    fn call(&mut self, name: &str, args: &[V]) -> Result<V, String> {
        Builder::call(self, name, args, None)
    }
    fn number(&mut self, like: V, x: f64) -> Result<V, String> {
        Ok(self.constant(self.dtype(like), Number::Float(x)))
    }
}

/// Tensors of one shape.
pub struct Tensors<'b>(pub &'b mut dyn Build);

impl Calls for Tensors<'_> {
    type V = Value;
    fn call(&mut self, name: &str, args: &[Value]) -> Result<Value, String> {
        self.0.call(name, &[], args)
    }
    fn number(&mut self, like: Value, x: f64) -> Result<Value, String> {
        let ty = self.0.type_of(like);
        self.0.splat(ty.dtype, &ty.shape, x)
    }
}
