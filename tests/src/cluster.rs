//! A real cluster on loopback: a coordinator and agents as processes of the built binary, joined by token.
//!
//! Everything lives in a temporary folder and is ended when the [`Cluster`] is dropped.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::port;

/// How long anything may take that is waited for here.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// A coordinator and its agents.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    coordinator: Child,
    options: Vec<String>,
    agents: Vec<Child>,
    /// What agents' tasks outlive them below.
    spawners: Vec<Child>,
    folder: TempDir,
}

impl Cluster {
    /// A coordinator and so many agents (`a1`, `a2`, …) of so many slots each, all of them up.
    ///
    /// # Panics
    /// When it does not come up; the logs are shown.
    #[must_use]
    pub fn start(agents: usize, slots: u16) -> Self {
        Self::bare().with_agents(agents, slots)
    }

    /// The same, with a lease of its own, so that a test can wait until a dead host's tasks are given to others.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_with_lease(agents: usize, slots: u16, lease: &str) -> Self {
        Self::coordinator(&["--lease", lease]).with_agents(agents, slots)
    }

    fn with_agents(self, agents: usize, slots: u16) -> Self {
        let mut cluster = self;
        for number in 1..=agents {
            cluster.add_agent(&format!("a{number}"), slots);
        }
        cluster.await_hosts(agents);
        cluster
    }

    /// A coordinator alone.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn bare() -> Self {
        Self::coordinator(&[])
    }

    /// The same, at an address that is not loopback's.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn bare_at(listen: &str) -> Self {
        Self::coordinator_at(listen, &[], &[])
    }

    /// The same on loopback, with options and variables of its own.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn bare_with(options: &[&str], variables: &[(&str, PathBuf)]) -> Self {
        Self::coordinator_at(&port::lasting().to_string(), options, variables)
    }

    /// The same on loopback; `prepare` is given the folder that `init` made for the coordinator, before that one starts.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn bare_on(prepare: impl FnOnce(&Path), options: &[&str]) -> Self {
        Self::prepared(&port::lasting().to_string(), options, &[], prepare)
    }

    fn coordinator(options: &[&str]) -> Self {
        Self::bare_with(options, &[])
    }

    fn coordinator_at(listen: &str, options: &[&str], variables: &[(&str, PathBuf)]) -> Self {
        Self::prepared(listen, options, variables, |_| ())
    }

    fn prepared(
        listen: &str,
        options: &[&str],
        variables: &[(&str, PathBuf)],
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let init = fleetpool(folder.path())
            .args(["init", "--name", "test"])
            .output()
            .expect("init starts");
        assert!(
            init.status.success(),
            "init: {}",
            String::from_utf8_lossy(&init.stderr)
        );
        prepare(&folder.path().join("identity/coordinator"));
        let coordinator = start_coordinator(folder.path(), listen, options, variables);
        let address = listens_on(&folder.path().join("coordinator.log"));
        let cluster = Self {
            address,
            coordinator,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            agents: Vec::new(),
            spawners: Vec::new(),
            folder,
        };
        cluster.until("the coordinator answers", |cluster| {
            cluster
                .client()
                .arg("status")
                .output()
                .is_ok_and(|output| output.status.success())
        });
        cluster
    }

    /// Kills the coordinator with SIGKILL, and waits for its end.
    ///
    /// # Panics
    /// When it has ended by itself.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.kill().expect("it runs");
        let status = self.coordinator.wait().expect("it is our child");
        assert_eq!(status.code(), None, "it ended by itself\n{}", self.logs());
    }

    /// Tells the coordinator to end, and waits until it has.
    ///
    /// # Panics
    /// When it does not, or not well.
    pub fn stop_coordinator(&mut self) {
        let pid = i32::try_from(self.coordinator_pid()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
        assert_eq!(self.coordinator_end(), Some(0), "{}", self.logs());
    }

    /// Starts another coordinator on the folder and port of the one that has ended, and waits until it listens.
    pub fn start_again(&mut self) {
        let address = self.address.to_string();
        self.coordinator = start_coordinator(self.folder.path(), &address, &self.options(), &[]);
        listens_on(&self.folder.path().join("coordinator.log"));
    }

    /// The same, which says all that it can say to a log of the caller's; is not waited for.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again_with_log(&mut self, log: impl Into<Stdio>) {
        let mut command = self.coordinator_again();
        command.env("FLEETPOOL_LOG", "trace").stderr(log);
        self.coordinator = command.spawn().expect("the coordinator starts");
    }

    /// Another coordinator as [`start_again`](Self::start_again) starts it, when it is to be seen what that one says.
    #[must_use]
    pub fn coordinator_again(&self) -> Command {
        let address = self.address.to_string();
        coordinator(self.folder.path(), &address, &self.options())
    }

    fn options(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }

    /// Joins another agent, which dials the coordinator.
    pub fn add_agent(&mut self, name: &str, slots: u16) {
        self.add_agent_by(self.address, name, slots);
    }

    /// The same, with variables of its own.
    pub fn add_agent_with(&mut self, name: &str, slots: u16, variables: &[(&str, PathBuf)]) {
        self.add(self.address, name, slots, variables);
    }

    /// The same, with options of its own; `wrapper` is started in its place, and becomes it.
    ///
    /// # Panics
    /// When no token can be had.
    pub fn add_agent_as(&mut self, wrapper: &[&str], name: &str, slots: u16, options: &[&str]) {
        let file = self.token_for(name);
        let mut agent = self.agent(self.address, name, slots);
        agent.args(options).arg("--token-file").arg(&file);
        if let [program, words @ ..] = wrapper {
            let mut wrapped = self.with_files_of(Command::new(program), name, name);
            wrapped.args(words).arg(agent.get_program());
            wrapped.args(agent.get_args());
            agent = wrapped;
        }
        self.agents.push(agent.spawn().expect("the agent starts"));
    }

    /// Starts an agent again that has ended.
    ///
    /// # Panics
    /// When it runs.
    pub fn start_agent_again(&mut self, number: usize, name: &str, slots: u16) {
        let mut next = self.agent(self.address, name, slots);
        let agent = &mut self.agents[number];
        agent.wait().expect("it is our child");
        *agent = next.spawn().expect("the agent starts");
    }

    /// The spawner that was started for the `number`-th of the agents that have one beside them, from 0.
    #[must_use]
    pub fn spawner_pid(&self, number: usize) -> u32 {
        self.spawners[number].id()
    }

    /// What an agent has said in its log.
    #[must_use]
    pub fn log_of(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Joins another agent, which dials `address`: the coordinator's, or a proxy's to it.
    ///
    /// # Panics
    /// When no token can be had.
    pub fn add_agent_by(&mut self, address: SocketAddr, name: &str, slots: u16) {
        self.add(address, name, slots, &[]);
    }

    fn add(&mut self, address: SocketAddr, name: &str, slots: u16, variables: &[(&str, PathBuf)]) {
        let file = self.token_for(name);
        let mut agent = self.agent(address, name, slots);
        let agent = agent.arg("--token-file").arg(&file);
        let agent = agent.envs(variables.iter().cloned()).spawn();
        self.agents.push(agent.expect("the agent starts"));
    }

    fn token_for(&self, name: &str) -> PathBuf {
        let token = self
            .client()
            .args(["token", "create"])
            .output()
            .expect("token starts");
        assert!(
            token.status.success(),
            "token: {}",
            String::from_utf8_lossy(&token.stderr)
        );
        let file = self.folder.path().join(format!("{name}.token"));
        fs::write(&file, &token.stdout).expect("writable");
        file
    }

    /// Joins another agent, whose tasks outlive it.
    ///
    /// # Panics
    /// When no token can be had.
    pub fn add_agent_with_spawner(&mut self, name: &str, slots: u16) {
        let mut spawner = self.of_agent(name, &format!("{name}.spawner"));
        let spawner = spawner.arg("spawner").spawn();
        self.spawners.push(spawner.expect("the spawner starts"));
        let file = self.token_for(name);
        let mut agent = self.agent(self.address, name, slots);
        agent.args(["--with-spawner", "--token-file"]).arg(&file);
        self.agents.push(agent.spawn().expect("the agent starts"));
    }

    /// Kills an agent, and starts another in its place that goes on with its tasks.
    ///
    /// # Panics
    /// When it does not start.
    pub fn replace_agent(&mut self, number: usize, name: &str, slots: u16) {
        let mut next = self.agent(self.address, name, slots);
        next.arg("--with-spawner");
        let agent = &mut self.agents[number];
        // It may have ended by itself.
        agent.kill().ok();
        agent.wait().expect("it has ended");
        *agent = next.spawn().expect("the agent starts");
    }

    fn agent(&self, address: SocketAddr, name: &str, slots: u16) -> Command {
        let mut command = self.of_agent(name, name);
        let (address, slots) = (address.to_string(), slots.to_string());
        command.args(["agent", "--coordinator", &address]);
        command.args(["--name", name, "--slots", &slots]);
        command
    }

    /// The `fleetpool` command with an agent's files, and a log of its own.
    fn of_agent(&self, name: &str, logged_as: &str) -> Command {
        self.with_files_of(Command::new(built("fleetpool")), name, logged_as)
    }

    fn with_files_of(&self, mut command: Command, name: &str, logged_as: &str) -> Command {
        let folder = self.folder.path();
        command
            .env("FLEETPOOL_IDENTITY", folder.join(name))
            .env("XDG_CONFIG_HOME", folder.join(name))
            .stdin(Stdio::null())
            .stdout(log(folder, &format!("{logged_as}.out")))
            .stderr(log(folder, &format!("{logged_as}.log")));
        command
    }

    /// Waits until so many hosts are up.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn await_hosts(&self, hosts: usize) {
        self.until("all agents are up", |cluster| {
            let output = cluster
                .client()
                .args(["hosts", "--json"])
                .output()
                .expect("hosts starts");
            let listed: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let up = listed
                .as_array()
                .into_iter()
                .flatten()
                .filter(|host| host["state"] == "up");
            up.count() == hosts
        });
    }

    /// Lets a command be a client of this cluster.
    pub fn point<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("FLEETPOOL_CLUSTER", self.address.to_string())
            .env("FLEETPOOL_IDENTITY", self.folder.path().join("identity"))
    }

    /// The `fleetpool` command, as a client of this cluster.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut command = fleetpool(self.folder.path());
        self.point(&mut command);
        command
    }

    /// Where the coordinator listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its files are: the admin's identity in `identity`, each agent's in a folder of its name.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the coordinator has written to its log.
    #[must_use]
    pub fn coordinator_log(&self) -> String {
        // Before it has begun there is none.
        fs::read_to_string(self.folder().join("coordinator.log")).unwrap_or_default()
    }

    /// Waits until the coordinator has ended by itself, or by what it was told; its exit code.
    ///
    /// # Panics
    /// When it does not end in time; the logs are shown.
    pub fn coordinator_end(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.coordinator.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the coordinator does not end\n{}",
                self.logs()
            );
            sleep(PAUSE);
        }
    }

    /// The coordinator's process.
    #[must_use]
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.id()
    }

    /// The process of the agent that was added as the `number`-th, from 0.
    #[must_use]
    pub fn agent_pid(&self, number: usize) -> u32 {
        self.agents[number].id()
    }

    /// Waits for a condition.
    ///
    /// # Panics
    /// When it does not come true in time; the logs are shown.
    pub fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain: {what}\n{}",
                self.logs()
            );
            sleep(PAUSE);
        }
    }

    fn logs(&self) -> String {
        let entries = fs::read_dir(self.folder.path())
            .into_iter()
            .flatten()
            .flatten();
        let logs = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == "log"));
        logs.map(|path| {
            format!(
                "--- {}\n{}",
                path.display(),
                fs::read_to_string(&path).unwrap_or_default()
            )
        })
        .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let below = self.agents.iter_mut().chain(&mut self.spawners);
        for process in below.chain([&mut self.coordinator]) {
            // It may have ended by itself, which is as good.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// A program that Cargo has built beside the one that runs: `fleetpool`, `examples/map`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    let profile = this.ancestors().nth(2).expect("target/PROFILE/deps/this");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `make build`, or `make test`",
        path.display()
    );
    path
}

