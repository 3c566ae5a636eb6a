//! How the elements of a tensor lie in memory: the one thing that says so, on every level.
//!
//! A type says what a tensor is, its layout where its elements stand: in which order the axes stride (`order`), which of them
//! are cut into blocks that lie innermost (`blocks`), and what stands between rows (`gap`). Streams have no layout; what is
//! stored has one, row-major where nothing is said.
//!
//! | text | of | in memory |
//! | --- | --- | --- |
//! | | `[N, C, H, W]` | `[N, C, H, W]` |
//! | `layout(0, 2, 3, 1)` | `[N, C, H, W]` | `[N, H, W, C]`: channels last |
//! | `layout(1, 0, 1:32)` | `[K, N]` | `[ceil(N/32), K, 32]`: panels of 32 columns |
//! | `layout(1, 0, 1:32, 0:4)` | `[K, N]` | `[ceil(N/32), ceil(K/4), 32, 4]`: the same, four steps side by side |
//! | `layout(0, 1 gap 16)` | `[M, K]` | `[M, K + 16]`: 16 elements between rows, which are never read or written |
//!
//! Invariants: elements that fill the last blocks are 0; row-major is one value whatever the rank, so that row-major memory is the
//! same under every shape. The idea is TVM's and oneDNN's (blocked formats); XLA's `Layout` is the order alone.

use crate::index::Ix;
use crate::loops::PANEL;
use crate::text::{Lexer, Result};
use crate::{Dim, dim};
use std::fmt;

/// Where the elements of a tensor stand.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Layout {
    /// The axes, from the outermost to the innermost; empty for row-major.
    order: Vec<u8>,
    /// Axes that are cut into blocks of so many, which lie innermost, in this order.
    blocks: Vec<(u8, u32)>,
    /// Elements between the end of a row and the next one, which nobody reads or writes.
    gap: u32,
}

/// A dimension in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// All of an axis.
    Whole,
    /// The number of a block of this size.
    Block(u32),
    /// The place in a block of this size.
    Inside(u32),
}

impl Layout {
    /// Row-major, whatever the rank.
    pub const ROW_MAJOR: Layout = Layout {
        order: vec![],
        blocks: vec![],
        gap: 0,
    };

    /// The axes from the outermost to the innermost, those that are cut into blocks of some size that lie inside of all
    /// others, and how many elements stand between rows.
    ///
    /// # Errors
    /// When an axis does not stand once in the order, or at most once among the blocks; when a block has no two elements; when
    /// a layout of blocks, or of no axes, has gaps.
    pub fn new(order: &[usize], blocks: &[(usize, u32)], gap: u32) -> std::result::Result<Layout, String> {
        let rank = order.len();
        if rank > usize::from(u8::MAX) {
            return Err(format!("a layout of {rank} axes, expected at most {}", u8::MAX));
        }
        if let Some(a) = (0..rank).find(|a| !order.contains(a)) {
            return Err(format!("a layout of {rank} axes without axis {a}"));
        }
        for (i, (a, n)) in blocks.iter().enumerate() {
            if *a >= rank {
                return Err(format!("a layout of {rank} axes with blocks of axis {a}"));
            }
            if blocks[..i].iter().any(|b| b.0 == *a) {
                return Err(format!("a layout that cuts axis {a} twice"));
            }
            if *n < 2 {
                return Err(format!("a layout with blocks of {n}, expected at least 2"));
            }
        }
        if gap > 0 && (!blocks.is_empty() || rank == 0) {
            return Err(format!("a layout with gaps of {gap}, which has blocks or no axes"));
        }
        let plain = order.is_sorted() && blocks.is_empty() && gap == 0;
        if plain {
            return Ok(Layout::ROW_MAJOR);
        }
        Ok(Layout {
            order: order.iter().map(|&a| a as u8).collect(),
            blocks: blocks.iter().map(|&(a, n)| (a as u8, n)).collect(),
            gap,
        })
    }

    /// The right operand of a contraction, `[batch…, outer…, K, N]`, as register tiles read it: `[batch…, ceil(N/32), outer…, K, 32]`;
    /// `outer` counts the axes between. With steps that are interleaved by so many it is `[…, ceil(K/by), 32, by]`.
    ///
    /// # Errors
    /// When the rank is below 2 and those.
    pub fn panels(rank: usize, outer: usize, by: i64) -> std::result::Result<Layout, String> {
        let all: Vec<usize> = (0..rank).collect();
        let [rest @ .., k, n] = &all[..] else {
            return Err(format!("panels of rank {rank}"));
        };
        let Some(batch) = rest.len().checked_sub(outer) else {
            return Err(format!("panels of rank {rank} with {outer} axes between"));
        };
        let (batch, outer) = rest.split_at(batch);
        let blocks = [(*n, PANEL as u32), (*k, by as u32)];
        let cut = if by > 1 { &blocks[..] } else { &blocks[..1] };
        Layout::new(&[batch, &[*n], outer, &[*k]].concat(), cut, 0)
    }

