//! A client's SSH agent as a socket on this machine: what a step says to it goes to the client.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::client::Client;
use super::grpc::{Status, decode};
use super::session::Session;
use super::wire::session::BytesMessage;

const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// How many connections to an agent a build may have.
const CONNECTIONS: usize = 32;

/// How much is read at once.
const BUFFER: usize = 32 << 10;

/// A socket that leads to an agent, as long as this is held.
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// Listens for an agent that the client has.
    pub(super) fn listen(
        client: &Client,
        id: &str,
        dir: tempfile::TempDir,
    ) -> Result<Self, Status> {
        let failed = |error| Status::internal(format!("cannot listen for an SSH agent: {error}"));
        let socket = dir.path().join("agent");
        // A listener belongs to the runtime.
        let _inside = client.runtime().enter();
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&socket, mode).map_err(failed)?;
        let session = Arc::clone(client.session());
        let task = client
            .runtime()
            .spawn(accept(listener, session, id.to_owned()));
        Ok(Self {
            socket,
            task,
            _dir: dir,
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, session: Arc<Session>, id: String) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (session, id) = (Arc::clone(&session), id.clone());
        connections.spawn(async move {
            if let Err(error) = forward(stream, &session, &id).await {
                tracing::debug!(%error, "a connection to a client's SSH agent has ended");
            }
            drop(slot);
        });
    }
}

async fn forward(stream: UnixStream, session: &Session, id: &str) -> Result<(), Status> {
    let metadata = [("buildkit.ssh.id".to_owned(), id.to_owned())];
    let (mut out, mut back) = session.call(FORWARD, &metadata).await?.split();
    let (mut read, mut write) = stream.into_split();
    let failed = |error: std::io::Error| Status::internal(error.to_string());
    let to_client = async {
        loop {
            let mut buffer = vec![0; BUFFER];
            let length = read.read(&mut buffer).await.map_err(failed)?;
            if length == 0 {
                return out.close();
            }
            buffer.truncate(length);
            let data = Bytes::from(buffer);
            out.send(&BytesMessage { data }).await?;
        }
    };
    let to_step = async {
        while let Some(bytes) = back.next().await? {
            let message: BytesMessage = decode(bytes)?;
            write.write_all(&message.data).await.map_err(failed)?;
        }
        write.shutdown().await.map_err(failed)
    };
    tokio::try_join!(to_client, to_step).map(|_| ())
}
