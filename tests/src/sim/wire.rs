//! Sessions, and how they go wrong.
//!
//! A session delivers each frame at most once and in order, but for bulk, which may be overtaken. When it breaks it
//! loses a suffix of what is on its way, each direction its own. What was not lost may still arrive when a newer
//! session is there.

use bytes::BytesMut;
use fleetpool_coordinator_core::SessionNo;
use fleetpool_proto::{
    Message,
    frame::{Frame, read_inline, write_inline},
};

use crate::chance::Chance;

/// Longest time by which bulk is late, in microseconds.
const BULK_LATE_US_MAX: u64 = 100_000;

/// A message's bytes.
pub(super) type Parcel = BytesMut;

/// Bytes of a message, and whether it has a body that could be sent as bulk.
pub(super) fn encode<M: Message>(message: M) -> (Parcel, bool) {
    let frame = message.into_frame();
    let mut bytes = BytesMut::new();
    write_inline(&frame, &mut bytes);
    (bytes, !frame.body.is_empty())
}

/// The message of these bytes.
pub(super) fn decode<M: Message>(mut bytes: Parcel) -> Result<M, String> {
    let frame: Option<Frame> = read_inline(&mut bytes).map_err(|error| error.to_string())?;
    let frame = frame.ok_or("half a frame")?;
    M::from_frame(frame).map_err(|error| error.to_string())
}

/// One direction of a session.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// When the last frame that keeps its order arrives.
    last: u64,
    sent: u64,
    arrived: u64,
    /// The first frame that does not arrive.
    lost_from: Option<u64>,
}

impl Lane {
    /// Sends a frame: its number and when it arrives. `None`: never.
    pub(super) fn send(&mut self, now: u64, delay: u64, late: Option<u64>) -> Option<(u64, u64)> {
        let number = self.sent;
        self.sent += 1;
        if self.lost_from.is_some() {
            return None;
        }
        let at = self.last.max(now + delay);
        if let Some(late) = late {
            return Some((number, at + late));
        }
        self.last = at;
        Some((number, at))
    }

    /// Whether a frame that would arrive now does.
    pub(super) fn arrives(&mut self, number: u64) -> bool {
        self.arrived += 1;
        self.lost_from.is_none_or(|from| number < from)
    }

    /// From here on everything is lost, and some of what is on its way, too.
    pub(super) fn break_off(&mut self, chance: &mut Chance) {
        let on_its_way = self.sent - self.arrived.min(self.sent);
        let from = self.sent - chance.within(0..on_its_way + 1);
        self.lost_from = Some(self.lost_from.map_or(from, |before| before.min(from)));
    }

    /// From here on everything is lost; what is on its way arrives.
    pub(super) fn cut(&mut self) {
        self.lost_from.get_or_insert(self.sent);
    }
}

/// A session between a host and the coordinator.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) host: usize,
    /// To the coordinator.
    pub(super) up: Lane,
    /// To the agent.
    pub(super) down: Lane,
    /// Its end is on its way to both.
    pub(super) over: bool,
}

/// All sessions that there have been, numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Session>);

impl Sessions {
    /// Adds the next; tells its number.
    pub(super) fn add(&mut self, session: Session) -> SessionNo {
        self.0.push(session);
        self.0.len() as SessionNo
    }

    pub(super) fn get(&self, number: SessionNo) -> Option<&Session> {
        self.0.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    pub(super) fn get_mut(&mut self, number: SessionNo) -> Option<&mut Session> {
        self.0
            .get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    pub(super) fn numbers(&self) -> std::ops::RangeInclusive<SessionNo> {
        1..=self.0.len() as SessionNo
    }
}

/// By how much a frame with a body is late, if it is sent as bulk.
pub(super) fn lateness(chance: &mut Chance, bulk_one_in: u64, has_body: bool) -> Option<u64> {
    (has_body && chance.once_in(bulk_one_in)).then(|| chance.within(0..BULK_LATE_US_MAX))
}
