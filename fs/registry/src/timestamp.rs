//! Points in time as servers write them, in seconds since 1970 UTC. What is not understood is `None`: no header decides on safety.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// RFC 3339, fractions of a second dropped: `2026-01-31T10:20:30.5Z`, `…+01:00`.
pub(crate) fn rfc3339(text: &str) -> Option<SystemTime> {
    let date = text.get(..19)?;
    let bytes = date.as_bytes();
    if bytes[4] != b'-' || bytes[7] != b'-' || !matches!(bytes[10], b'T' | b't' | b' ') || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let digits: String = date.chars().filter(char::is_ascii_digit).collect();
    let local = compact_digits(&digits)?;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = number(zone.get(1..3)?)? * 60 + number(zone.get(4..6)?)?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    system_time(local - offset)
}

/// The compact form in signed URLs: `20260131T102030Z`.
pub(crate) fn compact(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    system_time(compact_digits(&format!("{}{}", text.get(..8)?, text.get(9..15)?))?)
}

/// The fixed form of an HTTP date (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    let fields: Vec<&str> = text.trim().split(' ').collect();
    let [_, day, month, year, time, "GMT"] = fields.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    let clock: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = clock.as_slice() else { return None };
    let digits = format!("{year:0>4}{month:02}{day:0>2}{hour:0>2}{minute:0>2}{second:0>2}");
    system_time(compact_digits(&digits)?)
}

/// Seconds since 1970.
pub(crate) fn epoch_seconds(text: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

fn compact_digits(digits: &str) -> Option<i64> {
    if digits.len() != 14 {
        return None;
    }
    let field = |from: usize, to: usize| number(digits.get(from..to)?);
    let (year, month, day) = (field(0, 4)?, field(4, 6)?, field(6, 8)?);
    let (hour, minute, second) = (field(8, 10)?, field(10, 12)?, field(12, 14)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &str) -> Option<i64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. The year is taken to begin in March, so the leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    365 * year + leap_days + day_of_year - 719_468
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(time: Option<SystemTime>) -> Option<u64> {
        time.map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn all_forms_name_the_same_second() {
        let expected = Some(784_111_777);
        assert_eq!(seconds(http_date("Sun, 06 Nov 1994 08:49:37 GMT")), expected);
        assert_eq!(seconds(rfc3339("1994-11-06T08:49:37Z")), expected);
        assert_eq!(seconds(rfc3339("1994-11-06T09:49:37.123456789+01:00")), expected);
        assert_eq!(seconds(rfc3339("1994-11-06T08:19:37-00:30")), expected);
        assert_eq!(seconds(compact("19941106T084937Z")), expected);
        assert_eq!(seconds(epoch_seconds("784111777")), expected);
        assert_eq!(seconds(rfc3339("2024-02-29T00:00:00Z")), Some(1_709_164_800));
        assert_eq!(seconds(rfc3339("1970-01-01T00:00:00Z")), Some(0));
    }

    #[test]
    fn other_texts_are_no_time() {
        for text in
            ["", "now", "1994-13-06T08:49:37Z", "1994-11-06 08:49", "1994-11-06T08:49:37", "19941106T084937", "é994-11-06T08:49:37Z", "-1"]
        {
            assert_eq!((rfc3339(text), compact(text), http_date(text), epoch_seconds(text)), (None, None, None, None), "{text}");
        }
    }
}