    /// True when elements stand in the order of their indices, without gaps.
    pub fn is_row_major(&self) -> bool {
        self.order.is_empty()
    }

    /// True when both are row-major but for gaps, and elements of the same row-major position stand in the same place, whatever
    /// the shapes of as many elements.
    pub fn places_as(&self, shape: &[Dim], other: &Layout, others: &[Dim]) -> bool {
        let rows = |l: &Layout| l.order.is_sorted() && l.blocks.is_empty();
        let same = self.gap == 0 || shape.last() == others.last();
        rows(self) && rows(other) && self.gap == other.gap && same
    }

    /// The axes of a tensor from the outermost to the innermost, blocks left aside.
    pub fn order(&self, rank: usize) -> Vec<usize> {
        match self.is_row_major() {
            true => (0..rank).collect(),
            false => self.order.iter().map(|&a| a.into()).collect(),
        }
    }

    /// Checks that it is one of tensors of a rank.
    ///
    /// # Errors
    /// When it has another number of axes.
    pub fn check(&self, rank: usize) -> std::result::Result<(), String> {
        if self.is_row_major() || self.order.len() == rank {
            return Ok(());
        }
        Err(format!(
            "the layout {self} of {} axes for rank {rank}",
            self.order.len()
        ))
    }

    /// The dimensions in memory, from the outermost on: an axis, and which part of it.
    fn parts(&self) -> impl Iterator<Item = (usize, Part)> {
        let cut = |a: u8| self.blocks.iter().find(|b| b.0 == a);
        let outer = self
            .order
            .iter()
            .map(move |&a| (a.into(), cut(a).map_or(Part::Whole, |b| Part::Block(b.1))));
        outer.chain(self.blocks.iter().map(|&(a, n)| (a.into(), Part::Inside(n))))
    }

    /// The extents in memory of a tensor of some extents, from the outermost on.
    pub fn shape(&self, shape: &[Dim]) -> Vec<Dim> {
        if self.is_row_major() {
            return shape.to_vec();
        }
        let extent = |(a, part): (usize, Part)| match part {
            Part::Whole => shape[a].clone(),
            Part::Block(n) => shape[a].ceil_div(&Dim::Const(n.into())),
            Part::Inside(n) => Dim::Const(n.into()),
        };
        let mut out: Vec<Dim> = self.parts().map(extent).collect();
        if let (1.., Some(last)) = (self.gap, out.last_mut()) {
            *last = &*last + i64::from(self.gap);
        }
        out
    }

    /// The number of elements in memory, padding and gaps included.
    pub fn elements(&self, shape: &[Dim]) -> Dim {
        dim::product(&self.shape(shape))
    }

    /// True when blocks may hold more than the elements of a tensor of some extents.
    pub fn pads(&self, shape: &[Dim]) -> bool {
        !self.blocks.is_empty() && self.elements(shape) != dim::product(shape)
    }

    /// Where an element stands, counted in elements, given one index an axis.
    pub fn index(&self, at: &[Ix], shape: &[Dim]) -> Ix {
        let flat = |f: Ix, (ix, d): (Ix, &Dim)| &f.scale(d) + &ix;
        if self.is_row_major() {
            return at.iter().cloned().zip(shape).fold(Ix::constant(0), flat);
        }
        let places = self.parts().map(|(a, part)| match part {
            Part::Whole => at[a].clone(),
            Part::Block(n) => at[a].div(&Dim::Const(n.into())),
            Part::Inside(n) => at[a].modulo(&Dim::Const(n.into())),
        });
        places.zip(&self.shape(shape)).fold(Ix::constant(0), flat)
    }

    /// The same for a tensor of known extents, by the row-major position of its elements; `None` when that is the place.
    ///
    /// # Errors
    /// When memory would be larger than can be addressed.
    pub fn places(&self, shape: &[usize]) -> std::result::Result<Option<Places>, String> {
        if self.is_row_major() {
            return Ok(None);
        }
        let dims: Vec<Dim> = shape.iter().map(|&d| Dim::Const(d as i64)).collect();
        let extents = dim::constants(&self.shape(&dims)).ok_or("extents beyond 64 bits")?;
        crate::tensor::element_count(&extents).ok_or_else(|| format!("{extents:?} has too many elements"))?;
        // With an extent of 0 there is nothing to place, however large the others.
        let stride = |extents: &[usize], i: usize| extents[i + 1..].iter().fold(1usize, |n, &d| n.saturating_mul(d));
        let digit = |(i, (a, part)): (usize, (usize, Part))| {
            let (divisor, modulus) = match part {
                Part::Whole => (1, usize::MAX),
                Part::Block(n) => (n as usize, usize::MAX),
                Part::Inside(n) => (1, n as usize),
            };
            Digit {
                row: stride(shape, a).max(1),
                extent: shape[a].max(1),
                divisor,
                modulus,
                stride: stride(&extents, i),
            }
        };
        Ok(Some(Places(self.parts().enumerate().map(digit).collect())))
    }
}

