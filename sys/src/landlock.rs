//! Landlock: what of the file system a process may use from now on (landlock(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// Rights on files, `LANDLOCK_ACCESS_FS_*` of `linux/landlock.h`.
pub mod access {
    /// `execve`.
    pub const EXECUTE: u64 = 1;
    /// Open for reading.
    pub const READ_FILE: u64 = 1 << 2;
    /// Open or list a directory.
    pub const READ_DIR: u64 = 1 << 3;
}

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = 0b11;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of Landlock that the kernel has; 0 when it has none or it is switched off.
#[must_use]
pub fn version() -> u32 {
    const CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with a null attribute of size 0 and this flag, landlock_create_ruleset(2) returns a
    // number and touches no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// All rights on files that a kernel with this version of Landlock knows.
#[must_use]
pub fn all_access(version: u32) -> u64 {
    let rights = match version {
        0 => 0,
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << rights) - 1
}

/// Rules that are being made.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// A ruleset of a kernel with this [`version`] that allows nothing. Signals and abstract sockets
    /// reach only processes with the same rules, where the kernel can do that.
    ///
    /// # Errors
    /// As `landlock_create_ruleset(2)`.
    pub fn new(version: u32) -> Result<Self, Errno> {
        let handled = all_access(version);
        let attributes = RulesetAttributes {
            handled_access_fs: handled,
            handled_access_net: 0,
            scoped: if version >= 6 { SCOPES } else { 0 },
        };
        // Older kernels know a shorter structure.
        let size = match version {
            ..=3 => 8,
            4 | 5 => 16,
            _ => size_of::<RulesetAttributes>(),
        };
        // SAFETY: `attributes` lives over the call, and `size` is at most its size.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size,
                0_u32,
            )
        };
        let Ok(fd @ 0..) = i32::try_from(fd) else {
            return Err(last_errno());
        };
        // SAFETY: the kernel made this descriptor just now, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, handled })
    }

    /// Allows `access` to a file or to everything beneath a directory. Rights that the kernel does
    /// not know, or that a file cannot have, must not be among them.
    ///
    /// # Errors
    /// As `landlock_add_rule(2)`.
    pub fn allow(&self, beneath: BorrowedFd<'_>, access: u64) -> Result<(), Errno> {
        const RULE_PATH_BENEATH: u32 = 1;
        let rule = PathBeneath {
            allowed_access: access & self.handled,
            parent_fd: beneath.as_raw_fd(),
        };
        // SAFETY: `rule` is the structure that this kind of rule takes and lives over the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0_u32,
            )
        };
        done(result)
    }

    /// Puts the calling thread, and every thread that it starts from now on, under the rules, for
    /// ever. `no_new_privs` must be set.
    ///
    /// # Errors
    /// As `landlock_restrict_self(2)`.
    pub fn restrict_thread(self) -> Result<(), Errno> {
        // SAFETY: landlock_restrict_self(2) takes a descriptor and flags.
        let result =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0_u32) };
        done(result)
    }
}

fn done(result: libc::c_long) -> Result<(), Errno> {
    if result == -1 {
        return Err(last_errno());
    }
    Ok(())
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn rights_grow_with_the_version() {
        assert_eq!(all_access(0), 0);
        assert_eq!(all_access(1), 0x1fff);
        assert_eq!(all_access(3), 0x7fff);
        assert_eq!(all_access(7), 0xffff);
    }

    #[test]
    fn restricted_thread_reads_below_the_allowed_directory_alone() {
        let version = version();
        if version == 0 {
            return;
        }
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&inside, &outside] {
            std::fs::File::create(dir.path().join("file")).unwrap();
        }
        // Rules hold for a thread: this one ends with the test.
        let thread = std::thread::spawn(move || {
            let rules = Ruleset::new(version).unwrap();
            let dir = std::fs::File::open(inside.path()).unwrap();
            rules.allow(dir.as_fd(), access::READ_FILE).unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            rules.restrict_thread().unwrap();
            let denied = io::ErrorKind::PermissionDenied;
            std::fs::File::open(inside.path().join("file")).unwrap();
            let error = std::fs::File::open(outside.path().join("file")).unwrap_err();
            assert_eq!(error.kind(), denied);
            let error = std::fs::File::create(inside.path().join("new")).unwrap_err();
            assert_eq!(error.kind(), denied);
            (inside, outside)
        });
        drop(thread.join().unwrap());
    }
}
