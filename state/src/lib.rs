//! The one disk layout of ketch (DESIGN section 4): where everything is, the typed records of a
//! container, names and locks. Files are the truth; nothing here keeps state in memory.
#![forbid(unsafe_code)]

pub mod clock;
mod container;
mod events;
mod exit_record;
mod health;
mod layout;
mod log_record;
mod record;
mod segments;

pub use container::{
    ContainerConfig, ContainerSettings, ContainerState, Pipes, RecordError, Status, VERSION,
};
pub use events::{Actor, EventLog, EventRecord};
pub use exit_record::ExitRecord;
pub use health::{HealthState, HealthStatus, MAX_PROBE_OUTPUT, ProbeResult};
pub use layout::{Layout, LayoutError};
pub use log_record::{LogForm, LogRecord, MAX_LINE, nanoseconds_now};
pub use record::{read_record, write_record};
pub use segments::{Segment, Segments};
