//! What a loop kernel does and takes, told from its loops alone.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`mod@work`] | how much it computes, and which bytes of its parameters it must touch: the same for every schedule but for what is padded |
//! | `nest` | a kernel's statements with how often each runs, for known sizes |
//! | `footprint` | how many elements an index expression touches while some loops run |
//!
//! Invariant: nothing here runs or changes a kernel; a size that is not known counts as 1 and is said to.

mod footprint;
mod nest;
pub mod work;

pub use work::{Work, copied, work};
