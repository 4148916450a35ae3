//! Everything that keeps what becomes of tasks: the output, the joblog, the results, the progress line.

use std::io;

use fleetpool_proto::{Outcome, limits::SPOOL_BYTES_MAX, message::Stream};

use super::{
    ended::{Ended, Task},
    verdict::Verdict,
};
use crate::{
    failure::{Exit, Failure, count},
    joblog::Joblog,
    output::{Full, Printer, Progress, Stdio, Style, TagStyle},
    results::Results,
};

/// Losses that are explained one by one; the rest is counted.
const EXPLAINED_MAX: u64 = 5;

/// Which ends of tasks fleetpool itself says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Explain {
    /// Those that tasks cannot tell of themselves: losses.
    Losses,
    /// All that failed, by host.
    Failures,
    /// None: they are shown otherwise.
    Nothing,
}

/// Keeps a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(super) printer: Printer,
    pub(super) progress: Option<Progress>,
    stdio: Stdio,
    joblog: Option<Joblog>,
    results: Option<Results>,
    explain: Explain,
    /// Nothing is said but what tasks say.
    quiet: bool,
    explained: u64,
    /// It was said that tasks are printed as they come.
    passing_told: bool,
    first_failure: Option<String>,
}

/// What a run keeps, and how much fleetpool itself says.
#[derive(Debug)]
pub(crate) struct Keep {
    /// `--joblog`.
    pub(crate) joblog: Option<Joblog>,
    /// `--results`.
    pub(crate) results: Option<Results>,
    /// Which ends are explained.
    pub(crate) explain: Explain,
    /// Nothing is said but what tasks say.
    pub(crate) quiet: bool,
}

impl Recorder {
    /// Prints in this style, in the order of the inputs if `ordered`.
    pub(crate) fn new(style: Style, tags: TagStyle, ordered: bool, keep: Keep) -> Self {
        let keeps = keep.results.as_ref().is_some_and(Results::wants_output);
        Self {
            printer: Printer::new(style, tags, ordered, keeps),
            progress: None,
            stdio: Stdio::new(),
            joblog: keep.joblog,
            results: keep.results,
            explain: keep.explain,
            quiet: keep.quiet,
            explained: 0,
            passing_told: false,
            first_failure: None,
        }
    }

    /// A task printed something.
    pub(super) fn output(
        &mut self,
        task: &Task,
        host: &str,
        attempt: u32,
        stream: Stream,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        if let Some(results) = &mut self.results
            && results.keeps_alone(stream)
        {
            let kept = results.output(task, stream, bytes, false);
            return kept.map_err(Failure::fleetpool);
        }
        let anew = self
            .printer
            .output(task, host, attempt, stream, bytes)
            .map_err(spooling)?;
        if self.printer.take_passing() {
            self.note_passing(task);
        }
        match &mut self.results {
            Some(results) => results
                .output(task, stream, bytes, anew)
                .map_err(Failure::fleetpool),
            None => Ok(()),
        }
    }

    fn note_passing(&mut self, task: &Task) {
        if self.passing_told || self.quiet {
            return;
        }
        self.passing_told = true;
        self.printer.note(&format!(
            "{} MiB of output wait for the end of their tasks, and no more can: task {}, and any other that finds no room, is printed line by line as it comes, as --line-buffer prints all",
            SPOOL_BYTES_MAX >> 20,
            task.seq
        ));
    }

    /// A task has ended; `counts` when it did so by itself.
    pub(super) fn ended(&mut self, ended: &Ended, counts: bool) -> Result<(), Failure> {
        let (stdout_bytes, printed) = self.printer.printed(ended.task.seq);
        if let Some(joblog) = self.joblog.as_mut().filter(|_| counts) {
            joblog
                .note(ended, stdout_bytes)
                .map_err(Failure::fleetpool)?;
        }
        if let Some(results) = self.results.as_mut().filter(|_| counts) {
            let record = results
                .wants_output()
                .then(|| self.printer.record(ended))
                .transpose()
                .map_err(spooling)?;
            results
                .ended(ended, printed, record.as_ref())
                .map_err(Failure::fleetpool)?;
        }
        self.printer.ended(ended).map_err(spooling)?;
        if counts { self.explain(ended) } else { Ok(()) }
    }

