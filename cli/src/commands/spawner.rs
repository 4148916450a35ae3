//! `fleetpool spawner`: what an agent's tasks run below, where they are to outlive the agent.

use std::{convert::Infallible, path::Path, time::Duration};

use clap::Args;

use crate::{
    duration,
    failure::{Exit, Failure},
    target::ClusterArgs,
};

/// This very program; this name is right even when the file has been replaced.
const PROGRAM: &str = "/proc/self/exe";

/// Keep an agent's tasks running while the agent is restarted or replaced
///
/// It listens in the folder of the agent's identity, for an agent of the same user that was started with --with-spawner. When
/// that agent ends, in whatever way, its tasks go on and wait for the next one, for a bounded time; then they are ended. They
/// are also ended with this process. The agent's lease holds all the while.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  fleetpool spawner --outlive 10m &\n  fleetpool agent --with-spawner --coordinator head:7700"
)]
pub(crate) struct SpawnerArgs {
    /// How long tasks wait for another agent
    #[arg(long, value_name = "DUR", value_parser = duration::parse, default_value = "5m")]
    outlive: Duration,
    /// Only see whether an agent of this version could go on with all that runs below the spawner that is there: exit status
    /// 0 or 1
    #[arg(long)]
    check: bool,
}

/// Becomes the spawner.
///
/// # Errors
/// When it cannot, and as the answer of `--check`.
pub(crate) fn run(args: &SpawnerArgs, cluster: &ClusterArgs) -> Result<Infallible, Failure> {
    let dir = cluster.agent_dir()?;
    if args.check {
        return Err(check(&dir));
    }
    let error = fleetpool_agent::serve_spawner(Path::new(PROGRAM), &dir, args.outlive);
    Err(Failure::fleetpool(format!(
        "cannot become the spawner: {error}"
    )))
}

fn check(dir: &Path) -> Failure {
    let no = |why: String| Failure::new(Exit::Failed(1), why);
    match fleetpool_agent::look_at_spawner(dir) {
        Err(error) => no(format!("no spawner listens in {}: {error}", dir.display())),
        Ok(spawner) if !spawner.is_known => no("the spawner is of another version".to_owned()),
        Ok(spawner) if spawner.has_bound => {
            no("workers run there that would end with their agent".to_owned())
        }
        Ok(_) => Failure::new(Exit::Success, String::new()),
    }
}
