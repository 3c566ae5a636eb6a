//! A flat, position-independent image of a program's code, for the artefact: no loader is needed to map and call it.
//!
//! The object file's code and read-only data are laid one after the other and their relocations resolved. Invariant: the
//! image refers to nothing but itself, relative to the place it runs at; whatever else an object may ask of a linker is an
//! error here.

use crate::{Error, Unit};
use brolga_ir::{Symbol, Target};
use object::read::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex};
use object::{RelocationFlags, SectionKind, elf};
use std::collections::BTreeMap;

/// Code with its entry points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The bytes; to be mapped at a multiple of 4096.
    pub bytes: Vec<u8>,
    /// Where functions begin, by symbol.
    pub symbols: BTreeMap<String, u64>,
}

impl Image {
    /// The offset of a function.
    ///
    /// # Errors
    /// When there is none of the name.
    pub fn offset(&self, symbol: &str) -> Result<u64, Error> {
        let found = self.symbols.get(symbol).copied();
        found.ok_or_else(|| Error::Image(format!("no function `{symbol}`")))
    }
}

/// Compiles what `build` puts into a unit to an image.
///
/// # Errors
/// Those of `build`; a relocation that leaves the image.
pub fn image<T>(
    target: &Target,
    prefix: &str,
    symbols: &[Symbol],
    build: impl FnOnce(&mut Unit) -> Result<T, Error>,
) -> Result<(Image, T), Error> {
    let (bytes, made) = crate::object::object(target, prefix, symbols, None, build)?;
    Ok((link(&bytes)?, made))
}

fn link(bytes: &[u8]) -> Result<Image, Error> {
    let fail = |e: object::read::Error| Error::Image(e.to_string());
    let file = object::File::parse(bytes).map_err(fail)?;
    let mut image = vec![];
    let mut places: BTreeMap<usize, u64> = BTreeMap::new();
    for s in file.sections() {
        let wanted = matches!(
            s.kind(),
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString
        );
        if !wanted || s.size() == 0 {
            continue;
        }
        let align = s.align().max(64) as usize;
        image.resize(image.len().next_multiple_of(align), 0);
        places.insert(s.index().0, image.len() as u64);
        image.extend_from_slice(s.data().map_err(fail)?);
    }
    let place = |s: SectionIndex| places.get(&s.0).copied();
    for s in file.sections() {
        let Some(base) = place(s.index()) else {
            if matches!(s.kind(), SectionKind::Data | SectionKind::ReadOnlyDataWithRel) && s.size() > 0 {
                return Err(Error::Image(format!("writable data in {:?}", s.name())));
            }
            continue;
        };
        for (offset, r) in s.relocations() {
            let at = base + offset;
            let to = match r.target() {
                RelocationTarget::Symbol(id) => {
                    let symbol = file.symbol_by_index(id).map_err(fail)?;
                    let section = symbol.section_index().and_then(place).ok_or_else(|| {
                        let name = symbol.name().unwrap_or_default();
                        Error::Image(format!("the code refers to `{name}`, which it does not define"))
                    })?;
                    section + symbol.address()
                }
                RelocationTarget::Section(id) => {
                    place(id).ok_or_else(|| Error::Image("a reference to a section outside".into()))?
                }
                other => return Err(Error::Image(format!("a reference to {other:?}"))),
            };
            let to = to as i64 + r.addend();
            apply(&mut image, file.architecture(), at, to, r.flags())?;
        }
    }
    let mut symbols = BTreeMap::new();
    for s in file.symbols() {
        if let (Some(section), Ok(name), object::SymbolKind::Text) =
            (s.section_index().and_then(place), s.name(), s.kind())
        {
            symbols.insert(name.to_owned(), section + s.address());
        }
    }
    Ok(Image { bytes: image, symbols })
}

/// Writes the distance from `at` to `to` where an instruction wants it.
fn apply(
    image: &mut [u8],
    architecture: object::Architecture,
    at: u64,
    to: i64,
    flags: RelocationFlags,
) -> Result<(), Error> {
    let distance = to - at as i64;
    let far = || {
        Error::Image(format!(
            "a distance of {distance} bytes, which an instruction cannot hold"
        ))
    };
    let RelocationFlags::Elf { r_type } = flags else {
        return Err(Error::Image(format!("relocation {flags:?}, expected one of ELF")));
    };
    let field = image
        .get_mut(at as usize..at as usize + 4)
        .ok_or_else(|| Error::Image(format!("a relocation at {at}, outside the code")))?;
    let old = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    let new = match (architecture, r_type) {
        (object::Architecture::X86_64, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32) => {
            i32::try_from(distance).map_err(|_| far())? as u32
        }
        (object::Architecture::Aarch64, elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26) => {
            if distance % 4 != 0 || !(-(1 << 27)..1 << 27).contains(&distance) {
                return Err(far());
            }
            old & 0xfc00_0000 | (distance >> 2) as u32 & 0x03ff_ffff
        }
        // The image starts at a multiple of 4096, so pages inside it are pages where it runs.
        (object::Architecture::Aarch64, elf::R_AARCH64_ADR_PREL_PG_HI21) => {
            let pages = (to >> 12) - (at as i64 >> 12);
            let pages = i32::try_from(pages).map_err(|_| far())?;
            let (low, high) = (pages as u32 & 3, (pages >> 2) as u32 & 0x7_ffff);
            old | low << 29 | high << 5
        }
        (object::Architecture::Aarch64, elf::R_AARCH64_ADD_ABS_LO12_NC) => old | (to as u32 & 0xfff) << 10,
        _ => {
            return Err(Error::Image(format!(
                "relocation type {r_type}, expected one that is relative to the code"
            )));
        }
    };
    field.copy_from_slice(&new.to_le_bytes());
    Ok(())
}
