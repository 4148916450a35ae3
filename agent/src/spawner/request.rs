//! What an agent asks its spawner for, and a spawner its keepers: messages of one size, with descriptors.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use super::sys;

/// A keeper, with these descriptors. It ends with its agent.
pub(super) const KEEPER: u8 = 1;
/// To bury what keepers that are not its own children have left; it is done when it closes the descriptor.
pub(super) const SWEEP: u8 = 2;
/// A keeper that is to become a template.
pub(super) const TEMPLATE: u8 = 3;
/// A keeper of this name that waits for another agent when its own has gone.
pub(super) const KEPT: u8 = 4;
/// The keeper of this name is to talk to this agent from now on, by this socket.
pub(super) const ATTACH: u8 = 5;
/// The agent's life has this number; what it has not attached is to be gone, which is answered.
pub(super) const BEGIN: u8 = 6;

/// To hold keepers that are started from now on to limits, which come by the descriptor, as its answer goes: what is held. Only of
/// spawners that say that they know of it.
pub(super) const CONTAIN: u8 = 7;
/// A keeper whose agent is the relay of this name. This and what follows only of spawners that say that they know of relays.
pub(super) const HELD: u8 = 8;
/// A relay of this name, which outlives its agent as a keeper of commands does: its socket, the one that leads to its keeper, and
/// what else it needs.
pub(super) const RELAY: u8 = 9;
/// A keeper that is to become a template of workers that have relays.
pub(super) const HELD_TEMPLATE: u8 = 10;

/// What this build's spawner says to an agent, its keepers say to another agent, and an agent's journal says to the next. One
/// number for all three: an agent of another build takes over what it knows. To be raised where something changes that older
/// builds would misunderstand.
pub(crate) const VERSION: u8 = 2;

const BYTES: usize = 11;

/// A worker's keeper, for as long as its host runs: its slot, and which of that slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) slot: u16,
    pub(crate) generation: u64,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: u8,
    pub(super) name: Name,
}

impl Request {
    pub(super) fn new(kind: u8) -> Self {
        let name = Name::default();
        Self { kind, name }
    }

    pub(super) fn send(self, socket: BorrowedFd, descriptors: &[RawFd]) -> nix::Result<()> {
        let mut bytes = [self.kind; BYTES];
        bytes[1..3].copy_from_slice(&self.name.slot.to_be_bytes());
        bytes[3..].copy_from_slice(&self.name.generation.to_be_bytes());
        sys::send_descriptors(socket, &bytes, descriptors)
    }

    /// The next one; `None` when the peer has closed.
    pub(super) fn receive(socket: BorrowedFd) -> nix::Result<Option<(Self, Vec<OwnedFd>)>> {
        let mut bytes = [0; BYTES];
        let Some(descriptors) = sys::receive_descriptors(socket, &mut bytes)? else {
            return Ok(None);
        };
        let [kind, slot_high, slot_low, generation @ ..] = bytes;
        let name = Name {
            slot: u16::from_be_bytes([slot_high, slot_low]),
            generation: u64::from_be_bytes(generation),
        };
        Ok(Some((Self { kind, name }, descriptors)))
    }
}

/// First from a spawner that is a service of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: u8,
    /// Something runs that would end if its agent did.
    pub(crate) has_bound: bool,
    /// There are relays, whose workers would end with an agent that is followed by one of before them. To those builds that is the same
    /// as the above.
    pub(crate) has_relays: bool,
    /// It knows of [`CONTAIN`]. Builds of before it say no.
    pub(crate) contains: bool,
    /// It knows of relays, through which workers that stay outlive their agent. Builds of before them say no.
    pub(crate) relays: bool,
    /// The life of the agent whose keepers these are; 0: there is none.
    pub(crate) incarnation: u64,
}

impl Greeting {
    /// With the fence.
    pub(super) fn send(self, socket: BorrowedFd, fence: RawFd) -> nix::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[0] = self.version;
        bytes[1] = u8::from(self.has_bound) | u8::from(self.has_relays) << 1;
        bytes[2] = u8::from(self.contains) | u8::from(self.relays) << 1;
        bytes[3..].copy_from_slice(&self.incarnation.to_be_bytes());
        sys::send_descriptors(socket, &bytes, &[fence])
    }

    /// With the fence; `None` when the peer has closed.
    pub(super) fn receive(socket: BorrowedFd) -> io::Result<Option<(Self, OwnedFd)>> {
        let mut bytes = [0; BYTES];
        let received = sys::receive_descriptors(socket, &mut bytes)?;
        let Some(fence) = received.and_then(|mut descriptors| descriptors.pop()) else {
            return Ok(None);
        };
        let [version, holds, knows, incarnation @ ..] = bytes;
        let greeting = Self {
            version,
            has_bound: holds & 1 != 0,
            has_relays: holds & 2 != 0,
            contains: knows & 1 != 0,
            relays: knows & 2 != 0,
            incarnation: u64::from_be_bytes(incarnation),
        };
        Ok(Some((greeting, fence)))
    }
}

/// Gives a keeper its next agent's socket.
pub(super) fn hand_over(control: BorrowedFd, socket: &OwnedFd) -> nix::Result<()> {
    Request::new(ATTACH).send(control, &[socket.as_raw_fd()])
}

/// What a keeper hears from its spawner.
pub(crate) enum Control {
    /// Its next agent.
    Agent(OwnedFd),
    /// It is to end: so does its spawner, or nobody has asked for it.
    End,
    /// Nothing.
    Nothing,
}

/// What there is to hear. Never blocks.
pub(crate) fn hear(control: BorrowedFd) -> Control {
    match Request::receive(control) {
        Ok(Some((_, mut descriptors))) => {
            descriptors.pop().map_or(Control::Nothing, Control::Agent)
        }
        Ok(None) | Err(nix::errno::Errno::ECONNRESET) => Control::End,
        Err(_) => Control::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn greeted(send: impl FnOnce(BorrowedFd, RawFd)) -> Greeting {
        let (ours, theirs) = sys::pair().unwrap();
        send(theirs.as_fd(), ours.as_raw_fd());
        Greeting::receive(ours.as_fd()).unwrap().unwrap().0
    }

    #[test]
    fn a_spawner_of_before_cgroups_and_relays_is_known_as_one() {
        let old = greeted(|socket, fence| {
            let bytes = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9];
            sys::send_descriptors(socket, &bytes, &[fence]).unwrap();
        });
        let expect = Greeting {
            version: 2,
            has_bound: true,
            has_relays: false,
            contains: false,
            relays: false,
            incarnation: 9,
        };
        assert_eq!(old, expect);
        let new = Greeting {
            has_bound: false,
            has_relays: true,
            contains: true,
            relays: true,
            ..expect
        };
        let told = greeted(|socket, fence| new.send(socket, fence).unwrap());
        assert_eq!(told, new);
    }
}
