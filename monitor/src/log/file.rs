//! A log in files. Another one is begun when the newest is full; the oldest go.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use runtime::{COMPRESS, LOG_NAME, LogFilePlan, LogFormat};
use state::{LogForm, Segments};

/// The files, and the one that is written to.
#[derive(Debug)]
pub(crate) struct FileLog {
    segments: Segments,
    form: LogForm,
    attributes: Vec<u8>,
    max_bytes: u64,
    max_files: u32,
    compressor: Option<PathBuf>,
    compressing: Vec<Child>,
    number: u64,
    file: File,
    size: u64,
    pending: Vec<u8>,
    /// The last record is not complete, for want of space.
    is_torn: bool,
}

impl FileLog {
    pub(crate) fn open(plan: &LogFilePlan, dir: &Path) -> io::Result<Self> {
        let segments = Segments::new(dir, LOG_NAME);
        let form = match plan.format {
            LogFormat::JsonFile => LogForm::JsonFile,
            LogFormat::Local => LogForm::Local,
        };
        let (number, file) = segments.open_newest()?;
        let compressor = plan.compressor.as_ref();
        Ok(Self {
            size: file.metadata()?.len(),
            segments,
            form,
            attributes: form.attributes(&plan.attributes),
            max_bytes: plan.max_bytes,
            max_files: plan.max_files,
            compressor: compressor.map(|path| OsStr::from_bytes(path.to_bytes()).into()),
            compressing: Vec::new(),
            number,
            file,
            pending: Vec::new(),
            is_torn: false,
        })
    }

    /// Takes one record; [`FileLog::flush`] writes it.
    pub(crate) fn record(&mut self, is_stderr: bool, line: &[u8]) {
        let start = self.pending.len();
        self.form
            .encode(&mut self.pending, is_stderr, line, &self.attributes);
        let after = self.size + self.pending.len() as u64;
        let is_first = self.size + start as u64 == 0;
        if self.max_bytes > 0 && after > self.max_bytes && !is_first {
            let record = self.pending.split_off(start);
            self.flush();
            self.rotate();
            self.pending = record;
        }
    }

    /// Writes what was taken.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if std::mem::take(&mut self.is_torn) {
            self.pending.insert(0, b'\n');
        }
        // A full disk must not stop the container: its output still reaches whoever is attached.
        self.is_torn = self.file.write_all(&self.pending).is_err();
        self.size += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(64 * 1024);
    }

    fn rotate(&mut self) {
        // What cannot be begun now is tried again with the next record.
        let Ok(file) = self.segments.create(self.number + 1) else {
            return;
        };
        let complete = self.segments.file(self.number);
        self.file = file;
        self.number += 1;
        self.size = 0;
        self.is_torn = false;
        // Those that could not be removed are tried again the next time.
        drop(self.segments.keep(self.max_files));
        self.compress(&complete);
    }

    /// Starts the program that compresses a file. One that cannot be started leaves it as it is,
    /// which is read as well.
    fn compress(&mut self, file: &Path) {
        self.compressing
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        let Some(program) = &self.compressor else {
            return;
        };
        let started = Command::new(program)
            .arg(COMPRESS)
            .arg(file)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.compressing.extend(started.ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn log(dir: &Path, max_bytes: u64, max_files: u32) -> FileLog {
        let plan = LogFilePlan {
            format: LogFormat::JsonFile,
            max_bytes,
            max_files,
            compressor: None,
            attributes: BTreeMap::new(),
        };
        FileLog::open(&plan, dir).unwrap()
    }

    #[test]
    fn no_file_passes_the_bound_and_the_oldest_go() {
        let dir = std::env::temp_dir().join(format!("ketch-log-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut file = log(&dir, 1000, 3);
        for number in 0..100 {
            file.record(false, format!("line {number}\n").as_bytes());
        }
        file.flush();
        let segments = Segments::new(&dir, LOG_NAME);
        let list = segments.list().unwrap();
        let texts: Vec<String> = list
            .iter()
            .map(|segment| std::fs::read_to_string(segments.file(segment.number)).unwrap())
            .collect();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(texts.len(), 3);
        assert!(texts.iter().all(|text| text.len() <= 1000));
        let text = texts.concat();
        let last: Vec<&str> = text.lines().collect();
        // What is kept is a whole run of lines that ends with the newest.
        for (line, number) in last.iter().rev().zip((0..100).rev()) {
            assert!(line.contains(&format!("\"line {number}\\n\"")), "{line}");
        }
    }
}
