//! Detached jobs: what their tasks return and print is kept in a file each, for whoever attaches.
//!
//! ```text
//! jobs/POOL.json  whose it is, and how it went
//! jobs/POOL.log   messages to a client, in the journal's form of records
//! ```
//! A file is written before the journal says that its tasks are over, and on disk before anybody forgets them. What is in it
//! twice (a coordinator that was killed in between) is taken once by who reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use fleetpool_proto::{
    HostId, Message as _, PoolId,
    limits::{JOB_KEPT_BYTES_MAX, JOB_KEPT_FOR},
    message::ToClient,
    view::JobView,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::clock::wall_s;
use crate::journal::{is_full, make_folder, record};

/// A job as its file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    pub(super) user: String,
    pub(super) view: JobView,
    /// When it ended, in seconds since 1970; 0: it has not.
    pub(super) ended_s: u64,
}

/// How far a job's file has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) over: bool,
}

/// The jobs that run detached, and the folder with those that did.
#[derive(Debug)]
pub(super) struct Jobs {
    dir: PathBuf,
    open: BTreeMap<PoolId, Job>,
    /// Jobs whose files cannot be written, and why: they are to be ended.
    failed: Vec<(PoolId, String)>,
}

#[derive(Debug)]
struct Job {
    file: Arc<File>,
    about: About,
    progress: watch::Sender<Progress>,
    /// Hosts whose names are in the file.
    named: BTreeSet<HostId>,
    /// What is not in the file yet.
    pending: Vec<u8>,
    /// Nothing comes behind that.
    over: bool,
    /// It has been written to since it was last put on disk.
    dirty: bool,
}

