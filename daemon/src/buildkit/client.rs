//! What a build asks of the client's session: from the thread of the build, which blocks.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::board::{Ended, Step};
use super::grpc::{Code, Exchange, Status, decode};
use super::receive::{Next, ReceiveError, Receiver};
use super::session::Session;
use super::wire::files::{Packet, kind};
use super::wire::session::{
    BytesMessage, CheckAgentRequest, CredentialsRequest, CredentialsResponse, GetSecretRequest,
    GetSecretResponse,
};

const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
pub(super) const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const PULL: &str = "/moby.upload.v1.Upload/Pull";

/// How much goes into one message to the client, which takes 4 MiB.
const PIECE: usize = 1 << 20;

/// The transfer of a context is told after so many bytes.
const PART: u64 = 256 << 10;

/// The largest secret, as in BuildKit.
const MAX_SECRET: usize = 500 << 10;

/// Tells a build to end.
#[derive(Debug, Default)]
pub(super) struct Stop {
    flag: AtomicBool,
    set: Notify,
}

impl Stop {
    pub(super) fn stop(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.set.notify_waiters();
    }

    /// For the builder, which looks.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    pub(super) fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    async fn wait(&self) {
        let mut set = std::pin::pin!(self.set.notified());
        set.as_mut().enable();
        if !self.is_set() {
            set.await;
        }
    }
}

/// Which files of a directory of the client are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Patterns of what is left out.
    pub(super) exclude: Vec<String>,
    /// These, with what their links lead to, and nothing else.
    pub(super) follow: Vec<String>,
}

/// A client, as a build sees it.
#[derive(Clone)]
pub(super) struct Client {
    session: Arc<Session>,
    runtime: Handle,
    stop: Arc<Stop>,
}

impl Client {
    pub(super) fn new(session: Arc<Session>, stop: &Arc<Stop>) -> Self {
        Self {
            session,
            runtime: Handle::current(),
            stop: Arc::clone(stop),
        }
    }

    /// The same client by another of its sessions.
    pub(super) fn with(&self, session: Arc<Session>) -> Self {
        Self {
            session,
            ..self.clone()
        }
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Waits for something, or for the end of the build.
    pub(super) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(async {
            tokio::select! {
                result = work => result,
                () = self.stop.wait() => Err(Status::new(Code::Cancelled, "the build was stopped")),
            }
        })
    }

    /// Takes files of the client's directory `name` into an empty directory.
    pub(super) fn receive(
        &self,
        name: &str,
        wanted: &Wanted,
        dir: &Path,
        step: &Step,
    ) -> Result<(), Status> {
        let mut metadata = vec![("dir-name".to_owned(), name.to_owned())];
        add_values(&mut metadata, "exclude-patterns", &wanted.exclude);
        add_values(&mut metadata, "followpaths", &wanted.follow);
        let mut receiver =
            Receiver::new(dir).map_err(|error| failed("open a directory for files", &error))?;
        let mut exchange = self.wait(self.session.call(DIFF_COPY, &metadata))?;
        let part = format!("transferring {name}:");
        let mut told = 0;
        loop {
            let bytes = self.wait(exchange.next())?;
            let bytes = bytes.ok_or_else(|| Status::internal("the client sent too few files"))?;
            let packet: Packet = decode(bytes)?;
            let next = receiver.take(packet);
            let next = match next {
                Ok(next) => next,
                Err(error) => return Err(self.refuse(&mut exchange, &error)),
            };
            for reply in receiver.replies() {
                self.wait(exchange.send(&reply))?;
            }
            if receiver.bytes() >= told + PART {
                told = receiver.bytes();
                step.part(&part, told, 0, Ended::No);
            }
            if next == Next::Nothing {
                break;
            }
        }
        // The tree is complete, however the client ends the call.
        drop(exchange.close());
        step.part(&part, receiver.bytes(), receiver.bytes(), Ended::Yes);
        if receiver.left_out > 0 {
            step.warn(&format!(
                "{} devices, pipes and sockets of `{name}` are left out",
                receiver.left_out
            ));
        }
        Ok(())
    }

    /// Tells the client why its files are not taken.
    fn refuse(&self, exchange: &mut Exchange, error: &ReceiveError) -> Status {
        let text = crate::error::chain(error);
        if !matches!(error, ReceiveError::Client(_)) {
            let packet = Packet {
                kind: kind::ERROR,
                data: Bytes::copy_from_slice(text.as_bytes()),
                ..Packet::default()
            };
            // It hears it from the build's status too.
            drop(self.wait(exchange.send(&packet)));
        }
        Status::new(Code::FailedPrecondition, text)
    }

