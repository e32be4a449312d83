//! The one reader of tar archives: yields entries in order, trusts nothing, keeps nothing.
//!
//! It reads what image builders write: ustar, GNU and PAX headers (POSIX.1-2024 `pax`, GNU tar
//! manual "Basic Tar Format"), base-256 numbers, long names, sparse files of every GNU form. A
//! header that is malformed is an error, never skipped: two readers that disagree about where the
//! next header is see two different archives (CVE-2025-62518).

mod field;
mod path;
mod pax;
mod sparse;
mod walk;

pub use path::EntryPath;
pub(crate) use path::printable;
pub use sparse::Segment;
pub use walk::{Entry, EntryKind, TarWalk, Xattrs};
