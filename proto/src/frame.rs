//! The unit that sessions carry: a MessagePack header and a raw body.
//!
//! ```text
//! prelude  u32 header length | u16 segment count | count × (u32 length, top bit: on a stream of its own)
//! header   MessagePack, structs by name
//! body     the inline segments, one after another
//! ```
//! All integers big-endian. A segment of [`BULK_BYTES_MIN`] or more may travel apart from its frame, where the
//! carrier has streams for that; the frame is whole when its last segment is there.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    limits::{BULK_BYTES_MIN, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FRAME_SEGMENTS_MAX},
    rows::Payloads,
};

/// A message as bytes: its header and the segments of its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// MessagePack.
    pub header: Bytes,
    /// Raw bytes; a payload never straddles two segments.
    pub body: Vec<Bytes>,
}

impl Frame {
    /// Bytes of header and body.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.body.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is neither header nor body.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why bytes from a peer are not a message. The session that brought them is closed with this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A length in the prelude is over its limit.
    #[error("frame {what} of {len} is over the limit of {limit}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// What the peer announced.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The header's lengths ask for more bytes than the body has.
    #[error("frame body ends {missing} bytes before its last payload")]
    BodyTooShort {
        /// Bytes that are not there.
        missing: usize,
    },
    /// The body has bytes that no payload claims.
    #[error("frame body has {left} bytes that belong to no payload")]
    BodyTooLong {
        /// Unclaimed bytes.
        left: usize,
    },
    /// The header is not the expected MessagePack.
    #[error("malformed header: {0}")]
    Header(#[from] rmp_serde::decode::Error),
    /// Tables of one message do not agree.
    #[error("malformed message: {0}")]
    Inconsistent(&'static str),
}

/// A typed message, and how it becomes a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// The payloads of this message, where its kind has any.
    fn payloads(&mut self) -> Option<&mut Payloads>;

    /// The message's static name, for logs and counters.
    fn name(&self) -> &'static str;

    /// What must hold between the message's tables.
    ///
    /// # Errors
    /// [`DecodeError::Inconsistent`] when a peer sent tables of different lengths.
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }

    /// Encodes the message; payloads become body segments without being copied when they are large.
    fn into_frame(mut self) -> Frame {
        let items = self
            .payloads()
            .map(|payloads| payloads.items().to_vec())
            .unwrap_or_default();
        let header = encode_header(&self);
        Frame {
            header,
            body: pack(items),
        }
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// When the bytes are not this kind of message.
    fn from_frame(frame: Frame) -> Result<Self, DecodeError> {
        let mut message: Self = rmp_serde::from_slice(&frame.header)?;
        let mut body = BodyReader::new(frame.body);
        if let Some(payloads) = message.payloads() {
            payloads.fill(&mut body)?;
        }
        body.finish()?;
        message.check()?;
        Ok(message)
    }
}

/// MessagePack of `value`, structs by name.
///
/// # Panics
/// When the value's own `Serialize` fails, which those of this crate do not.
#[must_use]
pub fn encode_header<T: Serialize>(value: &T) -> Bytes {
    let bytes = rmp_serde::to_vec_named(value).expect("protocol values encode to memory");
    Bytes::from(bytes)
}

/// The value that [`encode_header`] encoded.
///
/// # Errors
/// When the bytes are something else.
pub fn decode_header<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Joins neighbouring small payloads into segments that still travel inline; large ones stay as they are.
fn pack(items: Vec<Bytes>) -> Vec<Bytes> {
    if items.len() <= 1 {
        return items.into_iter().filter(|item| !item.is_empty()).collect();
    }
    let mut segments = Vec::new();
    let mut small = BytesMut::new();
    for item in items {
        if small.len() + item.len() >= BULK_BYTES_MIN && !small.is_empty() {
            segments.push(small.split().freeze());
        }
        if item.len() < BULK_BYTES_MIN {
            small.extend_from_slice(&item);
        } else {
            segments.push(item);
        }
    }
    if !small.is_empty() {
        segments.push(small.freeze());
    }
    segments
}

/// Cuts payloads out of a body, in order.
#[derive(Debug)]
pub(crate) struct BodyReader {
    segments: std::vec::IntoIter<Bytes>,
    current: Bytes,
}

impl BodyReader {
    fn new(segments: Vec<Bytes>) -> Self {
        Self {
            segments: segments.into_iter(),
            current: Bytes::new(),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        if self.current.is_empty() {
            self.current = self.segments.next().unwrap_or_default();
        }
        if self.current.len() < len {
            return Err(DecodeError::BodyTooShort {
                missing: len - self.current.len(),
            });
        }
        Ok(self.current.split_to(len))
    }

    fn finish(self) -> Result<(), DecodeError> {
        let left = self.current.len() + self.segments.map(|segment| segment.len()).sum::<usize>();
        if left == 0 {
            Ok(())
        } else {
            Err(DecodeError::BodyTooLong { left })
        }
    }
}

/// Where a segment of an incoming frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPlace {
    /// Behind the header, this many bytes.
    Inline(usize),
    /// On its own stream, this many bytes.
    Apart(usize),
}

/// The fixed part in front of a frame: how long everything is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prelude {
    /// Bytes of header.
    pub header: usize,
    /// The body's segments in order.
    pub segments: Vec<SegmentPlace>,
}

