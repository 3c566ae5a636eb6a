//! Takes large `raw_data` out of a serialised ModelProto before it is parsed, so that weights are never copied.
//!
//! The protobuf wire format is walked along the messages that can hold tensors (model, graph, function, node,
//! attribute, tensor), and a copy of the bytes is made in which each `raw_data` of more than [`KEPT`] bytes is replaced
//! by the tensor's `segment` field, {begin, end} being the payload's range in the file. ONNX defines `segment` for
//! tensors stored in pieces, and no exporter writes it; a file that has one is refused, so that a segment in the reduced
//! bytes always came from here. Training information is left out.
//!
//! ```text
//! TensorProto { dims: 768 768, raw_data: <2359296 bytes at 4711> }  -->  TensorProto { dims: 768 768, segment { 4711 2364007 } }
//! ```

/// Payloads up to this many bytes are left in the message.
pub const KEPT: usize = 64;

/// Messages deeper than this are refused (the same limit as the parser's).
const MAX_DEPTH: usize = 90;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

enum Field {
    Copy,
    Drop,
    Enter(Kind),
    RawData,
    Segment,
}

/// What to do with a length-delimited field, by the field numbers of onnx.proto.
fn field(kind: Kind, number: u64) -> Field {
    use Field::*;
    match (kind, number) {
        (Kind::Model, 7) => Enter(Kind::Graph),
        (Kind::Model, 20) => Drop,
        (Kind::Model, 25) => Enter(Kind::Function),
        (Kind::Graph, 1) | (Kind::Function, 7) => Enter(Kind::Node),
        (Kind::Graph, 5) => Enter(Kind::Tensor),
        (Kind::Graph, 15) => Enter(Kind::Sparse),
        (Kind::Function, 11) | (Kind::Node, 5) => Enter(Kind::Attribute),
        (Kind::Attribute, 5 | 10) => Enter(Kind::Tensor),
        (Kind::Attribute, 6 | 11) => Enter(Kind::Graph),
        (Kind::Attribute, 22 | 23) => Enter(Kind::Sparse),
        (Kind::Sparse, 1 | 2) => Enter(Kind::Tensor),
        (Kind::Tensor, 9) => RawData,
        (Kind::Tensor, 3) => Segment,
        _ => Copy,
    }
}

/// The reduced bytes of a serialised ModelProto.
///
/// # Errors
/// When the bytes are no protobuf message of this type; the error names the offset.
pub fn reduce_model(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len().min(1 << 20));
    Walk { bytes }.message(Kind::Model, 0, bytes.len(), &mut out, 0)?;
    Ok(out)
}

/// The reduced bytes of a serialised TensorProto.
///
/// # Errors
/// See [`reduce_model`].
pub fn reduce_tensor(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(256);
    Walk { bytes }.message(Kind::Tensor, 0, bytes.len(), &mut out, 0)?;
    Ok(out)
}

/// Whether bytes begin with a field that models begin with: the version of the format, then the producer or the graph.
pub fn begins_as_model(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=0x7f, 0x12 | 0x3a | 0x42, ..])
}

/// The length-delimited fields of a message, with their numbers.
///
/// # Errors
/// When the bytes are no protobuf message.
pub fn fields(bytes: &[u8]) -> Result<Vec<(u64, &[u8])>, String> {
    let (walk, end) = (Walk { bytes }, bytes.len());
    let (mut at, mut out) = (0, vec![]);
    while at < end {
        let start = at;
        let tag = walk.varint(&mut at, end)?;
        match tag & 7 {
            0 => drop(walk.varint(&mut at, end)?),
            1 => at = walk.skip(at, 8, end)?,
            5 => at = walk.skip(at, 4, end)?,
            2 => {
                let len = walk.varint(&mut at, end)?;
                let body = at;
                at = walk.skip(at, usize::try_from(len).unwrap_or(usize::MAX), end)?;
                out.push((tag >> 3, &bytes[body..at]));
            }
            w => return Err(format!("wire type {w} at byte {start}, expected 0, 1, 2 or 5")),
        }
    }
    Ok(out)
}

struct Walk<'a> {
    bytes: &'a [u8],
}