/// Where the elements of a tensor of known extents stand.
#[derive(Clone, Debug)]
pub struct Places(Vec<Digit>);

/// A dimension in memory: which part of a row-major position it is, and its stride.
#[derive(Clone, Copy, Debug)]
struct Digit {
    /// The axis's row-major stride, and its extent.
    row: usize,
    extent: usize,
    divisor: usize,
    modulus: usize,
    stride: usize,
}

impl Places {
    /// The place of the element at a row-major position.
    pub fn of(&self, position: usize) -> usize {
        let part = |d: &Digit| position / d.row % d.extent / d.divisor % d.modulus * d.stride;
        self.0.iter().map(part).sum()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_row_major() {
            return f.write_str("row-major");
        }
        let axes = self.order.iter().map(u8::to_string);
        let blocks = self.blocks.iter().map(|(a, n)| format!("{a}:{n}"));
        write!(f, "({}", axes.chain(blocks).collect::<Vec<_>>().join(", "))?;
        if self.gap > 0 {
            write!(f, " gap {}", self.gap)?;
        }
        f.write_str(")")
    }
}

impl Layout {
    /// What stands behind a type: nothing where it is row-major.
    pub(crate) fn suffix(&self) -> String {
        match self.is_row_major() {
            true => String::new(),
            false => format!(" layout{self}"),
        }
    }

    /// Reads what [`Layout::suffix`] gives.
    pub(crate) fn parse_suffix(l: &mut Lexer) -> Result<Layout> {
        match l.eat("layout") {
            true => Layout::parse(l),
            false => Ok(Layout::ROW_MAJOR),
        }
    }

    /// Reads `(1, 0, 1:32)`.
    ///
    /// # Errors
    /// Where the text is no layout.
    pub fn parse(l: &mut Lexer) -> Result<Layout> {
        let place = l.place();
        l.expect("(")?;
        let (mut order, mut blocks, mut gap) = (vec![], vec![], 0);
        l.list(")", |l| {
            let here = l.place();
            let axis = l.index()?;
            if l.eat(":") {
                blocks.push((axis, count(l)?));
            } else if blocks.is_empty() {
                order.push(axis);
            } else {
                return Err(l.error_at(here, format!("axis {axis} behind blocks, which lie innermost")));
            }
            if l.eat("gap") {
                gap = count(l)?;
                if !l.is(")") {
                    return Err(l.unexpected("`)`"));
                }
            }
            Ok(())
        })?;
        Layout::new(&order, &blocks, gap).map_err(|e| l.error_at(place, e))
    }
}

