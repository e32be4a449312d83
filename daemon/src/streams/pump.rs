//! Passes everything on between a client and a program until the program has ended.

use std::io;
use std::os::fd::OwnedFd;

use engine::{DetachKeys, Session};
use runtime::{ExitStatus, Request};
use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::frame::{Framing, STDERR, STDOUT, frame};
use super::hijack::{Duplex, Input};
use crate::attaches::Attached;
use crate::ready::watched;

/// How much is read at once.
const BUFFER: usize = 32 * 1024;

/// Has the runtime watch a stream of a program: a pipe, or the terminal of an `exec`.
fn open(fd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd).ok()?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).ok()?;
    watched(fd).ok()
}

/// One stream of the program.
struct Source {
    /// `None` at its end.
    fd: Option<AsyncFd<OwnedFd>>,
    stream: u8,
}

impl Source {
    fn new(fd: Option<OwnedFd>, stream: u8) -> Self {
        let fd = fd.and_then(open);
        Self { fd, stream }
    }

    /// Waits until there is something; for ever when it has ended.
    async fn ready(&self) {
        let ended = match &self.fd {
            Some(fd) => fd.readable().await.is_err(),
            None => true,
        };
        if ended {
            std::future::pending::<()>().await;
        }
    }

    /// Takes what there is now; `None` when that is nothing.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Option<usize> {
        buffer.resize(BUFFER, 0);
        let read = self.fd.as_ref()?.try_io(Interest::READABLE, |fd| {
            Ok(rustix::io::read(fd, &mut buffer[..])?)
        });
        match read {
            Ok(0) => {
                self.fd = None;
                None
            }
            Ok(length) => Some(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // A terminal that nobody has open any more.
            Err(_) => {
                self.fd = None;
                None
            }
        }
    }
}

/// A conversation with a monitor that is waited for.
struct Conversation {
    session: Session,
    ready: AsyncFd<OwnedFd>,
}

impl Conversation {
    fn new(session: Session) -> io::Result<Self> {
        let ready = watched(session.as_fd().try_clone_to_owned()?)?;
        Ok(Self { session, ready })
    }

    /// How the program has ended; `None` when nobody can tell.
    async fn end(&self) -> Option<ExitStatus> {
        loop {
            let mut guard = self.ready.readable().await.ok()?;
            if !is_readable(&self.session) {
                guard.clear_ready();
                continue;
            }
            if let Some(status) = self.session.next_exit().ok()? {
                return Some(status);
            }
        }
    }
}

/// A message is there, or the end.
fn is_readable(session: &Session) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Waits for the end of a program that nobody is attached to.
pub(crate) async fn watch_end(session: Session) -> Option<ExitStatus> {
    Conversation::new(session).ok()?.end().await
}

/// Sizes for a terminal, as rows and columns.
pub(crate) type Sizes = mpsc::Receiver<(u16, u16)>;

/// How a program's streams are passed on.
pub(crate) struct Passing {
    pub(crate) framing: Framing,
    pub(crate) sizes: Sizes,
    /// The keys that leave its terminal.
    pub(crate) keys: Option<DetachKeys>,
}

/// Passes everything on. `ended` is told how the program has ended, before the client sees the end
/// of its stream, or when that client has left before.
pub(crate) async fn pump(
    duplex: Duplex,
    attached: Attached,
    passing: Passing,
    ended: impl FnOnce(Option<ExitStatus>) + Send,
) {
    let Passing {
        framing,
        mut sizes,
        keys,
    } = passing;
    let Duplex { input, mut output } = duplex;
    let (over, is_over) = oneshot::channel();
    let (leave, mut has_left) = oneshot::channel();
    let stdin = attached.streams.stdin;
    let feeding = tokio::spawn(feed(input, stdin, keys, leave, is_over));
    let mut sources = [
        Source::new(attached.streams.stdout, STDOUT),
        Source::new(attached.streams.stderr, STDERR),
    ];
    let Ok(mut conversation) = Conversation::new(attached.session) else {
        ended(None);
        return;
    };
    let mut buffer = Vec::new();
    let mut exit = None;
    // Until the client's input ends.
    let mut may_leave = true;
    'pass: while exit.is_none() {
        let [out, err] = &sources;
        // Each branch only waits: nothing is lost when it is dropped.
        tokio::select! {
            () = out.ready() => {}
            () = err.ready() => {}
            status = conversation.end() => exit = Some(status),
            left = &mut has_left, if may_leave => {
                may_leave = false;
                if left.is_ok() {
                    // The program keeps its input.
                    drop(conversation.session.tell(&Request::Detach));
                    output.close().await;
                    drop(sources);
                    ended(conversation.end().await);
                    return;
                }
            }
            Some((rows, columns)) = sizes.recv() => {
                // A program that is ending takes no more sizes.
                drop(conversation.session.tell(&Request::Resize { rows, columns }));
            }
        }
        for source in &mut sources {
            // After the end, everything that was written is in the pipes.
            while let Some(length) = source.take(&mut buffer) {
                let bytes = buffer.get(..length).unwrap_or_default();
                if output
                    .send(frame(framing, source.stream, bytes))
                    .await
                    .is_err()
                {
                    // The program goes on without this client.
                    break 'pass;
                }
                if exit.is_none() {
                    break;
                }
            }
        }
        // Nobody can tell: the monitor was killed, and the container goes on under another one.
        if let (Some(None), Some(again)) = (&exit, &attached.again)
            && let Some(next) = again.join().await
            && let Ok(next_conversation) = Conversation::new(next.session)
        {
            conversation = next_conversation;
            sources = [
                Source::new(next.streams.stdout, STDOUT),
                Source::new(next.streams.stderr, STDERR),
            ];
            exit = None;
        }
    }
    match exit {
        Some(status) => ended(status),
        None => {
            drop(sources);
            ended(conversation.end().await);
        }
    }
    drop(over);
    if let Ok(input) = feeding.await {
        Duplex { input, output }.end().await;
    }
}

/// Passes on what the client sends, and gives back its side when all is over. Its end is the end of
/// the program's input.
async fn feed(
    mut input: Input,
    stdin: Option<OwnedFd>,
    mut keys: Option<DetachKeys>,
    leave: oneshot::Sender<()>,
    mut is_over: oneshot::Receiver<()>,
) -> Input {
    let mut target = stdin.and_then(open);
    loop {
        // What is lost by dropping a branch is meant for a program that has ended.
        let bytes = tokio::select! {
            bytes = input.next() => bytes,
            _ = &mut is_over => return input,
        };
        let Some(bytes) = bytes else { break };
        let mut bytes = Vec::from(bytes);
        let left = keys.as_mut().is_some_and(|keys| keys.scan(&mut bytes));
        if let Some(fd) = &target {
            let written = tokio::select! {
                written = write_all(fd, &bytes) => written,
                _ = &mut is_over => return input,
            };
            if written.is_err() {
                target = None;
            }
        }
        if left {
            // Nobody is told any more when the program has just ended.
            let _told = leave.send(());
            return input;
        }
    }
    input
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = fd.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?));
        bytes = bytes.get(written.await?..).unwrap_or_default();
    }
    Ok(())
}