/// Marks the length of a segment that travels on its own stream.
const APART: u32 = 1 << 31;
/// Bytes of the prelude before the segment lengths.
pub const PRELUDE_BYTES_MIN: usize = 6;

impl Prelude {
    /// The prelude of `frame`, with segments from [`BULK_BYTES_MIN`] on sent apart when `apart` is set.
    #[must_use]
    pub fn of(frame: &Frame, apart: bool) -> Self {
        let place = |segment: &Bytes| match segment.len() {
            len if apart && len >= BULK_BYTES_MIN => SegmentPlace::Apart(len),
            len => SegmentPlace::Inline(len),
        };
        Self {
            header: frame.header.len(),
            segments: frame.body.iter().map(place).collect(),
        }
    }

    /// Appends the prelude's bytes.
    ///
    /// # Panics
    /// When a frame was built over the limits, which the senders check first.
    pub fn write(&self, out: &mut BytesMut) {
        let fits = "frames are built within their limits";
        out.put_u32(u32::try_from(self.header).expect(fits));
        out.put_u16(u16::try_from(self.segments.len()).expect(fits));
        for segment in &self.segments {
            match *segment {
                SegmentPlace::Inline(len) => out.put_u32(u32::try_from(len).expect(fits)),
                SegmentPlace::Apart(len) => out.put_u32(u32::try_from(len).expect(fits) | APART),
            }
        }
    }

    /// Reads the prelude at the front of `input` and tells its own length; `None` while it is not all there.
    ///
    /// # Errors
    /// When a length is over its limit, before anything of that length is allocated.
    pub fn read(mut input: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        if input.len() < PRELUDE_BYTES_MIN {
            return Ok(None);
        }
        let header = input.get_u32() as usize;
        let count = usize::from(input.get_u16());
        limit("header", header, FRAME_HEADER_BYTES_MAX)?;
        limit("segment count", count, FRAME_SEGMENTS_MAX)?;
        if input.len() < 4 * count {
            return Ok(None);
        }
        let segments: Vec<_> = (0..count)
            .map(|_| match input.get_u32() {
                len if len & APART != 0 => SegmentPlace::Apart((len & !APART) as usize),
                len => SegmentPlace::Inline(len as usize),
            })
            .collect();
        let body = segments.iter().map(SegmentPlace::len).sum();
        limit("body", body, FRAME_BODY_BYTES_MAX)?;
        Ok(Some((
            Self { header, segments },
            PRELUDE_BYTES_MIN + 4 * count,
        )))
    }

    /// Bytes that follow the prelude in the same stream: the header and the inline segments.
    #[must_use]
    pub fn inline_len(&self) -> usize {
        let inline = |segment: &SegmentPlace| match segment {
            SegmentPlace::Inline(len) => *len,
            SegmentPlace::Apart(_) => 0,
        };
        self.header + self.segments.iter().map(inline).sum::<usize>()
    }
}

impl SegmentPlace {
    fn len(&self) -> usize {
        match *self {
            Self::Inline(len) | Self::Apart(len) => len,
        }
    }
}

fn limit(what: &'static str, len: usize, limit: usize) -> Result<(), DecodeError> {
    if len > limit {
        return Err(DecodeError::TooLarge { what, len, limit });
    }
    Ok(())
}

/// Appends `frame` with every segment inline: the form used on byte streams that have no second stream.
pub fn write_inline(frame: &Frame, out: &mut BytesMut) {
    Prelude::of(frame, false).write(out);
    out.extend_from_slice(&frame.header);
    for segment in &frame.body {
        out.extend_from_slice(segment);
    }
}

/// Takes the next whole inline frame from the front of `input`, `None` while it is not all there.
///
/// `input` is left untouched until a frame is whole, so call it again with more bytes behind.
///
/// # Errors
/// When a length is over its limit, or a segment is marked as travelling apart.
pub fn read_inline(input: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
    let Some((prelude, prelude_len)) = Prelude::read(input)? else {
        return Ok(None);
    };
    let whole = prelude_len + prelude.inline_len();
    if input.len() < whole {
        input.reserve(whole - input.len());
        return Ok(None);
    }
    input.advance(prelude_len);
    let header = input.split_to(prelude.header).freeze();
    let body = prelude
        .segments
        .iter()
        .map(|segment| match *segment {
            SegmentPlace::Inline(len) => Ok(input.split_to(len).freeze()),
            SegmentPlace::Apart(_) => Err(DecodeError::Inconsistent(
                "a segment sent apart on a stream without others",
            )),
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(Frame { header, body }))
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
