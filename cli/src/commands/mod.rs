//! The verbs, one file each.

pub(crate) mod agent;
pub(crate) mod attach;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod coordinator;
mod copy;
pub(crate) mod cordon;
pub(crate) mod deploy;
pub(crate) mod drain;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod hosts;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod jobs;
pub(crate) mod map;
pub(crate) mod put;
mod rollout;
pub(crate) mod run;
pub(crate) mod spawner;
pub(crate) mod status;
pub(crate) mod tasks;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod undeploy;
pub(crate) mod upgrade;

use std::io::{self, IsTerminal as _, Write as _};

use fleetpool::cluster::Cluster;
use fleetpool_proto::view::{Answer, Query};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::{
    args::{Cli, Verb},
    failure::{Exit, Failure},
};

/// Does what the command line says.
///
/// # Errors
/// When that does not work; tasks that fail are an exit status.
pub(crate) async fn run(cli: Cli) -> Result<Exit, Failure> {
    let cluster = cli.cluster;
    match cli.verb {
        Verb::Map(args) => map::run(*args, &cluster).await,
        Verb::Exec(args) => exec::run(*args, &cluster).await,
        Verb::Put(args) => put::run(args, &cluster).await,
        Verb::Get(args) => get::run(args, &cluster).await,
        Verb::Run(args) => run::run(&args, &cluster).map(|never| match never {}),
        Verb::Hosts(args) => hosts::run(args, &cluster).await,
        Verb::Jobs(args) => jobs::run(args, &cluster).await.map(done),
        Verb::Status(args) => status::run(args, &cluster).await.map(done),
        Verb::Explain(args) => explain::run(args, &cluster).await.map(done),
        Verb::Attach(args) => attach::run(args, &cluster).await,
        Verb::Logs(args) => attach::logs(args, &cluster).await,
        Verb::Top(args) => top::run(args, &cluster).await.map(done),
        Verb::Cancel(args) => cancel::run(args, &cluster).await.map(done),
        Verb::Cordon(args) => cordon::run(args, true, &cluster).await.map(done),
        Verb::Uncordon(args) => cordon::run(args, false, &cluster).await.map(done),
        Verb::Drain(args) => drain::run(args, &cluster).await,
        Verb::Deploy(args) => deploy::run(args, &cluster).await,
        Verb::Upgrade(args) => upgrade::run(args, &cluster).await,
        Verb::Undeploy(args) => undeploy::run(args, &cluster).await,
        Verb::Init(args) => init::run(&args, &cluster).map(done),
        Verb::Coordinator(args) => coordinator::run(args, &cluster).await.map(done),
        Verb::Agent(args) => agent::run(args, &cluster).await.map(done),
        Verb::Spawner(args) => spawner::run(&args, &cluster).map(|never| match never {}),
        Verb::Token(verb) => token::run(verb, &cluster).await.map(done),
        Verb::Identity(verb) => identity::run(verb, &cluster).await.map(done),
        Verb::Completions(args) => completions::run(&args).map(done),
    }
}

fn done((): ()) -> Exit {
    Exit::Success
}

/// Asks the coordinator; a refusal is a failure.
///
/// # Errors
/// When it refuses, or the session is lost.
async fn ask(cluster: &Cluster, query: Query) -> Result<Answer, Failure> {
    match cluster.ask(query).await.map_err(Failure::fleetpool)? {
        Answer::Refused { reason } => Err(Failure::fleetpool(reason)),
        answer => Ok(answer),
    }
}

/// The coordinator answered another question than was asked.
fn odd(answer: &Answer) -> Failure {
    Failure::fleetpool(format!(
        "the coordinator answered something else ({answer:?}): is it of another version?"
    ))
}

/// Lines of the log that wait for a reader who is slow; those beyond are left out. Who serves others waits for no such reader.
const LOG_LINES_MAX: usize = 4096;

/// What a verb that stays says, on stderr. What waits of it is written when this is dropped.
struct Log {
    stderr: NonBlocking,
    _writes: WorkerGuard,
}

impl Log {
    /// Turns it on: `info` and above, unless `$FLEETPOOL_LOG` says otherwise.
    fn start() -> Self {
        let filter = tracing_subscriber::EnvFilter::try_from_env("FLEETPOOL_LOG");
        let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        let (stderr, writes) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES_MAX)
            .thread_name("log")
            .finish(io::stderr());
        let logger = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(stderr.clone());
        // Only one can be set, and only this one is.
        let _ = logger.with_ansi(io::stderr().is_terminal()).try_init();
        Self {
            stderr,
            _writes: writes,
        }
    }

    /// Says something at every level.
    fn say(&self, text: &str) {
        let line = format!("fleetpool: {text}\n");
        // A full one takes nothing.
        let _ = self.stderr.clone().write_all(line.as_bytes());
    }
}