impl Jobs {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        make_folder(&dir)?;
        let jobs = Self {
            dir,
            open: BTreeMap::new(),
            failed: Vec::new(),
        };
        jobs.prune();
        Ok(jobs)
    }

    /// Begins to keep a job, or goes on after what a predecessor kept.
    pub(super) fn begin(&mut self, pool: PoolId, user: &str, view: JobView) {
        let path = self.log(pool);
        let begun = resume(&path).and_then(|(file, bytes)| {
            let about = About {
                user: user.to_owned(),
                view,
                ended_s: 0,
            };
            // A predecessor may have saved it, and there may be no room to do so again.
            if self.about(pool).is_none() {
                self.save(pool, &about)?;
            }
            Ok((file, bytes, about))
        });
        match begun {
            Ok((file, bytes, about)) => {
                let progress = Progress { bytes, over: false };
                let job = Job {
                    file: Arc::new(file),
                    about,
                    progress: watch::Sender::new(progress),
                    named: BTreeSet::new(),
                    pending: Vec::new(),
                    over: false,
                    dirty: false,
                };
                self.open.insert(pool, job);
            }
            Err(error) => self.fail(pool, &error),
        }
    }

    /// Whether messages of the pool are kept.
    pub(super) fn has(&self, pool: PoolId) -> bool {
        self.open.contains_key(&pool)
    }

    /// Keeps a message, to be [written](Self::write); `name` knows hosts. Tells how long the file will be then.
    pub(super) fn keep<'n>(
        &mut self,
        pool: PoolId,
        message: ToClient,
        name: impl Fn(HostId) -> Option<&'n str>,
    ) -> Option<u64> {
        let job = self.open.get_mut(&pool)?;
        job.over |= matches!(message, ToClient::PoolEnded { .. });
        for host in hosts_of(&message) {
            if job.named.insert(host) {
                let name = name(host).unwrap_or_default().to_owned();
                record::write(ToClient::Host { host, name }, &mut job.pending);
            }
        }
        job.count(&message);
        record::write(message, &mut job.pending);
        let bytes = job.progress.borrow().bytes + job.pending.len() as u64;
        if bytes > JOB_KEPT_BYTES_MAX && !job.over {
            let reason = format!(
                "its tasks have returned and printed more than {} GiB",
                JOB_KEPT_BYTES_MAX >> 30
            );
            self.failed.push((pool, reason));
        }
        Some(bytes)
    }

    /// Writes what is kept: the kernel has it, whatever becomes of this process.
    ///
    /// # Errors
    /// When the disk is full: to be tried again. A job whose file cannot be written for another reason is ended.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let pending = self.open.iter().filter(|(_, job)| job.is_pending());
        let pools: Vec<PoolId> = pending.map(|(&pool, _)| pool).collect();
        for pool in pools {
            self.write_one(pool)?;
        }
        Ok(())
    }

    fn write_one(&mut self, pool: PoolId) -> io::Result<()> {
        let Some(job) = self.open.get_mut(&pool) else {
            return Ok(());
        };
        match job.write() {
            Err(error) if is_full(&error) => return Err(error),
            Err(error) => {
                job.pending.clear();
                self.fail(pool, &error);
            }
            Ok(()) => {}
        }
        self.end_if_over(pool)
    }

    /// Files that were written to since this was asked last.
    pub(super) fn take_dirty(&mut self) -> Vec<Arc<File>> {
        let dirty = self.open.values_mut().filter(|job| job.dirty);
        dirty
            .map(|job| {
                job.dirty = false;
                Arc::clone(&job.file)
            })
            .collect()
    }

    /// Jobs that cannot be kept any more.
    pub(super) fn take_failed(&mut self) -> Vec<(PoolId, String)> {
        std::mem::take(&mut self.failed)
    }

    /// Whose job it is, whether it runs or has ended.
    pub(super) fn about(&self, pool: PoolId) -> Option<About> {
        if let Some(job) = self.open.get(&pool) {
            return Some(job.about.clone());
        }
        let text = fs::read(self.about_path(pool)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Where a job is kept, and how it grows.
    pub(super) fn source(&self, pool: PoolId) -> (PathBuf, Option<watch::Receiver<Progress>>) {
        let progress = self.open.get(&pool).map(|job| job.progress.subscribe());
        (self.log(pool), progress)
    }

    /// Jobs that have ended and are kept.
    pub(super) fn ended(&self) -> Vec<JobView> {
        let kept = self.kept().into_iter();
        let ended = kept.filter(|(pool, about)| about.ended_s > 0 && !self.has(*pool));
        ended.map(|(_, about)| about.view).collect()
    }

    /// Forgets a job that has ended.
    pub(super) fn remove(&self, pool: PoolId) {
        fs::remove_file(self.log(pool)).ok();
        fs::remove_file(self.about_path(pool)).ok();
    }

    /// Forgets jobs that have been kept for long enough.
    pub(super) fn prune(&self) {
        let now = wall_s();
        for (pool, about) in self.kept() {
            let old = about.ended_s > 0 && now > about.ended_s + JOB_KEPT_FOR.as_secs();
            if old && !self.has(pool) {
                self.remove(pool);
            }
        }
    }

    fn kept(&self) -> BTreeMap<PoolId, About> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let pools = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json")?.parse().ok().map(PoolId)
        });
        pools
            .filter_map(|pool| Some((pool, self.about(pool)?)))
            .collect()
    }

    fn end_if_over(&mut self, pool: PoolId) -> io::Result<()> {
        let Some(job) = self.open.get_mut(&pool).filter(|job| job.over) else {
            return Ok(());
        };
        job.about.ended_s = wall_s().max(1);
        "ended".clone_into(&mut job.about.view.state);
        // What a power cut takes of the last message is said again by the successor, to whom the pool still lives.
        let (synced, about) = (job.file.sync_data(), job.about.clone());
        match synced.and_then(|()| self.save(pool, &about)) {
            Err(error) if is_full(&error) => return Err(error),
            Err(error) => {
                tracing::error!(%pool, %error, "what is known of the job's end cannot be kept");
            }
            Ok(()) => {}
        }
        self.open.remove(&pool);
        self.prune();
        Ok(())
    }

    fn save(&self, pool: PoolId, about: &About) -> io::Result<()> {
        let path = self.about_path(pool);
        let part = path.with_extension("part");
        let text = serde_json::to_vec(about).map_err(io::Error::other)?;
        let mut file = File::create(&part)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    fn fail(&mut self, pool: PoolId, error: &io::Error) {
        let path = self.log(pool);
        let reason = format!(
            "what its tasks return and print cannot be kept in {}: {error}",
            path.display()
        );
        self.failed.push((pool, reason));
    }

    fn log(&self, pool: PoolId) -> PathBuf {
        self.dir.join(format!("{}.log", pool.0))
    }

    fn about_path(&self, pool: PoolId) -> PathBuf {
        self.dir.join(format!("{}.json", pool.0))
    }
}

