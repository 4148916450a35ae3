//! How a worker that stays is spoken to: the messages of the worker protocol, in one of two encodings.
//!
//! A native worker is a user's program of any build, and gets the documented frames. A Python worker runs the program
//! that is part of this very binary: its frames are of fixed width and little-endian, so that Python takes a batch of
//! tasks apart with a few calls, and never one field at a time. `agent/src/python/worker.py` is the other side.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use fleetpool_proto::{
    Attempt, DecodeError, Message as _, Outcome, Payloads, SpecId,
    frame::read_inline,
    limits::FRAME_BODY_BYTES_MAX,
    worker::{DoneRow, FromWorker, RunRow, ToWorker},
};

use crate::wire::{Incoming, Outgoing};

/// The encoding of a worker's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    Python,
}

/// The kinds of frames, as the worker knows them.
mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const DEFINE: u8 = 2;
    pub(super) const RUN: u8 = 3;
    pub(super) const GIVE_BACK: u8 = 4;
    pub(super) const GO: u8 = 5;
    pub(super) const STOP: u8 = 6;

    pub(super) const READY: u8 = 1;
    pub(super) const UNFIT: u8 = 2;
    pub(super) const DONE: u8 = 3;
    pub(super) const GIVEN_BACK: u8 = 4;
}

/// Bytes of a `Done` before its payload.
const DONE_BYTES: usize = 8 + 4 + 1 + 1 + 8 + 8;
/// Bytes of a row of `GivenBack`.
const ROW_BYTES: usize = 8 + 4 + 4;
/// Longest frame of a worker: the largest result, and what is said of it.
const FRAME_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX + DONE_BYTES + 1;

impl Dialect {
    /// Puts a message behind the others.
    pub(super) fn put(self, message: ToWorker, out: &mut Outgoing) {
        match self {
            Self::Native => out.put(message),
            Self::Python => out.put_pieces(encode(message)),
        }
    }

    /// Makes a function known, with the bytes that it is made of.
    pub(super) fn define(self, spec: SpecId, function: String, code: Bytes, out: &mut Outgoing) {
        match self {
            Self::Native => out.put(ToWorker::Define { spec, function }),
            Self::Python => {
                let mut head = BytesMut::new();
                head.put_u32_le(spec.0);
                out.put_pieces(frame(kind::DEFINE, head, vec![code]));
            }
        }
    }

    /// The next whole message among bytes that came in another way.
    pub(super) fn read(self, input: &mut BytesMut) -> Result<Option<FromWorker>, DecodeError> {
        match self {
            Self::Native => read_inline(input)?.map(FromWorker::from_frame).transpose(),
            Self::Python => read(input),
        }
    }

    /// The next whole message that has come.
    pub(super) fn take(self, incoming: &mut Incoming) -> Result<Option<FromWorker>, DecodeError> {
        incoming.take_with(|input| self.read(input))
    }
}

/// A frame: the length of what follows, its kind, its head, and payloads that are not copied.
fn frame(kind: u8, head: BytesMut, payloads: Vec<Bytes>) -> Vec<Bytes> {
    let len = 1 + head.len() + payloads.iter().map(Bytes::len).sum::<usize>();
    let mut first = BytesMut::with_capacity(5 + head.len());
    first.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    first.put_u8(kind);
    first.extend_from_slice(&head);
    std::iter::once(first.freeze()).chain(payloads).collect()
}

fn encode(message: ToWorker) -> Vec<Bytes> {
    let mut head = BytesMut::new();
    match message {
        ToWorker::Init { payloads, .. } => frame(kind::INIT, head, payloads.into_items()),
        ToWorker::Define { spec, .. } => {
            head.put_u32_le(spec.0);
            frame(kind::DEFINE, head, Vec::new())
        }
        ToWorker::Run { rows, payloads } => {
            let payloads = payloads.into_items();
            head.put_u32_le(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            rows.iter().for_each(|row| head.put_u64_le(row.index));
            rows.iter().for_each(|row| head.put_u32_le(row.attempt.0));
            rows.iter().for_each(|row| head.put_u32_le(row.spec.0));
            let len = |payload: &Bytes| u32::try_from(payload.len()).unwrap_or(u32::MAX);
            payloads
                .iter()
                .for_each(|payload| head.put_u32_le(len(payload)));
            frame(kind::RUN, head, payloads)
        }
        ToWorker::GiveBack { count } => {
            head.put_u32_le(count);
            frame(kind::GIVE_BACK, head, Vec::new())
        }
        ToWorker::Go => frame(kind::GO, head, Vec::new()),
        ToWorker::Stop => frame(kind::STOP, head, Vec::new()),
    }
}

/// What a template says of itself.
pub(super) enum FromTemplate {
    /// It can be asked for workers.
    Ready {
        /// Major and minor version of its Python.
        version: (u8, u8),
    },
    /// It is of no use.
    Unfit {
        /// Why, for people.
        reason: String,
    },
}

impl FromTemplate {
    /// Takes a whole message out of `input`, if there is one.
    pub(super) fn read(input: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let Some(frame) = whole(input)? else {
            return Ok(None);
        };
        match *frame {
            [kind::READY, major, minor] => Ok(Some(Self::Ready {
                version: (major, minor),
            })),
            [kind::UNFIT, ref reason @ ..] => Ok(Some(Self::Unfit {
                reason: String::from_utf8_lossy(reason).into_owned(),
            })),
            _ => Err(UNKNOWN),
        }
    }
}

const UNKNOWN: DecodeError = DecodeError::Inconsistent("a frame of a worker is of no known kind");

fn read(input: &mut BytesMut) -> Result<Option<FromWorker>, DecodeError> {
    whole(input)?.map(decode).transpose()
}

/// Takes a whole frame out of `input`, if there is one.
fn whole(input: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
    let Some(head) = input.get(..4) else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(head.try_into().expect("four bytes")) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(DecodeError::Inconsistent(
            "a frame of a worker is longer than any may be",
        ));
    }
    if input.len() < 4 + len {
        input.reserve(4 + len - input.len());
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(len).freeze()))
}