    /// Says in words what is not plain from what the task has printed.
    fn explain(&mut self, ended: &Ended) -> Result<(), Failure> {
        if ended.leaked > 0 {
            self.explain_once(&format!(
                "{} left {} running, ended now",
                name(ended),
                processes(ended.leaked)
            ))?;
        }
        if ended.outcome.is_success() {
            return Ok(());
        }
        if self.first_failure.is_none() {
            self.first_failure = Some(format!("{}: {}", name(ended), ended.words()));
        }
        match self.explain {
            Explain::Failures => self.note(&format!("{}: {}", ended.host, ended.words())),
            Explain::Losses if ended.outcome != Outcome::Failed => self.explain_once(&format!(
                "{} ({}): {}",
                name(ended),
                ended.text(),
                ended.words()
            )),
            Explain::Losses | Explain::Nothing => Ok(()),
        }
    }

    fn explain_once(&mut self, text: &str) -> Result<(), Failure> {
        self.explained += 1;
        match self.explained {
            ..=EXPLAINED_MAX => self.note(text),
            _ => Ok(()),
        }
    }

    /// fleetpool itself has something to say.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        if !self.quiet {
            self.printer.note(text);
        }
        Ok(())
    }

    /// The last words.
    pub(super) fn finish(&mut self, verdict: &Verdict, total: Option<u64>) -> Result<(), Failure> {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        self.printer.finish().map_err(spooling)?;
        match self.summary(verdict, total) {
            Some(summary) => self.note(&summary),
            None => Ok(()),
        }
    }

    /// What failed, as far as it has not been told.
    fn summary(&self, verdict: &Verdict, total: Option<u64>) -> Option<String> {
        let first = self.first_failure.as_ref()?;
        let told = self.explained > 0;
        let succeeded = verdict.exit() == Exit::Success;
        if self.explain != Explain::Losses || succeeded || told && verdict.counts.failed == 1 {
            return None;
        }
        let mut summary = match total {
            Some(total) => format!(
                "{} of {} failed",
                verdict.counts.failed,
                count(total, "task")
            ),
            None => format!("{} failed", count(verdict.counts.failed, "task")),
        };
        if !told {
            summary += &format!(", first {first}");
        }
        Some(summary)
    }

    /// Writes what is due. Cancel-safe.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if !self.printer.is_due() && self.stdio.is_idle() {
            return Ok(());
        }
        if let Some(progress) = &self.progress {
            progress.hide();
        }
        self.stdio.flush(&mut self.printer).await.map_err(writing)
    }
}

fn processes(number: u32) -> String {
    match number {
        1 => "a process".to_owned(),
        _ => format!("{number} processes"),
    }
}

fn name(ended: &Ended) -> String {
    match ended.host.as_str() {
        "" => format!("task {}", ended.task.seq),
        host => format!("task {} on {host}", ended.task.seq),
    }
}

fn spooling(error: io::Error) -> Failure {
    if error.get_ref().is_some_and(|inner| inner.is::<Full>()) {
        return Failure::fleetpool(format!(
            "{error}: print line by line (--line-buffer), or let tasks write into files of their own; with --joblog, --resume goes on from here"
        ));
    }
    let folder = std::env::temp_dir();
    Failure::fleetpool(format!(
        "cannot keep output that waits for its turn in {}: {error}: make room there, or name another folder with TMPDIR; with --joblog, --resume goes on from here",
        folder.display()
    ))
}

fn writing(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
        _ => Failure::new(
            Exit::Fleetpool,
            format!("cannot write output: {error}: with --joblog, --resume goes on from here"),
        ),
    }
}
