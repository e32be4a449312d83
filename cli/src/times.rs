//! Times as lists show them, and as filters are given them.

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

/// A time (RFC 3339 or a day), seconds since 1970, or an age: `1h30m`.
pub(crate) fn until(text: &str) -> anyhow::Result<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    if let Ok(time) = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339) {
        return Ok(time);
    }
    if let Some(time) = text
        .parse()
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
    {
        return Ok(time);
    }
    let age = duration(text)
        .with_context(|| format!("`{text}` is neither a time nor an age such as `24h`"))?;
    Ok(OffsetDateTime::now_utc() - age)
}

fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
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
        total = total.checked_add(Duration::seconds(seconds))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_sum_of_units() {
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
