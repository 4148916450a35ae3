//! `fleetpool deploy`: agents that stay, installed over ssh.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use clap::Args;
use fleetpool::cluster::Cluster;
use fleetpool_deploy::{Authority, Destination, Did, Manner, Program, Wanted, install};
use fleetpool_net::{Address, DEFAULT_PORT, Identity, identity::csr_from_pem};
use fleetpool_proto::{
    Role,
    limits::SLOTS_MAX,
    view::{Answer, Query},
};

use super::{
    agent::LimitArgs,
    ask,
    identity::certify,
    odd,
    rollout::{Line, OverSsh, Tally, heard, host_of, is_there},
    token::label,
};
use crate::{
    failure::{Exit, Failure, count},
    output::table,
    target::{ClusterArgs, Target},
};

/// How long the certificates of hosts are valid; deploying again after half of it renews them.
const CERTIFIED: Duration = Duration::from_hours(365 * 24);

const HELP: &str = "\
Goes over your own ssh, with its configuration, keys, jump hosts and known hosts, one connection a host. Brings this program, makes a key there and has it certified, installs a systemd unit (or a supervisor, where there is no systemd), starts the agent, and waits until the agent is heard of when ssh has left. Run again, it changes what is not as it should be, and says so.

As root it installs for the machine: /usr/local/bin/fleetpool, /usr/local/lib/fleetpool, /etc/fleetpool, /var/lib/fleetpool. As anybody else, or with --user, for that user: ~/.local/bin, ~/.local/lib, ~/.config and ~/.local/state.

A version that is installed is not replaced: `fleetpool upgrade` does that.

Examples:
  fleetpool deploy 'web[01-40]'
  fleetpool deploy 'root@gpu[1-4]' --slots 8 --label gpu=a100 --coordinator head:7700
  fleetpool deploy @rack1 --dry-run";

/// Install agents on hosts over ssh, and start them
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    ssh: OverSsh,
    /// Where the hosts reach the coordinator [default: where this client does]
    #[arg(long, value_name = "ADDR")]
    coordinator: Option<Address>,
    /// Tasks that may run at once on each [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS_MAX)))]
    slots: Option<u16>,
    /// Label to be selected by (repeatable)
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    limits: LimitArgs,
    /// The user that agents and their tasks are, made where it is missing (as root only)
    #[arg(long, value_name = "USER", default_value = "fleetpool")]
    run_as: String,
}

/// Installs and starts agents.
///
/// # Errors
/// When the command line makes no sense, or the coordinator cannot be reached; hosts that fail are an exit status.
pub(crate) async fn run(args: DeployArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let hosts = args.ssh.destinations("deploy to")?;
    let target = cluster.target()?;
    let wanted = args.wanted(&target)?;
    let program = args.ssh.program()?;
    let cluster = target.connect_remote("deploying agents").await?;
    let known = agents(&cluster).await?;
    let work = Arc::new(Work {
        program,
        wanted,
        manner: args.ssh.manner(),
        cluster,
        known,
    });
    let all = [hosts.len()];
    let tally = Tally::of(hosts, &all, args.ssh.quiet, |host| {
        let work = Arc::clone(&work);
        async move { work.deploy(&host).await }
    });
    let tally = tally.await?;
    if !args.ssh.quiet {
        table::print(&summary(&tally, args.ssh.dry_run))?;
    }
    Ok(tally.exit())
}

fn summary(tally: &Tally, dry_run: bool) -> String {
    let hosts = count(tally.done, "host");
    match (tally.changed, dry_run) {
        (0, true) => format!("{hosts}: nothing to do"),
        (changed, true) => format!("{hosts}: {changed} would be changed"),
        (0, false) => format!("{hosts} up, nothing was changed"),
        (changed, false) => format!("{hosts} up, {changed} of them changed"),
    }
}

impl DeployArgs {
    /// What agents are to be.
    fn wanted(&self, target: &Target) -> Result<Wanted, Failure> {
        let blank = |text: &str| text.contains(|c: char| c.is_whitespace() || c.is_control());
        let mut labels = self.labels.clone();
        labels.sort();
        for (key, value) in &labels {
            if blank(key) || blank(value) {
                return Err(Failure::usage(format!(
                    "the label `{key}={value}` has a blank in it"
                )));
            }
        }
        let identity = Identity::load(&target.identity).map_err(Failure::fleetpool)?;
        Ok(Wanted {
            coordinator: self.address(target)?.to_string(),
            ca: identity.ca_pem(),
            slots: self.slots,
            labels,
            task_pids: self.limits.task_pids,
            task_memory: self.limits.task_memory,
            run_as: self.run_as.clone(),
        })
    }

