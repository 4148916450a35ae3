//! Cases d and e: the coordinator's core alone, without sockets and processes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_coordinator_core::{Action, CoordinatorCore, Event, Options};
use fleetpool_proto::{
    ClientId, Frame, HostId, Message as _, Outcome, Payloads, PoolId, SpecId, Timestamp,
    message::{FromAgent, FromClient, GrantRow, Registration, ReportRow, ToAgent, ToClient},
    pool::Spec,
};
use fleetpool_tests::memory;
use nix::time::{ClockId, clock_gettime};

use crate::{
    contestant,
    measure::{Contestant, ROUNDS, figure_of, interleave},
    table::{Line, Target},
};

const SLOTS: u16 = 64;
const POOL: PoolId = PoolId(1);
const CLIENT: ClientId = ClientId(1);
const SPEC: SpecId = SpecId(1);
const NOW: Timestamp = Timestamp(1_000_000);
/// Tasks in one `Submit`.
const BATCH: usize = 1024;
/// Attempts in one `Reports`: a host of 64 slots that reports an eighth of them at a time.
const REPORTED: usize = 8;
/// Reports between two times that actions are taken, as when a busy shell drains its inbox.
const INBOX: usize = 32;

/// Case d.
pub(crate) fn throughput() -> Vec<Line> {
    const TASKS: u64 = 1_000_000;
    let mut fleets = [("100 hosts", 100_u32), ("10,000 hosts", 10_000)].map(|(name, hosts)| {
        let arguments = ["core".to_owned(), hosts.to_string(), TASKS.to_string()];
        Contestant::new(name, move || figure_of(&mut contestant(&arguments)))
    });
    let turns = interleave(ROUNDS, &mut fleets);
    let unit = "events/s";
    vec![
        Line::alone(
            "d core, 10,000 hosts x 64",
            unit,
            &turns[1],
            Target::AtLeast(1.5e6),
        ),
        Line::against(
            "d core, 10,000 hosts x 64",
            unit,
            &turns[1],
            fleets[0].name,
            &turns[0],
            Target::RatioAtLeast(0.9),
        ),
    ]
}

/// Case e.
pub(crate) fn memory() -> Vec<Line> {
    let mut queued = [Contestant::new("10 million queued", || {
        figure_of(&mut contestant(&["queued", "10000000"]))
    })];
    let turns = interleave(3, &mut queued);
    vec![Line::alone(
        "e queued task beyond its payload",
        "bytes",
        &turns[0],
        Target::AtMost(100.0),
    )]
}

/// Events that the core takes in a second of processor time: a task submitted is one, an attempt reported is one. Giving
/// out grants, acknowledgements and results is part of it.
pub(crate) fn events_per_second(hosts: u32, tasks: u64) -> f64 {
    let mut fleet = Fleet::new(hosts);
    fleet.fill_window();
    fleet.settle();
    // Until the slots are full and the pool has its hosts, it is not the steady state that is asked for.
    fleet.spent = Duration::ZERO;
    fleet.events = 0;
    let mut reported = 0;
    while reported < tasks {
        for _ in 0..INBOX {
            reported += fleet.report_next();
        }
        fleet.fill_window();
    }
    crate::as_f64(fleet.events) / fleet.spent.as_secs_f64()
}

/// Bytes of resident memory that a queued task costs beyond its argument of 8 bytes.
pub(crate) fn bytes_per_queued_task(tasks: u64) -> f64 {
    const ARGUMENT: &[u8] = &[7; 8];
    let mut fleet = Fleet::new(1);
    fleet.submit(BATCH, ARGUMENT);
    fleet.settle();
    let before = resident_bytes();
    let batches = tasks / BATCH as u64;
    for _ in 0..batches {
        fleet.submit(BATCH, ARGUMENT);
        fleet.turn();
    }
    let grown = resident_bytes().saturating_sub(before);
    crate::as_f64(grown) / crate::as_f64(batches * BATCH as u64)
        - crate::as_f64(ARGUMENT.len() as u64)
}

/// A core, and the part of everybody around it.
struct Fleet {
    core: CoordinatorCore,
    submitted: u64,
    delivered: u64,
    /// What each host has been granted and has not reported.
    granted: BTreeMap<HostId, VecDeque<GrantRow>>,
    /// Hosts in the order in which they report.
    turn: VecDeque<HostId>,
    events: u64,
    spent: Duration,
    /// What the core is told next.
    inbox: Vec<Event>,
}

impl Fleet {
    fn new(hosts: u32) -> Self {
        let mut fleet = Self {
            core: CoordinatorCore::new(Options::default()),
            submitted: 0,
            delivered: 0,
            granted: BTreeMap::new(),
            turn: (0..hosts).map(HostId).collect(),
            events: 0,
            spent: Duration::ZERO,
            inbox: Vec::new(),
        };
        for host in (0..hosts).map(HostId) {
            fleet.enter(host);
        }
        fleet.open_pool();
        fleet.settle();
        fleet
    }

