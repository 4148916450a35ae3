//! Decoders take any bytes: they answer with a message or an error, never with a panic, and never with more memory
//! than the bytes are worth.

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{
    DecodeError, Frame, Message,
    frame::{Prelude, SegmentPlace, read_inline, write_inline},
    join::{FromStranger, ToStranger},
    limits::{BULK_BYTES_MIN, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES_MAX, FRAME_SEGMENTS_MAX},
    message::{FromAgent, FromClient, ToAgent, ToClient},
    version::{Hello, HelloReply},
    worker::{FromWorker, ToWorker},
};
use proptest::{collection::vec, prelude::*};

use crate::golden::kept;

/// Gives a frame to every decoder.
fn decode_as_everything(frame: &Frame) {
    fn one<M: Message>(frame: &Frame) {
        if let Ok(message) = M::from_frame(frame.clone()) {
            // What was understood can be said again, and means the same.
            let name = message.name();
            let again = M::from_frame(message.into_frame()).expect("its own bytes");
            assert_eq!(again.name(), name);
        }
    }
    one::<Hello>(frame);
    one::<HelloReply>(frame);
    one::<FromStranger>(frame);
    one::<ToStranger>(frame);
    one::<FromAgent>(frame);
    one::<ToAgent>(frame);
    one::<FromClient>(frame);
    one::<ToClient>(frame);
    one::<ToWorker>(frame);
    one::<FromWorker>(frame);
}

const FILES: [&str; 10] = [
    "hello",
    "hello_reply",
    "from_stranger",
    "to_stranger",
    "from_agent",
    "to_agent",
    "from_client",
    "to_client",
    "to_worker",
    "from_worker",
];

fn any_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let segments = vec(any_bytes(300), 0..6);
    (any_bytes(200), segments).prop_map(|(header, body)| Frame { header, body })
}

proptest! {
    #[test]
    fn random_bytes_are_no_message_and_no_panic(frame in any_frame()) {
        decode_as_everything(&frame);
    }

    #[test]
    fn random_bytes_are_read_as_frames_or_refused(bytes in any_bytes(400)) {
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = read_inline(&mut input) {
            decode_as_everything(&frame);
        }
        prop_assert!(input.len() <= bytes.len());
    }

    #[test]
    fn frames_survive_the_wire_in_any_pieces(frames in vec(any_frame(), 1..5), cuts in vec(1_usize..200, 1..50)) {
        let mut sent = BytesMut::new();
        frames.iter().for_each(|frame| write_inline(frame, &mut sent));
        let (mut input, mut read) = (BytesMut::new(), Vec::new());
        for cut in cuts.iter().cycle() {
            let piece = sent.split_to((*cut).min(sent.len()));
            input.extend_from_slice(&piece);
            while let Some(frame) = read_inline(&mut input).expect("honest bytes") {
                read.push(frame);
            }
            if sent.is_empty() {
                break;
            }
        }
        prop_assert_eq!(read, frames);
        prop_assert!(input.is_empty());
    }

    /// Bytes of real messages with a few of them changed reach deeper than random ones.
    #[test]
    fn damaged_messages_are_no_panic(
        file in 0..FILES.len(),
        pick in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = kept(FILES[file]);
        let (_, frame) = &messages[pick.index(messages.len())];
        let mut header = frame.header.to_vec();
        for (at, byte) in damage {
            let at = at.index(header.len());
            header[at] = byte;
        }
        decode_as_everything(&Frame { header: header.clone().into(), ..frame.clone() });
        header.truncate(cut.index(header.len()));
        decode_as_everything(&Frame { header: header.into(), ..frame.clone() });
    }

    #[test]
    fn payloads_of_any_size_come_back_in_order(sizes in vec(prop_oneof![0_usize..50, 60_000_usize..70_000], 0..12)) {
        use fleetpool_proto::{Payloads, PoolId, SpecId};
        let item = |(n, size): (usize, &usize)| Bytes::from(vec![n.to_le_bytes()[0]; *size]);
        let items: Vec<Bytes> = sizes.iter().enumerate().map(item).collect();
        let message = FromClient::Submit {
            pool: PoolId(1),
            spec: SpecId(1),
            first: 0,
            hosts: Vec::new(),
            payloads: Payloads::from(items.clone()),
        };
        let frame = message.into_frame();
        let small = |segment: &Bytes| segment.len() < BULK_BYTES_MIN;
        let merged = frame.body.windows(2).all(|pair| !(small(&pair[0]) && small(&pair[1]) && pair[0].len() + pair[1].len() < BULK_BYTES_MIN));
        prop_assert!(merged, "small payloads travel together");
        match FromClient::from_frame(frame) {
            Ok(FromClient::Submit { payloads, .. }) => prop_assert_eq!(payloads.into_items(), items),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

fn prelude(header: usize, segments: Vec<SegmentPlace>) -> BytesMut {
    let mut bytes = BytesMut::new();
    Prelude { header, segments }.write(&mut bytes);
    bytes
}

#[track_caller]
fn too_large(bytes: &[u8], expect: &str) {
    match Prelude::read(bytes) {
        Err(DecodeError::TooLarge { what, .. }) => assert_eq!(what, expect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_over_a_limit_is_refused_as_soon_as_it_is_announced() {
    let inline = SegmentPlace::Inline;
    too_large(&prelude(FRAME_HEADER_BYTES_MAX + 1, Vec::new()), "header");
    too_large(&[0, 0, 0, 0, 0xff, 0xff], "segment count");
    too_large(
        &prelude(1, vec![inline(FRAME_BODY_BYTES_MAX), inline(1)]),
        "body",
    );
    too_large(
        &prelude(
            1,
            vec![SegmentPlace::Apart(FRAME_BODY_BYTES_MAX), inline(1)],
        ),
        "body",
    );
    let most = prelude(FRAME_HEADER_BYTES_MAX, vec![inline(0); FRAME_SEGMENTS_MAX]);
    assert!(matches!(Prelude::read(&most), Ok(Some(_))));
}

#[test]
fn a_prelude_is_read_when_it_is_whole_and_not_before() {
    let places = vec![SegmentPlace::Inline(5), SegmentPlace::Apart(70_000)];
    let bytes = prelude(9, places.clone());
    for len in 0..bytes.len() {
        assert!(matches!(Prelude::read(&bytes[..len]), Ok(None)), "at {len}");
    }
    let (read, len) = Prelude::read(&bytes).expect("honest").expect("whole");
    assert_eq!(
        (read.header, &read.segments, len),
        (9, &places, bytes.len())
    );
    assert_eq!(read.inline_len(), 14);
}

#[test]
fn a_segment_apart_has_no_place_among_inline_ones() {
    let mut bytes = prelude(0, vec![SegmentPlace::Apart(1)]);
    assert!(matches!(
        read_inline(&mut bytes),
        Err(DecodeError::Inconsistent(_))
    ));
}

#[test]
fn lengths_that_do_not_meet_the_body_are_refused() {
    let good = crate::samples::to_agents()
        .into_iter()
        .find(|message| message.name() == "grant")
        .expect("a sample")
        .into_frame();
    let with = |body: &'static [u8]| {
        let body = vec![Bytes::from_static(body)];
        ToAgent::from_frame(Frame {
            body,
            ..good.clone()
        })
    };
    assert!(with(b"onethree").is_ok());
    assert!(matches!(
        with(b"onethre"),
        Err(DecodeError::BodyTooShort { missing: 1 })
    ));
    assert!(matches!(
        with(b"onethree!"),
        Err(DecodeError::BodyTooLong { left: 1 })
    ));
}
