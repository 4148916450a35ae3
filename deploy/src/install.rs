//! Agents that stay: scripts that install, replace and remove them, run over one ssh connection a host.
//!
//! The scripts know what is on the host and do what is missing; they work by hand too. Here is what they are told, and what they ask
//! for: the program, and a certificate for the key that was made there, which never leaves the host.

use std::{fmt, future::Future, time::Duration};

use tokio::time::timeout;

use crate::{
    conversation::{Conversation, Halt, HostError, patiently, quoted},
    destination::Destination,
    program::Program,
};

const COMMON: &str = include_str!("../scripts/common.sh");
const INSTALL: &str = include_str!("../scripts/install.sh");
const UPGRADE: &str = include_str!("../scripts/upgrade.sh");
const UNINSTALL: &str = include_str!("../scripts/uninstall.sh");
const SUPERVISE: &str = include_str!("../scripts/supervise.sh");
const SYSTEM_UNIT: &str = include_str!("../systemd/fleetpool-agent.service");
const USER_UNIT: &str = include_str!("../systemd/fleetpool-agent.user.service");
const SYSTEM_SPAWNER_UNIT: &str = include_str!("../systemd/fleetpool-spawner.service");
const USER_SPAWNER_UNIT: &str = include_str!("../systemd/fleetpool-spawner.user.service");

/// Longest signing request: some ten lines.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long the coordinator may take to certify a key.
const CERTIFY_TIME_MAX: Duration = Duration::from_secs(30);

/// How an agent is to be on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where its coordinator is, as the host reaches it.
    pub coordinator: String,
    /// The cluster's CA, in PEM: an identity of another cluster is replaced.
    pub ca: String,
    /// Slots; none: one a processor.
    pub slots: Option<u16>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Processes and threads that a task may have at once; none: the agent's default.
    pub task_pids: Option<u64>,
    /// Memory that a task may take, in bytes; none: the agent's default.
    pub task_memory: Option<u64>,
    /// The user that the agent and its tasks are, where root installs it.
    pub run_as: String,
}

/// How a script is to go about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// For the user that logs in alone, also where that is root.
    pub for_user: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done on a host, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Did {
    /// Every change, in a few words, in the order in which they were made.
    pub changes: Vec<String>,
    /// What is to be known beside them.
    pub notes: Vec<String>,
    /// The program that is installed there and is not the one that was to be: the first part of its hash.
    pub other: Option<String>,
    /// Nothing was done, since it would have ended what runs there.
    pub needs_drain: bool,
}

impl fmt::Display for Did {
    /// The changes, or that there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changes.as_slice() {
            [] => f.write_str("nothing to do"),
            changes => f.write_str(&changes.join(", ")),
        }
    }
}

/// Whoever certifies the keys of hosts.
pub trait Authority: Sync {
    /// A certificate for the key of that signing request, and the CA's own, all in PEM. `ended`: the host had another for the same
    /// name, and all that ran under it is gone.
    ///
    /// # Errors
    /// Why there is none.
    fn certify(
        &self,
        host: &str,
        request: &str,
        ended: bool,
    ) -> impl Future<Output = Result<String, String>> + Send;

    /// The host does not reach the coordinator: by which address it does from now on, where there is one.
    ///
    /// # Errors
    /// Why there is none.
    fn unreachable(&self, to: &Destination) -> impl Future<Output = Result<String, String>> + Send;
}

/// Installs an agent at `to`, called by the destination's name, and starts it; or changes what of it is not as wanted. `anew`: its
/// identity is not good any more.
///
/// # Errors
/// When ssh does not get there, the host cannot run it, or its key is not certified.
pub async fn install(
    to: &Destination,
    program: &Program,
    wanted: &Wanted,
    manner: Manner,
    anew: bool,
    authority: &impl Authority,
) -> Result<Did, HostError> {
    let mut arguments = vec![
        "--coordinator",
        &wanted.coordinator,
        "--name",
        to.name(),
        "--run-as",
        &wanted.run_as,
    ];
    let numbers = [
        ("--slots", wanted.slots.map(u64::from)),
        ("--task-pids", wanted.task_pids),
        ("--task-memory", wanted.task_memory),
    ];
    let numbers = numbers.map(|(option, number)| (option, number.map(|number| number.to_string())));
    for (option, number) in &numbers {
        if let Some(number) = number {
            arguments.extend([*option, number.as_str()]);
        }
    }
    let labels: Vec<String> = wanted
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for label in &labels {
        arguments.extend(["--label", label]);
    }
    if anew {
        arguments.push("--enrol");
    }
    let texts = [
        ("ca", wanted.ca.trim_end()),
        ("supervise", SUPERVISE.trim_end()),
        ("system_unit", SYSTEM_UNIT.trim_end()),
        ("user_unit", USER_UNIT.trim_end()),
        ("system_spawner_unit", SYSTEM_SPAWNER_UNIT.trim_end()),
        ("user_spawner_unit", USER_SPAWNER_UNIT.trim_end()),
    ];
    let script = script(INSTALL, program, &texts, &arguments, manner);
    run(to, &script, program, authority).await
}

