//! How much is how much: what tasks may take where nobody has said.

use std::fs;

/// A task's share of the processes that the kernel allows, in percent: systemd's `TasksMax` for a unit.
const PIDS_PERCENT: u64 = 15;
/// What all tasks together leave of the memory to the agent and the host's services: so much of a hundred, and at least so many
/// bytes, but never more than a quarter.
const RESERVE_PERCENT: u64 = 5;
const RESERVE_BYTES_MIN: u64 = 256 << 20;
/// Below a limit that is larger there is none: the first version writes a number near the largest for it.
const BYTES_MAX: u64 = 1 << 60;

/// Processes and threads of a task where nobody has said, by the kernel's two limits.
pub(super) fn pids_default() -> u64 {
    let read = |file: &str| fs::read_to_string(format!("/proc/sys/kernel/{file}")).ok();
    let number = |file: &str| read(file)?.trim().parse().ok();
    share(number("pid_max"), number("threads-max"))
}

fn share(pid_max: Option<u64>, threads_max: Option<u64>) -> u64 {
    let least = pid_max.into_iter().chain(threads_max).min();
    // The kernel's own default, where it does not tell.
    (least.unwrap_or(1 << 15).saturating_mul(PIDS_PERCENT) / 100).max(1)
}

/// Bytes of all tasks together, of so many that there are.
pub(super) fn all_tasks(capacity: u64) -> u64 {
    let reserve = (capacity / 100 * RESERVE_PERCENT).max(RESERVE_BYTES_MIN);
    capacity - reserve.min(capacity / 4)
}

/// The host's memory in bytes, by `/proc/meminfo`.
pub(super) fn memory_of_host() -> Option<u64> {
    crate::facts::memory_bytes(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// The limit that a file of a cgroup has; `None`: there is none.
pub(super) fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < BYTES_MAX)
}

/// The limit of a cgroup and of all above it, by the first version's `memory.stat`.
pub(super) fn limit_in_stat(stat: &str) -> Option<u64> {
    let found = |line: &str| limit(line.strip_prefix("hierarchical_memory_limit ")?);
    stat.lines().find_map(found)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "for people, one digit behind the point"
)]
pub(super) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_may_have_what_systemd_gives_a_unit() {
        assert_eq!(share(Some(32768), Some(192_730)), 4915);
        assert_eq!(share(Some(4_194_304), Some(2000)), 300);
        assert_eq!(share(None, None), 4915);
        assert_eq!(share(Some(1), None), 1);
        assert!(pids_default() > 100);
    }

    #[test]
    fn tasks_leave_memory_to_the_host() {
        let mib = |mib: u64| all_tasks(mib << 20) >> 20;
        assert_eq!(mib(100 << 10), 95 << 10);
        assert_eq!(mib(2048), 2048 - 256);
        assert_eq!(mib(512), 512 - 128);
        assert_eq!(all_tasks(0), 0);
    }

    #[test]
    fn limits_are_read_as_both_versions_write_them() {
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("1048576\n"), Some(1 << 20));
        let stat = "cache 1\nhierarchical_memory_limit 1048576\nhierarchical_memsw_limit 2\n";
        assert_eq!(limit_in_stat(stat), Some(1 << 20));
        assert_eq!(limit_in_stat("cache 1\n"), None);
    }
}
