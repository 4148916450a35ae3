//! How far a run is, on stderr and only on a terminal. It appears when a run takes long enough to wonder.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{failure::count, halt::Counts};

/// How long a run may take before it shows progress.
pub(crate) const APPEARS_AFTER: Duration = Duration::from_secs(1);
/// How often it is drawn, at least.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How often it is drawn, at most, per second.
const DRAWS_PER_SECOND_MAX: u8 = 10;

const KNOWN: &str = "[{elapsed}] [{bar:20}] {pos}/{len}{msg}";
const UNKNOWN: &str = "[{elapsed}] {spinner} {pos} done{msg}";

/// The line on the terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: MultiProgress,
    bar: ProgressBar,
}

impl Progress {
    /// Appears now, in a run that began `elapsed` ago. `total` is the number of all tasks, where it is known.
    pub(crate) fn appear(total: Option<u64>, elapsed: Duration) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND_MAX);
        let screen = MultiProgress::with_draw_target(target);
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = screen.add(bar.with_elapsed(elapsed));
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { screen, bar }
    }

    /// Draws how far it is.
    pub(crate) fn show(&self, counts: Counts, slots: u32, hosts: u32) {
        self.bar.set_position(counts.failed + counts.succeeded);
        self.bar.set_message(message(&Seen {
            counts,
            total: self.bar.length(),
            elapsed: self.bar.elapsed(),
            slots,
            hosts,
        }));
    }

    /// Makes room for other output; the next [`Self::show`] draws it again.
    pub(crate) fn hide(&self) {
        // A terminal that is gone has room for everything.
        let _ = self.screen.clear();
    }

    /// Disappears.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

struct Seen {
    counts: Counts,
    total: Option<u64>,
    elapsed: Duration,
    slots: u32,
    hosts: u32,
}

/// What stands behind the numbers: failures, speed and how long it will take at this speed.
fn message(seen: &Seen) -> String {
    let done = seen.counts.failed + seen.counts.succeeded;
    let mut parts = vec![String::new()];
    if seen.counts.failed > 0 {
        parts.push(format!("{} failed", seen.counts.failed));
    }
    if let Some(left) = seen
        .total
        .map(|total| total.saturating_sub(done))
        .filter(|_| done > 0)
    {
        let per_task = seen.elapsed.as_secs_f64() / approximate(done);
        let seconds = (per_task * approximate(left)).ceil();
        let eta = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        parts.push(format!("eta {}", humantime::format_duration(eta)));
    }
    parts.push(format!(
        "{} on {}",
        count(seen.slots.into(), "slot"),
        count(seen.hosts.into(), "host")
    ));
    parts.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn approximate(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_failures_and_the_time_left() {
        let check = |failed, succeeded, total, expect: &str| {
            let counts = Counts { failed, succeeded };
            let seen = Seen {
                counts,
                total,
                elapsed: Duration::from_secs(10),
                slots: 4,
                hosts: 1,
            };
            assert_eq!(message(&seen), expect);
        };
        check(0, 0, Some(8), ", 4 slots on 1 host");
        check(0, 5, Some(8), ", eta 6s, 4 slots on 1 host");
        check(
            2,
            3,
            Some(5005),
            ", 2 failed, eta 2h 46m 40s, 4 slots on 1 host",
        );
        check(1, 3, None, ", 1 failed, 4 slots on 1 host");
    }
}
