//! Finding containers.

use std::fs;
use std::io;

use runtime::{Request, RestartPolicy};
use state::{ContainerConfig, ContainerState, ExitRecord};
use sys::lock;

use crate::{Engine, EngineError, Session};

/// A container's two records, as they are now.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it is.
    pub config: ContainerConfig,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// How long a monitor that answers no more may take to end.
const MONITOR_ENDS: std::time::Duration = std::time::Duration::from_secs(10);

impl Container {
    /// Whether a monitor owns it: its program runs, stands still, or is about to be started again.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.status.is_owned()
    }
}

/// What streams a container was created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKinds {
    /// A terminal of its own.
    pub terminal: bool,
    /// Standard input is open.
    pub interactive: bool,
}

impl Engine {
    /// What streams a container has.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn streams_of(&self, container: &Container) -> Result<StreamKinds, EngineError> {
        let (_, launch) = self.stored(&container.config.id)?;
        Ok(StreamKinds {
            terminal: launch.terminal,
            interactive: launch.interactive,
        })
    }

    /// What happens when a container's program has ended by itself.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn restart_policy(&self, container: &Container) -> Result<RestartPolicy, EngineError> {
        let (_, launch) = self.stored(&container.config.id)?;
        Ok(launch.restart)
    }

    /// All containers, the newest first. One that is being removed is left out.
    ///
    /// # Errors
    /// When the directory of containers cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>, EngineError> {
        let failed = EngineError::io("list the containers");
        let mut found = Vec::new();
        for entry in fs::read_dir(self.layout.containers()).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            if let Some(id) = name.to_str().filter(|name| name.len() == 64)
                && let Ok(container) = self.read(id)
            {
                found.push(container);
            }
        }
        found.sort_by(|a, b| b.config.created.cmp(&a.config.created));
        Ok(found)
    }

    fn read(&self, id: &str) -> Result<Container, EngineError> {
        let dir = self.layout.container(id);
        let config = ContainerConfig::read(&dir)?;
        let mut state = ContainerState::read(&dir)?;
        if state.status.is_owned() {
            let held = lock::is_held(&self.layout.container_run(id).join("lock"));
            if !held.map_err(EngineError::io("look at the container's lock"))? {
                state = self.rescue(&config)?;
            }
        }
        Ok(Container { config, state })
    }

    /// The container with this name, this id, or the only one whose id starts so.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn container(&self, reference: &str) -> Result<Container, EngineError> {
        let missing = || EngineError::NoSuchContainer(reference.to_owned());
        let is_name = crate::create::is_name(reference);
        if is_name
            && let Ok(id) = fs::read_to_string(self.layout.container_names().join(reference))
            && let Some(found) = self.named(reference, id.trim())?
        {
            return Ok(found);
        }
        let is_id = reference.len() <= 64
            && !reference.is_empty()
            && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(missing());
        }
        let failed = EngineError::io("list the containers");
        let mut found: Option<String> = None;
        for entry in fs::read_dir(self.layout.containers()).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            let Some(id) = name
                .to_str()
                .filter(|id| id.len() == 64 && id.starts_with(reference))
            else {
                continue;
            };
            if found.replace(id.to_owned()).is_some() {
                return Err(EngineError::Ambiguous(reference.to_owned()));
            }
        }
        self.read(&found.ok_or_else(missing)?)
    }

    /// The container that a claim of a name leads to, unless it is gone or has another name now.
    fn named(&self, name: &str, id: &str) -> Result<Option<Container>, EngineError> {
        match self.read(id) {
            Ok(found) => Ok(Some(found).filter(|found| found.config.name == name)),
            Err(EngineError::Record(error)) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until a container has ended and gives its exit code; 0 for one that never ran.
    ///
    /// # Errors
    /// When the container is unknown or its monitor says nothing.
    pub fn wait(&self, container: &Container) -> Result<u8, EngineError> {
        let told = self.connect(container).and_then(|session| {
            session.watch()?;
            session.wait_exited()
        });
        match told {
            Ok(status) => Ok(status.code),
            // Its monitor is ending or has ended: what it wrote down holds once it lets go of its lock.
            Err(error) => {
                self.wait_for_monitor(container);
                let now = match self.container(&container.config.id) {
                    Err(EngineError::NoSuchContainer(id)) => return self.removed_exit_code(&id),
                    other => other?,
                };
                match now.is_running() {
                    true => Err(error),
                    false => Ok(now.state.exit_code.unwrap_or(0)),
                }
            }
        }
    }

    /// Waits until a monitor that answers no more has let go of its lock, or is given up on.
    fn wait_for_monitor(&self, container: &Container) {
        let lock = self.layout.container_run(&container.config.id).join("lock");
        if lock.exists() {
            drop(lock::FileLock::acquire(
                &lock,
                lock::Mode::Shared,
                MONITOR_ENDS,
            ));
        }
    }

    /// Asks a container's monitor for something and waits until it is done.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] also when the container ends, or its monitor is killed, before the
    /// answer; why the monitor refuses otherwise.
    pub fn ask(&self, container: &Container, request: &Request) -> Result<(), EngineError> {
        let asked = self
            .connect(container)
            .and_then(|session| session.ask(request));
        let Err(error @ EngineError::Io { .. }) = asked else {
            return asked;
        };
        self.wait_for_monitor(container);
        match self.container(&container.config.id) {
            Ok(now) if now.is_running() => Err(error),
            _ => Err(EngineError::NotRunning(container.config.name.clone())),
        }
    }

    /// The exit code of a container that was removed when it ended, some minutes ago at most.
    ///
    /// # Errors
    /// When nothing is known of such a container.
    pub fn removed_exit_code(&self, reference: &str) -> Result<u8, EngineError> {
        ExitRecord::find(&self.layout.exits(), reference)
            .map(|record| record.exit_code)
            .map_err(|_| EngineError::NoSuchContainer(reference.to_owned()))
    }

    /// Connects to the container's monitor.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn connect(&self, container: &Container) -> Result<Session, EngineError> {
        let socket = self
            .layout
            .container_run(&container.config.id)
            .join("ctl.sock");
        sys::socket::connect(&socket)
            .map(Session::new)
            .map_err(|errno| {
                let error = io::Error::from(errno);
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        EngineError::NotRunning(container.config.name.clone())
                    }
                    _ => EngineError::io("reach the container's monitor")(error),
                }
            })
    }
}
