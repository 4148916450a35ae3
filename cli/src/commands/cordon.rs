//! `fleetpool cordon` and `fleetpool uncordon`.

use clap::Args;
use fleetpool::cluster::Cluster;
use fleetpool_proto::{selector::Selector, view::Query};

use super::{
    ask,
    hosts::{On, select},
};
use crate::{failure::Failure, target::ClusterArgs};

/// Options of both verbs.
#[derive(Args, Debug)]
pub(crate) struct CordonArgs {
    /// Its name, as `fleetpool hosts` lists it; or several by a nodeset (web[01-40]), @group or label=value
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
}

/// Keeps new tasks away from hosts, or lets them come.
///
/// # Errors
/// When there is no such host, or this client may not.
pub(crate) async fn run(args: CordonArgs, on: bool, cluster: &ClusterArgs) -> Result<(), Failure> {
    let given = args.hosts.into_iter().map(On::read);
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let cluster = cluster.target()?.connect_remote("cordoning a host").await?;
    for hosts in given {
        for host in names(&cluster, hosts).await? {
            ask(&cluster, Query::Cordon { host, on }).await?;
        }
    }
    Ok(())
}

/// The name that was given, or those of the hosts that a selector matches.
async fn names(cluster: &Cluster, given: On) -> Result<Vec<String>, Failure> {
    let one = Selector::parse(&given.hosts).and_then(|selector| selector.names(1));
    if one.is_ok_and(|names| names == [given.hosts.as_str()]) {
        return Ok(vec![given.hosts]);
    }
    let hosts = select(cluster, &given).await?;
    Ok(hosts.into_iter().map(|host| host.name).collect())
}
