//! `fleetpool hosts`, and how hosts are named.

use std::time::Duration;

use clap::Args;
use fleetpool::{
    cluster::{Arrival, Cluster},
    groups,
};
use fleetpool_proto::{
    selector::Selector,
    view::{Answer, HostView, Query},
};
use tokio::time::{Instant, sleep};

use super::odd;
use crate::{
    failure::{Exit, Failure, say},
    output::table::{self, Listed},
    target::{ClusterArgs, Target},
};

/// How long a host that is logged in to may take to say what it is.
const REGISTERED_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const REGISTERED_PAUSE: Duration = Duration::from_millis(10);

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
pub(crate) async fn run(args: HostsArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let on = On::read(args.on)?;
    let target = cluster.target()?.only(&on)?;
    if !target.hosts.is_empty() {
        return look_at(&target, args.json).await;
    }
    let cluster = target.connect().await?;
    table::list(&select(&cluster, &on).await?, args.json)?;
    Ok(Exit::Success)
}

/// Lists hosts that are logged in to for it; those that cannot be had are told of.
async fn look_at(target: &Target, json: bool) -> Result<Exit, Failure> {
    let (cluster, mut arrivals, farewell) = target.gather().await?;
    let mut gone = 0;
    for _ in &target.hosts {
        let arrival = arrivals.next().await;
        if let Some(note) = arrival.as_ref().and_then(Arrival::note) {
            say(&note);
        }
        gone += usize::from(matches!(arrival, Some(Arrival::Gone { .. })));
    }
    let hosts = registered(&cluster, target.hosts.len() - gone).await;
    drop(cluster);
    farewell.wait().await;
    table::list(&hosts?, json)?;
    Ok(match gone {
        0 => Exit::Success,
        gone => Exit::Failed(gone as u64),
    })
}

/// The hosts of a cluster when so many have said what they are; those that have after a while.
async fn registered(cluster: &Cluster, expected: usize) -> Result<Vec<HostView>, Failure> {
    let patience = Instant::now() + REGISTERED_TIME_MAX;
    loop {
        let hosts = select(cluster, &On::default()).await?;
        if hosts.len() >= expected || Instant::now() >= patience {
            return Ok(hosts);
        }
        sleep(REGISTERED_PAUSE).await;
    }
}

/// A selector that the user gave; the default is of all hosts.
#[derive(Debug, Default)]
pub(crate) struct On {
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

    /// Whether it names this host, of which nothing but the name is known.
    ///
    /// # Errors
    /// When it makes no sense.
    pub(crate) fn names(&self, host: &str) -> Result<bool, Failure> {
        let selector = Selector::parse(&self.hosts).map_err(Failure::usage)?;
        Ok(self.hosts.is_empty() || selector.matches(host, &[]))
    }

    /// It names no host.
    pub(crate) fn nothing_matched(&self) -> Failure {
        let Self { given, hosts } = self;
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
            Err(on.nothing_matched())
        }
        Answer::Hosts(hosts) => Ok(hosts),
        Answer::Refused { reason } => Err(Failure::usage(reason)),
        answer => Err(odd(&answer)),
    }
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
