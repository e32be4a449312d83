//! The process that writes and sends a container's log for its monitor, where that may take its time:
//! it waits for disks and servers, and connects again when a server was away. It ends when the
//! monitor has closed its pipe and all lines are on their way, or nobody takes them.
//!
//! ```text
//! sender     a line to a server, with what happens when there is none
//! syslog     RFC 3164 and 5424
//! fluentd    the forward protocol, in MessagePack
//! journald   the native protocol
//! ```

mod fluentd;
mod journald;
mod sender;
mod syslog;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::LogWriterPlan;

use crate::log::{FileLog, Frame};
use sender::Sender;

/// Writes and sends what comes through `pipe`, to its end.
pub(crate) fn run(plan: &[u8], pipe: OwnedFd) -> io::Result<()> {
    let plan = LogWriterPlan::decode(plan).map_err(io::Error::other)?;
    let mut from = BufReader::with_capacity(64 * 1024, File::from(pipe));
    let mut file = match &plan.file {
        Some((file, dir)) => {
            let dir = Path::new(OsStr::from_bytes(dir.to_bytes()));
            Some(FileLog::open(file, dir)?)
        }
        None => None,
    };
    let mut sender = plan.receiver.as_ref().map(Sender::new);
    while let Some(frame) = next(&mut from, file.as_mut())? {
        if let Some(file) = &mut file {
            file.record_at(frame.time, frame.is_stderr, &frame.bytes);
        }
        if let Some(sender) = &mut sender {
            sender.send(&frame);
        }
    }
    if let Some(file) = &mut file {
        file.flush();
    }
    Ok(())
}

/// The next line. What was taken is written to the file before this waits for more.
fn next(from: &mut BufReader<File>, file: Option<&mut FileLog>) -> io::Result<Option<Frame>> {
    if let Some(file) = file.filter(|_| from.buffer().is_empty()) {
        file.flush();
    }
    Frame::read(from)
}
