//! The bytes shown in `docs/worker-protocol.md` are the bytes on the socket.

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{
    Attempt, Message, Outcome, Payloads, SpecId,
    frame::{read_inline, write_inline},
    worker::{DoneRow, FromWorker, RunRow, ToWorker},
};

const DOCUMENT: &str = include_str!("../../docs/worker-protocol.md");

#[test]
fn the_documented_conversation_is_what_is_sent() {
    let documented = hex_blocks(DOCUMENT);
    let sent: Vec<Vec<u8>> = conversation();
    assert_eq!(documented.len(), sent.len(), "one block a message");
    for (number, (documented, sent)) in documented.iter().zip(&sent).enumerate() {
        assert_eq!(documented, &hex(sent), "message {}", number + 1);
    }
}

#[test]
fn the_documented_bytes_are_understood() {
    for (number, block) in hex_blocks(DOCUMENT).iter().enumerate() {
        let mut input = BytesMut::from(&unhex(block)[..]);
        let frame = read_inline(&mut input)
            .expect("well-formed")
            .expect("whole");
        assert!(input.is_empty(), "message {} is one frame", number + 1);
        let understood =
            ToWorker::from_frame(frame.clone()).is_ok() || FromWorker::from_frame(frame).is_ok();
        assert!(understood, "message {}", number + 1);
    }
}

/// The example of the document: a worker is started, runs `math::square` of 7 as the fourth task of its pool, and ends.
fn conversation() -> Vec<Vec<u8>> {
    vec![
        bytes(ToWorker::Init {
            function: String::new(),
            payloads: Payloads::default(),
        }),
        bytes(FromWorker::Ready { pid: 4242 }),
        bytes(ToWorker::Define {
            spec: SpecId(1),
            function: "math::square".to_owned(),
        }),
        bytes(ToWorker::run_one(
            RunRow {
                index: 3,
                attempt: Attempt(1),
                spec: SpecId(1),
            },
            Bytes::from_static(&[0x07]),
        )),
        bytes(FromWorker::Done {
            rows: vec![DoneRow {
                index: 3,
                attempt: Attempt(1),
                outcome: Outcome::Done,
                started_us: 1_700_000_000_000_000,
                run_us: 12,
                printed: false,
            }],
            payloads: Payloads::from(vec![Bytes::from_static(&[0x31])]),
        }),
        bytes(ToWorker::Stop),
    ]
}

fn bytes(message: impl Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_inline(&message.into_frame(), &mut out);
    out.to_vec()
}

/// The contents of the document's `hex` blocks: what stands left of a line's `|`, without spaces.
fn hex_blocks(document: &str) -> Vec<String> {
    document
        .split("```hex\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .map(|block| {
            block
                .lines()
                .flat_map(|line| line.split('|').next())
                .collect::<String>()
        })
        .map(|block| block.split_whitespace().collect())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}
