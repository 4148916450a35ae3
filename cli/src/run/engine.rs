//! The loop of a run: hears the cluster, signals and the clock, and stops the run when one of them says so.

use std::{ffi::OsString, pin::pin, time::Duration};

use fleetpool::cluster::{Cluster, Events, PoolEvent, Submitter};
use fleetpool_proto::{
    PoolId, SpecId,
    message::{Refusal, ResultRow},
    pool::{PoolOptions, Spec},
};
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    ended::{Ended, Task},
    feeder::{Fed, Feeder, Inputs},
    gate::Gate,
    recorder::Recorder,
    signals::Signals,
    verdict::{End, Verdict},
};
use crate::{
    failure::{Exit, Failure, count},
    halt::{Halt, How},
    joblog::Past,
    output::{Progress, progress},
    template::{Syntax, Template},
};

/// How long a stopped run may take to end before it is left to itself: processes have a second between TERM and
/// KILL, and the rest is for hosts that are far away.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// What a kill at once may take.
const KILL_TIME_MAX: Duration = Duration::from_millis(300);
/// A run that waits for its first host says so after this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events handled before anything is written.
const BATCH_EVENTS: usize = 1024;

/// Everything that one run is.
pub(crate) struct Job {
    /// Where it runs.
    pub(crate) cluster: Cluster,
    /// Its pool.
    pub(crate) pool: PoolOptions,
    /// What its tasks have in common.
    pub(crate) spec: Spec,
    /// Its tasks.
    pub(crate) inputs: Inputs,
    /// How many they are, where that is known.
    pub(crate) total: Option<u64>,
    /// What an earlier run did of it.
    pub(crate) past: Option<Past>,
    /// How far ahead of slots it submits.
    pub(crate) gate: Gate,
    /// When it stops early.
    pub(crate) halt: Halt,
    /// When it stops in any case.
    pub(crate) deadline: Option<Duration>,
    /// Whether its hosts are there.
    pub(crate) hosts: Hosts,
    /// Whether progress is shown once it takes a while.
    pub(crate) progress: bool,
    /// What keeps it.
    pub(crate) recorder: Recorder,
}

/// Whether a cluster's hosts are expected to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// It has the hosts that it has.
    Standing,
    /// They are on their way, for this run.
    Coming,
}

/// Runs `job` to its end.
///
/// # Errors
/// When fleetpool itself fails; what tasks do is an exit status.
pub(crate) async fn run(job: Job) -> Result<Exit, Failure> {
    let mut signals = Signals::listen().map_err(Failure::fleetpool)?;
    let asked = job.pool.slots;
    let (submitter, events) = job.cluster.open(job.pool).map_err(Failure::fleetpool)?;
    let (limit, limited) = watch::channel(job.gate.limit(0, 0));
    let (engine, fed) = mpsc::unbounded_channel();
    let feeder = Feeder {
        inputs: job.inputs,
        past: job.past,
        spec: submitter.define(job.spec),
        submitter: submitter.clone(),
        limit: limited,
        engine,
    };
    let engine = Engine {
        asked,
        gate: job.gate,
        halt: job.halt,
        hosts: job.hosts,
        total: job.total,
        progress: job.progress,
        give_up: job.deadline.map(|deadline| Instant::now() + deadline),
        ..Engine::new(job.cluster, submitter, fed, limit, job.recorder)
    };
    engine.run(events, feeder, &mut signals).await
}

/// A detached job that is watched.
pub(crate) struct Attached {
    /// Where it runs.
    pub(crate) cluster: Cluster,
    /// Its pool.
    pub(crate) pool: PoolId,
    /// What it runs, for people.
    pub(crate) name: String,
    /// Whether what is to come is waited for.
    pub(crate) follow: bool,
    /// What keeps it.
    pub(crate) recorder: Recorder,
}

/// Watches a job to its end, or to where it is.
///
/// # Errors
/// When it cannot be had.
pub(crate) async fn attach(job: Attached) -> Result<Exit, Failure> {
    let mut signals = Signals::listen().map_err(Failure::fleetpool)?;
    let (submitter, events) = job
        .cluster
        .attach(job.pool, job.follow)
        .map_err(Failure::fleetpool)?;
    let name = [OsString::from(&job.name)];
    let nothing = Syntax::Only {
        placeholder: vec![0],
    };
    let stranger = Stranger {
        pool: job.pool,
        follow: job.follow,
        command: Template::parse(&name, false, &nothing).map_err(Failure::fleetpool)?,
    };
    let (limit, limited) = watch::channel(0);
    let (engine, fed) = mpsc::unbounded_channel();
    let feeder = Feeder {
        inputs: Inputs::new(std::iter::empty(), false),
        past: None,
        spec: SpecId(0),
        submitter: submitter.clone(),
        limit: limited,
        engine,
    };
    let engine = Engine {
        stranger: Some(stranger),
        ..Engine::new(job.cluster, submitter, fed, limit, job.recorder)
    };
    engine.run(events, feeder, &mut signals).await
}

