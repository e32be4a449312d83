//! Sessions: connections that clients have opened with `POST /session`, over which the daemon asks them
//! for files, secrets, credentials and agents. A session lives as long as its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use h2::{Ping, PingPong};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::grpc::{Code, Exchange, Peer, Status};

const ID: &str = "x-docker-expose-session-uuid";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// How many sessions there may be; a client has one a build.
const MAX_SESSIONS: usize = 256;

/// How long a session is waited for: clients open it beside the call that names it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take to answer a short question: a credential helper may ask its user.
pub(super) const ANSWER: Duration = Duration::from_secs(120);

/// How often a client is asked whether it is still there, and how long it may be silent.
const HEARTBEAT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);

/// What a client says of its session before it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduction {
    id: String,
    /// In lower case, as clients and servers compare them.
    methods: BTreeSet<String>,
}

impl Introduction {
    /// Reads the headers of the request.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(ID).filter(|id| !id.is_empty() && id.len() <= 256);
        let methods = headers.get_all(METHOD).iter();
        Ok(Self {
            id: id.ok_or("the session has no identifier")?.to_owned(),
            methods: methods
                .filter_map(|method| Some(method.to_str().ok()?.to_ascii_lowercase()))
                .collect(),
        })
    }
}

/// A client's session.
pub(crate) struct Session {
    introduction: Introduction,
    peer: Peer,
}

impl Session {
    /// Whether the client serves a method.
    pub(super) fn serves(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        self.introduction.methods.contains(&path)
    }

    /// Begins a call of a method that the client serves.
    pub(super) async fn call(
        &self,
        path: &str,
        metadata: &[(String, String)],
    ) -> Result<Exchange, Status> {
        self.check(path)?;
        self.peer.call(path, metadata).await
    }

    /// Asks a short question.
    pub(super) async fn ask<A: prost::Message + Default>(
        &self,
        path: &str,
        question: &impl prost::Message,
    ) -> Result<A, Status> {
        self.check(path)?;
        let answer = timeout(ANSWER, self.peer.ask(path, question)).await;
        answer.unwrap_or_else(|_| {
            let text = format!("the client does not answer {path}");
            Err(Status::new(Code::DeadlineExceeded, text))
        })
    }

    fn check(&self, path: &str) -> Result<(), Status> {
        if self.serves(path) {
            return Ok(());
        }
        let text = format!("method {path} not supported by the client");
        Err(Status::new(Code::FailedPrecondition, text))
    }
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<String, Arc<Session>>>,
    opened: Notify,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a session can begin.
    pub(crate) fn check(&self, introduction: &Introduction) -> Result<(), String> {
        let open = self.lock();
        if open.contains_key(&introduction.id) {
            return Err(format!("session {} already exists", introduction.id));
        }
        if open.len() >= MAX_SESSIONS {
            return Err(format!("there are {MAX_SESSIONS} sessions already"));
        }
        Ok(())
    }

    /// Keeps a session until its connection ends.
    pub(crate) async fn keep<S>(&self, introduction: Introduction, io: S)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let id = introduction.id.clone();
        let (peer, mut connection) = match Peer::connect(io).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%error, session = id, "a session has not begun");
                return;
            }
        };
        let pings = connection.ping_pong();
        let session = Arc::new(Session { introduction, peer });
        if let Err(error) = self.add(&id, &session) {
            tracing::warn!(error, "a session was refused");
            return;
        }
        let _listed = Listed {
            sessions: self,
            session,
        };
        // Both can be dropped: with this function the session ends.
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, session = id, "a session has been cut off");
            },
            () = silent(pings) => tracing::debug!(session = id, "a client is silent"),
        }
    }

    fn add(&self, id: &str, session: &Arc<Session>) -> Result<(), String> {
        self.check(&session.introduction)?;
        self.lock().insert(id.to_owned(), Arc::clone(session));
        self.opened.notify_waiters();
        Ok(())
    }

    /// A session by its identifier; waits a little for one that is about to begin.
    pub(super) async fn get(&self, id: &str) -> Result<Arc<Session>, Status> {
        // Some clients put a name before the identifier.
        let bare = id.split_once(':').map_or(id, |(_, bare)| bare);
        let find = async {
            loop {
                let mut opened = std::pin::pin!(self.opened.notified());
                opened.as_mut().enable();
                if let Some(session) = self.lock().get(bare) {
                    return Arc::clone(session);
                }
                opened.await;
            }
        };
        timeout(PATIENCE, find)
            .await
            .map_err(|_| Status::new(Code::NotFound, format!("no active session for {id}")))
    }
}

/// Takes a session off the list when it ends.
struct Listed<'a> {
    sessions: &'a Sessions,
    session: Arc<Session>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.session.introduction.id);
    }
}

/// Comes back when the other side does not answer any more.
async fn silent(pings: Option<PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if !matches!(
            timeout(SILENCE, pings.ping(Ping::opaque())).await,
            Ok(Ok(_))
        ) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn introduction_is_read_and_methods_are_compared_in_lower_case() {
        let mut headers = HeaderMap::new();
        assert!(Introduction::read(&headers).is_err());
        headers.insert(ID, HeaderValue::from_static("abc"));
        for method in ["/moby.filesync.v1.FileSync/DiffCopy", "/x.Y/Z"] {
            headers.append(METHOD, HeaderValue::from_static(method));
        }
        let introduction = Introduction::read(&headers).unwrap();
        assert_eq!(introduction.id, "abc");
        assert!(
            introduction
                .methods
                .contains("/moby.filesync.v1.filesync/diffcopy")
        );
    }
}
