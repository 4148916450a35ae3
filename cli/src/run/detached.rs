//! A run that goes on by itself: all is submitted, and then it is left.

use fleetpool::cluster::{Cluster, Error, Events, PoolEvent};
use fleetpool_proto::pool::{PoolOptions, Spec};

use super::{
    engine::refused,
    feeder::{Inputs, Item},
};
use crate::{
    failure::{Exit, Failure, count, say},
    output::table,
};

/// What is to run.
pub(crate) struct Detached {
    pub(crate) cluster: Cluster,
    pub(crate) pool: PoolOptions,
    pub(crate) spec: Spec,
    pub(crate) inputs: Inputs,
    /// Nothing is said but the job's number.
    pub(crate) quiet: bool,
}

/// Submits everything, prints the job's number once the coordinator holds it all, and leaves.
///
/// # Errors
/// When an input cannot be read, or the cluster refuses.
pub(crate) async fn detach(job: Detached) -> Result<Exit, Failure> {
    let pool = PoolOptions {
        detached: true,
        ..job.pool
    };
    let (submitter, mut events) = job.cluster.open(pool).map_err(Failure::fleetpool)?;
    let spec = submitter.define(job.spec);
    let mut inputs = job.inputs;
    let mut tasks = 0;
    loop {
        let next = hearing(&mut events, inputs.next()).await?;
        let Some(item) = next.ok_or_else(ended)? else {
            break;
        };
        let task = match item? {
            Item::Task(task) => task,
            Item::Unsent(task, reason) => {
                let host = task.host_name().to_owned();
                say(&format!("{host}: {reason}"));
                continue;
            }
        };
        let payload = task.command.payload().map_err(Failure::fleetpool)?;
        let host = task.host.as_ref().map(|host| host.id);
        let submitted = hearing(&mut events, submitter.submit(spec, host, payload)).await?;
        let submitted = submitted.ok_or_else(ended)?;
        unless_refused(submitted.map(drop), &mut events).await?;
        tasks += 1;
    }
    submitter.close();
    let held = hearing(&mut events, submitter.held()).await?;
    let is_over = matches!(held, None | Some(Err(Error::Closed)));
    if let Some(held) = held.filter(|_| !is_over) {
        unless_refused(held, &mut events).await?;
    }
    submitter.leave();
    let number = submitter.pool().0.to_string();
    if !job.quiet {
        let tasks = count(tasks, "task");
        let how = if is_over {
            "is over already"
        } else {
            "goes on by itself"
        };
        say(&format!(
            "job {number} {how} with {tasks}: `fleetpool attach {number}` watches it, `logs` shows what it printed, `cancel` ends it"
        ));
    }
    table::print_bytes(number.as_bytes())?;
    Ok(Exit::Success)
}

/// Waits for `done`, and meanwhile hears what becomes of the pool: news that nobody reads hold up all that comes behind them.
/// `None`: the pool is over.
async fn hearing<T>(
    events: &mut Events,
    done: impl Future<Output = T>,
) -> Result<Option<T>, Failure> {
    tokio::pin!(done);
    loop {
        tokio::select! {
            biased;
            done = &mut done => return Ok(Some(done)),
            Some(event) = events.next() => match event {
                PoolEvent::Finished => return Ok(None),
                event => hear(event)?,
            }
        }
    }
}

fn ended() -> Failure {
    Failure::fleetpool(
        "somebody else ended this job before all of its tasks were brought: what they printed so far is kept, \
         `fleetpool jobs` names it",
    )
}

/// The reason why a pool takes nothing comes as an event.
async fn unless_refused(done: Result<(), Error>, events: &mut Events) -> Result<(), Failure> {
    let Err(error) = done else {
        return Ok(());
    };
    while let Some(event) = events.next().await {
        hear(event)?;
    }
    Err(Failure::fleetpool(error))
}

fn hear(event: PoolEvent) -> Result<(), Failure> {
    match event {
        PoolEvent::Refused { reason, kind } => Err(refused(kind, &reason)),
        PoolEvent::Lost(reason) => Err(Failure::fleetpool(reason)),
        PoolEvent::Notice(text) => {
            say(&text);
            Ok(())
        }
        _ => Ok(()),
    }
}
