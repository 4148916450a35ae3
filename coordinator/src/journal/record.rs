//! A fact as bytes, and bytes as facts.
//!
//! ```text
//! u32 magic | u32 header length | u32 body length | u32 CRC of all but the magic and itself | header | body
//! ```
//! All integers big-endian; header and body are those of the fact's frame.

use bytes::{Buf as _, Bytes};
use fleetpool_proto::{Frame, Message as _, journal::Fact, limits};

/// Begins every record, so that one can be found behind damage.
const MAGIC: [u8; 4] = *b"fact";
const PRELUDE: usize = 16;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They end before it does.
    Short,
    /// They are something else.
    Damaged(String),
}

/// Puts a fact behind `out`.
pub(super) fn write(fact: Fact, out: &mut Vec<u8>) {
    let Frame { header, body } = fact.into_frame();
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
pub(super) fn read(bytes: &Bytes) -> Result<(Fact, usize), Flaw> {
    let (header, body) = split(bytes)?;
    let length = PRELUDE + header.len() + body.len();
    let body = if body.is_empty() {
        Vec::new()
    } else {
        vec![body]
    };
    let fact = Fact::from_frame(Frame { header, body });
    let fact = fact.map_err(|error| Flaw::Damaged(error.to_string()))?;
    Ok((fact, length))
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
    use fleetpool_proto::{PoolId, SpecId};

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
