//! Reading a file that somebody else is still writing: a layer is unpacked while it is downloaded,
//! without holding more of it in memory than a buffer.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How far the writer is.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    available: u64,
    end: Option<End>,
}

/// How the writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is there.
    Complete,
    /// The rest will not come.
    Broken,
}

/// What writer and readers share.
#[derive(Debug, Default)]
pub(super) struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

impl Growth {
    /// Tells the readers that the first `available` bytes are there.
    pub(super) fn grow(&self, available: u64) {
        self.update(|state| state.available = available);
    }

    /// Tells the readers how it ended. The first end counts.
    pub(super) fn end(&self, end: End) {
        self.update(|state| state.end = state.end.or(Some(end)));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        // Two numbers cannot be left half-changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there is more than `position`, or an end.
    fn wait(&self, position: u64) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *self
            .changed
            .wait_while(state, |state| {
                state.available <= position && state.end.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a growing file from its beginning, waiting for what is not there yet.
#[derive(Debug)]
pub(crate) struct GrowingReader {
    file: File,
    position: u64,
    growth: Arc<Growth>,
}

impl GrowingReader {
    pub(super) fn new(file: File, growth: Arc<Growth>) -> Self {
        Self {
            file,
            position: 0,
            growth,
        }
    }
}

impl Read for GrowingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.growth.wait(self.position);
        let left = state.available.saturating_sub(self.position);
        if left == 0 {
            return match state.end {
                Some(End::Broken) => Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the rest of the blob did not come",
                )),
                _ => Ok(0),
            };
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = sys::file::read_at(&self.file, part, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn reader_beside_the_writer_sees_every_byte_and_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        let growth = Arc::new(Growth::default());
        let mut reader = GrowingReader::new(file.try_clone().unwrap(), Arc::clone(&growth));
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for length in 1..=100_u64 {
            file.write_all(b"x").unwrap();
            growth.grow(length);
        }
        growth.end(End::Complete);
        assert_eq!(reading.join().unwrap().unwrap(), vec![b'x'; 100]);
    }

    #[test]
    fn reader_of_a_broken_download_fails_after_what_is_there() {
        let mut file = tempfile::tempfile().unwrap();
        let growth = Arc::new(Growth::default());
        let mut reader = GrowingReader::new(file.try_clone().unwrap(), Arc::clone(&growth));
        file.write_all(b"half").unwrap();
        growth.grow(4);
        growth.end(End::Broken);
        growth.end(End::Complete);
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).unwrap_err();
        assert_eq!(all, b"half");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