/// A job that somebody else has started: what its tasks are is not known, only what becomes of them.
struct Stranger {
    pool: PoolId,
    follow: bool,
    command: Template,
}

impl Stranger {
    fn task(&self, index: u64) -> Task {
        Task {
            seq: index + 1,
            values: Vec::new(),
            command: self.command.command(index + 1, &[]),
            host: None,
        }
    }
}

type Tasks = std::collections::BTreeMap<u64, Task>;

/// The slots that the pool holds, as last heard.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    allotted: u32,
    eligible: u32,
    hosts: u32,
    /// Whether too few of them were spoken about.
    told: bool,
}

struct Engine {
    cluster: Cluster,
    submitter: Submitter,
    /// Slots asked for.
    asked: Option<u32>,
    /// Submitted and not ended, by index.
    tasks: Tasks,
    fed: mpsc::UnboundedReceiver<Fed>,
    gate: Gate,
    limit: watch::Sender<u64>,
    halt: Halt,
    hosts: Hosts,
    total: Option<u64>,
    progress: bool,
    recorder: Recorder,
    verdict: Verdict,
    slots: Slots,
    began: Instant,
    /// The feeder is at work.
    feeding: bool,
    /// Why the run ends when what runs has ended.
    failure: Option<Failure>,
    /// What runs has been told to end.
    stopped: bool,
    /// The deadline, or when a stopped run is left to itself.
    give_up: Option<Instant>,
    /// It is watched only.
    stranger: Option<Stranger>,
}

impl Engine {
    /// One that runs all it is fed, for as long as it takes.
    fn new(
        cluster: Cluster,
        submitter: Submitter,
        fed: mpsc::UnboundedReceiver<Fed>,
        limit: watch::Sender<u64>,
        recorder: Recorder,
    ) -> Self {
        Self {
            cluster,
            submitter,
            asked: None,
            tasks: Tasks::default(),
            fed,
            gate: Gate::Open,
            limit,
            halt: Halt::Never,
            hosts: Hosts::Coming,
            total: None,
            progress: false,
            recorder,
            verdict: Verdict::default(),
            slots: Slots::default(),
            began: Instant::now(),
            feeding: true,
            stopped: false,
            failure: None,
            give_up: None,
            stranger: None,
        }
    }

