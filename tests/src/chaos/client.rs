//! Who submits tasks, pool after pool, and writes down what it is told.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use fleetpool::{
    Pool, Retries,
    cluster::{Cluster, Events, PoolEvent, Submitter},
};
use fleetpool_net::{Address, Identity};
use fleetpool_proto::{
    command::{CommandTask, Word},
    frame::encode_header,
    message::ResultRow,
    pool::{PoolOptions, Retries as PoolRetries, Spec},
};

use super::{
    Kind, end_file,
    notes::{Job, Note, Notes, Said},
    task,
};
use crate::chance::Chance;

/// Tasks of a pool, at most; and how many of them run at once.
const POOL_TASKS_MAX: u64 = 300;
const SLOTS: u32 = 5;
/// How often a task may lose its host: more often than a run does.
const OFTEN: u32 = 1000;
/// One in so many tasks takes seconds, and outlives leases; the others take milliseconds.
const LONG_ONE_IN: u64 = 40;
const LONG_MS_MAX: u64 = 8000;
const SHORT_MS_MAX: u64 = 60;
/// Between two attempts to reach the coordinator.
const PAUSE: Duration = Duration::from_millis(200);

/// Who this client is.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where histories are written.
    pub folder: PathBuf,
    /// Unlike any other client's.
    pub number: u32,
    /// What it has done.
    pub kind: Kind,
    /// The coordinator's address.
    pub cluster: String,
    /// The folder of its identity.
    pub identity: PathBuf,
    /// What its tasks are like.
    pub seed: u64,
}

