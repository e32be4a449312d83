//! Compiling untrusted code costs what the code wants it to cost: these are the bounds of the worker's
//! own process. Windows has none that a process could put around itself.

#[cfg(not(unix))]
use std::io;

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Seconds of CPU time: the largest program known (Clang, 75 MB of wasm) takes 71.
#[cfg(unix)]
const CPU_SECONDS: u64 = 900;

/// Bytes of address space: one for the compiler's threads and code, many for a large module.
#[cfg(target_os = "linux")]
const ADDRESS_SPACE: u64 = 16 << 30;

/// Open files: the standard three, the artifact, its directory, and some for the library.
#[cfg(unix)]
const OPEN_FILES: u64 = 64;

/// Limits this process.
#[cfg(unix)]
pub(super) fn put_up() -> Result<(), rustix::io::Errno> {
    let limits = [
        (Resource::Core, 0),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Nofile, OPEN_FILES),
        // Elsewhere the kernel does not enforce it.
        #[cfg(target_os = "linux")]
        (Resource::As, ADDRESS_SPACE),
    ];
    for (resource, wanted) in limits {
        let hard = getrlimit(resource).maximum;
        let value = Some(hard.map_or(wanted, |hard| hard.min(wanted)));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )?;
    }
    Ok(())
}

/// There is nothing to put up.
#[cfg(not(unix))]
pub(super) fn put_up() -> io::Result<()> {
    Ok(())
}
