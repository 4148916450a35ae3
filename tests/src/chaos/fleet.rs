//! The processes of a run: a coordinator, hosts behind lines that can be cut, and clients.

use std::{
    fs::{self, File},
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

use super::{
    Kind, Options, end_file,
    notes::{NEMESIS, Note, Notes},
};
use crate::{line::Line, port, way::Quality};

/// Every process below a host, and every client, has this in its environment.
const MARK: &str = "FLEETPOOL_CHAOS";
/// Short, so that much happens in little time.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// Hosts and their slots. Those with a spawner keep their commands when their agent is killed.
const SLOTS: u16 = 4;
const HOSTS: [(&str, bool); 4] = [("h1", true), ("h2", true), ("h3", false), ("h4", false)];
/// One host has a bad line all the time.
const BAD: Quality = Quality {
    one_way: Duration::from_millis(2),
    bytes_per_s: None,
    packet_bytes_max: Some(1472),
    lost: 20,
    twice: 10,
    overtaken: 20,
};
const CLIENTS: [Kind; 3] = [Kind::Again, Kind::Once, Kind::Native];
const START_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A process and whether it is stopped.
#[derive(Debug)]
pub(super) struct Part {
    child: Child,
}

impl Part {
    fn start(command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("{command:?} does not start: {error}"))?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Kills it, also when it is stopped, and waits for its end.
    pub(super) fn kill(mut self) {
        // It may have ended by itself, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.to_string())
    }

    /// Asks it to end, and waits.
    pub(super) fn stop(mut self, within: Duration) -> Result<(), String> {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        let start = Instant::now();
        while start.elapsed() < within {
            if self.ended().is_some() {
                return Ok(());
            }
            sleep(PAUSE);
        }
        let pid = self.pid();
        self.kill();
        Err(format!("process {pid} does not end when it is told to"))
    }
}

#[derive(Debug)]
pub(super) struct Host {
    name: &'static str,
    has_spawner: bool,
    has_joined: bool,
    pub(super) line: Line,
    pub(super) agent: Option<Part>,
    spawner: Option<Part>,
}

#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    /// Of the one that runs now.
    number: u32,
    pub(super) part: Option<Part>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Fleet {
    options: Options,
    address: SocketAddr,
    pub(super) notes: Notes,
    pub(super) coordinator: Option<Part>,
    pub(super) hosts: Vec<Host>,
    pub(super) clients: Vec<Client>,
    clients_started: u32,
    mark: String,
}

impl Fleet {
    /// Starts everything, and waits until it is up.
    pub(super) fn start(options: &Options) -> Result<Self, String> {
        let notes = Notes::open(&options.folder, NEMESIS);
        let mut fleet = Self {
            notes: notes.map_err(|error| error.to_string())?,
            mark: format!("{}-{}", std::process::id(), options.seed),
            options: options.clone(),
            address: port::lasting(),
            coordinator: None,
            hosts: Vec::new(),
            clients: Vec::new(),
            clients_started: 0,
        };
        fleet.admin(&["init", "--name", "chaos"])?;
        fleet.start_coordinator()?;
        fleet.until("it listens", START_MAX, |fleet| {
            fleet.admin(&["status"]).ok()
        })?;
        for (number, (name, has_spawner)) in HOSTS.into_iter().enumerate() {
            let quality = if number == 1 { BAD } else { Quality::default() };
            let line = Line::of(quality, fleet.address);
            fleet.hosts.push(Host {
                name,
                has_spawner,
                has_joined: false,
                line,
                agent: None,
                spawner: None,
            });
            let token = fleet.admin(&["token", "create"])?;
            let file = fleet.file(&format!("{name}.token"));
            fs::write(file, token).map_err(|error| error.to_string())?;
            fleet.start_host(number)?;
        }
        fleet.until("all hosts are up", START_MAX, |fleet| {
            let up = fleet.admin(&["hosts", "--json"]).is_ok_and(|hosts| {
                serde_json::from_str::<serde_json::Value>(&hosts)
                    .ok()
                    .as_ref()
                    .and_then(serde_json::Value::as_array)
                    .is_some_and(|hosts| {
                        let up = hosts.iter().filter(|host| host["state"] == "up");
                        up.count() == HOSTS.len()
                    })
            });
            up.then_some(())
        })?;
        for (number, kind) in CLIENTS.into_iter().enumerate() {
            fleet.clients.push(Client {
                kind,
                number: 0,
                part: None,
            });
            fleet.start_client(number)?;
        }
        Ok(fleet)
    }

    pub(super) fn start_coordinator(&mut self) -> Result<(), String> {
        let (address, lease) = (self.address.to_string(), format!("{}s", LEASE.as_secs()));
        let mut command = if self.options.without_margin {
            let mut command = own("coordinator")?;
            command.arg(self.file("identity/coordinator")).arg(&address);
            command.arg(LEASE.as_secs().to_string());
            command
        } else {
            let mut command = self.fleetpool();
            command.args(["coordinator", "--listen", &address, "--lease", &lease]);
            command
        };
        self.log_to(&mut command, "coordinator")?;
        self.coordinator = Some(Part::start(&mut command)?);
        Ok(())
    }

    /// Starts what is missing of a host.
    pub(super) fn start_host(&mut self, number: usize) -> Result<(), String> {
        let host = &self.hosts[number];
        let (name, line) = (host.name, host.line.address().to_string());
        let (has_spawner, spawner_is_up) = (host.has_spawner, host.spawner.is_some());
        let of_host = |this: &Self| {
            let mut command = this.fleetpool();
            let folder = this.file(name);
            command
                .env("FLEETPOOL_IDENTITY", &folder)
                .env("XDG_CONFIG_HOME", &folder)
                .env(MARK, format!("{}/{name}", this.mark));
            command
        };
        if has_spawner && !spawner_is_up {
            let mut command = of_host(self);
            self.log_to(command.arg("spawner"), &format!("{name}-spawner"))?;
            self.hosts[number].spawner = Some(Part::start(&mut command)?);
        }
        if self.hosts[number].agent.is_none() {
            let mut command = of_host(self);
            let slots = SLOTS.to_string();
            command.args(["agent", "--coordinator", &line, "--name", name]);
            command.args(["--slots", &slots]);
            if has_spawner {
                command.arg("--with-spawner");
            }
            if !std::mem::replace(&mut self.hosts[number].has_joined, true) {
                let token = self.file(&format!("{name}.token"));
                command.arg("--token-file").arg(token);
            }
            self.log_to(&mut command, name)?;
            self.hosts[number].agent = Some(Part::start(&mut command)?);
        }
        Ok(())
    }

    /// Ends everything on a host at once: who would see the end of others first.
    pub(super) fn cut_power(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        [host.agent.take(), host.spawner.take()]
            .into_iter()
            .flatten()
            .for_each(Part::kill);
        let mark = format!("{}/{}", self.mark, host.name);
        // Keepers are this program; tasks and workers are others.
        let is_keeper = |pid: &u32| {
            let program = fs::read_link(format!("/proc/{pid}/exe"));
            program.is_ok_and(|program| program == self.options.program)
        };
        loop {
            let left = marked(&mark);
            if left.is_empty() {
                return;
            }
            let (keepers, others): (Vec<_>, Vec<_>) = left.into_iter().partition(is_keeper);
            for pid in keepers.into_iter().chain(others) {
                self.note(Note::Killed { pid });
                send(pid, Signal::SIGKILL);
            }
            sleep(PAUSE);
        }
    }

    pub(super) fn start_client(&mut self, number: usize) -> Result<(), String> {
        let client = &self.clients[number];
        self.clients_started += 1;
        let mut command = own("client")?;
        command
            .arg(&self.options.folder)
            .arg(self.clients_started.to_string())
            .arg(client.kind.name())
            .arg(self.address.to_string())
            .arg(self.file("identity"))
            .arg(self.options.seed.to_string())
            .env(MARK, &self.mark);
        self.log_to(&mut command, &format!("client-{}", self.clients_started))?;
        let part = Part::start(&mut command)?;
        let client = &mut self.clients[number];
        (client.number, client.part) = (self.clients_started, Some(part));
        Ok(())
    }

    pub(super) fn client_number(&self, number: usize) -> u32 {
        self.clients[number].number
    }

    /// Processes of tasks and workers.
    pub(super) fn tasks(&self) -> Vec<u32> {
        let program = &self.options.program;
        let mut tasks = marked(&format!("{}/", self.mark));
        tasks.retain(|pid| {
            let running = fs::read_link(format!("/proc/{pid}/exe"));
            running.is_ok_and(|running| running != *program)
        });
        tasks
    }

    /// Nothing ends that was not ended.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let hosts = self.hosts.iter_mut();
        let of_hosts = hosts.flat_map(|host| [&mut host.agent, &mut host.spawner]);
        let clients = self.clients.iter_mut().map(|client| &mut client.part);
        let all = of_hosts.chain(clients).chain([&mut self.coordinator]);
        for part in all.flatten() {
            if let Some(how) = part.ended() {
                let (pid, folder) = (part.pid(), self.options.folder.display());
                return Err(format!(
                    "process {pid} ended by itself: {how}; logs in {folder}"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn tell_clients_to_end(&self) {
        File::create(end_file(&self.options.folder)).expect("the folder is writable");
    }

    /// Waits for the ends of all clients.
    pub(super) fn await_clients(&mut self, within: Duration) -> Result<(), String> {
        let ended = self.until("the clients are done", within, |fleet| {
            let mut parts = fleet.clients.iter_mut().filter_map(|it| it.part.as_mut());
            parts.all(|part| part.ended().is_some()).then_some(())
        });
        for client in &mut self.clients {
            let Some(mut part) = client.part.take() else {
                continue;
            };
            match part.ended() {
                Some(how) if how.ends_with(": 0") => {}
                Some(how) => return Err(format!("client {} failed: {how}", client.number)),
                None => part.kill(),
            }
        }
        ended
    }

    /// Waits until nothing is left of any pool.
    pub(super) fn await_quiet(&mut self, within: Duration) -> Result<(), String> {
        self.until("no pool is left", within, |fleet| {
            let jobs = fleet.admin(&["jobs", "--json"]).ok()?;
            let jobs = serde_json::from_str::<serde_json::Value>(&jobs).ok()?;
            jobs.as_array()?.is_empty().then_some(())
        })
    }

    /// Stops everything. No process may be left of it.
    pub(super) fn stop(&mut self, within: Duration) -> Result<(), String> {
        let mut stopped = Ok(());
        for host in &mut self.hosts {
            for part in [host.agent.take(), host.spawner.take()] {
                stopped = stopped.and(part.map_or(Ok(()), |part| part.stop(within)));
            }
        }
        let coordinator = self.coordinator.take();
        stopped = stopped.and(coordinator.map_or(Ok(()), |part| part.stop(within)));
        let mark = self.mark.clone();
        let gone = self.until("no process is left", within, |_| {
            marked(&mark).is_empty().then_some(())
        });
        stopped.and(gone.map_err(|waited| format!("{waited}: {:?}", described(&mark))))
    }

    pub(super) fn note_host_down(&self, number: usize) {
        let host = self.hosts[number].name.to_owned();
        self.note(Note::HostDown { host });
    }

    pub(super) fn note(&self, note: Note) {
        self.notes.add(note).expect("the folder is writable");
    }

    fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, String> {
        let start = Instant::now();
        while start.elapsed() < within {
            if let Some(value) = condition(self) {
                return Ok(value);
            }
            sleep(PAUSE);
        }
        let folder = self.options.folder.display();
        Err(format!(
            "waited for {} s in vain: {what}; logs in {folder}",
            within.as_secs()
        ))
    }

    /// What an admin is told.
    fn admin(&self, words: &[&str]) -> Result<String, String> {
        let mut command = self.fleetpool();
        command.env("FLEETPOOL_CLUSTER", self.address.to_string());
        let output = command.args(words).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("fleetpool does not start: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("fleetpool {}: {said}", words.join(" ")))
    }

    fn fleetpool(&self) -> Command {
        let mut command = Command::new(&self.options.program);
        command
            .env("FLEETPOOL_IDENTITY", self.file("identity"))
            .env("XDG_CONFIG_HOME", self.file("config"))
            .env_remove("FLEETPOOL_CLUSTER");
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.folder.join(name)
    }

    fn log_to(&self, command: &mut Command, name: &str) -> Result<(), String> {
        let path = self.file(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| format!("{}: {error}", path.display()))?;
        let both = log.try_clone().map_err(|error| error.to_string())?;
        command.stdout(both).stderr(log);
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.hosts.len() {
            self.cut_power(number);
        }
        let clients = self.clients.iter_mut().filter_map(|it| it.part.take());
        clients.chain(self.coordinator.take()).for_each(Part::kill);
    }
}

/// This program, in another role.
fn own(role: &str) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg(role);
    Ok(command)
}

pub(super) fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended meanwhile.
        kill(Pid::from_raw(pid), signal).ok();
    }
}

/// Processes whose mark begins like this.
fn marked(mark: &str) -> Vec<u32> {
    let variable = format!("{MARK}={mark}");
    let is_marked = |folder: &Path| {
        let block = fs::read(folder.join("environ")).unwrap_or_default();
        let mut variables = block.split(|byte| *byte == 0);
        variables.any(|found| found.starts_with(variable.as_bytes()))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            is_marked(&entry.path()).then_some(pid)
        })
        .collect()
}

fn described(mark: &str) -> Vec<String> {
    let describe = |pid: u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!(
            "{pid} {}",
            String::from_utf8_lossy(&words).replace('\0', " ")
        )
    };
    marked(mark).into_iter().map(describe).collect()
}
