//! `fleetpool cordon` and `fleetpool uncordon`.

use clap::Args;
use fleetpool_proto::view::Query;

use super::ask;
use crate::{failure::Failure, target::ClusterArgs};

/// Options of both verbs.
#[derive(Args, Debug)]
pub(crate) struct CordonArgs {
    /// Its name, as `fleetpool hosts` lists it
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
}

/// Keeps new tasks away from hosts, or lets them come.
///
/// # Errors
/// When there is no such host, or this client may not.
pub(crate) async fn run(args: CordonArgs, on: bool, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect_remote("cordoning a host").await?;
    for host in args.hosts {
        ask(&cluster, Query::Cordon { host, on }).await?;
    }
    Ok(())
}
