//! Syslog messages: RFC 5424, RFC 3164, and the form of local programs, which is the latter without
//! the host's name. Each ends with a line end, which is what separates them in a stream.

use std::io::Write;

use runtime::{LogReceiver, SyslogFormat};
use state::clock;

use crate::log::Frame;

/// Severities: what comes from standard error is an error, as with Docker.
const ERROR: u8 = 3;
const INFORMATIONAL: u8 = 6;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The message of a line, of this facility in this format.
pub(super) fn message(
    receiver: &LogReceiver,
    (facility, format): (u8, SyslogFormat),
    hostname: &str,
    frame: &Frame,
) -> Vec<u8> {
    let severity = if frame.is_stderr {
        ERROR
    } else {
        INFORMATIONAL
    };
    let priority = u32::from(facility) * 8 + u32::from(severity);
    let (tag, pid) = (&receiver.tag, std::process::id());
    let head = match format {
        SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(frame.time)),
        SyslogFormat::Rfc3164 => {
            format!(
                "<{priority}>{} {hostname} {tag}[{pid}]: ",
                stamp(frame.time)
            )
        }
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            let digits = match format {
                SyslogFormat::Rfc5424Micro => 26,
                _ => 19,
            };
            let time = clock::from_nanoseconds(frame.time);
            let time = time.get(..digits).unwrap_or_default();
            format!("<{priority}>1 {time}Z {hostname} {tag} {pid} {tag} - ")
        }
    };
    let mut message = head.into_bytes();
    message.extend_from_slice(frame.bytes.strip_suffix(b"\n").unwrap_or(&frame.bytes));
    message.push(b'\n');
    message
}

/// `Jan  2 15:04:05`, in local time, as RFC 3164 has it.
fn stamp(time: i64) -> String {
    let Ok(local) = sys::time::local(time.div_euclid(1_000_000_000)) else {
        return String::new();
    };
    let mut text = Vec::new();
    drop(write!(
        text,
        "{} {:>2} {:02}:{:02}:{:02}",
        MONTHS.get(local.month).unwrap_or(&""),
        local.day,
        local.hour,
        local.minute,
        local.second
    ));
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::LogDestination;
    use std::collections::BTreeMap;

    fn text(format: SyslogFormat, is_stderr: bool) -> String {
        let receiver = LogReceiver {
            destination: LogDestination::Journald,
            tag: "web".to_owned(),
            id: String::new(),
            name: String::new(),
            image: String::new(),
            attributes: BTreeMap::new(),
        };
        let frame = Frame {
            time: 1_700_000_007_123_456_789,
            is_stderr,
            bytes: b"hello\n".to_vec(),
        };
        String::from_utf8(message(&receiver, (3, format), "host", &frame)).unwrap()
    }

    #[test]
    fn messages_have_the_form_of_their_rfc() {
        let pid = std::process::id();
        assert_eq!(
            text(SyslogFormat::Rfc5424, false),
            format!("<30>1 2023-11-14T22:13:27Z host web {pid} web - hello\n")
        );
        assert_eq!(
            text(SyslogFormat::Rfc5424Micro, true),
            format!("<27>1 2023-11-14T22:13:27.123456Z host web {pid} web - hello\n")
        );
        let old = text(SyslogFormat::Rfc3164, false);
        assert!(old.starts_with("<30>Nov 1"), "{old}");
        assert!(
            old.ends_with(&format!(":27 host web[{pid}]: hello\n")),
            "{old}"
        );
        let local = text(SyslogFormat::Local, false);
        assert!(
            local.ends_with(&format!(":27 web[{pid}]: hello\n")),
            "{local}"
        );
    }
}
