//! A small disk for a sandbox's state root: a tmpfs of its own size, in a mount namespace of its own
//! that lives as long as the process that holds it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounts the disk and waits for the end of its input.
const HOLD: &str = "
mkdir -p \"$2\" && mount -t tmpfs -o size=$1k tmpfs \"$2\" && echo ready && read end";

/// The disk; gone when dropped, with everything on it.
#[derive(Debug)]
pub(crate) struct Disk {
    holder: Child,
    root: PathBuf,
}

impl Disk {
    /// Mounts a disk of so many KiB at `root`.
    pub(crate) fn mount(root: &Path, size_kib: u32) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", HOLD, "sh", &size_kib.to_string()])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = holder.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "cannot mount a tmpfs");
        Self {
            holder,
            root: root.to_path_buf(),
        }
    }

    /// A command that sees the disk.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        command.arg(namespace).arg("--").arg(program);
        command
    }

    fn done(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).arg(&self.root).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, size_kib: u32) {
        let options = format!("remount,size={size_kib}k");
        self.done("mount", &["-o", &options]);
    }

    /// The files and directories on it, below its root.
    pub(crate) fn files(&self) -> Vec<String> {
        let args = ["-c", "cd \"$0\" && find . -mindepth 1 | cut -c3- | sort"];
        self.done("sh", &args).lines().map(str::to_owned).collect()
    }

    /// KiB in use.
    pub(crate) fn used_kib(&self) -> u32 {
        let used = self.done("sh", &["-c", "df -k --output=used \"$0\" | tail -n 1"]);
        used.trim().parse().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its input ends.
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}
