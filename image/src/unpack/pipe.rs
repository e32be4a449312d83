//! A pipe between two threads that passes whole buffers and gives them back: no copy into a queue,
//! and never more than a few buffers of memory.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// One buffer: large enough that handing it over costs nothing, small enough for the cache.
const BUFFER: usize = 256 * 1024;

/// How many buffers are filled ahead.
const AHEAD: usize = 4;

type Chunk = io::Result<Vec<u8>>;

/// The writing end.
pub(super) struct Sink {
    full: SyncSender<Chunk>,
    empty: Receiver<Vec<u8>>,
}

/// The reading end.
pub(super) struct Pipe {
    full: Receiver<Chunk>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
}

/// Makes both ends.
pub(super) fn pipe() -> (Sink, Pipe) {
    let (full_sender, full) = sync_channel(AHEAD);
    let (empty, empty_receiver) = channel();
    let sink = Sink {
        full: full_sender,
        empty: empty_receiver,
    };
    let pipe = Pipe {
        full,
        empty,
        buffer: Vec::new(),
        position: 0,
    };
    (sink, pipe)
}

impl Sink {
    /// Passes everything that `reader` gives, until it ends or nobody reads any more.
    pub(super) fn copy(self, reader: &mut dyn Read) {
        loop {
            let mut buffer = self.empty.try_recv().unwrap_or_default();
            buffer.resize(BUFFER, 0);
            let chunk = match fill(reader, &mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    buffer.truncate(count);
                    Ok(buffer)
                }
                Err(error) => Err(error),
            };
            let ended = chunk.is_err();
            if self.full.send(chunk).is_err() || ended {
                return;
            }
        }
    }

    /// Passes a failure.
    pub(super) fn fail(self, error: io::Error) {
        // Who reads no more needs no error.
        drop(self.full.send(Err(error)));
    }
}

/// Reads until the buffer is full or the stream ends: decoders give small pieces.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What came before the failure is not worth having: the layer is lost anyway.
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.position == self.buffer.len() {
            let Ok(next) = self.full.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.buffer, next?);
            self.position = 0;
            if used.capacity() > 0 {
                // The other end has ended when this fails.
                drop(self.empty.send(used));
            }
        }
        let rest = self.buffer.get(self.position..).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_passes_bytes_the_end_and_failures() {
        let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (sink, mut source) = pipe();
        let input = bytes.clone();
        let writer = std::thread::spawn(move || sink.copy(&mut input.as_slice()));
        let mut read = Vec::new();
        source.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == bytes);

        let (sink, mut source) = pipe();
        sink.fail(io::ErrorKind::InvalidData.into());
        let error = source.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn pipe_without_a_reader_ends_the_writer() {
        let (sink, source) = pipe();
        drop(source);
        sink.copy(&mut io::repeat(7));
    }
}
