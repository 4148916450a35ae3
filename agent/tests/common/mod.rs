//! A coordinator made by hand, for an agent that is real down to its processes.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod door;
pub(crate) mod python;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fleetpool_agent::{Error, Link, Options, run};
use fleetpool_net::{Peer, Session, local_pair};
use fleetpool_proto::{
    Attempt, Message as _, Outcome, Payloads, PoolId, Role, SpecId,
    command::{CommandEnd, CommandTask, Word},
    frame::{decode_header, encode_header},
    message::{
        FromAgent, GrantRow, HeldRow, HeldState, ReportRow, StartedRow, Stream, TaskRow, ToAgent,
    },
    outcome::Loss,
    pool::{ContentHash, PoolOptions, Spec},
    version::Welcome,
};
use tokio::task::JoinHandle;

pub(crate) const POOL: PoolId = PoolId(7);
pub(crate) const SPEC: SpecId = SpecId(1);
/// What the probe is called as a worker's program.
pub(crate) const PROBE: ContentHash = ContentHash([7; 32]);
/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The coordinator of one agent.
pub(crate) struct Boss {
    session: Session,
    agent: JoinHandle<Result<(), Error>>,
    pub(crate) ends: BTreeMap<u64, End>,
    pub(crate) printed: BTreeMap<u64, [Vec<u8>; 2]>,
    pub(crate) pieces: Vec<(u64, Stream, Bytes)>,
    pub(crate) started: BTreeMap<u64, StartedRow>,
    pub(crate) retracted: Vec<u64>,
    pub(crate) unfit: Option<String>,
    pub(crate) wanted: Vec<ContentHash>,
    /// What it passes on, and on which port.
    pub(crate) passed_on: BTreeMap<ContentHash, u16>,
    pub(crate) held: Option<Vec<HeldRow>>,
    /// Whether output is acknowledged; reports never are.
    pub(crate) acknowledges: bool,
    /// The highest number of output, and how often one has come that was not higher.
    heard: u64,
    pub(crate) heard_again: u64,
    allotments: u64,
    opened: Option<PoolOptions>,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) row: ReportRow,
    pub(crate) payload: Bytes,
}

impl End {
    pub(crate) fn outcome(&self) -> Outcome {
        self.row.outcome
    }

    pub(crate) fn command(&self) -> CommandEnd {
        decode_header(&self.payload).unwrap()
    }

    pub(crate) fn loss(&self) -> Loss {
        decode_header(&self.payload).unwrap()
    }
}

/// An agent named `host`, whose spawner is the probe; in `relayed.rs` one that is a service.
pub(crate) fn options(slots: u16) -> Options {
    let mut options = Options::new("host", slots, probe());
    if env!("CARGO_CRATE_NAME") == "relayed" {
        options.state_dir = Some(folder_of_a_service());
        options.spawner_is_service = true;
    }
    options
}

/// The folder of a spawner that is a service, both of which are gone when this process is.
fn folder_of_a_service() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("relayed-{}-{count}", std::process::id()));
    let script = r#""$0" spawner "$1" 1000 & read -r _; kill $!; wait; rm -r "$1""#;
    let mut watch = Command::new("sh");
    watch.args(["-c", script]).args([&probe(), &folder]);
    // It reads until the end of this process.
    std::mem::forget(watch.stdin(Stdio::piped()).spawn().unwrap());
    folder
}

/// The program of `tests/bin/probe.rs`: known to the tests, and what this is when it is not a test.
pub(crate) fn probe() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_agent-probe") {
        Some(path) => path.into(),
        None => std::env::current_exe().unwrap(),
    }
}

impl Boss {
    /// An agent with one open pool of commands, one specification, and all slots allotted.
    pub(crate) async fn new(slots: u16) -> Self {
        Self::with(options(slots), PoolOptions::default(), Spec::default()).await
    }

    pub(crate) async fn of(spec: Spec) -> Self {
        Self::with(options(1), PoolOptions::default(), spec).await
    }

    pub(crate) async fn with(options: Options, pool: PoolOptions, spec: Spec) -> Self {
        let slots = options.slots;
        let mut boss = Self::bare(options);
        boss.open(pool).await;
        boss.define(SPEC, spec).await;
        boss.allot(slots).await;
        boss
    }

