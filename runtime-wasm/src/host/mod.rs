//! Runs one guest: what the wasm host does after it was exec'd into the container.
//!
//! In a container the process is its PID 1, has one guest, and ends with it. Command worlds get the
//! current thread; a worker thread is started only when the guest reads standard input or resolves
//! a name.

mod context;
mod determinism;
mod http;
mod load;
mod outcome;
#[cfg(target_os = "linux")]
mod process;
mod run;
#[cfg(target_os = "linux")]
pub mod walls;

pub use load::LoadError;
pub use outcome::{Ending, Outcome};
#[cfg(target_os = "linux")]
pub use process::main;
pub use run::run;

#[cfg(all(test, feature = "compiler"))]
mod tests;
