//! Logs of containers: how they are recorded (`options`), read (`reader`, `tail`) and compressed.

mod compress;
mod options;
mod reader;
mod tail;

pub use compress::compress_log;
pub use options::LogOptions;
pub use reader::LogReader;
