//! The half of a pool that answers.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use fleetpool_proto::{
    Attempt, HostId,
    message::{OutputRow, Refusal, ResultRow, Stream},
};
use tokio::sync::mpsc;

use super::outbox::Outbox;

/// Something that became of a pool or its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A task printed something: whole lines, except at its end and in over-long lines.
    Output {
        /// The task.
        index: u64,
        /// Which try of it.
        attempt: Attempt,
        /// Where; [`Cluster::host_name`](super::Cluster::host_name) knows its name.
        host: HostId,
        /// The task's process.
        pid: u32,
        /// Where it was written to.
        stream: Stream,
        /// What.
        bytes: Bytes,
    },
    /// A task has ended. Each task ends once.
    Ended {
        /// How.
        row: ResultRow,
        /// Its result, its error, or a [`Loss`](fleetpool_proto::outcome::Loss), as the outcome says.
        payload: Bytes,
    },
    /// The pool holds other slots than before.
    Slots {
        /// Slots that it holds.
        allotted: u32,
        /// Slots of all hosts that it may use.
        eligible: u32,
        /// Hosts that it may use.
        hosts: u32,
    },
    /// Something that people should know. The pool goes on.
    Notice(String),
    /// The pool was not opened, or a call on it was refused.
    Refused {
        /// What is wrong and what to do.
        reason: String,
        /// Which kind of refusal.
        kind: Refusal,
    },
    /// Nothing of the pool runs any more, and nothing more comes.
    Finished,
    /// The session is lost, for this reason, and nothing more comes.
    Lost(String),
}

/// What the router hands over at once.
#[derive(Debug)]
pub(crate) enum Delivery {
    Results(Vec<ResultRow>, Vec<Bytes>),
    Output(Vec<OutputRow>, Vec<Bytes>),
    Other(PoolEvent),
}

/// Brings what becomes of a pool. Dropping it before the pool has finished terminates the pool.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Delivery>,
    ready: VecDeque<PoolEvent>,
    outbox: Arc<Outbox>,
    over: bool,
}

impl Events {
    pub(crate) fn new(queue: mpsc::Receiver<Delivery>, outbox: Arc<Outbox>) -> Self {
        Self {
            queue,
            ready: VecDeque::new(),
            outbox,
            over: false,
        }
    }

    /// The next event; `None` after [`PoolEvent::Finished`] or [`PoolEvent::Lost`]. Cancel-safe.
    ///
    /// A result that is taken out counts as consumed, which gives the pool credit for another task: a consumer that
    /// stops stops the pool.
    pub async fn next(&mut self) -> Option<PoolEvent> {
        while self.ready.is_empty() {
            let delivery = self.next_delivery().await?;
            self.unpack(delivery);
        }
        self.take_ready()
    }

    /// An event that is here already.
    pub fn try_next(&mut self) -> Option<PoolEvent> {
        while self.ready.is_empty() {
            let delivery = self.queue.try_recv().ok()?;
            self.note(&delivery);
            self.unpack(delivery);
        }
        self.take_ready()
    }

    fn take_ready(&mut self) -> Option<PoolEvent> {
        let event = self.ready.pop_front()?;
        if let PoolEvent::Ended { payload, .. } = &event {
            self.outbox.consume(1, payload.len() as u64);
        }
        Some(event)
    }

    /// The next events as they came. Not for use together with [`Self::next`]; consuming is the caller's.
    pub(crate) async fn next_delivery(&mut self) -> Option<Delivery> {
        if self.over {
            return None;
        }
        let delivery = self.queue.recv().await;
        let delivery = delivery.unwrap_or_else(|| Delivery::Other(self.lost()));
        self.note(&delivery);
        Some(delivery)
    }

    /// What it means that the router does not deliver any more.
    fn lost(&self) -> PoolEvent {
        let reason = self.outbox.lost();
        PoolEvent::Lost(reason.unwrap_or_else(|| "the cluster's thread has ended".to_owned()))
    }

    fn note(&mut self, delivery: &Delivery) {
        self.over |= matches!(
            delivery,
            Delivery::Other(PoolEvent::Finished | PoolEvent::Lost(_))
        );
    }

    fn unpack(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Other(event) => self.ready.push_back(event),
            Delivery::Results(rows, payloads) => {
                let ended = |(row, payload)| PoolEvent::Ended { row, payload };
                self.ready.extend(rows.into_iter().zip(payloads).map(ended));
            }
            Delivery::Output(rows, payloads) => {
                let output = |(row, bytes): (OutputRow, Bytes)| PoolEvent::Output {
                    index: row.index,
                    attempt: row.attempt,
                    host: row.host,
                    pid: row.pid,
                    stream: row.stream,
                    bytes,
                };
                self.ready
                    .extend(rows.into_iter().zip(payloads).map(output));
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.over {
            self.outbox.terminate();
        }
    }
}
