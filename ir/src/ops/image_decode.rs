//! `image_decode{pixels, size}(bytes) -> u8[rows, columns, channels]`: the pixels of an encoded image as `rgb`, `bgr` or `gray` (ITU-R BT.601,
//! rounded as Pillow does); `size` is what `image_size` says. What cannot be decoded has no pixels. A host operator. Source: ONNX
//! `ImageDecoder`.

use super::{Accuracy, Attr, AttrKind, Op, OpDef, Role, Sample, image, shape};
use crate::{DType, Dim, Tensor, Type};

/// The operator's definition.
pub struct Def;

fn channels(op: &Op) -> Result<usize, String> {
    match op.word("pixels") {
        "rgb" | "bgr" => Ok(3),
        "gray" => Ok(1),
        w => Err(format!("pixels {w}, expected rgb, bgr or gray")),
    }
}

/// The brightness of a pixel, in sums of 16 bits behind the point.
fn gray([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

impl OpDef for Def {
    fn name(&self) -> &'static str {
        "image_decode"
    }
    fn attrs(&self) -> &'static [(&'static str, AttrKind)] {
        &[("pixels", AttrKind::Word), ("size", AttrKind::Dims)]
    }
    fn infer(&self, op: &Op, inputs: &[Type]) -> Result<Vec<Type>, String> {
        image::check(inputs)?;
        let size = op.dims("size");
        shape::check_len("size", size.len(), 2)?;
        shape::check_extents("size", size)?;
        let channels = [Dim::from(channels(op)?)];
        Ok(vec![Type::new(DType::U8, [size, &channels[..]].concat())])
    }
    fn eval(&self, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let found = image::pixels(inputs[0].bytes())?;
        let (size, rgb) = found.map_or(([0, 0], vec![]), |p| (p.size, p.rgb));
        let wanted: Vec<usize> = op.sizes("size").iter().map(|n| *n as usize).collect();
        if wanted != size {
            return Err(format!("an image of {size:?} pixels, expected {wanted:?}"));
        }
        let (pixels, _) = rgb.as_chunks::<3>();
        let bytes: Vec<u8> = match op.word("pixels") {
            "bgr" => pixels.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect(),
            "gray" => pixels.iter().map(|p| gray(*p)).collect(),
            _ => rgb,
        };
        let shape = vec![size[0], size[1], channels(op)?];
        Ok(vec![Tensor::new(DType::U8, shape, bytes)?])
    }
    fn available(&self) -> Result<(), String> {
        image::available()
    }
    fn role(&self) -> Role {
        Role::Host
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn samples(&self) -> Vec<Sample> {
        let s = |pixels| Sample::new(&[Attr::word(pixels), Attr::dims(&[0, 0])], &[(DType::U8, &[1])]);
        vec![s("rgb"), s("gray")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pixels, as PPM.
    const ENCODED: &[u8] = b"P6\n2 1\n255\n\xff\x00\x01\x0a\x14\x1e";

    fn run(bytes: &[u8], pixels: &str) -> Result<Vec<u8>, String> {
        let bytes = Tensor::new(DType::U8, vec![bytes.len()], bytes)?;
        let size = Op::new("image_size", &[]).unwrap().eval(std::slice::from_ref(&bytes))?;
        let op = Op::new("image_decode", &[Attr::word(pixels), Attr::dims(&size[0].to_i64s())]).unwrap();
        Ok(op.eval(&[bytes])?[0].bytes().to_vec())
    }

    #[test]
    fn pixels_of_an_encoded_image() {
        if let Err(e) = image::available() {
            assert!(e.contains("`images`"), "{e}");
            assert_eq!(run(ENCODED, "rgb"), Err(e));
            return;
        }
        assert_eq!(run(ENCODED, "rgb").unwrap(), [255, 0, 1, 10, 20, 30]);
        assert_eq!(run(ENCODED, "bgr").unwrap(), [1, 0, 255, 30, 20, 10]);
        assert_eq!(run(ENCODED, "gray").unwrap(), [76, 18]);
        // A damaged one has no pixels.
        assert_eq!(run(&ENCODED[..ENCODED.len() - 1], "rgb").unwrap(), [0u8; 0]);
    }

    #[test]
    fn what_is_no_image() {
        assert_eq!(run(b"", "rgb").unwrap(), [0u8; 0]);
        assert_eq!(run(b"GIF89a", "gray").unwrap(), [0u8; 0]);
        let e = run(b"\x00\x00\x00\x0cjP  \r\n\x87\n", "rgb").unwrap_err();
        assert!(e.contains("JPEG 2000"), "{e}");
    }
}
