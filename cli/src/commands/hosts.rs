//! `fleetpool hosts`.

use clap::Args;
use fleetpool::{cluster::Cluster, groups};
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
    let on = On::read(args.on)?;
    let cluster = cluster.target()?.connect().await?;
    table::list(&select(&cluster, &on).await?, args.json)
}

/// A selector that the user gave.
pub(super) struct On {
    /// As it was given.
    given: String,
    /// With hosts in the place of groups, as coordinators read it.
    pub(super) hosts: String,
}

impl On {
    /// Looks groups up, which may take some seconds: to be done before anything is connected.
    ///
    /// # Errors
    /// When there is no such group.
    pub(super) fn read(given: String) -> Result<Self, Failure> {
        let hosts = groups::expand(&given).map_err(Failure::usage)?.into_owned();
        Ok(Self { given, hosts })
    }
}

/// The hosts that a selector names.
///
/// # Errors
/// When it names none, or makes no sense.
pub(super) async fn select(cluster: &Cluster, on: &On) -> Result<Vec<HostView>, Failure> {
    let query = Query::Hosts {
        on: on.hosts.clone(),
    };
    match cluster.ask(query).await.map_err(Failure::fleetpool)? {
        Answer::Hosts(hosts) if hosts.is_empty() && !on.given.is_empty() => {
            Err(nothing_matched(on))
        }
        Answer::Hosts(hosts) => Ok(hosts),
        Answer::Refused { reason } => Err(Failure::usage(reason)),
        answer => Err(odd(&answer)),
    }
}

/// The selector names no host.
fn nothing_matched(on: &On) -> Failure {
    let On { given, hosts } = on;
    let meaning = if given == hosts {
        String::new()
    } else {
        format!(", which is `{hosts}`")
    };
    Failure::new(
        Exit::NothingMatched,
        format!(
            "no host matches `{given}`{meaning}: `fleetpool hosts` lists those there are, with their labels"
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
