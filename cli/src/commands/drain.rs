//! `fleetpool drain`: no new tasks on hosts, and waits until what runs there has ended.

use std::time::Duration;

use clap::Args;
use fleetpool::cluster::Cluster;
use fleetpool_proto::view::{HostView, Query};
use tokio::time::{Instant, sleep};

use super::{
    ask,
    hosts::{On, select},
    rollout::host_of,
};
use crate::{
    duration,
    failure::{Exit, Failure, count, say},
    output::fold::fold,
    target::ClusterArgs,
};

/// Between two looks at what still runs.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Waiting is spoken of this often.
const TELL_PAUSE: Duration = Duration::from_secs(30);

/// Keep new tasks away from hosts, and wait until those that run there have ended
#[derive(Args, Debug)]
#[command(
    after_help = "The hosts stay cordoned: `fleetpool uncordon` lets tasks come again.\n\nExample:\n  fleetpool drain 'web[01-04]' --timeout 1h && ssh web01 reboot"
)]
pub(crate) struct DrainArgs {
    /// Hosts: a nodeset (web[01-40]), @group or label=value
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Wait no longer than this (exit status 124); what runs goes on
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// Drains hosts.
///
/// # Errors
/// When there is no such host, or this client may not.
pub(crate) async fn run(args: DrainArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let given = args.hosts.into_iter().map(On::read);
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let cluster = cluster.target()?.connect_remote("draining a host").await?;
    let mut names = Vec::new();
    for on in given {
        names.extend(
            select(&cluster, &on)
                .await?
                .into_iter()
                .map(|host| host.name),
        );
    }
    for host in names.clone() {
        ask(&cluster, Query::Cordon { host, on: true }).await?;
    }
    let end = args.timeout.map(|timeout| Instant::now() + timeout);
    match empty(&cluster, names, end).await? {
        Ok(()) => Ok(Exit::Success),
        Err(busy) => Err(Failure::new(
            Exit::TimedOut,
            format!("{busy}: they go on, and no new ones come"),
        )),
    }
}

/// Waits until nothing runs on these hosts, or says what does at the end of the time.
///
/// # Errors
/// When the session is lost.
pub(super) async fn empty(
    cluster: &Cluster,
    mut names: Vec<String>,
    end: Option<Instant>,
) -> Result<Result<(), String>, Failure> {
    let mut tell = Instant::now() + TELL_PAUSE;
    loop {
        let mut tasks = 0;
        let mut busy = Vec::new();
        for name in names {
            let host = host_of(cluster, &name).await?;
            let left = host.as_ref().map_or(0, left_on);
            if left > 0 {
                tasks += left;
                busy.push(name);
            }
        }
        names = busy;
        if names.is_empty() {
            return Ok(Ok(()));
        }
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            return Ok(Err(still(tasks, &names)));
        }
        if now >= tell {
            say(&format!("waiting: {}", still(tasks, &names)));
            tell = now + TELL_PAUSE;
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Tasks that the host has not told the end of. A lost one has none that would end.
fn left_on(host: &HostView) -> u64 {
    match host.state.as_str() {
        "lost" => 0,
        _ => u64::from(host.granted.max(host.running)),
    }
}

fn still(tasks: u64, hosts: &[String]) -> String {
    format!(
        "{} still run on {}",
        count(tasks, "task"),
        fold(hosts.iter().map(String::as_str))
    )
}
