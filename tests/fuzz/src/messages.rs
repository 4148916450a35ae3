//! Frames, and the messages in them.
//!
//! The input of a message's target is `u16 header length (little-endian) | header | body`, so that what is changed is mostly
//! the message. The target `frame` takes the bytes of the wire.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{
    Frame, Message,
    frame::{Prelude, read_inline, write_inline},
    join::{FromStranger, ToStranger},
    message::{FromAgent, FromClient, ToAgent, ToClient},
    version::{Hello, HelloReply, negotiate},
    worker::{FromWorker, ToWorker},
};

/// Bytes of the wire, which come in two pieces, the first as long as the first byte says.
pub(crate) fn frame(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let (first, rest) = bytes.split_at(bytes.len().min(usize::from(cut)));
    let whole = frames(&[bytes]);
    assert_eq!(frames(&[first, rest]), whole, "pieces make a difference");
    // What was read is written as it was.
    let mut again = BytesMut::new();
    whole
        .0
        .iter()
        .for_each(|frame| write_inline(frame, &mut again));
    assert_eq!(again[..], bytes[..again.len()], "it is written otherwise");
    // Reading alone must not fail where the whole can be read.
    if let Ok(Some((prelude, len))) = Prelude::read(bytes) {
        assert!(len <= bytes.len());
        assert!(prelude.inline_len() >= prelude.header);
    }
}

/// All frames until there are no more, or one that cannot be.
fn frames(pieces: &[&[u8]]) -> (Vec<Frame>, bool) {
    let (mut input, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match read_inline(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (frames, false);
                }
            }
        }
    }
    (frames, true)
}

/// The frame that an input of a message's target is.
pub(crate) fn as_frame(bytes: &[u8]) -> Frame {
    let Some((&[low, high], rest)) = bytes.split_first_chunk() else {
        return Frame::default();
    };
    let len = usize::from(u16::from_le_bytes([low, high]));
    let (header, body) = rest.split_at(rest.len().min(len));
    let body = Bytes::copy_from_slice(body);
    Frame {
        header: Bytes::copy_from_slice(header),
        body: if body.is_empty() { vec![] } else { vec![body] },
    }
}

/// The other way.
pub(crate) fn as_input(frame: &Frame) -> Vec<u8> {
    let len = u16::try_from(frame.header.len()).expect("samples are small");
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&frame.header);
    frame
        .body
        .iter()
        .for_each(|segment| bytes.extend_from_slice(segment));
    bytes
}

/// What was understood means the same when it is said again.
pub(crate) fn message<M: Message + Clone + Debug + PartialEq>(bytes: &[u8]) -> Option<M> {
    let frame = as_frame(bytes);
    let message = match M::from_frame(frame) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    assert!(!message.name().is_empty());
    let again = M::from_frame(message.clone().into_frame());
    assert_eq!(again.expect("its own bytes"), message);
    Some(message)
}

/// What a known peer says first, whose version may be any.
pub(crate) fn hello(bytes: &[u8]) {
    if let Some(hello) = message::<Hello>(bytes)
        && let Err(refused) = negotiate(&hello)
    {
        assert!(refused.contains("upgrade"), "{refused}");
    }
}

/// What a stranger says, and is answered.
pub(crate) fn join(bytes: &[u8]) {
    message::<FromStranger>(bytes);
    message::<ToStranger>(bytes);
}

macro_rules! targets {
    ($($name:ident: $message:ty),+ $(,)?) => {
        $(pub(crate) fn $name(bytes: &[u8]) {
            message::<$message>(bytes);
        })+
    };
}

targets! {
    hello_reply: HelloReply,
    from_agent: FromAgent,
    to_agent: ToAgent,
    from_client: FromClient,
    to_client: ToClient,
    to_worker: ToWorker,
    from_worker: FromWorker,
}
