//! From a worker's task to the shell, no faster than output is taken away.

use std::sync::Arc;

use fleetpool_agent_core::Event;
use fleetpool_proto::limits::OUTPUT_HELD_BYTES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::{Printed, Shared, Told};

/// Collects what is to be told, and tells it at once, or when there is room for its output.
#[derive(Debug)]
pub(crate) struct Outlet {
    inbox: mpsc::UnboundedSender<Told>,
    room: Arc<Semaphore>,
    output: Vec<Printed>,
    events: Vec<Event>,
}

impl Outlet {
    pub(crate) fn new(shared: &Shared, room: &Arc<Semaphore>) -> Self {
        Self {
            inbox: shared.inbox.clone(),
            room: Arc::clone(room),
            output: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn print(&mut self, printed: Printed) {
        self.output.push(printed);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
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
        // The semaphore is never closed.
        if let Ok(permit) = room.acquire_many(self.weight()).await {
            permit.forget();
            self.tell();
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
        };
        // The shell is gone with its agent.
        let _ = self.inbox.send(told);
    }

    fn weight(&self) -> u32 {
        weight(&self.output)
    }
}

/// Room that output takes; a lot of it takes all there is, not more.
pub(crate) fn weight(output: &[Printed]) -> u32 {
    let bytes: usize = output.iter().map(|printed| printed.bytes.len()).sum();
    u32::try_from(bytes.min(OUTPUT_HELD_BYTES_MAX)).unwrap_or(u32::MAX)
}
