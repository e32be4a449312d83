//! Control groups of one container, by the files of cgroupfs: made, limited, entered, counted,
//! killed and removed as the plan says. Which files those are is decided in [`crate::plan`].

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runtime::{CgroupPlan, CgroupWrite, StartFailure, code};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::step::reason;

/// How long the removal of a group waits for its last process: zombies hold it for a moment.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

fn path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

fn failure(what: &str, file: &CStr, error: &io::Error) -> StartFailure {
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
    let mut parents_made = false;
    for dir in &plan.make {
        let mut made = make(dir);
        if made == Err(Errno::NOENT) && !parents_made {
            // Only the first container after a boot finds no parents.
            make_parents(plan)?;
            parents_made = true;
            made = make(dir);
        }
        made.map_err(|errno| failure("make the cgroup", dir, &errno.into()))?;
    }
    plan.writes.iter().try_for_each(limit)
}

fn make(dir: &CStr) -> Result<(), Errno> {
    match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn make_parents(plan: &CgroupPlan) -> Result<(), StartFailure> {
    for dir in &plan.parents {
        make(dir).map_err(|errno| failure("make the cgroup", dir, &errno.into()))?;
    }
    plan.parent_writes.iter().try_for_each(limit)
}

fn limit(write: &CgroupWrite) -> Result<(), StartFailure> {
    write_value(&write.path, &write.value).map_err(|error| {
        let why = Errno::from_io_error(&error).map_or_else(|| error.to_string(), reason);
        let file = write.path.to_string_lossy();
        let message = format!(
            "cannot set {} to `{}`: {why} (`{file}`)",
            write.option, write.value
        );
        StartFailure {
            code: code::ENGINE,
            message,
        }
    })
}

fn write_value(file: &CStr, value: &str) -> io::Result<()> {
    // One write: cgroupfs takes each write as a whole command.
    let written = File::options()
        .write(true)
        .open(path(file))?
        .write(value.as_bytes())?;
    if written == value.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Puts a process into the v1 groups; the v2 group was entered by the clone.
///
/// # Errors
/// The group that could not be entered.
pub fn enter(plan: &CgroupPlan, pid: i32) -> Result<(), StartFailure> {
    for procs in &plan.enter {
        write_value(procs, &pid.to_string()).map_err(|e| failure("enter the cgroup", procs, &e))?;
    }
    Ok(())
}

/// How often the kernel killed a process of the group for want of memory: `oom_kill` of v1
/// `memory.oom_control` or v2 `memory.events`. Read before the group is removed.
#[must_use]
pub fn oom_kills(plan: &CgroupPlan) -> u64 {
    let Some(file) = &plan.oom_counter else {
        return 0;
    };
    let Ok(text) = fs::read_to_string(path(file)) else {
        return 0;
    };
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Kills every process of the group: at once by `cgroup.kill` (Linux 5.14), else one by one until
/// none is left.
///
/// # Errors
/// When the group cannot be read.
pub fn kill(plan: &CgroupPlan) -> io::Result<()> {
    if let Some(dir) = &plan.kill {
        let mut file = dir.to_bytes().to_vec();
        file.extend_from_slice(b"/cgroup.kill");
        if let Ok(file) = CString::new(file) {
            match write_value(&file, "1") {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    let Some(procs) = plan.enter.first() else {
        return Ok(());
    };
    for _ in 0..100 {
        let mut text = String::new();
        match File::open(path(procs)) {
            Ok(mut file) => file.read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut any = false;
        for pid in text.lines().filter_map(|line| line.parse().ok()) {
            any |= sys::signals::send_to_pid(pid, 9).is_ok();
        }
        if !any {
            break;
        }
    }
    Ok(())
}

/// The processes of the container's groups.
///
/// # Errors
/// When the group cannot be read. One that is gone has none.
pub fn processes(plan: &CgroupPlan) -> io::Result<Vec<i32>> {
    let below = |dir: &CString| {
        let mut file = dir.to_bytes().to_vec();
        file.extend_from_slice(b"/cgroup.procs");
        CString::new(file).ok()
    };
    let unified = plan.kill.as_ref().and_then(below);
    let Some(procs) = unified.or_else(|| plan.enter.first().cloned()) else {
        return Ok(Vec::new());
    };
    match fs::read_to_string(path(&procs)) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes the groups, children first. What is already gone is no error.
///
/// # Errors
/// The first group that is still busy at the deadline.
pub fn remove(plan: &CgroupPlan) -> io::Result<()> {
    let mut first = Ok(());
    let deadline = Instant::now() + REMOVE_DEADLINE;
    for dir in plan.make.iter().rev() {
        let removed = remove_one(dir, deadline);
        if first.is_ok() {
            first = removed;
        }
    }
    first
}

fn remove_one(dir: &CStr, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match rustix::fs::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => {}
            Err(errno) => return Err(errno.into()),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
