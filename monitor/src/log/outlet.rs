//! Lines for a process that writes or sends them: a disk or a server may be slow, and the monitor has
//! one thread. Lines wait here when that process is behind: without a ring the container is held
//! back, with one they are dropped when it is full, and it is said how many.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime::{LogPlan, LogWriterPlan, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use state::nanoseconds_now;

use super::frame::Frame;

/// The container is held back when so much waits: one read of its output more fits.
const HELD_BACK: usize = 64 * 1024;

/// A writer that has ended is started again after this, not at once: it may end at once again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a writer of files has to finish them.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Outlet {
    plan: Vec<u8>,
    /// It writes files that somebody may read when the container has ended.
    has_files: bool,
    ring: Option<usize>,
    writer: Option<Writer>,
    retry_at: Option<Instant>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// How much of the first one is written.
    written: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Writer {
    pipe: OwnedFd,
    process: Child,
}

impl Outlet {
    /// The outlet, when lines go anywhere but into files that are written here.
    pub(super) fn new(plan: &LogPlan, state_dir: &Path) -> io::Result<Option<Self>> {
        let file = match (&plan.file, &plan.receiver, plan.ring_bytes) {
            (Some(file), None, Some(_)) => {
                let dir = CString::new(state_dir.as_os_str().as_bytes())?;
                Some((file.clone(), dir))
            }
            (_, Some(_), _) => None,
            _ => return Ok(None),
        };
        let has_files = file.is_some();
        let writer = LogWriterPlan {
            version: VERSION,
            file,
            receiver: plan.receiver.clone(),
        };
        let mut outlet = Self {
            plan: writer.encode().map_err(io::Error::other)?,
            has_files,
            ring: plan
                .ring_bytes
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            writer: None,
            retry_at: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            written: 0,
            dropped: 0,
        };
        outlet.start()?;
        Ok(Some(outlet))
    }

    fn start(&mut self) -> io::Result<()> {
        let plan = sys::sealed::seal("ketch-plan", &self.plan)?;
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let process = Command::new("/proc/self/exe")
            .arg(crate::WRITE_LOG)
            .env_clear()
            .stdin(Stdio::from(plan))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()?;
        self.writer = Some(Writer {
            pipe: ours,
            process,
        });
        Ok(())
    }

    /// Takes a line.
    pub(super) fn push(&mut self, is_stderr: bool, line: &[u8]) {
        let frame = Frame::encode(nanoseconds_now(), is_stderr, line);
        if let Some(ring) = self.ring {
            // One line fits always, as with Docker.
            if !self.waiting.is_empty() && self.waiting_bytes + frame.len() > ring {
                self.dropped += 1;
                return;
            }
            self.report_dropped();
        }
        self.add(frame);
    }

    fn add(&mut self, frame: Vec<u8>) {
        self.waiting_bytes += frame.len();
        self.waiting.push_back(frame);
    }

    /// What was lost is told where it is missed.
    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("ketch: {dropped} lines were dropped here (mode=non-blocking)\n");
            self.add(Frame::encode(nanoseconds_now(), true, text.as_bytes()));
        }
    }

    /// Writes what the pipe takes.
    pub(super) fn flush(&mut self) {
        if self.writer.is_none() && self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
            if self.start().is_err() {
                self.retry_at = Some(Instant::now() + PAUSE);
            }
        }
        while let (Some(writer), Some(frame)) = (&self.writer, self.waiting.front()) {
            let rest = frame.get(self.written..).unwrap_or_default();
            match rustix::io::write(&writer.pipe, rest) {
                Ok(length) if length == rest.len() => {
                    self.waiting_bytes -= frame.len();
                    self.waiting.pop_front();
                    self.written = 0;
                }
                Ok(length) => self.written += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.lose_writer(),
            }
        }
    }

    /// The writer has ended. The line that it has not got as a whole is sent to the next one.
    fn lose_writer(&mut self) {
        self.written = 0;
        self.retry_at = Some(Instant::now() + PAUSE);
        if let Some(mut writer) = self.writer.take() {
            drop(writer.pipe);
            drop(writer.process.wait());
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.ring.is_none() && self.waiting_bytes >= HELD_BACK
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        let writer = self.writer.as_ref().filter(|_| self.has_backlog())?;
        Some(writer.pipe.as_fd())
    }

    pub(super) fn timer(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Ends the writer's input.
    pub(super) fn close(mut self) {
        self.report_dropped();
        self.flush();
        let Some(mut writer) = self.writer.take() else {
            return;
        };
        drop(writer.pipe);
        if !self.has_files {
            // It sends what it has for a while yet; nobody here waits for a server.
            return;
        }
        let pid = i32::try_from(writer.process.id())
            .ok()
            .and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let (Some(pidfd), Ok(timeout)) = (pidfd, Timespec::try_from(CLOSE_DEADLINE)) {
            let _waited = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        }
        drop(writer.process.try_wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet(ring: Option<usize>) -> Outlet {
        Outlet {
            plan: Vec::new(),
            has_files: false,
            ring,
            writer: None,
            retry_at: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            written: 0,
            dropped: 0,
        }
    }

    fn texts(outlet: &Outlet) -> Vec<String> {
        let bytes: Vec<u8> = outlet.waiting.iter().flatten().copied().collect();
        let mut from = &bytes[..];
        std::iter::from_fn(|| Frame::read(&mut from).unwrap())
            .map(|frame| String::from_utf8(frame.bytes).unwrap())
            .collect()
    }

    #[test]
    fn full_ring_drops_lines_and_says_how_many() {
        let mut lossy = outlet(Some(100));
        for number in 0..10 {
            lossy.push(false, format!("line {number}\n").as_bytes());
        }
        assert!(!lossy.is_full() && lossy.waiting_bytes <= 100);
        assert_eq!(lossy.dropped, 5);
        lossy.waiting.clear();
        lossy.waiting_bytes = 0;
        lossy.push(false, b"next\n");
        assert_eq!(
            texts(&lossy),
            [
                "ketch: 5 lines were dropped here (mode=non-blocking)\n",
                "next\n"
            ]
        );
    }

    #[test]
    fn without_a_ring_the_container_is_held_back_and_nothing_is_lost() {
        let mut whole = outlet(None);
        let line = [b'x'; 16 * 1024];
        for _ in 0..4 {
            assert!(!whole.is_full());
            whole.push(true, &line);
        }
        assert!(whole.is_full());
        assert_eq!(texts(&whole).concat().len(), 4 * line.len());
    }
}
