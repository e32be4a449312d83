//! The log of events: what happened to containers, images, networks and volumes, one line of JSON
//! each, appended by whoever did it and never changed. Its files are rotated as those of a
//! container's log are; a writer holds the lock together with the others, the one that begins
//! another file holds it alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sys::lock::{FileLock, Mode};

use crate::{Segments, nanoseconds_now};

/// Another file is begun when one is larger.
const MAX_BYTES: u64 = 1 << 20;

/// How many files are kept.
const MAX_FILES: u32 = 4;

/// The lock is held for one write.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The name of the log in its directory.
const NAME: &str = "events.log";

/// Something that happened, in the form of Docker's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// `container`, `image`, `network`, `volume` or `system`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// What it happened to.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its id, or its name where names are ids.
    #[serde(rename = "ID")]
    pub id: String,
    /// What is known about it.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl EventRecord {
    /// Something that happens now.
    #[must_use]
    pub fn now(kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) -> Self {
        let time_nano = nanoseconds_now();
        Self {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes,
            },
            scope: "local".to_owned(),
            time: time_nano / 1_000_000_000,
            time_nano,
        }
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct EventLog {
    dir: PathBuf,
    segments: Segments,
}

impl EventLog {
    /// The log in a directory, which is made with the first event.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            segments: Segments::new(dir, NAME),
        }
    }

    /// Its files.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends an event.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, event: &EventRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        loop {
            let lock = self.lock(Mode::Shared)?;
            match self.open() {
                Ok(mut file) => {
                    file.write_all(&line)?;
                    let is_full = file.metadata()?.len() > MAX_BYTES;
                    drop(lock);
                    return if is_full { self.rotate() } else { Ok(()) };
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    drop(lock);
                    let _alone = self.lock(Mode::Exclusive)?;
                    drop(self.segments.open_newest()?);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.segments.link())
    }

    fn lock(&self, mode: Mode) -> io::Result<FileLock> {
        let path = self.dir.join("lock");
        match FileLock::acquire(&path, mode, LOCK_TIMEOUT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                sys::durable::make_private_dir(&self.dir)?;
                FileLock::acquire(&path, mode, LOCK_TIMEOUT)
            }
            other => other,
        }
    }

    fn rotate(&self) -> io::Result<()> {
        let _alone = self.lock(Mode::Exclusive)?;
        let (number, file) = self.segments.open_newest()?;
        // Another one may have done it meanwhile.
        if file.metadata()?.len() > MAX_BYTES {
            drop(self.segments.create(number + 1)?);
            self.segments.keep(MAX_FILES)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn event(number: usize) -> EventRecord {
        let padding = BTreeMap::from([("padding".to_owned(), "x".repeat(1000))]);
        EventRecord::now("container", "start", &number.to_string(), padding)
    }

    #[test]
    fn events_of_many_writers_are_whole_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let log = EventLog::new(&dir.path().join("events"));
        thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for number in 0..1500 {
                        log.append(&event(writer * 10_000 + number)).unwrap();
                    }
                });
            }
        });
        let segments = log.segments().list().unwrap();
        assert_eq!(segments.len(), MAX_FILES as usize);
        for segment in segments {
            let text = std::fs::read_to_string(log.segments().file(segment.number)).unwrap();
            for line in text.lines() {
                let event: EventRecord = serde_json::from_str(line).unwrap();
                assert_eq!(event.actor.attributes["padding"].len(), 1000);
            }
        }
    }
}
