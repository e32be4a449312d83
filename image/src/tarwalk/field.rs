//! Numbers and texts in tar headers.

/// A text field: up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number field: octal digits between blanks and NULs, or base-256 when the first bit is set
/// (GNU tar manual, "Extensions to the archive format"). `None` when it is neither.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => base256(*first, rest),
        _ => octal(field),
    }
}

fn base256(first: u8, rest: &[u8]) -> Option<i64> {
    // Bit 0x40 is the sign of a two's complement number of the field's width.
    let negative = first & 0x40 != 0;
    let top = if negative { first } else { first & 0x3f };
    let start: i64 = if negative { -1 } else { 0 };
    std::iter::once(top)
        .chain(rest.iter().copied())
        .try_fold(start, |value, byte| {
            value
                .checked_mul(256)
                .map(|shifted| shifted | i64::from(byte))
        })
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_pad = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_pad(byte));
    let Some(start) = start else {
        return Some(0);
    };
    let digits = text(field.get(start..)?);
    let end = digits
        .iter()
        .rposition(|byte| !is_pad(byte))
        .map_or(0, |at| at + 1);
    digits
        .get(..end)?
        .iter()
        .try_fold(0_i64, |value, byte| match byte {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
            _ => None,
        })
}

/// A decimal number without sign, blanks or leading plus, as PAX records hold them.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A PAX time: seconds, perhaps negative, perhaps with a fraction. Digits beyond nanoseconds are
/// dropped. Gives whole seconds (rounded down) and nanoseconds.
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0_u32;
    for at in 0..9 {
        let digit = fraction.get(at).map_or(0, |byte| byte - b'0');
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_reads_octal_and_base256() {
        let table: [(&[u8], Option<i64>); 11] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"8", None),
            (b"6 4", None),
            (b"-1", None),
            (b"\x80\0\0\0\0\x20\0\0", Some(0x20_0000)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"777777777777", Some(0o777_777_777_777)),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn time_rounds_towards_the_past() {
        type Time = Option<(i64, u32)>;
        let table: [(&[u8], Time); 8] = [
            (b"0", Some((0, 0))),
            (b"12.5", Some((12, 500_000_000))),
            (b"-1.5", Some((-2, 500_000_000))),
            (b"-3", Some((-3, 0))),
            (b"1.0000000019", Some((1, 1))),
            (b"1.", Some((1, 0))),
            (b"1.x", None),
            (b"", None),
        ];
        for (value, expected) in table {
            assert_eq!(time(value), expected, "{value:?}");
        }
    }
}
