//! Which operators can share a kernel, and why not when they cannot.
//!
//! A kernel is the stream DAG between its loads and its `store`. [`Part::form`] abstracts a stream to what decides whether more
//! can be fused with it. It is compositional, so that the e-graph's extraction and the lowering ask the same question of
//! terms and of graphs.
//!
//! | form | what it is | what may stand above it (toward the store) |
//! | --- | --- | --- |
//! | `Tensor` | memory: an input, a constant, a `store`, a host result, a reshape of one | anything |
//! | `Access` | movement of a tensor: an index map | anything |
//! | `Padded` | the same with fills: there is no element everywhere | anything but a tree |
//! | `Mapped` | arithmetic on tensors and accesses | anything but a contraction's operand; of a tree an operand that it may compute |
//! | `Pointwise` | the same with what is padded, gathered or counted | anything but a contraction's or a tree's operand |
//! | `Rows` | contains reductions, all along the same axes: a row at a time | arithmetic, broadcasts and reductions along the same axes |
//! | `Anchor` | contains one contraction, window reduction or operator with a kernel of its own | arithmetic, any number of times on the same one; a transpose, where it is no matrix product |
//! | `Final` | concatenation, scan, scatter, a tree of stages | nothing: it is stored |

use brolga_ir::ops::Role;
use brolga_ir::{Dim, Op, Type};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;

/// The form of a stream; see the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// In memory.
    Tensor,
    /// Movement of a tensor.
    Access,
    /// Movement of a tensor with fills.
    Padded,
    /// Arithmetic on tensors and accesses.
    Mapped,
    /// Arithmetic.
    Pointwise,
    /// Reductions along these axes.
    Rows(Axes),
    /// A contraction, a window reduction or an operator with a kernel of its own, told apart by who asks: one kernel holds one, however
    /// often it is used. In an order of its axes.
    Anchor(u32, Order),
    /// To be stored at once.
    Final,
}

/// An order of axes: which axis of something each axis is, of the first 16; `None` for what has to stay in its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Order(Option<u64>);

impl Order {
    /// How many axes an order can tell apart.
    const MOST: usize = 16;
    /// Its own.
    const PLAIN: Order = Order(Some(0xfedc_ba98_7654_3210));
    /// Its own, and no other.
    const FIXED: Order = Order(None);

    /// The order in which axis `d` is axis `p[d]`.
    fn of(p: &[usize]) -> Order {
        if p.len() > Self::MOST {
            return Order::FIXED;
        }
        let axes = (0..Self::MOST).map(|d| (*p.get(d).unwrap_or(&d) as u64) << (4 * d));
        Order(Some(axes.sum()))
    }

    /// What is in this order, in another order of its axes.
    fn then(self, p: Order) -> Option<Order> {
        let (own, p) = (self.0?, p.0?);
        let axis = |o: u64, d: u64| o >> (4 * d) & 15;
        let axes = (0..Self::MOST as u64).map(|d| axis(own, axis(p, d)) << (4 * d));
        Some(Order(Some(axes.sum())))
    }
}

/// A set of axes of one tensor, with their extents; of the first 64, which is more than any kernel has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Axes {
    set: u64,
    /// A hash of the extents that are not 1.
    extents: u64,
}

impl Axes {
    /// How many axes a set can tell apart.
    const MOST: usize = 64;

    fn of(axes: impl IntoIterator<Item = usize>, shape: &[Dim]) -> Option<Axes> {
        axes.into_iter().try_fold(Axes::default(), |all, a| {
            let extent = if shape[a].is(1) {
                0
            } else {
                FxBuildHasher.hash_one((a, &shape[a]))
            };
            (a < Self::MOST).then(|| Axes {
                set: all.set | 1 << a,
                extents: all.extents ^ extent,
            })
        })
    }

    /// Whether what was reduced along these axes is, where it is spread, as long as what was read: a kernel has rows of one length.
    fn restored_by(self, spread: Axes) -> bool {
        spread.set == 0 || spread.set & !self.set == 0 && spread.extents == self.extents
    }
}

/// What decides whether an operator can share a kernel with its operands: its role, and the axes that matter.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its role.
    pub role: Role,
    /// The axes that it reduces, or spreads; `None` when there are too many to tell apart, or only a run tells them.
    axes: Option<Axes>,
    /// True for a broadcast, the one movement that can stand above a reduction.
    spreads: bool,
    /// True for a movement whose result has elements that are not the operand's.
    fills: bool,
    /// The order that a transpose, or an anchor itself, gives axes.
    order: Order,
}

impl Part {
    /// Of an operator over operands of some types.
    pub fn of(op: &Op, types: &[Type]) -> Part {
        let role = op.role();
        let spreads = role.movement().is_some_and(|m| m.spreads());
        let fills = role.movement().is_some_and(|m| m.fills());
        let axes = if let Role::Rows(rows) = role {
            Axes::of(rows.axes(op, &types[0]), &types[0].shape)
        } else if spreads {
            let (from, to) = (&types[0].shape, op.dims("shape"));
            let spread = || (0..from.len()).filter(|&d| from[d] != to[d]);
            // Where only a run tells whether an axis is spread, it is no row's.
            if spread().all(|d| from[d].is(1)) {
                Axes::of(spread(), to)
            } else {
                None
            }
        } else {
            Some(Axes::default())
        };
        let order = match role {
            Role::Move(m) => m.permutation(op).map_or(Order::FIXED, |p| Order::of(&p)),
            Role::Window(_) | Role::Own(_) => Order::PLAIN,
            Role::Contract(c) if c.window(op, types).is_some() => Order::PLAIN,
            _ => Order::FIXED,
        };
        Part {
            role,
            axes,
            spreads,
            fills,
            order,
        }
    }

