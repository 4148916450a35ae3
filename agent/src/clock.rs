//! The shell's clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use fleetpool_proto::{Timestamp, time::micros};
use nix::time::{ClockId, clock_gettime};

/// Now, by the clock that leases are counted in: it goes on while the machine sleeps.
pub(crate) fn now() -> Timestamp {
    // Every kernel this runs on has the clock; without one, time would stand still and leases never end.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Timestamp(seconds * 1_000_000 + nanos / 1000)
}

/// Microseconds since 1970.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, micros)
}
