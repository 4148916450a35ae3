//! `fleetpool upgrade`: another version in the place of the one that runs, wave after wave.

use std::{sync::Arc, time::Duration};

use clap::Args;
use fleetpool::cluster::Cluster;
use fleetpool_deploy::{Destination, Did, Manner, Program, go_back, upgrade};
use fleetpool_proto::view::Query;
use tokio::time::Instant;

use super::{
    ask,
    deploy::line,
    drain::empty,
    rollout::{Line, OverSsh, Tally, heard, host_of},
};
use crate::{
    duration,
    failure::{Exit, Failure, count},
    halt::Limit,
    output::table,
    target::ClusterArgs,
};

const HELP: &str = "\
One host first, then waves: no new tasks come to a host, it gets the program, and its agent is replaced under what runs there, which goes on. Where that is not possible (a version that cannot take over what runs) the host is drained first: what runs there ends by itself. Then the agent is waited for until it is heard of again, and tasks come again. A host whose agent is not heard of goes back to the version that it had, and no other wave begins.

Example:
  fleetpool upgrade 'web[01-40]' --batch 25% --drain-timeout 1h";

/// Put this version of fleetpool on hosts where another runs, without ending a task
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    ssh: OverSsh,
    /// Hosts in each wave after the first host
    #[arg(long, value_name = "N|N%", default_value = "10%")]
    batch: Limit,
    /// How long tasks of a host may take to end; a host where some still run is left as it is, and counts as failed
    #[arg(long, value_name = "DUR", value_parser = duration::parse)]
    drain_timeout: Option<Duration>,
}

/// Upgrades hosts.
///
/// # Errors
/// When the command line makes no sense, or the coordinator cannot be reached; hosts that fail are an exit status.
pub(crate) async fn run(args: UpgradeArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let hosts = args.ssh.destinations("upgrade")?;
    let waves = waves(hosts.len(), args.batch);
    let cluster = cluster.target()?.connect_remote("upgrading agents").await?;
    let work = Arc::new(Work {
        program: args.ssh.program()?,
        manner: args.ssh.manner(),
        drain_timeout: args.drain_timeout,
        cluster,
    });
    let tally = Tally::of(hosts, &waves, args.ssh.quiet, |host| {
        let work = Arc::clone(&work);
        async move { work.upgrade(&host).await }
    });
    let tally = tally.await?;
    if !args.ssh.quiet {
        let hosts = count(tally.done, "host");
        let changed = tally.changed;
        table::print(&match args.ssh.dry_run {
            true => format!("{hosts}: {changed} would be upgraded"),
            false => format!("{hosts}: {changed} upgraded"),
        })?;
    }
    Ok(tally.exit())
}

/// One host, and then so many at a time.
fn waves(hosts: usize, batch: Limit) -> Vec<usize> {
    let size = match batch {
        Limit::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of the hosts of one fleet"
        )]
        Limit::Percent(percent) => (hosts as f64 * percent / 100.0) as usize,
    };
    let mut waves = vec![1];
    let mut left = hosts.saturating_sub(1);
    while left > 0 {
        let wave = size.clamp(1, left);
        waves.push(wave);
        left -= wave;
    }
    waves
}

struct Work {
    program: Program,
    manner: Manner,
    drain_timeout: Option<Duration>,
    cluster: Cluster,
}

impl Work {
    async fn upgrade(&self, to: &Destination) -> Result<Line, String> {
        if self.manner.dry_run {
            return self.replace(to, false).await.map(line);
        }
        let name = to.name();
        let told = |failure: Failure| failure.message;
        let host = host_of(&self.cluster, name).await.map_err(told)?;
        let Some(host) = host else {
            return Err(
                "it is none of the fleet's hosts: `fleetpool deploy` makes it one".to_owned(),
            );
        };
        let was_open = host.state != "cordoned";
        self.cordon(name, true).await?;
        let upgraded = self.upgrade_cordoned(to).await;
        if was_open {
            self.cordon(name, false).await?;
        }
        upgraded
    }

    async fn upgrade_cordoned(&self, to: &Destination) -> Result<Line, String> {
        let did = match self.replace_gently(to).await {
            Ok(did) => did,
            Err(why) => {
                // Whatever it is that runs there now: the next command is to find it.
                heard(&self.cluster, to.name()).await?;
                return Err(why);
            }
        };
        if did.changes.is_empty() {
            return Ok(line(did));
        }
        let Err(why) = heard(&self.cluster, to.name()).await else {
            return Ok(line(did));
        };
        let back = go_back(to, &self.program, self.manner).await;
        let back = back.map_err(|error| format!("{why}; and it cannot go back: {error}"))?;
        heard(&self.cluster, to.name()).await?;
        Err(format!("{why}; the version that it had is back ({back})"))
    }

    /// Under the commands that run there, or after all that runs there has ended.
    async fn replace_gently(&self, to: &Destination) -> Result<Did, String> {
        let did = self.replace(to, true).await?;
        if !did.needs_drain {
            return Ok(did);
        }
        let end = self.drain_timeout.map(|timeout| Instant::now() + timeout);
        let drained = empty(&self.cluster, vec![to.name().to_owned()], end).await;
        drained.map_err(|failure| failure.message)??;
        self.replace(to, false).await
    }

    async fn replace(&self, to: &Destination, live: bool) -> Result<Did, String> {
        let upgraded = upgrade(to, &self.program, self.manner, live).await;
        upgraded.map_err(|error| error.to_string())
    }

    async fn cordon(&self, host: &str, on: bool) -> Result<(), String> {
        let host = host.to_owned();
        let asked = ask(&self.cluster, Query::Cordon { host, on }).await;
        asked.map(drop).map_err(|failure| failure.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_first() {
        let check = |hosts, batch, expect: &[usize]| assert_eq!(waves(hosts, batch), expect);
        check(1, Limit::Percent(10.0), &[1]);
        check(4, Limit::Percent(10.0), &[1, 1, 1, 1]);
        check(40, Limit::Percent(25.0), &[1, 10, 10, 10, 9]);
        check(8, Limit::Count(3), &[1, 3, 3, 1]);
    }
}
