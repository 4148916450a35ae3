//! Clients: they submit lazily within their credit, cancel, terminate, vanish.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetpool_proto::{
    PoolId, SpecId,
    message::{FromClient, ToClient},
};

use super::{
    engine::{Engine, ToCoordinator, What, client_id, host_id, us},
    plan::{Ending, PoolPlan},
    resuming::Line,
    wire::{Lane, Parcel, decode, encode},
};

/// Most tasks in one message.
const SUBMIT_MAX: u64 = 64;

/// A client and its one pool.
#[derive(Debug)]
pub(super) struct Client {
    plan: PoolPlan,
    pub(super) pool: PoolId,
    pub(super) up: Lane,
    pub(super) down: Lane,
    /// Tasks it may have submitted in all.
    credit: u64,
    submitted: u64,
    closed: bool,
    /// The coordinator said that the pool is over.
    ended: bool,
    heard: u64,
    /// Tasks whose outcome has come, where they may come again.
    taken: BTreeSet<u64>,
    /// Messages of results that have come on this session: up to here, and some after that.
    pub(super) messages_upto: u64,
    pub(super) messages: BTreeSet<u64>,
    /// Its sessions.
    pub(super) line: Line,
    /// What it would have to say again.
    pub(super) said: Vec<FromClient>,
    /// Tasks before this one need not be said again.
    pub(super) safe: u64,
    /// It has a `Consumed` to send.
    consuming: bool,
    pub(super) over: bool,
}

/// What a client does, or is told.
#[derive(Debug)]
pub(super) enum Deed {
    Open,
    Hear(u64, Parcel),
    Resume,
    Consume,
    Cancel(std::ops::Range<u64>),
    Resize(Option<u32>),
    Terminate,
    Vanish,
}

impl Client {
    pub(super) fn new(number: usize, plan: PoolPlan) -> Self {
        Self {
            plan,
            pool: PoolId(1 + number as u64),
            up: Lane::default(),
            down: Lane::default(),
            credit: 0,
            submitted: 0,
            closed: false,
            ended: false,
            heard: 0,
            taken: BTreeSet::new(),
            messages_upto: 0,
            messages: BTreeSet::new(),
            line: Line::default(),
            said: Vec::new(),
            safe: 0,
            consuming: false,
            over: false,
        }
    }

    pub(super) fn is_without_outcomes(&self) -> bool {
        self.heard == 0
    }

    /// What it still waits for.
    pub(super) fn wish(&self) -> Option<String> {
        (!self.over).then(|| {
            format!(
                "{}: {} submitted of {}, credit {}, {} outcomes",
                self.pool, self.submitted, self.plan.tasks, self.credit, self.heard
            )
        })
    }
}

impl Engine {
    pub(super) fn client_does(&mut self, number: usize, deed: Deed) {
        if self.clients[number].over {
            return;
        }
        let pool = self.clients[number].pool;
        match deed {
            Deed::Open => self.open(number),
            Deed::Hear(session, _) if !self.clients[number].hears(session) => {}
            Deed::Resume => self.client_resumes(number),
            Deed::Hear(_, parcel) => match decode(parcel) {
                Ok(message) => self.client_hears(number, message),
                Err(error) => {
                    self.check(Err(format!("client {number} does not understand: {error}")))
                }
            },
            Deed::Consume => {
                self.clients[number].consuming = false;
                let tasks = self.clients[number].heard;
                self.client_says(number, FromClient::Consumed { pool, tasks });
            }
            Deed::Cancel(range) => {
                let submitted = self.clients[number].submitted;
                let tasks: Vec<u64> = range.filter(|index| *index < submitted).collect();
                for index in &tasks {
                    self.truth.cancel(pool, *index);
                }
                self.client_says(number, FromClient::Cancel { pool, tasks });
            }
            Deed::Resize(slots) => {
                self.truth.resize(pool, slots);
                self.client_says(number, FromClient::Resize { pool, slots });
            }
            Deed::Terminate => self.client_says(number, FromClient::Terminate { pool }),
            Deed::Vanish => {
                self.client_ends(number);
                let delay = self.delay();
                let session = self.clients[number].line.session;
                let sent = self.clients[number].up.send(self.now, delay, None);
                // One that is away is missed when its time is over.
                if let Some((_, at)) = sent.filter(|_| self.clients[number].line.connected) {
                    let gone = ToCoordinator::ClientGone(number, session);
                    self.at(at, What::Coordinator(gone));
                }
            }
        }
    }

    fn open(&mut self, number: usize) {
        let plan = self.clients[number].plan.clone();
        let pool = self.clients[number].pool;
        self.client_connects(number, Vec::new());
        self.client_says(
            number,
            FromClient::OpenPool {
                pool,
                options: Box::new(plan.options.clone()),
            },
        );
        self.client_says(
            number,
            FromClient::Define {
                pool,
                spec: SpecId(0),
                body: Box::new(plan.spec()),
            },
        );
        for (at, tasks) in plan.cancels {
            self.after(us(at), What::Client(number, Deed::Cancel(tasks)));
        }
        if let Some((at, slots)) = plan.resize {
            self.after(us(at), What::Client(number, Deed::Resize(slots)));
        }
        match plan.ending {
            Ending::Close => {}
            Ending::Terminate(at) => self.after(us(at), What::Client(number, Deed::Terminate)),
            Ending::Vanish(at) => self.after(us(at), What::Client(number, Deed::Vanish)),
        }
    }