    /// The form over streams of the given forms, when all of it can be one kernel; `anchor` tells this operator from
    /// others, should it be a contraction or window.
    ///
    /// # Errors
    /// Why it cannot: which operand has to be stored first.
    pub fn form(&self, anchor: u32, forms: &[Form]) -> Result<Form, &'static str> {
        use Form::{Access, Anchor, Final, Mapped, Padded, Pointwise, Rows, Tensor};
        if forms.contains(&Final) && !matches!(self.role, Role::Store) {
            return Err("a concatenation, scan, scatter or tree is stored before it is used");
        }
        let movable = |f: &Form| matches!(f, Tensor | Access | Mapped | Padded | Pointwise);
        match self.role {
            Role::Store => Ok(Tensor),
            Role::Source(_) => Ok(Pointwise),
            Role::Own(own) if own.is_fused() => {
                if forms.iter().all(|f| *f == Tensor) {
                    Ok(Anchor(anchor, self.order))
                } else {
                    Err("a kernel of its own reads tensors in memory")
                }
            }
            Role::Own(_) | Role::Host | Role::Region(_) => {
                if forms.iter().all(|f| *f == Tensor) {
                    Ok(Tensor)
                } else {
                    Err("a host operator, a region or a kernel of its own reads tensors in memory")
                }
            }
            Role::Tree(tree) => {
                let fits = |(i, f): (usize, &Form)| match f {
                    Tensor | Access => true,
                    Mapped => tree.may_compute(i),
                    _ => false,
                };
                if forms.iter().enumerate().all(fits) {
                    Ok(Final)
                } else {
                    Err("an operand of a tree is computed in the same kernel, or has fills")
                }
            }
            Role::Composite => Err("a composite operator without a kernel of its own is decomposed first"),
            Role::Map(_) if forms.iter().all(|f| matches!(f, Tensor | Access | Mapped)) => Ok(Mapped),
            Role::Map(_) => forms.iter().try_fold(Pointwise, |a, &b| match (a, b) {
                (Anchor(a, _), Anchor(b, _)) if a != b => Err("two contractions or windows in one kernel"),
                (Anchor(_, o), Anchor(_, p)) if o != p => Err("a window's result in two orders"),
                (Anchor(..), Rows(_)) | (Rows(_), Anchor(..)) => Err("a contraction and a row reduction in one kernel"),
                (Rows(a), Rows(b)) if a != b => Err("reductions along different axes"),
                (Rows(a), _) | (_, Rows(a)) => Ok(Rows(a)),
                (Anchor(a, o), _) | (_, Anchor(a, o)) => Ok(Anchor(a, o)),
                _ => Ok(Pointwise),
            }),
            Role::Reshape(_) | Role::Move(_) => match forms[0] {
                Tensor if matches!(self.role, Role::Reshape(_)) => Ok(Tensor),
                Tensor | Access if !self.fills => Ok(Access),
                Tensor | Access | Padded => Ok(Padded),
                Mapped if !self.fills => Ok(Mapped),
                Mapped | Pointwise => Ok(Pointwise),
                Rows(axes) if self.spreads => match self.axes {
                    Some(spread) if axes.restored_by(spread) => Ok(Rows(axes)),
                    _ => Err("a row result spread across rows, or to rows of another length"),
                },
                Rows(_) => Err("movement of a reduction's result"),
                Anchor(a, order) => (order.then(self.order).map(|o| Anchor(a, o)))
                    .ok_or("movement of a contraction's or window's result"),
                Final => unreachable!("rejected above"),
            },
            Role::Gather(_) => {
                if forms[0] == Tensor && forms[1..].iter().all(movable) {
                    Ok(Pointwise)
                } else {
                    Err("a gather reads a tensor in memory")
                }
            }
            Role::Rows(_) => {
                let axes = self.axes.ok_or("a reduction along an axis beyond the 64th")?;
                forms.iter().enumerate().try_fold((), |(), (i, f)| match f {
                    Tensor | Access | Mapped | Padded | Pointwise => Ok(()),
                    Rows(a) if i == 0 && *a == axes => Ok(()),
                    Rows(_) => Err("reductions along different axes"),
                    Anchor(..) => Err("a reduction of a contraction or window"),
                    Final => unreachable!("rejected above"),
                })?;
                Ok(Rows(axes))
            }
            Role::Window(_) => {
                if movable(&forms[0]) {
                    Ok(Anchor(anchor, self.order))
                } else {
                    Err("a window of a reduction's result")
                }
            }
            Role::Contract(_) => {
                if forms.iter().all(|f| matches!(f, Tensor | Access | Padded)) {
                    Ok(Anchor(anchor, self.order))
                } else {
                    Err("a contraction's operand is computed in the same kernel")
                }
            }
            Role::Assemble(_) => {
                if forms.iter().all(movable) {
                    Ok(Final)
                } else {
                    Err("a scatter, scan or concatenation of a reduction's result")
                }
            }
        }
    }
}
