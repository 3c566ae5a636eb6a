//! What operators on encoded images share: a file's bytes as pixels.
//!
//! Decision (2026-11-27): the decoders are those of the crate `image`, behind the cargo feature `images`, which is off by default: few
//! models decode, and who deploys others should not ship readers of strangers' files. What no decoder knows, or what is damaged, is an image
//! without pixels, as ONNX has it. Encoded images that other builds would decode, and JPEG 2000, which that crate does not, are errors.

use super::{arity, shape};
use crate::{DType, Type};

/// Pixels of three bytes: red, green, blue.
pub struct Pixels {
    /// Rows and columns.
    pub size: [usize; 2],
    /// The bytes, row by row.
    pub rgb: Vec<u8>,
}

/// The formats that are told apart by their first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Bmp,
    Jpeg,
    Jpeg2000,
    Png,
    Pnm,
    Tiff,
    WebP,
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Format> {
        match bytes {
            [b'B', b'M', ..] => Some(Format::Bmp),
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => Some(Format::Jpeg2000),
            [0x89, b'P', b'N', b'G', ..] => Some(Format::Png),
            [b'P', b'1'..=b'7', b' ' | b'\t' | b'\n' | b'\r', ..] => Some(Format::Pnm),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Format::Tiff),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
            _ => None,
        }
    }
}

/// Whether this build has decoders.
pub fn available() -> Result<(), String> {
    match cfg!(feature = "images") {
        true => Ok(()),
        false => Err(
            "it decodes images, and this build of Brolga has no decoders; build it with the cargo feature `images` \
             (`cargo install --path driver --features images`)"
                .to_owned(),
        ),
    }
}

/// The pixels of an encoded image; `None` where it cannot be decoded.
pub fn pixels(bytes: &[u8]) -> Result<Option<Pixels>, String> {
    match Format::of(bytes) {
        None => Ok(None),
        Some(Format::Jpeg2000) => {
            Err("the image is JPEG 2000; BMP, JPEG, PNG, PNM, TIFF and WebP are decoded".to_owned())
        }
        Some(format) => {
            available()?;
            Ok(decoded(bytes, format))
        }
    }
}

#[cfg(feature = "images")]
fn decoded(bytes: &[u8], format: Format) -> Option<Pixels> {
    use image::ImageFormat;
    let format = match format {
        Format::Bmp => ImageFormat::Bmp,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::Png => ImageFormat::Png,
        Format::Pnm => ImageFormat::Pnm,
        Format::Tiff => ImageFormat::Tiff,
        Format::WebP => ImageFormat::WebP,
        Format::Jpeg2000 => return None,
    };
    let rgb = image::load_from_memory_with_format(bytes, format).ok()?.into_rgb8();
    Some(Pixels {
        size: [rgb.height() as usize, rgb.width() as usize],
        rgb: rgb.into_raw(),
    })
}

#[cfg(not(feature = "images"))]
fn decoded(_: &[u8], _: Format) -> Option<Pixels> {
    None
}

/// Checks the operand of what reads an encoded image.
pub fn check(inputs: &[Type]) -> Result<(), String> {
    arity(inputs, 1)?;
    shape::check_len("the shape of the bytes", inputs[0].rank(), 1)?;
    match inputs[0].dtype {
        DType::U8 => Ok(()),
        _ => Err(format!("an encoded image is {}, expected u8", inputs[0])),
    }
}
