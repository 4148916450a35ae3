//! From a worker's task to the shell, no faster than output is taken away.

use std::{sync::Arc, time::Duration};

use fleetpool_agent_core::Event;
use fleetpool_proto::limits::OUTPUT_HELD_BYTES_MAX;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::{Instant, timeout_at},
};

use super::{Heard, Order, Printed, Told};

/// How long what a task that is killed has printed waits for room. Past it, it is dropped: a kill must come to its
/// end even while nobody takes output, not least because a lease that has ended waits for it.
const DYING_PATIENCE: Duration = Duration::from_secs(1);

/// Collects what is to be told, and tells it at once, or when there is room for its output.
#[derive(Debug)]
pub(crate) struct Outlet {
    inbox: mpsc::UnboundedSender<Told>,
    room: Arc<Semaphore>,
    output: Vec<Printed>,
    events: Vec<Event>,
    heard: Option<Heard>,
    /// From when on output that there is no room for is dropped.
    drop_from: Option<Instant>,
}

impl Outlet {
    pub(crate) fn new(inbox: mpsc::UnboundedSender<Told>, room: Arc<Semaphore>) -> Self {
        Self {
            inbox,
            room,
            output: Vec::new(),
            events: Vec::new(),
            heard: None,
            drop_from: None,
        }
    }

    /// What prints is being killed.
    pub(crate) fn hurry(&mut self) {
        self.drop_from
            .get_or_insert_with(|| Instant::now() + DYING_PATIENCE);
    }

    /// What was being killed is gone.
    pub(crate) fn take_time(&mut self) {
        self.drop_from = None;
    }

    pub(crate) fn print(&mut self, printed: Printed) {
        self.output.push(printed);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// So much of what a keeper says is known with what there is to be told.
    pub(crate) fn heard(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// Whether something waits to be told: then nothing more is to be read from the worker.
    pub(crate) fn is_behind(&self) -> bool {
        !(self.output.is_empty() && self.events.is_empty())
    }

    /// Tells what there is, if there is room for it.
    pub(crate) fn flush(&mut self) {
        if self.is_behind() && self.take_room() {
            self.tell();
        }
    }

    /// Waits for room, and tells. Cancel-safe.
    pub(crate) async fn flush_when_there_is_room(&mut self) {
        let room = Arc::clone(&self.room);
        let room = room.acquire_many(self.weight());
        let permit = match self.drop_from {
            Some(time) => timeout_at(time, room).await.ok(),
            None => Some(room.await),
        };
        match permit {
            // The semaphore is never closed.
            Some(permit) => drop(permit.map(SemaphorePermit::forget)),
            None => self.output.clear(),
        }
        self.tell();
    }

    /// Tells the last of it, and listens only for whether that is urgent.
    pub(crate) async fn finish(mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        while self.is_behind() {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Kill { .. } | Order::KillTask { .. }) => self.hurry(),
                    Some(_) => {}
                    None => return,
                },
                () = self.flush_when_there_is_room() => {}
            }
        }
    }

    fn take_room(&self) -> bool {
        let permit = self.room.try_acquire_many(self.weight());
        permit.map(SemaphorePermit::forget).is_ok()
    }

    fn tell(&mut self) {
        let told = Told {
            output: std::mem::take(&mut self.output),
            events: std::mem::take(&mut self.events),
            heard: self.heard.take(),
        };
        // The shell is gone with its agent.
        let _ = self.inbox.send(told);
    }

    fn weight(&self) -> u32 {
        weight(&self.output)
    }
}

/// What a piece of output costs besides its bytes, until it has come to the coordinator.
const PIECE_BYTES: usize = 128;

/// Room that a piece of output takes.
pub(crate) fn weight_of(printed: &Printed) -> usize {
    printed.bytes.len() + PIECE_BYTES
}

/// Room that output takes; a lot of it takes all there is, not more.
pub(crate) fn weight(output: &[Printed]) -> u32 {
    let bytes: usize = output.iter().map(weight_of).sum();
    u32::try_from(bytes.min(OUTPUT_HELD_BYTES_MAX)).unwrap_or(u32::MAX)
}