/// Puts `program` in the place of the one that is installed at `to`. `live`: only if nothing that runs there is ended by it;
/// else what runs there is ended, where it cannot go on.
///
/// # Errors
/// When ssh does not get there, nothing is installed, or the new agent does not stay; then the old one is back.
pub async fn upgrade(
    to: &Destination,
    program: &Program,
    manner: Manner,
    live: bool,
) -> Result<Did, HostError> {
    let arguments: &[&str] = if live { &["--live"] } else { &[] };
    let script = script(UPGRADE, program, &[], arguments, manner);
    run(to, &script, program, &Nobody).await
}

/// Puts the program back that was there before the last [`upgrade`].
///
/// # Errors
/// When ssh does not get there, or there is none.
pub async fn go_back(
    to: &Destination,
    program: &Program,
    manner: Manner,
) -> Result<Did, HostError> {
    let script = script(UPGRADE, program, &[], &["--back"], manner);
    run(to, &script, program, &Nobody).await
}

/// Takes away everything that [`install`] has put at `to`.
///
/// # Errors
/// When ssh does not get there, or something cannot be removed.
pub async fn uninstall(
    to: &Destination,
    program: &Program,
    manner: Manner,
) -> Result<Did, HostError> {
    let script = script(UNINSTALL, program, &[], &[], manner);
    run(to, &script, program, &Nobody).await
}

/// For scripts that have no key to be certified.
struct Nobody;

impl Authority for Nobody {
    async fn certify(&self, _: &str, _: &str, _: bool) -> Result<String, String> {
        Err("nobody certifies keys now".to_owned())
    }

    async fn unreachable(&self, _: &Destination) -> Result<String, String> {
        Err("nobody makes tunnels now".to_owned())
    }
}

async fn run(
    to: &Destination,
    script: &str,
    program: &Program,
    authority: &impl Authority,
) -> Result<Did, HostError> {
    patiently(to, || async {
        let mut talk = Conversation::open(to, script).await?;
        match converse(&mut talk, to, program, authority).await {
            Ok(did) => {
                talk.close().await;
                Ok(did)
            }
            Err(halt) => Err(talk.explain(halt).await),
        }
    })
    .await
}

/// Gives the script what it asks for, until it is done.
async fn converse(
    talk: &mut Conversation,
    to: &Destination,
    program: &Program,
    authority: &impl Authority,
) -> Result<Did, Halt> {
    let mut did = Did::default();
    loop {
        let word = talk.word().await?;
        let (what, rest) = word.split_once(' ').unwrap_or((&word, ""));
        match what {
            "did" => did.changes.push(rest.to_owned()),
            "note" => did.notes.push(rest.to_owned()),
            "drain" => did.needs_drain = true,
            "other" => did.other = Some(rest.to_owned()),
            "need" => talk.send(program).await?,
            "csr" => certify(talk, to.name(), rest == "ended", authority).await?,
            "unreachable" => {
                let by = authority.unreachable(to).await.map_err(refused)?;
                talk.say(format!("by {by}\n").as_bytes()).await?;
            }
            "done" => return Ok(did),
            _ => {}
        }
    }
}

async fn certify(
    talk: &mut Conversation,
    host: &str,
    ended: bool,
    authority: &impl Authority,
) -> Result<(), Halt> {
    let mut request = String::new();
    while !request.contains("-----END") {
        if request.len() >= REQUEST_BYTES_MAX {
            return Err(refused("its signing request has no end".to_owned()));
        }
        request += &talk.line(REQUEST_BYTES_MAX).await?;
    }
    let answer = timeout(CERTIFY_TIME_MAX, authority.certify(host, &request, ended)).await;
    let answer = answer.unwrap_or_else(|_| Err("the coordinator does not answer".to_owned()));
    match answer {
        Ok(certificates) => talk.say(certificates.as_bytes()).await,
        Err(why) => {
            talk.say(b"refused\n").await?;
            Err(refused(why))
        }
    }
}

fn refused(reason: String) -> Halt {
    Halt::Error(HostError::Host { reason })
}

/// A script with what it is to know, and the arguments that it is to have.
fn script(
    text: &str,
    program: &Program,
    texts: &[(&str, &str)],
    arguments: &[&str],
    manner: Manner,
) -> String {
    let (hash, size, platform) = (program.hex(), program.size(), Program::platform());
    let mut script = format!("over_ssh=yes program={hash} size={size} platform='{platform}'\n");
    for (name, value) in texts {
        script += &format!("{name}={}\n", quoted(value));
    }
    let flags = [(manner.for_user, "--user"), (manner.dry_run, "--dry-run")];
    let flags = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag);
    let arguments: Vec<String> = arguments.iter().copied().chain(flags).map(quoted).collect();
    script += &format!("set -- {}\n", arguments.join(" "));
    script + COMMON + text
}
