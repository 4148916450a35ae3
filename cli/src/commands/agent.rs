//! `fleetpool agent`: offers this host's slots to a cluster.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use fleetpool_agent::{Link, Options, TaskLimits};
use fleetpool_net::{Address, Identity, Token, join};
use fleetpool_proto::{Role, limits::SLOTS_MAX};

use super::token::label;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    failure::{Exit, Failure},
    run::Signals,
    size,
    target::ClusterArgs,
};

/// How long `--check` waits for the coordinator's answer.
const REACHED_TIME_MAX: Duration = Duration::from_secs(3);

/// Started again as the agent's spawner; this name is right even when the file has been replaced.
const PROGRAM: &str = "/proc/self/exe";

/// Offer this host's slots to a cluster
///
/// The first time it needs a token, which it turns into an identity of its own; after that the identity is enough. It
/// connects again whenever the connection breaks.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  fleetpool agent --coordinator head:7700 --token-file token\n  fleetpool agent --coordinator head:7700 --slots 8 --label role=web --label rack=3"
)]
pub(crate) struct AgentArgs {
    /// Where the coordinator is: HOST:PORT or unix:/PATH
    #[arg(long, value_name = "ADDR", required_unless_present = "stdio")]
    coordinator: Option<Address>,
    /// Serve a coordinator at the other end of standard input and output, and end with it
    #[arg(long, conflicts_with_all = ["coordinator", "token_file"])]
    stdio: bool,
    /// Tasks that may run here at once [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SLOTS_MAX)))]
    slots: Option<u16>,
    /// Label to be selected by (repeatable)
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(String, String)>,
    /// File with a join token, `-` for stdin; needed the first time
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Run tasks below `fleetpool spawner`, started with the same identity: they outlive this agent, and the next one goes on
    /// with them
    #[arg(long, conflicts_with = "stdio")]
    with_spawner: bool,
    /// The coordinator's address is the near end of a tunnel over ssh: `fleetpool hosts` shows it as connected by ssh
    #[arg(long)]
    tunnelled: bool,
    /// Listen nowhere: get content from the coordinator alone, and pass none on to other agents
    #[arg(long)]
    no_pass_on: bool,
    /// Only see whether the coordinator can be reached by TCP: exit status 0 or 1
    #[arg(long, conflicts_with = "stdio")]
    check: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// The host's name in the fleet [default: its hostname]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// What one task may take of its host.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LimitArgs {
    /// Processes and threads that a task may have at once [default: 15 % of what the kernel allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) task_pids: Option<u64>,
    /// Memory that a task may take (512M, 2G); one that needs more is ended as out of memory [default: what is not reserved for the
    /// host, all tasks together]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) task_memory: Option<u64>,
}

/// Serves until it is stopped.
///
/// # Errors
/// When it may not join, or cannot start processes.
pub(crate) async fn run(args: AgentArgs, cluster: &ClusterArgs) -> Result<(), Failure> {
    let _log = super::Log::start();
    let name = args.name.clone().map_or_else(hostname, Ok)?;
    let options = args.options(name);
    let Some(address) = &args.coordinator else {
        let served = fleetpool_agent::serve_stdio(options).await;
        return served.map_err(Failure::fleetpool);
    };
    if args.check {
        return check(address).await;
    }
    let dir = cluster.agent_dir()?;
    let identity = match address {
        Address::Unix(_) => None,
        Address::Tcp(_) => Some(args.identity(address, &dir, &options.name).await?),
    };
    let options = Options {
        cache_dir: Some(dir.join("programs")),
        state_dir: Some(dir),
        spawner_is_service: args.with_spawner,
        ..options
    };
    let link = Link::Dial {
        address: address.clone(),
        identity: identity.map(Box::new),
    };
    let mut signals = Signals::listen().map_err(Failure::fleetpool)?;
    let what = match args.with_spawner {
        true => "what its spawner keeps goes on, and waits for the next agent",
        false => "what runs here ends with the agent",
    };
    let stop = async move {
        let signal = signals.next().await;
        tracing::info!(%signal, "stopping: {what}");
    };
    fleetpool_agent::run_until(options, link, stop)
        .await
        .map_err(Failure::fleetpool)
}

impl AgentArgs {
    /// An agent that keeps nothing on disk.
    fn options(&self, name: String) -> Options {
        let mut labels = self.labels.clone();
        labels.sort();
        Options {
            labels,
            tunnelled: self.tunnelled,
            passes_on: !self.no_pass_on,
            limits: Some(TaskLimits {
                pids: self.limits.task_pids,
                memory: self.limits.task_memory,
            }),
            ..Options::new(name, self.slots.unwrap_or_else(processors), PROGRAM)
        }
    }

    /// The identity of `dir`; one joined for with the token when there is none.
    async fn identity(
        &self,
        address: &Address,
        dir: &Path,
        name: &str,
    ) -> Result<Identity, Failure> {
        if dir.join("cert.pem").exists() {
            return Identity::load(dir).map_err(Failure::fleetpool);
        }
        let Some(file) = &self.token_file else {
            return Err(Failure::usage(format!(
                "this agent has no identity in {} yet: give it a token with --token-file (an admin makes one with `fleetpool token create`)",
                dir.display()
            )));
        };
        let token: Token = read_token(file)?.trim().parse().map_err(Failure::usage)?;
        let identity = join(address, &token, Role::Agent, name)
            .await
            .map_err(Failure::fleetpool)?;
        identity.save(dir).map_err(Failure::fleetpool)?;
        Ok(identity)
    }
}

/// Whether anybody listens there.
async fn check(address: &Address) -> Result<(), Failure> {
    let reached = match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
        Address::Tcp(at) => timeout(REACHED_TIME_MAX, TcpStream::connect(at))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map(drop),
    };
    reached.map_err(|error| {
        Failure::new(
            Exit::Failed(1),
            format!("cannot reach {address} by TCP: {error}"),
        )
    })
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| {
        Failure::usage(format!(
            "cannot read the token file {}: {error}",
            file.display()
        ))
    })
}

fn hostname() -> Result<String, Failure> {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.ok_or_else(|| {
        Failure::usage("this host has no name that can be read: give it one with --name")
    })
}

fn processors() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors)
        .unwrap_or(SLOTS_MAX)
        .min(SLOTS_MAX)
}
