//! What a pool is to be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fleetpool_net::{Address, Identity};
pub use fleetpool_proto::pool::Retries;
use fleetpool_proto::{
    limits::SLOTS_MAX,
    pool::{Initializer, PoolOptions},
};

use crate::{
    call::{Core, dispatch, encode_one},
    cluster::Cluster,
    config::{self, Place},
    error::Error,
    groups,
    output::{Notes, Output, Printed, Printer},
    park,
    pool::Pool,
    program::Program,
    task::Task,
    worker,
};

/// Describes a pool; [`build`](Self::build) opens it.
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> Result<(), fleetpool::Error> {
/// let pool = fleetpool::Pool::builder()
///     .cluster("head:7700")
///     .processes(200)
///     .on("web[01-40]")
///     .timeout(Duration::from_secs(60))
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a pool is opened by build()"]
pub struct Builder {
    options: PoolOptions,
    cluster: Option<String>,
    hosts: Option<String>,
    identity: Option<PathBuf>,
    timeout: Duration,
    output: Output,
    /// What was described and cannot be.
    slip: Option<Error>,
}

impl Builder {
    /// Most tasks at once, over all hosts. Without it: as many as the cluster has slots, growing and shrinking with
    /// it; on an embedded cluster as many as this machine has processors.
    pub fn processes(mut self, processes: u32) -> Self {
        self.options.slots = Some(processes);
        self
    }

    /// The cluster: `host:port`, `unix:/path`, or `local` for one that is embedded in this process. Without it:
    /// `$FLEETPOOL_CLUSTER`, `$FLEETPOOL_HOSTS`, `cluster` in `~/.config/fleetpool/config.toml`, then an embedded one.
    pub fn cluster(mut self, address: impl Into<String>) -> Self {
        self.cluster = Some(address.into());
        self
    }

    /// In place of a cluster, hosts to make one of for as long as the pool lives: `web[01-08]`, `ada@web1`, `@rack1`. This
    /// program is brought to each over the user's own `ssh`, and started there as its agent. Hosts join as they come;
    /// one that cannot be had is told of as a warning, and the pool goes on without it.
    pub fn hosts(mut self, nodeset: impl Into<String>) -> Self {
        self.hosts = Some(nodeset.into());
        self
    }

    /// The folder of the identity to show the cluster. Without it: `$FLEETPOOL_IDENTITY`, then
    /// `~/.config/fleetpool/identity`.
    pub fn identity(mut self, folder: impl Into<PathBuf>) -> Self {
        self.identity = Some(folder.into());
        self
    }

    /// Which hosts may be used, by name or label: `web[01-40],!web03`, `@rack1`, `gpu=a100`. Without it: all. Groups are
    /// looked up by [`build`](Self::build), see [`groups`].
    pub fn on(mut self, selector: impl Into<String>) -> Self {
        self.options.on = selector.into();
        self
    }

    /// Runs `task` in every new worker before its first task. Where it panics, no worker starts and the pool is
    /// refused.
    pub fn initializer<T: Task>(mut self, task: T, argument: T::Input) -> Self {
        let _ = task;
        match encode_one::<T>(&argument) {
            Ok(argument) => {
                let function = T::NAME.to_owned();
                self.options.initializer = Some(Initializer { function, argument });
            }
            Err(message) => {
                let slip = format!("the initializer's argument cannot be sent: {message}");
                self.slip.get_or_insert(Error::Invalid(slip));
            }
        }
        self
    }

    /// Replaces a worker after this many tasks. Without it workers live as long as the pool.
    pub fn max_tasks_per_child(mut self, tasks: u32) -> Self {
        if tasks == 0 {
            let slip =
                "max_tasks_per_child(0) would never run a task: use 1 or more, or leave it out";
            self.slip.get_or_insert(Error::Invalid(slip.to_owned()));
        }
        self.options.tasks_per_worker_max = tasks;
        self
    }

    /// How often a task may run again, by what ended it. Without it: three times after its host was lost, never
    /// after its worker died or it failed.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.options.retries = retries;
        self
    }

    /// What the pool is called in `fleetpool jobs`. Without it: the program's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Sets a variable in the environment of the pool's workers.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.env.push((name.into(), Some(value.into())));
        self
    }

    /// The folder of the pool's workers. Without it, on an embedded cluster: this process's own.
    pub fn cwd(mut self, folder: impl AsRef<Path>) -> Self {
        self.options.cwd = Some(folder.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Kills every task of the pool that runs longer, with all its processes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Pools of a higher priority are served before others. Without it: 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.priority = priority;
        self
    }

    /// Gives what tasks print to `function`, on another thread, before the task's result is delivered. Without it,
    /// it goes to this process's own stdout and stderr.
    pub fn output(mut self, function: impl Fn(Printed) + Send + Sync + 'static) -> Self {
        self.output = Output::To(Arc::new(function));
        self
    }

    /// Opens the pool.
    ///
    /// # Errors
    /// When the description makes no sense, the cluster cannot be reached, [`init`](crate::init) was not called, or
    /// this is a task of another pool. What only the coordinator can know, such as that no host matches, is told by
    /// the first call.
    pub fn build(mut self) -> Result<Pool, Error> {
        self.check()?;
        self.options.on = groups::expand(&self.options.on)?.into_owned();
        if self.options.name.is_empty() {
            self.options.name = own_name();
        }
        let (cluster, program) =
            match Place::choose(self.cluster.as_deref(), self.hosts.as_deref())? {
                Place::At(address) => self.connect(&address)?,
                Place::Hosts(hosts) => gather_own(&hosts)?,
                Place::Here => self.embed()?,
            };
        self.options.runtime = program.runtime();
        let (on, slots) = (self.options.on.clone(), self.options.slots);
        let (submitter, events) = cluster.open(self.options)?;
        let core = Arc::new(Core::new(submitter, cluster.hosts(), self.timeout));
        core.limit(slots);
        let printer = Printer::new(self.output);
        let notes = Notes::to(|text| tracing::warn!("{text}"));
        cluster
            .runtime()
            .spawn(dispatch(Arc::clone(&core), events, printer, notes));
        Ok(Pool::new(core, cluster, on))
    }

    fn check(&mut self) -> Result<(), Error> {
        if worker::is_worker() {
            return Err(Error::Nested);
        }
        if !worker::is_initialised() {
            return Err(Error::NotInitialised);
        }
        check_processes(self.options.slots)?;
        self.slip.take().map_or(Ok(()), Err)
    }

    fn connect(&self, address: &str) -> Result<(Cluster, Program), Error> {
        let program = Program::remote().map_err(unread)?;
        let cluster = connect(address, self.identity.as_deref())?;
        cluster.offer(program.hash, program.path.clone());
        Ok((cluster, program))
    }

    fn embed(&mut self) -> Result<(Cluster, Program), Error> {
        let slots = self.options.slots.map(slots_of_host);
        let program = Program::local().map_err(|error| {
            Error::Invalid(format!("cannot look at this program's file: {error}"))
        })?;
        Ok((Cluster::embedded(slots)?, program))
    }
}

