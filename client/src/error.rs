//! What can go wrong with a pool and with its tasks.

use std::fmt;

use crate::cluster;

/// A call on a pool that failed.
///
/// `Debug` says the same as `Display`, for programs whose `main` returns it.
///
/// ```no_run
/// use fleetpool::{Error, TaskError};
/// # #[fleetpool::task] fn square(x: u64) -> u64 { x * x }
/// # fn f(pool: &fleetpool::Pool) -> Result<(), Error> {
/// for result in pool.imap(square, 0..100) {
///     match result {
///         Ok(result) => println!("{result}"),
///         Err(Error::Task(TaskError::WorkerLost { index, signal, .. })) => {
///             eprintln!("task {index} is lost: signal {signal:?}");
///         }
///         Err(Error::Task(other)) => eprintln!("{other}"),
///         Err(fatal) => return Err(fatal),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A task of the call did not succeed: of several, the one of the lowest index.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The pool was closed, and takes no new calls.
    #[error("the pool is closed: make all calls before close()")]
    Closed,
    /// The pool was terminated, and with it everything that was running in it.
    #[error("the pool was terminated{}", because(.reason))]
    Terminated {
        /// Why, where somebody else did it.
        reason: String,
    },
    /// [`join`](crate::Pool::join) would wait for ever.
    #[error("the pool is not closed: call close() or terminate() before join()")]
    NotClosed,
    /// The result did not come in the time given. The task goes on.
    #[error("no result yet: wait longer, or cancel()")]
    TimedOut,
    /// What was asked for cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The program has not called [`init`](crate::init), so that its workers would run `main` again.
    #[error("fleetpool::init() was not called: call it first in main()")]
    NotInitialised,
    /// A task tried to open a pool.
    #[error(
        "a task cannot open a pool: its worker holds one slot of the pool it belongs to; return the work to be done and let the caller submit it"
    )]
    Nested,
    /// The cluster cannot be used, or does not want the pool.
    #[error(transparent)]
    Cluster(cluster::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<cluster::Error> for Error {
    fn from(error: cluster::Error) -> Self {
        match error {
            cluster::Error::Closed => Self::Closed,
            other => Self::Cluster(other),
        }
    }
}

/// Why one task has no result.
///
/// `index` is the task's place among the inputs of its call, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It panicked, or its result could not be sent.
    #[error("task {index} failed on {host}: {message}{}", at(.location))]
    Failed {
        /// Which task.
        index: u64,
        /// Where it ran.
        host: String,
        /// The panic's message.
        message: String,
        /// Where it panicked: `file:line:column`.
        location: String,
    },
    /// The process that ran it died under it. Only this task is affected.
    #[error(
        "task {index} lost its worker (process {pid} on {host}): {}{}{}", end(*.signal, *.exit), peak(*.memory), tail(.stderr_tail)
    )]
    WorkerLost {
        /// Which task.
        index: u64,
        /// Where it ran.
        host: String,
        /// The worker's process.
        pid: u32,
        /// The signal that ended it.
        signal: Option<i32>,
        /// The status it exited with.
        exit: Option<i32>,
        /// Its largest resident memory, in KiB; 0 when unknown.
        memory: u64,
        /// The last lines that it wrote to stderr.
        stderr_tail: String,
    },
    /// The kernel killed it for want of memory.
    #[error(
        "task {index} ran out of memory on {host}{}: use fewer processes there, or a larger host", peak(*.memory)
    )]
    OutOfMemory {
        /// Which task.
        index: u64,
        /// Where it ran.
        host: String,
        /// The worker's process.
        pid: u32,
        /// Its largest resident memory, in KiB; 0 when unknown.
        memory: u64,
    },
    /// Its host was lost more often than its retries allow.
    #[error("task {index} lost its host {host}{}", because(.message))]
    HostLost {
        /// Which task.
        index: u64,
        /// The host.
        host: String,
        /// What is known.
        message: String,
    },
    /// It ran longer than the pool's timeout and was killed.
    #[error("task {index} ran past its timeout on {host} and was killed")]
    TimedOut {
        /// Which task.
        index: u64,
        /// Where it ran.
        host: String,
    },
    /// It was cancelled.
    #[error("task {index} was cancelled")]
    Cancelled {
        /// Which task.
        index: u64,
    },
    /// It could not be started.
    #[error("task {index} could not be started{}", because(.message))]
    NotStarted {
        /// Which task.
        index: u64,
        /// Why.
        message: String,
    },
    /// Its host was lost and it may not run twice: nobody knows whether it ended.
    #[error("nobody knows whether task {index} ended on {host}{}", because(.message))]
    Unknown {
        /// Which task.
        index: u64,
        /// Where it ran last.
        host: String,
        /// What is known.
        message: String,
    },
    /// Its result came and could not be decoded.
    #[error("the result of task {index} cannot be read: {message}")]
    Decode {
        /// Which task.
        index: u64,
        /// Why.
        message: String,
    },
}

impl TaskError {
    /// The task's place among the inputs of its call.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            Self::Failed { index, .. }
            | Self::WorkerLost { index, .. }
            | Self::OutOfMemory { index, .. }
            | Self::HostLost { index, .. }
            | Self::TimedOut { index, .. }
            | Self::Cancelled { index }
            | Self::NotStarted { index, .. }
            | Self::Unknown { index, .. }
            | Self::Decode { index, .. } => *index,
        }
    }
}

fn because(reason: &str) -> Fragment<'_> {
    Fragment(": ", reason)
}

fn at(location: &str) -> Fragment<'_> {
    Fragment(", at ", location)
}

/// A text that is left out with what introduces it when it is empty.
struct Fragment<'a>(&'static str, &'a str);

impl fmt::Display for Fragment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1.trim_end() {
            "" => Ok(()),
            text => write!(f, "{}{text}", self.0),
        }
    }
}

fn end(signal: Option<i32>, exit: Option<i32>) -> String {
    match (signal, exit) {
        (Some(number), _) => match nix::sys::signal::Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, Some(status)) => format!("it exited with status {status}"),
        (None, None) => "nobody saw how it ended".to_owned(),
    }
}

fn peak(kib: u64) -> String {
    match kib {
        0 => String::new(),
        kib => format!(", at {} MiB of memory", kib.div_ceil(1024)),
    }
}

fn tail(stderr: &str) -> String {
    match stderr.trim_end() {
        "" => String::new(),
        text => format!("; it said last:\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_is_known_and_nothing_else() {
        let mut lost = TaskError::WorkerLost {
            index: 3,
            host: "web1".to_owned(),
            pid: 42,
            signal: Some(9),
            exit: None,
            memory: 2048,
            stderr_tail: "about to\ngo wrong\n".to_owned(),
        };
        assert_eq!(
            lost.to_string(),
            "task 3 lost its worker (process 42 on web1): killed by SIGKILL, at 2 MiB of memory; it said last:\nabout to\ngo wrong"
        );
        if let TaskError::WorkerLost {
            signal,
            exit,
            memory,
            stderr_tail,
            ..
        } = &mut lost
        {
            (*signal, *exit, *memory) = (None, Some(3), 0);
            stderr_tail.clear();
        }
        assert_eq!(
            lost.to_string(),
            "task 3 lost its worker (process 42 on web1): it exited with status 3"
        );
        let reason = String::new();
        assert_eq!(
            Error::Terminated { reason }.to_string(),
            "the pool was terminated"
        );
    }
}
