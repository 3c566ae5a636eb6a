//! Operands and locals: their elements, and who wrote them.

use super::{LANES, Points};
use crate::{DType, Dim, Layout, Places, dim};

/// The most elements of one output or local, so that hostile text cannot exhaust memory.
const MAX_ELEMENTS: usize = 1 << 32;

enum Data<'a> {
    Read(&'a [u8]),
    Own {
        bytes: Vec<u8>,
        /// The outer point and the run of a stage that wrote an element last, both counted from 1.
        writer: Vec<(u32, u32)>,
        /// True where elements had values before.
        held: bool,
    },
}

/// An operand, or a local of the lanes.
pub(super) struct Memory<'a> {
    dtype: DType,
    pub shape: Vec<i64>,
    /// The extents in memory.
    memory: Vec<usize>,
    /// Where elements stand, where that is not in the order of their positions.
    places: Option<Places>,
    /// For a local: how many lanes have one.
    copies: Option<usize>,
    data: Data<'a>,
}

/// Positions of the lanes: lane `l` is at `first + l*step`, row-major.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub first: i64,
    pub step: i64,
}

impl Row {
    fn at(self, lane: usize) -> usize {
        (self.first + self.step * lane as i64) as usize
    }
}

impl<'a> Memory<'a> {
    pub fn new(dtype: DType, shape: Vec<i64>, layout: &Layout, copies: Option<usize>) -> Result<Memory<'a>, String> {
        if let Some(d) = shape.iter().find(|d| **d < 0) {
            return Err(format!("an extent of {d}"));
        }
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Const(d)).collect();
        let known = |dims: &[Dim]| dim::constants(dims).ok_or_else(|| format!("{shape:?} has too many elements"));
        Ok(Memory {
            dtype,
            memory: known(&layout.shape(&dims))?,
            places: layout.places(&known(&dims)?)?,
            shape,
            copies,
            data: Data::Read(&[]),
        })
    }

    /// Takes the elements of a tensor.
    pub fn read_only(&mut self, bytes: &'a [u8]) {
        self.data = Data::Read(bytes);
    }

    /// Takes memory of its own: garbage, but for padding.
    pub fn allocate(&mut self) -> Result<(), String> {
        let shape = self.memory_shape();
        let n = crate::tensor::element_count(shape).and_then(|n| n.checked_mul(self.copies.unwrap_or(1)));
        let n = n
            .filter(|n| *n <= MAX_ELEMENTS)
            .ok_or_else(|| format!("{shape:?} has too many elements"))?;
        let garbage = if self.places.is_some() { 0 } else { 0xff };
        self.data = Data::Own {
            bytes: vec![garbage; n * self.dtype.bytes()],
            writer: vec![(0, 0); n],
            held: false,
        };
        Ok(())
    }

    /// Takes a copy of the elements of a tensor, to be written in part.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.data = Data::Own {
            bytes: bytes.to_vec(),
            writer: vec![(0, 0); bytes.len() / self.dtype.bytes()],
            held: true,
        };
    }

    /// The extents in memory.
    pub fn memory_shape(&self) -> &[usize] {
        &self.memory
    }

    /// The index in memory of an element, given its row-major position in the logical type.
    fn storage(&self, position: usize, lane: usize) -> usize {
        match (self.copies, &self.places) {
            (Some(1), _) | (None, None) => position,
            (Some(_), _) => position * LANES + lane,
            (None, Some(places)) => places.of(position),
        }
    }

    /// Reads the elements of lanes `from..from + out.len()`.
    pub fn load(&self, row: Row, from: usize, points: Points, out: &mut [u64]) -> Result<(), String> {
        let bytes = match &self.data {
            Data::Read(b) => *b,
            Data::Own { bytes, writer, held } => {
                for lane in from..from + out.len() {
                    let position = row.at(lane);
                    let by = writer[self.storage(position, lane)].0;
                    if by != points.of(lane) && !(*held && by == 0) {
                        return Err(match (by, self.copies) {
                            (0, _) | (_, Some(_)) => format!("element {position} was not written"),
                            _ => format!("element {position} was written by another outer point"),
                        });
                    }
                }
                bytes
            }
        };
        match self.dtype.bytes() {
            1 => self.gather::<1>(bytes, row, from, out, |b| b[0] as u64),
            2 => self.gather(bytes, row, from, out, |b| u16::from_le_bytes(b) as u64),
            4 => self.gather(bytes, row, from, out, |b| u32::from_le_bytes(b) as u64),
            _ => self.gather(bytes, row, from, out, u64::from_le_bytes),
        }
        Ok(())
    }

    fn gather<const N: usize>(
        &self,
        bytes: &[u8],
        row: Row,
        from: usize,
        out: &mut [u64],
        bits: impl Fn([u8; N]) -> u64,
    ) {
        for (lane, x) in (from..).zip(out) {
            let at = self.storage(row.at(lane), lane) * N;
            let mut b = [0u8; N];
            b.copy_from_slice(&bytes[at..at + N]);
            *x = bits(b);
        }
    }

    /// Writes the elements of lanes `from..from + values.len()`; `once` when a run of a stage must not write an element twice.
    pub fn store(
        &mut self,
        row: Row,
        from: usize,
        points: Points,
        run: u32,
        once: bool,
        values: &[u64],
    ) -> Result<(), String> {
        let n = self.dtype.bytes();
        for (lane, x) in (from..).zip(values) {
            let position = row.at(lane);
            let at = self.storage(position, lane);
            let by = (points.of(lane), run);
            let local = self.copies.is_some();
            let Data::Own { bytes, writer, .. } = &mut self.data else {
                return Err("the operand is only read".into());
            };
            if once && if local { writer[at] == by } else { writer[at].1 == by.1 } {
                return Err(format!("element {position} is written twice"));
            }
            if !local && writer[at].0 != 0 && writer[at].0 != by.0 {
                return Err(format!("element {position} is written by two outer points"));
            }
            writer[at] = by;
            bytes[at * n..(at + 1) * n].copy_from_slice(&x.to_le_bytes()[..n]);
        }
        Ok(())
    }

    /// The first element that nothing wrote.
    pub fn unwritten(&self) -> Option<usize> {
        let Data::Own { writer, .. } = &self.data else {
            return None;
        };
        let elements = self.shape.iter().product::<i64>() as usize;
        (0..elements).find(|&e| writer[self.storage(e, 0)].0 == 0)
    }

    /// The elements.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.data {
            Data::Read(b) => b.to_vec(),
            Data::Own { bytes, .. } => bytes,
        }
    }
}
