//! `fleetpool coordinator`: pools the slots of a fleet.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use fleetpool_coordinator::{ServeOptions, Server, access::Access};
use fleetpool_deploy::{Destination, tunnel};
use fleetpool_net::{Address, DEFAULT_PORT};
use fleetpool_proto::limits::LEASE;
use tokio::{task::JoinHandle, time::sleep};

use crate::{duration, failure::Failure, run::Signals, target::ClusterArgs};

/// Pool the slots of a fleet: the one part that listens
///
/// Needs the files that `fleetpool init` makes. What is queued, running and not yet
/// delivered is kept over restarts.
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

/// Between a tunnel's end and the next ssh; doubled while ssh does not get there.
const TUNNEL_PAUSE: Duration = Duration::from_secs(1);
const TUNNEL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shorter leases would end while a busy machine catches its breath.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Serves until it is told to stop.
///
/// # Errors
/// When there is no cluster in its folder, or an address is taken.
pub(crate) async fn run(args: CoordinatorArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let log = super::Log::start();
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
        log.say(&format!("the coordinator listens on {address}"));
    }
    let keeping = tokio::spawn(keep_tunnels(server.access(), near_end(server.addresses())));
    let stop = async move {
        signals.next().await;
    };
    let served = server.run(stop).await;
    keeping.abort();
    served.map_err(Failure::fleetpool)
}

/// Where tunnels lead: an address of this machine that the coordinator listens on.
fn near_end(addresses: &[Address]) -> Option<String> {
    let tcp = addresses.iter().find_map(|address| match address {
        Address::Tcp(at) => Some(at),
        Address::Unix(_) => None,
    })?;
    let (host, port) = tcp.rsplit_once(':')?;
    Some(match host {
        "[::]" | "0.0.0.0" => format!("127.0.0.1:{port}"),
        host => format!("{host}:{port}"),
    })
}

/// Keeps a tunnel to every host that one is wanted to.
async fn keep_tunnels(access: Arc<Access>, near_end: Option<String>) {
    let Some(near_end) = near_end else { return };
    let mut wanted = access.tunnels.watch();
    let mut kept: BTreeMap<String, AbortOnDrop> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        kept.retain(|to, _| now.contains(to));
        for to in now {
            kept.entry(to.clone()).or_insert_with(|| {
                let keeping = keep_tunnel(Arc::clone(&access), to, near_end.clone());
                AbortOnDrop(tokio::spawn(keeping))
            });
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts ssh again whenever it ends, later each time it has not got there.
async fn keep_tunnel(access: Arc<Access>, to: String, near_end: String) {
    let Ok(destination) = to.parse::<Destination>() else {
        return access.tunnels.tell(&to, "it is no name for ssh");
    };
    let mut pause = TUNNEL_PAUSE;
    loop {
        let was_up = AtomicBool::new(false);
        let ended = tunnel(&destination, DEFAULT_PORT, &near_end, || {
            tracing::info!(to, "the tunnel is up");
            was_up.store(true, Ordering::Relaxed);
            access.tunnels.tell(&to, "up");
        });
        let why = ended.await.to_string();
        tracing::warn!(to, why, "no tunnel");
        access.tunnels.tell(&to, &why);
        pause = if was_up.into_inner() {
            TUNNEL_PAUSE
        } else {
            (pause * 2).min(TUNNEL_PAUSE_MAX)
        };
        sleep(pause).await;
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        lease if lease >= LEASE_MIN => Ok(lease),
        _ => Err("a lease is 1s or longer".to_owned()),
    }
}
