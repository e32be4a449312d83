//! `exec` instances: made, started once, asked about. They live as long as the daemon, as with
//! Docker's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use engine::ExecOptions;
use serde_json::{Value, json};

/// How many that have ended are remembered.
const REMEMBERED: usize = 512;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not started.
    Made,
    /// Its program runs.
    Running {
        /// On the host.
        pid: i32,
    },
    /// It has ended.
    Ended {
        /// With this code.
        code: u8,
    },
}

/// An instance.
#[derive(Debug, Clone)]
pub(crate) struct Exec {
    pub(crate) id: String,
    /// The container's id.
    pub(crate) container: String,
    pub(crate) options: ExecOptions,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    /// The keys that leave its terminal; Docker's when empty.
    pub(crate) keys: String,
    pub(crate) phase: Phase,
    /// Sizes for its terminal.
    pub(crate) resize: Option<tokio::sync::mpsc::Sender<(u16, u16)>>,
}

impl Exec {
    /// As `inspect` shows it.
    pub(crate) fn record(&self) -> Value {
        let (program, args) = match self.options.command.split_first() {
            Some((program, args)) => (program.as_str(), args),
            None => ("", &[][..]),
        };
        json!({
            "ID": self.id,
            "Running": matches!(self.phase, Phase::Running { .. }),
            "ExitCode": match self.phase {
                Phase::Ended { code } => json!(code),
                _ => Value::Null,
            },
            "ProcessConfig": {
                "tty": self.tty,
                "entrypoint": program,
                "arguments": args,
                "privileged": self.options.privilege == engine::Privilege::All,
                "user": self.options.user.clone().unwrap_or_default(),
            },
            "OpenStdin": self.stdin,
            "OpenStderr": self.stderr,
            "OpenStdout": self.stdout,
            "CanRemove": matches!(self.phase, Phase::Ended { .. }),
            "ContainerID": self.container,
            "DetachKeys": self.keys,
            "Pid": match self.phase {
                Phase::Running { pid } => pid,
                _ => 0,
            },
        })
    }
}

#[derive(Debug, Default)]
struct All {
    by_id: HashMap<String, Exec>,
    /// In the order in which they were made.
    order: VecDeque<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<All>);

impl Execs {
    fn with<T>(&self, use_all: impl FnOnce(&mut All) -> T) -> T {
        use_all(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, exec: Exec) {
        self.with(|all| {
            all.order.push_back(exec.id.clone());
            all.by_id.insert(exec.id.clone(), exec);
            if all.order.len() > REMEMBERED {
                // The oldest that does not run goes.
                let is_idle = |id: &String| {
                    all.by_id
                        .get(id)
                        .is_none_or(|exec| !matches!(exec.phase, Phase::Running { .. }))
                };
                if let Some(at) = all.order.iter().position(is_idle)
                    && let Some(id) = all.order.remove(at)
                {
                    all.by_id.remove(&id);
                }
            }
        });
    }

    pub(crate) fn get(&self, id: &str) -> Option<Exec> {
        self.with(|all| all.by_id.get(id).cloned())
    }

    /// The ids of a container's that have not ended.
    pub(crate) fn of(&self, container: &str) -> Vec<String> {
        self.with(|all| {
            let live = all.by_id.values().filter(|exec| {
                exec.container == container && !matches!(exec.phase, Phase::Ended { .. })
            });
            live.map(|exec| exec.id.clone()).collect()
        })
    }

    /// Changes one.
    pub(crate) fn change(self: &Arc<Self>, id: &str, change: impl FnOnce(&mut Exec)) {
        self.with(|all| all.by_id.get_mut(id).map(change));
    }
}
