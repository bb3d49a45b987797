//! `Retry-After` (RFC 9110, section 10.2.3): seconds or a date, never trusted beyond an hour.

use http::header::{DATE, HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// How long the server asks to be left alone, between a second and an hour; `None` when it does
/// not say or cannot be understood. A date is measured against the server's own `Date` where
/// there is one, since a device's clock may be far off.
pub(crate) fn retry_after(headers: &HeaderMap, local_now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = seconds(text).or_else(|| {
        let until = httpdate::parse_http_date(text).ok()?;
        let now = server_now(headers).unwrap_or(local_now);
        Some(until.duration_since(now).unwrap_or(Duration::ZERO))
    })?;
    Some(asked.clamp(SHORTEST, LONGEST))
}

fn server_now(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// Whole or fractional seconds, negative or not, of any length.
fn seconds(text: &str) -> Option<Duration> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let whole =
        digits
            .split_once('.')
            .map_or(digits, |(whole, fraction)| match all_digits(fraction) {
                true => whole,
                false => "",
            });
    if !all_digits(whole) {
        return None;
    }
    if negative {
        return Some(Duration::ZERO);
    }
    Some(Duration::from_secs(whole.parse().unwrap_or(u64::MAX)))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn asked(value: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        }
        let now = httpdate::parse_http_date("Sun, 01 Nov 2026 12:00:00 GMT").unwrap();
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn every_form_is_read_and_clamped() {
        for (value, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("1.9", Some(1)),
            ("0", Some(1)),
            ("-5", Some(1)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 01 Nov 2026 12:01:30 GMT", Some(90)),
            ("Sunday, 01-Nov-26 12:01:30 GMT", Some(90)),
            ("Sun, 01 Nov 2020 12:00:00 GMT", Some(1)),
            ("Fri, 01 Nov 2999 12:00:00 GMT", Some(3600)),
            ("", None),
            ("soon", None),
            ("5s", None),
            ("1.x", None),
            (".5", None),
            ("-", None),
        ] {
            assert_eq!(asked(value, None), expected, "{value:?}");
        }
    }

    #[test]
    fn a_date_is_measured_on_the_servers_clock() {
        let wait = asked(
            "Fri, 01 Nov 2030 00:02:00 GMT",
            Some("Fri, 01 Nov 2030 00:00:00 GMT"),
        );
        assert_eq!(wait, Some(120));
    }
}
