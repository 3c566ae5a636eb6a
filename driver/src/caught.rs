//! Panics that are told as results: caught, and without their message on standard error.

use crate::reproducer::panic_message;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many times the thread is inside of [`caught`].
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What a function gives, or what it said when it panicked. Only panics of this thread are not shown: those of others are news, also of threads
/// that the function starts.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = take_hook();
        set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                shown(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| panic_message(&*payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_is_told_and_others_go_on() {
        assert_eq!(caught(|| 3), Ok(3));
        let inner = caught(|| caught::<()>(|| panic!("deep {}", 1)));
        assert_eq!(inner, Ok(Err("panicked: deep 1".into())));
        assert_eq!(DEPTH.get(), 0);
        assert!(catch_unwind(|| panic!("seen")).is_err());
    }
}