    fn client_hears(&mut self, number: usize, message: ToClient) {
        match message {
            ToClient::Credit { tasks, .. } => {
                let client = &mut self.clients[number];
                client.credit = client.credit.max(tasks);
                self.submit(number);
            }
            ToClient::Results {
                pool,
                number: message,
                rows,
                payloads,
            } => {
                for (row, payload) in rows.iter().zip(payloads.items()) {
                    if self.durable && !self.clients[number].taken.insert(row.index) {
                        continue;
                    }
                    self.clients[number].heard += 1;
                    let broken = self.truth.deliver(self.now, pool, row, payload);
                    self.check(broken);
                }
                self.client_has(number, message);
                self.consume_soon(number);
                // Results may come after the pool's end: bulk is overtaken.
                self.finish_if_complete(number);
            }
            ToClient::Submitted { tasks, .. } => {
                let client = &mut self.clients[number];
                client.safe = client.safe.max(tasks);
            }
            ToClient::Refused { pool, .. } => {
                self.truth.refuse(pool);
                self.clients[number].plan.ending = Ending::Terminate(std::time::Duration::ZERO);
            }
            ToClient::PoolEnded { pool } => {
                self.clients[number].ended = true;
                let closes = self.clients[number].plan.ending == Ending::Close;
                if !closes || self.truth.is_refused(pool) {
                    self.client_ends(number);
                } else {
                    self.finish_if_complete(number);
                }
            }
            _ => {}
        }
    }

    /// Says which messages of results have come on this session.
    fn client_has(&mut self, number: usize, message: u64) {
        let client = &mut self.clients[number];
        if message == 0 {
            return;
        }
        client.messages.insert(message);
        let before = client.messages_upto;
        while client.messages.remove(&(client.messages_upto + 1)) {
            client.messages_upto += 1;
        }
        let (pool, upto) = (client.pool, client.messages_upto);
        if upto > before {
            let heard = FromClient::HeardResults { pool, number: upto };
            self.client_sends(number, heard);
        }
    }

    fn consume_soon(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if !std::mem::replace(&mut client.consuming, true) {
            let most = client.plan.consumes_within_us;
            let wait = self.chance.within(0..most);
            self.after(wait, What::Client(number, Deed::Consume));
        }
    }

    fn submit(&mut self, number: usize) {
        let pool = self.clients[number].pool;
        loop {
            let client = &self.clients[number];
            let (first, all) = (client.submitted, client.plan.tasks);
            let left = client.credit.min(all).saturating_sub(first);
            if left == 0 {
                break;
            }
            let pinned = client.plan.pinned;
            let count = left.min(self.chance.within(1..SUBMIT_MAX));
            let range = first..first + count;
            let on = |index: u64| {
                let hosts = self.hosts.len() as u64;
                host_id(usize::try_from(index % hosts).unwrap_or_default())
            };
            let hosts = if pinned {
                range.clone().map(on).collect()
            } else {
                Vec::new()
            };
            let payloads = range
                .map(|index| Bytes::from(index.to_be_bytes().to_vec()))
                .collect();
            self.clients[number].submitted += count;
            self.client_says(
                number,
                FromClient::Submit {
                    pool,
                    spec: SpecId(0),
                    first,
                    hosts,
                    payloads,
                },
            );
        }
        let client = &self.clients[number];
        if client.submitted == client.plan.tasks
            && client.plan.ending == Ending::Close
            && !client.closed
        {
            let submitted = client.submitted;
            self.clients[number].closed = true;
            self.client_says(number, FromClient::Close { pool, submitted });
        }
    }

    fn client_says(&mut self, number: usize, message: FromClient) {
        if self.durable {
            self.clients[number].said.push(message.clone());
        }
        self.client_sends(number, message);
    }

    pub(super) fn client_sends(&mut self, number: usize, message: FromClient) {
        if !self.clients[number].line.connected {
            return;
        }
        let session = self.clients[number].line.session;
        let (parcel, has_body) = encode(message);
        let (delay, late) = (self.delay(), self.late(has_body));
        if let Some((_, at)) = self.clients[number].up.send(self.now, delay, late) {
            self.at(
                at,
                What::Coordinator(ToCoordinator::FromClient(number, session, parcel)),
            );
        }
    }

    fn finish_if_complete(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.ended && client.heard == client.plan.tasks {
            self.client_ends(number);
        }
    }

    pub(super) fn client_ends(&mut self, number: usize) {
        if std::mem::replace(&mut self.clients[number].over, true) {
            return;
        }
        if self.durable {
            let pool = self.clients[number].pool;
            self.client_sends(number, FromClient::Done { pool });
        }
        self.clients_left -= 1;
        let who = client_id(number).0;
        self.trace.note(self.now, who, "client over", 0);
    }
}
