//! Times in requests and responses.

use state::clock;

/// What Docker shows for a time that has not come.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970 of `seconds[.fraction]`, or of RFC 3339.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    if let Some(at) = clock::to_nanoseconds(text) {
        return Some(at);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(SECOND)?.checked_add(fraction)
}

/// Seconds since 1970 of RFC 3339; 0 for what is none.
pub(crate) fn seconds(text: &str) -> i64 {
    clock::to_nanoseconds(text).unwrap_or(0) / SECOND
}

/// RFC 3339 of a time of the file system.
pub(crate) fn of_system(at: std::time::SystemTime) -> String {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    clock::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// An age: `1h30m`.
pub(crate) fn duration(text: &str) -> Option<time::Duration> {
    let mut total = time::Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds: i64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = number.parse::<i64>().ok()?.checked_mul(seconds)?;
        total = total.checked_add(time::Duration::seconds(seconds))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// How long something took, as Docker's list words it.
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(nanoseconds("5"), Some(5 * SECOND));
        assert_eq!(nanoseconds("1700000000.5"), Some(1_700_000_000_500_000_000));
        assert_eq!(nanoseconds("1970-01-01T00:00:01Z"), Some(SECOND));
        for bad in ["", "x", "1.x", "1.0123456789"] {
            assert_eq!(nanoseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn ages_are_worded_as_dockers() {
        assert_eq!(human(0), "Less than a second");
        assert_eq!(human(61), "About a minute");
        assert_eq!(human(7200), "2 hours");
        assert_eq!(human(86_400 * 3), "3 days");
    }
}
