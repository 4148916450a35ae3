//! Decoders that their crates keep to themselves, taken from their sources: what Python workers say, what keepers and
//! agents say to each other, a coordinator's journal, and archives.

use bytes::{BufMut as _, Bytes, BytesMut};
use fleetpool_proto::{
    ClientId, Message, Payloads, PoolId, SpecId,
    journal::Fact,
    pool::{PoolOptions, Spec},
};

use crate::{
    messages::{as_input, message},
    seeds,
};
use dialect::{Dialect, FromTemplate};
use keeper_message::{FromKeeper, Place, ToKeeper};

#[path = "../../../cli/src/archive.rs"]
#[expect(dead_code, reason = "half of it is the program's")]
pub(crate) mod archive;
#[path = "../../../agent/src/workers/dialect.rs"]
#[expect(dead_code, reason = "half of it is the agent's")]
mod dialect;
#[path = "../../../agent/src/keeper/message.rs"]
#[expect(dead_code, reason = "half of it is the agent's")]
mod keeper_message;
#[path = "../../../coordinator/src/journal/record.rs"]
#[expect(dead_code, reason = "half of it is the coordinator's")]
mod record;

/// What a Python worker sends, or a template.
pub(crate) fn python_worker(bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(_)) = Dialect::Python.read(&mut input) {}
    assert!(input.len() <= bytes.len());
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(_)) = FromTemplate::read(&mut input) {}
    assert!(input.len() <= bytes.len());
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(_)) = Dialect::Native.read(&mut input) {}
}

/// Ready, unfit, done and given back, as `agent/src/python/worker.py` writes them; alone and together.
pub(crate) fn python_frames() -> Vec<Vec<u8>> {
    let frame = |kind: u8, body: &[u8]| {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(u32::try_from(body.len() + 1).expect("small"));
        bytes.put_u8(kind);
        bytes.put_slice(body);
        bytes.to_vec()
    };
    let frames = vec![
        frame(1, &77_u32.to_le_bytes()),
        frame(1, &[3, 11]),
        frame(2, b"no module named numpy"),
        frame(3, &[&[1; 30][..], b"result"].concat()),
        frame(4, &[5; 32]),
    ];
    let together = frames.concat();
    frames.into_iter().chain([together]).collect()
}

/// What an agent tells a keeper, and the other way.
pub(crate) fn keeper(bytes: &[u8]) {
    message::<ToKeeper>(bytes);
    message::<FromKeeper>(bytes);
}

/// Some of each, and what workers say, which looks alike.
pub(crate) fn keeper_frames() -> Vec<Vec<u8>> {
    fn input(message: impl Message) -> Vec<u8> {
        as_input(&message.into_frame())
    }
    let payloads = || Payloads::from(vec![Bytes::from_static(b"stdin")]);
    let place = Place {
        host: "web1".to_owned(),
        slot: 1,
        ..Place::default()
    };
    let mut inputs = vec![
        input(ToKeeper::Place(place)),
        input(ToKeeper::Work {
            program: "/bin/true".into(),
        }),
        input(ToKeeper::Become {
            program: "python3".into(),
            args: vec!["-c".to_owned()],
        }),
        input(ToKeeper::Define {
            spec: SpecId(1),
            body: Box::new(Spec::default()),
            payloads: payloads(),
            by_descriptor: false,
        }),
        input(ToKeeper::GiveBack { count: 3 }),
        input(ToKeeper::End { grace_ms: 1000 }),
        input(ToKeeper::Stop),
    ];
    inputs.extend(seeds::from_worker());
    inputs
}

/// A journal from a record on, as a coordinator finds it on its disk; and the fact itself, past its checksum.
pub(crate) fn journal(bytes: &[u8]) {
    message::<Fact>(bytes);
    let mut rest = Bytes::copy_from_slice(bytes);
    while let Ok((fact, len)) = record::read::<Fact>(&rest) {
        let mut again = Vec::new();
        record::write(fact.clone(), &mut again);
        let again = record::read::<Fact>(&Bytes::from(again)).expect("its own bytes");
        assert_eq!(again.0, fact);
        rest = rest.slice(len..);
    }
    if let Some(at) = record::next_sound(&rest) {
        assert!(at > 0 && at < rest.len());
    }
}

/// Facts, as messages and as records.
pub(crate) fn facts() -> Vec<Vec<u8>> {
    let pool = PoolId(7);
    let facts = [
        Fact::Begin {
            epoch: 3,
            boot_id: "boot".to_owned(),
            build: "0.1.0".to_owned(),
        },
        Fact::Lease {
            ms: 600_000,
            stopping: true,
        },
        Fact::Ending {
            pool,
            reason: "cancelled by ada".to_owned(),
            refusal: None,
        },
        Fact::Client {
            client: ClientId(4),
            id: "ada".to_owned(),
            key: vec![1; 32],
            watches: true,
        },
        Fact::Opened {
            pool,
            client: ClientId(4),
            user: "ada".to_owned(),
            options: Box::new(PoolOptions::default()),
        },
        Fact::Defined {
            pool,
            spec: SpecId(1),
            body: Box::new(Spec::default()),
        },
        Fact::Submitted {
            pool,
            spec: SpecId(1),
            first: 0,
            hosts: Vec::new(),
            payloads: Payloads::from(vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")]),
        },
        Fact::Closed { pool, submitted: 2 },
    ];
    let mut all = Vec::new();
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for fact in facts {
        inputs.push(as_input(&fact.clone().into_frame()));
        record::write(fact, &mut all);
    }
    inputs.push(all);
    inputs
}
