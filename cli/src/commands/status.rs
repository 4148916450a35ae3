//! `fleetpool status`.

use clap::Args;
use fleetpool_proto::view::{Answer, Query, StatusView};

use super::{ask, odd};
use crate::{failure::Failure, output::table, target::ClusterArgs};

/// The fleet in a few lines
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// An object
    #[arg(long)]
    json: bool,
}

/// What there is to do about it is with it.
pub(super) const DISK_FULL: &str =
    "full: new tasks wait until there is room where the coordinator's `--state` is";

/// Shows how the fleet is.
///
/// # Errors
/// When there is no cluster to ask.
pub(crate) async fn run(args: StatusArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect().await?;
    match ask(&cluster, Query::Status).await? {
        Answer::Status(status) if args.json => table::print_json(&status),
        Answer::Status(status) => table::print(&text(&status)),
        answer => Err(odd(&answer)),
    }
}

fn text(status: &StatusView) -> String {
    let mut text = format!(
        "cluster   {} (fleetpool {}, up {}, start {})\nhosts     {} up, {} away or lost\nslots     {} of {} in use\njobs      {} from {} clients\ntasks     {} waiting, {} at hosts",
        status.cluster,
        status.build,
        table::age(status.uptime_s),
        status.epoch,
        status.hosts_up,
        status.hosts_down,
        status.allotted,
        status.slots,
        status.jobs,
        status.clients,
        status.queued,
        status.granted,
    );
    if status.disk_full {
        text.push_str("\ndisk      ");
        text.push_str(DISK_FULL);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_is_told_in_a_few_lines() {
        let status = StatusView {
            cluster: "lab".into(),
            build: "0.1.0".into(),
            uptime_s: 3700,
            epoch: 2,
            hosts_up: 3,
            slots: 6,
            allotted: 4,
            jobs: 1,
            clients: 2,
            queued: 10,
            ..StatusView::default()
        };
        insta::assert_snapshot!(text(&status), @r"
        cluster   lab (fleetpool 0.1.0, up 1h1m, start 2)
        hosts     3 up, 0 away or lost
        slots     4 of 6 in use
        jobs      1 from 2 clients
        tasks     10 waiting, 0 at hosts
        ");
    }

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let status = StatusView {
            disk_full: true,
            ..StatusView::default()
        };
        let text = text(&status);
        let last = text.lines().last().expect("a line");
        insta::assert_snapshot!(last, @"disk      full: new tasks wait until there is room where the coordinator's `--state` is");
    }
}
