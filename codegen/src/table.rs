//! Sizes as data: what `NAME_plan` computes and checks, for the evaluator of `clif::evaluator`.
//!
//! Programs with symbols have hundreds of sizes, each of which is computed once a run, with a check of each step. As code that
//! is most of an entry function, and takes longest to compile; as a table it is compiled once for all programs.
//!
//! A table is words of 64 bits. Values lie in places of an array, 8 bytes each: integers, and bounds in f64. An accumulator of
//! each kind starts at 0 and takes sums:
//!
//! ```text
//! 64*floordiv(4*m*n + 63, 64) - n      term 4 m n; term 63; keep t; divide t t 64; term 64 t; term -1 n
//! ```
//!
//! Invariant: steps are those of [`Dim::value`], in its order; each that leaves 64 bits or divides by 0 raises a flag, which
//! [`Op::Wrong`] asks for. What has no value gives some number until then.

use crate::Error;
use brolga_ir::dim::Atom;
use brolga_ir::{Dim, DimOp, Relation, Symbol};
use rustc_hash::FxHashMap;

/// The first word of an entry: what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
pub(crate) enum Op {
    /// The end: all is well.
    End,
    /// `n, c, places…`: adds `c` times the product of `n` values.
    Term,
    /// `to`: takes the sum.
    Keep,
    /// `to, a, b`: an operation of two values.
    Min,
    Max,
    FloorDiv,
    CeilDiv,
    Mod,
    /// `status`: returns it where a step since the last time went wrong.
    Wrong,
    /// `status, a`: returns it where a value is negative.
    Negative,
    /// `status, a, b`: returns it where two values differ; where the first is larger; where they differ and the first is not 1.
    Differ,
    Above,
    Stretched,
    /// `to, a`: a value as a bound.
    Bound,
    /// `n, c, places…`: adds `c`, an f64, times the product of `n` bounds.
    BoundTerm,
    /// `to, by`: takes the sum of bounds, times `by`, plus 1.
    KeepShare,
    /// `to`: takes the sum of bounds.
    KeepBound,
    /// `to, a, b`: the larger of two bounds.
    MaxBound,
    /// `status, limit`: returns it where the sum of bounds is not below a limit; takes the sum.
    Beyond,
}

impl Op {
    /// Every operation, in the order of their numbers.
    pub const ALL: [Op; 19] = [
        Op::End,
        Op::Term,
        Op::Keep,
        Op::Min,
        Op::Max,
        Op::FloorDiv,
        Op::CeilDiv,
        Op::Mod,
        Op::Wrong,
        Op::Negative,
        Op::Differ,
        Op::Above,
        Op::Stretched,
        Op::Bound,
        Op::BoundTerm,
        Op::KeepShare,
        Op::KeepBound,
        Op::MaxBound,
        Op::Beyond,
    ];

    /// Words of an entry, without the places of a term.
    pub fn words(self) -> i64 {
        match self {
            Op::End => 1,
            Op::Keep | Op::Wrong | Op::KeepBound => 2,
            Op::Term | Op::BoundTerm | Op::Negative | Op::Bound | Op::KeepShare | Op::Beyond => 3,
            Op::Min | Op::Max | Op::FloorDiv | Op::CeilDiv | Op::Mod => 4,
            Op::Differ | Op::Above | Op::Stretched | Op::MaxBound => 4,
        }
    }
}

/// A table under construction.
pub(crate) struct Table<'p> {
    program: &'p str,
    words: Vec<i64>,
    /// The places of symbols and names.
    symbols: FxHashMap<Symbol, i64>,
    values: FxHashMap<Dim, i64>,
    bounds: FxHashMap<Atom, i64>,
    /// The number of places.
    places: i64,
    /// Where what is only checked is computed.
    waste: Option<i64>,
    /// Whether a step may have gone wrong since the last time that it was asked for.
    open: bool,
}

impl<'p> Table<'p> {
    /// An empty table of a program, whose first places are taken; `symbols` are those that have a value from the start.
    pub fn new(program: &'p str, symbols: FxHashMap<Symbol, i64>, places: i64) -> Table<'p> {
        Table {
            program,
            words: vec![],
            symbols,
            values: FxHashMap::default(),
            bounds: FxHashMap::default(),
            places,
            waste: None,
            open: false,
        }
    }

    /// True as long as nothing is to be computed or checked.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many places there are.
    pub fn places(&self) -> i64 {
        self.places
    }

    /// The bytes, little-endian.
    pub fn bytes(mut self) -> Vec<u8> {
        self.entry(Op::End, &[]);
        self.words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn entry(&mut self, op: Op, words: &[i64]) {
        self.open |= matches!(op, Op::Term | Op::FloorDiv | Op::CeilDiv | Op::Mod);
        self.words.push(op as i64);
        self.words.extend(words);
    }

    fn waste(&mut self) -> i64 {
        match self.waste {
            Some(place) => place,
            None => {
                let place = self.place();
                *self.waste.insert(place)
            }
        }
    }

    /// Computes a dim for its checks alone.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn check(&mut self, d: &Dim) -> Result<(), Error> {
        if d.as_const().is_some() || d.as_symbol().is_some() || self.values.contains_key(d) {
            return Ok(());
        }
        let waste = self.waste();
        self.store(d, waste)
    }

    /// Returns a status where a dim is negative.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn return_if_dim_is_negative(&mut self, d: &Dim, status: i32) -> Result<(), Error> {
        let place = match self.values.get(d) {
            Some(&known) => known,
            None => {
                let waste = self.waste();
                self.store(d, waste)?;
                waste
            }
        };
        self.return_if_negative(place, status);
        Ok(())
    }

    fn place(&mut self) -> i64 {
        self.places += 1;
        self.places - 1
    }

