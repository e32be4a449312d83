//! Lines on their way from a monitor to the process that writes for it.

use std::io::{self, Read};

use state::MAX_LINE;

/// A line, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Nanoseconds since 1970.
    pub(crate) time: i64,
    pub(crate) is_stderr: bool,
    /// With the line end, when there is one.
    pub(crate) bytes: Vec<u8>,
}

/// Time, stream, length.
const HEADER: usize = 8 + 1 + 4;

impl Frame {
    pub(crate) fn encode(time: i64, is_stderr: bool, line: &[u8]) -> Vec<u8> {
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + line.len());
        bytes.extend_from_slice(&time.to_le_bytes());
        bytes.push(u8::from(is_stderr));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(line);
        bytes
    }

    /// The next frame; `None` at the end. One that is cut off is the end too: its writer was killed.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        match from.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (time, rest) = header.split_at(8);
        let (stream, length) = rest.split_at(1);
        let time = time.try_into().map_or(0, i64::from_le_bytes);
        let length = length.try_into().map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > 2 * MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        match from.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        Ok(Some(Self {
            time,
            is_stderr: stream == [1],
            bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written_and_a_torn_one_is_the_end() {
        let mut bytes = Frame::encode(7, true, b"one\n");
        bytes.extend(Frame::encode(8, false, b""));
        bytes.extend(Frame::encode(9, false, b"torn"));
        bytes.pop();
        let mut from = &bytes[..];
        let mut next = || Frame::read(&mut from).unwrap();
        let first = Frame {
            time: 7,
            is_stderr: true,
            bytes: b"one\n".to_vec(),
        };
        assert_eq!(next(), Some(first));
        assert!(next().is_some_and(|frame| frame.bytes.is_empty()));
        assert_eq!(next(), None);
    }
}
