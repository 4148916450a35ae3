//! What the machine itself can do: bare loops without any of our code, to divide by.

use std::{
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use crate::measure::middle;

/// Starts `tasks` commands from two threads, one process each at a time, and waits for them: what `map -j 2` has to do
/// at least. Their output is read and written out again.
pub(crate) fn spawn_loop(tasks: u64, command: impl Fn(u64) -> Command + Sync) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= tasks {
                        return;
                    }
                    let output = command(index)
                        .stderr(Stdio::inherit())
                        .output()
                        .expect("command starts");
                    assert!(output.status.success());
                    std::io::stdout()
                        .write_all(&output.stdout)
                        .expect("stdout is open");
                }
            });
        }
    });
}

/// Microseconds that a byte takes to another process and back over a socketpair, in the middle of `rounds`.
pub(crate) fn socketpair_round_trip_us(rounds: usize) -> f64 {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    let mut echo = crate::contestant(&["echo"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .expect("this program starts again");
    let mut byte = [0_u8];
    let times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            ours.write_all(&byte).expect("echo reads");
            ours.read_exact(&mut byte).expect("echo writes");
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    drop(ours);
    echo.wait().expect("echo ends");
    middle(times.into_iter())
}

/// The other end of [`socketpair_round_trip_us`]: sends back each byte that comes in on stdin's socket.
pub(crate) fn echo() {
    let stdin = std::io::stdin();
    let socket = std::os::fd::AsFd::as_fd(&stdin)
        .try_clone_to_owned()
        .expect("stdin is open");
    let mut socket = UnixStream::from(socket);
    let mut byte = [0_u8];
    while socket.read_exact(&mut byte).is_ok() {
        if socket.write_all(&byte).is_err() {
            return;
        }
    }
}
