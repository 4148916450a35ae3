//! `fleetpool top`.

use std::time::Duration;

use clap::Args;
use fleetpool_proto::view::{Answer, HostView, JobView, Query, StatusView};

use super::{ask, odd, status::DISK_FULL};
use crate::{duration, failure::Failure, output::table, target::ClusterArgs};

/// To the top of the screen, and everything below it gone.
const HOME: &[u8] = b"\x1b[H\x1b[J";
/// Hosts and jobs that are shown of each.
const SHOWN_MAX: usize = 30;

/// Show hosts and jobs, again and again
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// Time between two looks
    #[arg(short, long, value_name = "DUR", value_parser = duration::parse, default_value = "1s")]
    delay: Duration,
    /// Look so often, then end
    #[arg(short = 'n', long, value_name = "N")]
    iterations: Option<u64>,
}

/// Shows until it is interrupted.
///
/// # Errors
/// When there is no cluster to ask.
pub(crate) async fn run(args: TopArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let cluster = cluster.target()?.connect_remote("top").await?;
    let screen = std::io::stdout().is_terminal();
    let mut left = args.iterations;
    loop {
        let status = match ask(&cluster, Query::Status).await? {
            Answer::Status(status) => status,
            answer => return Err(odd(&answer)),
        };
        let hosts = match ask(&cluster, Query::Hosts { on: String::new() }).await? {
            Answer::Hosts(hosts) => hosts,
            answer => return Err(odd(&answer)),
        };
        let jobs = match ask(&cluster, Query::Jobs).await? {
            Answer::Jobs(jobs) => jobs,
            answer => return Err(odd(&answer)),
        };
        if screen {
            table::print_bytes(HOME)?;
        }
        show(&status, hosts, jobs)?;
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) {
            return Ok(());
        }
        tokio::time::sleep(args.delay).await;
    }
}

fn show(
    status: &StatusView,
    mut hosts: Vec<HostView>,
    mut jobs: Vec<JobView>,
) -> Result<(), Failure> {
    let line = format!(
        "{}: {} hosts up, {} down; {} of {} slots given; {} tasks with hosts, {} waiting; {} clients",
        status.cluster,
        status.hosts_up,
        status.hosts_down,
        status.allotted,
        status.slots,
        status.granted,
        status.queued,
        status.clients
    );
    table::print_bytes(line.as_bytes())?;
    if status.disk_full {
        table::print_bytes(format!("the coordinator's disk is {DISK_FULL}").as_bytes())?;
    }
    table::print_bytes(b"")?;
    hosts.sort_by(|a, b| b.running.cmp(&a.running).then_with(|| a.name.cmp(&b.name)));
    hosts.truncate(SHOWN_MAX);
    table::list(&hosts, false)?;
    table::print_bytes(b"")?;
    jobs.retain(|job| job.state != "ended");
    jobs.sort_by(|a, b| b.allotted.cmp(&a.allotted).then(a.id.cmp(&b.id)));
    jobs.truncate(SHOWN_MAX);
    table::list(&jobs, false)
}
