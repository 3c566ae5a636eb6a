//! What a caller says of a model's inputs before it is read: `sr=16000`, `k=@k.npy`, `image=1,3,?,?`.

use crate::npy;
use brolga_frontend::onnx::Extent;
use brolga_ir::{Number, Tensor};
use std::path::Path;

/// The value of an input that is a constant.
#[derive(Clone, Debug)]
pub enum Pin {
    /// Numbers, which take the type that the model declares.
    Numbers(Vec<Number>),
    /// A tensor.
    Tensor(Tensor),
}

impl Pin {
    /// Reads `NAME=VALUE`: a number, `true` or `false`, several with commas between them, or `@FILE.npy`.
    ///
    /// # Errors
    /// When the text is none of these, or the file cannot be read.
    pub fn parse(text: &str) -> Result<(String, Pin), String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE or NAME=@FILE.npy")?;
        let (name, value) = (name.trim().to_owned(), value.trim());
        if let Some(file) = value.strip_prefix('@') {
            let t = npy::read_npy(Path::new(file)).map_err(|e| e.to_string())?;
            return Ok((name, Pin::Tensor(t)));
        }
        let numbers = value.split(',').map(|x| number(x.trim())).collect::<Result<_, _>>()?;
        Ok((name, Pin::Numbers(numbers)))
    }

    /// What tells it from others, for keys of caches.
    pub(crate) fn describe(&self) -> String {
        match self {
            Pin::Numbers(all) => format!("{all:?}"),
            Pin::Tensor(t) => {
                let sum = brolga_abi::artefact::checksum(t.bytes());
                format!("{}{:?} {sum:x}", t.dtype(), t.shape())
            }
        }
    }
}

fn number(text: &str) -> Result<Number, String> {
    match text {
        "true" => return Ok(Number::Int(1)),
        "false" => return Ok(Number::Int(0)),
        _ => {}
    }
    let integer = text.parse::<i128>().map(Number::Int).ok();
    let float = || text.parse::<f64>().map(Number::Float).ok();
    integer
        .or_else(float)
        .ok_or_else(|| format!("`{text}` is no number; a file is given as NAME=@FILE.npy"))
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
    fn numbers_files_and_what_is_neither() {
        let numbers = |text| match Pin::parse(text) {
            Ok((name, Pin::Numbers(n))) => (name, n),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(numbers("sr=16000"), ("sr".into(), vec![Number::Int(16000)]));
        assert_eq!(
            numbers("a = 1, -2.5"),
            ("a".into(), vec![Number::Int(1), Number::Float(-2.5)])
        );
        assert_eq!(numbers("flag=true").1, [Number::Int(1)]);
        for wrong in ["sr", "sr=", "sr=x", "sr=1,,2", "sr=@nowhere.npy"] {
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
