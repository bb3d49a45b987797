//! Sizes on the command line (`500kB`, `2MB`, `1MiB`), and for people.

const UNITS: [(&str, u64); 6] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
];

/// Reads a whole number and a unit; the message says what is wrong and what is right.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str =
        "write a whole number and a unit (B, kB, MB, KiB, MiB), such as 500kB or 2MB";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let size = number
        .parse()
        .ok()
        .zip(unit)
        .and_then(|(number, (_, unit)): (u64, _)| number.checked_mul(*unit));
    match size {
        Some(0) => Err(format!("it must be more than nothing; {EXAMPLES}")),
        Some(size) => Ok(size),
        None => Err(format!("it is no size; {EXAMPLES}")),
    }
}

/// A size for people: the largest unit that fits.
pub(crate) fn human(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_999 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("7B", 7),
            ("500kB", 500_000),
            ("2MB", 2_000_000),
            ("1KiB", 1_024),
        ] {
            assert_eq!(parse(text), Ok(bytes));
        }
        for text in [
            "",
            "7",
            "MB",
            "0B",
            "-1B",
            "1.5MB",
            "2 MB",
            "99999999999999999MB",
        ] {
            assert!(parse(text).unwrap_err().contains("2MB"), "{text:?}");
        }
        assert_eq!(human(999), "999 B");
        assert_eq!(human(12_345), "12 kB");
        assert_eq!(human(2_345_678), "2.3 MB");
    }
}
