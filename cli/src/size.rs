//! Sizes of memory as people write them: `512M`, `1.5G`, `1048576`.

/// Units, by their first letters: each is 1,024 of the one before.
const UNITS: &str = "KMGT";

/// Reads bytes (`1048576`) or binary units (`512M`, `1.5GiB`).
///
/// # Errors
/// A sentence that shows what would do.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let bytes = bytes(text).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| {
        format!("`{text}` is no size above zero: write bytes (1048576) or units (512M, 1.5G)")
    })
}

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| letter.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.to_ascii_uppercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some(letter) => UNITS.find(letter)? + 1,
    };
    if !matches!(letters.as_str(), "" | "B" | "IB") {
        return None;
    }
    let factor = 1_u64 << (10 * power);
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        // A part of a unit.
        Err(_) => {
            let (whole, part) = number.split_once('.')?;
            let digits = u32::try_from(part.len()).ok()?;
            let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
            let part = part.parse::<u64>().ok()?.checked_mul(factor)?;
            whole.checked_add(part / 10_u64.checked_pow(digits)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_units_are_read() {
        let check = |text, bytes| assert_eq!(parse(text), Ok(bytes), "{text}");
        check("1", 1);
        check("1048576", 1 << 20);
        check("512M", 512 << 20);
        check("2g", 2 << 30);
        check("1.5G", 3 << 29);
        check("100KiB", 100 << 10);
        check("0.25TB", 1 << 38);
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for text in [
            "",
            "0",
            "0.0",
            "-1",
            "much",
            "1X",
            "1Mb2",
            "M",
            "1.",
            ".5G",
            "99999999999T",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("512M"), "{text}: {error}");
        }
    }
}
