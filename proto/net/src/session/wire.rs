//! Frames to bytes and back, for carriers that have bytes.
//!
//! What follows the last frame of a session is its goodbye: `u32::MAX`, which is no header's length, a u16 and as
//! many bytes of reason.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use fleetpool_proto::{
    Frame,
    frame::{Prelude, SegmentPlace},
};

use super::end::{Cause, Closed};

/// What stands where a frame's header length would.
const GOODBYE: u32 = u32::MAX;
/// Bytes of a goodbye before its reason.
const GOODBYE_BYTES_MIN: usize = 6;
/// Longest reason in a goodbye; the rest is cut off.
const REASON_BYTES_MAX: usize = 4096;
/// What a read asks for: many small frames at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes from a peer, and the frames that are whole in them.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    /// Length that the buffer must have before it is worth another look.
    needed: usize,
    /// Longest frame that this peer may send.
    limit: usize,
}

/// What the peer said.
#[derive(Debug)]
pub(crate) enum Item {
    /// A frame. Segments that travel apart are empty, and listed.
    Frame(Frame, Vec<Apart>),
    /// Its last word.
    Goodbye(String),
}

/// A segment that travels on a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    /// Which of the frame's segments.
    pub(crate) segment: usize,
    /// Its length in bytes.
    pub(crate) len: usize,
}

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            needed: 0,
            limit,
        }
    }

    /// From here on the limits of the wire hold, which the prelude checks.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = usize::MAX;
    }

    /// Where to read more into: at least as much room as the next frame lacks.
    pub(crate) fn space(&mut self) -> &mut BytesMut {
        let missing = self.needed.saturating_sub(self.buffer.len());
        // Amid a large frame just its rest: for more than it has room for, the buffer would move all that has come.
        let amid = missing > 0 && self.buffer.len() >= READ_BYTES;
        let room = if amid {
            missing
        } else {
            missing.max(READ_BYTES)
        };
        self.buffer.reserve(room);
        &mut self.buffer
    }

    /// Whether the peer broke off within a frame.
    pub(crate) fn is_amid(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next item that is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, Closed> {
        if self.buffer.len() < self.needed.max(GOODBYE_BYTES_MIN) {
            return Ok(None);
        }
        if self.buffer[..4] == GOODBYE.to_be_bytes() {
            return Ok(self.goodbye());
        }
        let Some((prelude, prelude_len)) =
            Prelude::read(&self.buffer).map_err(Closed::malformed)?
        else {
            // The segment table is not all there yet.
            self.needed = self.buffer.len() + 1;
            return Ok(None);
        };
        let whole = prelude_len + prelude.inline_len();
        if whole > self.limit {
            let limit = self.limit;
            let reason = format!("a frame of {whole} bytes where at most {limit} are allowed");
            return Err(Closed::malformed(reason));
        }
        if self.buffer.len() < whole {
            self.needed = whole;
            return Ok(None);
        }
        self.needed = 0;
        self.buffer.advance(prelude_len);
        let (frame, apart) = self.cut(&prelude);
        Ok(Some(Item::Frame(frame, apart)))
    }

    fn cut(&mut self, prelude: &Prelude) -> (Frame, Vec<Apart>) {
        let mut apart = Vec::new();
        let header = self.buffer.split_to(prelude.header).freeze();
        let mut body = Vec::with_capacity(prelude.segments.len());
        for (segment, place) in prelude.segments.iter().enumerate() {
            body.push(match *place {
                SegmentPlace::Inline(len) => self.buffer.split_to(len).freeze(),
                SegmentPlace::Apart(len) => {
                    apart.push(Apart { segment, len });
                    Bytes::new()
                }
            });
        }
        (Frame { header, body }, apart)
    }

    fn goodbye(&mut self) -> Option<Item> {
        let len = usize::from(u16::from_be_bytes([self.buffer[4], self.buffer[5]]));
        self.needed = GOODBYE_BYTES_MIN + len;
        if self.buffer.len() < self.needed {
            return None;
        }
        self.buffer.advance(GOODBYE_BYTES_MIN);
        let reason = self.buffer.split_to(len);
        Some(Item::Goodbye(String::from_utf8_lossy(&reason).into_owned()))
    }
}

/// The goodbye of a session that ended like this.
pub(crate) fn goodbye(end: Option<&Closed>) -> BytesMut {
    let reason = end.map_or("the other side has left", |closed| closed.reason.as_str());
    let mut len = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    let mut out = BytesMut::with_capacity(GOODBYE_BYTES_MIN + len);
    out.put_u32(GOODBYE);
    out.put_u16(u16::try_from(len).expect("cut to fit"));
    out.put_slice(&reason.as_bytes()[..len]);
    out
}

/// The end of a peer that said goodbye.
pub(crate) fn left(reason: String) -> Closed {
    Closed::new(Cause::Peer, reason)
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::frame::write_inline;

    use super::*;

    fn decoder(bytes: &[u8], limit: usize) -> Decoder {
        let mut decoder = Decoder::new(limit);
        decoder.space().extend_from_slice(bytes);
        decoder
    }

    #[test]
    fn frames_come_out_whatever_the_reads_were() {
        let frame = Frame {
            header: Bytes::from_static(b"header"),
            body: vec![
                Bytes::from_static(b"one"),
                Bytes::new(),
                Bytes::from_static(b"two"),
            ],
        };
        let mut bytes = BytesMut::new();
        write_inline(&frame, &mut bytes);
        write_inline(&frame, &mut bytes);
        bytes.extend_from_slice(&goodbye(Some(&left("done".to_owned()))));
        for step in 1..bytes.len() {
            let mut decoder = Decoder::new(1000);
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.space().extend_from_slice(piece);
                while let Some(item) = decoder.next().unwrap() {
                    seen.push(match item {
                        Item::Frame(got, apart) => {
                            assert!(apart.is_empty());
                            assert_eq!(got, frame);
                            "frame".to_owned()
                        }
                        Item::Goodbye(reason) => reason,
                    });
                }
            }
            assert_eq!(seen, ["frame", "frame", "done"], "read {step} at a time");
            assert!(!decoder.is_amid());
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_there() {
        let announced = [0, 0, 1, 0, 0, 0];
        let closed = decoder(&announced, 64).next().unwrap_err();
        assert_eq!(closed.cause, Cause::Malformed);
        assert!(closed.reason.contains("at most 64"), "{closed}");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(REASON_BYTES_MAX);
        let bytes = goodbye(Some(&left(format!("x{reason}"))));
        match decoder(&bytes, 64).next() {
            Ok(Some(Item::Goodbye(said))) => assert!(said.ends_with('ä') && said.len() <= 4096),
            other => panic!("{other:?}"),
        }
    }
}
