//! Programs started and timed as whole processes: from the moment before the start until the kernel says
//! that it has ended. Output goes into memory files, so that no pipe has to be emptied meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::watch::{Killed, Waiting};

/// How often it is looked whether the user wants no more.
const STEP: Duration = Duration::from_millis(100);

/// The user wants no more; no failure of what was running.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// A program with its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Whether the program gets this environment alone.
    pub(crate) clean: bool,
}

impl Call {
    pub(crate) fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            clean: false,
        }
    }

    pub(crate) fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn clean_env(mut self, env: &[String]) -> Self {
        self.clean = true;
        let pairs = env.iter().filter_map(|pair| pair.split_once('='));
        self.env
            .extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        if self.clean {
            command.env_clear();
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        // A terminal's Ctrl-C is for this process, which then ends what it has started and tidies up.
        command.process_group(0);
        command
    }

    /// What it is called in an error: the program and its command.
    fn title(&self) -> String {
        let program = self.program.rsplit('/').next().unwrap_or(&self.program);
        let plain = |arg: &&String| !arg.starts_with(['-', '/']);
        match self.args.iter().find(plain) {
            Some(word) => format!("{program} {word}"),
            None => program.to_owned(),
        }
    }

    /// Runs it without input.
    pub(crate) fn run(&self, until: Waiting) -> anyhow::Result<Ended> {
        let mut running = Running::spawn(self)?;
        running.wait(until)
    }

    /// Runs it and gives what it prints; anything but exit code 0 is an error.
    pub(crate) fn output(&self, until: Waiting) -> anyhow::Result<String> {
        Ok(self.run(until)?.text)
    }

    /// Runs it with input through a pipe, and gives how many bytes came back through another, and what it
    /// said on standard error.
    pub(crate) fn through_pipes(
        &self,
        input: &[u8],
        until: Waiting,
    ) -> anyhow::Result<(usize, String)> {
        let errors = memory_file()?;
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.program))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (status, bytes) = std::thread::scope(|scope| {
            scope.spawn(move || {
                // What ends early says so by its exit code.
                drop(stdin.map(|mut stdin| stdin.write_all(input)));
            });
            let reader = scope.spawn(move || {
                let mut stdout = stdout?;
                let mut buffer = vec![0; 64 << 10];
                let mut bytes = 0;
                while let Ok(got @ 1..) = stdout.read(&mut buffer) {
                    bytes += got;
                }
                Some(bytes)
            });
            let (_, status) = end_of(&mut child, until);
            (status, reader.join().ok().flatten().unwrap_or(0))
        });
        let text = read_back(&errors)?;
        self.check(status?, &text)?;
        Ok((bytes, text))
    }

    fn check(&self, status: ExitStatus, errors: &str) -> anyhow::Result<()> {
        if status.success() {
            return Ok(());
        }
        let lines = || errors.lines().filter(|line| !line.trim().is_empty());
        let said = lines()
            .find(|line| line.contains("rror"))
            .or(lines().next());
        let said = said.unwrap_or("it says nothing").trim();
        bail!("`{}` failed ({status}): {said}", self.title())
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) took: Duration,
    pub(crate) text: String,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    call: &'a Call,
    child: Child,
    since: Instant,
    output: File,
    errors: File,
}

impl<'a> Running<'a> {
    pub(crate) fn spawn(call: &'a Call) -> anyhow::Result<Self> {
        let (output, errors) = (memory_file()?, memory_file()?);
        let mut command = call.command();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?);
        let since = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", call.program))?;
        Ok(Self {
            call,
            child,
            since,
            output,
            errors,
        })
    }

    /// Waits for its end. The time is taken then, before anything is looked at.
    pub(crate) fn wait(&mut self, until: Waiting) -> anyhow::Result<Ended> {
        let (ended, status) = end_of(&mut self.child, until);
        let took = ended - self.since;
        self.call.check(status?, &read_back(&self.errors)?)?;
        Ok(Ended {
            took,
            text: read_back(&self.output)?,
        })
    }
}

/// Waits for a child, and says when it had ended: before it is asked how.
fn end_of(child: &mut Child, until: Waiting) -> (Instant, anyhow::Result<ExitStatus>) {
    let pid = match pid_of(child) {
        Ok(pid) => pid,
        Err(error) => return (Instant::now(), Err(error)),
    };
    until.put_on(pid);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let waited = loop {
        match waitid(WaitId::Pid(pid), options) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let ended = Instant::now();
    let killed = until.take_off(pid);
    let status = waited.map_err(io::Error::from).and_then(|_| child.wait());
    let status = match killed {
        None => status.context("cannot wait for a program"),
        Some(Killed::Interrupted) => Err(Interrupted.into()),
        Some(Killed::Late) => Err(anyhow!("it did not end in time and was killed")),
    };
    (ended, status)
}

fn pid_of(child: &Child) -> anyhow::Result<Pid> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.context("a child has no process id")
}

/// Waits until a process that is no child has ended.
pub(crate) fn wait_for(pid: Pid, patience: Duration, until: Waiting) -> anyhow::Result<()> {
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // It has gone, and another one has waited for it.
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).context("cannot watch a program"),
    };
    let deadline = Instant::now() + patience;
    let step = Timespec::try_from(STEP).context("cannot wait that long")?;
    while Instant::now() < deadline {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&step)) {
            Ok(0) | Err(Errno::INTR) if until.is_over() => return Err(Interrupted.into()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).context("cannot wait for a program"),
        }
    }
    bail!("it did not end within {} s", patience.as_secs())
}

/// A program in the background, killed when dropped.
#[derive(Debug)]
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn spawn(call: &Call) -> anyhow::Result<Self> {
        let mut command = call.command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", call.program))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end and waits for that.
    pub(crate) fn stop(mut self, until: Waiting) -> anyhow::Result<()> {
        let pidfd = pidfd_open(pid_of(&self.0)?, PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::TERM).context("cannot stop a program")?;
        end_of(&mut self.0, until).1?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both fail when it has ended and was waited for.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn memory_file() -> anyhow::Result<File> {
    let fd =
        memfd_create("ketch-bench", MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    Ok(File::from(fd))
}

fn read_back(mut file: &File) -> anyhow::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
