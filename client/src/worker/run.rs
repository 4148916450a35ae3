//! The main thread of a worker.

use std::{
    io::{self, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fleetpool_proto::{
    Outcome,
    frame::encode_header,
    limits::PAYLOAD_BYTES_MAX,
    outcome::Loss,
    rows::Payloads,
    time::micros,
    worker::{DoneRow, FromWorker, NativeError},
};

use super::{
    context,
    inbox::{Function, Handed, Inbox},
    outlet::Outlet,
    panic,
};
use crate::{codec, task};

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
    while let Some(task) = next(&inbox) {
        let printed = run_one(task, &outlet);
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

/// Runs a task and sends what became of it; whether it printed something that has not been read.
fn run_one(task: Handed, outlet: &Outlet) -> bool {
    let (began, started_us) = (Instant::now(), now_us());
    context::enter_task(&task.row);
    let (outcome, payload) = call(&task.function, &task.argument);
    context::leave_task();
    flush();
    let printed = is_unread(io::stdout()) || is_unread(io::stderr());
    let row = DoneRow {
        index: task.row.index,
        attempt: task.row.attempt,
        outcome,
        started_us,
        run_us: micros(began.elapsed()),
        printed,
    };
    outlet.send(FromWorker::Done {
        rows: vec![row],
        payloads: Payloads::from(vec![payload]),
    });
    printed
}

fn call(function: &Function, argument: &[u8]) -> (Outcome, Bytes) {
    let run = match function {
        Function::Known(run) => run,
        Function::Unknown(why) => {
            return (Outcome::NotStarted, encode_header(&Loss::because(why)));
        }
    };
    let mut result = Vec::new();
    let error = match panic::catch(|| run(argument, &mut result)) {
        Ok(Ok(())) if result.len() <= PAYLOAD_BYTES_MAX => {
            return (Outcome::Done, Bytes::from(result));
        }
        Ok(Ok(())) => without_place(format!(
            "the result of {} bytes is over the limit of {PAYLOAD_BYTES_MAX}: write it to a file and return its path",
            result.len()
        )),
        Ok(Err(codec::Error::Encode(error))) => {
            without_place(format!("the result cannot be encoded: {error}"))
        }
        Ok(Err(codec::Error::Decode(error))) => {
            without_place(format!("the argument cannot be decoded: {error}"))
        }
        Err(panic) => panic,
    };
    (Outcome::Failed, encode_header(&error))
}

fn without_place(message: String) -> NativeError {
    NativeError {
        message,
        location: String::new(),
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

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, micros)
}
