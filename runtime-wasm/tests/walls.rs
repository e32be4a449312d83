//! The walls around the wasm host (rows S47 and S51 of the security table): this program puts them
//! up around itself and tries what a guest that broke out would try.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it does"
)]

use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

use runtime::detect::BinaryKind;
use runtime_wasm::host::walls;
use runtime_wasm::{GuestRoot, NetworkGrant, WasmSpec};
use rustix::fs::{CWD, Mode};

/// `SIGSYS`, with which the filter ends a process.
const SIGSYS: i32 = 31;

/// A name, what it does, and how that ends.
type Attempt = (&'static str, fn(&Path), End);

/// What is tried, and how it has to end: a panic is exit code 101.
const ATTEMPTS: [Attempt; 11] = [
    ("guest_files_are_reachable", guest_files, End::Code(0)),
    ("files_of_the_host_are_not", host_files, End::Code(0)),
    ("threads_can_be_started", threads, End::Code(0)),
    ("processes_cannot_be_started", processes, End::Code(0)),
    (
        "sockets_are_refused_without_a_grant",
        no_sockets,
        End::Code(0),
    ),
    ("sockets_work_with_a_grant", sockets, End::Code(0)),
    ("memory_cannot_be_made_executable", executable, End::Code(0)),
    ("core_dumps_are_off", core_dumps, End::Code(0)),
    ("execve_ends_the_process", execve, End::Signal),
    ("mount_ends_the_process", mount, End::Signal),
    ("io_uring_ends_the_process", io_uring, End::Signal),
];

#[derive(Clone, Copy)]
enum End {
    Code(i32),
    Signal,
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("attempt") {
        let (name, root) = (args.next().unwrap(), args.next().unwrap());
        let attempt = ATTEMPTS.iter().find(|(known, _, _)| *known == name);
        (attempt.unwrap().1)(Path::new(&root));
        return;
    }
    let root = tempfile::tempdir().unwrap();
    File::create(root.path().join("file")).unwrap();
    for (name, _, end) in ATTEMPTS {
        let this = std::env::current_exe().unwrap();
        let status: ExitStatus = Command::new(this)
            .args(["attempt", name])
            .arg(root.path())
            .status()
            .unwrap();
        match end {
            End::Code(code) => assert_eq!(status.code(), Some(code), "{name}"),
            End::Signal => assert_eq!(status.signal(), Some(SIGSYS), "{name}: {status}"),
        }
        println!("test {name} ... ok");
    }
}

fn confine(root: &Path, network: NetworkGrant) {
    let mut spec = WasmSpec::new(BinaryKind::CoreModule, Vec::new());
    spec.guest_root = GuestRoot::Path(root.to_str().unwrap().to_owned());
    spec.network = network;
    walls::put_up(&spec).unwrap();
}

fn guest_files(root: &Path) {
    confine(root, NetworkGrant::None);
    File::open(root.join("file")).unwrap();
    File::create(root.join("new")).unwrap();
    // The calls with a directory's descriptor, which WASI is made of.
    rustix::fs::mkdirat(CWD, root.join("dir"), Mode::RWXU).unwrap();
    let (from, to) = (root.join("new"), root.join("dir/new"));
    rustix::fs::renameat(CWD, from, CWD, to).unwrap();
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 2);
}

fn host_files(root: &Path) {
    let outside = tempfile::tempdir().unwrap();
    File::create(outside.path().join("file")).unwrap();
    confine(root, NetworkGrant::None);
    // Where the kernel has no Landlock the container's mount tree is the only wall.
    if sys::landlock::version() > 0 {
        let error = File::open(outside.path().join("file")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let error = File::create("/etc/made-by-a-guest").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
    // It cannot be removed any more from here.
    drop(outside.keep());
}

fn threads(root: &Path) {
    confine(root, NetworkGrant::None);
    assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
}

fn processes(root: &Path) {
    confine(root, NetworkGrant::None);
    let error = Command::new("/bin/true").spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

fn no_sockets(root: &Path) {
    confine(root, NetworkGrant::None);
    let error = TcpListener::bind("127.0.0.1:0").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

fn sockets(root: &Path) {
    confine(root, NetworkGrant::Inherit);
    TcpListener::bind("127.0.0.1:0").unwrap();
    // Other families stay out: packets, netlink, kernel cryptography.
    let error = std::os::unix::net::UnixDatagram::unbound().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[expect(unsafe_code, reason = "the call that must fail is an unsafe one")]
fn executable(root: &Path) {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
    confine(root, NetworkGrant::None);
    let null = std::ptr::null_mut();
    let (writable, both) = (ProtFlags::WRITE, ProtFlags::WRITE | ProtFlags::EXEC);
    // SAFETY: new anonymous memory, which nothing else refers to.
    let page = unsafe { mmap_anonymous(null, 4096, writable, MapFlags::PRIVATE) }.unwrap();
    // SAFETY: the page was made just now; if the call succeeded nothing would use it.
    let error = unsafe { mprotect(page, 4096, MprotectFlags::EXEC) }.unwrap_err();
    assert_eq!(error, rustix::io::Errno::PERM);
    // SAFETY: as above.
    let error = unsafe { mmap_anonymous(null, 4096, both, MapFlags::PRIVATE) }.unwrap_err();
    assert_eq!(error, rustix::io::Errno::PERM);
}

fn core_dumps(root: &Path) {
    confine(root, NetworkGrant::None);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
}

fn execve(root: &Path) {
    confine(root, NetworkGrant::None);
    let error = Command::new("/bin/true").exec();
    panic!("execve came back: {error}");
}

fn mount(root: &Path) {
    confine(root, NetworkGrant::None);
    let flags = rustix::mount::MountFlags::empty();
    let result = rustix::mount::mount(c"none", root, c"tmpfs", flags, None);
    panic!("mount came back: {result:?}");
}

#[expect(unsafe_code, reason = "the call that must fail is an unsafe one")]
fn io_uring(root: &Path) {
    confine(root, NetworkGrant::None);
    // SAFETY: no parameters are passed, which the kernel refuses with EFAULT at worst.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) };
    panic!("io_uring_setup came back: {result}");
}
