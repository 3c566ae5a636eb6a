//! What an interpreter reports: a kernel or program did something that its level does not allow.

/// What is said of an index from data that names no element.
pub const OUT_OF_RANGE: &str = "an index in the model's data is out of range";

/// An error of a reference interpreter, with the place in the IR.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("@{kernel}{}{place}: {message}", if .place.is_empty() { "" } else { ", " })]
pub struct Fault {
    /// The kernel's or program's name.
    pub kernel: String,
    /// Where in it: `statement 0.2.1` (positions in nested statement lists), `stage 1`, `step 3`; empty for the whole.
    pub place: String,
    /// What was found and what was expected.
    pub message: String,
    /// The number of the check of data that failed, when it is that.
    pub check: Option<u32>,
}

impl Fault {
    /// An error at a place of a kernel or program.
    pub fn new(kernel: &str, place: impl Into<String>, message: impl Into<String>) -> Fault {
        Fault {
            kernel: kernel.to_string(),
            place: place.into(),
            message: message.into(),
            check: None,
        }
    }

    /// A check of a kernel that its data do not pass.
    pub fn check(kernel: &str, number: u32) -> Fault {
        Fault {
            check: Some(number),
            ..Fault::new(kernel, format!("check {number}"), OUT_OF_RANGE)
        }
    }
}
