//! Where the daemon listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::Mode;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Owner and group.
const SOCKET_MODE: u32 = 0o660;

/// How many connections wait until they are taken; the system has a lower bound of its own.
const BACKLOG: i32 = 4096;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port.
    Tcp(SocketAddr),
    /// Sockets that were inherited: all of them, or those with this name.
    Inherited(Option<String>),
}

/// A socket that this program was started with (sd_listen_fds(3)).
#[derive(Debug)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
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
    /// Everyone who reaches it would be root here.
    #[error("cannot listen at `{0}` without TLS: whoever reaches it has all of this host")]
    Insecure(String),
    /// Nothing was inherited under this name.
    #[error("cannot listen at `{0}`: no such socket was inherited")]
    NotInherited(Host),
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
            Self::Inherited(name) => write!(f, "fd://{}", name.as_deref().unwrap_or_default()),
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
        if let Some(name) = text.strip_prefix("fd://") {
            // `*` is what Docker's own unit had once.
            let is_all = ["", "*"].contains(&name);
            return Ok(Self::Inherited((!is_all).then(|| name.to_owned())));
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return Err(bad(
                "there are unix://PATH, tcp://ADDRESS:PORT and fd://[NAME]",
            ));
        };
        let address = address.replace("localhost:", "127.0.0.1:");
        let address = address.parse();
        address
            .map(Self::Tcp)
            .map_err(|_| bad("it is no address with a port, such as 127.0.0.1:2375"))
    }
}

/// A socket that takes connections.
#[derive(Debug)]
pub(crate) enum Listener {
    /// With the path that is removed at the end, where it is ours.
    Unix(UnixListener, Option<PathBuf>),
    Tcp(std::net::TcpListener),
}

/// Whether ports other than those of loopback addresses may be served without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainTcp {
    /// They are refused.
    #[default]
    Loopback,
    /// Whoever started the daemon wants it so.
    Anywhere,
}

impl Host {
    /// Begins to listen. Inherited sockets are taken out of the list.
    pub(crate) fn listen(
        &self,
        inherited: &mut Vec<Inherited>,
    ) -> Result<Vec<Listener>, ListenError> {
        let failed = |source| ListenError::Bind {
            host: self.clone(),
            source,
        };
        match self {
            Self::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                Ok(vec![Listener::Tcp(listener)])
            }
            Self::Unix(path) => Ok(vec![Listener::Unix(
                unix(path).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => ListenError::InUse(self.clone()),
                    _ => failed(source),
                })?,
                Some(path.clone()),
            )]),
            Self::Inherited(name) => {
                let is_meant =
                    |one: &mut Inherited| name.as_ref().is_none_or(|name| one.name == *name);
                let taken: Vec<Inherited> = inherited.extract_if(.., is_meant).collect();
                if taken.is_empty() {
                    return Err(ListenError::NotInherited(self.clone()));
                }
                let sockets = taken.into_iter().map(|one| adopt(one.socket));
                sockets.collect::<io::Result<_>>().map_err(failed)
            }
        }
    }
}

/// What an inherited socket is.
fn adopt(socket: OwnedFd) -> io::Result<Listener> {
    let not = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    if !socket_acceptconn(socket.as_fd())? {
        return Err(not("it takes no connections"));
    }
    let domain = socket_domain(socket.as_fd())?;
    if domain == AddressFamily::UNIX {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        return Ok(Listener::Unix(listener, None));
    }
    if domain == AddressFamily::INET || domain == AddressFamily::INET6 {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        return Ok(Listener::Tcp(listener));
    }
    Err(not("it is neither a unix nor a TCP socket"))
}

/// Listens at a path, for owner and group. What a daemon left there that was killed is replaced.
pub(crate) fn unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The mode of the socket becomes that of its file (`unix_bind` in Linux' net/unix/af_unix.c), less
    // the mask: nobody else can connect before the file has its own.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(host: &Host) -> Result<Vec<Listener>, ListenError> {
        host.listen(&mut Vec::new())
    }

    #[test]
    fn hosts_are_read() {
        for good in [
            "unix:///run/k.sock",
            "tcp://127.0.0.1:2375",
            "tcp://[::]:2376",
            "fd://",
            "fd://ketch.socket",
        ] {
            assert_eq!(good.parse::<Host>().unwrap().to_string(), good);
        }
        assert_eq!("fd://*".parse::<Host>().unwrap(), Host::Inherited(None));
        assert!("tcp://localhost:2375".parse::<Host>().is_ok());
        for bad in ["/run/x", "unix://x", "tcp://a", "http://a"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn socket_is_for_owner_and_group_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::Unix(dir.path().join("sub/k.sock"));
        let listener = listen(&host).unwrap();
        let path = dir.path().join("sub/k.sock");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        assert!(matches!(listen(&host), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(path.exists());
        listen(&host).unwrap();
    }

    #[test]
    fn inherited_sockets_go_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let unix = unix(&dir.path().join("a.sock")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let one = |name: &str, socket: OwnedFd| Inherited {
            name: name.to_owned(),
            socket,
        };
        let mut all = vec![
            one("u", unix.into()),
            one("t", tcp.into()),
            one("f", file.into()),
        ];
        let named = |name: &str| Host::Inherited(Some(name.to_owned()));
        let found = named("t").listen(&mut all).unwrap();
        assert!(matches!(found.as_slice(), [Listener::Tcp(_)]));
        let again = named("t").listen(&mut all);
        assert!(matches!(again, Err(ListenError::NotInherited(_))));
        assert!(matches!(
            named("f").listen(&mut all),
            Err(ListenError::Bind { .. })
        ));
        let rest = Host::Inherited(None).listen(&mut all).unwrap();
        assert!(matches!(rest.as_slice(), [Listener::Unix(_, None)]));
    }
}
