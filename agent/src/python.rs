//! What a Python worker runs: a program that is part of this binary, so that a host needs an interpreter and nothing
//! else of ours.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Reads the program from the worker's socket and becomes it. Older interpreters than ours must be able to read this far,
/// and say what is wrong.
pub(crate) const BOOT: &str = include_str!("python/boot.py");

const CALLS: &str = include_str!("python/calls.py");
const WORKER: &str = include_str!("python/worker.py");

/// The program, as the first thing that comes over the socket: its length and its text.
pub(crate) fn program() -> [Bytes; 3] {
    let len = u32::try_from(CALLS.len() + WORKER.len()).expect("a small program");
    let mut head = BytesMut::new();
    head.put_u32_le(len);
    [
        head.freeze(),
        Bytes::from_static(CALLS.as_bytes()),
        Bytes::from_static(WORKER.as_bytes()),
    ]
}
