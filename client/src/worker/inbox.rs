//! What the agent says to a worker, and which thread reads it.
//!
//! The socket is read by whoever holds the `reader`: the main thread when it waits for something, the helper when the
//! main thread has been away for a while. What was read lies in `state`.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{ErrorKind, Read as _},
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{
    Message as _, SpecId,
    frame::read_inline,
    worker::{FromWorker, RunRow, ToWorker},
};

use super::outlet::Outlet;
use crate::task::{self, Run};

/// How long the main thread may leave the socket unread before the helper reads in its place: short against the time after which an
/// agent wants tasks back, long against the cost of looking.
const ABSENCE: Duration = Duration::from_millis(2);
/// Looks after which a helper that had nothing to do sleeps until it is woken.
const IDLE_LOOKS_MAX: u32 = 50;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// What comes from the agent.
#[derive(Debug)]
pub(super) struct Inbox {
    reader: Mutex<Reader>,
    state: Mutex<State>,
    /// Something was read, or the reader is free.
    changed: Condvar,
    /// The main thread has begun something while the helper slept.
    begun: Condvar,
    outlet: Arc<Outlet>,
}

#[derive(Debug)]
struct Reader {
    socket: UnixStream,
    scratch: Box<[u8]>,
    input: BytesMut,
}

/// What was read and not yet taken by the main thread.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) init: Option<(String, Bytes)>,
    pub(super) tasks: VecDeque<Handed>,
    /// The agent has read what was printed.
    pub(super) go: bool,
    /// Exit when there are no tasks.
    pub(super) stop: bool,
    specs: BTreeMap<SpecId, Function>,
    /// The main thread is not waiting.
    busy: bool,
    helper_sleeps: bool,
    /// Grows whenever the socket is read.
    reads: u64,
}

/// A task at hand.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) row: RunRow,
    pub(super) function: Function,
    pub(super) argument: Bytes,
}

/// What a specification calls.
#[derive(Clone, Debug)]
pub(super) enum Function {
    Known(Run),
    Unknown(String),
}

impl Inbox {
    pub(super) fn new(socket: UnixStream, outlet: Arc<Outlet>) -> Self {
        let reader = Reader {
            socket,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            input: BytesMut::new(),
        };
        Self {
            reader: Mutex::new(reader),
            state: Mutex::default(),
            changed: Condvar::new(),
            begun: Condvar::new(),
            outlet,
        }
    }

