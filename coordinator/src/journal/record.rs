//! A message as bytes on disk, and back.
//!
//! ```text
//! u32 magic | u32 header length | u32 body length | u32 CRC of all but the magic and itself | header | body
//! ```
//! All integers big-endian; header and body are those of the message's frame.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use bytes::{Buf as _, Bytes};
use fleetpool_proto::{Frame, Message, limits};

/// Begins every record, so that one can be found behind damage.
const MAGIC: [u8; 4] = *b"fact";
const PRELUDE: usize = 16;
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They end before it does.
    Short,
    /// They are something else.
    Damaged(String),
}

/// Puts a message behind `out`.
pub(crate) fn write<M: Message>(message: M, out: &mut Vec<u8>) {
    let Frame { header, body } = message.into_frame();
    let body_len: usize = body.iter().map(Bytes::len).sum();
    let lens = [len(header.len()), len(body_len)].concat();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&lens);
    crc.update(&header);
    body.iter().for_each(|segment| crc.update(segment));
    out.reserve(PRELUDE + header.len() + body_len);
    out.extend(MAGIC);
    out.extend(lens);
    out.extend(crc.finalize().to_be_bytes());
    out.extend(&header);
    body.iter()
        .for_each(|segment| out.extend_from_slice(segment));
}

fn len(len: usize) -> [u8; 4] {
    // Frames are far smaller.
    u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes()
}

/// Takes the record that begins here, and tells its length.
pub(super) fn read<M: Message>(bytes: &Bytes) -> Result<(M, usize), Flaw> {
    let (frame, length) = frame(bytes)?;
    let message = M::from_frame(frame).map_err(|error| Flaw::Damaged(error.to_string()))?;
    Ok((message, length))
}

/// The same, unread.
fn frame(bytes: &Bytes) -> Result<(Frame, usize), Flaw> {
    let (header, body) = split(bytes)?;
    let length = PRELUDE + header.len() + body.len();
    let body = if body.is_empty() {
        Vec::new()
    } else {
        vec![body]
    };
    Ok((Frame { header, body }, length))
}

/// Bytes of the whole records at the beginning.
pub(crate) fn whole(bytes: &Bytes) -> u64 {
    let mut at = 0;
    while let Ok((_, length)) = frame(&bytes.slice(at..)) {
        at += length;
    }
    at as u64
}

/// Some of a file's records from `at` on, and where the next one begins.
pub(crate) fn frames(path: &Path, at: u64) -> io::Result<(Vec<Frame>, u64)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    (&mut file).take(CHUNK).read_to_end(&mut bytes)?;
    let mut bytes = Bytes::from(bytes);
    if let Err(Flaw::Short) = frame(&bytes)
        && bytes.len() as u64 == CHUNK
    {
        // One that is larger than what is read at once.
        let prelude = bytes.slice(4..12);
        let length = PRELUDE as u64
            + u64::from((&prelude[..4]).get_u32())
            + u64::from((&prelude[4..]).get_u32());
        let mut all = bytes.to_vec();
        file.take(length.saturating_sub(CHUNK))
            .read_to_end(&mut all)?;
        bytes = all.into();
    }
    let (mut frames, mut used) = (Vec::new(), 0);
    while let Ok((frame, length)) = frame(&bytes.slice(used..)) {
        frames.push(frame);
        used += length;
    }
    Ok((frames, at + used as u64))
}

fn split(bytes: &Bytes) -> Result<(Bytes, Bytes), Flaw> {
    if bytes.len() < PRELUDE {
        return Err(Flaw::Short);
    }
    if bytes[..4] != MAGIC {
        return Err(Flaw::Damaged("it does not begin as a record".to_owned()));
    }
    let mut prelude = bytes.slice(4..PRELUDE);
    let (header, body) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if header > limits::FRAME_HEADER_BYTES_MAX || body > limits::FRAME_BODY_BYTES_MAX {
        return Err(Flaw::Damaged("its length cannot be".to_owned()));
    }
    let end = PRELUDE + header + body;
    if bytes.len() < end {
        return Err(Flaw::Short);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[4..12]);
    crc.update(&bytes[PRELUDE..end]);
    if crc.finalize() != prelude.get_u32() {
        return Err(Flaw::Damaged("its checksum is another".to_owned()));
    }
    let header_end = PRELUDE + header;
    Ok((
        bytes.slice(PRELUDE..header_end),
        bytes.slice(header_end..end),
    ))
}

/// Where the next sound record begins, from the second byte on.
pub(super) fn next_sound(bytes: &Bytes) -> Option<usize> {
    let starts = bytes.windows(MAGIC.len()).enumerate().skip(1);
    let mut starts = starts.filter(|(_, window)| *window == MAGIC);
    starts.find_map(|(at, _)| split(&bytes.slice(at..)).ok().map(|_| at))
}

#[cfg(test)]
mod tests {
    use fleetpool_proto::{PoolId, SpecId, journal::Fact};

    use super::*;

    #[test]
    fn a_fact_is_what_was_written() {
        let fact = Fact::Submitted {
            pool: PoolId(7),
            spec: SpecId(0),
            first: 3,
            hosts: Vec::new(),
            payloads: [Bytes::from_static(b"a"), Bytes::from_static(b"bc")]
                .into_iter()
                .collect(),
        };
        let mut out = Vec::new();
        write(fact.clone(), &mut out);
        let length = out.len();
        assert_eq!(read(&out.into()), Ok((fact, length)));
    }
}
