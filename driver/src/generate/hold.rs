//! What holds a text to a form, or nothing: without the feature `grammar` there is nothing.

#[cfg(feature = "grammar")]
use super::grammar::Constraint;
use crate::Result;

/// What holds a text to a form, as far as the text has come; by default nothing.
#[derive(Clone, Default)]
pub struct Hold {
    #[cfg(feature = "grammar")]
    constraint: Option<Constraint>,
}

#[cfg(feature = "grammar")]
impl From<Constraint> for Hold {
    fn from(constraint: Constraint) -> Hold {
        Hold {
            constraint: Some(constraint),
        }
    }
}

#[cfg(feature = "grammar")]
impl Hold {
    /// True where any text will do.
    pub fn is_free(&self) -> bool {
        self.constraint.is_none()
    }

    /// Takes tokens that may not follow out of logits: they become minus infinity.
    ///
    /// # Errors
    /// When the grammar became too large to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<()> {
        self.constraint.as_mut().map_or(Ok(()), |c| c.mask(logits))
    }

    /// Takes the next token; true where the text is whole, and nothing may follow.
    ///
    /// # Errors
    /// When it may not follow.
    pub fn push(&mut self, token: i64) -> Result<bool> {
        self.constraint.as_mut().map_or(Ok(false), |c| c.push(token))
    }
}

#[cfg(not(feature = "grammar"))]
impl Hold {
    /// True where any text will do.
    pub fn is_free(&self) -> bool {
        true
    }

    /// Takes tokens that may not follow out of logits: none.
    ///
    /// # Errors
    /// Never.
    pub fn mask(&mut self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    /// Takes the next token; false.
    ///
    /// # Errors
    /// Never.
    pub fn push(&mut self, _: i64) -> Result<bool> {
        Ok(false)
    }
}
