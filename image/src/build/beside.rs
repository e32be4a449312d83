//! The digest of an archive while it is made: a large one is hashed on a thread of its own, beside the
//! one that reads the files.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

/// How much is handed over at once. Archives that are smaller get no thread.
const CHUNK: usize = 1 << 20;

/// How many chunks wait at most.
const WAITING: usize = 4;

/// Hashes and counts what is written to it.
pub(super) struct Counter {
    size: u64,
    chunk: Vec<u8>,
    hasher: Hasher,
}

enum Hasher {
    Here(Sha256),
    Beside(Beside),
}

/// A thread that hashes.
struct Beside {
    full: SyncSender<Vec<u8>>,
    /// Chunks come back to be filled again.
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl Beside {
    fn start(mut hasher: Sha256) -> io::Result<Self> {
        let (full, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let (back, empty) = channel();
        let thread = std::thread::Builder::new().spawn(move || {
            for mut chunk in chunks {
                hasher.update(&chunk);
                chunk.clear();
                // Nobody wants it any more at the end.
                drop(back.send(chunk));
            }
            hasher
        })?;
        Ok(Self {
            full,
            empty,
            thread,
        })
    }
}

impl Counter {
    pub(super) fn new() -> Self {
        Self {
            size: 0,
            chunk: Vec::new(),
            hasher: Hasher::Here(Sha256::new()),
        }
    }

    /// The hash and the count of everything.
    pub(super) fn finish(self) -> io::Result<(Sha256, u64)> {
        let hasher = match self.hasher {
            Hasher::Here(mut hasher) => {
                hasher.update(&self.chunk);
                hasher
            }
            Hasher::Beside(Beside { full, thread, .. }) => {
                let sent = full.send(self.chunk);
                drop(full);
                let hasher = thread.join().map_err(|_| gone())?;
                sent.map_err(|_| gone())?;
                hasher
            }
        };
        Ok((hasher, self.size))
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if let Hasher::Here(hasher) = &mut self.hasher {
            let hasher = std::mem::take(hasher);
            self.hasher = Hasher::Beside(Beside::start(hasher)?);
        }
        if let Hasher::Beside(beside) = &self.hasher {
            let next = beside.empty.try_recv();
            let next = next.unwrap_or_else(|_| Vec::with_capacity(CHUNK));
            let chunk = std::mem::replace(&mut self.chunk, next);
            beside.full.send(chunk).map_err(|_| gone())?;
        }
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that hashes is gone")
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.chunk.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.chunk.extend_from_slice(taken);
        self.size += taken.len() as u64;
        if self.chunk.len() == CHUNK {
            self.hand_over()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn hash_is_that_of_everything_however_it_comes() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 17] {
            let bytes: Vec<u8> = (0_u32..).map(|n| n.to_le_bytes()[0]).take(size).collect();
            for piece in [1000, 3 * CHUNK] {
                let mut counter = Counter::new();
                for part in bytes.chunks(piece) {
                    counter.write_all(part).unwrap();
                }
                let (hasher, count) = counter.finish().unwrap();
                assert_eq!(count, size as u64);
                assert_eq!(Digest::from_hasher(hasher), Digest::of(&bytes));
            }
        }
    }
}
