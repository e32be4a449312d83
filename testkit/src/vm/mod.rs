//! A virtual machine that boots in seconds: Debian's cloud kernel under `qemu-system-x86_64`
//! without KVM, an initramfs made here, and one script whose exit status and output are the result.
//!
//! There control groups are v2 alone, whatever this machine has. Nothing is installed: the kernel's
//! package is fetched once by `apt-get download` and unpacked below `target/vm` (or
//! `KETCH_VM_CACHE`).
//!
//! ```ignore
//! let Some(vm) = testkit::Vm::new() else { return };
//! let run = vm.program("/bin/ketch", env!("CARGO_BIN_EXE_ketch")).run("ketch version");
//! assert_eq!(run.code, 0, "{run}");
//! ```

mod cpio;
mod kernel;
mod modules;
pub(crate) mod systemd;
mod write_log;

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use cpio::Archive;
use kernel::Kernel;
pub use write_log::WriteLog;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const BUSYBOX: &str = "/bin/busybox";

/// What the script's end looks like in its output.
const END: &str = "\nend of the script: ";

/// The kernel modules that containers need; those that are built in are no module.
const MODULES: [&str; 10] = [
    "overlay",
    "erofs",
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "veth",
    "bridge",
    "nf_tables",
    "fuse",
    "loop",
];

/// A machine to be booted.
#[derive(Debug)]
pub struct Vm {
    kernel: Kernel,
    archive: Archive,
    modules: BTreeSet<String>,
    disk: Option<PathBuf>,
    write_log: Option<PathBuf>,
    memory_mib: u32,
    deadline: Duration,
    cut_power_at: Option<String>,
    is_systemd: bool,
}

/// How a script ended.
#[derive(Debug, Clone)]
pub struct VmRun {
    /// Its exit status; -1 when it did not come to its end.
    pub code: i32,
    /// What it printed, standard error included.
    pub output: String,
    /// What the kernel printed.
    pub console: String,
    /// How long the machine ran.
    pub time: Duration,
}

impl Display for VmRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            output,
            console,
            time,
        } = self;
        writeln!(
            f,
            "status {code} after {time:.1?}\n{output}\nconsole:\n{console}"
        )
    }
}

/// Whether a machine can be booted here.
pub(crate) fn is_possible() -> bool {
    Path::new(QEMU).exists() && Path::new(BUSYBOX).exists() && Kernel::find().is_some()
}

