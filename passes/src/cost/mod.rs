//! What a loop kernel does and takes, told from its loops alone.
//!
//! | module | what stands there |
//! | --- | --- |
//! | [`mod@work`] | how much it computes, and which bytes of its parameters it must touch: the same for every schedule but for what is padded |
//! | [`predict`] | how long it takes on a machine of known figures |
//! | [`cycles`] | cycles of its instructions, by class |
//! | [`gpu`] | how long it takes on a GPU |
//! | `traffic` | bytes that come into a cache |
//! | `constants` | the model's numbers |
//! | `nest` | a kernel's statements with how often each runs, for known sizes |
//! | `footprint` | how many elements an index expression touches while some loops run |
//!
//! Invariant: nothing here runs or changes a kernel; a size that is not known counts as 1 and is said to.

mod constants;
pub mod cycles;
mod footprint;
pub mod gpu;
mod nest;
pub mod predict;
mod traffic;
pub mod work;

pub use gpu::GpuModel;
pub use predict::{Model, Predictor, Time};
pub use work::{Work, copied, work};
