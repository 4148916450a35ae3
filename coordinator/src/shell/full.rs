//! A disk that is full: new pools are refused and new tasks put off, while what is there goes on from the journal's reserve. When
//! that is used up too, the coordinator stands still until there is room, or until it is told to end.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fleetpool_coordinator_core::Event;
use fleetpool_proto::{
    PoolId,
    message::{FromClient, Refusal, ToClient},
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use super::owner::{Input, Owner};

/// What is said where the disk is full; ends with what to do.
pub(super) const FULL: &str = "the coordinator's disk is full: make room where its `--state` is";

/// How long a full disk is left alone before the next try.
pub(super) const FULL_RETRY: Duration = Duration::from_millis(500);

/// What others may know of a coordinator that stands still: it takes nothing in, so it cannot be asked.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    stands: AtomicBool,
    end: Notify,
}

impl Standstill {
    /// Whether it stands still.
    pub(super) fn stands(&self) -> bool {
        self.stands.load(Ordering::Relaxed)
    }

    fn set(&self, stands: bool) {
        if self.stands.swap(stands, Ordering::Relaxed) == stands {
            return;
        }
        if stands {
            tracing::error!(
                "the disk is full, and the reserve is used: everything waits until there is room"
            );
        } else {
            tracing::info!("there is room on the disk: everything goes on");
        }
    }

    /// Has it look for who tells it to end, also while it stands still.
    pub(super) fn tell_end(&self) {
        self.end.notify_one();
    }
}

/// Tasks that came while the disk was full.
#[derive(Debug, Default)]
pub(super) struct Parked {
    inputs: Vec<Input>,
    /// Pools that have been told.
    told: BTreeSet<PoolId>,
}

impl Owner {
    /// Whether the disk is so full that nothing can go on.
    pub(super) fn is_stuck(&self) -> bool {
        let durable = self.durable.as_ref();
        durable.is_some_and(|durable| !durable.unwritten.is_empty() || durable.journal.is_pending())
    }

    /// Does nothing but look for room, until there is some or it is told to end.
    pub(super) async fn stand_still(&mut self, inbox: &mut mpsc::Receiver<Input>) {
        self.standstill.set(true);
        let told = tokio::select! {
            () = sleep(FULL_RETRY) => false,
            () = self.standstill.end.notified() => true,
        };
        if told {
            return self.end_at_once(inbox).await;
        }
        if self.write() {
            self.standstill.set(false);
            self.act();
        }
    }

    /// Ends with what is on disk. What has come meanwhile was promised to nobody; whoever sent it says it again.
    async fn end_at_once(&mut self, inbox: &mut mpsc::Receiver<Input>) {
        while let Some(input) = inbox.recv().await {
            if let Input::Stop { .. } = input {
                return self.on_input(input);
            }
        }
    }

    /// Whether an input has to wait until there is room on the disk; it is kept then, or refused.
    pub(super) fn is_put_off(&mut self, input: &mut Option<Input>) -> bool {
        let Some(Input::Event(Event::FromClient { client, message })) = input else {
            return false;
        };
        let (client, pool, opens) = match message {
            FromClient::Submit { pool, .. } => (*client, *pool, false),
            // One that is there is only said again.
            FromClient::OpenPool { pool, .. } if self.core.owner(*pool).is_none() => {
                (*client, *pool, true)
            }
            _ => return false,
        };
        if !self.lacks_room() {
            return false;
        }
        if opens {
            let reason = format!("{FULL}, and try again");
            let kind = Refusal::Unfit;
            self.send_client(client, ToClient::Refused { pool, reason, kind });
        } else if self.park(input.take(), pool) {
            let text = format!("{FULL}; new tasks wait until then");
            self.send_client(client, ToClient::Notice { pool, text });
        }
        true
    }

    /// Looks whether there is room for more. What waits already comes first.
    fn lacks_room(&mut self) -> bool {
        let durable = self.durable.as_mut();
        durable.is_some_and(|durable| {
            durable.journal.stays_short() || !durable.parked.inputs.is_empty()
        })
    }

    /// Keeps tasks for later; tells whether they are their pool's first.
    fn park(&mut self, input: Option<Input>, pool: PoolId) -> bool {
        let durable = self.durable.as_mut();
        durable.is_some_and(|durable| {
            durable.parked.inputs.extend(input);
            durable.parked.told.insert(pool)
        })
    }

    /// Tasks that were put off, if there is room now.
    pub(super) fn take_parked(&mut self) -> Vec<Input> {
        let durable = self.durable.as_mut();
        let Some(durable) = durable.filter(|durable| !durable.parked.inputs.is_empty()) else {
            return Vec::new();
        };
        if durable.journal.stays_short() {
            return Vec::new();
        }
        std::mem::take(&mut durable.parked).inputs
    }

    /// Whether tasks wait for room on the disk.
    pub(super) fn has_parked(&self) -> bool {
        let durable = self.durable.as_ref();
        durable.is_some_and(|durable| !durable.parked.inputs.is_empty())
    }

    /// Whether the disk was full when it was last looked at.
    pub(super) fn is_disk_full(&self) -> bool {
        let durable = self.durable.as_ref();
        durable.is_some_and(|durable| durable.journal.is_short())
    }
}
