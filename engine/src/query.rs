//! Finding containers.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use runtime::{ExitStatus, Request, RestartPolicy};
use state::{ContainerConfig, ContainerState, ExitRecord, Status};
use sys::lock;

use crate::{Engine, EngineError, Session, Streams, Wanted};

/// A container's two records, as they are now.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it is.
    pub config: ContainerConfig,
    /// Where it is in its life.
    pub state: ContainerState,
}

/// How long a monitor that answers no more may take to end.
const MONITOR_ENDS: Duration = Duration::from_secs(10);

/// Somebody who waits gives up when so many monitors of one container were killed meanwhile.
const MONITORS: usize = 100;

/// What has become of a container whose monitor was killed.
#[derive(Debug)]
pub enum Rejoined {
    /// It goes on.
    Running(Session, Streams),
    /// It has ended.
    Ended(ExitStatus),
}

fn ended(code: u8) -> Rejoined {
    Rejoined::Ended(ExitStatus {
        code,
        signal: None,
        oom_killed: false,
        error: None,
    })
}

/// Whether it does no harm to ask for something that may be done already.
fn is_same_twice(request: &Request) -> bool {
    matches!(
        request,
        Request::Stop { .. }
            | Request::StopToRestart { .. }
            | Request::Remove
            | Request::Pause
            | Request::Unpause
            | Request::Update { .. }
    )
}

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
        let launch = self.launch_of(&container.config.id)?;
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
        Ok(self.launch_of(&container.config.id)?.restart)
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
        let mut lost = 0;
        loop {
            let told = self.connect(container).and_then(|session| {
                session.watch()?;
                session.wait_exited()
            });
            let error = match told {
                Ok(status) => return Ok(status.code),
                Err(error) => error,
            };
            if let Some(code) = self.look_again(&container.config.id)? {
                return Ok(code);
            }
            lost += 1;
            if lost == MONITORS {
                return Err(error);
            }
        }
    }

    /// What has become of a container whose monitor answers no more: how it has ended, or nothing when
    /// another monitor has it now.
    fn look_again(&self, id: &str) -> Result<Option<u8>, EngineError> {
        // A monitor that is ending has written down what holds once it lets go of its lock.
        self.wait_for_monitor(id);
        let now = match self.container(id) {
            Err(EngineError::NoSuchContainer(_)) => return self.removed_exit_code(id).map(Some),
            other => other?,
        };
        Ok((!now.is_running()).then_some(now.state.exit_code.unwrap_or(0)))
    }

    /// Joins a container again whose monitor answers no more.
    ///
    /// # Errors
    /// When its records cannot be read, or the next monitor refuses.
    pub fn rejoin(&self, id: &str, wanted: Wanted) -> Result<Rejoined, EngineError> {
        let mut lost = 0;
        loop {
            if let Some(code) = self.look_again(id)? {
                return Ok(ended(code));
            }
            match self.join(id, wanted) {
                // It was the killed one, which was still there when it was looked for.
                Err(EngineError::Io { .. } | EngineError::NotRunning(_)) if lost < MONITORS => {
                    lost += 1;
                }
                result => return result,
            }
        }
    }

    /// Joins the streams of a container that runs.
    fn join(&self, id: &str, wanted: Wanted) -> Result<Rejoined, EngineError> {
        let session = self.connect(&self.container(id)?)?;
        session.watch()?;
        session.ask_streams(wanted)?;
        session.wait_started()?;
        let streams = session.attached(wanted)?;
        Ok(Rejoined::Running(session, streams))
    }

    /// Waits until a monitor that answers no more has let go of its lock or another one has it, or the
    /// monitor is given up on. The lock is not taken for that: it is the next monitor's.
    fn wait_for_monitor(&self, id: &str) {
        let lock = self.layout.container_run(id).join("lock");
        let deadline = Instant::now() + MONITOR_ENDS;
        let mut pause = Duration::from_micros(200);
        while Instant::now() < deadline && lock::is_held(&lock).unwrap_or(false) {
            let state = ContainerState::read(&self.layout.container(id));
            if state.is_ok_and(|state| state.status.is_owned()) && self.has_monitor(id) {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Asks a container's monitor for something and waits until it is done. When the monitor is killed
    /// before it answers, the next one is asked what may be asked twice.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`] also when the container ends before the answer; why the monitor
    /// refuses otherwise.
    pub fn ask(&self, container: &Container, request: &Request) -> Result<(), EngineError> {
        let mut result = Err(EngineError::NotRunning(container.config.name.clone()));
        for _ in 0..MONITORS {
            let unheard = match self.connect(container) {
                Err(error @ EngineError::NotRunning(_)) => Some(error),
                Err(error) => return Err(error),
                Ok(session) => {
                    result = session.ask(request);
                    None
                }
            };
            if unheard.is_none() && !matches!(result, Err(EngineError::Io { .. })) {
                return result;
            }
            self.wait_for_monitor(&container.config.id);
            match self.container(&container.config.id) {
                Ok(now) if now.is_running() => {
                    let status = now.state.status;
                    match request {
                        Request::Pause if status == Status::Paused => return Ok(()),
                        Request::Unpause if status == Status::Running => return Ok(()),
                        _ if unheard.is_some() || is_same_twice(request) => {}
                        _ => return result,
                    }
                }
                _ => return Err(EngineError::NotRunning(container.config.name.clone())),
            }
        }
        result
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
