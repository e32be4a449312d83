//! Messages in the journal's native protocol: `KEY=value`, and values with line ends after a length
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL). Fields have Docker's names.

use runtime::LogReceiver;
use state::clock;

use crate::log::Frame;

/// The message of a line.
pub(super) fn message(receiver: &LogReceiver, frame: &Frame) -> Vec<u8> {
    let line = frame.bytes.strip_suffix(b"\n");
    let short = receiver.id.get(..12).unwrap_or(&receiver.id);
    let time = clock::from_nanoseconds(frame.time);
    let mut bytes = Vec::new();
    field(&mut bytes, "MESSAGE", line.unwrap_or(&frame.bytes));
    let priority = if frame.is_stderr { "3" } else { "6" };
    for (key, value) in [
        ("PRIORITY", priority),
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", &receiver.id),
        ("CONTAINER_NAME", &receiver.name),
        ("CONTAINER_TAG", &receiver.tag),
        ("SYSLOG_IDENTIFIER", &receiver.tag),
        ("IMAGE_NAME", &receiver.image),
        ("SYSLOG_TIMESTAMP", &time),
    ] {
        field(&mut bytes, key, value.as_bytes());
    }
    if line.is_none() {
        field(&mut bytes, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    for (key, value) in &receiver.attributes {
        field(&mut bytes, &name(key), value.as_bytes());
    }
    bytes
}

fn field(to: &mut Vec<u8>, key: &str, value: &[u8]) {
    to.extend_from_slice(key.as_bytes());
    if value.contains(&b'\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// A name that the journal takes: capital letters, digits and underscores, the last not first.
fn name(key: &str) -> String {
    let upper = key.chars().map(|c| match c.to_ascii_uppercase() {
        c @ ('A'..='Z' | '0'..='9') => c,
        _ => '_',
    });
    let name: String = upper.collect();
    name.trim_start_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_with_a_line_end_has_its_length_before_it() {
        let mut bytes = Vec::new();
        field(&mut bytes, "A", b"one");
        field(&mut bytes, "B", b"two\nlines");
        assert_eq!(bytes, b"A=one\nB\n\x09\0\0\0\0\0\0\0two\nlines\n");
        assert_eq!(name("com.example/tier-1"), "COM_EXAMPLE_TIER_1");
        assert_eq!(name("__x"), "X");
    }
}
