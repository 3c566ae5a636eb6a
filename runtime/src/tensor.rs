//! Tensors as a caller has them: dense, row-major, little endian, borrowed or owned.

use brolga_abi::DType;

use crate::{AlignedBytes, Result};

/// A tensor that is read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements. Any alignment works; at multiples of the element's size they are not copied.
    pub bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of numbers: `View::of(&[1.0f32, 2.0], &[1, 2])`.
    pub fn of<T: Element>(elements: &'a [T], shape: &'a [usize]) -> View<'a> {
        View {
            dtype: T::DTYPE,
            shape,
            bytes: as_bytes(elements),
        }
    }
}

/// A tensor that is written.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// The elements. Any alignment works; at multiples of the element's size they are not copied.
    pub bytes: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// A view of numbers to be overwritten.
    pub fn of<T: Element>(elements: &'a mut [T], shape: &'a [usize]) -> ViewMut<'a> {
        let (pointer, bytes) = (elements.as_mut_ptr().cast(), size_of_val(elements));
        // SAFETY: the bytes are those of `elements`, borrowed for as long; an `Element` has no padding, and every byte
        // pattern is a value of it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(pointer, bytes) };
        ViewMut {
            dtype: T::DTYPE,
            shape,
            bytes,
        }
    }
}

/// A tensor that owns its elements, aligned to 64 bytes.
#[derive(Debug)]
pub struct Buffer {
    dtype: DType,
    shape: Vec<usize>,
    bytes: AlignedBytes,
}

impl Buffer {
    /// A tensor of zeros. The error is [`crate::Error::OutOfMemory`].
    pub fn zeroed(dtype: DType, shape: Vec<usize>) -> Result<Buffer> {
        let size = byte_size(dtype, &shape).unwrap_or(u64::MAX);
        Ok(Buffer {
            dtype,
            shape,
            bytes: AlignedBytes::zeroed(size)?,
        })
    }

    /// A tensor in memory that is there; what is more than its elements is dropped.
    pub(crate) fn of(dtype: DType, shape: Vec<usize>, mut bytes: AlignedBytes) -> Buffer {
        bytes.truncate(byte_size(dtype, &shape).map_or(0, |n| n as usize));
        Buffer { dtype, shape, bytes }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The elements as numbers; `None` when they are of another type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if T::DTYPE != self.dtype {
            return None;
        }
        // SAFETY: every byte pattern is a value of an `Element`; the block begins at a multiple of 64.
        let (_, elements, _) = unsafe { self.bytes.align_to() };
        Some(elements)
    }

    /// A view of it, to be passed on.
    pub fn view(&self) -> View<'_> {
        View {
            dtype: self.dtype,
            shape: &self.shape,
            bytes: &self.bytes,
        }
    }

    /// A view of it, to be overwritten.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut {
            dtype: self.dtype,
            shape: &self.shape,
            bytes: &mut self.bytes,
        }
    }
}

/// A Rust number that is a tensor's element. f16, bf16 and bool have none here; use their bytes.
///
/// # Safety
/// The type has the size of its dtype, no padding, and every byte pattern is a value of it.
pub unsafe trait Element: Copy {
    /// Its dtype.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($type:ty = $dtype:ident),*) => {
        $(
            // SAFETY: a primitive number has no padding and no forbidden pattern; the sizes are asserted.
            unsafe impl Element for $type {
                const DTYPE: DType = DType::$dtype;
            }
            const _: () = assert!(size_of::<$type>() == DType::$dtype.size());
        )*
    };
}

elements!(
    f64 = F64,
    f32 = F32,
    i64 = I64,
    i32 = I32,
    i16 = I16,
    i8 = I8,
    u64 = U64,
    u32 = U32,
    u16 = U16,
    u8 = U8
);

/// Bytes of a dense tensor; `None` when they are more than 64 bits can count.
pub fn byte_size(dtype: DType, shape: &[usize]) -> Option<u64> {
    // An empty tensor has no bytes, but its other extents have to fit all the same: whoever multiplies them out relies on it.
    let product = |size: u64, &extent: &usize| size.checked_mul(extent as u64);
    let size = shape
        .iter()
        .filter(|&&n| n > 0)
        .try_fold(dtype.size() as u64, product)?;
    Some(if shape.contains(&0) { 0 } else { size })
}

fn as_bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: the bytes are those of `elements`, borrowed for as long, and an `Element` has no padding.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bytes_and_back() {
        let numbers = [1.5f32, -2.0];
        let view = View::of(&numbers, &[2]);
        assert_eq!(view.bytes, [1.5f32.to_ne_bytes(), (-2.0f32).to_ne_bytes()].concat());
        let mut buffer = Buffer::zeroed(DType::F32, vec![2]).unwrap();
        buffer.bytes_mut().copy_from_slice(view.bytes);
        assert_eq!(buffer.as_slice::<f32>(), Some(numbers.as_slice()));
        assert_eq!(buffer.as_slice::<i32>(), None);
        let mut copy = [0i64; 2];
        ViewMut::of(&mut copy, &[2]).bytes.fill(0xff);
        assert_eq!(copy, [-1, -1]);
    }

    #[test]
    fn sizes_do_not_overflow() {
        assert_eq!(byte_size(DType::F64, &[]), Some(8));
        assert_eq!(byte_size(DType::F64, &[1 << 40, 0, 2]), Some(0));
        assert_eq!(byte_size(DType::F64, &[1 << 40, 0, 1 << 40]), None);
        assert_eq!(byte_size(DType::F64, &[usize::MAX, 2]), None);
        assert!(Buffer::zeroed(DType::F64, vec![usize::MAX, 2]).is_err());
    }
}
