//! Where the daemon listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::Mode;

/// Owner and group.
const SOCKET_MODE: u32 = 0o660;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of a loopback address.
    Tcp(SocketAddr),
}

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Not an address.
    #[error("cannot listen at `{host}`: {why}")]
    Bad {
        /// The text.
        host: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Somebody listens there.
    #[error("cannot listen at `{0}`: another program listens there")]
    InUse(Host),
    /// The system refuses.
    #[error("cannot listen at `{host}`")]
    Bind {
        /// The address.
        host: Host,
        /// The cause.
        source: io::Error,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl FromStr for Host {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let bad = |why| ListenError::Bad {
            host: text.to_owned(),
            why,
        };
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err(bad("the socket's path must be absolute")),
            };
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(bad("there are unix://PATH and tcp://ADDRESS:PORT"));
        };
        let address = address.replace("localhost:", "127.0.0.1:");
        let address: SocketAddr = address
            .parse()
            .map_err(|_| bad("it is no address with a port, such as 127.0.0.1:2375"))?;
        // Whoever reaches the port is root here.
        if !address.ip().is_loopback() {
            return Err(bad(
                "without TLS, which is not built yet, only loopback addresses are served",
            ));
        }
        Ok(Self::Tcp(address))
    }
}

/// A socket that takes connections.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(std::net::TcpListener),
}

impl Host {
    /// Begins to listen. Called before there are threads: the mask of new files is the process's.
    pub(crate) fn listen(&self) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Bind {
            host: self.clone(),
            source,
        };
        match self {
            Self::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(Listener::Tcp(listener))
            }
            Self::Unix(path) => {
                if UnixStream::connect(path).is_ok() {
                    return Err(ListenError::InUse(self.clone()));
                }
                // What a daemon left that was killed.
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).map_err(failed)?;
                }
                // Nobody else can connect before the mode is set.
                let before = rustix::process::umask(Mode::from_raw_mode(0o777 & !SOCKET_MODE));
                let bound = UnixListener::bind(path);
                rustix::process::umask(before);
                let listener = bound.map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(Listener::Unix(listener, path.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn hosts_are_read_and_open_ports_refused() {
        let host: Host = "unix:///run/k.sock".parse().unwrap();
        assert_eq!(host.to_string(), "unix:///run/k.sock");
        assert!("tcp://localhost:2375".parse::<Host>().is_ok());
        for bad in [
            "/run/x",
            "unix://x",
            "tcp://0.0.0.0:2375",
            "tcp://a",
            "fd://",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn socket_is_for_owner_and_group_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::Unix(dir.path().join("sub/k.sock"));
        let listener = host.listen().unwrap();
        let path = dir.path().join("sub/k.sock");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(host.listen(), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(path.exists());
        host.listen().unwrap();
    }
}
