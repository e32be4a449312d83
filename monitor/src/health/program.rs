//! A probe that runs a program in the container, started like any further program there, in a control
//! group of its own below the container's.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use runtime::{
    CgroupPlan, Event, ExecPlan, ExitStatus, MAX_MESSAGE, Plan, ProcessPlan, Request, Response,
    VERSION,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use state::MAX_PROBE_OUTPUT;

use super::Outcome;

/// How the groups of probes below the container's are called, before their numbers.
const GROUP: &str = "probe-";

/// A program that runs.
#[derive(Debug)]
pub(crate) struct ProgramProbe {
    /// Its parent, `ketch-init exec`.
    parent: Child,
    socket: OwnedFd,
    streams: Vec<File>,
    output: Vec<u8>,
    /// Where it can be killed with everything that it has started. Each probe has a new one: who is
    /// cloned from outside (`CLONE_INTO_CGROUP`) into a group that was killed once dies at birth, since
    /// the kernel compares how often the cloner's own group was killed (6.18, `cgroup_post_fork`).
    group: Option<PathBuf>,
}

impl ProgramProbe {
    /// Starts the probe with this number.
    pub(crate) fn start(
        process: &ProcessPlan,
        container: &Plan,
        pid: i32,
        number: u64,
    ) -> io::Result<Self> {
        let groups = &container.init.cgroup;
        let group = groups.clone_into.as_ref().and_then(|dir| {
            let dir = PathBuf::from(OsStr::from_bytes(dir.to_bytes()));
            remove_earlier(&dir);
            let dir = dir.join(format!("{GROUP}{number}"));
            fs::create_dir(&dir).ok().map(|()| dir)
        });
        let clone_into = match &group {
            Some(dir) => Some(CString::new(dir.as_os_str().as_bytes())?),
            None => groups.clone_into.clone(),
        };
        let plan = ExecPlan {
            version: VERSION,
            pid,
            start_time: sys::process::start_time(pid)?,
            namespaces: runtime_native::foreign_namespaces(pid)?,
            cgroup_enter: groups.enter.clone(),
            cgroup_clone_into: clone_into,
            console: None,
            process: process.clone(),
        };
        let plan = plan.encode().map_err(io::Error::other)?;
        let plan = sys::sealed::seal("ketch-plan", &plan)?;
        let (socket, theirs) = sys::socket::pair()?;
        let wanted = Request::Attach {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let wanted = wanted.encode().map_err(io::Error::other)?;
        sys::socket::send(socket.as_fd(), &wanted, &[])?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let parent = Command::new("/proc/self/exe")
            .arg("exec")
            .env_clear()
            .stdin(Stdio::from(plan))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            parent,
            socket,
            streams: Vec::new(),
            output: Vec::new(),
            group,
        })
    }

    pub(crate) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let streams = self.streams.iter().map(AsFd::as_fd);
        let all = std::iter::once(self.socket.as_fd()).chain(streams);
        all.map(|fd| (fd, PollFlags::IN)).collect()
    }

    /// What it has printed.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Goes on as far as it can; how it ended.
    pub(crate) fn turn(&mut self) -> Option<Outcome> {
        self.read_streams();
        loop {
            let outcome = match self.receive() {
                Ok(Some(Response::Event(Event::Exited(status)))) => self.ended(&status),
                Ok(Some(Response::Event(Event::Failed(failure)))) => {
                    Outcome::failed(&failure.message)
                }
                Ok(Some(_)) => continue,
                Ok(None) => return None,
                Err(errno) => Outcome::failed(&runtime_native::reason(errno)),
            };
            self.clear();
            return Some(outcome);
        }
    }

    fn ended(&mut self, status: &ExitStatus) -> Outcome {
        self.read_streams();
        Outcome {
            exit_code: i32::from(status.code),
            output: self.output(),
        }
    }

    fn receive(&mut self) -> Result<Option<Response>, Errno> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = match sys::socket::receive(self.socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        for stream in received.descriptors {
            rustix::io::ioctl_fionbio(&stream, true)?;
            self.streams.push(File::from(stream));
        }
        if received.length == 0 {
            return Err(Errno::PIPE);
        }
        let bytes = buffer.get(..received.length).unwrap_or_default();
        Response::decode(bytes).map(Some).map_err(|_| Errno::PROTO)
    }

    /// Takes what there is; what is too long is thrown away.
    fn read_streams(&mut self) {
        let output = &mut self.output;
        self.streams.retain_mut(|stream| {
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        let room = MAX_PROBE_OUTPUT.saturating_sub(output.len());
                        let taken = buffer.get(..length.min(room));
                        output.extend_from_slice(taken.unwrap_or_default());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    _ => return false,
                }
            }
        });
    }

    /// Kills it with everything that it has started.
    pub(crate) fn kill(&mut self) {
        self.kill_group();
        if let Ok(request) = Request::Signal(9).encode() {
            // Its parent may have ended.
            let _gone = sys::socket::send(self.socket.as_fd(), &request, &[]);
        }
    }

    fn kill_group(&self) {
        if let Some(dir) = &self.group {
            kill_group(dir);
        }
    }

    /// What it has left behind does not outlive it, so that nothing piles up.
    fn clear(&mut self) {
        if let Some(dir) = &self.group
            && fs::remove_dir(dir).is_err()
        {
            self.kill_group();
        }
        drop(self.parent.wait());
    }
}

/// Kills the probes of a monitor that is gone.
pub(super) fn kill_earlier(groups: &CgroupPlan) {
    let Some(dir) = &groups.clone_into else {
        return;
    };
    let dir = Path::new(OsStr::from_bytes(dir.to_bytes()));
    for group in earlier(dir) {
        kill_group(&group);
    }
    remove_earlier(dir);
}

/// The groups of earlier probes.
fn earlier(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_bytes().starts_with(GROUP.as_bytes()))
        .map(|entry| entry.path())
}

/// Kills what is in a group.
fn kill_group(dir: &Path) {
    // There is nobody in it, or the kernel has no such file: then its parent kills it.
    let file = File::options().write(true).open(dir.join("cgroup.kill"));
    drop(file.and_then(|mut file| io::Write::write_all(&mut file, b"1")));
}

/// Removes the groups of earlier probes as far as what was in them is gone.
fn remove_earlier(dir: &Path) {
    for group in earlier(dir) {
        // The rest is tried the next time, and goes with the container's group.
        drop(fs::remove_dir(group));
    }
}

impl Drop for ProgramProbe {
    fn drop(&mut self) {
        // When it was not waited for: nobody is interested in it any more.
        if matches!(self.parent.try_wait(), Ok(None)) {
            drop(self.parent.kill());
            drop(self.parent.wait());
        }
    }
}
