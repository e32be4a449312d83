//! Records of a container's log, in two forms: Docker's `json-file`, one object a line, and `local`,
//! compact and binary. A line of the container that is too long for one record fills several, of
//! which only the last ends with a line end.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock;

/// A longer line fills more than one record, as with Docker.
pub const MAX_LINE: usize = 16 * 1024;

/// No record of the binary form is longer: a line, and what stands beside it.
const MAX_RECORD: usize = MAX_LINE + 64 * 1024;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogForm {
    /// `json-file`.
    JsonFile,
    /// `local`: a length, a message, the same length again, so that it is read in both directions.
    Local,
}

/// What a container has written: a line, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// It was written to standard error.
    pub is_stderr: bool,
    /// The bytes, with the line end when there is one.
    pub bytes: Vec<u8>,
    /// What `--details` shows.
    pub attributes: BTreeMap<String, String>,
}

/// The form of `json-file`.
#[derive(Deserialize)]
struct JsonRecord {
    log: String,
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

/// The time of a record that is written now.
#[must_use]
pub fn nanoseconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

impl LogForm {
    /// Appends a record of a time in nanoseconds since 1970. `attributes` is what
    /// [`LogForm::attributes`] gave.
    pub fn encode(
        self,
        to: &mut Vec<u8>,
        time: i64,
        is_stderr: bool,
        bytes: &[u8],
        attributes: &[u8],
    ) {
        match self {
            Self::JsonFile => encode_json(to, time, is_stderr, bytes, attributes),
            Self::Local => encode_local(to, time, is_stderr, bytes, attributes),
        }
    }

    /// The attributes of all records, encoded once.
    #[must_use]
    pub fn attributes(self, attributes: &BTreeMap<String, String>) -> Vec<u8> {
        if attributes.is_empty() {
            return Vec::new();
        }
        match self {
            Self::JsonFile => {
                let mut text = b"\"attrs\":".to_vec();
                json(&mut text, attributes);
                text.push(b',');
                text
            }
            Self::Local => {
                let mut message = Vec::new();
                for (key, value) in attributes {
                    let mut pair = Vec::new();
                    field_bytes(&mut pair, 1, key.as_bytes());
                    field_bytes(&mut pair, 2, value.as_bytes());
                    field_bytes(&mut message, ATTRIBUTE, &pair);
                }
                message
            }
        }
    }

    /// Takes the first record of `bytes`: the record and how long it was. A record that is not
    /// complete yet gives `None`; one that is damaged gives no record.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Option<(Option<LogRecord>, usize)> {
        match self {
            Self::JsonFile => {
                let end = bytes.iter().position(|byte| *byte == b'\n')?;
                Some((decode_json(bytes.get(..end)?), end + 1))
            }
            Self::Local => decode_local(bytes),
        }
    }

    /// How long the last record of `bytes` is, which end with one; `None` when its beginning is not
    /// in them.
    #[must_use]
    pub fn last_length(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::JsonFile => {
                let body = bytes.get(..bytes.len().checked_sub(1)?)?;
                let before = body.iter().rposition(|byte| *byte == b'\n')?;
                Some(bytes.len() - before - 1)
            }
            Self::Local => {
                let length = length_at(bytes, bytes.len().checked_sub(4)?)?;
                let whole = length.checked_add(8)?;
                (length <= MAX_RECORD && whole <= bytes.len()).then_some(whole)
            }
        }
    }
}

/// Writes JSON, which cannot fail for text and maps of text.
fn json(to: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    drop(serde_json::to_writer(to, value));
}

fn encode_json(to: &mut Vec<u8>, time: i64, is_stderr: bool, bytes: &[u8], attributes: &[u8]) {
    to.extend_from_slice(b"{\"log\":");
    json(to, &*String::from_utf8_lossy(bytes));
    let stream: &[u8] = if is_stderr { b"stderr" } else { b"stdout" };
    for part in [
        b",\"stream\":\"",
        stream,
        b"\",",
        attributes,
        b"\"time\":\"",
    ] {
        to.extend_from_slice(part);
    }
    to.extend_from_slice(clock::from_nanoseconds(time).as_bytes());
    to.extend_from_slice(b"\"}\n");
}

fn decode_json(line: &[u8]) -> Option<LogRecord> {
    let record: JsonRecord = serde_json::from_slice(line).ok()?;
    Some(LogRecord {
        time: clock::to_nanoseconds(&record.time)?,
        is_stderr: record.stream == "stderr",
        bytes: record.log.into_bytes(),
        attributes: record.attrs,
    })
}

/// The fields of a message of the binary form, numbered as in Docker's `LogEntry` (protocol buffers,
/// encoding.md); attributes are ours.
const SOURCE: u8 = 1;
const TIME: u8 = 2;
const LINE: u8 = 3;
const PARTIAL: u8 = 4;
const ATTRIBUTE: u8 = 15;

fn encode_local(to: &mut Vec<u8>, time: i64, is_stderr: bool, bytes: &[u8], attributes: &[u8]) {
    let start = to.len();
    to.extend_from_slice(&[0; 4]);
    let stream: &[u8] = if is_stderr { b"stderr" } else { b"stdout" };
    field_bytes(to, SOURCE, stream);
    to.push(TIME << 3);
    varint(to, u64::try_from(time).unwrap_or(0));
    let line = bytes.strip_suffix(b"\n");
    field_bytes(to, LINE, line.unwrap_or(bytes));
    if line.is_none() {
        to.extend_from_slice(&[PARTIAL << 3, 1]);
    }
    to.extend_from_slice(attributes);
    let length = u32::try_from(to.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(head) = to.get_mut(start..start + 4) {
        head.copy_from_slice(&length.to_be_bytes());
    }
    to.extend_from_slice(&length.to_be_bytes());
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let head = bytes.get(at..at.checked_add(4)?)?;
    let head: [u8; 4] = head.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(head)).ok()
}