fn coordinator(folder: &Path, address: &str, options: &[&str]) -> Command {
    let mut command = fleetpool(folder);
    command.args(["coordinator", "--listen", address]);
    command.args(options);
    command
}

fn start_coordinator(
    folder: &Path,
    address: &str,
    options: &[&str],
    variables: &[(&str, PathBuf)],
) -> Child {
    coordinator(folder, address, options)
        .envs(variables.iter().cloned())
        .stdout(log(folder, "coordinator.out"))
        .stderr(log(folder, "coordinator.log"))
        .spawn()
        .expect("the coordinator starts")
}

/// The `fleetpool` command with its files in `folder` and no settings from elsewhere.
fn fleetpool(folder: &Path) -> Command {
    let mut command = Command::new(built("fleetpool"));
    command
        .env("FLEETPOOL_IDENTITY", folder.join("identity"))
        .env("XDG_CONFIG_HOME", folder)
        .env_remove("FLEETPOOL_CLUSTER")
        .stdin(Stdio::null());
    command
}

fn log(folder: &Path, name: &str) -> Stdio {
    fs::File::create(folder.join(name))
        .expect("writable")
        .into()
}

/// Where a coordinator says in its log that it listens.
fn listens_on(log: &Path) -> SocketAddr {
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let said = text
            .split_once(" listens on ")
            .and_then(|(_, rest)| rest.split_once('\n'));
        if let Some(address) = said.and_then(|(address, _)| address.trim().parse().ok()) {
            return address;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "the coordinator does not say where it listens:\n{text}"
        );
        sleep(PAUSE);
    }
}
