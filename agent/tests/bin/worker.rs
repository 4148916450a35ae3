//! A worker of the `native` runtime, written from `docs/worker-protocol.md`.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write as _,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use fleetpool_proto::{
    Message as _, Outcome, Payloads, SpecId,
    frame::{encode_header, read_inline, write_inline},
    worker::{DoneRow, FromWorker, NativeError, RunRow, ToWorker, WORKER_FD_ENV},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};

#[derive(Default)]
struct State {
    functions: BTreeMap<SpecId, String>,
    tasks: VecDeque<(RunRow, Bytes)>,
    go: bool,
    stop: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Is a worker until it is told to stop, or its agent is gone.
pub(crate) fn work() {
    let fd: i32 = std::env::var(WORKER_FD_ENV).unwrap().parse().unwrap();
    let shared = Shared::default();
    let theirs = Arc::clone(&shared);
    std::thread::spawn(move || listen(fd, &theirs));
    loop {
        let Some((row, argument)) = next(&shared) else {
            return;
        };
        let function = lock(&shared).functions[&row.spec].clone();
        let began = Instant::now();
        let (outcome, payload) = call(&function, &row, argument);
        std::io::stdout().flush().unwrap();
        let printed = unread();
        let done = FromWorker::Done {
            rows: vec![DoneRow {
                index: row.index,
                attempt: row.attempt,
                outcome,
                started_us: 1,
                run_us: u64::try_from(began.elapsed().as_micros()).unwrap(),
                printed,
            }],
            payloads: Payloads::from(vec![payload]),
        };
        say(fd, done);
        if printed {
            let mut state = wait(&shared, |state| state.go);
            state.go = false;
        }
        // It has said so, and is gone.
        if function == "farewell" {
            std::process::abort();
        }
    }
}

fn call(function: &str, row: &RunRow, argument: Bytes) -> (Outcome, Bytes) {
    match function {
        "echo" => return (Outcome::Done, argument),
        "pid" => return (Outcome::Done, Bytes::from(std::process::id().to_string())),
        "print" => say_aloud(&format!("task {}\n", row.index)),
        "half" => say_aloud(&format!("task {} ", row.index)),
        "noise" => say_aloud(&format!("{:0>99}\n", row.index).repeat(10_000)),
        "linger" => {
            say_aloud(&format!("task {} ", row.index));
            std::thread::sleep(Duration::from_millis(argument.len() as u64));
        }
        "sleep" => {
            say_aloud("sleeping\n");
            std::thread::sleep(Duration::from_millis(argument.len() as u64));
        }
        // Writes down when it begins and when it ends, says so, and takes its time between: "MS FILE".
        "note" => {
            let argument = String::from_utf8(argument.to_vec()).unwrap();
            let (ms, file) = argument.split_once(' ').unwrap();
            note(file, row.index);
            say_aloud(&format!("task {} ", row.index));
            std::thread::sleep(Duration::from_millis(ms.parse().unwrap()));
            say_aloud("is done\n");
            note(&format!("{file}.over"), row.index);
            return (Outcome::Done, Bytes::from(std::process::id().to_string()));
        }
        // Ends when a file of that name is there.
        "farewell" => {
            let file = String::from_utf8(argument.to_vec()).unwrap();
            while !std::fs::exists(&file).unwrap() {
                std::thread::sleep(Duration::from_millis(5));
            }
            say_aloud("farewell\n");
        }
        "abort" => {
            eprintln!("early words");
            eprintln!("last words of task {}", row.index);
            std::process::abort();
        }
        other => {
            let error = NativeError {
                message: format!("no function {other}"),
                location: String::new(),
            };
            return (Outcome::NotStarted, encode_header(&error));
        }
    }
    (Outcome::Done, Bytes::new())
}

/// Adds a line to a file that others write to as well.
fn note(file: &str, index: u64) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(file).unwrap();
    file.write_all(format!("{index}\n").as_bytes()).unwrap();
}

fn say_aloud(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap()
}

fn wait(shared: &Shared, ready: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
    shared
        .1
        .wait_while(lock(shared), |state| !ready(state))
        .unwrap()
}

fn next(shared: &Shared) -> Option<(RunRow, Bytes)> {
    wait(shared, |state| state.stop || !state.tasks.is_empty())
        .tasks
        .pop_front()
}

/// Whether the pipes hold something that the agent has not read: they are writable whatever they hold, so it asks
/// the kernel at their other end.
fn unread() -> bool {
    let stdio = [
        std::io::stdout().as_fd_path(),
        std::io::stderr().as_fd_path(),
    ];
    stdio.iter().any(|path| {
        let Ok(reader) = std::fs::File::open(path) else {
            return false;
        };
        let mut fds = [PollFd::new(
            std::os::fd::AsFd::as_fd(&reader),
            PollFlags::POLLIN,
        )];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        fds[0]
            .revents()
            .unwrap_or(PollFlags::empty())
            .contains(PollFlags::POLLIN)
    })
}

trait FdPath {
    fn as_fd_path(&self) -> String;
}

impl<T: std::os::fd::AsRawFd> FdPath for T {
    fn as_fd_path(&self) -> String {
        format!("/proc/self/fd/{}", self.as_raw_fd())
    }
}

fn listen(fd: i32, shared: &Shared) {
    let mut incoming = BytesMut::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        while let Some(frame) = read_inline(&mut incoming).unwrap() {
            on_message(fd, shared, ToWorker::from_frame(frame).unwrap());
        }
        match recv(fd, &mut chunk, MsgFlags::empty()) {
            Ok(0) | Err(_) => std::process::exit(0),
            Ok(len) => incoming.extend_from_slice(&chunk[..len]),
        }
    }
}

fn on_message(fd: i32, shared: &Shared, message: ToWorker) {
    match message {
        ToWorker::Init { function, .. } if function == "refuse" => {
            eprintln!("the initializer is not in the mood");
            let reason = "its initializer failed".to_owned();
            say(fd, FromWorker::Unfit { reason });
            std::process::exit(1);
        }
        ToWorker::Init { function, payloads } => {
            if function == "greet" {
                say_aloud("good morning\n");
            }
            // Notes that it begins, and is not ready before a file of that name is there, too.
            if function == "dawdle" {
                let file = String::from_utf8(payloads.items()[0].to_vec()).unwrap();
                note(&file, 0);
                while !std::fs::exists(format!("{file}.go")).unwrap() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let pid = std::process::id();
            say(fd, FromWorker::Ready { pid });
        }
        ToWorker::Define { spec, function } => drop(lock(shared).functions.insert(spec, function)),
        ToWorker::Run { rows, payloads } => {
            lock(shared)
                .tasks
                .extend(rows.into_iter().zip(payloads.into_items()));
        }
        ToWorker::GiveBack { count } => {
            let mut state = lock(shared);
            let keep = state.tasks.len().saturating_sub(count as usize);
            let rows = state
                .tasks
                .split_off(keep)
                .into_iter()
                .map(|(row, _)| row)
                .collect();
            say(fd, FromWorker::GivenBack { rows });
        }
        ToWorker::Go => lock(shared).go = true,
        ToWorker::Stop => lock(shared).stop = true,
    }
    shared.1.notify_all();
}

fn say(fd: i32, message: FromWorker) {
    // Both threads speak, and a long message goes out in parts.
    static SPEAKING: Mutex<()> = Mutex::new(());
    let _speaking = SPEAKING.lock().unwrap();
    let mut bytes = BytesMut::new();
    write_inline(&message.into_frame(), &mut bytes);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        rest = &rest[send(fd, rest, MsgFlags::MSG_NOSIGNAL).unwrap()..];
    }
}
