//! Logs of containers: how they are recorded (`options`) and sent elsewhere (`receiver`), read
//! (`reader`, `tail`) and compressed.

mod compress;
mod options;
mod reader;
mod receiver;
mod tail;

pub use compress::compress_log;
pub use options::LogOptions;
pub(crate) use options::LogSubject;
pub use reader::LogReader;
