//! Debian's cloud kernel: fetched once, unpacked below the target directory, never installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

/// The package that depends on the newest kernel's.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// The compressed image.
    pub(super) image: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The kernel in the cache; it is fetched when there is none.
    pub(super) fn find() -> Option<Self> {
        let cache = cache();
        fs::create_dir_all(&cache).ok()?;
        // Tests run side by side: one of them fetches it.
        let lock = File::create(cache.join("lock")).ok()?;
        flock(&lock, FlockOperation::LockExclusive).ok()?;
        if let Some(kernel) = unpacked(&cache.join("kernel")) {
            return Some(kernel);
        }
        let new = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&cache)
            .ok()?;
        fetch(new.path())?;
        unpacked(&new.path().join("kernel"))?;
        crate::rename(&new.path().join("kernel"), &cache.join("kernel"));
        unpacked(&cache.join("kernel"))
    }
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn cache() -> PathBuf {
    match std::env::var_os("KETCH_VM_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm"),
    }
}

/// The image and the modules in an unpacked package.
fn unpacked(dir: &Path) -> Option<Kernel> {
    let only = |dir: PathBuf, prefix: &str| {
        let mut entries = fs::read_dir(dir).ok()?.flatten();
        let found = entries.find(|e| e.file_name().to_string_lossy().starts_with(prefix))?;
        Some(found.path())
    };
    let modules =
        only(dir.join("lib/modules"), "").or_else(|| only(dir.join("usr/lib/modules"), ""))?;
    let image = only(dir.join("boot"), "vmlinuz-")?;
    Some(Kernel { image, modules })
}

/// Downloads the package that the meta package depends on, and unpacks it into `kernel`.
fn fetch(dir: &Path) -> Option<()> {
    let depends = Command::new("apt-cache")
        .args(["depends", "--important", META_PACKAGE])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))?;
    let download = Command::new("apt-get")
        .args(["-q", "download", package])
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    download.ok().filter(std::process::ExitStatus::success)?;
    let mut entries = fs::read_dir(dir).ok()?.flatten();
    let deb = entries.find(|e| e.path().extension().is_some_and(|end| end == "deb"))?;
    let unpack = Command::new("dpkg")
        .arg("-x")
        .arg(deb.path())
        .arg(dir.join("kernel"))
        .status();
    unpack.ok().filter(std::process::ExitStatus::success)?;
    Some(())
}
