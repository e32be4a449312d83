//! What isolation costs: starts, idle memory and work, measured as whole processes at ketch's four levels and with the
//! peers that are installed.
//!
//! This crate starts programs, ketch itself among them, and does the statistics and the reports. It uses nothing
//! of the engine: what it measures is what a user would start. It never prints and reads no environment.
#![forbid(unsafe_code)]

mod call;
mod compare;
mod html;
mod instances;
mod job;
mod load;
mod machine;
mod markdown;
mod measure;
mod memory;
mod network;
mod options;
mod overhead;
mod package;
mod report;
mod results;
mod service;
mod stats;
mod subject;
mod suite;
mod table;
mod watch;

pub use compare::{Change, Comparison, Limit};
pub use html::write_report;
pub use machine::Machine;
pub use markdown::markdown;
pub use measure::{Better, MEASURES, Measure};
pub use options::{LEVELS, OVERHEAD, Options, PEERS};
pub use report::{Interval, Measured, Outcome, Overhead, Ratio, Report, Summary, Tested};
pub use suite::{Progress, run};
pub use table::text;