impl Walk<'_> {
    fn message(&self, kind: Kind, begin: usize, end: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("messages nested deeper than {MAX_DEPTH} at byte {begin}"));
        }
        let mut at = begin;
        while at < end {
            let start = at;
            let tag = self.varint(&mut at, end)?;
            let number = tag >> 3;
            if number == 0 {
                return Err(format!("field number 0 at byte {start}"));
            }
            match tag & 7 {
                0 => {
                    self.varint(&mut at, end)?;
                }
                1 => at = self.skip(at, 8, end)?,
                5 => at = self.skip(at, 4, end)?,
                2 => {
                    let len = self.varint(&mut at, end)?;
                    let body = at;
                    at = self.skip(at, usize::try_from(len).unwrap_or(usize::MAX), end)?;
                    match field(kind, number) {
                        Field::Copy => {}
                        Field::Drop => continue,
                        Field::Enter(inner) => {
                            put_varint(tag, out);
                            // The length is not known yet: it is written as a varint of a fixed five bytes.
                            let patch = out.len();
                            out.extend([0; 5]);
                            self.message(inner, body, at, out, depth + 1)?;
                            let len = out.len() - patch - 5;
                            for i in 0..5 {
                                out[patch + i] = ((len >> (7 * i)) & 0x7f) as u8 | if i < 4 { 0x80 } else { 0 };
                            }
                            continue;
                        }
                        Field::RawData if at - body > KEPT => {
                            let mut segment = vec![];
                            put_varint(1 << 3, &mut segment);
                            put_varint(body as u64, &mut segment);
                            put_varint(2 << 3, &mut segment);
                            put_varint(at as u64, &mut segment);
                            put_varint((3 << 3) | 2, out);
                            put_varint(segment.len() as u64, out);
                            out.extend(segment);
                            continue;
                        }
                        Field::RawData => {}
                        Field::Segment => {
                            return Err(format!("a tensor in segments at byte {start}, expected a whole one"));
                        }
                    }
                }
                w => return Err(format!("wire type {w} at byte {start}, expected 0, 1, 2 or 5")),
            }
            out.extend_from_slice(&self.bytes[start..at]);
        }
        Ok(())
    }

    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, String> {
        let start = *at;
        let mut value = 0u64;
        for i in 0..10 {
            if *at >= end {
                return Err(format!("the data ends inside the number at byte {start}"));
            }
            let b = self.bytes[*at];
            *at += 1;
            value |= ((b & 0x7f) as u64) << (7 * i);
            if b < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("a number of more than ten bytes at byte {start}"))
    }

    fn skip(&self, at: usize, len: usize, end: usize) -> Result<usize, String> {
        match at.checked_add(len) {
            Some(e) if e <= end => Ok(e),
            _ => Err(format!(
                "a field of {len} bytes at byte {at}, but its message ends at byte {end}"
            )),
        }
    }
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx_protobuf::{GraphProto, Message, ModelProto, TensorProto};

    fn model(payload: usize) -> Vec<u8> {
        let tensor = TensorProto {
            name: "w".into(),
            dims: vec![payload as i64],
            data_type: 2,
            raw_data: (0..payload).map(|i| i as u8).collect(),
            ..Default::default()
        };
        let graph = GraphProto {
            initializer: vec![tensor],
            ..Default::default()
        };
        let model = ModelProto {
            ir_version: 8,
            graph: Some(graph).into(),
            ..Default::default()
        };
        model.write_to_bytes().unwrap()
    }

    #[test]
    fn a_large_payload_is_left_in_the_file_and_a_small_one_stays() {
        let bytes = model(1000);
        let reduced = reduce_model(&bytes).unwrap();
        assert!(reduced.len() < 100);
        let m = ModelProto::parse_from_bytes(&reduced).unwrap();
        let t = &m.graph.initializer[0];
        assert!(t.raw_data.is_empty());
        let range = t.segment.begin as usize..t.segment.end as usize;
        assert_eq!(bytes[range], (0..1000).map(|i| i as u8).collect::<Vec<_>>());
        let kept = ModelProto::parse_from_bytes(&reduce_model(&model(KEPT)).unwrap()).unwrap();
        assert_eq!(kept.graph.initializer[0].raw_data.len(), KEPT);
    }

    #[test]
    fn every_truncation_inside_a_field_is_an_error_or_a_shorter_message() {
        let bytes = model(200);
        for n in 0..bytes.len() {
            if let Ok(reduced) = reduce_model(&bytes[..n]) {
                // Only cuts between the model's own fields are messages.
                assert!(ModelProto::parse_from_bytes(&reduced).unwrap().graph.is_none());
            }
        }
    }
}
