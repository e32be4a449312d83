//! Control groups of one container, by the files of cgroupfs: made, limited, entered, counted,
//! killed and removed as the plan says. Runs in `ketch-init`.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runtime::{CgroupPlan, CgroupWrite, StartFailure, code};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::freeze::thaw_legacy;
use super::group::{children, processes_below};
use super::read::{self, is_gone};
use crate::step::reason;

/// How long the removal of a group waits for its last process: zombies hold it for a moment.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// How often a group is listed and killed without `cgroup.kill`: each round meets what was forked
/// in the round before, and a zombie stays listed until it is reaped.
const KILL_ROUNDS: usize = 100;

pub(super) fn path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

pub(super) fn failure(what: &str, file: &CStr, error: &io::Error) -> StartFailure {
    let why = Errno::from_io_error(error).map_or_else(|| error.to_string(), reason);
    let file = file.to_string_lossy();
    StartFailure {
        code: code::ENGINE,
        message: format!("cannot {what} `{file}`: {why}"),
    }
}

/// Makes the groups and writes the limits.
///
/// # Errors
/// The file and, for a limit, the option that asked for it.
pub fn create(plan: &CgroupPlan) -> Result<(), StartFailure> {
    let made = create_all(plan);
    if made.is_err() {
        drop(remove(plan));
    }
    made
}

fn create_all(plan: &CgroupPlan) -> Result<(), StartFailure> {
    let mut parents = Parents::default();
    for dir in &plan.make {
        let mut made = make(dir);
        if made == Err(Errno::NOENT) {
            // Only the first container after a boot finds no parents.
            parents.make(plan)?;
            made = make(dir);
        }
        made.map_err(|errno| failure("make the cgroup", dir, &errno.into()))?;
    }
    for write in &plan.writes {
        let mut written = write_choice(write);
        if is_missing(&written) {
            // Somebody else may have switched a controller off since the parents were made.
            parents.make(plan)?;
            written = write_choice(write);
        }
        let missing = is_missing(&written);
        written.map_err(|error| match parents.refused.take() {
            Some(refused) if missing => refused,
            _ => limit_failure(write, &error),
        })?;
    }
    if let Some(dir) = plan
        .clone_into
        .as_ref()
        .filter(|_| !plan.device_filter.is_empty())
    {
        attach_device_filter(path(dir), &plan.device_filter)
            .map_err(|error| failure("restrict the devices of", dir, &error))?;
    }
    Ok(())
}

