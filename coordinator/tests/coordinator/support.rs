//! Peers that say what a test tells them to, and wait for what it expects.

use std::time::Duration;

use bytes::Bytes;
use fleetpool_coordinator::{Handle, Options, Refused};
use fleetpool_net::{Closed, Peer, Session, local_pair};
use fleetpool_proto::{
    Message, Outcome, PoolId, Role, SpecId,
    message::{
        FromAgent, FromClient, GrantRow, Registration, ReportRow, ResultRow, ToAgent, ToClient,
    },
    pool::{PoolOptions, Spec},
    version::{Hello, Welcome},
    view::{Answer, Query},
};
use tokio::time::timeout;

/// Far longer than anything here takes: reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn coordinator() -> Handle {
    fleetpool_coordinator::start(Options::default())
}

/// A scripted peer that hears `Heard`.
pub(crate) struct Scripted {
    pub(crate) session: Session,
    pub(crate) welcome: Welcome,
    pub(crate) questions: u64,
}

pub(crate) async fn attach(to: &Handle, peer: Peer) -> Result<Scripted, Refused> {
    let hello = Hello::new(peer.role, peer.name.clone());
    attach_with(to, peer, hello).await
}

pub(crate) async fn attach_with(
    to: &Handle,
    peer: Peer,
    hello: Hello,
) -> Result<Scripted, Refused> {
    let (session, theirs) = local_pair(peer, Peer::local(Role::Coordinator, "coordinator"));
    let welcome = to.attach(theirs, hello).await?;
    Ok(Scripted {
        session,
        welcome,
        questions: 0,
    })
}

/// A client of that role.
pub(crate) async fn client(to: &Handle, role: Role, name: &str) -> Scripted {
    attach(to, Peer::local(role, name)).await.expect("welcomed")
}

/// An agent that has registered.
pub(crate) async fn agent(to: &Handle, name: &str, slots: u16) -> Scripted {
    let mut agent = attach(to, Peer::local(Role::Agent, name))
        .await
        .expect("welcomed");
    agent.register(name, slots).await;
    agent
}

impl Scripted {
    pub(crate) async fn say(&self, message: impl Message) {
        self.session
            .sender
            .send(message.into_frame())
            .await
            .expect("an open session");
    }

    pub(crate) async fn hear<M: Message>(&mut self) -> Result<M, Closed> {
        let frame = timeout(PATIENCE, self.session.receiver.recv())
            .await
            .expect("something is said in time")?;
        Ok(M::from_frame(frame).expect("a message"))
    }

    /// The first message that `wanted` takes; the others are skipped.
    pub(crate) async fn hear_until<M: Message, T>(
        &mut self,
        mut wanted: impl FnMut(M) -> Option<T>,
    ) -> T {
        loop {
            let message = self.hear::<M>().await.expect("an open session");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// The reason that the session is closed with; what is said before is skipped.
    pub(crate) async fn hear_the_end(&mut self) -> String {
        loop {
            let heard = timeout(PATIENCE, self.session.receiver.recv())
                .await
                .expect("an end in time");
            if let Err(closed) = heard {
                return closed.reason;
            }
        }
    }
}

/// As an agent.
impl Scripted {
    pub(crate) async fn register(&mut self, name: &str, slots: u16) {
        let registration = Registration {
            name: name.to_owned(),
            slots,
            incarnation: 1,
            ..Registration::default()
        };
        self.say(FromAgent::Register(Box::new(registration))).await;
        self.say(FromAgent::Renew {
            renewal: 1,
            rtt_us: 0,
        })
        .await;
        self.hear_until(|message| matches!(message, ToAgent::Renewed { .. }).then_some(()))
            .await;
    }

    /// Confirms allotments until tasks are granted.
    pub(crate) async fn granted(&mut self) -> (PoolId, Vec<GrantRow>, Vec<Bytes>) {
        loop {
            match self.hear::<ToAgent>().await.expect("an open session") {
                ToAgent::Allot {
                    pool,
                    slots,
                    allotment,
                } => {
                    self.say(FromAgent::Allotted {
                        pool,
                        slots,
                        allotment,
                    })
                    .await;
                }
                ToAgent::Grant {
                    pool,
                    rows,
                    payloads,
                } => return (pool, rows, payloads.into_items()),
                _ => {}
            }
        }
    }

    /// Reports granted tasks as done, with their arguments as results.
    pub(crate) async fn finish(
        &mut self,
        pool: PoolId,
        granted: &[GrantRow],
        arguments: Vec<Bytes>,
    ) {
        let report = |row: &GrantRow| ReportRow {
            index: row.index,
            attempt: row.attempt,
            outcome: Outcome::Done,
            ..ReportRow::default()
        };
        let rows = granted.iter().map(report).collect();
        let payloads = arguments.into();
        self.say(FromAgent::Reports {
            pool,
            rows,
            payloads,
        })
        .await;
    }
}

/// As a client.
impl Scripted {
    pub(crate) fn pool(&self) -> PoolId {
        self.welcome.pools_from
    }

    /// Opens its first pool and submits these tasks.
    pub(crate) async fn submit(&mut self, arguments: &[&'static str]) -> PoolId {
        let pool = self.pool();
        let options = Box::new(PoolOptions::default());
        self.say(FromClient::OpenPool { pool, options }).await;
        let (spec, body) = (SpecId(0), Box::new(Spec::default()));
        self.say(FromClient::Define { pool, spec, body }).await;
        self.say(FromClient::Submit {
            pool,
            spec,
            first: 0,
            hosts: Vec::new(),
            payloads: arguments
                .iter()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .collect(),
        })
        .await;
        pool
    }

    pub(crate) async fn results(&mut self) -> (Vec<ResultRow>, Vec<Bytes>) {
        self.hear_until(|message| match message {
            ToClient::Results { rows, payloads, .. } => Some((rows, payloads.into_items())),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ask(&mut self, query: Query) -> Answer {
        self.questions += 1;
        let question = self.questions;
        self.say(FromClient::Ask { question, query }).await;
        self.hear_until(|message| match message {
            ToClient::Answer {
                question: of,
                answer,
            } if of == question => Some(answer),
            _ => None,
        })
        .await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn ask_until<T>(
        &mut self,
        query: Query,
        wanted: impl Fn(Answer) -> Option<T>,
    ) -> T {
        let asked = async {
            loop {
                if let Some(found) = wanted(self.ask(query.clone()).await) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asked)
            .await
            .expect("the answer comes in time")
    }
}
