//! `fleetpool cancel`.

use clap::Args;
use fleetpool_proto::{PoolId, view::Query};

use super::ask;
use crate::{failure::Failure, target::ClusterArgs};

/// End jobs: what runs of them is killed, the rest does not start; what is kept of ended ones goes
#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// Its number, as `fleetpool jobs` lists it
    #[arg(value_name = "JOB", required = true, value_parser = job)]
    jobs: Vec<u64>,
}

/// Ends jobs.
///
/// # Errors
/// When there is no such job, or it is somebody else's.
pub(crate) async fn run(args: CancelArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect_remote("cancelling a job").await?;
    for job in args.jobs {
        ask(&cluster, Query::CancelJob { pool: PoolId(job) }).await?;
    }
    Ok(())
}

/// `17`, or `p17` as logs write it.
pub(super) fn job(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('p').unwrap_or(text).parse();
    number.map_err(|_| "a job is a number, as `fleetpool jobs` lists it".to_owned())
}
