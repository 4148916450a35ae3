//! Durations as people write them: `1.5`, `90`, `2m30s`, `1h`.

use std::time::Duration;

/// Reads bare seconds (`1.5`) or units (`2m30s`).
///
/// # Errors
/// A sentence that shows what would do.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match parsed {
        Some(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        _ => Err(format!(
            "`{text}` is no duration above zero: write seconds (1.5) or units (90s, 2m30s, 1h)"
        )),
    }
}

/// Whole milliseconds, for the wire.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_units_are_read() {
        let check = |text, ms| assert_eq!(parse(text).map(millis), Ok(ms), "{text}");
        check("1", 1000);
        check("1.5", 1500);
        check("0.25", 250);
        check("90s", 90_000);
        check("2m30s", 150_000);
        check("1h", 3_600_000);
        check("100ms", 100);
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for text in ["", "0", "-1", "soon", "1x", "NaN", "inf", "1e300"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("2m30s"), "{text}: {error}");
        }
    }
}
