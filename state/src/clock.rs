//! Times as records and logs show them: RFC 3339 with nanoseconds, in UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Now.
#[must_use]
pub fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

/// A time in nanoseconds since 1970.
#[must_use]
pub fn from_nanoseconds(nanoseconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanoseconds));
    rfc3339(at.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// The time that a text says, in nanoseconds since 1970.
#[must_use]
pub fn to_nanoseconds(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos()).ok()
}

fn rfc3339(at: OffsetDateTime) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    at.format(&format).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_has_nine_digits() {
        assert_eq!(
            rfc3339(OffsetDateTime::UNIX_EPOCH),
            "1970-01-01T00:00:00.000000000Z"
        );
    }

    #[test]
    fn nanoseconds_are_read_as_they_were_written() {
        let at = 1_700_000_000_123_456_789;
        assert_eq!(to_nanoseconds(&from_nanoseconds(at)), Some(at));
        assert_eq!(to_nanoseconds("yesterday"), None);
    }
}
