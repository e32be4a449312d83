//! The daemon's start and end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::blocking::THREADS;
use crate::connections::{Door, accept_all};
use crate::daemon::{Daemon, Options};
use crate::listen::{Host, Inherited, ListenError, Listener, PlainTcp};
use crate::ready::watched;
use crate::rescue;
use crate::scope::{PolicyError, Sockets};
use crate::scrape;
use crate::tls::{TlsError, TlsFiles};

/// How long requests may go on when the daemon ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// SIGINT and SIGTERM.
const END_SIGNALS: [i32; 2] = [2, 15];

/// Where the daemon listens.
#[derive(Debug)]
pub struct Listening {
    /// The addresses of the whole API.
    pub hosts: Vec<Host>,
    /// What this program was started with.
    pub inherited: Vec<Inherited>,
    /// The certificates of TCP addresses.
    pub tls: Option<TlsFiles>,
    /// Which addresses are served without.
    pub plain_tcp: PlainTcp,
    /// Where Prometheus finds its numbers.
    pub metrics: Option<SocketAddr>,
}

/// Why the daemon has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The policies of its sockets cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Nobody can ask for its numbers.
    #[error("cannot serve metrics at {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The engine refuses something.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The system refuses something.
    #[error("cannot {what}")]
    Io {
        /// What.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Sockets that listen, and what is between them and the API.
struct Bound {
    listeners: Vec<Listener>,
    /// As they turned out.
    addresses: Vec<String>,
    tls: Option<TlsAcceptor>,
    metrics: Option<std::net::TcpListener>,
    sockets: Sockets,
}

impl Bound {
    fn new(mut listening: Listening, engine: &Engine) -> Result<Self, ServeError> {
        let tls = listening.tls.as_ref().map(TlsFiles::acceptor).transpose()?;
        let mut listeners = Vec::new();
        for host in &listening.hosts {
            if let Host::Tcp(address) = host {
                refuse_open(*address, tls.as_ref(), listening.plain_tcp)?;
            }
            listeners.extend(host.listen(&mut listening.inherited)?);
        }
        let (mut full, mut addresses) = (Vec::new(), Vec::new());
        for listener in &listeners {
            match listener {
                Listener::Unix(listener, path) => {
                    let own = listener.local_addr().ok();
                    let bound = own.as_ref().and_then(|own| own.as_pathname());
                    full.extend(path.clone().or(bound.map(Path::to_path_buf)));
                    let shown = full.last().map(|path| path.display().to_string());
                    addresses.push(format!("unix://{}", shown.unwrap_or_default()));
                }
                // An inherited one says only now what it is.
                Listener::Tcp(listener) => {
                    let address = local_address(listener)?;
                    refuse_open(address, tls.as_ref(), listening.plain_tcp)?;
                    addresses.push(format!("tcp://{address}"));
                }
            }
        }
        let metrics = listening.metrics.map(listen_for_metrics).transpose()?;
        if let Some(listener) = &metrics {
            addresses.push(format!("http://{}/metrics", local_address(listener)?));
        }
        Ok(Self {
            listeners,
            addresses,
            tls,
            metrics,
            sockets: Sockets::open(engine, &full)?,
        })
    }
}

fn local_address(listener: &std::net::TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Io {
        what: "ask for the address of a socket",
        source,
    })
}

fn listen_for_metrics(address: SocketAddr) -> Result<std::net::TcpListener, ServeError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| ServeError::Metrics { address, source })
}

/// Whoever reaches a port without TLS has all of the host.
fn refuse_open(
    address: SocketAddr,
    tls: Option<&TlsAcceptor>,
    plain_tcp: PlainTcp,
) -> Result<(), ListenError> {
    if tls.is_some() {
        return Ok(());
    }
    if !address.ip().is_loopback() && plain_tcp == PlainTcp::Loopback {
        return Err(ListenError::Insecure(format!("tcp://{address}")));
    }
    let reach = match address.ip().is_loopback() {
        true => "every user and every program of this host",
        false => "everyone who reaches it",
    };
    tracing::warn!(%address, "no TLS: {reach} has all of this host through this port");
    Ok(())
}

/// Serves the API until SIGINT or SIGTERM. Containers go on after that. `ready` is called with
/// the addresses when clients can connect.
///
/// # Errors
/// When it cannot listen somewhere.
pub fn serve(
    engine: Engine,
    listening: Listening,
    options: Options,
    ready: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    let failed = |what| move |source| ServeError::Io { what, source };
    let bound = Bound::new(listening, &engine)?;
    let signals = sys::signals::signal_fd(&END_SIGNALS).map_err(failed("take signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .map_err(failed("start the runtime"))?;
    let daemon = Arc::new(Daemon::new(engine, options));
    let events = Arc::clone(&daemon);
    let reader = std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || events.hub.read(&events.engine))
        .map_err(failed("start a thread"))?;
    let served = runtime.block_on(run(&daemon, bound, &signals, ready));
    daemon.hub.end();
    // What blocks still is a follower of a client that is gone; it ends by itself.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let joined = reader.join();
    served.map_err(failed("serve"))?;
    joined.map_err(|_| failed("read events")(io::ErrorKind::Other.into()))
}

async fn run(
    daemon: &Arc<Daemon>,
    bound: Bound,
    signals: &impl AsFd,
    ready: impl FnOnce(&[String]),
) -> io::Result<()> {
    let signals = watched(signals.as_fd().try_clone_to_owned()?)?;
    let (end, ended) = watch::channel(());
    let mut accepting = JoinSet::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    let door = |tls| Door {
        daemon: Arc::clone(daemon),
        scope: None,
        tls,
    };
    for listener in bound.listeners {
        match listener {
            Listener::Unix(listener, path) => {
                paths.extend(path);
                let listener = UnixListener::from_std(listener)?;
                accepting.spawn(accept_all(door(None), listener, ended.clone()));
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                accepting.spawn(accept_all(door(bound.tls.clone()), listener, ended.clone()));
            }
        }
    }
    accepting.spawn(rescue::watch(Arc::clone(daemon), ended.clone()));
    if let Some(listener) = bound.metrics {
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn(scrape::serve(Arc::clone(daemon), listener, ended.clone()));
    }
    let serving = bound.sockets.serve(Arc::clone(daemon), ended.clone())?;
    accepting.spawn(serving);
    ready(&bound.addresses);
    signals.readable().await?.retain_ready();
    tracing::info!("the daemon ends; containers go on");
    drop(end);
    daemon.hub.end();
    let all = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
        tracing::warn!("requests that still run are cut off");
    }
    for path in paths {
        // It may be another daemon's by now; then it is not there under this inode for long anyway.
        drop(std::fs::remove_file(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::NEWEST;
    use crate::wire;

    #[test]
    fn newest_version_is_announced() {
        let mut headers = http::HeaderMap::new();
        wire::system::head(&mut headers, "9.9");
        assert_eq!(headers["api-version"], NEWEST.to_string().as_str());
        assert_eq!(headers["server"], "Docker/9.9 (linux)");
    }

    #[test]
    fn open_port_without_tls_is_refused_unless_it_is_wanted() {
        let address = |text: &str| text.parse().unwrap();
        for open in ["0.0.0.0:2375", "[::]:2375", "192.0.2.1:1"] {
            let refused = refuse_open(address(open), None, PlainTcp::Loopback);
            assert!(matches!(refused, Err(ListenError::Insecure(_))), "{open}");
            assert!(refuse_open(address(open), None, PlainTcp::Anywhere).is_ok());
        }
        assert!(refuse_open(address("127.0.0.1:2375"), None, PlainTcp::Loopback).is_ok());
    }
}
