//! The options that `map` and `exec` share, and what they come to.

use std::{ffi::OsString, io::IsTerminal as _, path::PathBuf, time::Duration};

use clap::Args;
use fleetpool_proto::pool::{Retries, Spec};

use crate::{
    duration,
    failure::Failure,
    halt::Halt,
    joblog::{Joblog, Past, Resume},
    other_user,
    output::{Style, TagStyle},
    results::Results,
    run::{Explain, Keep, Recorder},
    template::Template,
};

/// What people who look for sudo are to do.
const NO_SUDO: &str = "there is no --sudo: say `sudo -n` in front of the command where sudo lets the agent's user, \
or --user root where agents are root's (fleetpool deploy --run-as root)";

/// Options of `map` and `exec` alike.
#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    /// Kill a task and everything it started when it runs longer than this
    #[arg(long, value_name = "DUR", value_parser = duration::parse, help_heading = "Running")]
    pub(crate) timeout: Option<Duration>,
    /// Stop the whole run after this time (exit status 124)
    #[arg(long, value_name = "DUR", value_parser = duration::parse, help_heading = "Running")]
    pub(crate) deadline: Option<Duration>,
    /// Run a task that failed or timed out again, up to N times
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        help_heading = "Running"
    )]
    pub(crate) retries: u32,
    /// Variable for the tasks: NAME=VALUE, or NAME to pass on its value here (repeatable)
    #[arg(long, value_name = "NAME[=V]", value_parser = variable, help_heading = "Running")]
    env: Vec<(String, Option<String>)>,
    /// Folder that tasks run in
    #[arg(long, value_name = "DIR", help_heading = "Running")]
    cwd: Option<String>,
    /// Run as this user of each host, whose agent has to be root's
    #[arg(long, value_name = "NAME", help_heading = "Running")]
    user: Option<String>,
    /// Told apart from a word that is not known: people look for it.
    #[arg(long, hide = true)]
    sudo: bool,
    /// Let processes that a task leaves behind live
    #[arg(long, help_heading = "Running")]
    leave_children: bool,
    /// Leave it to the cluster: print the job's number once all is submitted, and end (see `attach`, `logs`, `jobs`, `cancel`)
    #[arg(long, conflicts_with_all = ["deadline", "halt", "joblog", "results", "keep_order", "json"], help_heading = "Running")]
    pub(crate) detach: bool,
    /// Print the commands, run none
    #[arg(long, help_heading = "Running")]
    pub(crate) dry_run: bool,
    /// Print tasks in the order of their inputs
    #[arg(short, long, help_heading = "Output")]
    keep_order: bool,
    /// Print each line as it comes, not a task's output when it ends
    #[arg(long, visible_alias = "lb", conflicts_with_all = ["keep_order", "json"], help_heading = "Output")]
    line_buffer: bool,
    /// Put the input (map) or the host (exec) in front of each line
    #[arg(long, overrides_with = "no_tag", help_heading = "Output")]
    tag: bool,
    /// Put nothing in front of lines
    #[arg(long, overrides_with = "tag", help_heading = "Output")]
    no_tag: bool,
    /// Print an object a task: index host pid attempt start runtime exit signal outcome stdout stderr cmd
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Show progress on the terminal (the default where there is one) [aliases: --bar, --eta]
    #[arg(long, aliases = ["bar", "eta"], overrides_with = "no_progress", help_heading = "Output")]
    progress: bool,
    /// Show no progress
    #[arg(long, overrides_with = "progress", help_heading = "Output")]
    no_progress: bool,
    /// Say nothing but what tasks say
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Note each finished task in FILE, in GNU parallel's columns
    #[arg(long, value_name = "FILE", help_heading = "Keeping")]
    joblog: Option<PathBuf>,
    /// Do not run again what the joblog has as finished
    #[arg(
        long,
        requires = "joblog",
        conflicts_with = "resume_failed",
        help_heading = "Keeping"
    )]
    resume: bool,
    /// Do not run again what the joblog has as succeeded
    #[arg(long, requires = "joblog", help_heading = "Keeping")]
    resume_failed: bool,
    /// Keep what tasks print: DIR/1/INPUT/stdout and so on, or a record a task in FILE.json or FILE.csv
    #[arg(long, value_name = "DIR|FILE", help_heading = "Keeping")]
    results: Option<PathBuf>,
    /// Stop early: now|soon,fail|success|done=N|N%
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "never",
        hide_default_value = true,
        alias = "halt-on-error",
        help_heading = "Running"
    )]
    pub(crate) halt: Halt,
}