impl Vm {
    /// A machine with busybox, the modules that containers need, and nothing else. Without qemu,
    /// busybox or a kernel it prints why the test is skipped and gives `None`.
    ///
    /// # Panics
    /// Instead of skipping, when `KETCH_TEST_REQUIRE` is `all`.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !is_possible() {
            crate::skip("needs Vm");
            return None;
        }
        let mut vm = Self {
            kernel: Kernel::find()?,
            archive: Archive::default(),
            modules: BTreeSet::new(),
            disk: None,
            write_log: None,
            memory_mib: 1024,
            deadline: Duration::from_secs(120),
            cut_power_at: None,
            is_systemd: false,
        };
        for dir in ["proc", "sys", "dev", "run", "tmp", "etc", "root", "new"] {
            vm.archive.directory(dir);
        }
        vm.archive
            .file("bin/busybox", &fs::read(BUSYBOX).unwrap(), 0o755);
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines() {
            if applet != "busybox" {
                vm.archive.link(&format!("bin/{applet}"), "busybox");
            }
        }
        for module in MODULES {
            vm = vm.module(module);
        }
        Some(vm)
    }

    /// Puts a file there.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: &[u8], mode: u32) -> Self {
        self.archive.file(path, bytes, mode);
        self
    }

    /// Puts a program there, without its symbols, and the shared libraries that it is linked with.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn program(mut self, path: &str, host: impl AsRef<Path>) -> Self {
        let host = host.as_ref();
        self.archive.file(path, &without_symbols(host), 0o755);
        for library in libraries(host) {
            self.archive
                .file(&library, &fs::read(&library).unwrap(), 0o755);
        }
        self
    }

    /// Loads a further kernel module, and what it depends on, before the script.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.insert(name.to_owned());
        self
    }

    /// Gives the machine a disk, `/dev/vda`: an image file, which keeps what is written to it.
    #[must_use]
    pub fn disk(mut self, image: impl AsRef<Path>) -> Self {
        self.disk = Some(image.as_ref().to_path_buf());
        self
    }

    /// Logs every write to the disk, in order: see [`WriteLog`].
    ///
    /// # Panics
    /// When the log cannot be made.
    #[must_use]
    pub fn log_writes(mut self, log: impl AsRef<Path>) -> Self {
        WriteLog::create(log.as_ref());
        self.write_log = Some(log.as_ref().to_path_buf());
        self
    }

    /// How much memory it has; 1024 MiB otherwise.
    #[must_use]
    pub fn memory_mib(mut self, size: u32) -> Self {
        self.memory_mib = size;
        self
    }

    /// When it is switched off at the latest; 120 seconds after the start otherwise.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Switches the machine off, as by a power cut, when the script has printed this line.
    #[must_use]
    pub fn cut_power_at(mut self, line: &str) -> Self {
        self.cut_power_at = Some(line.to_owned());
        self
    }

    /// Boots the machine, runs a shell script in it and switches it off.
    ///
    /// # Panics
    /// When qemu cannot be started.
    #[must_use]
    pub fn run(mut self, script: &str) -> VmRun {
        let dir = tempfile::Builder::new()
            .prefix("ketch-vm-")
            .tempdir()
            .unwrap();
        let mut load = String::new();
        for (number, module) in modules::in_order(&self.kernel.modules, &self.modules)
            .into_iter()
            .enumerate()
        {
            let path = format!("modules/{number}.ko");
            self.archive.file(&path, &modules::read(&module), 0o644);
            load.push_str(&format!("insmod /{path}\n"));
        }
        let begin = match self.is_systemd {
            true => systemd::EXEC,
            false => PLAIN,
        };
        self.archive
            .file("init", init(&load, begin).as_bytes(), 0o755);
        self.archive.file("start-script", START.as_bytes(), 0o755);
        self.archive.file("script", script.as_bytes(), 0o755);
        // The kernel opens it for the first process.
        self.archive.device("dev/console", 5, 1);
        let initramfs = dir.path().join("initramfs");
        crate::write(&initramfs, &self.archive.finish());
        let begin = Instant::now();
        let qemu = self.start(&initramfs, dir.path());
        self.wait(qemu, &dir.path().join("output"), begin);
        let read = |name: &str| {
            let bytes = fs::read(dir.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (output, code) = split_end(read("output"));
        VmRun {
            code,
            output,
            console: read("console"),
            time: begin.elapsed(),
        }
    }

    fn start(&self, initramfs: &Path, dir: &Path) -> Child {
        let serial = |name: &str| format!("file:{}", dir.join(name).display());
        let mut qemu = Command::new(QEMU);
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", COMMAND_LINE])
            .args(["-serial", &serial("console"), "-serial", &serial("output")]);
        match (&self.disk, &self.write_log) {
            (Some(disk), None) => {
                let drive = format!(
                    "file={},format=raw,if=virtio,cache=writeback",
                    disk.display()
                );
                qemu.args(["-drive", &drive]);
            }
            (Some(disk), Some(log)) => {
                let file = |name: &str, path: &Path| {
                    format!("driver=file,node-name={name},filename={}", path.display())
                };
                let logged = "driver=blklogwrites,node-name=logged,file=disk,log=log,\
                              log-sector-size=512,log-super-update-interval=1";
                qemu.args(["-blockdev", &file("disk", disk)])
                    .args(["-blockdev", &file("log", log)])
                    .args(["-blockdev", logged])
                    .args(["-device", "virtio-blk-pci,drive=logged"]);
            }
            (None, _) => {}
        }
        qemu.stdin(Stdio::null()).spawn().unwrap()
    }

    /// Waits for the end of the machine, for the line of a power cut, or for the deadline.
    fn wait(&self, mut qemu: Child, output: &Path, begin: Instant) {
        let pid = Pid::from_child(&qemu);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        loop {
            let cut = self.cut_power_at.as_ref().is_some_and(|line| {
                let bytes = fs::read(output).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(line)
            });
            let left = self.deadline.saturating_sub(begin.elapsed());
            if cut || left.is_zero() {
                // It may have ended just now.
                drop(qemu.kill());
                break;
            }
            // Only a file shows how far the script is.
            let wait = match self.cut_power_at {
                Some(_) => left.min(Duration::from_millis(10)),
                None => left,
            };
            let wait = Timespec::try_from(wait).unwrap();
            let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
            if poll(&mut ended, Some(&wait)).unwrap() > 0 {
                break;
            }
        }
        qemu.wait().unwrap();
    }
}

/// Control groups are v2 alone; the script's own line has no kernel messages.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 cgroup_no_v1=all panic=-1 \
                            random.trust_cpu=on mitigations=off nokaslr no_timer_check \
                            tsc=unstable";

/// Without systemd: a group for the script, and the network of this machine alone.
const PLAIN: &str = "mkdir /sys/fs/cgroup/init
echo $$ >/sys/fs/cgroup/init/cgroup.procs
sh /start-script";

/// Runs the script and ends the machine.
const START: &str = "export PATH=/bin:/usr/bin:/usr/sbin HOME=/root
ip link set lo up
stty -F /dev/ttyS1 raw 2>/dev/null
sh /script </dev/null >/dev/ttyS1 2>&1
printf \"\\nend of the script: %s\\n\" $? >/dev/ttyS1
sync
reboot -f
";

/// The first process: what a distribution's init would have mounted, then `begin`.
fn init(load: &str, begin: &str) -> String {
    format!(
        "#!/bin/busybox sh
export PATH=/bin HOME=/root
# `pivot_root` does not work on the first root file system: a bind of it is a mount like any other.
mount --bind / /new
cd /new
mount --move . /
exec chroot . /bin/busybox sh -c '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
{load}{begin}
'
"
    )
}

fn split_end(output: String) -> (String, i32) {
    match output.rsplit_once(END) {
        Some((output, code)) => (output.to_owned(), code.trim().parse().unwrap_or(-1)),
        None => (output, -1),
    }
}

/// A copy of a program without symbols and line tables, which are most of an unoptimised one;
/// the program itself where there is no `strip`.
fn without_symbols(program: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&small)
        .arg(program)
        .stderr(Stdio::null())
        .status();
    match strip {
        Ok(status) if status.success() => fs::read(small).unwrap(),
        Ok(_) | Err(_) => fs::read(program).unwrap(),
    }
}

/// The shared libraries of a program, and its dynamic linker, as `ldd` finds them.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap().stdout;
    String::from_utf8_lossy(&output)
        .lines()
        .filter_map(|line| {
            let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path);
            path.split_whitespace().next()
        })
        .filter(|path| path.starts_with('/'))
        .map(str::to_owned)
        .collect()
}
