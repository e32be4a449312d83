//! Every unsafe block of ketch, and the system calls that the other crates need in a safe form:
//! process creation, mounts, namespaces, sockets with descriptors, pseudo-terminals, locks and
//! durable files. It knows no container: it is the kernel's interface, one subject a module.
//!
//! Durable files, locks, writing back and reading at an offset exist on every system; the rest is Linux.

#![cfg_attr(
    any(target_os = "linux", windows),
    expect(unsafe_code, reason = "this crate holds every unsafe block of ketch")
)]

#[cfg(target_os = "linux")]
pub mod bpf;
#[cfg(target_os = "linux")]
pub mod clone;
pub mod durable;
#[cfg(target_os = "linux")]
pub mod ended;
#[cfg(target_os = "linux")]
pub mod exec;
pub mod file;
#[cfg(target_os = "linux")]
pub mod inherit;
#[cfg(target_os = "linux")]
pub mod landlock;
pub mod lock;
#[cfg(target_os = "linux")]
pub mod mount;
#[cfg(target_os = "linux")]
pub mod net;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod path;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "linux")]
pub mod schedule;
#[cfg(target_os = "linux")]
pub mod sealed;
#[cfg(target_os = "linux")]
pub mod signal;
#[cfg(target_os = "linux")]
pub mod signals;
#[cfg(target_os = "linux")]
pub mod socket;
#[cfg(target_os = "linux")]
pub mod time;
pub mod writeback;
