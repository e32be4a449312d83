//! Seccomp filters: from a profile to the classic BPF program that the kernel takes.
//!
//! The result of [`compile`] or [`default_profile`] goes into the plan (`runtime::InitPlan`),
//! and init loads it. Nothing here talks to the kernel except for its version.
//!
//! ```text
//! Docker's JSON ──docker──▶ LinuxSeccomp ──oci──▶ Policy ──compile──▶ program
//!                                     builtin ──▶
//! ```
//!
//! One program serves all architectures of a profile:
//!
//! ```text
//! load arch;  one test for each architecture;  others: kill, as libseccomp does
//! load nr;    binary search over ranges of numbers that have the same fate
//!             (x32 is the upper part of x86-64's number line)
//! leaf:       a return that is shared, or a chain of argument tests, 32 bits a load
//! ```
//!
//! Compiling takes microseconds where libseccomp takes 12 ms, and the kernel, which runs the
//! filter once for each call number when it is loaded, is done sooner too. The tests compare
//! every answer with the one that libseccomp's program gives.

mod arch;
mod builtin;
mod calls;
mod compile;
mod docker;
mod error;
mod oci;
mod program;
mod rule;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use builtin::{default_profile, default_spec};
pub use calls::call_number;
pub use docker::{Host, from_json};
pub use error::SeccompError;
pub use oci::{Compiled, DEFAULT_FLAGS, compile};
