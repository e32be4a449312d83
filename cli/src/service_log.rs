//! The daemon's log on standard error: lines of text or of JSON. A thread writes it, behind a queue with
//! bounds: nobody who reads slowly, or not at all, stops requests. What does not fit is counted, and
//! the count is written when there is room again.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines wait.
const LINES: usize = 4096;

/// How long the end waits for lines that nobody takes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM.
const END_SIGNALS: [i32; 2] = [2, 15];

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no format: there are text and json")),
        }
    }
}

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Gives lines to the thread.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    /// Every event is one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log of this process from now on. Dropped, it is written to its end.
pub(crate) struct ServiceLog(SyncSender<Message>);

impl ServiceLog {
    /// Begins it.
    pub(crate) fn begin(level: LevelFilter, format: LogFormat) -> anyhow::Result<Self> {
        // A thread that has them unblocked would be ended by signals that the daemon waits for.
        drop(sys::signals::signal_fd(&END_SIGNALS).context("cannot block signals")?);
        let (queue, receiver) = queue();
        let (dropped, sender) = (Arc::clone(&queue.dropped), queue.sender.clone());
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, &dropped, &mut io::stderr()))
            .context("cannot start a thread")?;
        let builder = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(queue);
        let set = match format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        set.map_err(|error| anyhow::anyhow!("cannot begin the log: {error}"))?;
        Ok(Self(sender))
    }
}

impl Drop for ServiceLog {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        // A full queue has nobody who takes from it.
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _done = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn queue() -> (Queue, Receiver<Message>) {
    let (sender, receiver) = sync_channel(LINES);
    let queue = Queue {
        sender,
        dropped: Arc::default(),
    };
    (queue, receiver)
}

fn write_all(receiver: &Receiver<Message>, dropped: &AtomicU64, to: &mut impl Write) {
    while let Ok(message) = receiver.recv() {
        // Nobody is told when even standard error is closed.
        match message {
            Message::Line(line) => drop(to.write_all(&line)),
            Message::Flush(done) => drop(done.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(to, "{{\"lost_log_lines\":{lost}}}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_do_not_fit_are_counted_and_nobody_waits() {
        let (mut queue, receiver) = queue();
        for _ in 0..LINES + 3 {
            queue.write_all(b"x\n").unwrap();
        }
        let dropped = Arc::clone(&queue.dropped);
        drop(queue);
        let mut written = Vec::new();
        write_all(&receiver, &dropped, &mut written);
        let text = String::from_utf8(written).unwrap();
        let (own, told): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| *line == "x");
        assert_eq!(own.len(), LINES);
        assert_eq!(told, [r#"{"lost_log_lines":3}"#]);
    }
}