    /// The place of a dim's value.
    ///
    /// # Errors
    /// When it names a symbol that has no value yet, or is beyond 64 bits.
    pub fn value(&mut self, d: &Dim) -> Result<i64, Error> {
        if let Some(s) = d.as_symbol() {
            return self.symbol(s);
        }
        if let Some(&known) = self.values.get(d) {
            return Ok(known);
        }
        let to = self.place();
        self.store(d, to)?;
        self.values.insert(d.clone(), to);
        Ok(to)
    }

    /// Computes a dim into a place.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn store(&mut self, d: &Dim, to: i64) -> Result<(), Error> {
        let terms = d.terms();
        let mut sums = vec![];
        for (atoms, c) in &terms {
            let places = atoms.iter().map(|a| self.atom(a)).collect::<Result<Vec<_>, _>>()?;
            sums.push((places, *c));
        }
        // The constant comes last.
        sums.sort_by_key(|(places, _)| places.is_empty());
        for (places, c) in sums {
            self.entry(Op::Term, &[places.len() as i64, c]);
            self.words.extend(places);
        }
        self.entry(Op::Keep, &[to]);
        Ok(())
    }

    fn symbol(&self, s: &Symbol) -> Result<i64, Error> {
        let found = self.symbols.get(s).copied();
        found.ok_or_else(|| self.error(format!("symbol `{s}` is used before it has a value")))
    }

    fn error(&self, what: String) -> Error {
        Error::Program {
            program: self.program.to_owned(),
            what,
        }
    }

    fn atom(&mut self, a: &Atom) -> Result<i64, Error> {
        let (op, x, y) = match a {
            Atom::Sym(s) => return self.symbol(s),
            Atom::Op(op, x, y) => (*op, x, y),
            Atom::TooLarge => return Err(self.error("a size or an offset is beyond 64 bits".into())),
        };
        let whole = Dim::atom(a.clone());
        if let Some(&known) = self.values.get(&whole) {
            return Ok(known);
        }
        let (x, y) = (self.value(x)?, self.value(y)?);
        let to = self.place();
        let op = match op {
            DimOp::Min => Op::Min,
            DimOp::Max => Op::Max,
            DimOp::FloorDiv => Op::FloorDiv,
            DimOp::CeilDiv => Op::CeilDiv,
            DimOp::Mod => Op::Mod,
        };
        self.entry(op, &[to, x, y]);
        self.values.insert(whole, to);
        Ok(to)
    }

    /// Gives a name the value of a dim, in a place of its own.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn bind(&mut self, s: &Symbol, d: &Dim, to: i64) -> Result<(), Error> {
        self.store(d, to)?;
        self.symbols.insert(s.clone(), to);
        Ok(())
    }

    /// Returns a status where a step since the last time went wrong.
    pub fn return_if_wrong(&mut self, status: i32) {
        if std::mem::take(&mut self.open) {
            self.entry(Op::Wrong, &[status.into()]);
        }
    }

    /// Returns a status where a value is negative.
    pub fn return_if_negative(&mut self, place: i64, status: i32) {
        self.entry(Op::Negative, &[status.into(), place]);
    }

    /// Returns a status where a relation does not hold.
    pub fn return_unless(&mut self, relation: Relation, a: i64, b: i64, status: i32) {
        let op = match relation {
            Relation::Equal => Op::Differ,
            Relation::AtMost => Op::Above,
            Relation::Broadcasts => Op::Stretched,
        };
        self.entry(op, &[status.into(), a, b]);
    }

    /// Returns a status unless a bound on the magnitude of a dim is below a limit. The bound neither wraps around nor raises
    /// the flag.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn return_unless_below(&mut self, d: &Dim, limit: f64, status: i32) -> Result<(), Error> {
        self.bound(d)?;
        self.entry(Op::Beyond, &[status.into(), limit.to_bits().cast_signed()]);
        Ok(())
    }

    /// Adds a bound on a dim to the sum of bounds.
    fn bound(&mut self, d: &Dim) -> Result<(), Error> {
        let mut sums = vec![];
        for (atoms, c) in d.terms() {
            let places = atoms
                .iter()
                .map(|a| self.atom_bound(a))
                .collect::<Result<Vec<_>, _>>()?;
            sums.push((places, (c as f64).abs()));
        }
        for (places, c) in sums {
            self.entry(Op::BoundTerm, &[places.len() as i64, c.to_bits().cast_signed()]);
            self.words.extend(places);
        }
        Ok(())
    }

    fn kept_bound(&mut self, d: &Dim) -> Result<i64, Error> {
        self.bound(d)?;
        let to = self.place();
        self.entry(Op::KeepBound, &[to]);
        Ok(to)
    }

    fn atom_bound(&mut self, a: &Atom) -> Result<i64, Error> {
        if let Some(&known) = self.bounds.get(a) {
            return Ok(known);
        }
        let to = match a {
            Atom::Op(DimOp::FloorDiv | DimOp::CeilDiv, x, y) => {
                let by = y.as_const().map_or(1.0, |c| (c as f64).abs().max(1.0));
                self.bound(x)?;
                let to = self.place();
                self.entry(Op::KeepShare, &[to, (1.0 / by).to_bits().cast_signed()]);
                to
            }
            Atom::Op(_, x, y) => {
                let (x, y) = (self.kept_bound(x)?, self.kept_bound(y)?);
                let to = self.place();
                self.entry(Op::MaxBound, &[to, x, y]);
                to
            }
            Atom::Sym(_) | Atom::TooLarge => {
                let (value, to) = (self.atom(a)?, self.place());
                self.entry(Op::Bound, &[to, value]);
                to
            }
        };
        self.bounds.insert(a.clone(), to);
        Ok(to)
    }
}
