//! The sockets of the policies: opened, changed and closed as the policies' files come and go. One daemon
//! of a root serves them: the one that holds the lock.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::{Engine, FullSockets};
use rustix::fs::inotify;
use state::Layout;
use sys::lock::{FileLock, Mode as LockMode};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Policies, Policy, Scope};
use crate::connections::{Door, accept_all};
use crate::daemon::Daemon;
use crate::error::chain;
use crate::listen;
use crate::ready::watched;
use crate::server::ServeError;

impl Policies {
    /// Whether a daemon serves the policies now.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn are_served(layout: &Layout) -> io::Result<bool> {
        Ok(FileLock::try_acquire(&lock(layout), LockMode::Shared)?.is_none())
    }
}

fn lock(layout: &Layout) -> PathBuf {
    layout.run().join("locks/daemon.lock")
}

/// What serves them.
pub(crate) struct Sockets {
    policies: Policies,
    watch: OwnedFd,
    /// `None` while another daemon serves them.
    lock: Option<FileLock>,
}

/// A socket that is served.
struct Running {
    policy: Policy,
    /// Dropped, it ends the socket.
    end: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Sockets {
    /// Takes the lock, and writes down which sockets have the whole API: who mounts one of them into a
    /// container is warned.
    pub(crate) fn open(engine: &Engine, full: &[PathBuf]) -> Result<Self, ServeError> {
        let failed = |what| move |source| ServeError::Io { what, source };
        let layout = engine.layout();
        let policies = Policies::open(layout)?;
        let lock = FileLock::try_acquire(&lock(layout), LockMode::Exclusive)
            .map_err(failed("take the lock of the daemon"))?;
        if lock.is_some() {
            FullSockets::new(full).write(layout)?;
        } else {
            tracing::warn!("another daemon of this root serves the sockets of policies");
        }
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE;
        let watch = inotify::init(flags)
            .and_then(|watch| inotify::add_watch(&watch, policies.dir(), events).map(|_| watch))
            .map_err(|errno| failed("watch the policies")(errno.into()))?;
        Ok(Self {
            policies,
            watch,
            lock,
        })
    }

    /// Opens the sockets that there are, and gives what follows the policies until `ended`.
    pub(crate) fn serve(
        self,
        daemon: Arc<Daemon>,
        mut ended: watch::Receiver<()>,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let watch = watched(self.watch)?;
        let (policies, lock) = (self.policies, self.lock);
        let mut running = BTreeMap::new();
        if lock.is_some() {
            follow(&policies, &daemon, &mut running);
        }
        Ok(async move {
            if lock.is_some() {
                loop {
                    // Both can be dropped: what has changed is read from the directory.
                    let changed = tokio::select! {
                        changed = changes(&watch) => changed,
                        _ = ended.changed() => break,
                    };
                    if let Err(error) = changed {
                        tracing::error!(%error, "policies are followed no more");
                        drop(ended.changed().await);
                        break;
                    }
                    follow(&policies, &daemon, &mut running);
                }
            }
            let tasks: Vec<JoinHandle<()>> = running.into_values().map(close).collect();
            for task in tasks {
                // Its panics are reported where they happen.
                drop(task.await);
            }
        })
    }
}

/// Waits until a policy comes or goes.
async fn changes(watch: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut guard = watch.readable().await?;
    let mut buffer = [0; 4096];
    while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|length| length > 0) {}
    guard.clear_ready();
    Ok(())
}

/// Ends a socket. Its requests end by themselves.
fn close(running: Running) -> JoinHandle<()> {
    drop(running.end);
    remove(&running.policy.path);
    running.task
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove a socket");
    }
}

/// Makes the sockets what the policies say.
fn follow(policies: &Policies, daemon: &Arc<Daemon>, running: &mut BTreeMap<String, Running>) {
    let wanted = match policies.list() {
        Ok(wanted) => wanted,
        Err(error) => {
            // What is served stays; what is new is not guessed.
            tracing::error!(error = chain(&error), "cannot read the policies of sockets");
            return;
        }
    };
    let is_kept = |own: &Running| wanted.contains(&own.policy);
    let gone: Vec<String> = running
        .iter()
        .filter(|(_, own)| !is_kept(own))
        .map(|(name, _)| name.clone())
        .collect();
    for name in gone {
        if let Some(own) = running.remove(&name) {
            tracing::info!(socket = name, "a socket is closed");
            drop(close(own));
        }
    }
    for policy in wanted {
        if running.contains_key(&policy.name) {
            continue;
        }
        let name = policy.name.clone();
        match open(daemon, policy) {
            Ok(own) => {
                tracing::info!(socket = name, path = %own.policy.path.display(), "a socket is open");
                running.insert(name, own);
            }
            Err(error) => tracing::error!(%error, socket = name, "cannot open a socket"),
        }
    }
}

fn open(daemon: &Arc<Daemon>, policy: Policy) -> io::Result<Running> {
    let listener = UnixListener::from_std(listen::unix(&policy.path)?)?;
    let (end, ended) = watch::channel(());
    let door = Door {
        daemon: Arc::clone(daemon),
        scope: Some(Arc::new(Scope::new(policy.clone()))),
        tls: None,
    };
    let task = tokio::spawn(accept_all(door, listener, ended));
    Ok(Running { policy, end, task })
}
