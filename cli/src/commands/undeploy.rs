//! `fleetpool undeploy`: takes agents away again.

use std::sync::Arc;

use clap::Args;
use fleetpool_deploy::{Destination, uninstall};
use fleetpool_proto::view::Query;

use super::{
    ask,
    deploy::{agents, line},
    rollout::{Line, OverSsh, Tally},
};
use crate::{
    failure::{Exit, Failure, count},
    output::table,
    target::ClusterArgs,
};

/// Remove agents from hosts over ssh, with all that deploy has put there
///
/// What runs on them is ended; `fleetpool drain HOSTS` first lets it end by itself. Their identities are revoked.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fleetpool drain 'web[01-04]' && fleetpool undeploy 'web[01-04]'"
)]
pub(crate) struct UndeployArgs {
    #[command(flatten)]
    ssh: OverSsh,
}

/// Removes agents.
///
/// # Errors
/// When the command line makes no sense, or the coordinator cannot be reached; hosts that fail are an exit status.
pub(crate) async fn run(args: UndeployArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let hosts = args.ssh.destinations("undeploy from")?;
    let program = args.ssh.program()?;
    let manner = args.ssh.manner();
    let cluster = cluster.target()?.connect_remote("removing agents").await?;
    let known = Arc::new(agents(&cluster).await?);
    let all = [hosts.len()];
    let tally = Tally::of(hosts, &all, args.ssh.quiet, |host: Destination| {
        let (program, cluster, known) = (program.clone(), cluster.clone(), Arc::clone(&known));
        async move {
            let id = host.name().to_owned();
            let did = uninstall(&host, &program, manner).await.map_err(|error| {
                format!("{error}; `fleetpool identity revoke {id}` takes it out of the fleet in any case")
            })?;
            let mut line: Line = line(did);
            if !manner.dry_run {
                let to = host.target().to_owned();
                let query = Query::TunnelRemove { to };
                ask(&cluster, query)
                    .await
                    .map_err(|failure| failure.message)?;
            }
            if known.contains(&id) && !manner.dry_run {
                // All that it ran ended with it, unless it was not there.
                let ended = line.changed;
                let query = Query::IdentityRevoke { id, ended };
                ask(&cluster, query)
                    .await
                    .map_err(|failure| failure.message)?;
                line.changed = true;
            }
            Ok(line)
        }
    });
    let tally = tally.await?;
    if !args.ssh.quiet {
        let hosts = count(tally.done, "host");
        table::print(&match (tally.changed, manner.dry_run) {
            (changed, true) => format!("{hosts}: {changed} would be changed"),
            (0, false) => format!("{hosts}: nothing was there"),
            (_, false) => format!("{hosts} out of the fleet"),
        })?;
    }
    Ok(tally.exit())
}
