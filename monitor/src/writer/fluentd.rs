//! Fluentd's forward protocol in its message mode: `[tag, time, record]` in MessagePack
//! (github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1).

use runtime::LogReceiver;

use crate::log::Frame;

/// The message of a line.
pub(super) fn message(receiver: &LogReceiver, sub_second: bool, frame: &Frame) -> Vec<u8> {
    let line = frame.bytes.strip_suffix(b"\n");
    let is_part = line.is_none();
    let text = String::from_utf8_lossy(line.unwrap_or(&frame.bytes));
    let source = if frame.is_stderr { "stderr" } else { "stdout" };
    let name = format!("/{}", receiver.name);
    let mut pairs: Vec<(&str, &str)> = vec![
        ("container_id", &receiver.id),
        ("container_name", &name),
        ("source", source),
        ("log", &text),
    ];
    if is_part {
        pairs.push(("partial_message", "true"));
    }
    let attributes = &receiver.attributes;
    pairs.extend(attributes.iter().map(|(key, value)| (&**key, &**value)));
    let mut bytes = vec![0x93];
    string(&mut bytes, &receiver.tag);
    time(&mut bytes, frame.time, sub_second);
    map_header(&mut bytes, pairs.len());
    for (key, value) in pairs {
        string(&mut bytes, key);
        string(&mut bytes, value);
    }
    bytes
}

/// Seconds, or an `EventTime`: extension type 0 of seconds and nanoseconds.
fn time(to: &mut Vec<u8>, nanoseconds: i64, sub_second: bool) {
    let seconds = u32::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(u32::MAX);
    if sub_second {
        let rest = u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or(0);
        to.extend_from_slice(&[0xd7, 0x00]);
        to.extend_from_slice(&seconds.to_be_bytes());
        to.extend_from_slice(&rest.to_be_bytes());
    } else {
        to.push(0xce);
        to.extend_from_slice(&seconds.to_be_bytes());
    }
}

fn map_header(to: &mut Vec<u8>, pairs: usize) {
    match u8::try_from(pairs) {
        Ok(count @ 0..=15) => to.push(0x80 | count),
        _ => {
            to.push(0xde);
            let count = u16::try_from(pairs).unwrap_or(u16::MAX);
            to.extend_from_slice(&count.to_be_bytes());
        }
    }
}

fn string(to: &mut Vec<u8>, text: &str) {
    match u32::try_from(text.len()).unwrap_or(u32::MAX) {
        length @ 0..=31 => to.push(0xa0 | length.to_be_bytes()[3]),
        length @ 32..=0xffff => {
            to.push(0xda);
            to.extend_from_slice(&length.to_be_bytes()[2..]);
        }
        length => {
            to.push(0xdb);
            to.extend_from_slice(&length.to_be_bytes());
        }
    }
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::LogDestination;
    use std::collections::BTreeMap;

    #[test]
    fn message_is_an_array_of_tag_time_and_record() {
        let receiver = LogReceiver {
            destination: LogDestination::Journald,
            tag: "t".to_owned(),
            id: "i".repeat(64),
            name: "n".to_owned(),
            image: String::new(),
            attributes: BTreeMap::new(),
        };
        let frame = Frame {
            time: 5_000_000_006,
            is_stderr: true,
            bytes: b"hi\n".to_vec(),
        };
        let mut wanted = b"\x93\xa1t\xce\0\0\0\x05\x84\xaccontainer_id\xda\0\x40".to_vec();
        wanted.extend([b'i'; 64]);
        wanted.extend(b"\xaecontainer_name\xa2/n\xa6source\xa6stderr\xa3log\xa2hi");
        assert_eq!(message(&receiver, false, &frame), wanted);
        let exact = message(&receiver, true, &frame);
        assert!(exact.starts_with(b"\x93\xa1t\xd7\0\0\0\0\x05\0\0\0\x06\x84"));
    }
}
