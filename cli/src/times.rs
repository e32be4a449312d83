//! Times as lists show them, and as users give them: RFC 3339, seconds since 1970, or how long ago.

use anyhow::Context as _;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, OffsetDateTime};

/// How long ago, in one unit, as Docker words it.
pub(crate) fn age(rfc3339: &str) -> String {
    let Ok(at) = OffsetDateTime::parse(rfc3339, &Rfc3339) else {
        return "?".to_owned();
    };
    let seconds = (OffsetDateTime::now_utc() - at).whole_seconds().max(0);
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3_600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / (24 * 7)),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / (24 * 30)),
        _ => format!("{} years", seconds / (3600 * 24 * 365)),
    }
}

/// A time as Docker's lists show it: `2026-01-02 03:04:05 +0000 UTC`.
pub(crate) fn local(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    at.to_offset(time::UtcOffset::UTC)
        .format(&format)
        .unwrap_or_default()
}

/// The same, of a time that is written in RFC 3339.
pub(crate) fn local_of(rfc3339: &str) -> String {
    OffsetDateTime::parse(rfc3339, &Rfc3339)
        .map(local)
        .unwrap_or_default()
}

/// A time (RFC 3339, a day or a minute of it), seconds since 1970 with a fraction or without, or an
/// age: `1h30m`.
pub(crate) fn point(text: &str) -> anyhow::Result<OffsetDateTime> {
    let whole = ["", "Z", ":00Z", "T00:00:00Z"];
    if let Some(time) = whole
        .iter()
        .find_map(|end| OffsetDateTime::parse(&format!("{text}{end}"), &Rfc3339).ok())
    {
        return Ok(time);
    }
    if let Some(time) = seconds(text) {
        return Ok(time);
    }
    let age = duration(text)
        .with_context(|| format!("`{text}` is neither a time nor an age such as `24h`"))?;
    Ok(OffsetDateTime::now_utc() - age)
}

/// The same in nanoseconds since 1970.
pub(crate) fn nanoseconds(text: &str) -> anyhow::Result<i64> {
    let at = point(text)?.unix_timestamp_nanos();
    i64::try_from(at).with_context(|| format!("`{text}` is too far away"))
}

fn seconds(text: &str) -> Option<OffsetDateTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.parse::<i128>().ok()?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let nanoseconds = whole.checked_mul(1_000_000_000)?.checked_add(fraction)?;
    digits.then(|| OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok())?
}

/// A length of time as Go writes it, `1h30m`, `1.5s` or `100ms`, and in days: `2d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let seconds = number.parse::<f64>().ok()? * seconds;
        let part = Duration::checked_seconds_f64(seconds)?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_is_a_time_or_an_age() {
        let at = |text: &str| point(text).unwrap().unix_timestamp_nanos();
        assert_eq!(at("1970-01-02T00:00:01Z"), 86_401_000_000_000);
        assert_eq!(at("1970-01-02"), 86_400_000_000_000);
        assert_eq!(at("1970-01-02T00:01"), 86_460_000_000_000);
        assert_eq!(at("12.5"), 12_500_000_000);
        assert!(at("1h30m") < OffsetDateTime::now_utc().unix_timestamp_nanos());
        for bad in ["", "soon", "1x", "h", "1.2.3"] {
            assert!(point(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn duration_is_written_as_in_go() {
        let ms = |text: &str| duration(text).unwrap().whole_milliseconds();
        assert_eq!(ms("1h30m"), 5_400_000);
        assert_eq!(ms("1.5s"), 1500);
        assert_eq!(ms("250ms"), 250);
        assert_eq!(duration("24h"), Some(Duration::hours(24)));
        assert_eq!(duration("1d2h3m4s"), Some(Duration::seconds(93_784)));
        for bad in ["", "h", "5", "5x", "1h5", "99999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn local_time_is_written_as_docker_writes_it() {
        assert_eq!(
            local_of("2026-01-02T03:04:05.6Z"),
            "2026-01-02 03:04:05 +0000 UTC"
        );
    }
}
