//! `fleetpool attach` and `fleetpool logs`: detached jobs, seen from the first line.

use clap::Args;
use fleetpool_proto::{
    PoolId,
    view::{Answer, Query},
};

use super::{ask, cancel, odd};
use crate::{
    failure::{Exit, Failure},
    output::{Style, TagStyle},
    run::{self, Attached, Explain, Keep, Recorder},
    target::ClusterArgs,
};

/// Watch a detached job as if it had been started here: all that its tasks have printed, then what they print
///
/// Ctrl-C leaves it to itself again. The exit status is the one that its run would have had.
#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    view: ViewArgs,
}

/// The same for `logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Wait for what is to come, until the job ends (the same as `attach`)
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    view: ViewArgs,
}

#[derive(Args, Debug)]
struct ViewArgs {
    /// Put the host in front of each line
    #[arg(long)]
    tag: bool,
    /// Print each line as it came, not a task's output when it ended
    #[arg(long, visible_alias = "lb", conflicts_with = "json")]
    line_buffer: bool,
    /// Print an object a task: index host pid attempt start runtime exit signal outcome stdout stderr
    #[arg(long)]
    json: bool,
    /// Say nothing but what tasks say
    #[arg(short, long)]
    quiet: bool,
    /// Its number, as `fleetpool jobs` lists it
    #[arg(value_name = "JOB", value_parser = cancel::job)]
    job: u64,
}

/// Watches a job to its end.
///
/// # Errors
/// When there is no such job, or it is somebody else's.
pub(crate) async fn run(args: AttachArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    show(args.view, true, cluster).await
}

/// Prints what there is.
///
/// # Errors
/// As for [`run`].
pub(crate) async fn logs(args: LogsArgs, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let shown = show(args.view, args.follow, cluster).await;
    match shown {
        // How the tasks ended is not how printing went.
        Ok(Exit::Failed(_)) if !args.follow => Ok(Exit::Success),
        shown => shown,
    }
}

async fn show(args: ViewArgs, follow: bool, cluster: &ClusterArgs) -> Result<Exit, Failure> {
    let cluster = cluster.target()?.connect_remote("a detached job").await?;
    let jobs = match ask(&cluster, Query::Jobs).await? {
        Answer::Jobs(jobs) => jobs,
        answer => return Err(odd(&answer)),
    };
    let pool = PoolId(args.job);
    let name = jobs.into_iter().find(|job| job.id == pool);
    let attached = Attached {
        cluster,
        pool,
        name: name.map(|job| job.name).unwrap_or_default(),
        follow,
        recorder: args.recorder(follow),
    };
    run::attach(attached).await
}

impl ViewArgs {
    fn recorder(&self, follow: bool) -> Recorder {
        let style = match (self.json, self.line_buffer || !follow) {
            (true, _) => Style::Json,
            // What has not ended is to be seen too.
            (_, true) => Style::Lines,
            _ => Style::Grouped,
        };
        let tags = match self.tag && !self.json {
            true => TagStyle::Host,
            false => TagStyle::None,
        };
        let keep = Keep {
            joblog: None,
            results: None,
            explain: Explain::Failures,
            quiet: self.quiet,
        };
        Recorder::new(style, tags, false, keep)
    }
}