    /// An agent that has been told nothing.
    pub(crate) fn bare(options: Options) -> Self {
        let (agent, session) = local_pair(
            Peer::local(Role::Agent, "host"),
            Peer::local(Role::Coordinator, "boss"),
        );
        let welcome = Welcome {
            lease_ms: 1 << 40,
            ..Welcome::default()
        };
        let link = Link::Session(Box::new(agent), welcome);
        Self::over(session, tokio::spawn(run(options, link)))
    }

    /// The coordinator of an agent that has come by itself.
    pub(crate) fn over(session: Session, agent: JoinHandle<Result<(), Error>>) -> Self {
        Self {
            session,
            agent,
            held: None,
            ends: BTreeMap::new(),
            printed: BTreeMap::new(),
            pieces: Vec::new(),
            started: BTreeMap::new(),
            retracted: Vec::new(),
            unfit: None,
            wanted: Vec::new(),
            passed_on: BTreeMap::new(),
            acknowledges: true,
            heard: 0,
            heard_again: 0,
            allotments: 0,
            opened: None,
        }
    }

    pub(crate) async fn open(&mut self, options: PoolOptions) {
        self.opened = Some(options.clone());
        let options = Box::new(options);
        self.say(ToAgent::OpenPool {
            pool: POOL,
            options,
        })
        .await;
    }

    pub(crate) async fn define(&mut self, spec: SpecId, body: Spec) {
        let body = Box::new(body);
        self.say(ToAgent::Define {
            pool: POOL,
            spec,
            body,
        })
        .await;
    }

    pub(crate) async fn allot(&mut self, slots: u16) {
        self.allotments += 1;
        let allotment = self.allotments;
        self.say(ToAgent::Allot {
            pool: POOL,
            slots,
            allotment,
        })
        .await;
    }

    pub(crate) async fn say(&mut self, message: ToAgent) {
        self.session
            .sender
            .send(message.into_frame())
            .await
            .unwrap();
    }

    pub(crate) async fn grant_raw(
        &mut self,
        spec: SpecId,
        tasks: impl IntoIterator<Item = (u64, Bytes)>,
    ) {
        let (rows, payloads): (Vec<_>, Vec<_>) = tasks
            .into_iter()
            .map(|(index, payload)| {
                (
                    GrantRow {
                        index,
                        attempt: Attempt(1),
                        spec,
                    },
                    payload,
                )
            })
            .unzip();
        let payloads = Payloads::from(payloads);
        self.say(ToAgent::Grant {
            pool: POOL,
            rows,
            payloads,
        })
        .await;
    }

    pub(crate) async fn grant(&mut self, index: u64, argv: &[&str]) {
        let words = argv.iter().map(|word| Word::literal(*word)).collect();
        self.grant_raw(SPEC, [(index, encode_header(&CommandTask { argv: words }))])
            .await;
    }

    pub(crate) async fn sh(&mut self, index: u64, script: &str) {
        self.grant(index, &["sh", "-c", script]).await;
    }

    /// Runs a script to its end.
    pub(crate) async fn run_sh(&mut self, index: u64, script: &str) -> End {
        self.sh(index, script).await;
        self.end(index).await
    }

    pub(crate) async fn cancel(&mut self, index: u64) {
        let rows = vec![TaskRow {
            index,
            attempt: Attempt(1),
        }];
        self.say(ToAgent::Cancel { pool: POOL, rows }).await;
    }

    /// Waits for a task's end.
    pub(crate) async fn end(&mut self, index: u64) -> End {
        self.until(&format!("the end of task {index}"), |boss| {
            boss.ends.get(&index).cloned()
        })
        .await
    }