fn count(l: &mut Lexer) -> Result<u32> {
    let place = l.place();
    let n = l.index()?;
    u32::try_from(n).map_err(|_| l.error_at(place, format!("{n} elements, expected fewer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Var;
    use crate::text::whole;

    fn layout(text: &str) -> Layout {
        whole(text, Layout::parse).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn dims(shape: &[i64]) -> Vec<Dim> {
        shape.iter().map(|&d| Dim::Const(d)).collect()
    }

    #[test]
    fn text_is_read_back() {
        for text in [
            "(0, 2, 3, 1)",
            "(1, 0, 1:32)",
            "(0, 2, 1, 2:32, 1:4)",
            "(0, 1 gap 16)",
            "(1, 0 gap 8)",
        ] {
            assert_eq!(layout(text).to_string(), text);
        }
        for plain in ["()", "(0, 1, 2)", "(0, 1 gap 0)"] {
            assert!(layout(plain).is_row_major(), "{plain}");
        }
        assert_eq!(layout("(0, 1, 0:2)").to_string(), "(0, 1, 0:2)");
    }

    #[test]
    fn rejected() {
        for (text, message) in [
            ("(0, 2)", "1:1: a layout of 2 axes without axis 1"),
            ("(0, 0)", "1:1: a layout of 2 axes without axis 1"),
            ("(0, 1:32)", "1:1: a layout of 1 axes with blocks of axis 1"),
            ("(1, 0, 1:32, 1:2)", "1:1: a layout that cuts axis 1 twice"),
            ("(1, 0, 1:1)", "1:1: a layout with blocks of 1, expected at least 2"),
            (
                "(1, 0, 1:8 gap 4)",
                "1:1: a layout with gaps of 4, which has blocks or no axes",
            ),
            ("(1, 1:32, 0)", "1:11: axis 0 behind blocks, which lie innermost"),
            ("(1 gap 4, 0)", "1:9: found `,`, expected `)`"),
            ("(0, 1 gap 4294967296)", "1:11: 4294967296 elements, expected fewer"),
        ] {
            assert_eq!(whole(text, Layout::parse).unwrap_err().to_string(), message, "{text}");
        }
        assert_eq!(
            layout("(1, 0)").check(3).unwrap_err(),
            "the layout (1, 0) of 2 axes for rank 3"
        );
        assert_eq!(Layout::panels(1, 0, 1).unwrap_err(), "panels of rank 1");
        let error = Layout::panels(3, 2, 4).unwrap_err();
        assert_eq!(error, "panels of rank 3 with 2 axes between");
    }

    #[test]
    fn shapes_in_memory() {
        let n = Dim::sym("n");
        let shape = |text: &str, shape: &[Dim]| {
            let all: Vec<String> = layout(text).shape(shape).iter().map(Dim::to_string).collect();
            all.join(" ")
        };
        assert_eq!(shape("(0, 2, 3, 1)", &dims(&[2, 3, 4, 5])), "2 4 5 3");
        assert_eq!(shape("(0, 1 gap 16)", &dims(&[3, 20])), "3 36");
        let panels = Layout::panels(3, 0, 1).unwrap();
        assert_eq!(panels.to_string(), "(0, 2, 1, 2:32)");
        assert_eq!(panels.shape(&dims(&[2, 7, 33])), dims(&[2, 2, 7, 32]));
        assert_eq!(
            Layout::panels(2, 0, 1).unwrap().elements(&[Dim::Const(7), n.clone()]),
            &(&n.ceil_div(&Dim::Const(32)) * 32) * 7
        );
        assert!(panels.pads(&dims(&[2, 7, 33])) && !panels.pads(&dims(&[2, 7, 64])));
        let groups = Layout::panels(4, 1, 4).unwrap();
        assert_eq!(groups.to_string(), "(0, 3, 1, 2, 3:32, 2:4)");
        assert_eq!(groups.shape(&dims(&[2, 9, 7, 33])), dims(&[2, 2, 9, 2, 32, 4]));
        assert!(!layout("(1, 0)").pads(&[n.clone(), Dim::Const(4)]));
    }

    #[test]
    fn gaps_stand_behind_rows_of_the_same_length() {
        let alike = |a: &str, x: &[i64], b: &str, y: &[i64]| layout(a).places_as(&dims(x), &layout(b), &dims(y));
        assert!(alike("()", &[3, 20], "()", &[60]));
        assert!(alike("(0, 1 gap 4)", &[6, 20], "(0, 1, 2 gap 4)", &[2, 3, 20]));
        assert!(!alike("(0, 1 gap 4)", &[6, 20], "(0, 1 gap 4)", &[3, 40]));
        assert!(!alike("(0, 1 gap 4)", &[6, 20], "()", &[6, 20]));
        assert!(!alike("(1, 0)", &[6, 20], "(1, 0)", &[6, 20]));
    }

    /// Index expressions and known places agree, no two elements share one, and all lie inside.
    #[test]
    fn every_element_has_a_place_of_its_own() {
        for (text, shape) in [
            ("(0, 1, 2)", &[2, 3, 4][..]),
            ("(0, 2, 3, 1)", &[2, 3, 4, 5]),
            ("(2, 0, 1)", &[4, 1, 3]),
            ("(1, 0, 1:32)", &[3, 40]),
            ("(0, 2, 1, 2:4, 1:2)", &[2, 3, 9]),
            ("(0, 1 gap 16)", &[3, 20]),
            ("(1, 0 gap 4)", &[5, 2]),
        ] {
            let (layout, extents) = (layout(text), dims(shape));
            let known: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
            let at: Vec<Ix> = (0..shape.len()).map(|d| Ix::var(Var(d as u32))).collect();
            let index = layout.index(&at, &extents);
            let places = layout.places(&known).unwrap();
            let mut taken = vec![false; layout.elements(&extents).as_const().unwrap() as usize];
            for (position, point) in crate::indices(&known).enumerate() {
                let by_index = index.substitute(&|v| Ix::constant(point[v.0 as usize] as i64), &Ix::reg);
                let place = places.as_ref().map_or(position, |p| p.of(position));
                assert_eq!(by_index.as_const(), Some(place as i64), "{text} at {point:?}");
                assert!(!std::mem::replace(&mut taken[place], true), "{text} at {point:?}");
            }
        }
    }
}
