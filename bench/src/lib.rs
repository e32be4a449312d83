//! What isolation costs: starts, idle memory and work, measured as whole processes at ketch's four levels and with the
//! peers that are installed.
//!
//! This crate starts programs, ketch itself among them, and does the statistics and the reports. It uses nothing
//! of the engine: what it measures is what a user would start. It never prints and reads no environment.
#![forbid(unsafe_code)]

mod call;
mod compare;
mod html;
mod job;
mod machine;
mod measure;
mod memory;
mod options;
mod package;
mod report;
mod results;
mod stats;
mod subject;
mod suite;
mod table;
mod watch;

pub use compare::{Change, Comparison, Limit};
pub use html::write_report;
pub use machine::Machine;
pub use measure::{Better, MEASURES, Measure};
pub use options::{LEVELS, Options, PEERS};
pub use report::{Interval, Measured, Outcome, Overhead, Ratio, Report, Summary, Tested};
pub use suite::{Progress, run};
pub use table::text;
