//! A person at a container of a daemon: streams passed on, signals and sizes forwarded.

use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::client::{Ask, Client, with_query};
use crate::attach::{self, RawTerminal, Terminal};
use engine::DetachKeys;

/// How much is read at once.
const BUFFER: usize = 32 * 1024;

/// How many pieces of input wait.
const PIECES: usize = 4;

/// How long a piece of output may be: a longer one is no piece.
const MAX_FRAME: usize = 64 << 20;

/// The head of a frame.
const FRAME_HEAD: usize = 8;

/// How a stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The program has ended, or closed its output.
    Closed,
    /// Somebody has left the terminal.
    Detached,
    /// Nobody reads this program's output any more.
    OutputClosed,
}

/// What signals and sizes go to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Container(String),
    Exec(String),
}

/// What a person stands at.
pub(crate) struct Foreground<'a> {
    pub(crate) client: &'a Client,
    pub(crate) target: Target,
    pub(crate) terminal: Terminal,
    pub(crate) stdin: bool,
    pub(crate) signals: OwnedFd,
    pub(crate) keys: DetachKeys,
}

impl Foreground<'_> {
    /// Passes everything on until the stream ends.
    pub(crate) async fn serve(self, upgraded: Upgraded) -> anyhow::Result<StreamEnd> {
        let (mut reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let raw = match self.terminal {
            Terminal::Yes if self.stdin => RawTerminal::enter().ok(),
            _ => None,
        };
        let ended = self.relay(&mut reader, writer).await;
        drop(raw);
        ended
    }

    async fn relay(
        &self,
        reader: &mut ReadHalf<TokioIo<Upgraded>>,
        writer: WriteHalf<TokioIo<Upgraded>>,
    ) -> anyhow::Result<StreamEnd> {
        let signals = watched(self.signals.try_clone()?)?;
        let mut input = self.stdin.then(read_input);
        let mut writer = Some(writer);
        let mut keys = (self.terminal == Terminal::Yes).then(|| self.keys.clone());
        let mut output = Output::new(self.terminal);
        let mut buffer = vec![0; BUFFER];
        loop {
            // Each of them can be dropped: what was not taken is there the next time.
            tokio::select! {
                length = reader.read(&mut buffer) => {
                    // A connection that breaks is the end of what there is to show.
                    let length = length.unwrap_or(0);
                    if length == 0 {
                        return Ok(StreamEnd::Closed);
                    }
                    match output.write(buffer.get(..length).unwrap_or_default()) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(StreamEnd::OutputClosed);
                        }
                        written => written.context("cannot write the container's output")?,
                    }
                }
                piece = next(&mut input) => {
                    let Some(mut piece) = piece else {
                        input = None;
                        if let Some(mut writer) = writer.take() {
                            // The container sees the end of its input.
                            drop(writer.shutdown().await);
                        }
                        continue;
                    };
                    let left = keys.as_mut().is_some_and(|keys| keys.scan(&mut piece));
                    if let Some(writer) = &mut writer {
                        // A program that takes nothing more has ended, or will.
                        drop(writer.write_all(&piece).await);
                    }
                    if left {
                        return Ok(StreamEnd::Detached);
                    }
                }
                ready = signals.readable() => {
                    let mut ready = ready.context("cannot take signals")?;
                    while let Ok(Some(signal)) = sys::signals::next_signal(signals.get_ref().as_fd()) {
                        self.forward(signal).await;
                    }
                    ready.clear_ready();
                }
            }
        }
    }

    async fn forward(&self, signal: i32) {
        if signal == attach::WINDOW_CHANGED {
            self.resize().await;
        } else if let Target::Container(id) = &self.target {
            let path = with_query(
                &format!("/containers/{id}/kill"),
                &[("signal", &signal.to_string())],
            );
            // One that is ending takes no more signals; its end is reported all the same.
            drop(self.client.done(Ask::post(path)).await);
        }
    }

    /// Gives the program's terminal the size of this one.
    pub(crate) async fn resize(&self) {
        if self.terminal != Terminal::Yes || !rustix::termios::isatty(io::stdin()) {
            return;
        }
        let size = attach::console();
        let base = match &self.target {
            Target::Container(id) => format!("/containers/{id}/resize"),
            Target::Exec(id) => format!("/exec/{id}/resize"),
        };
        let (rows, columns) = (size.rows.to_string(), size.columns.to_string());
        // As above.
        drop(
            self.client
                .done(Ask::post(with_query(
                    &base,
                    &[("h", &rows), ("w", &columns)],
                )))
                .await,
        );
    }
}

/// The next piece of input; never when there is none.
async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads standard input in a thread: it cannot be waited for without changing it for those who share it.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut stdin = io::stdin();
        let mut buffer = vec![0; BUFFER];
        while let Ok(length) = stdin.read(&mut buffer)
            && length > 0
            && let Some(piece) = buffer.get(..length)
            && sender.blocking_send(piece.to_vec()).is_ok()
        {}
    });
    receiver
}

#[expect(
    deprecated,
    reason = "the constructor in its place is unsafe for types that may give another descriptor later, which `OwnedFd` does not"
)]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// Takes frames apart.
pub(crate) struct Output {
    terminal: Terminal,
    pending: BytesMut,
}

impl Output {
    pub(crate) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            pending: BytesMut::new(),
        }
    }

    /// Writes what is complete of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_to(bytes, &mut io::stdout().lock(), &mut io::stderr().lock())
    }

    fn write_to(
        &mut self,
        bytes: &[u8],
        stdout: &mut impl Write,
        stderr: &mut impl Write,
    ) -> io::Result<()> {
        if self.terminal == Terminal::Yes {
            stdout.write_all(bytes)?;
            return stdout.flush();
        }
        self.pending.extend_from_slice(bytes);
        loop {
            let Some((head, _)) = self.pending.split_first_chunk::<FRAME_HEAD>() else {
                return Ok(());
            };
            let [stream, 0, 0, 0, a, b, c, d] = *head else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the daemon sends no frames",
                ));
            };
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if length > MAX_FRAME {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the daemon sends a frame that is too long",
                ));
            }
            if self.pending.len() < FRAME_HEAD + length {
                return Ok(());
            }
            self.pending.advance(FRAME_HEAD);
            let payload = self.pending.split_to(length);
            match stream {
                0 | 1 => {
                    stdout.write_all(&payload)?;
                    stdout.flush()?;
                }
                2 => stderr.write_all(&payload)?,
                // What the daemon itself has to say of the stream.
                _ => {
                    return Err(io::Error::other(
                        String::from_utf8_lossy(&payload).into_owned(),
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together_from_pieces() {
        let mut bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err".to_vec();
        bytes.extend(b"\x01\0\0\0\0\0\0\x01!");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = Output::new(Terminal::No);
        for piece in bytes.chunks(5) {
            output.write_to(piece, &mut stdout, &mut stderr).unwrap();
        }
        assert_eq!(
            (stdout.as_slice(), stderr.as_slice()),
            (&b"out!"[..], &b"err"[..])
        );
        let garbage = output.write_to(b"HTTP/1.1 500", &mut stdout, &mut stderr);
        assert_eq!(garbage.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut terminal = Output::new(Terminal::Yes);
        terminal
            .write_to(b"\x01raw", &mut stdout, &mut stderr)
            .unwrap();
        assert!(stdout.ends_with(b"\x01raw"));
    }
}
