//! The golden files of the wire, as seeds.

use std::{fs, path::PathBuf};

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{Frame, frame::write_inline};

use crate::messages::as_input;

/// The newest golden files.
fn folder() -> PathBuf {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/tests/golden");
    golden.join(format!("v{}", fleetpool_proto::version::PROTOCOL))
}

/// Every message of a file: a line is its name, its header and its body in hex, or `-` for none.
pub(crate) fn kept(name: &str) -> Vec<Frame> {
    let text = fs::read_to_string(folder().join(format!("{name}.hex"))).expect("a golden file");
    let frame = |line: &str| {
        let mut words = line.split(' ').skip(1).map(unhex);
        let header = words.next().expect("a header");
        let body = words.next().filter(|body| !body.is_empty());
        Frame {
            header,
            body: body.into_iter().collect(),
        }
    };
    text.lines().map(frame).collect()
}

fn unhex(text: &str) -> Bytes {
    let text = text.trim_start_matches('-');
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn inputs(name: &str) -> Vec<Vec<u8>> {
    kept(name).iter().map(as_input).collect()
}

/// Bytes of the wire: one frame, and several, cut where it hurts.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let files = ["hello", "from_agent", "to_client"];
    let all: Vec<Frame> = files.iter().flat_map(|name| kept(name)).collect();
    let on_the_wire = |frames: &[Frame]| {
        let mut bytes = BytesMut::new();
        frames
            .iter()
            .for_each(|frame| write_inline(frame, &mut bytes));
        [&[3][..], &bytes].concat()
    };
    let single = all.iter().map(std::slice::from_ref).map(on_the_wire);
    single.chain(all.chunks(5).map(on_the_wire)).collect()
}

macro_rules! seeds {
    ($($name:ident: $($file:literal)+),+ $(,)?) => {
        $(pub(crate) fn $name() -> Vec<Vec<u8>> {
            [$($file),+].iter().flat_map(|file| inputs(file)).collect()
        })+
    };
}

seeds! {
    hello: "hello",
    hello_reply: "hello_reply",
    join: "from_stranger" "to_stranger",
    from_agent: "from_agent",
    to_agent: "to_agent",
    from_client: "from_client",
    to_client: "to_client",
    to_worker: "to_worker",
    from_worker: "from_worker",
}
