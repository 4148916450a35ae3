//! The one reader of a pool's events.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::core::Core;
use crate::{
    cluster::{self, Delivery, Events, PoolEvent},
    error::Error,
    output::{Notes, Printer},
};

/// How long a pool whose tasks have nowhere to run waits before it says so.
const LONELY_AFTER: Duration = Duration::from_secs(3);
const LONELY: &str = "no host is connected that may run this pool's tasks: they wait for one (`fleetpool hosts` lists those there are)";

/// Hands everything to whom it concerns until the pool has ended. What a task printed is passed on before the task's
/// result is. `notes` gets what is to be known of the pool as a whole.
pub(crate) async fn dispatch(
    core: Arc<Core>,
    mut events: Events,
    mut printer: Printer,
    notes: Notes,
) {
    let mut notice = String::new();
    let lonely = sleep(LONELY_AFTER);
    tokio::pin!(lonely);
    let mut is_lonely = true;
    loop {
        let delivery = tokio::select! {
            biased;
            delivery = events.next_delivery() => delivery,
            () = &mut lonely, if is_lonely => {
                if core.is_waiting() {
                    // Once is enough, until there was a host.
                    is_lonely = false;
                    notes.tell(LONELY.to_owned()).await;
                }
                lonely.as_mut().reset(Instant::now() + LONELY_AFTER);
                continue;
            }
        };
        match delivery {
            None => break,
            Some(Delivery::Results(rows, payloads)) => core.on_results(rows, payloads),
            Some(Delivery::Output(rows, payloads)) => {
                printer.print(core.hosts(), rows, payloads).await;
            }
            Some(Delivery::Other(PoolEvent::Slots { eligible, .. })) => {
                core.set_slots(eligible);
                is_lonely = eligible == 0;
                lonely.as_mut().reset(Instant::now() + LONELY_AFTER);
            }
            Some(Delivery::Other(PoolEvent::Notice(text))) => {
                notice.clone_from(&text);
                notes.tell(text).await;
            }
            Some(Delivery::Other(event)) => on_event(&core, event, &mut notice),
        }
    }
    core.finish();
}

fn on_event(core: &Core, event: PoolEvent, notice: &mut String) {
    match event {
        PoolEvent::Refused { reason, kind } => {
            core.fail(Error::Cluster(cluster::Error::Refused { reason, kind }));
        }
        PoolEvent::Lost(reason) => core.fail(Error::Cluster(cluster::Error::Lost { reason })),
        // An end that nobody here asked for was asked for elsewhere; the last notice says by whom.
        PoolEvent::Finished if !core.is_done() => {
            let reason = std::mem::take(notice);
            core.fail(Error::Terminated { reason });
        }
        PoolEvent::Finished => {}
        // These come in batches, or were taken before.
        PoolEvent::Output { .. }
        | PoolEvent::Ended { .. }
        | PoolEvent::Slots { .. }
        | PoolEvent::Notice(_) => {}
    }
}
