//! When tasks begin and how long they run, at the price of one look at a clock each time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fleetpool_proto::time::micros;

/// After this long the wall clock is looked at again, in microseconds: it may be set.
const TRUST_US: u64 = 1_000_000;

/// Two clocks, read together now and then.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The wall clock at the origin, in microseconds since 1970.
    wall_us: u64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            origin: Instant::now(),
            wall_us: since_1970.map_or(0, micros),
        }
    }

    /// What the wall clock says at `instant`.
    pub(super) fn wall_us(&mut self, instant: Instant) -> u64 {
        let since_us = micros(instant.saturating_duration_since(self.origin));
        if since_us > TRUST_US {
            *self = Self::new();
            return self.wall_us;
        }
        self.wall_us + since_us
    }
}
