//! What stands inside payloads.

use std::{collections::BTreeMap, fmt::Debug};

use bytes::Bytes;
use fleetpool_proto::{
    command::{CommandEnd, CommandTask, Piece, Word},
    frame::{decode_header, encode_header},
    outcome::Loss,
    worker::NativeError,
};
use serde::{Serialize, de::DeserializeOwned};

fn command_task() -> CommandTask {
    let pieces = vec![
        Piece::Literal(b"--on=".to_vec().into()),
        Piece::Host,
        Piece::Slot,
    ];
    CommandTask {
        argv: vec![
            Word::literal("echo"),
            Word::literal([0xff, 0x00]),
            Word(pieces),
        ],
    }
}

fn command_end() -> CommandEnd {
    CommandEnd {
        exit: Some(3),
        signal: Some(9),
        memory_kib_peak: 4096,
        user_us: 10,
        system_us: 20,
        leaked: 1,
    }
}

fn loss() -> Loss {
    Loss {
        message: "killed by signal 9".to_owned(),
        signal: Some(9),
        exit: None,
        memory_kib_peak: 4096,
        stderr_tail: "oops\n".to_owned(),
    }
}

fn native_error() -> NativeError {
    NativeError {
        message: "divided by zero".to_owned(),
        location: "src/main.rs:3:5".to_owned(),
    }
}

pub(crate) fn encoded() -> BTreeMap<&'static str, Bytes> {
    BTreeMap::from([
        ("command_task", encode_header(&command_task())),
        ("command_end", encode_header(&command_end())),
        ("loss", encode_header(&loss())),
        ("native_error", encode_header(&native_error())),
    ])
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = encode_header(&value);
    assert_eq!(decode_header::<T>(&bytes).expect("its own bytes"), value);
}

#[test]
fn payloads_survive_their_own_bytes() {
    survives(command_task());
    survives(command_end());
    survives(loss());
    survives(native_error());
}

#[test]
fn a_payload_of_an_older_peer_is_filled_up() {
    let empty = [0x80];
    assert_eq!(
        decode_header::<CommandEnd>(&empty).expect("a map"),
        CommandEnd::default()
    );
    assert_eq!(
        decode_header::<Loss>(&empty).expect("a map"),
        Loss::default()
    );
}
