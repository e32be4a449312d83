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
pub use docker::{Host, from_json};
pub use error::SeccompError;
pub use oci::{Compiled, DEFAULT_FLAGS, compile};

/// The number of the call `name` on `arch`: what the kernel puts into `seccomp_data.nr`, on x32
/// with the x32 bit.
///
/// ```
/// use runtime_native::seccomp::{self, Arch};
///
/// assert_eq!(seccomp::call_number("read", Arch::X86_64), Some(0));
/// assert_eq!(seccomp::call_number("read", Arch::X86), Some(3));
/// assert_eq!(seccomp::call_number("fork", Arch::Aarch64), None);
/// ```
#[must_use]
pub fn call_number(name: &str, arch: Arch) -> Option<u32> {
    calls::call(calls::find(name)?).number(arch)
}