    /// A secret; `None` when the client has none of this name.
    pub(super) fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Status> {
        if !self.session.serves(SECRET) {
            return Ok(None);
        }
        let question = GetSecretRequest { id: id.to_owned() };
        let answer = self.session.ask::<GetSecretResponse>(SECRET, &question);
        match self.wait(answer) {
            Ok(answer) if answer.data.len() > MAX_SECRET => Err(Status::invalid(format!(
                "the secret `{id}` is larger than {MAX_SECRET} bytes"
            ))),
            Ok(answer) => Ok(Some(answer.data)),
            Err(status) if status.code == Code::NotFound => Ok(None),
            // Clients that were given no secrets have the method all the same.
            Err(status) if status.message.contains("not found") => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Name and password for a registry; `None` when the client has none.
    pub(super) fn credentials(&self, host: &str) -> Result<Option<(String, String)>, Status> {
        if !self.session.serves(CREDENTIALS) {
            return Ok(None);
        }
        // What Docker's own registry is called towards clients.
        let host = match host {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let question = CredentialsRequest {
            host: host.to_owned(),
        };
        let answer: CredentialsResponse = self.wait(self.session.ask(CREDENTIALS, &question))?;
        Ok((!answer.secret.is_empty()).then_some((answer.username, answer.secret)))
    }

    /// Whether the client has an SSH agent of this name.
    pub(super) fn has_agent(&self, id: &str) -> bool {
        let question = CheckAgentRequest { id: id.to_owned() };
        let answer = self
            .session
            .ask::<super::wire::gateway::Nothing>(CHECK_AGENT, &question);
        self.wait(answer).is_ok()
    }

    /// An archive that the client sends: `http://buildkit-session/<path>`.
    pub(super) fn upload(&self, path: &str) -> Result<impl Read + use<>, Status> {
        let metadata = [
            ("urlpath".to_owned(), path.to_owned()),
            ("urlhost".to_owned(), "buildkit-session".to_owned()),
        ];
        let mut exchange = self.wait(self.session.call(PULL, &metadata))?;
        drop(exchange.close());
        Ok(Upload {
            client: self.clone(),
            exchange,
            current: Bytes::new(),
        })
    }

    /// Writes a file for the client: the result of exporter number `exporter`.
    pub(super) fn file(
        &self,
        exporter: usize,
        about: &[(String, String)],
    ) -> Result<FileSink, Status> {
        let mut metadata = vec![(
            "buildkit-attachable-exporter-id".to_owned(),
            exporter.to_string(),
        )];
        metadata.extend(
            about
                .iter()
                .map(|(name, value)| (format!("exporter-md-{name}"), value.clone())),
        );
        let exchange = self.wait(self.session.call(FILE_SEND, &metadata))?;
        Ok(FileSink {
            client: self.clone(),
            exchange,
            buffer: Vec::with_capacity(PIECE),
            failure: None,
        })
    }
}

fn failed(what: &str, error: &io::Error) -> Status {
    Status::internal(format!("cannot {what}: {error}"))
}

/// Adds values to metadata. With one that is not ASCII all are encoded, and that is told.
fn add_values(metadata: &mut Vec<(String, String)>, name: &str, values: &[String]) {
    let is_plain = values
        .iter()
        .all(|value| value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    for value in values {
        let value = match is_plain {
            true => value.clone(),
            false => encoded(value),
        };
        metadata.push((name.to_owned(), value));
    }
    if !is_plain {
        metadata.push((format!("{name}-encoded"), "1".to_owned()));
    }
}

/// As in a query.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads what a client uploads.
struct Upload {
    client: Client,
    exchange: Exchange,
    current: Bytes,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let next = self.client.wait(self.exchange.next());
            let Some(bytes) = next.map_err(io::Error::other)? else {
                return Ok(0);
            };
            let message: BytesMessage = decode(bytes).map_err(io::Error::other)?;
            self.current = message.data;
        }
        let length = self.current.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..length) {
            self.current.copy_to_slice(target);
        }
        Ok(length)
    }
}

/// A file that the client writes.
pub(super) struct FileSink {
    client: Client,
    exchange: Exchange,
    buffer: Vec<u8>,
    failure: Option<Status>,
}

impl FileSink {
    /// Sends the rest; comes back when the client has written it.
    pub(super) fn finish(mut self) -> Result<(), Status> {
        self.send()?;
        // Whether it could be closed is in what comes back.
        drop(self.exchange.close());
        while self.client.wait(self.exchange.next())?.is_some() {}
        Ok(())
    }

    /// Why writing failed, in the client's words.
    pub(super) fn failure(&self) -> Option<&Status> {
        self.failure.as_ref()
    }

    fn send(&mut self) -> Result<(), Status> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let message = BytesMessage {
            data: Bytes::from(std::mem::take(&mut self.buffer)),
        };
        self.client.wait(self.exchange.send(&message))
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.buffer.len()).max(1);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE
            && let Err(status) = self.send()
        {
            self.failure = Some(status.clone());
            return Err(io::Error::other(status));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_ascii_are_encoded_and_told() {
        let mut metadata = Vec::new();
        add_values(&mut metadata, "a", &["*.log".to_owned(), "x y".to_owned()]);
        assert_eq!(metadata.len(), 2);
        assert_eq!(metadata[1], ("a".to_owned(), "x y".to_owned()));
        let mut metadata = Vec::new();
        add_values(&mut metadata, "a", &["ö+ *".to_owned()]);
        assert_eq!(
            metadata,
            [
                ("a".to_owned(), "%C3%B6%2B%20%2A".to_owned()),
                ("a-encoded".to_owned(), "1".to_owned())
            ]
        );
    }
}
