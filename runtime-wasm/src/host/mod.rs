//! Runs one guest: what the wasm host does after it was exec'd into the container.
//!
//! The process is PID 1 of the container, has one guest, and ends with it. Command worlds get the
//! current thread; a worker thread is started only when the guest reads standard input or resolves
//! a name.

mod context;
mod determinism;
mod http;
mod load;
mod outcome;
mod process;
mod run;
pub mod walls;

pub use load::LoadError;
pub use outcome::{Ending, Outcome};
pub use process::main;
pub use run::run;

#[cfg(all(test, feature = "compiler"))]
mod tests;
