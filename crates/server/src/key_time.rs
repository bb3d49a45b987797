//! The time that a key carries: UUIDs of version 7 begin with milliseconds.
//!
//! Compared with each other only, never with a clock: a device whose clock is wrong still makes keys
//! in its own order.

/// Milliseconds since the Unix epoch, if the key is a UUID of version 7 (with or without hyphens).
pub(crate) fn uuid7_ms(key: &str) -> Option<i64> {
    let hyphens = key.bytes().filter(|byte| *byte == b'-').count();
    let placed = [8, 13, 18, 23]
        .iter()
        .all(|at| key.as_bytes().get(*at) == Some(&b'-'));
    if !(hyphens == 0 || hyphens == 4 && placed) {
        return None;
    }
    let digits: String = key.chars().filter(|c| *c != '-').collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let version = digits.as_bytes().get(12) == Some(&b'7');
    let variant = matches!(
        digits.as_bytes().get(16),
        Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B')
    );
    if !(is_uuid && version && variant) {
        return None;
    }
    i64::from_str_radix(digits.get(..12)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::uuid7_ms;

    #[test]
    fn only_uuids_of_version_7_have_a_time() {
        let ms = Some(0x0123_4567_89ab);
        assert_eq!(uuid7_ms("01234567-89ab-7000-8000-000000000000"), ms);
        assert_eq!(uuid7_ms("0123456789AB7FFFBFFFFFFFFFFFFFFF"), ms);
        for other in [
            "",
            "k1",
            "01234567-89ab-4000-8000-000000000000",
            "01234567-89ab-7000-c000-000000000000",
            "01234567-89ab-7000-8000-00000000000",
            "0123456789ab-7000-8000-0000-00000000",
            "01234567-89ab-7000-8000-00000000000g",
            "é1234567-89ab-7000-8000-0000000000",
        ] {
            assert_eq!(uuid7_ms(other), None, "{other}");
        }
    }
}