    /// Waits until `take` finds what it wants. For the main thread.
    pub(super) fn wait<T>(&self, mut take: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.state();
        loop {
            if let Some(taken) = take(&mut state) {
                self.begin(state);
                return taken;
            }
            state.busy = false;
            match self.reader.try_lock() {
                Ok(mut reader) => {
                    state.reads += 1;
                    drop(state);
                    self.read(&mut reader);
                    drop(reader);
                    state = self.state();
                }
                Err(TryLockError::Poisoned(_)) => std::process::exit(1),
                Err(TryLockError::WouldBlock) => {
                    let waited = self.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Reads in the main thread's place whenever that has much to do. For the helper thread, which ends with the
    /// process.
    pub(super) fn help(&self) {
        let (mut seen, mut idle) = (0, 0);
        loop {
            let mut state = self.state();
            if idle > IDLE_LOOKS_MAX {
                state.helper_sleeps = true;
                let woken = self.begun.wait_while(state, |state| !state.busy);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.helper_sleeps = false;
                idle = 0;
            }
            let away = state.busy && state.reads == seen;
            (seen, idle) = (state.reads, if state.busy { 0 } else { idle + 1 });
            drop(state);
            if away {
                self.stand_in();
            } else {
                std::thread::sleep(ABSENCE);
            }
        }
    }

    fn stand_in(&self) {
        if let Ok(mut reader) = self.reader.try_lock() {
            self.read(&mut reader);
        }
        // The main thread may have found the reader taken: it looks again, and reads itself the next time.
        let mut state = self.state();
        state.reads += 1;
        self.changed.notify_one();
        drop(state);
    }

    fn begin(&self, mut state: MutexGuard<'_, State>) {
        state.busy = true;
        if state.helper_sleeps {
            self.begun.notify_one();
        }
    }

    /// Reads once, however much is there. The end of the socket is the end of the worker.
    fn read(&self, reader: &mut Reader) {
        let count = match reader.socket.read(&mut reader.scratch) {
            Ok(0) => std::process::exit(0),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return,
            Err(_) => std::process::exit(0),
        };
        reader.input.extend_from_slice(&reader.scratch[..count]);
        while let Some(message) = reader.next_message() {
            self.handle(message);
        }
    }

    fn handle(&self, message: ToWorker) {
        let mut state = self.state();
        match message {
            ToWorker::Init { function, payloads } => {
                let argument = payloads.into_items().pop().unwrap_or_default();
                state.init = Some((function, argument));
            }
            ToWorker::Define { spec, function } => {
                state.specs.insert(spec, Function::named(function));
            }
            ToWorker::Run { rows, payloads } => {
                let arguments = payloads.into_items();
                for (row, argument) in rows.into_iter().zip(arguments) {
                    state.hand(row, argument);
                }
            }
            ToWorker::GiveBack { count } => {
                let rows = state.give_back(count);
                drop(state);
                self.outlet.send(FromWorker::GivenBack { rows });
            }
            ToWorker::Go => state.go = true,
            ToWorker::Stop => state.stop = true,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hand(&mut self, row: RunRow, argument: Bytes) {
        let unknown = || Function::Unknown(format!("specification {} was not defined", row.spec));
        let function = self.specs.get(&row.spec).cloned().unwrap_or_else(unknown);
        self.tasks.push_back(Handed {
            row,
            function,
            argument,
        });
    }

    /// Takes up to `count` tasks back, the last first; tells them in their order.
    fn give_back(&mut self, count: u32) -> Vec<RunRow> {
        let keep = self.tasks.len().saturating_sub(count as usize);
        self.tasks.drain(keep..).map(|task| task.row).collect()
    }
}

impl Function {
    fn named(name: String) -> Self {
        match task::find(&name) {
            Some(run) => Self::Known(run),
            None => Self::Unknown(format!("this program has no task {name}")),
        }
    }
}

impl Reader {
    /// The next whole message of what was read. One that cannot be understood ends the worker: its agent is another
    /// version's, and says so.
    fn next_message(&mut self) -> Option<ToWorker> {
        let message = match read_inline(&mut self.input) {
            Ok(frame) => frame.map(ToWorker::from_frame).transpose(),
            Err(error) => Err(error),
        };
        message.unwrap_or_else(|error| {
            eprintln!("fleetpool worker: the agent sent what is no message: {error}");
            std::process::exit(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, mem::ManuallyDrop, thread, time::Instant};

    use fleetpool_proto::{Attempt, Frame, frame::write_inline, rows::Payloads};

    use super::*;

    /// An agent's end of a worker whose main thread is the test. It is never closed, since that would end the process.
    struct Agent {
        socket: ManuallyDrop<UnixStream>,
        input: BytesMut,
    }

    impl Agent {
        fn start() -> (Self, Arc<Inbox>) {
            let (socket, theirs) = UnixStream::pair().unwrap();
            let outlet = Arc::new(Outlet::new(theirs.try_clone().unwrap()));
            let inbox = Arc::new(Inbox::new(theirs, outlet));
            let helper = Arc::clone(&inbox);
            thread::spawn(move || helper.help());
            let agent = Self {
                socket: ManuallyDrop::new(socket),
                input: BytesMut::new(),
            };
            (agent, inbox)
        }

        fn say(&mut self, message: ToWorker) {
            let mut bytes = BytesMut::new();
            write_inline(&message.into_frame(), &mut bytes);
            self.socket.write_all(&bytes).unwrap();
        }

        fn hand(&mut self, count: u64) {
            let row = |index| RunRow {
                index,
                attempt: Attempt(1),
                spec: SpecId(0),
            };
            self.say(ToWorker::Run {
                rows: (0..count).map(row).collect(),
                payloads: Payloads::from(vec![Bytes::new(); usize::try_from(count).unwrap()]),
            });
        }

        /// The indexes that come back when so many are asked for.
        fn take_back(&mut self, count: u32) -> Vec<u64> {
            self.say(ToWorker::GiveBack { count });
            let frame: Frame = loop {
                if let Some(frame) = read_inline(&mut self.input).unwrap() {
                    break frame;
                }
                let mut some = [0; 4096];
                let count = self.socket.read(&mut some).unwrap();
                self.input.extend_from_slice(&some[..count]);
            };
            match FromWorker::from_frame(frame).unwrap() {
                FromWorker::GivenBack { rows } => rows.into_iter().map(|row| row.index).collect(),
                other => panic!("not given back but {other:?}"),
            }
        }
    }

    fn next(inbox: &Inbox) -> u64 {
        inbox.wait(|state| state.tasks.pop_front()).row.index
    }

    #[test]
    fn tasks_are_given_back_while_one_runs() {
        let (mut agent, inbox) = Agent::start();
        agent.hand(5);
        assert_eq!(next(&inbox), 0);
        // The test is busy with the first task from here on.
        assert_eq!(agent.take_back(2), [3, 4]);
        assert_eq!(agent.take_back(9), [1, 2]);
        assert_eq!(agent.take_back(9), [0; 0]);
    }

    #[test]
    fn tasks_are_given_back_while_many_short_ones_run() {
        let (mut agent, inbox) = Agent::start();
        agent.hand(10_000);
        let running = thread::spawn(move || {
            while next(&inbox) < 9_000 {
                thread::sleep(Duration::from_micros(200));
            }
        });
        let start = Instant::now();
        let back = agent.take_back(500);
        assert_eq!((back.len(), back[0]), (500, 9_500));
        // The tasks take two seconds at least.
        assert!(!running.is_finished(), "after {:?}", start.elapsed());
        running.join().unwrap();
    }

    #[test]
    fn what_comes_after_a_long_task_is_found() {
        let (mut agent, inbox) = Agent::start();
        for _ in 0..20 {
            agent.hand(1);
            assert_eq!(next(&inbox), 0);
            // Long enough for the helper to read in this thread's place.
            assert_eq!(agent.take_back(1), [0; 0]);
        }
    }
}
