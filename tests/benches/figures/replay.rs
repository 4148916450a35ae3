//! Case `replay`: how long a coordinator takes to be there again, by what its predecessor wrote: each record is of one task
//! alone, which is the most that the same work can cost.

use std::{cell::RefCell, fs, iter, path::Path, time::Instant};

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, ClientId, HostId, Payloads, PoolId, SpecId,
    journal::Fact,
    message::{ResultRow, TaskRow},
    pool::PoolOptions,
};
use fleetpool_tests::cluster::Cluster;

use crate::{
    measure::{Contestant, ROUNDS, Turns, interleave},
    table::{Line, Target},
};

#[path = "../../../coordinator/src/journal/record.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "half of it is the coordinator's, and so are its tests"
)]
mod record;

const POOL: PoolId = PoolId(1);
const CLIENT: ClientId = ClientId(1);
const HOST: HostId = HostId(1);
const SPEC: SpecId = SpecId(1);
/// Submitted, granted and ended: a million records.
const TASKS: u64 = 333_333;

pub(crate) fn case() -> Vec<Line> {
    let cluster = RefCell::new(Cluster::bare());
    let folder = cluster
        .borrow()
        .folder()
        .join("identity/coordinator/journal");
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("nothing written", || again(&cluster, || ())),
            Contestant::new("1,000,000 records", || again(&cluster, || write(&folder))),
        ],
    );
    let pairs = turns[1].figures().zip(turns[0].figures());
    let alone = Turns::of(pairs.map(|(all, start)| (all - start).max(0.0)));
    vec![
        Line::against(
            "replay: there again after 1,000,000 records",
            "s",
            &turns[1],
            "none written",
            &turns[0],
            Target::None,
        ),
        Line::alone("replay: for the records", "s", &alone, Target::AtMost(1.0)),
    ]
}

/// Seconds from the start of a coordinator until it listens, after its predecessor has left `write`'s journal.
fn again(cluster: &RefCell<Cluster>, write: impl Fn()) -> f64 {
    let mut cluster = cluster.borrow_mut();
    cluster.stop_coordinator();
    write();
    let start = Instant::now();
    cluster.start_again();
    start.elapsed().as_secs_f64()
}

/// A journal that takes the place of those that are there.
fn write(folder: &Path) {
    let mut out = b"fleetpool jrnl 1".to_vec();
    facts().for_each(|fact| record::write(fact, &mut out));
    let numbers = fs::read_dir(folder).expect("a folder").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        path.file_stem()?.to_str()?.parse::<u64>().ok()
    });
    let number = numbers.max().unwrap_or_default() + 1;
    fs::write(folder.join(format!("{number:010}.journal")), out).expect("it is written");
}

fn facts() -> impl Iterator<Item = Fact> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a Linux");
    let begin = Fact::Begin {
        epoch: 1,
        boot_id: boot_id.trim().to_owned(),
        build: String::new(),
    };
    let client = Fact::Client {
        client: CLIENT,
        id: String::new(),
        key: Vec::new(),
        watches: false,
    };
    let opened = Fact::Opened {
        pool: POOL,
        client: CLIENT,
        user: String::new(),
        options: Box::new(PoolOptions::default()),
    };
    let heard = Fact::Heard {
        pool: POOL,
        rows: TASKS,
    };
    let tasks = (0..TASKS).flat_map(task);
    [begin, client, opened]
        .into_iter()
        .chain(tasks)
        .chain(iter::once(heard))
}

fn task(index: u64) -> [Fact; 3] {
    let attempt = Attempt(1);
    let submitted = Fact::Submitted {
        pool: POOL,
        spec: SPEC,
        first: index,
        hosts: Vec::new(),
        payloads: Payloads::from(vec![Bytes::from_static(b"an argument")]),
    };
    let granted = Fact::Granted {
        pool: POOL,
        host: HOST,
        rows: vec![TaskRow { index, attempt }],
    };
    let ended = Fact::Ended {
        pool: POOL,
        rows: vec![ResultRow {
            index,
            attempt,
            host: HOST,
            ..ResultRow::default()
        }],
        payloads: Payloads::from(vec![Bytes::from_static(b"a result")]),
    };
    [submitted, granted, ended]
}
