//! `fleetpool hosts`.

use clap::Args;
use fleetpool::cluster::Cluster;
use fleetpool_proto::view::{Answer, HostView, Query};

use super::odd;
use crate::{
    failure::{Exit, Failure},
    output::table::{self, Listed},
    target::ClusterArgs,
};

/// List the hosts of the fleet: their state, slots and what they run
#[derive(Args, Debug)]
pub(crate) struct HostsArgs {
    /// Only these: a nodeset (web[01-40]), @group or label=value
    #[arg(
        long,
        value_name = "SEL",
        default_value = "",
        hide_default_value = true
    )]
    on: String,
    /// An array of objects
    #[arg(long)]
    json: bool,
}

/// Lists hosts.
///
/// # Errors
/// When the selector matches none, or there is no cluster to ask.
pub(crate) async fn run(args: HostsArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect().await?;
    table::list(&select(&cluster, &args.on).await?, args.json)
}

/// The hosts that a selector names.
///
/// # Errors
/// When it names none, or makes no sense.
pub(super) async fn select(cluster: &Cluster, on: &str) -> Result<Vec<HostView>, Failure> {
    let query = Query::Hosts { on: on.to_owned() };
    match cluster.ask(query).await.map_err(Failure::fleetpool)? {
        Answer::Hosts(hosts) if hosts.is_empty() && !on.is_empty() => Err(nothing_matched(on)),
        Answer::Hosts(hosts) => Ok(hosts),
        Answer::Refused { reason } => Err(Failure::usage(reason)),
        answer => Err(odd(&answer)),
    }
}

/// The selector names no host.
fn nothing_matched(on: &str) -> Failure {
    Failure::new(
        Exit::NothingMatched,
        format!(
            "no host matches `{on}`: `fleetpool hosts` lists those there are, with their labels"
        ),
    )
}

impl Listed for HostView {
    const COLUMNS: &'static [&'static str] = &[
        "HOST", "STATE", "SLOTS", "ALLOTTED", "RUNNING", "CPUS", "MEMORY", "CARRIER", "RTT",
        "LABELS",
    ];

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            self.slots.to_string(),
            self.allotted.to_string(),
            self.running.to_string(),
            self.cpus.to_string(),
            format!("{}M", self.memory_mib),
            self.carrier.clone(),
            match self.rtt_us {
                0 => "-".to_owned(),
                us => format!("{us}us"),
            },
            table::labels(&self.labels),
        ]
    }
}
