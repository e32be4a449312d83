//! Linux containers: an OCI runtime [`Spec`](oci_spec::runtime::Spec) becomes a plan (`plan`), and
//! a plan becomes a process in namespaces and control groups (`start`, `init`, `exec`).
//!
//! The planning half runs in front ends and may allocate and fail at leisure. The other half runs
//! in `ketch-init` only: between `clone3` and `execve` it is async-signal-safe.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cgroup;
mod exec;
mod hooks;
mod init;
mod layers;
mod listener;
mod net_devices;
pub mod oci;
mod owner;
pub mod plan;
mod prepare;
pub mod seccomp;
mod signal;
mod start;
mod step;
pub mod systemd;
mod trace;
mod users;

/// The version of the runtime specification that containers are described by.
pub const OCI_VERSION: &str = "1.2.1";

pub use exec::{ExecProcess, exec, foreign_namespaces};
pub use signal::{real_signal, signal_number};
pub use start::{Gate, Process, StartError, Stdio, Streams, launch, start};
pub use step::{Failure, Step, exec_failure, reason};
