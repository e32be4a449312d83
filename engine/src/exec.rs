//! A further program in a running container (`exec`): planned here, started by `ketch-init exec`.

use std::collections::HashSet;
use std::path::Path;

use image::LayeredRoot;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use runtime::{Console, ExecPlan, RootfsPlan, VERSION as PLAN_VERSION};
use runtime_native::capability;
use runtime_native::plan::{Options, PlanError, detect, plan};
use state::Status;

use crate::isolation::bounding;
use crate::query::Container;
use crate::start::{Role, c_path, filter};
use crate::user::{self, User};
use crate::{Engine, EngineError, Session, Wanted};

/// What the program may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privilege {
    /// As much as the container's own program.
    #[default]
    AsContainer,
    /// Every capability, and the system calls that go with them.
    All,
}

/// Options of `exec`.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Beside the container's environment: `KEY=value` and, to remove a key, `KEY`.
    pub env: Vec<String>,
    /// `user[:group]`; the container's own when absent.
    pub user: Option<String>,
    /// Working directory; the container's own when absent.
    pub workdir: Option<String>,
    /// A terminal of this size.
    pub console: Option<Console>,
    /// Capabilities.
    pub privilege: Privilege,
}

impl Engine {
    /// Starts a program in a running container; the streams in `wanted` are its own from its first
    /// moment on. Without any it goes on by itself, with `/dev/null`.
    ///
    /// # Errors
    /// When the container does not run or has no processes, or the request is wrong. Why the
    /// program could not be executed is what [`Session::wait_started`] gives.
    pub fn exec(
        &self,
        container: &Container,
        options: &ExecOptions,
        wanted: Option<Wanted>,
    ) -> Result<Session, EngineError> {
        let config = &container.config;
        if config.runtime == "wasm" {
            return Err(EngineError::NoProcesses {
                what: "execute in",
                name: config.name.clone(),
            });
        }
        if container.state.status == Status::Paused {
            // It would stand still as well.
            return Err(EngineError::Paused {
                what: "execute in",
                name: config.name.clone(),
            });
        }
        let stopped = || EngineError::NotRunning(config.name.clone());
        let pid = container.state.pid.ok_or_else(stopped)?;
        let start_time = sys::process::start_time(pid).map_err(|_| stopped())?;
        // The number is the container's init as long as its monitor lives; asked after the start
        // time was read, the answer holds for both.
        if !self.container(&config.id)?.is_running() {
            return Err(stopped());
        }
        let (spec, launch) = (self.spec_of(&config.id)?, self.launch_of(&config.id)?);
        let root = LayeredRoot::new(vec![format!("/proc/{pid}/root/.").into()]);
        let capabilities = match options.privilege {
            Privilege::AsContainer => bounding(&spec),
            Privilege::All => capability::ALL,
        };
        let spec = self.exec_spec(spec, options, &root, capabilities)?;
        let rootfs = RootfsPlan::Directory {
            path: c_path(Path::new("/"))?,
            readonly: false,
        };
        let init = plan(
            &spec,
            Options {
                user_namespace: self.user_namespace.map(|ids| ids.gids),
                seccomp: match launch.default_filter {
                    true => Some(filter(capabilities)?),
                    false => None,
                },
                ..Options::new(rootfs, &config.id, &detect())
            },
        )?;
        let plan = ExecPlan {
            version: PLAN_VERSION,
            pid,
            start_time,
            namespaces: runtime_native::foreign_namespaces(pid)
                .map_err(EngineError::io("look at the container's namespaces"))?,
            cgroup_enter: init.cgroup.enter,
            cgroup_clone_into: init.cgroup.clone_into,
            console: options.console,
            process: init.process,
        };
        let bytes = plan.encode().map_err(std::io::Error::other);
        let bytes = bytes.map_err(EngineError::io("encode the plan"))?;
        let session = self.spawn(Role::Exec, &bytes, wanted)?;
        let command = options.command.join(" ");
        for action in ["exec_create", "exec_start"] {
            self.record_container_event(config, &format!("{action}: {command}"), &[]);
        }
        Ok(session)
    }

    /// Writes down that a program that [`Engine::exec`] has started is over. Whoever waits for its end
    /// does it: its parent has moved into the container, where the log of events is out of reach.
    pub fn record_exec_end(&self, container: &Container, exit_code: u8) {
        let code = exit_code.to_string();
        self.record_container_event(&container.config, "exec_die", &[("exitCode", &code)]);
    }

    /// Leaves a program that [`Engine::exec`] has started to itself: the container's monitor hears of its
    /// end and writes it down.
    ///
    /// # Errors
    /// When the monitor does not take it. The program goes on all the same.
    pub fn leave_exec(&self, container: &Container, session: &Session) -> Result<(), EngineError> {
        self.connect(container)?.keep_exec(session)
    }

    /// The container's specification with the program in place of its own.
    fn exec_spec(
        &self,
        mut spec: Spec,
        options: &ExecOptions,
        root: &LayeredRoot,
        capabilities: u64,
    ) -> Result<Spec, EngineError> {
        let missing = || PlanError::Missing("process");
        let mut process = spec.process_mut().take().ok_or_else(missing)?;
        let mut env = process.env().clone().unwrap_or_default();
        if let Some(text) = &options.user {
            let user = user::resolve(text, root)?;
            if let Some(namespace) = self.user_namespace {
                user.require_mapped(namespace)?;
            }
            let before = process.user().uid();
            let home = user::resolve(&before.to_string(), root)?.home;
            // A home that was set by hand stays, as with Docker.
            if let Some(pair) = env.iter_mut().find(|pair| **pair == format!("HOME={home}")) {
                *pair = format!("HOME={}", user.home);
            }
            set_user(&mut process, &user);
        }
        if options.console.is_some() && !env.iter().any(|pair| pair.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        crate::spec::overlay_environment(&mut env, &options.env);
        set_capabilities(&mut process, capabilities);
        process
            .set_args(Some(options.command.clone()))
            .set_env(Some(env))
            .set_terminal(Some(options.console.is_some()));
        if let Some(workdir) = &options.workdir {
            process.set_cwd(workdir.into());
        }
        spec.set_process(Some(process));
        Ok(spec)
    }
}

fn set_user(process: &mut Process, user: &User) {
    let mut changed = process.user().clone();
    changed
        .set_uid(user.uid)
        .set_gid(user.gid)
        .set_additional_gids(Some(user.groups.clone()));
    process.set_user(changed);
}

/// The program of a user other than root has no capability in force, as after any change of user.
pub(crate) fn set_capabilities(process: &mut Process, mask: u64) {
    let all: HashSet<Capability> = capability::to_spec(mask).into_iter().collect();
    let in_force = if process.user().uid() == 0 {
        all.clone()
    } else {
        HashSet::new()
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(all))
        .set_permitted(Some(in_force.clone()))
        .set_effective(Some(in_force))
        .set_inheritable(Some(HashSet::new()))
        .set_ambient(Some(HashSet::new()));
    process.set_capabilities(Some(sets));
}