    async fn run(
        mut self,
        mut events: Events,
        feeder: Feeder,
        signals: &mut Signals,
    ) -> Result<Exit, Failure> {
        let mut feeding = pin!(feeder.run());
        let mut tick = interval_at(Instant::now() + progress::APPEARS_AFTER, progress::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut patience = pin!(tokio::time::sleep(PATIENCE));
        let mut waits = true;
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event else { break };
                    self.on_events(event, &mut events)?;
                }
                fed = &mut feeding, if self.feeding => self.on_fed_all(fed)?,
                signal = signals.next() => self.on_signal(signal).await?,
                () = sleep_until(self.give_up.unwrap_or_else(Instant::now)), if self.give_up.is_some() => {
                    self.on_deadline()?;
                }
                _ = tick.tick(), if self.progress => self.show_progress(),
                () = &mut patience, if waits => {
                    waits = false;
                    self.on_patience_lost()?;
                }
            }
            self.take_fed()?;
            self.flush(signals).await?;
        }
        self.end(signals).await
    }

    /// Writes what is due; a signal is heard meanwhile.
    async fn flush(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        loop {
            let signal = tokio::select! {
                flushed = self.recorder.flush() => return self.unless_nobody_reads(flushed).await,
                signal = signals.next() => signal,
            };
            self.on_signal(signal).await?;
        }
    }

    /// When nobody reads what tasks print, nobody wants them to run.
    async fn unless_nobody_reads(&self, flushed: Result<(), Failure>) -> Result<(), Failure> {
        if flushed.is_err() {
            self.kill().await;
        }
        flushed
    }

    fn on_events(&mut self, first: PoolEvent, events: &mut Events) -> Result<(), Failure> {
        self.take_fed()?;
        self.on_event(first)?;
        for _ in 0..BATCH_EVENTS {
            match events.try_next() {
                Some(event) => self.on_event(event)?,
                None => break,
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: PoolEvent) -> Result<(), Failure> {
        self.meet(&event);
        match event {
            PoolEvent::Output {
                index,
                attempt,
                host,
                stream,
                bytes,
                ..
            } => {
                let Some(task) = self.tasks.get(&index) else {
                    return Ok(());
                };
                let host = self.cluster.host_name(host).unwrap_or_default();
                self.recorder.output(task, &host, attempt.0, stream, &bytes)
            }
            PoolEvent::Ended { row, payload } => match self.tasks.remove(&row.index) {
                Some(task) => self.on_ended(&Ended::new(task, self.host_of(&row), &row, &payload)),
                None => Ok(()),
            },
            PoolEvent::Slots {
                allotted,
                eligible,
                hosts,
            } => self.on_slots(allotted, eligible, hosts),
            PoolEvent::Notice(text) => self.recorder.note(&text),
            PoolEvent::Refused { reason, kind } => Err(refused(kind, &reason)),
            PoolEvent::Finished => Ok(()),
            PoolEvent::Lost(reason) => Err(Failure::fleetpool(format!(
                "the session with the cluster is lost: {reason}: what ran is being ended there; with --joblog, --resume goes on from here"
            ))),
        }
    }

    /// A task of a stranger's job is known from the first that is heard of it.
    fn meet(&mut self, event: &PoolEvent) {
        let index = match event {
            PoolEvent::Output { index, .. } => *index,
            PoolEvent::Ended { row, .. } => row.index,
            _ => return,
        };
        if let Some(stranger) = &self.stranger {
            let task = || stranger.task(index);
            self.tasks.entry(index).or_insert_with(task);
        }
    }

    /// The name of the host that a task ran on, if it ever began.
    fn host_of(&self, row: &ResultRow) -> Option<String> {
        if row.attempt.0 == 0 {
            None
        } else {
            self.cluster.host_name(row.host)
        }
    }

    fn on_ended(&mut self, ended: &Ended) -> Result<(), Failure> {
        let stopped_before = self.verdict.stopped;
        self.verdict.add(ended.outcome);
        self.recorder
            .ended(ended, self.verdict.stopped == stopped_before)?;
        self.open_gate();
        match self.halt.verdict(self.verdict.counts, self.total) {
            Some(how) if self.verdict.end().is_none() => self.on_halt(how),
            _ => Ok(()),
        }
    }

    fn on_halt(&mut self, how: How) -> Result<(), Failure> {
        let end = if self.halt.waits_for_success() {
            End::HaltedBySuccess
        } else {
            End::Halted
        };
        self.verdict.stop(end);
        let what = match how {
            How::Now => "ending the tasks that run",
            How::Soon => "waiting for the tasks that run",
        };
        let (ended, total) = (self.verdict.ended(), self.total);
        if Some(ended) != total {
            let of = total.map_or_else(String::new, |total| format!(" of {total}"));
            self.recorder.note(&format!(
                "halted after {ended}{of} tasks: starting no more, {what}"
            ))?;
        }
        match how {
            How::Now => self.stop(),
            How::Soon => self.stop_feeding(),
        }
        Ok(())
    }

    fn on_slots(&mut self, allotted: u32, eligible: u32, hosts: u32) -> Result<(), Failure> {
        self.slots = Slots {
            allotted,
            eligible,
            hosts,
            ..self.slots
        };
        self.open_gate();
        let Some(asked) = self
            .asked
            .filter(|asked| hosts > 0 && eligible < *asked && !self.slots.told)
            .filter(|_| self.hosts == Hosts::Standing)
        else {
            return Ok(());
        };
        self.slots.told = true;
        self.recorder.note(&format!(
            "asked for {asked} slots, there are {eligible} on {}: running with what there is, more are used as they come",
            count(hosts.into(), "host")
        ))
    }

    /// Slots are given to a pool as it asks for them, so those that it could have are what it may fill.
    fn open_gate(&mut self) {
        let slots = self.slots.eligible.min(self.asked.unwrap_or(u32::MAX));
        let limit = self.gate.limit(self.verdict.ended(), slots);
        self.limit
            .send_if_modified(|now| std::mem::replace(now, limit) != limit);
    }

    /// Takes in what the feeder has told.
    fn take_fed(&mut self) -> Result<(), Failure> {
        while let Ok(fed) = self.fed.try_recv() {
            match fed {
                Fed::Submitted(index, task) => drop(self.tasks.insert(index, task)),
                Fed::Skipped(seq) => self.recorder.printer.skip(seq),
                Fed::Unsent(ended) => self.on_ended(&ended)?,
            }
        }
        Ok(())
    }

    fn on_fed_all(&mut self, fed: Result<(), Failure>) -> Result<(), Failure> {
        self.feeding = false;
        self.take_fed()?;
        match fed {
            Err(failure) if self.tasks.is_empty() => Err(failure),
            Err(failure) => {
                self.recorder
                    .note("waiting for the tasks that run, then ending")?;
                self.failure = Some(failure);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The first signal stops the run, the second does not wait for it to end.
    async fn on_signal(&mut self, signal: Signal) -> Result<(), Failure> {
        if let Some(stranger) = &self.stranger {
            let exit = Exit::Signal(signal as i32);
            let number = stranger.pool.0;
            return Err(Failure::new(
                exit,
                format!(
                    "job {number} goes on by itself: `fleetpool attach {number}` watches it again"
                ),
            ));
        }
        let end = End::Signal(signal as i32);
        if matches!(self.verdict.end(), Some(End::Signal(_))) {
            self.kill().await;
            // Not by returning: a cluster that is dropped ends in good order, which takes its time. An embedded one
            // ends with its process, and its processes with it.
            std::process::exit(i32::from(Exit::Signal(signal as i32).code()));
        }
        self.verdict.stop(end);
        self.recorder.note(&format!(
            "{}: starting no more tasks, ending those that run; once more kills them at once",
            if signal == Signal::SIGINT {
                "interrupted"
            } else {
                signal.as_str()
            }
        ))?;
        self.stop();
        Ok(())
    }

    fn on_deadline(&mut self) -> Result<(), Failure> {
        if self.stopped {
            self.submitter.terminate();
            let left = self.tasks.len();
            return Err(Failure::new(
                self.verdict.exit(),
                format!(
                    "{left} tasks were told to end and their hosts do not answer: look with `fleetpool hosts`"
                ),
            ));
        }
        self.verdict.stop(End::Deadline);
        self.recorder
            .note("the deadline has passed: starting no more tasks, ending those that run")?;
        self.stop();
        Ok(())
    }

    fn on_patience_lost(&mut self) -> Result<(), Failure> {
        if self.stranger.is_some()
            || self.slots.hosts > 0
            || self.verdict.ended() > 0
            || !self.feeding && self.tasks.is_empty()
        {
            return Ok(());
        }
        self.recorder.note(match self.hosts {
            Hosts::Standing => "no host is connected that may run this: waiting for one (`fleetpool hosts` lists them)",
            Hosts::Coming => "no host is logged in to yet: waiting for ssh",
        })
    }

    fn show_progress(&mut self) {
        let (total, elapsed) = (self.total, self.began.elapsed());
        let appear = || Progress::appear(total, elapsed);
        let progress = self.recorder.progress.get_or_insert_with(appear);
        progress.show(self.verdict.counts, self.slots.allotted, self.slots.hosts);
    }

    /// Starts nothing more and ends what runs.
    fn stop(&mut self) {
        self.stopped = true;
        self.stop_feeding();
        self.submitter.cancel(self.tasks.keys().copied().collect());
        self.give_up = Some(Instant::now() + STOP_TIME_MAX);
    }

    /// Starts nothing more.
    fn stop_feeding(&mut self) {
        self.feeding = false;
        self.submitter.close();
    }

    /// Ends the pool without waiting for anything but that this is said.
    async fn kill(&self) {
        self.submitter.terminate();
        let _ = tokio::time::timeout(KILL_TIME_MAX, self.submitter.flush()).await;
    }

    /// The pool has ended.
    async fn end(mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        let left = self.tasks.len();
        self.recorder.finish(&self.verdict, self.total)?;
        self.flush(signals).await?;
        match self.failure {
            Some(failure) => Err(failure),
            None if self.stranger.is_some_and(|stranger| !stranger.follow) => {
                Ok(self.verdict.exit())
            }
            None if left > 0 && self.verdict.end().is_none() => Err(Failure::fleetpool(format!(
                "somebody else ended this job: {left} of its tasks have no outcome; with --joblog, --resume goes on from here"
            ))),
            None => Ok(self.verdict.exit()),
        }
    }
}

pub(super) fn refused(kind: Refusal, reason: &str) -> Failure {
    let exit = match kind {
        Refusal::NoHostMatches => Exit::NothingMatched,
        Refusal::Invalid => Exit::Usage,
        Refusal::Unfit | Refusal::Forbidden => Exit::Fleetpool,
    };
    Failure::new(exit, reason)
}
