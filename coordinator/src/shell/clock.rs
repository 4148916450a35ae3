//! The one clock of the coordinator.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetpool_proto::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Now, by the clock that goes on while the machine sleeps: leases run in it.
pub(crate) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("linux has a boot clock");
    let duration = Duration::from(time);
    Timestamp(fleetpool_proto::time::micros(duration))
}

/// The kernel's number of this boot of the machine; empty where it does not say.
pub(crate) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Seconds since 1970: certificates and tokens end by this clock.
pub(crate) fn wall_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
