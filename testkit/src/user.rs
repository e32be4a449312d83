//! An ordinary user for a sandbox: a number, with entries of its own in the databases of users and
//! subordinate ids, which are bound over the host's in a mount namespace.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user's and its group's id.
const ID: u32 = 64_321;

/// Whether the user has subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subordinate {
    /// Its own id only.
    None,
    /// 65536 more.
    Ids,
}

/// How many user namespaces the user may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespaces {
    /// As the host has it.
    Allowed,
    /// `user.max_user_namespaces` is 0.
    Forbidden,
}

/// Binds the databases and becomes the user; the arguments after the first two are the command.
const ENTER: &str = "
cd \"$1\" && for file in passwd subuid subgid; do mount --bind $file /etc/$file || exit 99; done
[ ! -e resolv.conf ] || mount --bind resolv.conf /etc/resolv.conf || exit 99
[ ! -e /dev/net/tun ] || mount --bind tun /dev/net/tun || exit 99
cd / && id=$2; shift 2
exec setpriv --reuid=$id --regid=$id --clear-groups --inh-caps=-all \"$@\"";

/// Does what follows it in a user namespace with the same ids that allows no further one. The
/// setting is one of each user namespace: the host's stays as it is.
const FORBID: &str = "
unshare --user --mount sh -c '
    until grep -q . /proc/self/gid_map; do sleep 0.01; done
    exec \"$@\"' sh sh -c '
    echo 0 >/proc/sys/user/max_user_namespaces || exit 99
    exec \"$@\"' sh \"$@\" &
pid=$!
until echo '0 0 65536' >/proc/$pid/uid_map; do sleep 0.01; done 2>/dev/null
echo '0 0 65536' >/proc/$pid/gid_map && wait $pid";

/// The user, with a directory of its own.
#[derive(Debug)]
pub(crate) struct User {
    dir: PathBuf,
    ketch: PathBuf,
    namespaces: UserNamespaces,
}

impl User {
    /// Makes the user's directory and databases below `dir`, and puts `ketch` where it can be run.
    pub(crate) fn make(
        dir: &Path,
        ketch: &Path,
        subordinate: Subordinate,
        namespaces: UserNamespaces,
    ) -> Self {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir, open).unwrap();
        let home = dir.join("user");
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(ID), Some(ID)).unwrap();
        let ranges = match subordinate {
            Subordinate::None => String::new(),
            Subordinate::Ids => "tester:700000:65536\n".to_owned(),
        };
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let passwd = format!("{passwd}tester:x:{ID}:{ID}::{}:/bin/sh\n", home.display());
        write(&dir.join("passwd"), &passwd);
        write(&dir.join("subuid"), &ranges);
        write(&dir.join("subgid"), &ranges);
        make_tun(&dir.join("tun"), 0o666);
        let program = dir.join("ketch");
        if std::fs::hard_link(ketch, &program).is_err() {
            std::fs::copy(ketch, &program).unwrap();
        }
        Self {
            dir: dir.to_path_buf(),
            ketch: program,
            namespaces,
        }
    }

    /// Lets the user open `/dev/net/tun`, or not, whatever the host does.
    pub(crate) fn set_tun(&self, is_open: bool) {
        let mode = if is_open { 0o666 } else { 0o600 };
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.dir.join("tun"), mode).unwrap();
    }

    /// A command that runs `ketch` as the user.
    pub(crate) fn command(&self) -> Command {
        let enter = ["sh", "-c", ENTER, "sh"];
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if self.namespaces == UserNamespaces::Forbidden {
            command.args(["sh", "-c", FORBID, "sh"]);
        }
        command
            .args(enter)
            .arg(&self.dir)
            .arg(ID.to_string())
            .arg(&self.ketch)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir.join("user"))
            // As for root: networks are tested where they are the subject.
            .env("KETCH_NETWORK", "none")
            .env("KETCH_ROOT", self.dir.join("user/root"))
            .env("KETCH_RUN", self.dir.join("user/run"));
        command
    }
}

/// The device that makes tap links (`Documentation/networking/tuntap.rst`).
fn make_tun(path: &Path, mode: u32) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let device = makedev(10, 200);
    mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::from(0o600),
        device,
    )
    .unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file, which nobody else reads"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
