//! What becomes of packets on their way: late, lost, twice, out of order, or behind others at a narrow place.
//!
//! A [`Way`] decides, and does nothing: whoever has the packets asks when to deliver each. It is driven by a fixed sequence
//! of numbers, so that every run loses the same ones.

use std::time::{Duration, Instant};

/// Packets that would wait longer than this at the narrow place are lost.
const NARROW_WAIT_MAX: Duration = Duration::from_millis(100);
/// What a packet that is overtaken waits beyond the others.
const OVERTAKEN_BY: Duration = Duration::from_millis(15);
/// Where the sequence of numbers begins.
const SEED: u32 = 0x2545_f491;

/// How good a way is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quality {
    /// How long a packet takes.
    pub one_way: Duration,
    /// How many bytes pass a second; any number where there is none.
    pub bytes_per_s: Option<u64>,
    /// Longer packets are lost; any length passes where there is none.
    pub packet_bytes_max: Option<usize>,
    /// Packets of a thousand that are lost.
    pub lost: u32,
    /// Packets of a thousand that come twice.
    pub twice: u32,
    /// Packets of a thousand that later ones overtake.
    pub overtaken: u32,
}

impl Quality {
    /// A way that takes so long and has Ethernet's packets.
    #[must_use]
    pub fn of_length(one_way: Duration) -> Self {
        Self {
            one_way,
            packet_bytes_max: Some(1472),
            ..Self::default()
        }
    }
}

/// One direction of a line.
#[derive(Debug)]
pub struct Way {
    quality: Quality,
    /// When the narrow place has nothing more to do.
    free: Option<Instant>,
    dice: u32,
}

/// When a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Then.
    pub at: Instant,
    /// Whether packets that were sent later may come before it.
    pub overtaken: bool,
}

impl Way {
    /// A way of that quality, with nothing on it.
    #[must_use]
    pub fn new(quality: Quality) -> Self {
        Self {
            quality,
            free: None,
            dice: SEED,
        }
    }

    /// When a packet of `len` bytes that is sent now arrives: once, twice, or never.
    pub fn send(&mut self, now: Instant, len: usize) -> impl Iterator<Item = Arrival> + use<> {
        let [lost, twice, overtaken] = [self.roll(), self.roll(), self.roll()];
        let too_long = self.quality.packet_bytes_max.is_some_and(|max| len > max);
        let through = if too_long || lost < self.quality.lost {
            None
        } else {
            self.pass(now, len)
        };
        let overtaken = overtaken < self.quality.overtaken;
        let later = if overtaken {
            OVERTAKEN_BY
        } else {
            Duration::ZERO
        };
        let first = through.map(|through| Arrival {
            at: through + self.quality.one_way + later,
            overtaken,
        });
        let again = first.filter(|_| twice < self.quality.twice);
        first.into_iter().chain(again)
    }

    /// When the packet is through the narrow place, if there is room before it.
    fn pass(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(bytes_per_s) = self.quality.bytes_per_s else {
            return Some(now);
        };
        let free = self.free.unwrap_or(now).max(now);
        if free - now > NARROW_WAIT_MAX {
            return None;
        }
        let through = free + Duration::from_nanos(len as u64 * 1_000_000_000 / bytes_per_s);
        self.free = Some(through);
        Some(through)
    }

    /// A number below 1,000 (xorshift).
    fn roll(&mut self) -> u32 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 17;
        self.dice ^= self.dice << 5;
        self.dice % 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(quality: Quality, packets: usize) -> Vec<Vec<Arrival>> {
        let mut way = Way::new(quality);
        let now = Instant::now();
        (0..packets)
            .map(|_| way.send(now, 1000).collect())
            .collect()
    }

    fn share(arrivals: &[Vec<Arrival>], of: impl Fn(&[Arrival]) -> bool) -> usize {
        let such = arrivals.iter().filter(|arrivals| of(arrivals));
        such.count() * 1000 / arrivals.len()
    }

    #[test]
    fn as_many_are_lost_doubled_and_overtaken_as_was_asked_for() {
        let quality = Quality {
            lost: 200,
            twice: 50,
            overtaken: 100,
            ..Quality::default()
        };
        let arrivals = arrivals(quality, 100_000);
        let near = |share: usize, wanted: usize| share.abs_diff(wanted) <= 5;
        assert!(near(share(&arrivals, <[_]>::is_empty), 200));
        assert!(near(share(&arrivals, |arrivals| arrivals.len() == 2), 40));
        let overtaken = |arrivals: &[Arrival]| arrivals.iter().any(|arrival| arrival.overtaken);
        assert!(near(share(&arrivals, overtaken), 80));
    }

    #[test]
    fn a_narrow_place_takes_its_time_and_has_no_room_for_all() {
        let quality = Quality {
            bytes_per_s: Some(1_000_000),
            ..Quality::of_length(Duration::from_millis(25))
        };
        let arrivals = arrivals(quality, 200);
        let first = arrivals[0][0].at;
        assert_eq!(arrivals[10][0].at - first, Duration::from_millis(10));
        let through = arrivals.iter().filter(|arrivals| !arrivals.is_empty());
        assert_eq!(through.count(), 101);
    }

    #[test]
    fn a_good_way_loses_nothing_but_what_is_too_long() {
        let mut way = Way::new(Quality::of_length(Duration::ZERO));
        let now = Instant::now();
        assert_eq!(way.send(now, 1473).count(), 0);
        let at = now;
        let overtaken = false;
        assert!(way.send(now, 1472).eq([Arrival { at, overtaken }]));
    }
}
