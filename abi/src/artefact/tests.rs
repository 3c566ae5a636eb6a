//! Round trips, and every way of damaging a file.

use std::io::Cursor;

use super::{Artefact, BLOCK, FORMAT_VERSION, FormatError, HEADER_BYTES, OutputFile, PAGE, Writer, checksum};
use crate::{Alias, DType, Dim, Entries, HostOp, Input, Kernel, Meta, Output};

fn sample_meta() -> Meta {
    Meta {
        name: "sample".into(),
        target: "x86_64-unknown-linux-gnu".into(),
        features: vec!["avx2".into(), "fma".into()],
        compiler: "brolga 0.1.0".into(),
        key: [1, u64::MAX],
        symbols: vec!["batch".into(), "größe".into()],
        strings: vec!["".into(), "größe".into()],
        inputs: vec![
            Input {
                name: "x".into(),
                dtype: DType::F32,
                dims: vec![Dim::Symbol(1), Dim::Const(784)],
                default: None,
            },
            Input {
                name: "scalar".into(),
                dtype: DType::Bool,
                dims: vec![],
                default: Some(999),
            },
        ],
        outputs: vec![Output {
            name: "y".into(),
            dtype: DType::I64,
            rank: 2,
            dynamic: false,
            shape: "[größe, 10]".into(),
        }],
        guards: vec!["batch % 16 == 0".into()],
        sizes: vec!["output `y`, i64[größe, 10],".into()],
        checks: vec!["0 <= `k` <= n".into()],
        names: vec!["k".into()],
        entries: Entries {
            run: 0,
            plan: 1,
            shapes: 2,
        },
        host_ops: vec![HostOp {
            text: "unique".into(),
            node: "u".into(),
            inputs: 1,
            outputs: 2,
        }],
        kernels: vec![Kernel {
            name: "k0".into(),
            offset: 3,
            flops: Some(9),
            bytes: None,
        }],
        nodes: vec!["conv1".into()],
        aliases: vec![Alias { input: 0, output: 0 }],
        weights_bytes: 1000,
        steering_bytes: 64,
    }
}

fn sample_bytes() -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer.meta(&sample_meta()).unwrap();
    writer.code(&[0x90, 0x90, 0xc3, 0xc3, 0xc3]).unwrap();
    writer.text("ptx", "k0", ".version 8.0\n").unwrap();
    writer
        .weights(|out| (0..1000u32).try_for_each(|i| out.write_all(&[i as u8])))
        .unwrap();
    writer.finish().unwrap().into_inner()
}

#[test]
fn what_was_written_is_read() {
    let bytes = sample_bytes();
    assert_eq!(bytes, sample_bytes(), "the same parts give the same bytes");
    let artefact = Artefact::parse(&bytes).unwrap();
    assert_eq!(artefact.meta(), &sample_meta());
    assert_eq!(
        &bytes[artefact.programs()[0].code.clone()],
        [0x90, 0x90, 0xc3, 0xc3, 0xc3]
    );
    assert_eq!(artefact.programs()[0].code.start % PAGE as usize, 0);
    assert_eq!(artefact.weights().start % PAGE as usize, 0);
    assert!(
        bytes[artefact.weights()]
            .iter()
            .enumerate()
            .all(|(i, &byte)| byte == i as u8)
    );
    assert_eq!(artefact.weights().len(), 1000);
    let text = &artefact.texts()[0];
    assert_eq!(
        (text.kind.as_str(), text.name.as_str(), text.body),
        ("ptx", "k0", ".version 8.0\n")
    );
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample_bytes();
    for length in 0..bytes.len() {
        assert!(
            Artefact::parse(&bytes[..length]).is_err(),
            "{length} of {} bytes",
            bytes.len()
        );
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(Artefact::parse(&longer), Err(FormatError::Length { .. })));
}

/// What is read of an artefact, weights included.
fn read(bytes: &[u8]) -> Result<Artefact<'_>, FormatError> {
    let artefact = Artefact::parse(bytes)?;
    artefact.check_weights(bytes)?;
    Ok(artefact)
}

/// A bit that is not covered by a checksum is padding: then nothing that is read may differ.
#[test]
fn flipped_bits_are_found_or_harmless() {
    let bytes = sample_bytes();
    let mut found = 0;
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        match read(&damaged) {
            Err(_) => found += 1,
            Ok(artefact) => {
                assert_eq!(
                    damaged[artefact.weights()],
                    bytes[artefact.weights()],
                    "byte {position}"
                );
                assert_eq!(artefact.meta(), &sample_meta(), "byte {position}");
                assert_eq!(
                    damaged[artefact.programs()[0].code.clone()],
                    [0x90, 0x90, 0xc3, 0xc3, 0xc3],
                    "byte {position}"
                );
            }
        }
    }
    assert!(
        found > HEADER_BYTES + 1000,
        "the header, the table and four sections are covered"
    );
}

/// Weights are written in pieces of any size, and summed in blocks.
#[test]
fn weights_of_many_blocks_are_summed() {
    let weights: Vec<u8> = (0..2 * BLOCK + 12345).map(|i| ((i * i) >> 7) as u8).collect();
    let write = |piece: usize| {
        let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
        let meta = Meta {
            weights_bytes: weights.len() as u64,
            ..Meta::default()
        };
        writer.meta(&meta).unwrap();
        writer.code(&[0xc3]).unwrap();
        writer
            .weights(|out| weights.chunks(piece).try_for_each(|part| out.write_all(part)))
            .unwrap();
        writer.finish().unwrap().into_inner()
    };
    let bytes = write(usize::MAX);
    assert!(bytes == write(100_003), "the pieces do not show");
    let at = read(&bytes).unwrap().weights();
    for position in [at.start, at.start + BLOCK, at.start + 2 * BLOCK + 7, at.end - 1] {
        let mut damaged = bytes.clone();
        damaged[position] ^= 0x10;
        let place = format!("the weights from byte {} on", (position - at.start) / BLOCK * BLOCK);
        let error = read(&damaged).unwrap_err();
        assert!(
            matches!(&error, FormatError::Checksum { part } if part == &place),
            "{error}"
        );
    }
}

