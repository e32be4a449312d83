//! Every unsafe block of ketch, and the system calls that the other crates need in a safe form:
//! process creation, mounts, namespaces, sockets with descriptors, pseudo-terminals, locks and
//! durable files. It knows no container: it is the kernel's interface, one subject a module.

#![expect(unsafe_code, reason = "this crate holds every unsafe block of ketch")]

pub mod bpf;
pub mod clone;
pub mod durable;
pub mod exec;
pub mod inherit;
pub mod landlock;
pub mod lock;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod path;
pub mod process;
pub mod reason;
pub mod schedule;
pub mod sealed;
pub mod signal;
pub mod signals;
pub mod socket;
pub mod time;
