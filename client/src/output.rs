//! Where what tasks print goes.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use fleetpool_proto::message::OutputRow;
pub use fleetpool_proto::message::Stream;

use crate::cluster::Hosts;

/// What a task printed: a line, as a rule. Longer pieces come where a task writes without line ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Printed {
    /// The task, counted in the order in which its pool was given tasks.
    pub index: u64,
    /// The host's name.
    pub host: String,
    /// The worker's process.
    pub pid: u32,
    /// Where it was written to.
    pub stream: Stream,
    /// What, with its line end.
    pub bytes: Bytes,
}

/// What becomes of what tasks print. It is called before the task's result is delivered.
#[derive(Clone, Default)]
pub(crate) enum Output {
    /// It goes to this process's own stdout and stderr.
    #[default]
    Inherit,
    /// A function gets it.
    To(Arc<dyn Fn(Printed) + Send + Sync>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inherit => "Inherit",
            Self::To(_) => "To(..)",
        })
    }
}

/// Gets what is to be known of a pool as a whole: a host that cannot work for it, and why; that there is none.
#[derive(Clone)]
pub(crate) struct Notes(Arc<dyn Fn(String) + Send + Sync>);

impl Notes {
    pub(crate) fn to(function: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    /// Tells it beside the cluster's thread; back when that is done.
    pub(crate) async fn tell(&self, text: String) {
        let function = Arc::clone(&self.0);
        // A panic of the caller's function was printed; the pool goes on.
        let _ = tokio::task::spawn_blocking(move || function(text)).await;
    }
}

/// Passes output on, beside the cluster's thread: a terminal that is slow must not stop the cluster.
#[derive(Debug)]
pub(crate) struct Printer {
    output: Output,
}

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    /// Passes on what these rows say; back when that is done.
    pub(crate) async fn print(&mut self, hosts: &Hosts, rows: Vec<OutputRow>, pieces: Vec<Bytes>) {
        let pieces = rows.into_iter().zip(pieces);
        let job: Box<dyn FnOnce() + Send> = match &self.output {
            Output::Inherit => {
                let pieces: Vec<_> = pieces.map(|(row, bytes)| (row.stream, bytes)).collect();
                Box::new(move || copy(&pieces))
            }
            Output::To(function) => {
                let name = |row: &OutputRow| hosts.name(row.host).unwrap_or_default();
                let printed = pieces.map(|(row, bytes)| Printed {
                    index: row.index,
                    host: name(&row),
                    pid: row.pid,
                    stream: row.stream,
                    bytes,
                });
                let (printed, function) = (printed.collect::<Vec<_>>(), Arc::clone(function));
                Box::new(move || printed.into_iter().for_each(|printed| function(printed)))
            }
        };
        // A panic of the caller's function was printed; the pool goes on.
        let _ = tokio::task::spawn_blocking(job).await;
    }
}

/// Writes as whole pieces. A stdout that is closed or full is the program's own affair.
fn copy(pieces: &[(Stream, Bytes)]) {
    for (stream, bytes) in pieces {
        let _ = match stream {
            Stream::Stdout => write(io::stdout().lock(), bytes),
            Stream::Stderr => write(io::stderr().lock(), bytes),
        };
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
