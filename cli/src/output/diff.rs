//! `--diff`: how the output of some hosts differs from what most hosts printed.

use similar::TextDiff;

/// Lines around a difference that are shown.
const CONTEXT_LINES: usize = 3;

/// A unified diff from `most` to `other`, or nothing when they are the same.
pub(crate) fn unified(most: (&str, &[u8]), other: (&str, &[u8])) -> String {
    let (from, to) = (
        String::from_utf8_lossy(most.1),
        String::from_utf8_lossy(other.1),
    );
    if from == to {
        return String::new();
    }
    TextDiff::from_lines(&*from, &*to)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(most.0, other.0)
        .to_string()
}
