//! Last writer wins by a declared timestamp: which of two rows was written later.

use super::ConflictInput;
use super::rules::{TimeUnit, Timestamp};
use syncline_protocol::{Fields, Value};

const NANOS_PER_MS: i128 = 1_000_000;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

impl Timestamp {
    /// Whether the local row was written later than the remote one. A stamp beyond the server's time
    /// counts as the server's time; what has no readable stamp is older than what has one.
    pub(super) fn mine_is_later(
        &self,
        input: &ConflictInput<'_>,
        local: &Fields,
        remote: &Fields,
    ) -> bool {
        let latest = input.server_time_ms.map(|ms| i128::from(ms) * NANOS_PER_MS);
        let stamp = |row: &Fields| {
            let stamp = self.read(row.get(&self.field)?)?;
            Some(latest.map_or(stamp, |latest| stamp.min(latest)))
        };
        // None is less than any stamp, and equal stamps leave the server's row.
        stamp(local) > stamp(remote)
    }

    /// Nanoseconds since 1970.
    fn read(&self, value: &Value) -> Option<i128> {
        let unit = match self.unit {
            TimeUnit::Milliseconds => NANOS_PER_MS,
            TimeUnit::Seconds => NANOS_PER_SECOND,
        };
        match value {
            Value::Integer(count) => Some(i128::from(*count) * unit),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "a REAL is no more exact than that, and the cast saturates"
            )]
            Value::Real(count) if count.is_finite() => Some((count * unit as f64) as i128),
            Value::Text(text) => from_text(text),
            Value::Null | Value::Real(_) | Value::Blob(_) => None,
        }
    }
}

/// RFC 3339, or SQLite's `YYYY-MM-DD HH:MM:SS[.fff]`; without an offset it is UTC. Nanoseconds since
/// 1970; digits beyond that are cut.
fn from_text(text: &str) -> Option<i128> {
    if !text.is_ascii() || text.len() < 19 {
        return None;
    }
    let (moment, rest) = text.split_at(19);
    let bytes = moment.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| bytes.get(*at) == Some(mark)) {
        return None;
    }
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let (year, month, day) = (
        number(moment.get(0..4)?)?,
        number(moment.get(5..7)?)?,
        number(moment.get(8..10)?)?,
    );
    let hour = number(moment.get(11..13)?).filter(|hour| *hour < 24)?;
    let minute = number(moment.get(14..16)?).filter(|minute| *minute < 60)?;
    // 60 is a leap second.
    let second = number(moment.get(17..19)?).filter(|second| *second <= 60)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (digits, zone) = rest.split_at(end);
            (nanos(digits)?, zone)
        }
        None => (0, rest),
    };
    let minutes = hour * 60 + minute - offset_minutes(zone)?;
    let seconds = i128::from(days(year, month, day)?) * 86_400 + i128::from(minutes * 60 + second);
    Some(seconds * NANOS_PER_SECOND + i128::from(fraction))
}

/// `Z`, `+01:30`, or nothing.
fn offset_minutes(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let hours = number(hours).filter(|hours| *hours < 24)?;
    let minutes = number(minutes).filter(|minutes| *minutes < 60)?;
    Some(sign * (hours * 60 + minutes))
}

/// A number of digits only: no sign, no space.
fn number(digits: &str) -> Option<i64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The digits behind the point, as nanoseconds.
fn nanos(digits: &str) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    let padded: String = digits.chars().chain("000000000".chars()).take(9).collect();
    number(&padded)
}

/// Days since 1970-01-01 in the Gregorian calendar, if there is such a day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=in_month).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before_year = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_month = (153 * month + 2) / 5;
    Some(before_year + before_month + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_rfc_3339_and_as_sqlite_writes_them() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01 00:00:00", 0),
            ("1969-12-31T23:59:59.5Z", -500),
            ("2026-11-22T10:00:00Z", 1_795_341_600_000),
            ("2026-11-22t12:30:00.250+02:30", 1_795_341_600_250),
            ("2026-11-22 10:00:00.250", 1_795_341_600_250),
            ("2024-02-29T00:00:00-00:00", 1_709_164_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-03-01T00:00:00Z", -62_162_035_200_000),
        ] {
            assert_eq!(from_text(text), Some(ms * NANOS_PER_MS), "{text}");
        }
        assert_eq!(
            from_text("1970-01-01T00:00:00.1234567899Z"),
            Some(123_456_789)
        );
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T10:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:00:61Z",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00+1:00",
            "2026-11-22T10:00:00+24:00",
            "2026-11-22T10:00:00 Z",
            "2026-11-22T10:00:00Zz",
            "2026-11-22x10:00:00Z",
            "+026-11-22T10:00:00Z",
            "２０２６-11-22T10:00:00Z",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = days(1999, 12, 31).unwrap();
        for year in 2000..2400 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(now) = days(year, month, day) {
                        assert_eq!(now, last + 1, "{year}-{month}-{day}");
                        last = now;
                    }
                }
            }
        }
        assert_eq!(last + 1, days(1970, 1, 1).unwrap() + 157_054);
    }
}
