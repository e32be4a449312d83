//! The parent's side of a start: pipes, control groups, the clone, id maps, and the answer of the
//! child. Runs in `ketch-init`, which has one thread.
//!
//! ```text
//! launch      the sequence: groups, what the init needs, clone, answer
//! streams     standard streams: pipes, a terminal, or the caller's own
//! namespaces  what the parent joins for its child
//! parent      the talk with the init until its program runs
//! error       what is said when it does not
//! ```

mod error;
mod launch;
mod namespaces;
mod parent;
mod streams;

pub use error::StartError;
pub use launch::{Gate, Process, launch, start};
pub(crate) use parent::read_message;
pub use streams::{Stdio, Streams};