/// Each group of eight bytes counts, in its place, and so does the length.
#[test]
fn checksums_tell_places_and_lengths() {
    let bytes: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
    for length in [0, 1, 8, 63, 64, 65, 128, 200, 300] {
        let sum = checksum(&bytes[..length]);
        for position in 0..length {
            let mut other = bytes[..length].to_vec();
            other[position] ^= 1;
            assert_ne!(checksum(&other), sum, "{length} bytes, byte {position}");
            if position + 8 < length && other[position + 8] != other[position] {
                let mut other = bytes[..length].to_vec();
                other.swap(position, position + 8);
                assert_ne!(checksum(&other), sum, "{length} bytes, byte {position} swapped");
            }
        }
        let longer = [&bytes[..length], &[0]].concat();
        assert_ne!(checksum(&longer), sum, "{length} bytes and a zero");
    }
}

/// Repairs the checksums after the damage, so that the checks behind them are reached.
#[test]
fn forged_metadata_never_panics() {
    let good = sample_bytes();
    let table_at = u64::from_le_bytes(good[24..32].try_into().unwrap()) as usize;
    let meta_at = HEADER_BYTES;
    let meta_length = u64::from_le_bytes(good[table_at + 16..table_at + 24].try_into().unwrap()) as usize;
    let (mut accepted, mut refused) = (0, 0);
    let mut forge = |position: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[position] = value;
        let section = checksum(&bytes[meta_at..meta_at + meta_length]);
        bytes[table_at + 24..table_at + 32].copy_from_slice(&section.to_le_bytes());
        reseal(&mut bytes, table_at);
        match Artefact::parse(&bytes) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
    };
    for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
        (meta_at..meta_at + meta_length).for_each(|position| forge(position, value));
        (8..HEADER_BYTES - 16).for_each(|position| forge(position, value));
        (table_at..good.len()).for_each(|position| forge(position, value));
    }
    assert!(
        refused > 100 && accepted > 100,
        "{accepted} accepted, {refused} refused"
    );
}

fn reseal(bytes: &mut [u8], table_at: usize) {
    let table = checksum(&bytes[table_at..]);
    bytes[32..40].copy_from_slice(&table.to_le_bytes());
    let header = checksum(&bytes[..HEADER_BYTES - 8]);
    bytes[40..48].copy_from_slice(&header.to_le_bytes());
}

#[test]
fn other_files_are_told_apart() {
    assert_eq!(Artefact::parse(b"").unwrap_err(), FormatError::Magic);
    assert_eq!(Artefact::parse(b"\x7fELF\x02\x01\x01").unwrap_err(), FormatError::Magic);
    let mut newer = sample_bytes();
    let found = FORMAT_VERSION + 1;
    newer[8] = found as u8;
    assert_eq!(Artefact::parse(&newer).unwrap_err(), FormatError::Version { found });
}

#[test]
fn entry_points_must_lie_in_the_code() {
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer
        .meta(&Meta {
            entries: Entries {
                run: 1,
                plan: 0,
                shapes: 0,
            },
            ..Meta::default()
        })
        .unwrap();
    writer.code(&[0xc3]).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let error = Artefact::parse(&bytes).unwrap_err().to_string();
    assert_eq!(error, "malformed artefact: `run` starts at byte 1 of 1 bytes of code");
}

#[test]
fn defaults_must_lie_in_the_weights() {
    let input = |dims: &[Dim], default: u64| Input {
        name: "k".into(),
        dtype: DType::F32,
        dims: dims.to_vec(),
        default: Some(default),
    };
    for (dims, default, fits) in [
        (&[Dim::Const(3)][..], 4, true),
        (&[Dim::Const(3)], 5, false),
        (&[], 12, true),
        (&[Dim::Const(0)], 16, true),
        (&[Dim::Const(0)], 17, false),
        (&[Dim::Const(1)], u64::MAX, false),
        (&[Dim::Const(i64::MAX), Dim::Const(i64::MAX)], 0, false),
        (&[Dim::Symbol(0)], 0, false),
    ] {
        let meta = Meta {
            symbols: vec!["n".into()],
            inputs: vec![input(dims, default)],
            weights_bytes: 16,
            ..Meta::default()
        };
        assert_eq!(meta.validate().is_ok(), fits, "{dims:?} at {default}");
        assert_eq!(
            meta.inputs[0].default_in(&[0; 16]).is_some(),
            fits,
            "{dims:?} at {default}"
        );
    }
}

#[test]
fn an_abandoned_file_leaves_nothing_behind() {
    let folder = std::env::temp_dir().join(format!("brolga-abi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.brolga");

    let mut writer = Writer::create(&path).unwrap();
    writer.code(&[0xc3]).unwrap();
    let failed = writer.weights(|out| {
        out.write_all(&[0; 100_000])?;
        Err(std::io::Error::other("the disk is full"))
    });
    assert!(failed.is_err());
    drop(writer);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);

    let mut writer = Writer::create(&path).unwrap();
    writer.meta(&Meta::default()).unwrap();
    writer.code(&[0xc3]).unwrap();
    writer.commit().unwrap();
    assert!(Artefact::parse(&std::fs::read(&path).unwrap()).is_ok());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    assert!(OutputFile::create(&folder.join("none/there")).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}
