//! How far a run is, on stderr and only on a terminal. It appears when a run takes long enough to wonder.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::halt::Counts;

/// How long a run may take before it shows progress.
pub(crate) const APPEARS_AFTER: Duration = Duration::from_secs(1);
/// How often it is drawn, at least.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How often it is drawn, at most, per second.
const DRAWS_PER_SECOND_MAX: u8 = 5;

const KNOWN: &str = "[{elapsed}] {wide_bar} {pos}/{len} {per_sec} eta {eta} {msg}";
const UNKNOWN: &str = "[{elapsed}] {spinner} {pos} done {per_sec} {msg}";

/// The line on the terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Appears now. `total` is the number of all tasks, where it is known.
    pub(crate) fn appear(total: Option<u64>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND_MAX);
        let bar = ProgressBar::with_draw_target(total, target);
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }

    /// Draws how far it is.
    pub(crate) fn show(&self, counts: Counts, slots: u32, hosts: u32) {
        self.bar.set_position(counts.failed + counts.succeeded);
        let failed = match counts.failed {
            0 => String::new(),
            failed => format!("{failed} failed, "),
        };
        self.bar
            .set_message(format!("{failed}{slots} slots on {hosts} hosts"));
        self.bar.tick();
    }

    /// Makes room for other output; the next [`Self::show`] draws it again.
    pub(crate) fn hide(&self) {
        self.bar.suspend(|| ());
    }

    /// Disappears.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