/// What a verb does with the shared options where they leave it open.
#[derive(Debug)]
pub(crate) struct Habits {
    /// How lines are tagged by default.
    pub(crate) tags: TagStyle,
    /// How they are tagged when `--tag` says so.
    pub(crate) tag: TagStyle,
    /// What fleetpool itself says about ends.
    pub(crate) explain: Explain,
    /// The style in place of the one that the options name.
    pub(crate) style: Option<Style>,
}

impl TaskArgs {
    /// What tasks have in common.
    pub(crate) fn spec(&self, stdin: Vec<u8>) -> Result<Spec, Failure> {
        Ok(Spec {
            timeout_ms: self.timeout.map_or(0, duration::millis),
            leave_children: self.leave_children,
            cwd: self.cwd.clone(),
            env: self.env.iter().map(resolve).collect::<Result<_, _>>()?,
            stdin: stdin.into(),
            ..Spec::default()
        })
    }

    /// The command as the user that it is to be run as.
    pub(crate) fn as_user(&self, template: Template) -> Result<Template, Failure> {
        if self.sudo {
            return Err(Failure::usage(NO_SUDO));
        }
        Ok(match &self.user {
            Some(user) => template.started_by(other_user::words(user)),
            None => template,
        })
    }

    /// How often tasks are run again.
    pub(crate) fn retries(&self) -> Retries {
        Retries {
            failed: self.retries,
            worker_lost: self.retries,
            ..Retries::default()
        }
    }

    /// What the joblog says of an earlier run, where this one resumes it.
    pub(crate) fn past(&self) -> Result<Option<Past>, Failure> {
        let resume = match (self.resume, self.resume_failed) {
            (true, _) => Resume::Finished,
            (_, true) => Resume::Succeeded,
            _ => return Ok(None),
        };
        let past = self.joblog.as_deref().map(|path| Past::read(path, resume));
        past.transpose().map_err(Failure::usage)
    }

    /// Opens everything that keeps what becomes of tasks.
    pub(crate) fn recorder(
        &self,
        past: Option<&Past>,
        habits: Habits,
    ) -> Result<Recorder, Failure> {
        let joblog = self.joblog.as_deref().map(|path| Joblog::open(path, past));
        let results = self
            .results
            .as_deref()
            .map(|path| Results::open(path, past.is_some()));
        let style = habits.style.unwrap_or_else(|| self.style());
        let tags = match (&style, self.tag, self.no_tag) {
            (Style::Json | Style::Gathered(_), ..) | (_, _, true) => TagStyle::None,
            (_, true, _) => habits.tag,
            _ => habits.tags,
        };
        let keep = Keep {
            joblog: joblog.transpose().map_err(Failure::fleetpool)?,
            results: results.transpose().map_err(Failure::fleetpool)?,
            explain: habits.explain,
            quiet: self.quiet,
        };
        Ok(Recorder::new(style, tags, self.keep_order, keep))
    }

    /// Whether progress is shown: on a terminal, and without being asked only where output goes elsewhere.
    pub(crate) fn shows_progress(&self) -> bool {
        let wanted = self.progress || !std::io::stdout().is_terminal();
        wanted && !self.no_progress && !self.quiet && std::io::stderr().is_terminal()
    }

    fn style(&self) -> Style {
        match (self.json, self.line_buffer) {
            (true, _) => Style::Json,
            (_, true) => Style::Lines,
            _ => Style::Grouped,
        }
    }
}

/// `NAME=VALUE`, or `NAME`.
fn variable(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(
            "a variable is written NAME=VALUE, or NAME to pass on the one that is set here"
                .to_owned(),
        );
    }
    Ok((name.to_owned(), value))
}

/// A variable with its value; one without takes the value it has here.
fn resolve((name, value): &(String, Option<String>)) -> Result<(String, Option<String>), Failure> {
    let value = match value {
        Some(value) => value.clone(),
        None => std::env::var(name).map_err(|error| {
            Failure::usage(format!(
                "--env {name}: {error} here: set it, or write --env {name}=VALUE"
            ))
        })?,
    };
    Ok((name.clone(), Some(value)))
}

/// `-j N`.
pub(crate) fn jobs(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(jobs) if jobs > 0 => Ok(jobs),
        _ => Err(
            "the number of tasks at once is 1 or more; leave -j out to use every slot".to_owned(),
        ),
    }
}

/// The command's first words, as a name for people.
pub(crate) fn name(words: &[OsString]) -> String {
    let text = words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    text.chars().take(NAME_CHARS_MAX).collect()
}

/// Longest name of a job that is made of its command.
const NAME_CHARS_MAX: usize = 60;
