//! The bytes of every message, kept in files: what was readable stays readable, and what is written stays the same.
//!
//! A line is a message: its name, its header and its body in hex, or `-` for none.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use bytes::Bytes;
use fleetpool_proto::{
    Frame, Message,
    version::{PROTOCOL, PROTOCOL_MIN},
};

use crate::samples;

fn file(version: u16, name: &str) -> PathBuf {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden
        .join(format!("v{version}"))
        .join(format!("{name}.hex"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn line(name: &str, frame: &Frame) -> String {
    let (header, body) = (hex(&frame.header), hex(&frame.body.concat()));
    let body = if body.is_empty() { "-" } else { &body };
    format!("{name} {header} {body}\n")
}

fn parse(line: &str) -> (&str, Frame) {
    let mut parts = line.split(' ');
    let mut part = || parts.next().expect("name, header and body");
    let (name, header) = (part(), unhex(part()));
    let body = match part() {
        "-" => Vec::new(),
        body => vec![unhex(body)],
    };
    (name, Frame { header, body })
}

/// Every kept message of a version, by file.
pub(crate) fn kept(name: &str) -> Vec<(u16, Frame)> {
    let mut frames = Vec::new();
    for version in PROTOCOL_MIN..=PROTOCOL {
        let text = fs::read_to_string(file(version, name)).expect("a golden file");
        frames.extend(text.lines().map(|line| (version, parse(line).1)));
    }
    frames
}

fn check<M: Message + Clone + PartialEq + std::fmt::Debug>(name: &str, samples: &[M]) {
    let current: String = samples
        .iter()
        .map(|sample| line(sample.name(), &sample.clone().into_frame()))
        .collect();
    let path = file(PROTOCOL, name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, &current).expect("a golden file");
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        current,
        "{} differs from what is written now: see tests/it/main.rs on versions",
        path.display()
    );
    for (line, sample) in text.lines().zip(samples) {
        let (said, frame) = parse(line);
        assert_eq!(said, sample.name());
        assert_eq!(&M::from_frame(frame).expect("it was readable once"), sample);
    }
    for (version, frame) in kept(name) {
        let read = M::from_frame(frame);
        read.unwrap_or_else(|error| panic!("version {version}: {error}"));
    }
}

#[test]
fn the_bytes_of_every_message_stay_what_they_are() {
    check("hello", &samples::hellos());
    check("hello_reply", &samples::hello_replies());
    check("from_stranger", &samples::from_strangers());
    check("to_stranger", &samples::to_strangers());
    check("from_agent", &samples::from_agents());
    check("to_agent", &samples::to_agents());
    check("from_client", &samples::from_clients());
    check("to_client", &samples::to_clients());
    check("to_worker", &samples::to_workers());
    check("from_worker", &samples::from_workers());
}

/// Payloads of the runtimes are MessagePack of their own, inside bodies.
#[test]
fn the_bytes_of_the_runtimes_payloads_stay_what_they_are() {
    let path = file(PROTOCOL, "payloads");
    let current: BTreeMap<_, _> = crate::payloads::encoded();
    let current: String = current
        .iter()
        .map(|(name, bytes)| format!("{name} {}\n", hex(bytes)))
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &current).expect("a golden file");
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), current);
}
