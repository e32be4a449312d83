//! Who asks, and what of it is written down: one event of the log for each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::net::{TcpStream, UnixStream};

use crate::scope::Scope;

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this host (unix(7), `SO_PEERCRED`): who it was when it connected.
    Process {
        /// `None` for one that is not in a PID namespace below the daemon's.
        pid: Option<i32>,
        uid: u32,
        gid: u32,
    },
    /// Somebody at an address.
    Address(SocketAddr),
    /// Nobody can say.
    Unknown,
}

impl From<&UnixStream> for Peer {
    fn from(stream: &UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(peer) => Self::Process {
                pid: peer.pid(),
                uid: peer.uid(),
                gid: peer.gid(),
            },
            Err(_) => Self::Unknown,
        }
    }
}

impl From<&TcpStream> for Peer {
    fn from(stream: &TcpStream) -> Self {
        stream.peer_addr().map_or(Self::Unknown, Self::Address)
    }
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) peer: Peer,
    /// What its socket allows; `None` for everything.
    pub(crate) scope: Option<Arc<Scope>>,
}

/// A request that was answered.
pub(crate) struct Answered<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// The pattern of its route.
    pub(crate) route: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) took: Duration,
}

impl Access {
    /// Writes a request down. The query is left out: it can have what nobody else should read.
    pub(crate) fn log(&self, answered: &Answered<'_>) {
        let (pid, uid, gid) = match self.peer {
            Peer::Process { pid, uid, gid } => (pid, Some(uid), Some(gid)),
            Peer::Address(_) | Peer::Unknown => (None, None, None),
        };
        let address = match self.peer {
            Peer::Address(address) => Some(address.to_string()),
            Peer::Process { .. } | Peer::Unknown => None,
        };
        tracing::info!(
            target: "access",
            method = %answered.method,
            path = answered.path,
            route = answered.route,
            status = answered.status.as_u16(),
            microseconds = u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX),
            socket = self.scope.as_deref().map(Scope::name),
            pid,
            uid,
            gid,
            address,
            "request"
        );
    }
}
