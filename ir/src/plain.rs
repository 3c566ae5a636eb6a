//! Names of a model as people may see them: any text is a name in ONNX, and a terminal obeys some.

use std::borrow::Cow;

/// A text with its control characters escaped, and those that turn the direction of writing: `a\nb` as `a\\nb`.
///
/// ```
/// # use brolga_ir::plain;
/// assert_eq!(plain("conv/1: größer"), "conv/1: größer");
/// assert_eq!(plain("a\n\u{1b}[2J"), r"a\n\u{1b}[2J");
/// ```
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_command) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_command(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.into()
}

/// Whether a character makes a terminal do something else than to show it.
pub fn is_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
