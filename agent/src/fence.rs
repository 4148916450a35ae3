//! The end of the agent's lease as its keepers see it: one timer of the kernel's that they all wait for.
//!
//! The agent sets it, each time its lease is renewed, with one system call; nobody is sent anything. Keepers only poll
//! it. So they know that the lease is over also while the agent is stopped, and, since it goes on while the machine
//! sleeps, before anything else when they wake up with it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    sync::Arc,
};

use fleetpool_proto::Timestamp;
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use crate::spawner::sys;

/// The timer, not running.
#[derive(Clone, Debug)]
pub(crate) struct Fence(Arc<TimerFd>);

impl Fence {
    pub(crate) fn new() -> io::Result<Self> {
        // The clock of `clock::now`.
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        Ok(Self(Arc::new(timer)))
    }

    /// One that a spawner has made, for keepers that may outlive their agent.
    pub(crate) fn of(timer: OwnedFd) -> Self {
        Self(Arc::new(sys::timer(timer)))
    }

    /// From `time` on it is readable; at once, where that is past.
    pub(crate) fn set(&self, time: Option<Timestamp>) {
        let set = match time {
            Some(time) => self.0.set(
                Expiration::OneShot(time_spec(time)),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.0.unset(),
        };
        if let Err(error) = set {
            // It has no way to fail but a wrong argument. The agent still ends its tasks itself.
            tracing::error!(%error, "the keepers cannot be told of the lease");
        }
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn time_spec(Timestamp(us): Timestamp) -> TimeSpec {
    let seconds = i64::try_from(us / 1_000_000).unwrap_or(i64::MAX);
    let nanos = i64::try_from(us % 1_000_000 * 1000).unwrap_or_default();
    TimeSpec::new(seconds, nanos)
}
