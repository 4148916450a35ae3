//! What processes have in memory, as proc(5) tells it.

use std::fs;

/// What a process may grow by, in MiB, whatever it is asked to do (G7).
pub const GROWTH_MIB_MAX: u64 = 64;

/// A line of `/proc/PID/status` that is in kB, such as `VmRSS:`; none when the process is gone.
#[must_use]
pub fn kib(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The most that a process has had in memory, in MiB; none when it is gone.
#[must_use]
pub fn peak_mib_while_it_runs(pid: u32) -> Option<u64> {
    Some(kib(pid, "VmHWM:")? / 1024)
}

/// The most that a process which runs has had in memory, in MiB.
///
/// # Panics
/// When it is gone.
#[must_use]
pub fn peak_mib(pid: u32) -> u64 {
    peak_mib_while_it_runs(pid).expect("it runs")
}

/// From now on the most that it has had is counted anew.
///
/// # Panics
/// When it is gone.
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it runs");
}

/// Checks that processes have grown by [`GROWTH_MIB_MAX`] at most, of these peaks before and after, in MiB.
///
/// # Panics
/// When one has grown by more.
pub fn assert_bounded(before: &[u64], after: &[u64]) {
    for (before, after) in before.iter().zip(after) {
        // The kernel counts the pages of each thread for itself: a peak may come out a little lower than it was.
        let growth = after.saturating_sub(*before);
        assert!(growth <= GROWTH_MIB_MAX, "{after} MiB, {before} before");
    }
}

/// How much a process grows from here on, at its largest.
#[derive(Debug)]
pub struct Growth {
    pid: u32,
    before_kib: u64,
}

impl Growth {
    /// Of a process as it is now.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        forget_peak(pid);
        let before_kib = kib(pid, "VmHWM:").expect("it runs");
        Self { pid, before_kib }
    }

    /// Until now, in KiB.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn kib(&self) -> u64 {
        let peak_kib = kib(self.pid, "VmHWM:").expect("it runs");
        peak_kib.saturating_sub(self.before_kib)
    }
}