impl Job {
    fn is_pending(&self) -> bool {
        self.over || !self.pending.is_empty()
    }

    fn write(&mut self) -> io::Result<()> {
        let before = self.pending.len();
        let written = write_some(&self.file, &mut self.pending);
        let count = (before - self.pending.len()) as u64;
        self.dirty |= count > 0;
        let over = self.over && self.pending.is_empty();
        self.progress.send_modify(|progress| {
            progress.bytes += count;
            progress.over = over;
        });
        written
    }

    fn count(&mut self, message: &ToClient) {
        if let ToClient::Results { rows, .. } = message {
            let view = &mut self.about.view;
            view.ended += rows.len() as u64;
            let failed = rows.iter().filter(|row| !row.outcome.is_success());
            view.failed += failed.count() as u64;
        }
    }
}

/// Writes as much as there is room for; what is left over stays.
fn write_some(mut file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => drop(bytes.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a job's file to be written on, behind its last whole record.
fn resume(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).read(true).open(path)?;
    let whole = record::whole(&fs::read(path)?.into());
    file.set_len(whole)?;
    Ok((file, whole))
}

/// The pool that a message is about, if it is one that is kept for who attaches.
pub(super) fn kept_pool(message: &ToClient) -> Option<PoolId> {
    match message {
        ToClient::Results { pool, .. }
        | ToClient::Output { pool, .. }
        | ToClient::Notice { pool, .. }
        | ToClient::Refused { pool, .. }
        | ToClient::PoolEnded { pool } => Some(*pool),
        _ => None,
    }
}

fn hosts_of(message: &ToClient) -> BTreeSet<HostId> {
    match message {
        ToClient::Results { rows, .. } => {
            let ran = rows.iter().filter(|row| row.attempt != Default::default());
            ran.map(|row| row.host).collect()
        }
        ToClient::Output { rows, .. } => rows.iter().map(|row| row.host).collect(),
        _ => BTreeSet::new(),
    }
}

/// Sends a job's file to a client, and what is added to it, until the job is over or, without `follow`, to its end now.
pub(super) async fn send(
    pool: PoolId,
    (path, mut progress): (PathBuf, Option<watch::Receiver<Progress>>),
    follow: bool,
    to: fleetpool_net::Sender,
) {
    let mut at = 0;
    loop {
        let now = progress
            .as_mut()
            .map(|progress| *progress.borrow_and_update());
        let source = path.clone();
        let read = tokio::task::spawn_blocking(move || record::frames(&source, at));
        let Ok(Ok((frames, next))) = read.await else {
            break;
        };
        let moved = next > at;
        at = next;
        for frame in frames {
            if to.send(frame).await.is_err() {
                return;
            }
        }
        if moved {
            continue;
        }
        match (now, progress.as_mut()) {
            // Its last word is in the file.
            (None, _) | (Some(Progress { over: true, .. }), _) => return,
            (Some(_), Some(progress)) if follow => {
                if progress.changed().await.is_err() {
                    // The job has ended, and its last word is in the file.
                    let _ = progress.borrow_and_update();
                }
                if progress.has_changed().is_err() {
                    let source = path.clone();
                    let rest = tokio::task::spawn_blocking(move || record::frames(&source, at));
                    if let Ok(Ok((frames, _))) = rest.await {
                        for frame in frames {
                            to.send(frame).await.ok();
                        }
                    }
                    return;
                }
            }
            _ => break,
        }
    }
    // A client that has left needs no end.
    to.send(ToClient::PoolEnded { pool }.into_frame())
        .await
        .ok();
}