fn decode(mut frame: Bytes) -> Result<FromWorker, DecodeError> {
    let short = DecodeError::Inconsistent("a frame of a worker is shorter than it must be");
    if frame.is_empty() {
        return Err(short);
    }
    match frame.get_u8() {
        kind::READY if frame.len() >= 4 => Ok(FromWorker::Ready {
            pid: frame.get_u32_le(),
        }),
        kind::UNFIT => Ok(FromWorker::Unfit {
            reason: String::from_utf8_lossy(&frame).into_owned(),
        }),
        kind::DONE if frame.len() >= DONE_BYTES => {
            let row = DoneRow {
                index: frame.get_u64_le(),
                attempt: Attempt(frame.get_u32_le()),
                outcome: Outcome::from(frame.get_u8()),
                printed: frame.get_u8() != 0,
                started_us: frame.get_u64_le(),
                run_us: frame.get_u64_le(),
            };
            let payloads = Payloads::from(vec![frame]);
            Ok(FromWorker::Done {
                rows: vec![row],
                payloads,
            })
        }
        kind::GIVEN_BACK if frame.len().is_multiple_of(ROW_BYTES) => {
            let mut rows = Vec::with_capacity(frame.len() / ROW_BYTES);
            while frame.has_remaining() {
                rows.push(RunRow {
                    index: frame.get_u64_le(),
                    attempt: Attempt(frame.get_u32_le()),
                    spec: SpecId(frame.get_u32_le()),
                });
            }
            Ok(FromWorker::GivenBack { rows })
        }
        kind::READY | kind::DONE | kind::GIVEN_BACK => Err(short),
        _ => Err(UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pieces: &[&[u8]]) -> BytesMut {
        let body = pieces.concat();
        let len = u32::try_from(body.len()).unwrap();
        BytesMut::from(&[len.to_le_bytes().as_slice(), &body].concat()[..])
    }

    #[test]
    fn a_batch_of_tasks_is_columns_and_then_payloads() {
        let row = |index| RunRow {
            index,
            attempt: Attempt(1),
            spec: SpecId(7),
        };
        let payloads = Payloads::from(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        let rows = vec![row(3), row(4)];
        let frame = encode(ToWorker::Run { rows, payloads }).concat();
        let columns: Vec<u8> = [3u64, 4].iter().flat_map(|n| n.to_le_bytes()).collect();
        let columns = [
            columns,
            [1u32, 1, 7, 7, 2, 1]
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect(),
        ]
        .concat();
        let whole = [
            &48u32.to_le_bytes()[..],
            &[3],
            &2u32.to_le_bytes(),
            &columns,
            b"abc",
        ]
        .concat();
        assert_eq!(frame, whole);
    }

    #[test]
    fn half_a_frame_waits_for_the_other_half() {
        let mut input = bytes(&[&[kind::READY], &9u32.to_le_bytes()]);
        let rest = input.split_off(6);
        assert_eq!(read(&mut input).unwrap(), None);
        input.unsplit(rest);
        assert_eq!(
            read(&mut input).unwrap(),
            Some(FromWorker::Ready { pid: 9 })
        );
        assert!(input.is_empty());
    }

    #[test]
    fn nonsense_is_an_error_and_takes_no_memory() {
        for mut input in [
            bytes(&[&[9]]),
            bytes(&[]),
            bytes(&[&[kind::DONE], b"short"]),
            bytes(&[&[kind::GIVEN_BACK], b"odd"]),
            BytesMut::from(&u32::MAX.to_le_bytes()[..]),
        ] {
            assert!(read(&mut input).is_err(), "{input:?}");
        }
    }
}