    /// Where hosts are to look for the coordinator.
    fn address(&self, target: &Target) -> Result<Address, Failure> {
        let named = self.coordinator.clone().or_else(|| target.address.clone());
        let why = match &named {
            None => {
                return Err(Failure::usage(
                    "deploying agents needs a cluster: name one with --cluster ADDR",
                ));
            }
            Some(Address::Unix(_)) => "a Unix socket is for this machine alone",
            Some(Address::Tcp(at)) if is_loopback(at) => "every host has a loopback of its own",
            Some(address) => return Ok(address.clone()),
        };
        Err(Failure::usage(format!(
            "hosts cannot reach {}: {why}; say where they reach the coordinator, with --coordinator HOST:PORT",
            named.map_or_else(String::new, |address| address.to_string())
        )))
    }
}

fn is_loopback(at: &str) -> bool {
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// The identities of agents that the registry has.
///
/// # Errors
/// When this client may not ask.
pub(super) async fn agents(cluster: &Cluster) -> Result<BTreeSet<String>, Failure> {
    match ask(cluster, Query::IdentityList).await? {
        Answer::Identities(all) => Ok(all
            .into_iter()
            .filter(|identity| identity.role == Role::Agent.to_string())
            .map(|identity| identity.id)
            .collect()),
        answer => Err(odd(&answer)),
    }
}

struct Work {
    program: Program,
    wanted: Wanted,
    manner: Manner,
    cluster: Cluster,
    /// Agents that are in the registry.
    known: BTreeSet<String>,
}

impl Work {
    async fn deploy(&self, to: &Destination) -> Result<Line, String> {
        let anew = !self.known.contains(to.name());
        let did = install(to, &self.program, &self.wanted, self.manner, anew, self).await;
        let did = did.map_err(|error| error.to_string())?;
        if !self.manner.dry_run {
            self.await_agent(to, &did).await?;
        }
        Ok(line(did))
    }

    /// It counts when it is heard of after ssh has left; where nothing was changed, that it is there is enough.
    async fn await_agent(&self, to: &Destination, did: &Did) -> Result<(), String> {
        if did.changes.is_empty() {
            let host = host_of(&self.cluster, to.name()).await;
            if host.is_ok_and(|host| host.is_some_and(|host| is_there(&host))) {
                return Ok(());
            }
        }
        let Err(why) = heard(&self.cluster, to.name()).await else {
            return Ok(());
        };
        match ask(&self.cluster, Query::TunnelList).await {
            Ok(Answer::Tunnels(tunnels)) => {
                let mut tunnels = tunnels.iter();
                match tunnels.find(|tunnel| tunnel.to == to.target() && tunnel.state != "up") {
                    Some(tunnel) => Err(format!(
                        "it cannot reach the coordinator, and the coordinator's own ssh does not reach it: {}",
                        tunnel.state
                    )),
                    None => Err(why),
                }
            }
            _ => Err(why),
        }
    }
}

impl Authority for Work {
    async fn certify(&self, host: &str, request: &str, ended: bool) -> Result<String, String> {
        let csr = csr_from_pem(request.as_bytes()).map_err(|error| error.to_string())?;
        let told = |failure: Failure| failure.message;
        if self.known.contains(host) {
            // Whoever has the key that is known may still run tasks, unless it was this one.
            let id = host.to_owned();
            let query = Query::IdentityRevoke { id, ended };
            ask(&self.cluster, query).await.map_err(told)?;
        }
        let issued = certify(&self.cluster, host.to_owned(), Role::Agent, CERTIFIED, csr).await;
        Ok(issued.map_err(told)?.pem())
    }

    async fn unreachable(&self, to: &Destination) -> Result<String, String> {
        if !self.manner.dry_run {
            let to = to.target().to_owned();
            let asked = ask(&self.cluster, Query::TunnelAdd { to }).await;
            asked.map_err(|failure| failure.message)?;
        }
        Ok(far_end())
    }
}

/// Where the far end of a tunnel is, on each host.
fn far_end() -> String {
    format!("127.0.0.1:{DEFAULT_PORT}")
}

/// What is said of a host.
pub(super) fn line(did: Did) -> Line {
    let mut text = did.to_string();
    if let Some(other) = &did.other {
        text += &format!("; version {other} stays, `fleetpool upgrade` replaces it");
    }
    Line {
        text,
        changed: !did.changes.is_empty(),
        notes: did.notes,
    }
}
