//! What a pool's template and its Python workers run: a program that is part of this binary, so that a host needs an
//! interpreter and nothing else of ours.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Reads the program from the worker's socket and becomes it. Older interpreters than ours must be able to read this far,
/// and say what is wrong.
pub(crate) const BOOT: &str = include_str!("python/boot.py");

const CALLS: &str = include_str!("python/calls.py");
const WORKER: &str = include_str!("python/worker.py");
const TEMPLATE: &str = include_str!("python/template.py");

/// The program, as the first thing that comes over the socket: its length and its text.
pub(crate) fn program() -> Vec<Bytes> {
    let parts = [CALLS, WORKER, TEMPLATE];
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut head = BytesMut::new();
    head.put_u32_le(u32::try_from(len).expect("a small program"));
    let parts = parts.map(|part| Bytes::from_static(part.as_bytes()));
    std::iter::once(head.freeze()).chain(parts).collect()
}
