//! A static library of one object file: the `ar` format with GNU's symbol index, which linkers need to find members.
//!
//! ```text
//! "!<arch>\n"   member "/" (the index)   member "//" (long names)   member "/0" (the object)
//! ```
//!
//! Invariant: no times, owners or paths go in, so the same object gives the same archive.

/// The archive of `object`, called `name` in it, which defines `symbols`.
pub fn archive(name: &str, object: &[u8], symbols: &[String]) -> Vec<u8> {
    let mut names = format!("{name}/\n").into_bytes();
    if names.len() % 2 == 1 {
        names.push(b'\n');
    }
    let mut strings: Vec<u8> = vec![];
    for s in symbols {
        strings.extend(s.as_bytes());
        strings.push(0);
    }
    let index_size = 4 + 4 * symbols.len() + strings.len();
    let object_at = 8 + 60 + index_size.next_multiple_of(2) + 60 + names.len();
    let mut index = (symbols.len() as u32).to_be_bytes().to_vec();
    for _ in symbols {
        index.extend((object_at as u32).to_be_bytes());
    }
    index.extend(strings);

    let mut out = b"!<arch>\n".to_vec();
    member(&mut out, "/", &index);
    member(&mut out, "//", &names);
    member(&mut out, "/0", object);
    out
}

fn member(out: &mut Vec<u8>, name: &str, body: &[u8]) {
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, body.len());
    out.extend(header.as_bytes());
    out.extend(body);
    if body.len() % 2 == 1 {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_index_points_at_the_object() {
        let symbols = ["m_run".to_owned(), "m_plan".to_owned()];
        let a = super::archive("m.o", b"object", &symbols);
        let at = u32::from_be_bytes(a[72..76].try_into().unwrap()) as usize;
        assert_eq!(&a[at..at + 2], b"/0");
        assert_eq!(&a[at + 60..], b"object");
        assert_eq!(u32::from_be_bytes(a[68..72].try_into().unwrap()), 2);
    }
}
