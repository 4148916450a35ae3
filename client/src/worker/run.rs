//! The main thread of a worker.

use std::{
    io::{self, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::Instant,
};

use fleetpool_proto::{
    Outcome,
    frame::encode_header,
    limits::PAYLOAD_BYTES_MAX,
    outcome::Loss,
    time::micros,
    worker::{DoneRow, FromWorker, NativeError},
};

use super::{
    clock::Clock,
    context,
    inbox::{Function, Handed, Inbox},
    outlet::Outlet,
    panic,
};
use crate::{codec, task};

/// A result buffer that has grown beyond this is not kept.
const RESULT_BYTES_KEPT: usize = 1 << 20;

/// Runs tasks until the agent says stop or goes away.
pub(super) fn run(socket: UnixStream) -> ! {
    context::enter_worker();
    panic::note_panics();
    let Ok(reader) = socket.try_clone() else {
        std::process::exit(1);
    };
    let outlet = Arc::new(Outlet::new(socket));
    let inbox = Arc::new(Inbox::new(reader, Arc::clone(&outlet)));
    let helper = Arc::clone(&inbox);
    thread::spawn(move || helper.help());

    let (function, argument) = inbox.wait(|state| state.init.take());
    if let Err(reason) = initialise(&function, &argument) {
        outlet.send(FromWorker::Unfit { reason });
        std::process::exit(1);
    }
    let pid = std::process::id();
    outlet.send(FromWorker::Ready { pid });
    let mut runner = Runner {
        outlet,
        clock: Clock::new(),
        result: Vec::new(),
    };
    while let Some(task) = next(&inbox) {
        let printed = runner.run(&task);
        if printed {
            inbox.wait(|state| std::mem::take(&mut state.go).then_some(()));
        }
    }
    std::process::exit(0)
}

/// The next task; `None` when there will not be one.
fn next(inbox: &Inbox) -> Option<Handed> {
    inbox.wait(|state| match state.tasks.pop_front() {
        Some(task) => Some(Some(task)),
        None if state.stop => Some(None),
        None => None,
    })
}

fn initialise(function: &str, argument: &[u8]) -> Result<(), String> {
    if function.is_empty() {
        return Ok(());
    }
    let Some(run) = task::find(function) else {
        return Err(format!(
            "this program has no task {function} to initialise its workers"
        ));
    };
    let ran = panic::catch(|| run(argument, &mut Vec::new()));
    flush();
    match ran {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the initializer's value {error}")),
        Err(panic) => Err(format!(
            "the initializer panicked at {}: {}",
            panic.location, panic.message
        )),
    }
}

/// What is kept from task to task.
struct Runner {
    outlet: Arc<Outlet>,
    clock: Clock,
    result: Vec<u8>,
}

impl Runner {
    /// Runs a task and sends what became of it; whether it printed something that has not been read.
    fn run(&mut self, task: &Handed) -> bool {
        let began = Instant::now();
        context::enter_task(&task.row);
        let outcome = self.call(&task.function, &task.argument);
        context::leave_task();
        flush();
        let printed = is_unread(io::stdout()) || is_unread(io::stderr());
        let row = DoneRow {
            index: task.row.index,
            attempt: task.row.attempt,
            outcome,
            started_us: self.clock.wall_us(began),
            run_us: micros(began.elapsed()),
            printed,
        };
        self.outlet.send_done(&row, &self.result);
        self.result.clear();
        self.result.shrink_to(RESULT_BYTES_KEPT);
        printed
    }

    /// Calls the function; its result, or why there is none, is left in `result`.
    fn call(&mut self, function: &Function, argument: &[u8]) -> Outcome {
        let run = match function {
            Function::Known(run) => run,
            Function::Unknown(why) => {
                self.result = encode_header(&Loss::because(why)).into();
                return Outcome::NotStarted;
            }
        };
        match panic::catch(|| run(argument, &mut self.result)).and_then(Self::judge) {
            Ok(()) => Outcome::Done,
            Err(error) => {
                self.result = encode_header(&error).into();
                Outcome::Failed
            }
        }
    }

    /// Whether a call that came back has a result that can be sent.
    fn judge(ran: Result<(), codec::Error>) -> Result<(), NativeError> {
        let message = match ran {
            Ok(()) => return Ok(()),
            Err(codec::Error::TooLarge) => format!(
                "the result is over the limit of {PAYLOAD_BYTES_MAX} bytes: write it to a file and return its path"
            ),
            Err(codec::Error::Encode(error)) => format!("the result cannot be encoded: {error}"),
            Err(codec::Error::Decode(error)) => format!("the argument cannot be decoded: {error}"),
        };
        let location = String::new();
        Err(NativeError { message, location })
    }
}

/// Hands what Rust's own stdout holds back to the pipe. A pipe that nobody reads is no failure of the task.
fn flush() {
    let _ = io::stdout().flush();
}

/// Whether a pipe holds bytes that the agent has not read.
fn is_unread(pipe: impl AsFd) -> bool {
    rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0)
}
