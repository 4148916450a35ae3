//! Something done to many hosts over ssh, in waves: what `deploy`, `upgrade`, `undeploy` and `drain` have in common.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use fleetpool::{cluster::Cluster, groups};
use fleetpool_deploy::{Destination, Manner, Program};
use fleetpool_proto::view::{Answer, HostView, Query};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{ask, odd};
use crate::{
    failure::{Exit, Failure, count, say},
    output::{fold::fold, table},
};

/// Logins that are under way at once: each costs this machine a tenth of a second of key exchange.
const LOGINS_AT_ONCE: usize = 32;
/// More hosts than this are asked about on a terminal.
const ASK_ABOVE_HOSTS: usize = 20;
/// How long an agent may take to be heard of.
const HEARD_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it was.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Options of all that go over ssh.
#[derive(Args, Debug)]
pub(crate) struct OverSsh {
    /// Hosts, as your ssh knows them: web[01-40], ada@web1, @rack1
    #[arg(value_name = "HOSTS", required = true)]
    hosts: String,
    /// For the user that logs in alone, without root
    #[arg(long)]
    user: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The fleetpool to install [default: this very program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Do not ask, however many hosts there are
    #[arg(short, long)]
    yes: bool,
    /// Say only what fails
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl OverSsh {
    /// The hosts, after who is there was asked whether so many are meant.
    ///
    /// # Errors
    /// When they make no sense, or are not meant.
    pub(super) fn destinations(&self, what: &str) -> Result<Vec<Destination>, Failure> {
        let hosts = groups::destinations(&self.hosts).map_err(Failure::usage)?;
        let names: Vec<&str> = hosts.iter().map(Destination::name).collect();
        if !self.dry_run {
            confirm(what, &names, self.yes)?;
        }
        Ok(hosts)
    }

    pub(super) fn manner(&self) -> Manner {
        Manner {
            for_user: self.user,
            dry_run: self.dry_run,
        }
    }

    /// What is to be installed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn program(&self) -> Result<Program, Failure> {
        match &self.program {
            None => Program::own().map_err(Failure::fleetpool),
            Some(file) => Program::of(file).map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", file.display()))
            }),
        }
    }
}

/// Asks whether so many hosts are meant, where there is somebody to ask.
///
/// # Errors
/// When they are not.
pub(super) fn confirm(what: &str, names: &[&str], yes: bool) -> Result<(), Failure> {
    let somebody = io::stdin().is_terminal() && io::stderr().is_terminal();
    if yes || names.len() <= ASK_ABOVE_HOSTS || !somebody {
        return Ok(());
    }
    let mut stderr = io::stderr();
    let hosts = fold(names.iter().copied());
    let _ = write!(
        stderr,
        "fleetpool: {what} {} hosts, {hosts}? [y/N] ",
        names.len()
    );
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was done; --yes does not ask")),
    }
}

/// What became of one host.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// What is said of it.
    pub(super) text: String,
    /// Whether anything was changed.
    pub(super) changed: bool,
    /// What is to be known beside it, the same for many hosts.
    pub(super) notes: Vec<String>,
}

/// What became of all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) changed: u64,
    pub(super) failed: u64,
    notes: BTreeMap<String, Vec<String>>,
}

impl Tally {
    /// Does `work` to each host, wave after wave, and tells of each as it ends. After a wave in which one failed, the next does not
    /// begin.
    ///
    /// # Errors
    /// When nobody reads.
    pub(super) async fn of<W, F>(
        hosts: Vec<Destination>,
        waves: &[usize],
        quiet: bool,
        work: W,
    ) -> Result<Self, Failure>
    where
        W: Fn(Destination) -> F,
        F: Future<Output = Result<Line, String>> + Send + 'static,
    {
        let mut tally = Self::default();
        let mut hosts = hosts.into_iter();
        for size in waves {
            if tally.failed > 0 {
                let left: Vec<_> = hosts.map(|host| host.name().to_owned()).collect();
                let names = fold(left.iter().map(String::as_str));
                say(&format!(
                    "stopped: {} left as they are, {names}",
                    count(left.len() as u64, "host")
                ));
                break;
            }
            let wave = hosts.by_ref().take(*size);
            tally.wave(wave, quiet, &work).await?;
        }
        tally.tell_notes();
        Ok(tally)
    }

    async fn wave<W, F>(
        &mut self,
        hosts: impl Iterator<Item = Destination>,
        quiet: bool,
        work: &W,
    ) -> Result<(), Failure>
    where
        W: Fn(Destination) -> F,
        F: Future<Output = Result<Line, String>> + Send + 'static,
    {
        let logins = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
        let mut working = JoinSet::new();
        for host in hosts {
            let name = host.name().to_owned();
            let (work, logins) = (work(host), Arc::clone(&logins));
            working.spawn(async move {
                let _login = logins.acquire_owned().await;
                (name, work.await)
            });
        }
        while let Some(ended) = working.join_next().await {
            let (name, line) = ended.map_err(Failure::fleetpool)?;
            self.count(&name, line, quiet)?;
        }
        Ok(())
    }

    fn count(
        &mut self,
        name: &str,
        line: Result<Line, String>,
        quiet: bool,
    ) -> Result<(), Failure> {
        match line {
            Err(why) => {
                self.failed += 1;
                say(&format!("{name}: {why}"));
            }
            Ok(line) => {
                self.done += 1;
                self.changed += u64::from(line.changed);
                for note in line.notes {
                    self.notes.entry(note).or_default().push(name.to_owned());
                }
                if !quiet {
                    table::print(&format!("{name}: {}", line.text))?;
                }
            }
        }
        Ok(())
    }

    fn tell_notes(&self) {
        for (note, hosts) in &self.notes {
            say(&format!(
                "note: {}: {note}",
                fold(hosts.iter().map(String::as_str))
            ));
        }
    }

    /// How it ended: as many as failed.
    pub(super) fn exit(&self) -> Exit {
        match self.failed {
            0 => Exit::Success,
            failed => Exit::Failed(failed),
        }
    }
}

/// A host of the cluster, by name; none where there is none.
///
/// # Errors
/// When the session is lost.
pub(super) async fn host_of(cluster: &Cluster, name: &str) -> Result<Option<HostView>, Failure> {
    let on = name.to_owned();
    match ask(cluster, Query::Hosts { on }).await? {
        Answer::Hosts(hosts) => Ok(hosts.into_iter().find(|host| host.name == name)),
        answer => Err(odd(&answer)),
    }
}

/// Waits until a host's agent is heard of after now.
///
/// # Errors
/// When it is not, in a minute; says where to look.
pub(super) async fn heard(cluster: &Cluster, name: &str) -> Result<HostView, String> {
    let since = Instant::now();
    loop {
        let host = host_of(cluster, name)
            .await
            .map_err(|failure| failure.message)?;
        let elapsed = since.elapsed();
        if let Some(host) = host.filter(is_there)
            && u128::from(host.heard_ms) < elapsed.as_millis()
        {
            return Ok(host);
        }
        if elapsed > HEARD_TIME_MAX {
            return Err(format!(
                "its agent was started and is not heard of after {} s: can the host reach the coordinator, by TCP at least? The agent's log is in \
                 `journalctl -u fleetpool-agent`, or in agent.log in /var/lib/fleetpool or ~/.local/state/fleetpool",
                HEARD_TIME_MAX.as_secs()
            ));
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Whether its agent is connected.
pub(super) fn is_there(host: &HostView) -> bool {
    host.state == "up" || host.state == "cordoned"
}
