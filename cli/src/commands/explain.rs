//! `fleetpool explain`.

use clap::Args;
use fleetpool_proto::{
    PoolId,
    view::{Answer, Query},
};

use super::{ask, cancel, odd};
use crate::{failure::Failure, output::table, target::ClusterArgs};

/// Say what a job's tasks wait for
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// An array of sentences
    #[arg(long)]
    json: bool,
    /// Its number, as `fleetpool jobs` lists it
    #[arg(value_name = "JOB", value_parser = cancel::job)]
    job: u64,
}

/// Explains.
///
/// # Errors
/// When there is no such job.
pub(crate) async fn run(args: ExplainArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect_remote("explaining a job").await?;
    let pool = PoolId(args.job);
    match ask(&cluster, Query::Explain { pool }).await? {
        Answer::Lines(lines) if args.json => {
            let text = serde_json::to_vec(&lines).map_err(Failure::fleetpool)?;
            table::print_bytes(&text)
        }
        Answer::Lines(lines) => lines
            .iter()
            .try_for_each(|line| table::print_bytes(line.as_bytes())),
        answer => Err(odd(&answer)),
    }
}
