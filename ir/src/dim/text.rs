//! How dims print. What [`Dim::too_large`] gives prints as what no reader takes, since valid IR does not hold it.

use super::{Atom, Dim};
use std::fmt;

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = self.terms();
        if terms.is_empty() {
            return f.write_str("0");
        }
        // The constant term sorts first (it has no atoms) but reads better last.
        for (i, (m, c)) in terms
            .iter()
            .skip_while(|t| t.0.is_empty())
            .chain(terms.iter().take_while(|t| t.0.is_empty()))
            .enumerate()
        {
            let sign = if *c < 0 { "-" } else { "+" };
            match (i, sign) {
                (0, "-") => f.write_str("-")?,
                (0, _) => {}
                _ => write!(f, " {sign} ")?,
            }
            let c = c.unsigned_abs();
            if m.is_empty() || c != 1 {
                write!(f, "{c}{}", if m.is_empty() { "" } else { "*" })?;
            }
            for (j, a) in m.iter().enumerate() {
                let star = if j > 0 { "*" } else { "" };
                match a {
                    Atom::Sym(s) => write!(f, "{star}{}", crate::text::symbol(s))?,
                    Atom::Op(op, x, y) => write!(f, "{star}{}({x}, {y})", op.name())?,
                    Atom::TooLarge => f.write_str("(beyond 64 bits)")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
