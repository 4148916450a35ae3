//! `fleetpool coordinator`: pools the slots of a fleet.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use fleetpool_coordinator::{ServeOptions, Server};
use fleetpool_net::Address;
use fleetpool_proto::limits::LEASE;

use crate::{
    duration,
    failure::{Failure, say},
    run::Signals,
    target::ClusterArgs,
};

/// Pool the slots of a fleet: the one part that listens
///
/// Needs the files that `fleetpool init` makes. What is queued and running is not kept over a restart.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  fleetpool coordinator\n  fleetpool coordinator --listen 10.0.0.1:7700 --unix /run/fleetpool.sock"
)]
pub(crate) struct CoordinatorArgs {
    /// Where to listen, udp and tcp (repeatable)
    #[arg(long, value_name = "ADDR", default_value = "[::]:7700")]
    listen: Vec<Address>,
    /// Also listen on a Unix socket, for clients of this machine: who may open it is an admin
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// The coordinator's folder, made by `fleetpool init` [default: coordinator/ within the identity's]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long a host may be out of reach before its tasks are given to others
    #[arg(long, value_name = "DUR", value_parser = lease)]
    lease: Option<Duration>,
    /// How long a lost host is waited for whose tasks may not run twice [default: 1h]
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    lost_after: Option<Duration>,
}

/// Shorter leases would end while a busy machine catches its breath.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Serves until it is told to stop.
///
/// # Errors
/// When there is no cluster in its folder, or an address is taken.
pub(crate) async fn run(args: CoordinatorArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    super::log();
    let mut listen = args.listen;
    listen.extend(args.unix.map(Address::Unix));
    let defaults = ServeOptions::new(cluster.state_dir(args.state.as_deref())?, listen);
    let options = ServeOptions {
        lease: args.lease.unwrap_or(LEASE),
        lost_after: args.lost_after.unwrap_or(defaults.lost_after),
        ..defaults
    };
    let mut signals = Signals::listen().map_err(Failure::fleetpool)?;
    let server = Server::bind(options).map_err(Failure::fleetpool)?;
    for address in server.addresses() {
        say(&format!("the coordinator listens on {address}"));
    }
    let stop = async move {
        signals.next().await;
    };
    server.run(stop).await;
    Ok(())
}

fn lease(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        lease if lease >= LEASE_MIN => Ok(lease),
        _ => Err("a lease is 1s or longer".to_owned()),
    }
}
