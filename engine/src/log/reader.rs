//! A container's log from a place on.

use std::io;
use std::path::Path;
use std::time::Duration;

use runtime::{LOG_NAME, LogFormat};
use state::{LogForm, LogRecord};

use crate::segment_reader::SegmentReader;
use crate::{Container, Engine, EngineError};

/// Reads a log: nothing is lost or doubled when its files are rotated meanwhile.
#[derive(Debug)]
pub struct LogReader {
    pub(super) files: SegmentReader,
    pub(super) form: LogForm,
}

impl Engine {
    /// Opens a container's log at its beginning.
    ///
    /// # Errors
    /// When its log driver keeps nothing that could be read.
    pub fn log(&self, container: &Container) -> Result<LogReader, EngineError> {
        let options = self.log_options(container)?;
        let form = match options.format() {
            Some(LogFormat::JsonFile) => LogForm::JsonFile,
            Some(LogFormat::Local) => LogForm::Local,
            None => {
                return Err(EngineError::Unsupported(format!(
                    "cannot read the log of container `{}`: its log driver is {}",
                    container.config.name, options.driver
                )));
            }
        };
        let dir = self.layout().container(&container.config.id);
        Ok(LogReader::at(&dir, form))
    }
}

impl LogReader {
    /// At the beginning of the log in a directory, whose records have this form.
    #[must_use]
    pub fn at(dir: &Path, form: LogForm) -> Self {
        Self {
            files: SegmentReader::new(dir, LOG_NAME),
            form,
        }
    }

    /// The next record; `None` when there is none for now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_record(&mut self) -> io::Result<Option<LogRecord>> {
        let form = self.form;
        self.files.next(|bytes| form.decode(bytes))
    }

    /// Passes over files that were last written to before `time`, in nanoseconds since 1970. Called
    /// before anything is read.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn skip_before(&mut self, time: i64) -> io::Result<()> {
        self.files.skip_before(time)
    }

    /// How many files were removed before they could be read, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        self.files.take_lost()
    }

    /// How many records were damaged.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.files.damaged()
    }

    /// Waits until something is written to the log or the container's state changes, at most
    /// `timeout`. Called for the first time it returns at once.
    ///
    /// # Errors
    /// When the container's directory cannot be watched.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.files.wait(timeout)
    }
}
