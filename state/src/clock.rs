//! Times as records and logs show them: RFC 3339 with nanoseconds, in UTC.

use time::OffsetDateTime;
use time::macros::format_description;

/// Now.
#[must_use]
pub fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
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
}
