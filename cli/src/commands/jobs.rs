//! `fleetpool jobs`.

use clap::Args;
use fleetpool_proto::view::{Answer, JobView, Query};

use super::{ask, odd};
use crate::{
    failure::Failure,
    output::table::{self, Listed},
    target::ClusterArgs,
};

/// List the jobs that run, and detached ones that have ended: whose they are, their slots and how far they are
#[derive(Args, Debug)]
pub(crate) struct JobsArgs {
    /// An array of objects
    #[arg(long)]
    json: bool,
}

/// Lists jobs.
///
/// # Errors
/// When there is no cluster to ask.
pub(crate) async fn run(args: JobsArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let cluster = cluster.target()?.connect().await?;
    match ask(&cluster, Query::Jobs).await? {
        Answer::Jobs(jobs) => table::list(&jobs, args.json),
        answer => Err(odd(&answer)),
    }
}

impl Listed for JobView {
    const COLUMNS: &'static [&'static str] = &[
        "JOB", "NAME", "USER", "STATE", "RUNTIME", "SLOTS", "QUEUED", "GRANTED", "ENDED", "FAILED",
    ];

    fn row(&self) -> Vec<String> {
        let of = self
            .slots
            .map_or_else(|| "all".to_owned(), |slots| slots.to_string());
        vec![
            self.id.0.to_string(),
            self.name.clone(),
            self.user.clone(),
            match self.detached {
                true => format!("{}, detached", self.state),
                false => self.state.clone(),
            },
            self.runtime.clone(),
            format!("{}/{of}", self.allotted),
            self.queued.to_string(),
            self.granted.to_string(),
            self.ended.to_string(),
            self.failed.to_string(),
        ]
    }
}
