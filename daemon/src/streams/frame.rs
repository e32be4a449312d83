//! Frames: one byte for the stream, three zeros, the length in big-endian, the bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::version::{ApiVersion, MULTIPLEXED_TYPE};

/// Standard output.
pub(crate) const STDOUT: u8 = 1;
/// Standard error.
pub(crate) const STDERR: u8 = 2;

/// How the streams of a program are put into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are: a terminal has one stream.
    Raw,
    /// In frames.
    Multiplexed,
}

impl Framing {
    pub(crate) fn of(is_terminal: bool) -> Self {
        if is_terminal {
            Self::Raw
        } else {
            Self::Multiplexed
        }
    }

    /// The content type.
    pub(crate) fn kind(self, version: ApiVersion) -> &'static str {
        match self {
            Self::Multiplexed if version >= MULTIPLEXED_TYPE => {
                "application/vnd.docker.multiplexed-stream"
            }
            _ => "application/vnd.docker.raw-stream",
        }
    }
}

/// Puts bytes of a stream into the form.
pub(crate) fn frame(framing: Framing, stream: u8, bytes: &[u8]) -> Bytes {
    match framing {
        Framing::Raw => Bytes::copy_from_slice(bytes),
        Framing::Multiplexed => {
            let mut framed = BytesMut::with_capacity(bytes.len() + 8);
            framed.put_u8(stream);
            framed.put_bytes(0, 3);
            framed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            framed.put_slice(bytes);
            framed.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_says_stream_and_length() {
        let framed = frame(Framing::Multiplexed, STDERR, b"abc");
        assert_eq!(&framed[..], b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(&frame(Framing::Raw, STDOUT, b"abc")[..], b"abc");
    }
}
