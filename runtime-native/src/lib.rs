//! Linux containers: an OCI runtime [`Spec`](oci_spec::runtime::Spec) becomes a plan (`plan`), and
//! a plan becomes a process in namespaces and control groups (`start`, `init`, `exec`).
//!
//! The planning half runs in front ends and may allocate and fail at leisure. The other half runs
//! in `ketch-init` only: between `clone3` and `execve` it is async-signal-safe.
#![forbid(unsafe_code)]

pub mod capability;
pub mod cgroup;
mod exec;
mod init;
pub mod plan;
pub mod seccomp;
mod start;
mod step;

pub use exec::{ExecProcess, exec};
pub use start::{Process, StartError, Stdio, start};
pub use step::{Failure, Step, exec_failure, reason};
