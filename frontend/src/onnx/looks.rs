//! What a file that is no ONNX model looks like, by how it begins.

/// Beginnings of files, and what they are.
const MAGIC: [(usize, &[u8], &str); 17] = [
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive, such as .npz files and PyTorch's checkpoints are",
    ),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89HDF", "an HDF5 file, such as Keras writes"),
    (0, b"\x7fELF", "a program or library (ELF)"),
    (0, b"GGUF", "a GGUF model"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format (.ort)"),
    (0, b"BM", "a BMP image"),
    (0, b"\x80\x02", "a Python pickle, such as older checkpoints of PyTorch"),
];

/// Bytes that are looked at.
const LOOKED_AT: usize = 4096;

/// What bytes look like, beginning with `; `, or nothing.
pub fn hint(bytes: &[u8]) -> String {
    let begins = |(at, magic, _): &&(usize, &[u8], &str)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    let head = &bytes[..bytes.len().min(LOOKED_AT)];
    let found = match MAGIC.iter().find(begins) {
        Some((.., what)) => (*what).to_owned(),
        None if bytes.is_empty() => return "; it is empty".to_owned(),
        None if head.starts_with(b"version https://git-lfs") => {
            "a pointer of Git LFS: `git lfs pull` fetches the file itself".to_owned()
        }
        None if is_safetensors(bytes) => "a safetensors file, which holds weights only".to_owned(),
        None if is_text(head) => match head.trim_ascii_start().first() {
            Some(b'<') => "HTML or XML text, perhaps a page in place of a download".to_owned(),
            Some(b'{' | b'[') => "JSON text".to_owned(),
            _ => "text".to_owned(),
        },
        None => return String::new(),
    };
    format!("; it looks like {found}")
}

/// A length, and JSON of that length.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*length) <= rest.len() as u64
}

/// UTF-8, which may be cut at the end, without control characters but white space.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn what_files_look_like() {
        for (bytes, what) in [
            (&b""[..], "; it is empty"),
            (b"\x89PNG\r\n\x1a\n", "a PNG image"),
            (b"PK\x03\x04rest", "a zip archive"),
            (b"<!DOCTYPE html>", "HTML or XML text"),
            (b" {\"a\": 1}", "JSON text"),
            (b"import torch\n", "; it looks like text"),
            (b"gr\xc3\xbc\xc3", "; it looks like text"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file"),
        ] {
            assert!(hint(bytes).contains(what), "{}", hint(bytes));
        }
        assert_eq!(hint(b"\x08\x09\x3a\x00\x01"), "");
        assert_eq!(hint(b"\xff\xfe\x00\x01"), "");
    }
}
