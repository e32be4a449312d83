//! An ordinary user's way to root's rights: a user namespace that the front end itself enters, with
//! a mount namespace, before it does anything else. Every front end of a user enters one with the
//! same id maps, so that files keep their owners; what it starts stays in it.
//!
//! With subordinate ids (subuid(5)) the maps are written by `newuidmap` and `newgidmap`, which need
//! a process outside: `ketch-init idmap`, started before and let go when the namespace is there.
//! Without them the user's own id is the only one, mapped to root's.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};
use state::Layout;
use sys::mount::Depth;

use crate::Executables;
use crate::subordinate::{self, Range};

/// `MOUNT_ATTR_RDONLY` (mount_setattr(2)).
const READ_ONLY: u64 = 0x1;

/// Where setuid programs are, whatever `PATH` says.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Why an ordinary user cannot have containers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserNamespaceError {
    /// The kernel says no.
    #[error("cannot create a user namespace, which containers of an ordinary user need{}", why(.setting.as_ref()))]
    Forbidden {
        /// The setting that forbids it, where one is known.
        setting: Option<String>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ids could not be mapped.
    #[error("cannot map the ids of the user namespace: {0}")]
    Map(String),
    /// Something else of the way in.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

fn why(setting: Option<&String>) -> String {
    setting
        .map(|setting| format!(": {setting}"))
        .unwrap_or_default()
}

/// The user namespace that this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNamespace {
    /// How many user ids are mapped, from 0 on.
    pub uids: u32,
    /// How many group ids are mapped, from 0 on.
    pub gids: u32,
}

impl UserNamespace {
    /// The user's own id is the only one.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.uids == 1 || self.gids == 1
    }

    /// Enters a new user namespace and a mount namespace, as its root. The process must have one
    /// thread.
    ///
    /// # Errors
    /// When the kernel forbids it, with the setting that does, or the ids cannot be mapped.
    pub fn enter(layout: &Layout, executables: &Executables) -> Result<Self, UserNamespaceError> {
        let exe = layout.exe();
        let init = executables
            .place_files(&exe)
            .map_err(io_error("put the small executables in place"))?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let maps = Maps::of_user(uid, gid);
        let namespace = match &maps {
            Some(maps) => {
                let worker = maps.start_worker(&init)?;
                unshare()?;
                release(worker)?;
                Self {
                    uids: count(&maps.uids),
                    gids: count(&maps.gids),
                }
            }
            None => {
                unshare()?;
                map_own(uid, gid).map_err(io_error("map the own id"))?;
                Self { uids: 1, gids: 1 }
            }
        };
        protect(&exe)?;
        Ok(namespace)
    }

    /// Enters the user namespace of a running container's monitor.
    ///
    /// # Errors
    /// When the process is gone or belongs to somebody else.
    pub fn join(layout: &Layout, monitor: i32) -> Result<Self, UserNamespaceError> {
        let failed = io_error("enter the user namespace of the container");
        let open =
            |path: String| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace =
            open(format!("/proc/{monitor}/ns/user")).map_err(|errno| failed(errno.into()))?;
        let kind = rustix::thread::LinkNameSpaceType::User;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
            .and_then(|()| sys::clone::unshare_mounts())
            .map_err(|errno| failed(errno.into()))?;
        protect(&layout.exe())?;
        let read = |file: &str| fs::read_to_string(file).map(|text| mapped(&text));
        Ok(Self {
            uids: read("/proc/self/uid_map").map_err(&failed)?,
            gids: read("/proc/self/gid_map").map_err(&failed)?,
        })
    }
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> UserNamespaceError {
    move |source| UserNamespaceError::Io { what, source }
}

/// How many ids from 0 on a map of user_namespaces(7) covers.
fn mapped(text: &str) -> u32 {
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok())
        .fold(0, u32::saturating_add)
}

/// The user's own id and its subordinate ones.
#[derive(Debug)]
struct Maps {
    newuidmap: PathBuf,
    newgidmap: PathBuf,
    uids: Vec<Range>,
    gids: Vec<Range>,
}

