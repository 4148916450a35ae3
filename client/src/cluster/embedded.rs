//! A whole cluster inside this process: coordinator, agent and session on one thread, no ports and no files.

use std::{
    future::Future, num::NonZero, path::PathBuf, pin::Pin, thread::available_parallelism,
    time::Duration,
};

use fleetpool_agent::Link;
use fleetpool_coordinator as coordinator;
use fleetpool_net::{Peer, Session, local_pair};
use fleetpool_proto::{
    Role,
    limits::SLOTS_MAX,
    pool::ContentHash,
    version::{Hello, Welcome},
};
use tokio::{task::JoinHandle, time::timeout};

use super::{error::Error, handle::Cluster, thread::Thread};
use crate::{park, program::Program};

/// Agent and coordinator live and die together here, so no lease needs to run out.
const LEASE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// How long the end of all tasks is waited for: twice what an agent promises.
const FAREWELL_MAX: Duration = Duration::from_secs(4);

impl Cluster {
    /// A cluster of this machine alone, with this many slots (default: the processors that this process may use). It
    /// is gone, with everything that runs in it, when the last handle is dropped.
    ///
    /// The program must begin with [`fleetpool::init`](crate::init) or the agent's own
    /// [`run_if_asked`](fleetpool_agent::run_if_asked): it is started again as the agent's helper.
    ///
    /// # Errors
    /// When this machine has no room for another thread or process.
    pub fn embedded(slots: Option<u16>) -> Result<Self, Error> {
        Self::embed(slots, Helper::from(program()?))
    }

    /// The same, in a program that is not to be started again: its helper is `spawner`, whose `main` begins with
    /// [`run_if_asked`](fleetpool_agent::run_if_asked).
    ///
    /// # Errors
    /// When this machine has no room for another thread or process.
    pub fn embedded_with(slots: Option<u16>, spawner: PathBuf) -> Result<Self, Error> {
        let programs = Vec::new();
        Self::embed(slots, Helper { spawner, programs })
    }

    fn embed(slots: Option<u16>, helper: Helper) -> Result<Self, Error> {
        let (thread, ready) = Thread::start(embed(slots, helper)).map_err(no_thread)?;
        let ended = |_| Error::Start {
            reason: "its thread has ended".to_owned(),
        };
        let (session, welcome) = park::block_on(ready).map_err(ended)??;
        let runtime = thread.runtime().clone();
        Ok(Self::start(session, welcome, None, runtime, Some(thread)))
    }

    /// The same, but on the tokio runtime that this is called on instead of a thread of its own: whatever happens to
    /// a task then wakes one thread and not two. For programs that never block that runtime.
    ///
    /// When the last handle is dropped, the [`Farewell`] ends what still runs.
    ///
    /// # Errors
    /// When this machine has no room for another process.
    pub async fn embedded_here(slots: Option<u16>) -> Result<(Self, Farewell), Error> {
        let helper = Helper::from(program()?);
        let ((session, welcome), farewell) = embed(slots, helper).await?;
        Ok((Self::over(session, welcome), Farewell::new(farewell)))
    }
}

/// What the agent starts: its spawner, and programs that it need not ask for.
struct Helper {
    spawner: PathBuf,
    programs: Vec<(ContentHash, PathBuf)>,
}

impl From<Program> for Helper {
    /// The program is its own helper, and its own workers.
    fn from(Program { path, hash, .. }: Program) -> Self {
        Self {
            spawner: path.clone(),
            programs: vec![(hash, path)],
        }
    }
}

/// The end of a cluster that lives on its user's runtime.
pub struct Farewell(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Farewell {
    pub(super) fn new(farewell: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(farewell))
    }

    /// Ends all that still runs in the cluster, and waits until it is gone.
    pub async fn wait(self) {
        self.0.await;
    }
}

impl std::fmt::Debug for Farewell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Farewell")
    }
}

fn program() -> Result<Program, Error> {
    Program::local().map_err(|error| Error::Start {
        reason: format!("cannot look at this program's file: {error}; is /proc mounted?"),
    })
}

pub(super) fn no_thread(error: std::io::Error) -> Error {
    Error::Start {
        reason: format!("no thread can be started: {error}"),
    }
}

fn processors() -> u16 {
    let processors = available_parallelism().map_or(1, NonZero::get);
    u16::try_from(processors).unwrap_or(u16::MAX)
}

/// Starts everything on the current runtime. The future beside the session ends it all.
async fn embed(
    slots: Option<u16>,
    helper: Helper,
) -> Result<((Session, Welcome), impl Future<Output = ()> + Send), Error> {
    let slots = slots.unwrap_or_else(processors).clamp(1, SLOTS_MAX);
    let head = coordinator::start(coordinator::Options {
        lease: LEASE,
        ..coordinator::Options::default()
    });
    let name = host_name();
    let (session, welcome) = attach(&head, Role::Agent, &name).await?;
    let mut options = fleetpool_agent::Options::new(name, slots, helper.spawner);
    options.local_programs = helper.programs;
    let link = Link::Session(Box::new(session), welcome);
    let agent = tokio::spawn(run_agent(options, link, head.clone()));
    let client = attach_client(&head).await?;
    Ok((client, farewell(head, agent)))
}

/// An agent that cannot go on takes the cluster with it, so that nobody waits for it.
async fn run_agent(options: fleetpool_agent::Options, link: Link, head: coordinator::Handle) {
    if let Err(error) = fleetpool_agent::run(options, link).await {
        head.stop(&error.to_string()).await;
    }
}

async fn farewell(head: coordinator::Handle, agent: JoinHandle<()>) {
    head.stop("the client is done").await;
    if timeout(FAREWELL_MAX, agent).await.is_err() {
        tracing::warn!(
            "the tasks of the embedded cluster do not end; its spawner goes on killing them"
        );
    }
}

/// The session of this process's own client.
pub(super) async fn attach_client(head: &coordinator::Handle) -> Result<(Session, Welcome), Error> {
    attach(head, Role::Admin, &user_name()).await
}

async fn attach(
    head: &coordinator::Handle,
    role: Role,
    name: &str,
) -> Result<(Session, Welcome), Error> {
    let (ours, theirs) = local_pair(
        Peer::local(role, name),
        Peer::local(Role::Coordinator, "local"),
    );
    let attached = head.attach(theirs, Hello::new(role, name)).await;
    let welcome = attached.map_err(|refused| Error::Start {
        reason: refused.reason,
    })?;
    Ok((ours, welcome))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// What this user is called where sessions are listed.
pub(super) fn user_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let name = user.ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| format!("uid-{}", nix::unistd::geteuid()))
}
