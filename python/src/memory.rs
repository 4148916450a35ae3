//! Large objects for Python, in memory that costs few page faults. All `unsafe` of this crate is here.
//!
//! To touch 8 MiB for the first time, page by page, takes longer than to copy 8 MiB twice. Python's allocator takes memory
//! for large objects fresh from the kernel: so it is told to use huge pages for it, before it is first written to.
#![expect(
    unsafe_code,
    reason = "objects that are made before they are filled, and advice on their memory"
)]

use std::{ffi::c_void, ptr::NonNull};

use nix::sys::mman::{MmapAdvise, madvise};
use pyo3::{
    ffi,
    prelude::*,
    types::{PyByteArray, PyBytes},
};

/// Smaller ones have no huge page within.
const LARGE_BYTES_MIN: usize = 4 << 20;
const PAGE_BYTES: usize = 4096;

/// A `bytes` of this content.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn bytes<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if content.len() < LARGE_BYTES_MIN {
        return Ok(PyBytes::new(py, content));
    }
    let len = content.len().cast_signed();
    // SAFETY: the object is new and has room for so many bytes, which nobody else knows of until they are written.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        fill(ffi::PyBytes_AsString(object.as_ptr()).cast(), content);
        Ok(object.cast_into_unchecked())
    }
}

/// A `bytearray` of this content.
///
/// # Errors
/// `MemoryError`.
pub(crate) fn bytearray<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyByteArray>> {
    if content.len() < LARGE_BYTES_MIN {
        return Ok(PyByteArray::new(py, content));
    }
    let len = content.len().cast_signed();
    // SAFETY: as above.
    unsafe {
        let object = ffi::PyByteArray_FromStringAndSize(std::ptr::null(), len);
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        fill(ffi::PyByteArray_AsString(object.as_ptr()).cast(), content);
        Ok(object.cast_into_unchecked())
    }
}

/// # Safety
/// There is room for the content, which overlaps nothing.
unsafe fn fill(room: *mut u8, content: &[u8]) {
    let first = room.align_offset(PAGE_BYTES);
    let len = (content.len() - first) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the pages lie within the room. Their content stays what it is; without the advice all is as right, and slower.
    unsafe {
        if let Some(pages) = NonNull::new(room.add(first).cast::<c_void>()) {
            let _ = madvise(pages, len, MmapAdvise::MADV_HUGEPAGE);
        }
        room.copy_from_nonoverlapping(content.as_ptr(), content.len());
    }
}