    pub(crate) async fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited too long for {what}");
            let heard =
                tokio::time::timeout(left.min(Duration::from_millis(20)), self.hear()).await;
            drop(heard);
        }
    }

    /// Waits for a condition that is not told by the agent.
    pub(crate) async fn until_true(&mut self, what: &str, condition: impl Fn() -> bool) {
        self.until(what, |_| condition().then_some(())).await;
    }

    /// Acknowledges all output that has come.
    pub(crate) async fn acknowledge(&mut self) {
        self.say(ToAgent::Ack {
            pool: POOL,
            output: self.heard,
            rows: Vec::new(),
        })
        .await;
    }

    /// Acknowledges ends of tasks.
    pub(crate) async fn acknowledge_ends(&mut self, indexes: &[u64]) {
        let row = |&index: &u64| TaskRow {
            index,
            attempt: Attempt(1),
        };
        self.say(ToAgent::Ack {
            pool: POOL,
            output: self.heard,
            rows: indexes.iter().map(row).collect(),
        })
        .await;
    }

    async fn hear(&mut self) {
        let frame = self
            .session
            .receiver
            .recv()
            .await
            .expect("the agent is there");
        self.on_message(FromAgent::from_frame(frame).unwrap()).await;
    }

    async fn on_message(&mut self, message: FromAgent) {
        match message {
            FromAgent::Renew { renewal, .. } => self.say(ToAgent::Renewed { renewal }).await,
            FromAgent::Reports { rows, payloads, .. } => {
                for (row, payload) in rows.into_iter().zip(payloads.into_items()) {
                    let before = self.ends.insert(
                        row.index,
                        End {
                            row: row.clone(),
                            payload,
                        },
                    );
                    assert!(before.is_none(), "task {} ended twice", row.index);
                }
            }
            FromAgent::Output {
                number,
                rows,
                payloads,
                ..
            } => {
                let again = number <= self.heard;
                self.heard = self.heard.max(number);
                if self.acknowledges {
                    self.acknowledge().await;
                }
                if again {
                    self.heard_again += 1;
                    return;
                }
                for (row, bytes) in rows.into_iter().zip(payloads.into_items()) {
                    assert!(!self.ends.contains_key(&row.index), "output after the end");
                    let at = usize::from(row.stream == Stream::Stderr);
                    self.printed.entry(row.index).or_default()[at].extend_from_slice(&bytes);
                    self.pieces.push((row.index, row.stream, bytes));
                }
            }
            FromAgent::Started { rows, .. } => {
                self.started
                    .extend(rows.into_iter().map(|row| (row.index, row)));
            }
            FromAgent::Retracted { rows, .. } => {
                self.retracted.extend(rows.iter().map(|row| row.index))
            }
            FromAgent::PoolUnfit { reason, .. } => self.unfit = Some(reason),
            FromAgent::NeedContent { hash, .. } => self.wanted.push(hash),
            FromAgent::Register(registration) => {
                self.held = Some(registration.held);
                // A pool that a new session is not told of is over.
                if let Some(options) = self.opened.clone() {
                    self.open(options).await;
                }
            }
            FromAgent::PassingOn { hash, port, .. } => drop(self.passed_on.insert(hash, port)),
            FromAgent::Allotted { .. } => {}
        }
    }

    pub(crate) fn stdout(&self, index: u64) -> String {
        self.text(index, 0)
    }

    pub(crate) fn stderr(&self, index: u64) -> String {
        self.text(index, 1)
    }

    fn text(&self, index: u64, stream: usize) -> String {
        let bytes = self
            .printed
            .get(&index)
            .map(|streams| streams[stream].clone());
        String::from_utf8(bytes.unwrap_or_default()).unwrap()
    }

    /// Ends the session, and waits for the agent to end by it.
    pub(crate) async fn leave(self) -> Result<(), Error> {
        self.session.sender.close("the test is over");
        self.agent.await.unwrap()
    }

    /// Loses the session; the agent comes back by another, and says everything again.
    pub(crate) fn lose_session(&mut self) {
        self.session.sender.close("the test wants to see it again");
        self.ends.clear();
        self.held = None;
    }

    pub(crate) fn rejoin(&mut self, session: Session) {
        self.session = session;
    }

    /// Waits for a process's end without hearing what the agent says.
    pub(crate) async fn until_gone(&self, pid: i32) {
        let deadline = Instant::now() + PATIENCE;
        while is_alive(pid) {
            assert!(Instant::now() < deadline, "{pid} lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the agent says that it holds.
    pub(crate) async fn holds(&mut self) -> Vec<(u64, HeldState)> {
        let held = self
            .until("the registration", |boss| boss.held.clone())
            .await;
        held.iter().map(|row| (row.index, row.state)).collect()
    }

    pub(crate) fn agent_is_over(&self) -> bool {
        self.agent.is_finished()
    }
}

/// The pid that a task has written into a file.
pub(crate) fn pid_in(path: &Path) -> Option<i32> {
    fs::read_to_string(path)
        .ok()?
        .strip_suffix('\n')?
        .trim()
        .parse()
        .ok()
}

/// Whether a process runs (and does not only wait to be reaped).
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next())
        .is_some_and(|state| !"ZX".contains(state))
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> i32 {
    parent_if_there(pid).unwrap()
}

/// The same of one that may have ended.
pub(crate) fn parent_if_there(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit(')').next()?;
    fields.split_whitespace().nth(1)?.parse().ok()
}