fn is_missing(written: &io::Result<()>) -> bool {
    written
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn make(dir: &CStr) -> Result<(), Errno> {
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The groups that hold all containers' groups.
#[derive(Default)]
struct Parents {
    made: bool,
    /// The first thing that could not be set in them. Whether it matters is seen when a limit has no
    /// file: a controller that nobody asked for may be missing.
    refused: Option<StartFailure>,
}

impl Parents {
    fn make(&mut self, plan: &CgroupPlan) -> Result<(), StartFailure> {
        if self.made {
            return Ok(());
        }
        self.made = true;
        for dir in &plan.parents {
            make(dir).map_err(|errno| failure("make the cgroup", dir, &errno.into()))?;
        }
        for write in &plan.parent_writes {
            if let Err(error) = write_choice(write) {
                let refused = limit_failure(write, &error);
                self.refused.get_or_insert(refused);
            }
        }
        Ok(())
    }
}

fn limit_failure(write: &CgroupWrite, error: &io::Error) -> StartFailure {
    let why = Errno::from_io_error(error).map_or_else(|| error.to_string(), reason);
    let file = write.path.to_string_lossy();
    let message = format!(
        "cannot set {} to `{}`: {why} (`{file}`)",
        write.option, write.value
    );
    StartFailure {
        code: code::ENGINE,
        message,
    }
}

/// Writes a value, or where its file does not exist the other one.
pub(super) fn write_choice(write: &CgroupWrite) -> io::Result<()> {
    let written = write_value(path(&write.path), &write.value);
    match &write.otherwise {
        Some(other) if is_missing(&written) => write_value(path(&other.path), &other.value),
        _ => written,
    }
}

pub(super) fn write_value(file: &Path, value: &str) -> io::Result<()> {
    // One write: cgroupfs takes each write as a whole command.
    let written = File::options()
        .write(true)
        .open(file)?
        .write(value.as_bytes())?;
    if written == value.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Gives a v2 group the device filter, in the place of an earlier one.
pub(super) fn attach_device_filter(dir: &Path, program: &[u8]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    let program = sys::bpf::load_device_filter(program)?;
    sys::bpf::replace_device_filter(dir.as_fd(), program.as_fd())
}

/// Groups below each other are no deeper than paths are long.
const MAX_DEPTH: usize = 256;

/// Gives a v1 cpuset that has none the processors and memory nodes of its parent, which gets them
/// the same way. What cannot be written is seen when the group is entered.
pub(super) fn inherit_cpuset(dir: &Path, depth: usize) {
    let Some(parent) = dir.parent().filter(|_| depth < MAX_DEPTH) else {
        return;
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(dir.join(file));
        if own.is_ok_and(|text| text.trim().is_empty()) {
            inherit_cpuset(parent, depth + 1);
            let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
            drop(write_value(&dir.join(file), inherited.trim()));
        }
    }
}

/// How often the kernel killed a process of the group for want of memory: `oom_kill` of v1
/// `memory.oom_control` or v2 `memory.events`. Read before the group is removed.
#[must_use]
pub fn oom_kills(plan: &CgroupPlan) -> u64 {
    let file = plan.oom_counter.as_ref();
    file.map_or(0, |file| read::key(path(file), "oom_kill"))
}

/// Where the processes of the group are listed.
fn listing_dir(plan: &CgroupPlan) -> Option<&Path> {
    match (&plan.kill, plan.enter.first()) {
        (Some(dir), _) => Some(path(dir)),
        (None, procs) => path(procs?).parent(),
    }
}

/// The processes of the group and of the groups below it; none where it has no group.
///
/// # Errors
/// When the group cannot be listed.
pub fn processes(plan: &CgroupPlan) -> io::Result<Vec<i32>> {
    listing_dir(plan).map_or_else(|| Ok(Vec::new()), processes_below)
}

/// Kills every process of the group and of the groups below it: at once by `cgroup.kill`
/// (Linux 5.14), else one by one until none is left.
///
/// # Errors
/// When the group cannot be read.
pub fn kill(plan: &CgroupPlan) -> io::Result<()> {
    let Some(dir) = listing_dir(plan) else {
        return Ok(());
    };
    kill_below(dir)?;
    match &plan.freezer {
        Some(state) => thaw_legacy(path(state)),
        None => Ok(()),
    }
}

/// Kills what is in `dir` and below.
pub(super) fn kill_below(dir: &Path) -> io::Result<()> {
    match write_value(&dir.join("cgroup.kill"), "1") {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => {}
        Err(error) => return Err(error),
    }
    for _ in 0..KILL_ROUNDS {
        let mut any = false;
        for pid in processes_below(dir)? {
            any |= sys::signals::send_to_pid(pid, 9).is_ok();
        }
        if !any {
            break;
        }
    }
    Ok(())
}

/// Removes the groups, children first. What is already gone is no error.
///
/// # Errors
/// The first group that is still busy at the deadline.
pub fn remove(plan: &CgroupPlan) -> io::Result<()> {
    let mut first = Ok(());
    let deadline = Instant::now() + REMOVE_DEADLINE;
    for dir in plan.make.iter().rev() {
        let removed = remove_one(path(dir), deadline);
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

/// A container that may write to its groups leaves groups of its own below them.
fn remove_one(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match rustix::fs::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut any = false;
        for child in children(dir) {
            remove_one(&child, deadline)?;
            any = true;
        }
        if !any {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