/// A session with the cluster at `address`, under the identity that was named or is found.
pub(crate) fn connect(address: &str, identity: Option<&Path>) -> Result<Cluster, Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::Invalid(error.to_string());
    let address: Address = address.parse().map_err(|error| invalid(&error))?;
    let identity = match address {
        Address::Unix(_) => None,
        Address::Tcp(_) => {
            let folder = config::identity(identity)?;
            Some(Identity::load(&folder).map_err(|error| invalid(&error))?)
        }
    };
    Ok(park::block_on(Cluster::connect(
        &address,
        identity.as_ref(),
    ))?)
}

/// This program's pool is served by this program's own agents.
fn gather_own(hosts: &str) -> Result<(Cluster, Program), Error> {
    let program = Program::remote().map_err(unread)?;
    let notes = Notes::to(|text| tracing::warn!("{text}"));
    let cluster = gather(hosts, &program.path, notes)?;
    Ok((cluster, program))
}

/// A cluster of those hosts, whose agents are the program of that file. Hosts that cannot be had are noted.
pub(crate) fn gather(hosts: &str, program: &Path, notes: Notes) -> Result<Cluster, Error> {
    let hosts = groups::destinations(hosts)?;
    let program = fleetpool_deploy::Program::of(program).map_err(unread)?;
    let (cluster, mut arrivals) = Cluster::ad_hoc(hosts, program)?;
    cluster.runtime().spawn(async move {
        while let Some(arrival) = arrivals.next().await {
            if let Some(text) = arrival.note() {
                notes.tell(text).await;
            }
        }
    });
    Ok(cluster)
}

fn unread(error: std::io::Error) -> Error {
    Error::Invalid(format!(
        "cannot read this program, to send it to hosts: {error}"
    ))
}

/// As many slots as one host can have.
pub(crate) fn slots_of_host(slots: u32) -> u16 {
    u16::try_from(slots).unwrap_or(SLOTS_MAX)
}

/// A pool of nothing is a slip, not a wish.
pub(crate) fn check_processes(processes: Option<u32>) -> Result<(), Error> {
    if processes == Some(0) {
        let slip = "a pool of 0 processes would never run a task: use 1 or more, or leave the number out for all slots";
        return Err(Error::Invalid(slip.to_owned()));
    }
    Ok(())
}

fn own_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
