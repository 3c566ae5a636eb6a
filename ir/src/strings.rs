//! Strings: inside of a program one is a number, and equal strings have equal numbers, so that moving and comparing them are kernels like
//! others on [`DType::Str`](crate::DType::Str), 4 bytes an element.
//!
//! The strings that a program knows have the numbers 0, 1, 2 … in the order of its list; what a run brings along, or makes, gets numbers
//! behind them. Who runs a program holds its [`Strings`] as long as numbers that came out are to be read, and drops them then: nothing
//! grows from run to run.
//!
//! ```
//! # use brolga_ir::Strings;
//! let strings = Strings::new(["cat", "dog"]);
//! let t = strings.tensor(&[3], &["dog", "emu", "dog"]).unwrap();
//! assert_eq!(t.to_i64s(), [1, 2, 1]);
//! assert_eq!(strings.texts(&t).unwrap()[1], "emu".into());
//! ```

use crate::{DType, Number, Tensor};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Strings by number, in order.
#[derive(Default)]
struct Table {
    texts: Vec<Arc<str>>,
    numbers: FxHashMap<Arc<str>, u32>,
}

impl Table {
    fn add(&mut self, s: &str, first: usize) -> u32 {
        if let Some(&n) = self.numbers.get(s) {
            return n;
        }
        let n = u32::try_from(first + self.texts.len()).expect("memory holds fewer strings than there are numbers");
        let s: Arc<str> = s.into();
        self.texts.push(s.clone());
        self.numbers.insert(s, n);
        n
    }
}

/// Numbered strings. A clone has the same ones.
#[derive(Clone, Default)]
pub struct Strings {
    /// Those of the program.
    known: Arc<Table>,
    /// Those behind them.
    more: Arc<Mutex<Table>>,
}

impl Strings {
    /// With the strings of a program; of equal ones the first gives its number.
    pub fn new<S: AsRef<str>>(known: impl IntoIterator<Item = S>) -> Strings {
        let mut table = Table::default();
        for (n, s) in known.into_iter().enumerate() {
            let s: Arc<str> = s.as_ref().into();
            table.texts.push(s.clone());
            table.numbers.entry(s).or_insert(n as u32);
        }
        Strings {
            known: Arc::new(table),
            more: Arc::default(),
        }
    }

    /// The same program's strings, with nothing behind them.
    pub fn fresh(&self) -> Strings {
        Strings {
            known: self.known.clone(),
            more: Arc::default(),
        }
    }

    /// The number of a string, a new one if it has none.
    pub fn number(&self, s: &str) -> u32 {
        match self.known.numbers.get(s) {
            Some(&n) => n,
            None => self.more().add(s, self.known.texts.len()),
        }
    }

    /// The string of a number.
    pub fn text(&self, number: u32) -> Option<Arc<str>> {
        let n = number as usize;
        match n.checked_sub(self.known.texts.len()) {
            None => Some(self.known.texts[n].clone()),
            Some(n) => self.more().texts.get(n).cloned(),
        }
    }

    /// All strings, in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<str>> {
        let more = self.more();
        self.known.texts.iter().chain(&more.texts).cloned().collect()
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn tensor<S: AsRef<str>>(&self, shape: &[usize], texts: &[S]) -> Result<Tensor, String> {
        let numbers: Vec<u8> = texts
            .iter()
            .flat_map(|s| self.number(s.as_ref()).to_le_bytes())
            .collect();
        Tensor::new(DType::Str, shape.to_vec(), numbers).map_err(|_| format!("{} strings for {shape:?}", texts.len()))
    }

    /// The strings of a tensor.
    ///
    /// # Errors
    /// When it holds none, or a number that none has.
    pub fn texts(&self, t: &Tensor) -> Result<Vec<Arc<str>>, String> {
        if t.dtype() != DType::Str {
            return Err(format!("{t:?} where strings are expected"));
        }
        let text = |n: Number| {
            let n = n.int() as u32;
            self.text(n).ok_or_else(|| format!("there is no string {n}"))
        };
        t.iter().map(text).collect()
    }

    /// Runs something that makes strings, which get numbers here.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        /// Puts back what was there, whatever happens.
        struct Back(Option<Strings>);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.with(|c| *c.borrow_mut() = self.0.take());
            }
        }
        let _back = Back(CURRENT.with(|c| c.borrow_mut().replace(self.clone())));
        f()
    }

    /// Those of the innermost [`Strings::scope`] around the caller.
    ///
    /// # Errors
    /// When there is none.
    pub fn current() -> Result<Strings, String> {
        let found = CURRENT.with(|c| c.borrow().clone());
        found.ok_or_else(|| "strings are made, but nobody holds them (see `Strings::scope`)".to_owned())
    }

    fn more(&self) -> std::sync::MutexGuard<'_, Table> {
        // A table is whole between any two calls.
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Strings>> = const { RefCell::new(None) };
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} strings", self.all().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_adds_to_what_the_program_knows_and_leaves_nothing() {
        let program = Strings::new(["a", "b"]);
        let run = program.fresh();
        assert_eq!((run.number("b"), run.number("c"), run.number("c")), (1, 2, 2));
        assert_eq!(run.text(2).as_deref(), Some("c"));
        assert_eq!(run.text(3), None);
        assert_eq!(program.all().len(), 2);
        assert_eq!(program.fresh().number("d"), 2);
        assert!(run.texts(&Tensor::from_i64(&[1], &[0])).is_err());
        assert!(run.tensor(&[2], &["a"]).is_err());
    }

    #[test]
    fn scopes_nest() {
        assert!(Strings::current().is_err());
        let (outer, inner) = (Strings::default(), Strings::default());
        outer.scope(|| {
            inner.scope(|| Strings::current().unwrap().number("x"));
            assert_eq!(Strings::current().unwrap().all().len(), 0);
        });
        assert_eq!(inner.all().len(), 1);
        assert!(Strings::current().is_err());
    }
}
