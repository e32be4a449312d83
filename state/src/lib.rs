//! The one disk layout of ketch (DESIGN section 4): where everything is, the typed records of a
//! container, names and locks. Files are the truth; nothing here keeps state in memory.
#![forbid(unsafe_code)]

pub mod clock;
mod container;
mod layout;
mod record;

pub use container::{
    ContainerConfig, ContainerSettings, ContainerState, RecordError, Status, VERSION,
};
pub use layout::{Layout, LayoutError};
pub use record::{read_record, write_record};
