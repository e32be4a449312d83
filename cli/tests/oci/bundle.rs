//! Bundles for the tests of the OCI runtime command line: a root file system of busybox, and the
//! specification that `ketch oci spec` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::{BUSYBOX, Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// What the shells of the tests call.
const APPLETS: [&str; 18] = [
    "cat", "dd", "echo", "env", "false", "grep", "id", "ls", "mkdir", "mknod", "mount", "pwd",
    "readlink", "sh", "sleep", "stat", "test", "true",
];

/// A bundle in a sandbox, with a root for containers.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) cx: Sandbox,
    pub(crate) config: Value,
    /// What `one` stands for in arguments: names of control groups are the whole machine's.
    id: String,
}

impl Bundle {
    /// A bundle that runs a shell command without a terminal.
    pub(crate) fn shell(script: &str) -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
        let bin = cx.path().join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(cx.path().join("bundle/rootfs/etc")).unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let bundle = cx.path().join("bundle");
        let spec = cx.ketch(["oci", "spec", "--bundle", bundle.to_str().unwrap()]);
        assert_eq!(spec.code, 0, "{}", spec.stderr);
        let text = fs::read(bundle.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"]["readonly"] = json!(false);
        let id = cx.path().file_name().unwrap().to_str().unwrap().to_owned();
        Some(Self { cx, config, id })
    }

    /// What `one` stands for.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.cx.path().join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    /// Makes the root usable for a user who is not root on the host.
    pub(crate) fn open_to_everybody(&self) {
        for path in [self.cx.path(), &self.dir(), &self.rootfs()] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(path, mode).unwrap();
        }
        for dir in ["proc", "dev", "sys"] {
            fs::create_dir(self.rootfs().join(dir)).unwrap();
        }
    }

    /// Takes the mount at `destination` out of the specification.
    pub(crate) fn without_mount(&mut self, destination: &str) {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != destination);
    }

    /// A tree of the host's that no container may change: a file and a mode.
    pub(crate) fn canary(&self) -> PathBuf {
        let canary = self.cx.path().join("canary");
        if !canary.exists() {
            fs::create_dir(&canary).unwrap();
            fs::write(canary.join("file"), "untouched").unwrap();
        }
        canary
    }

    /// Fails when the canary is not as it was made.
    pub(crate) fn assert_canary_untouched(&self) {
        let canary = self.canary();
        let names: Vec<_> = fs::read_dir(&canary)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["file"]);
        let text = fs::read_to_string(canary.join("file")).unwrap();
        assert_eq!(text, "untouched");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(canary.to_str().unwrap()), "{mounts}");
    }

    pub(crate) fn write(&self) {
        let text = serde_json::to_vec(&self.config).unwrap();
        fs::write(self.dir().join("config.json"), text).unwrap();
    }

    /// The command line with this sandbox's root.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cx.command();
        command
            .args(["oci", "--root"])
            .arg(self.cx.path().join("oci"))
            .args(
                args.iter()
                    .map(|arg| if *arg == "one" { &self.id } else { *arg }),
            )
            .current_dir(self.dir());
        command
    }

    /// What is left of the container.
    pub(crate) fn is_there(&self) -> bool {
        self.cx.path().join("oci").join(&self.id).exists()
    }

    pub(crate) fn oci(&self, args: &[&str]) -> Run {
        let output = self.command(args).stdin(Stdio::null()).output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Writes the specification and runs it to its end.
    pub(crate) fn run(&self) -> Run {
        self.write();
        self.oci(&["run", "one"])
    }

    /// Creates the container without anybody who reads its output.
    pub(crate) fn create(&self) -> Run {
        self.write();
        let status = self
            .command(&["create", "one"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        Run {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: String::new(),
        }
    }

    /// One field of the container's state.
    pub(crate) fn state(&self, field: &str) -> String {
        let run = self.oci(&["state", "one"]);
        let state: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
        match &state[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Waits until the container is in a state.
    pub(crate) fn wait_for(&self, status: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.state("status") != status {
            assert!(std::time::Instant::now() < deadline, "never {status}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let run = self.oci(&["delete", "--force", "one"]);
        if !std::thread::panicking() {
            assert_eq!(run.code, 0, "{}", run.stderr);
            assert!(!self.is_there());
        }
    }
}
