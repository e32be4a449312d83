//! `HOME`: set from the container's own `/etc/passwd` where the specification leaves it out, as
//! callers of this command line expect.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::Process;
use rustix::fs::{FileType, Mode, OFlags, fstat};

/// No user data base is longer: what an image put there must not hold a start up (CVE-2024-9676).
const MAX_PASSWD: u64 = 1 << 20;

/// Gives the process a home directory. `root` is the container's root directory.
pub(super) fn set(process: &mut Process, root: BorrowedFd<'_>) {
    let mut env = process.env().clone().unwrap_or_default();
    let home = env.iter().rposition(|pair| pair.starts_with("HOME="));
    if home.is_some_and(|at| env.get(at).is_some_and(|pair| pair != "HOME=")) {
        return;
    }
    env.retain(|pair| pair != "HOME=");
    let found = passwd(root).and_then(|text| find(&text, process.user().uid()));
    env.push(format!("HOME={}", found.as_deref().unwrap_or("/")));
    process.set_env(Some(env));
}

/// A regular file beneath the root, or nothing.
fn passwd(root: BorrowedFd<'_>) -> Option<String> {
    // A pipe in its place must not hold us up either.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = sys::path::open_in_root(root, c"/etc/passwd", flags, Mode::empty()).ok()?;
    let stat = fstat(file.as_fd()).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(MAX_PASSWD)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The sixth field of the line whose third is `uid` (passwd(5)).
fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let number = fields.next()?;
        let home = fields.nth(2)?;
        let is_it = number.parse() == Ok(uid) && home.starts_with('/');
        is_it.then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_of_a_user_is_the_sixth_field() {
        let text = "broken\nroot:x:0:0:root:/root:/bin/sh\na:x:7:7::/home/a:/bin/sh\n";
        assert_eq!(find(text, 0).as_deref(), Some("/root"));
        assert_eq!(find(text, 7).as_deref(), Some("/home/a"));
        assert_eq!(find(text, 8), None);
    }
}
