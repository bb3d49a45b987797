//! Spans of time on the command line (`30d`, `12h`, `25s`), and times for people.

use std::time::Duration;

const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a whole number and a unit; the message says what is wrong and what is right.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str =
        "write a whole number and a unit (ms, s, m, h, d, w), such as 25s, 12h or 30d";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("it does not start with a number; {EXAMPLES}"));
    }
    if unit.is_empty() {
        return Err(format!("it has no unit; {EXAMPLES}"));
    }
    let Some((_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{unit:?} is no unit of time; {EXAMPLES}"));
    };
    let span_ms = number
        .parse()
        .ok()
        .and_then(|n: u64| n.checked_mul(*unit_ms));
    match span_ms {
        Some(0) => Err(format!("it must be longer than nothing; {EXAMPLES}")),
        Some(ms) if ms <= 100 * 365 * 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("it is longer than a hundred years".to_owned()),
    }
}

/// A span for people: the largest unit that fits.
pub(crate) fn human(ms: i64) -> String {
    let s = ms.max(0) / 1_000;
    match s {
        0 => "less than 1 s".to_owned(),
        1..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// How long ago a moment was.
pub(crate) fn ago(at: Option<i64>, now: i64) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| format!("{} ago", human(now - at)),
    )
}

/// A moment in UTC, `2026-02-03 04:05:06Z`.
pub(crate) fn utc(unix_ms: i64) -> String {
    let (days, s) = (
        unix_ms.div_euclid(86_400_000),
        unix_ms.rem_euclid(86_400_000) / 1_000,
    );
    // Days since 1970 to a civil date: https://howardhinnant.github.io/date_algorithms.html
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        s / 3_600,
        s / 60 % 60,
        s % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(parse("25s"), Ok(Duration::from_secs(25)));
        assert_eq!(parse("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(parse("5ms"), Ok(Duration::from_millis(5)));
    }

    #[test]
    fn what_is_no_span_is_told() {
        for (text, word) in [
            ("", "number"),
            ("d", "number"),
            ("-3d", "number"),
            ("30", "no unit"),
            ("1.5h", "\".5h\""),
            ("3 d", "\" d\""),
            ("3fortnights", "fortnights"),
            ("0s", "longer than nothing"),
            ("99999999999999999999s", "hundred years"),
            ("9999999999d", "hundred years"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(word), "{text:?}: {message}");
        }
    }

    #[test]
    fn times_read_well() {
        assert_eq!(human(-5), "less than 1 s");
        assert_eq!(human(119_999), "119 s");
        assert_eq!(human(120_000), "2 min");
        assert_eq!(human(200_000_000), "2 d");
        assert_eq!(ago(None, 5), "never");
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(1_709_251_199_000), "2024-02-29 23:59:59Z");
        assert_eq!(utc(-1), "1969-12-31 23:59:59Z");
    }
}