impl Maps {
    /// None without the two programs or without ranges of both kinds.
    fn of_user(uid: u32, gid: u32) -> Option<Self> {
        let program = |name: &str| {
            let paths = PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(name));
            paths.into_iter().find(|path| path.exists())
        };
        let name = subordinate::user_name(uid);
        let with_own = |own: u32, file: &str| {
            let mut ranges = vec![Range {
                first: own,
                count: 1,
            }];
            ranges.extend(subordinate::ranges(Path::new(file), name.as_deref(), uid));
            (ranges.len() > 1).then_some(ranges)
        };
        Some(Self {
            newuidmap: program("newuidmap")?,
            newgidmap: program("newgidmap")?,
            uids: with_own(uid, "/etc/subuid")?,
            gids: with_own(gid, "/etc/subgid")?,
        })
    }

    /// Starts the process that maps the ids of this one when it is let go.
    fn start_worker(&self, init: &Path) -> Result<Child, UserNamespaceError> {
        let arguments = |ranges: &[Range]| {
            let mut inside = 0_u32;
            let mut list = vec![std::process::id().to_string()];
            for range in ranges {
                list.extend([inside, range.first, range.count].map(|id| id.to_string()));
                inside = inside.saturating_add(range.count);
            }
            list.join(" ")
        };
        Command::new(init)
            .arg("idmap")
            .arg(&self.newuidmap)
            .arg(arguments(&self.uids))
            .arg(&self.newgidmap)
            .arg(arguments(&self.gids))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error("start the process that maps ids"))
    }
}

fn count(ranges: &[Range]) -> u32 {
    let counts = ranges.iter().map(|range| range.count);
    counts.fold(0, u32::saturating_add)
}

/// Lets the worker go and waits until the ids are mapped.
fn release(mut worker: Child) -> Result<(), UserNamespaceError> {
    let failed = io_error("talk to the process that maps ids");
    if let Some(mut stdin) = worker.stdin.take() {
        stdin.write_all(b"g").map_err(&failed)?;
    }
    let mut text = String::new();
    if let Some(stderr) = worker.stderr.take() {
        stderr
            .take(4096)
            .read_to_string(&mut text)
            .map_err(&failed)?;
    }
    let status = worker.wait().map_err(&failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(UserNamespaceError::Map(text.trim().replace('\n', "; ")))
    }
}

fn unshare() -> Result<(), UserNamespaceError> {
    sys::clone::unshare_user_and_mounts().map_err(|source| UserNamespaceError::Forbidden {
        setting: forbidding_setting(),
        source,
    })
}

/// The sysctl that forbids user namespaces to ordinary users here.
fn forbidding_setting() -> Option<String> {
    const SETTINGS: [(&str, &str); 3] = [
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    SETTINGS.into_iter().find_map(|(path, forbids)| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
        let name = path.replace('/', ".");
        (value.trim() == forbids).then(|| format!("the sysctl {name} is {forbids}"))
    })
}

/// Maps root to the user that this process was (user_namespaces(7)).
fn map_own(uid: u32, gid: u32) -> io::Result<()> {
    let write = |file: &str, text: String| {
        let mut file = fs::File::options().write(true).open(file)?;
        file.write_all(text.as_bytes())
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1\n"))
}

/// Lays the small executables over themselves, read-only: a container whose root is this user could
/// write them through `/proc` otherwise (CVE-2019-5736).
fn protect(exe: &Path) -> Result<(), UserNamespaceError> {
    let target = rustix::fs::open(exe, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let protected = target.and_then(|target| {
        let mount = sys::mount::clone_tree_of(target.as_fd(), Depth::Tree)?;
        sys::mount::set_attributes(mount.as_fd(), READ_ONLY, 0, 0, Depth::Tree)?;
        sys::mount::attach(mount.as_fd(), target.as_fd())
    });
    protected.map_err(|errno| UserNamespaceError::Forbidden {
        setting: forbidding_setting(),
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_adds_the_ranges_of_a_map() {
        assert_eq!(mapped("0 1000 1\n1 100000 65536\n"), 65_537);
        assert_eq!(mapped("         0          0 4294967295\n"), u32::MAX);
    }
}
