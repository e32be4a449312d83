//! Where a daemon is, and connections to it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::render::Usage;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The ports of Docker's API without and with TLS.
const PORTS: [u16; 2] = [2375, 2376];

/// What the other side of ssh runs: its ketch, or docker where there is none.
const DIAL: &str = "if command -v ketch >/dev/null 2>&1; then exec ketch system dial-stdio; else exec docker system dial-stdio; fi";

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to a daemon.
pub(crate) type Connection = Box<dyn Stream>;

/// Where a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of a host.
    Tcp { host: String, port: Option<u16> },
    /// A host where somebody may log in.
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// The daemon's socket there.
        path: Option<String>,
    },
}

/// Whether a word stands for the engine of this program itself.
pub(crate) fn is_local(text: &str) -> bool {
    ["", "local", "default"].contains(&text)
}

impl FromStr for Endpoint {
    type Err = Usage;

    fn from_str(text: &str) -> Result<Self, Usage> {
        let bad = |why: &str| Usage(format!("cannot use the host `{text}`: {why}"));
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return match path.is_absolute() {
                true => Ok(Self::Unix(path)),
                false => Err(bad("the socket's path must be absolute")),
            };
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, port) =
                address(rest.trim_end_matches('/')).ok_or_else(|| bad("it is no HOST:PORT"))?;
            return Ok(Self::Tcp { host, port });
        }
        let Some(rest) = text.strip_prefix("ssh://") else {
            return Err(bad(
                "there are unix://PATH, tcp://HOST:PORT and ssh://[USER@]HOST[:PORT][/PATH]",
            ));
        };
        let (place, path) = match rest.find('/') {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at..)),
            None => (rest, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        let (host, port) = address(place).ok_or_else(|| bad("it is no [USER@]HOST[:PORT]"))?;
        // ssh would take it for an option.
        let is_option = |word: &str| word.starts_with('-') || word.is_empty();
        if is_option(&host) || user.as_deref().is_some_and(is_option) {
            return Err(bad("neither user nor host begin with `-`"));
        }
        let path = path.filter(|path| *path != "/").map(str::to_owned);
        Ok(Self::Ssh {
            user,
            host,
            port,
            path,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let with_port =
            |port: &Option<u16>| port.map(|port| format!(":{port}")).unwrap_or_default();
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}{}", bracketed(host), with_port(port)),
            Self::Ssh {
                user,
                host,
                port,
                path,
            } => {
                let user = user
                    .as_ref()
                    .map(|user| format!("{user}@"))
                    .unwrap_or_default();
                let path = path.as_deref().unwrap_or_default();
                write!(
                    f,
                    "ssh://{user}{}{}{path}",
                    bracketed(host),
                    with_port(port)
                )
            }
        }
    }
}

/// `HOST[:PORT]`, an IPv6 address in brackets.
fn address(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (
                host,
                rest.strip_prefix(':').or(rest.is_empty().then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port? {
        "" => None,
        text => Some(text.parse().ok()?),
    };
    (!host.is_empty() && !host.contains(['/', ' '])).then(|| (host.to_owned(), port))
}

/// A directory with `ca.pem`, `cert.pem` and `key.pem`, as docker keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) dir: PathBuf,
}

impl TlsFiles {
    /// What connections are made with.
    pub(crate) fn connector(&self) -> anyhow::Result<TlsConnector> {
        let file = |name: &str| self.dir.join(name);
        let read = |path: &Path| {
            let found = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            match found.is_empty() {
                true => anyhow::bail!("`{}` has no certificate", path.display()),
                false => Ok(found),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in read(&file("ca.pem"))? {
            roots
                .add(certificate)
                .with_context(|| format!("cannot use `{}`", file("ca.pem").display()))?;
        }
        let key = file("key.pem");
        let key = PrivateKeyDer::from_pem_file(&key)
            .with_context(|| format!("cannot read `{}`", key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot use TLS")?
            .with_root_certificates(roots)
            .with_client_auth_cert(read(&file("cert.pem"))?, key)
            .with_context(|| format!("cannot use the certificate in `{}`", self.dir.display()))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Endpoint {
    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, .. } if !host.contains(':') => host.clone(),
            _ => "docker".to_owned(),
        }
    }

    /// Connects.
    pub(crate) async fn connect(&self, tls: Option<&TlsConnector>) -> anyhow::Result<Connection> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open(tls)).await;
        let connected =
            connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        connected.with_context(|| format!("cannot connect to the daemon at {self}"))
    }

    async fn open(&self, tls: Option<&TlsConnector>) -> anyhow::Result<Connection> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port } => {
                let [plain, secure] = PORTS;
                let port = port.unwrap_or(if tls.is_some() { secure } else { plain });
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = tls else {
                    return Ok(Box::new(stream));
                };
                let name = ServerName::try_from(host.clone())?;
                Ok(Box::new(tls.connect(name, stream).await?))
            }
            Self::Ssh {
                user,
                host,
                port,
                path,
            } => {
                let mut command = Command::new("ssh");
                command.args(["-T", "-o", "ConnectTimeout=30"]);
                if let Some(user) = user {
                    command.args(["-l", user]);
                }
                if let Some(port) = port {
                    command.args(["-p", &port.to_string()]);
                }
                command.args(["--", host, &dial(path.as_deref())]);
                Ok(Box::new(spawned(command)?))
            }
        }
    }
}

/// The command at the other side of ssh.
fn dial(path: Option<&str>) -> String {
    match path {
        None => DIAL.to_owned(),
        Some(path) => {
            let quoted = format!("'unix://{}'", path.replace('\'', "'\\''"));
            DIAL.replace("ketch system", &format!("ketch --host {quoted} system"))
                .replace("docker system", &format!("docker --host {quoted} system"))
        }
    }
}

/// A program whose standard input and output are the connection. Signals of the terminal are this
/// program's affair, so it gets a process group of its own.
fn spawned(mut command: Command) -> io::Result<UnixStream> {
    let (own, other) = Socket::pair()?;
    let input = OwnedFd::from(other);
    let output = input.try_clone()?;
    let mut child = command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .process_group(0)
        .spawn()?;
    drop(command);
    // It ends with its connection; who waits for it is nobody's hurry.
    std::thread::spawn(move || drop(child.wait()));
    own.set_nonblocking(true)?;
    UnixStream::from_std(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_spelled_again() {
        for text in [
            "unix:///run/k.sock",
            "tcp://a.example:2376",
            "tcp://[::1]:1",
            "ssh://ann@h:22",
            "ssh://h/run/k.sock",
            "ssh://ann@[fe80::1]",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for bad in [
            "unix://x",
            "tcp://",
            "tcp://a:b",
            "ssh://-oProxyCommand=x",
            "ssh://-x@h",
            "ssh://@h",
            "http://a",
            "/run/x",
            "tcp://[::1",
            "tcp://[::1]x",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn path_at_the_other_side_is_one_word_there() {
        let text = dial(Some("/a'b"));
        assert!(
            text.contains(r"ketch --host 'unix:///a'\''b' system dial-stdio"),
            "{text}"
        );
        assert!(
            text.contains(r"docker --host 'unix:///a'\''b' system dial-stdio"),
            "{text}"
        );
        assert!(dial(None).contains("exec ketch system dial-stdio"));
    }
}
