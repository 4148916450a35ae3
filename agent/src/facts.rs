//! The host an agent is on: what it tells about it when it registers, and what it needs of it.

use std::fs;

use fleetpool_net::Carrier;
use fleetpool_proto::message::Registration;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{Options, spawner::Contained};

/// What does not change in an agent's life.
pub(crate) fn registration(options: &Options) -> Registration {
    Registration {
        name: options.name.clone(),
        slots: options.slots,
        labels: options.labels.clone(),
        incarnation: incarnation(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        pid: std::process::id(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        cpus: processors(),
        memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or(0),
        ..Registration::default()
    }
}

/// Adds how tasks are held there.
pub(crate) fn tell_containment(facts: &mut Registration, contained: &Contained) {
    facts.containment = contained.name().to_owned();
    facts.limits = contained.limits();
}

/// The same on a session of that kind.
pub(crate) fn registration_on(facts: &Registration, carrier: Carrier) -> Box<Registration> {
    Box::new(Registration {
        carrier: carrier.name().to_owned(),
        ..facts.clone()
    })
}

/// Processors that this process may use.
pub(crate) fn processors() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Descriptors that a worker takes here at most: its keeper's socket, its own, and its pipes.
const DESCRIPTORS_A_SLOT: u64 = 4;
/// Descriptors for everything else.
const DESCRIPTORS_SPARE: u64 = 128;

/// Raises this process's limit of open files where the slots need more, as far as it may be raised. What runs on the
/// slots inherits it, so it is left alone where it is enough.
pub(crate) fn make_room_for_descriptors(slots: u16) {
    let wanted = u64::from(slots) * DESCRIPTORS_A_SLOT + DESCRIPTORS_SPARE;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_err() {
        tracing::warn!(
            soft,
            wanted,
            "cannot raise the limit of open files: not all slots may be usable"
        );
    }
}

/// Differs between two lives of an agent: the kernel's own random numbers.
fn incarnation() -> u64 {
    let hex: String = read("/proc/sys/kernel/random/uuid")
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    // Without it, a time that no other life of this host's agent began at.
    u64::from_str_radix(&hex, 16).unwrap_or_else(|_| crate::clock::wall_us())
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    memory_bytes(meminfo).map(|bytes| bytes >> 20)
}

/// The host's memory, by `/proc/meminfo`.
pub(crate) fn memory_bytes(meminfo: &str) -> Option<u64> {
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        assert_eq!(
            memory_mib("MemTotal:       16384 kB\nMemFree: 1 kB"),
            Some(16)
        );
        assert_eq!(memory_mib(""), None);
    }

    #[test]
    fn two_lives_differ() {
        assert_ne!(incarnation(), incarnation());
    }
}