fn decode_local(bytes: &[u8]) -> Option<(Option<LogRecord>, usize)> {
    // A writer that was killed in the middle of a record is followed by a line end, which no length
    // begins with: no record is as long as that would mean.
    let length = length_at(bytes, 0)?;
    let next_whole = |is_place: &dyn Fn(usize) -> bool| {
        let mut places = (1..bytes.len()).filter(|at| is_place(*at));
        places.find(|at| decode_whole(bytes.get(*at..).unwrap_or_default()).is_some())
    };
    if length > MAX_RECORD {
        return next_whole(&|_| true).map(|next| (None, next));
    }
    if bytes.len() < length + 8 {
        // Not complete yet, or never, when a whole one stands behind that line end.
        let after_line_end = |at: usize| bytes.get(at - 1) == Some(&b'\n');
        return next_whole(&after_line_end).map(|next| (None, next));
    }
    match decode_whole(bytes) {
        Some(found) => Some((Some(found.0), found.1)),
        None => Some((None, 1)),
    }
}

fn decode_whole(bytes: &[u8]) -> Option<(LogRecord, usize)> {
    let length = length_at(bytes, 0).filter(|length| *length <= MAX_RECORD)?;
    if length_at(bytes, length + 4)? != length {
        return None;
    }
    Some((message(bytes.get(4..length + 4)?)?, length + 8))
}

fn message(mut bytes: &[u8]) -> Option<LogRecord> {
    let mut record = LogRecord {
        time: 0,
        is_stderr: false,
        bytes: Vec::new(),
        attributes: BTreeMap::new(),
    };
    let mut is_partial = false;
    while let Some((number, value)) = next_field(&mut bytes) {
        match (number, value) {
            (SOURCE, Field::Bytes(source)) => record.is_stderr = source == b"stderr",
            (TIME, Field::Number(time)) => record.time = i64::try_from(time).ok()?,
            (LINE, Field::Bytes(line)) => record.bytes = line.to_vec(),
            (PARTIAL, Field::Number(partial)) => is_partial = partial == 1,
            (ATTRIBUTE, Field::Bytes(mut pair)) => {
                let mut text = || match next_field(&mut pair) {
                    Some((_, Field::Bytes(bytes))) => {
                        Some(String::from_utf8_lossy(bytes).into_owned())
                    }
                    _ => None,
                };
                let key = text()?;
                record.attributes.insert(key, text()?);
            }
            _ => {}
        }
    }
    if !bytes.is_empty() {
        return None;
    }
    if !is_partial {
        record.bytes.push(b'\n');
    }
    Some(record)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn field_bytes(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push((number << 3) | 2);
    varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u8, Field<'a>)> {
    let (tag, rest) = bytes.split_first()?;
    let mut rest = rest;
    let value = next_varint(&mut rest)?;
    let field = match tag & 7 {
        0 => Field::Number(value),
        2 => {
            let length = usize::try_from(value).ok()?;
            let (found, after) = rest.split_at_checked(length)?;
            rest = after;
            Field::Bytes(found)
        }
        _ => return None,
    };
    *bytes = rest;
    Some((tag >> 3, field))
}

fn next_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> BTreeMap<String, String> {
        BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())])
    }

    #[test]
    fn record_of_each_form_is_read_as_it_was_written() {
        for form in [LogForm::JsonFile, LogForm::Local] {
            let mut bytes = Vec::new();
            form.encode(
                &mut bytes,
                nanoseconds_now(),
                false,
                "eins \"zwei\"\n".as_bytes(),
                b"",
            );
            let first = bytes.len();
            let encoded = form.attributes(&attributes());
            form.encode(&mut bytes, nanoseconds_now(), true, b"no end", &encoded);
            let (record, length) = form.decode(&bytes).unwrap();
            let record = record.unwrap();
            assert_eq!((length, record.is_stderr), (first, false));
            assert_eq!(record.bytes, "eins \"zwei\"\n".as_bytes());
            assert!(record.time > 1_600_000_000_000_000_000);
            let (record, _) = form.decode(&bytes[first..]).unwrap();
            let record = record.unwrap();
            assert_eq!((&*record.bytes, record.is_stderr), (&b"no end"[..], true));
            assert_eq!(record.attributes, attributes());
            assert_eq!(form.last_length(&bytes), Some(bytes.len() - first));
            assert_eq!(form.decode(&bytes[..first - 1]), None);
        }
    }

    #[test]
    fn damaged_record_is_passed_over() {
        for form in [LogForm::JsonFile, LogForm::Local] {
            let mut bytes = Vec::new();
            form.encode(&mut bytes, nanoseconds_now(), false, b"torn\n", b"");
            bytes.truncate(bytes.len() / 2);
            bytes.push(b'\n');
            form.encode(&mut bytes, nanoseconds_now(), false, b"whole\n", b"");
            let mut rest = &bytes[..];
            let mut found = Vec::new();
            while let Some((record, length)) = form.decode(rest) {
                rest = &rest[length..];
                found.extend(record);
            }
            assert_eq!(found.len(), 1, "{form:?}");
            assert_eq!(found[0].bytes, b"whole\n");
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive_in_the_binary_form() {
        let mut bytes = Vec::new();
        LogForm::Local.encode(&mut bytes, nanoseconds_now(), false, b"\xff\x00\n", b"");
        let (record, _) = LogForm::Local.decode(&bytes).unwrap();
        assert_eq!(record.unwrap().bytes, b"\xff\x00\n");
    }
}
