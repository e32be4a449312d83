//! Walls around the wasm host, put up when the guest's code is loaded and before any of it runs.
//!
//! The container's own walls (namespaces, control group, no capabilities, the engine's seccomp
//! filter) are there already. These are for the case that a guest breaks out of the sandbox: the
//! process it would find itself in can open files of the container's tree only, make no memory
//! executable, and call nothing but what WASI needs.

mod filter;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, setrlimit};
use sys::landlock::{self, Ruleset, access};

use crate::spec::{Entry, GuestRoot, NetworkGrant, ROOT_FD, WasmSpec};

pub use filter::{Sockets, program};

/// What lies outside of the guest's tree and is read by the host itself later: name look-up, the
/// guest's root by its descriptor, and random numbers, where the C library asks a device for them.
const HOST_READS: [&str; 4] = ["/etc", "/proc", "/dev/urandom", "/dev/random"];

/// `SECCOMP_FILTER_FLAG_TSYNC`: all threads.
const ALL_THREADS: u32 = 1;

/// Puts up all walls. The calling thread must be the only one.
///
/// # Errors
/// When the kernel refuses one that it has.
pub fn put_up(spec: &WasmSpec) -> io::Result<()> {
    no_core_dumps()?;
    rustix::thread::set_no_new_privs(true)?;
    restrict_files(&spec.guest_root)?;
    let serves = matches!(spec.entry, Entry::Http(_));
    let sockets = match serves || spec.network != NetworkGrant::None {
        true => Sockets::Internet,
        false => Sockets::None,
    };
    sys::exec::load_seccomp(&program(sockets), ALL_THREADS)?;
    Ok(())
}

/// A core file would hold the guest's memory and environment, and 4 GiB of reserved addresses.
fn no_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(io::Error::from)
}

/// Landlock, where the kernel has it.
fn restrict_files(root: &GuestRoot) -> io::Result<()> {
    let version = landlock::version();
    if version == 0 {
        return Ok(());
    }
    let rules = Ruleset::new(version)?;
    let all = landlock::all_access(version) & !access::EXECUTE;
    match root {
        GuestRoot::Descriptor => {
            let root = sys::inherit::duplicate_inherited(ROOT_FD)?;
            rules.allow(root.as_fd(), all)?;
        }
        GuestRoot::Path(path) => rules.allow(File::open(path)?.as_fd(), all)?,
        GuestRoot::None => {}
    }
    for path in HOST_READS {
        match File::open(path) {
            Ok(file) if file.metadata()?.is_dir() => {
                rules.allow(file.as_fd(), access::READ_FILE | access::READ_DIR)?;
            }
            Ok(file) => rules.allow(file.as_fd(), access::READ_FILE)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rules.restrict_thread()?)
}