    fn enter(&mut self, host: HostId) {
        let session = u64::from(host.0) + 1;
        self.handle(Event::AgentConnected { host, session });
        let registration = Registration {
            name: format!("host{}", host.0),
            slots: SLOTS,
            incarnation: session,
            ..Registration::default()
        };
        self.hear_agent(host, FromAgent::Register(Box::new(registration)));
    }

    fn open_pool(&mut self) {
        self.handle(Event::ClientConnected {
            client: CLIENT,
            user: "bench".to_owned(),
        });
        self.hear_client(FromClient::OpenPool {
            pool: POOL,
            options: Box::default(),
        });
        self.hear_client(FromClient::Define {
            pool: POOL,
            spec: SPEC,
            body: Box::new(Spec::default()),
        });
    }

    /// Submits while the client's window, two tasks a slot, has room.
    fn fill_window(&mut self) {
        let window = 2 * u64::from(SLOTS) * self.turn.len() as u64;
        while self.submitted - self.delivered < window {
            self.submit(BATCH, &[]);
            self.events += BATCH as u64;
        }
        self.turn();
    }

    /// A batch as it comes off the wire: payloads are slices of their frame.
    fn submit(&mut self, count: usize, argument: &'static [u8]) {
        let message = FromClient::Submit {
            pool: POOL,
            spec: SPEC,
            first: self.submitted,
            hosts: Vec::new(),
            payloads: Payloads::from(vec![Bytes::from_static(argument); count]),
        };
        self.submitted += count as u64;
        self.hear_client(over_the_wire(message.into_frame()));
    }

    /// The next host reports what it was granted first.
    fn report_next(&mut self) -> u64 {
        let Some(host) = self.turn.pop_front() else {
            return 0;
        };
        self.turn.push_back(host);
        let Some(granted) = self
            .granted
            .get_mut(&host)
            .filter(|granted| !granted.is_empty())
        else {
            return 0;
        };
        let count = granted.len().min(REPORTED);
        let rows: Vec<ReportRow> = granted.drain(..count).map(done).collect();
        let payloads = Payloads::from(vec![Bytes::new(); count]);
        self.hear_agent(
            host,
            FromAgent::Reports {
                pool: POOL,
                rows,
                payloads,
            },
        );
        self.events += count as u64;
        count as u64
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        while !self.inbox.is_empty() {
            self.turn();
        }
    }

    /// The core hears what there is, and everybody hears the core. Its own time alone counts.
    fn turn(&mut self) {
        let inbox = std::mem::take(&mut self.inbox);
        let mut actions = Vec::new();
        let start = thread_time();
        for event in inbox {
            self.core.handle(NOW, event);
        }
        while let Some(action) = self.core.poll_action() {
            actions.push(action);
        }
        self.spent += thread_time() - start;
        for action in actions {
            match action {
                Action::ToAgent { host, message, .. } => self.on_to_agent(host, message),
                Action::ToClient { message, .. } => self.on_to_client(message),
                _ => {}
            }
        }
    }

    fn on_to_agent(&mut self, host: HostId, message: ToAgent) {
        match message {
            ToAgent::Allot {
                pool,
                slots,
                allotment,
            } => {
                self.hear_agent(
                    host,
                    FromAgent::Allotted {
                        pool,
                        slots,
                        allotment,
                    },
                );
            }
            ToAgent::Grant { rows, .. } => self.granted.entry(host).or_default().extend(rows),
            _ => {}
        }
    }

    fn on_to_client(&mut self, message: ToClient) {
        if let ToClient::Results { rows, .. } = message {
            self.delivered += rows.len() as u64;
            let tasks = self.delivered;
            self.hear_client(FromClient::Consumed { pool: POOL, tasks });
        }
    }

    fn hear_agent(&mut self, host: HostId, message: FromAgent) {
        let session = u64::from(host.0) + 1;
        self.handle(Event::FromAgent {
            host,
            session,
            message,
        });
    }

    fn hear_client(&mut self, message: FromClient) {
        self.handle(Event::FromClient {
            client: CLIENT,
            message,
        });
    }

    fn handle(&mut self, event: Event) {
        self.inbox.push(event);
    }
}

fn done(grant: GrantRow) -> ReportRow {
    ReportRow {
        index: grant.index,
        attempt: grant.attempt,
        outcome: Outcome::Done,
        run_us: 10,
        ..ReportRow::default()
    }
}

/// What the far end of a session makes of a frame.
fn over_the_wire(frame: Frame) -> FromClient {
    let mut bytes = bytes::BytesMut::new();
    fleetpool_proto::frame::write_inline(&frame, &mut bytes);
    let frame = fleetpool_proto::frame::read_inline(&mut bytes)
        .expect("well-formed")
        .expect("whole");
    FromClient::from_frame(frame).expect("a message")
}

/// Processor time of this thread: others on the machine do not count.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    Duration::from(time.expect("a Linux that counts threads' time"))
}

fn resident_bytes() -> u64 {
    memory::kib(std::process::id(), "VmRSS:").expect("it runs") * 1024
}