/// Runs pools until it is told to end.
///
/// # Errors
/// When its history cannot be written, or it is refused.
pub fn run(options: &ClientOptions) -> Result<(), Box<dyn std::error::Error>> {
    let notes = Notes::open(&options.folder, &format!("client-{}", options.number))?;
    let mut chance = Chance::of(&[options.seed, u64::from(options.number)]);
    let end = end_file(&options.folder);
    let mut pool = 0;
    while !end.exists() {
        pool += 1;
        let job = Job::new(options.number, pool);
        let lengths = lengths(&mut chance);
        let ended = match options.kind {
            Kind::Native => native(options, job, lengths, &notes),
            Kind::Again | Kind::Once => commands(options, job, &lengths, &notes),
        };
        match ended {
            Ok(()) => notes.add(Note::Over { job })?,
            Err(Gone::Lost(why)) => {
                notes.add(Note::Lost { job, why })?;
                std::thread::sleep(PAUSE);
            }
            Err(Gone::Unreached) => std::thread::sleep(PAUSE),
            Err(Gone::Io(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Why a pool ended before its work.
enum Gone {
    Lost(String),
    /// The coordinator is not there, and nothing was asked of it.
    Unreached,
    Io(io::Error),
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn lost(error: impl std::fmt::Display) -> Gone {
    Gone::Lost(error.to_string())
}

fn opened(
    options: &ClientOptions,
    job: Job,
    lengths: &[Duration],
    notes: &Notes,
) -> io::Result<()> {
    let (kind, tasks) = (options.kind, lengths.len() as u64);
    notes.add(Note::Opened { job, kind, tasks })
}

fn lengths(chance: &mut Chance) -> Vec<Duration> {
    let tasks = chance.within(1..POOL_TASKS_MAX + 1);
    let length = |_| {
        let most = if chance.once_in(LONG_ONE_IN) {
            LONG_MS_MAX
        } else {
            SHORT_MS_MAX
        };
        Duration::from_millis(chance.within(0..most))
    };
    (0..tasks).map(length).collect()
}

fn commands(
    options: &ClientOptions,
    job: Job,
    lengths: &[Duration],
    notes: &Notes,
) -> Result<(), Gone> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let address: Address = options.cluster.parse().map_err(lost)?;
        let identity = Identity::load(&options.identity).map_err(lost)?;
        let connected = Cluster::connect(&address, Some(&identity)).await;
        let cluster = connected.map_err(|_| Gone::Unreached)?;
        opened(options, job, lengths, notes)?;
        let again = options.kind == Kind::Again;
        let retries = PoolRetries {
            host_lost: if again { OFTEN } else { 0 },
            ..PoolRetries::default()
        };
        let asked = PoolOptions {
            name: format!("{}-{}", options.kind.name(), job.0),
            slots: Some(SLOTS),
            retries,
            ..PoolOptions::default()
        };
        let (submitter, events) = cluster.open(asked).map_err(lost)?;
        let submitted = submit(&submitter, &options.folder, job, lengths);
        let heard = hear(events, job, notes);
        let (submitted, heard) = tokio::join!(submitted, heard);
        heard.and(submitted)
    })
}

async fn submit(
    submitter: &Submitter,
    folder: &Path,
    job: Job,
    lengths: &[Duration],
) -> Result<(), Gone> {
    let spec = submitter.define(Spec::default());
    let program = std::env::current_exe()?;
    let folder = folder.to_string_lossy();
    for length in lengths {
        let (job, ms) = (job.0.to_string(), length.as_millis().to_string());
        let words = [&program.to_string_lossy(), "task", &folder, &job, &ms];
        let argv = words.map(Word::literal).to_vec();
        let payload = encode_header(&CommandTask { argv });
        submitter.submit(spec, None, payload).await.map_err(lost)?;
    }
    submitter.close();
    Ok(())
}

/// What a command prints: nobody else does.
pub(super) fn word(job: Job, index: u64, attempt: u32) -> String {
    format!("{} {index} {attempt}\n", job.0)
}

async fn hear(mut events: Events, job: Job, notes: &Notes) -> Result<(), Gone> {
    let mut printed: BTreeMap<(u64, u32), Vec<u8>> = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            PoolEvent::Output {
                index,
                attempt,
                bytes,
                ..
            } => printed.entry((index, attempt.0)).or_default().extend(bytes),
            PoolEvent::Ended { row, .. } => {
                let ResultRow {
                    index,
                    attempt,
                    outcome,
                    ..
                } = row;
                let attempt = attempt.0;
                let said = printed.remove(&(index, attempt)).unwrap_or_default();
                notes.add(Note::Delivered {
                    job,
                    index,
                    attempt: Some(attempt),
                    outcome: outcome.name().to_owned(),
                    said: match said.is_empty() {
                        true => Said::Nothing,
                        false => Said::of(said == word(job, index, attempt).as_bytes()),
                    },
                })?;
            }
            PoolEvent::Refused { reason, .. } | PoolEvent::Lost(reason) => {
                return Err(Gone::Lost(reason));
            }
            PoolEvent::Finished => return Ok(()),
            PoolEvent::Slots { .. } | PoolEvent::Notice(_) => {}
        }
    }
    Ok(())
}

/// The task of native pools: says which one it was, and which attempt.
#[fleetpool::task]
fn work(folder: String, job: u64, index: u64, ms: u64) -> Result<(u64, u64, u32), String> {
    let this = fleetpool::current().ok_or("no task")?;
    let lasts = Duration::from_millis(ms);
    let ran = task::run(
        Path::new(&folder),
        job,
        index,
        this.attempt,
        &this.host,
        lasts,
    );
    ran.map_err(|error| error.to_string())?;
    Ok((job, index, this.attempt))
}

fn native(
    options: &ClientOptions,
    job: Job,
    lengths: Vec<Duration>,
    notes: &Notes,
) -> Result<(), Gone> {
    let retries = Retries {
        host_lost: OFTEN,
        ..Retries::default()
    };
    let pool = Pool::builder()
        .cluster(&options.cluster)
        .identity(&options.identity)
        .processes(SLOTS)
        .retries(retries)
        .name(format!("native-{}", job.0))
        .build()
        .map_err(|_| Gone::Unreached)?;
    opened(options, job, &lengths, notes)?;
    let folder = options.folder.to_string_lossy();
    let mut handles = Vec::new();
    for (index, length) in (0..).zip(lengths) {
        let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let input = (folder.to_string(), job.0, index, ms);
        handles.push(pool.apply_async(work, input).map_err(lost)?);
    }
    for (index, handle) in (0..).zip(handles) {
        let (attempt, outcome, said) = match handle.get() {
            Ok(Ok((of, what, attempt))) => {
                let said = Said::of((of, what) == (job.0, index));
                (Some(attempt), "done", said)
            }
            Ok(Err(error)) => return Err(Gone::Io(io::Error::other(error))),
            Err(fleetpool::Error::Task(error)) => match error {
                fleetpool::TaskError::WorkerLost { .. } => (None, "worker_lost", Said::Nothing),
                fleetpool::TaskError::HostLost { .. } => (None, "host_lost", Said::Nothing),
                fleetpool::TaskError::OutOfMemory { .. } => (None, "out_of_memory", Said::Nothing),
                _ => (None, "another", Said::Nothing),
            },
            Err(error) => return Err(lost(error)),
        };
        notes.add(Note::Delivered {
            job,
            index,
            attempt,
            outcome: outcome.to_owned(),
            said,
        })?;
    }
    pool.close();
    pool.join().map_err(lost)
}
