//! What a caller says of a model's inputs before it is read: `sr=16000`, `k=@k.npy`, `image=1,3,?,?`.

use crate::npy;
use brolga_frontend::onnx::Extent;
use brolga_ir::{DType, Strings, Tensor};
use std::path::Path;

/// The value of an input that is a constant.
#[derive(Clone, Debug)]
pub enum Pin {
    /// A text, which takes the type that the model declares: numbers or strings.
    Text(String),
    /// A tensor of numbers.
    Tensor(Tensor),
    /// A tensor of strings: its shape, and its elements.
    Strings(Vec<usize>, Vec<String>),
}

impl Pin {
    /// Reads `NAME=VALUE`: a number, `true` or `false`, a string, several with commas between them, or `@FILE.npy`.
    ///
    /// # Errors
    /// When the text is none of these, or the file cannot be read.
    pub fn parse(text: &str) -> Result<(String, Pin), String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE or NAME=@FILE.npy")?;
        let name = name.trim().to_owned();
        let Some(file) = value.trim().strip_prefix('@') else {
            return Ok((name, Pin::Text(value.to_owned())));
        };
        let strings = Strings::default();
        let t = strings.scope(|| npy::read_npy(Path::new(file)));
        let t = t.map_err(|e| e.to_string())?;
        let pin = match t.dtype() {
            DType::Str => {
                let texts = strings.texts(&t)?.iter().map(|s| s.to_string()).collect();
                Pin::Strings(t.shape().to_vec(), texts)
            }
            _ => Pin::Tensor(t),
        };
        Ok((name, pin))
    }

    /// What tells it from others, for keys of caches.
    pub(crate) fn describe(&self) -> String {
        match self {
            Pin::Text(text) => format!("{text:?}"),
            Pin::Strings(shape, texts) => format!("{shape:?}{texts:?}"),
            Pin::Tensor(t) => {
                let sum = brolga_abi::artefact::checksum(t.bytes());
                format!("{}{:?} {sum:x}", t.dtype(), t.shape())
            }
        }
    }
}

/// Reads `NAME=1,3,?,width`: numbers, `?` for an extent that is free, or the name of a symbol. Nothing behind the equals sign is
/// rank 0.
///
/// # Errors
/// When the text is none of these.
pub fn shape(text: &str) -> Result<(String, Vec<Extent>), String> {
    let (name, extents) = text.split_once('=').ok_or("expected NAME=1,3,?,?")?;
    let extent = |x: &str| match x.trim() {
        "" => Err("an empty extent, expected a number, `?` or a name".to_owned()),
        "?" => Ok(Extent::Free),
        x => match x.parse::<i64>() {
            Ok(n) if n >= 0 => Ok(Extent::Fixed(n)),
            Ok(n) => Err(format!("an extent of {n}, expected 0 or more, `?` or a name")),
            Err(_) if x.starts_with(|c: char| c.is_alphabetic() || c == '_') => Ok(Extent::Named(x.to_owned())),
            Err(_) => Err(format!("`{x}` is no extent, expected a number, `?` or a name")),
        },
    };
    let extents = match extents.trim() {
        "" => vec![],
        all => all.split(',').map(extent).collect::<Result<_, _>>()?,
    };
    Ok((name.trim().to_owned(), extents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_files_and_what_is_neither() {
        let folder = tempfile::tempdir().unwrap();
        let text = |text| match Pin::parse(text) {
            Ok((name, Pin::Text(t))) => (name, t),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(text("sr=16000"), ("sr".into(), "16000".into()));
        assert_eq!(text("a = 1, -2.5"), ("a".into(), " 1, -2.5".into()));
        assert_eq!(text("s=a=b"), ("s".into(), "a=b".into()));
        let missing = format!("x=@{}", folder.path().join("none.npy").display());
        for wrong in ["sr", &missing] {
            assert!(Pin::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn extents() {
        use Extent::{Fixed, Free, Named};
        let found = shape("x=1,?,width").unwrap();
        assert_eq!(found, ("x".into(), vec![Fixed(1), Free, Named("width".into())]));
        assert_eq!(shape("x=").unwrap().1, []);
        for wrong in ["x", "x=1,,2", "x=-1", "x=*"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }
}
