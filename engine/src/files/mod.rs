//! The files of a container, running or not, for who stands outside: copied in and out, exported,
//! compared with the image, committed.
//!
//! ```text
//! root         the container's root directory as one descriptor
//! path         where in it something is
//! destination  where copied things are put: in a container, on the host
//! copy         `cp` in both directions
//! exchanged    the same with a container of a daemon
//! layered      the merged files without what is mounted: `export`
//! diff         what the upper directory changes
//! commit       an image of it
//! ```
//!
//! A container can change its tree at any time. Nothing here uses a path of it as a string: all
//! lookups go from the root's descriptor and cannot leave it (CVE-2018-15664 and its kind), and no
//! program or library of the container is ever run or loaded (CVE-2019-14271).

mod commit;
mod copy;
mod destination;
mod diff;
mod exchanged;
mod layered;
mod path;
mod root;

pub use commit::CommitRequest;
pub use copy::{Copied, CopyOptions, FollowLink, Local, Owner};
pub use diff::{FileChange, FileChangeKind};
pub use exchanged::{OutgoingCopy, receive_copy};
pub use root::ContainerRoot;
