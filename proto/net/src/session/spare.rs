//! Buffers of large segments, used again and again.
//!
//! The kernel clears each page of a fresh buffer when it is first touched: for megabytes that come and go, this costs
//! about as much as decrypting them. And large buffers between many small allocations leave holes in the heap that nothing
//! else fills. Whoever reads a segment takes a buffer here; it comes back with the last of the bytes in it, wherever they have
//! been passed on to. This is all the state that a process's sessions share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fleetpool_proto::limits::SPARE_BYTES_MAX;

/// A buffer from this size on is worth keeping.
const WORTH_BYTES: usize = 1 << 20;

static SPARE: Spare = Spare(Mutex::new(Vec::new()));

/// An empty buffer with room for so many bytes.
pub(crate) fn take(len: usize) -> Vec<u8> {
    let found = (len >= WORTH_BYTES).then(|| SPARE.take(len)).flatten();
    found.unwrap_or_else(|| Vec::with_capacity(len))
}

/// What was written into a buffer. When nobody needs it any more, the buffer is kept for the next.
pub(crate) fn freeze(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() < WORTH_BYTES {
        return Bytes::from(buffer);
    }
    Bytes::from_owner(Lent(buffer))
}

/// Buffers that nobody uses.
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// One that is not more than twice as large as it needs to be.
    fn take(&self, len: usize) -> Option<Vec<u8>> {
        let mut buffers = self.buffers();
        let fits = |buffer: &Vec<u8>| (len..=2 * len).contains(&buffer.capacity());
        let found = buffers.iter().position(fits)?;
        Some(buffers.swap_remove(found))
    }

    fn keep(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers();
        let kept: usize = buffers.iter().map(Vec::capacity).sum();
        if kept + buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer in use.
struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        SPARE.keep(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn spare(mib: &[usize]) -> Spare {
        let spare = Spare(Mutex::default());
        let buffers = mib.iter().map(|mib| Vec::with_capacity(mib * MIB));
        buffers.for_each(|buffer| spare.keep(buffer));
        spare
    }

    fn taken(spare: &Spare, mib: usize) -> Option<usize> {
        Some(spare.take(mib * MIB)?.capacity() / MIB)
    }

    #[test]
    fn a_buffer_serves_what_fills_half_of_it() {
        let spare = spare(&[4]);
        assert_eq!(taken(&spare, 5), None);
        assert_eq!(taken(&spare, 1), None);
        assert_eq!(taken(&spare, 2), Some(4));
        assert_eq!(taken(&spare, 2), None, "it is in use");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let spare = spare(&[8; 10]);
        let kept: usize = std::iter::from_fn(|| taken(&spare, 8)).sum();
        assert_eq!(kept, SPARE_BYTES_MAX / MIB);
    }

    #[test]
    fn a_buffer_is_empty_again_when_the_last_slice_of_it_is_gone() {
        // No other test of this process takes as odd a size.
        let len = 3 * MIB + 7;
        let mut buffer = take(len);
        buffer.resize(len, 7);
        let place = buffer.as_ptr();
        let bytes = freeze(buffer);
        let slice = bytes.slice(1..3);
        drop(bytes);
        let other = take(len);
        assert_ne!(other.as_ptr(), place, "a slice of it is still used");
        assert_eq!(slice, [7, 7][..]);
        drop(slice);
        let again = take(len);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }
}
