//! A pool's template on this host: the one process that each of its Python workers is forked from.
//!
//! An interpreter that has loaded what every worker of the pool begins with, and imported the modules that their
//! functions need, is forked in two milliseconds, where a new one would take twenty and the imports again. It is started
//! below the spawner in a keeper's place, and forks for each worker a keeper, which becomes this binary again with the
//! worker as its child: so every worker has a keeper of its own, as all have. The other side is
//! `agent/src/python/template.py`.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fleetpool_proto::{Payloads, worker::ToWorker};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Shared,
    dialect::{Dialect, FromTemplate},
};
use crate::{
    keeper::message::{FromKeeper, Place, ToKeeper},
    python,
    spawner::sys,
    wire::{self, Incoming, Outgoing},
};

/// Kinds of requests.
const IMPORT: u8 = 1;
const FORK: u8 = 2;
/// Names of modules in one request, in bytes.
const NAMES_BYTES_MAX: usize = 60 << 10;
/// Pause before a template that is behind is asked again.
const PAUSE: Duration = Duration::from_millis(1);

/// A template, from before it is ready. When this is dropped, its process ends.
#[derive(Debug)]
pub(crate) struct Template {
    requests: OwnedFd,
    /// Holds the sockets whose end is its end.
    process: JoinHandle<()>,
    /// Modules it was asked to import.
    imported: Mutex<Vec<String>>,
}

/// The version of Python that a template has: major, minor. Or why there is none, for people, unless it just died.
pub(crate) type Outcome = Result<(u8, u8), Option<String>>;

impl Template {
    /// Starts one; what becomes of it comes out of the receiver.
    ///
    /// # Errors
    /// When this process is out of descriptors.
    pub(crate) fn start(
        shared: &Shared,
        place: Place,
        interpreter: PathBuf,
        context: Bytes,
    ) -> io::Result<(Self, oneshot::Receiver<Outcome>)> {
        // Requests keep their bounds, and bring descriptors.
        let flags = SockFlag::SOCK_CLOEXEC;
        let (requests, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let (told, outcome) = oneshot::channel();
        let shared = shared.clone();
        let process = tokio::spawn(async move {
            match start(&shared, place, interpreter, context, theirs).await {
                Ok((version, mut alive)) => {
                    let _ = told.send(Ok(version));
                    alive.end().await;
                }
                Err(reason) => drop(told.send(Err(reason))),
            }
        });
        let template = Self {
            requests,
            process,
            imported: Mutex::default(),
        };
        Ok((template, outcome))
    }

    /// Whether its process has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.process.is_finished()
    }

    /// Has it import those of the modules that it has not, before workers are forked from now on. One that fails is no
    /// matter here: the task that needs it says so.
    pub(crate) fn import<'a>(&self, modules: impl Iterator<Item = &'a String>) {
        let mut imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = vec![IMPORT];
        for module in modules {
            if !imported.contains(module) && request.len() + module.len() < NAMES_BYTES_MAX {
                request.extend_from_slice(module.as_bytes());
                request.push(b'\n');
                imported.push(module.clone());
            }
        }
        if request.len() > 1 {
            // One that is behind goes without: its workers import for themselves.
            let _ = sys::send_descriptors(self.requests.as_fd(), &request, &[]);
        }
    }

    /// Asks for a worker, and its keeper; the socket to the keeper. It ends, with everything that it was given, when the
    /// template cannot fork.
    pub(super) async fn fork(
        &self,
        slot: u32,
        fence: Option<RawFd>,
        worker: &[RawFd],
    ) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let descriptors = std::iter::once(theirs.as_raw_fd())
            .chain(fence)
            .chain(worker.iter().copied());
        let descriptors: Vec<_> = descriptors.collect();
        let mut request = vec![FORK];
        request.extend_from_slice(&slot.to_le_bytes());
        request.push(fence.is_some().into());
        loop {
            match sys::send_descriptors(self.requests.as_fd(), &request, &descriptors) {
                // The latter: the kernel's limit of descriptors on their way.
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ETOOMANYREFS) => {
                    tokio::time::sleep(PAUSE).await;
                }
                sent => return Ok(sent.map(|()| ours)?),
            }
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.process.abort();
    }
}

/// The socket that a template lives as long as.
struct Alive {
    incoming: Incoming,
    _outgoing: Outgoing,
}

impl Alive {
    /// Waits for the end of the process.
    async fn end(&mut self) {
        while self.incoming.fill().await.unwrap_or(false) {}
    }
}

async fn start(
    shared: &Shared,
    place: Place,
    interpreter: PathBuf,
    context: Bytes,
    requests: OwnedFd,
) -> Result<((u8, u8), Alive), Option<String>> {
    let failed = |error: io::Error| Some(format!("no process could be started for it: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let descriptors = [theirs.as_raw_fd(), requests.as_raw_fd()];
    let keeper = super::when_it_listens(|| {
        let spawner = &shared.spawner;
        spawner.start_template(shared.relays, &descriptors)
    })
    .await;
    let keeper = keeper.map_err(failed)?;
    drop((theirs, requests));
    let (mut from_keeper, mut to_keeper) = wire::split(keeper).map_err(failed)?;
    let (mut from_template, mut to_template) = wire::split(ours).map_err(failed)?;
    to_keeper.put(ToKeeper::Place(place));
    to_keeper.put(ToKeeper::Become {
        program: interpreter,
        args: vec!["-c".to_owned(), python::BOOT.to_owned()],
    });
    to_template.put_pieces(python::program());
    let (function, payloads) = (String::new(), Payloads::from(vec![context]));
    Dialect::Python.put(ToWorker::Init { function, payloads }, &mut to_template);
    loop {
        to_keeper.flush();
        to_template.flush();
        tokio::select! {
            () = to_keeper.writable(), if to_keeper.is_behind() => {}
            () = to_template.writable(), if to_template.is_behind() => {}
            filled = from_template.fill() => {
                let more = filled.unwrap_or(false);
                match from_template.take_with(FromTemplate::read) {
                    Ok(Some(FromTemplate::Ready { version })) => {
                        let (incoming, _outgoing) = (from_template, to_template);
                        return Ok((version, Alive { incoming, _outgoing }));
                    }
                    Ok(Some(FromTemplate::Unfit { reason })) => return Err(Some(reason)),
                    Ok(None) if more => {}
                    _ => break,
                }
            }
        }
    }
    // It has ended, and its keeper may have said why.
    while from_keeper.fill().await.unwrap_or(false) {}
    while let Ok(Some(message)) = from_keeper.take() {
        if let FromKeeper::WorkerNotStarted { reason } = message {
            return Err(Some(reason));
        }
    }
    Err(None)
}
