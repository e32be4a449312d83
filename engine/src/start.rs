//! A container is started: plan made, monitor spawned with it. Also its removal.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::Spec;
use runtime::{
    Console, HealthPlan, MonitorPlan, Namespace, Plan, Request, RootfsPlan, StdinMode,
    VERSION as PLAN_VERSION, WasmPlan,
};
use runtime_native::capability;
use runtime_native::plan::{Options, PlanError, detect, plan};
use runtime_native::seccomp::{Arch, default_profile};
use serde::de::DeserializeOwned;
use state::ContainerConfig;
use sys::durable;

use crate::create::{Created, Launch};
use crate::events::{event_attributes, run_events};
use crate::isolation::bounding;
use crate::log::LogSubject;
use crate::mounts::{self, ContainerMount};
use crate::network::{ContainerNetwork, NetworkMode};
use crate::query::Container;
use crate::runtime_choice::{WasmModule, wasm_spec};
use crate::volume_driver::DriverMounts;
use crate::{Engine, EngineError, Session, Wanted};

/// How long a container has between the stop signal and SIGKILL, as with Docker.
const STOP_TIMEOUT_MS: u64 = 10_000;

/// Docker's default profile for a program with these capabilities.
pub(crate) fn filter(capabilities: u64) -> Result<Vec<u8>, EngineError> {
    let arch = Arch::native().ok_or_else(|| {
        EngineError::Unsupported("no seccomp filter is made for this machine".to_owned())
    })?;
    Ok(default_profile(capabilities, arch))
}

/// Docker's filter where it is the container's. A wasm guest's program is ketch's own, which is
/// held in by the usual capabilities' filter and one of its own.
fn default_filter(spec: &Spec, launch: &Launch) -> Result<Option<Vec<u8>>, EngineError> {
    let capabilities = match &launch.wasm {
        Some(_) => capability::DEFAULT,
        None => bounding(spec),
    };
    launch
        .default_filter
        .then(|| filter(capabilities))
        .transpose()
}

pub(crate) fn c_path(path: &Path) -> Result<CString, EngineError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| EngineError::io("use a path with a NUL byte")(io::Error::other(error)))
}

/// The bytes that travel to the monitor.
pub(crate) fn encoded(plan: &Plan) -> Result<Vec<u8>, EngineError> {
    let bytes = plan.encode().map_err(io::Error::other);
    bytes.map_err(EngineError::io("encode the plan"))
}

fn environment(spec: &Spec) -> &[String] {
    let process = spec.process().as_ref();
    let env = process.and_then(|process| process.env().as_deref());
    env.unwrap_or_default()
}

/// The records that a start needs.
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) launch: &'a Launch,
    pub(crate) network: &'a ContainerNetwork,
    pub(crate) mounts: &'a [ContainerMount],
}

impl Engine {
    /// Starts a container that was just created; the streams in `wanted` are attached before its
    /// program runs.
    ///
    /// # Errors
    /// When the plan cannot be made or the monitor cannot be spawned; nothing is left of the
    /// container then.
    pub fn start_created(
        &self,
        created: &Created,
        console: Option<Console>,
        wanted: Option<Wanted>,
    ) -> Result<Session, EngineError> {
        let config = &created.config;
        let parts = Parts {
            spec: &created.spec,
            launch: &created.launch,
            network: &created.network,
            mounts: &created.mounts,
        };
        let started = self.launch(config, &parts, console, wanted);
        if started.is_err() {
            // Nothing of it ever ran. The first error is the one to report.
            drop(self.remove_records(config));
        }
        started
    }

    /// Starts a container that does not run.
    ///
    /// # Errors
    /// As [`Engine::start_created`].
    pub fn start(
        &self,
        container: &Container,
        console: Option<Console>,
        wanted: Option<Wanted>,
    ) -> Result<Session, EngineError> {
        let config = &container.config;
        let (spec, launch) = self.stored(&config.id)?;
        let console = launch.terminal.then(|| console.unwrap_or(Console::UNKNOWN));
        let dir = self.layout.container(&config.id);
        if launch.volatile {
            // Without it the kernel takes the upper layer for one that a crash has left
            // (`Documentation/filesystems/overlayfs.rst`, "Volatile mount").
            durable::remove_tree(&dir.join("work/work/incompat"))
                .map_err(EngineError::io("use the container's files once more"))?;
        }
        let parts = Parts {
            spec: &spec,
            launch: &launch,
            network: &ContainerNetwork::read(&dir)?,
            mounts: &mounts::read(&dir)?,
        };
        self.launch(config, &parts, console, wanted)
    }

    /// What a container was created with, and its image's layers in sight.
    pub(crate) fn stored(&self, id: &str) -> Result<(Spec, Launch), EngineError> {
        let stored = (self.spec_of(id)?, self.launch_of(id)?);
        // It may have been created before the last boot.
        self.store.attach_layers(&stored.1.layers)?;
        Ok(stored)
    }

    /// The specification of a container.
    pub(crate) fn spec_of(&self, id: &str) -> Result<Spec, EngineError> {
        self.record_of(id, "spec.json")
    }

    /// How a container is started, beside its specification.
    pub(crate) fn launch_of(&self, id: &str) -> Result<Launch, EngineError> {
        self.record_of(id, "launch.json")
    }

    fn record_of<T: DeserializeOwned>(&self, id: &str, file: &str) -> Result<T, EngineError> {
        let failed = EngineError::io("read the container's specification");
        let bytes = fs::read(self.layout.container(id).join(file)).map_err(&failed)?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    }

    fn launch(
        &self,
        config: &ContainerConfig,
        parts: &Parts<'_>,
        console: Option<Console>,
        wanted: Option<Wanted>,
    ) -> Result<Session, EngineError> {
        let Parts { launch, mounts, .. } = *parts;
        let run_dir = self.layout.container_run(&config.id);
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&run_dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EngineError::io("make the container's run directory")(error));
            }
            _ => {}
        }
        let drivers = self.mount_driver_volumes(&run_dir, mounts)?;
        let plan = self.plan_start(config, parts, console, &drivers)?;
        launch.log.check_receiver(&plan.monitor.log)?;
        let session = self.spawn(Role::Monitor, &encoded(&plan)?, wanted)?;
        drivers.hand_over();
        Ok(session)
    }

    /// Everything that a monitor needs to know to own a container.
    pub(crate) fn plan_start(
        &self,
        config: &ContainerConfig,
        parts: &Parts<'_>,
        console: Option<Console>,
        drivers: &DriverMounts,
    ) -> Result<Plan, EngineError> {
        let Parts {
            spec,
            launch,
            network,
            mounts,
        } = *parts;
        let (id, name, auto_remove) = (config.id.as_str(), &config.name, config.auto_remove);
        let dir = self.layout.container(id);
        let subject = LogSubject {
            config: Some(config),
            env: environment(spec),
        };
        let log = launch.log.plan(self, subject)?;
        let hierarchy = detect();
        let rootfs = self.rootfs(&dir, spec, launch)?;
        let mut init = plan(
            spec,
            Options {
                user_namespace: self.user_namespace.map(|ids| ids.gids),
                wasm: self.wasm_plan(spec, launch)?,
                create_cwd: launch.create_cwd,
                seccomp: default_filter(spec, launch)?,
                init: self.init_path(launch)?,
                ..Options::new(rootfs, id, &hierarchy)
            },
        )?;
        mounts::complete(&mut init, mounts, drivers)?;
        self.join_shared(&launch.shared, &mut init)?;
        init.trace = launch.trace.as_deref().map(c_path).transpose()?;
        if let NetworkMode::Container(other) = &network.mode {
            init.namespaces.push(Namespace {
                flag: sys::clone::namespace::NET,
                path: Some(c_path(Path::new(&self.shared_namespace(other)?))?),
            });
        }
        let [start_events, end_events] = run_events(config, network, mounts);
        let monitor = MonitorPlan {
            start_events,
            end_events,
            network: self.network_plan(id, name, network)?,
            own_volumes: self.own_volume_paths(id, auto_remove)?,
            id: id.to_owned(),
            state_dir: c_path(&dir)?,
            run_dir: c_path(&self.layout.container_run(id))?,
            trash_dir: c_path(&self.layout.trash())?,
            exits_dir: c_path(&self.layout.exits())?,
            name_claim: Some(c_path(&self.layout.container_names().join(name))?),
            auto_remove,
            stdin: if launch.interactive {
                StdinMode::Once
            } else {
                StdinMode::Null
            },
            console,
            log,
            stop_signal: launch.stop_signal,
            stop_timeout_ms: launch.stop_timeout_ms.unwrap_or(STOP_TIMEOUT_MS),
            restart: launch.restart,
            health: self.health_plan(id, spec, launch)?,
            events_dir: c_path(&self.layout.events())?,
            event_attributes: event_attributes(config),
            volumes: drivers.record().map(c_path).transpose()?,
        };
        Ok(Plan {
            version: PLAN_VERSION,
            monitor,
            init,
        })
    }

    /// The volumes that go with a container that vanishes when it ends.
    fn own_volume_paths(&self, id: &str, auto_remove: bool) -> Result<Vec<CString>, EngineError> {
        let dirs = if auto_remove {
            self.own_volumes(id)
        } else {
            Vec::new()
        };
        // What another driver keeps the monitor cannot remove: `volume prune` does.
        let is_local = |dir: &&std::path::PathBuf| {
            let name = dir.file_name().and_then(OsStr::to_str);
            name.and_then(|name| self.volume(name).ok())
                .is_some_and(|volume| volume.driver == crate::LOCAL)
        };
        let dirs = dirs.iter().filter(is_local);
        dirs.map(|dir| c_path(dir)).collect()
    }

    fn health_plan(
        &self,
        id: &str,
        spec: &Spec,
        launch: &Launch,
    ) -> Result<Option<HealthPlan>, EngineError> {
        let check = launch.health.as_ref();
        let hierarchy = detect();
        let plan_probe = |spec: &Spec| {
            let rootfs = RootfsPlan::Directory {
                path: c_path(Path::new("/"))?,
                readonly: false,
            };
            let options = Options {
                user_namespace: self.user_namespace.map(|ids| ids.gids),
                seccomp: Some(filter(capability::DEFAULT)?),
                ..Options::new(rootfs, id, &hierarchy)
            };
            Ok(plan(spec, options)?)
        };
        check.map(|check| check.plan(spec, plan_probe)).transpose()
    }

    fn wasm_plan(&self, spec: &Spec, launch: &Launch) -> Result<Option<WasmPlan>, EngineError> {
        let Some(module) = &launch.wasm else {
            return Ok(None);
        };
        let process = spec
            .process()
            .as_ref()
            .ok_or(PlanError::Missing("process"))?;
        self.wasm_host_plan(module, process).map(Some)
    }

    /// The built-in first process, for a container that has one.
    fn init_path(&self, launch: &Launch) -> Result<Option<CString>, EngineError> {
        if !launch.init {
            return Ok(None);
        }
        let path = self.executables.pid1_path(&self.layout.exe());
        let path = path.map_err(EngineError::io("put the first process in place"))?;
        c_path(&path).map(Some)
    }

    /// What init needs to execute the wasm host.
    pub(crate) fn wasm_host_plan(
        &self,
        module: &WasmModule,
        process: &oci_spec::runtime::Process,
    ) -> Result<WasmPlan, EngineError> {
        let host = self
            .executables
            .wasm_host_path(&self.layout.exe())
            .map_err(EngineError::io("put the wasm host in place"))?;
        Ok(WasmPlan {
            host: c_path(&host)?,
            artifact: c_path(&self.compiled(module)?.path)?,
            spec: wasm_spec(module, process)?,
        })
    }

    fn rootfs(&self, dir: &Path, spec: &Spec, launch: &Launch) -> Result<RootfsPlan, EngineError> {
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        let join = launch
            .layers
            .iter()
            .map(|layer| layer.as_os_str().as_bytes());
        let lowers = join.collect::<Vec<_>>().join(&b":"[..]);
        let mut options = Vec::from(&b"lowerdir="[..]);
        options.extend_from_slice(&lowers);
        for (key, path) in [(&b",upperdir="[..], &upper), (&b",workdir="[..], &work)] {
            options.extend_from_slice(key);
            options.extend_from_slice(path.as_os_str().as_bytes());
        }
        if self.user_namespace.is_some() {
            options.extend_from_slice(b",userxattr");
        }
        let mountpoint = self.layout.run().join("rootfs");
        match fs::create_dir(&mountpoint) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EngineError::io("make the mount point of root file systems")(error));
            }
            _ => {}
        }
        Ok(RootfsPlan::Overlay {
            lower: launch
                .layers
                .iter()
                .map(|layer| c_path(layer))
                .collect::<Result<_, _>>()?,
            upper: c_path(&upper)?,
            work: c_path(&work)?,
            volatile: launch.volatile,
            userxattr: self.user_namespace.is_some(),
            mountpoint: c_path(&mountpoint)?,
            options: c_path(Path::new(OsStr::from_bytes(&options)))?,
            readonly: spec
                .root()
                .as_ref()
                .and_then(oci_spec::runtime::Root::readonly)
                .unwrap_or(false),
        })
    }

    /// Starts `ketch-init`. `Command` starts a program without setters by `vfork`, so a front
    /// end's heap and threads do not matter.
    pub(crate) fn spawn(
        &self,
        role: Role,
        plan: &[u8],
        wanted: Option<Wanted>,
    ) -> Result<Session, EngineError> {
        let failed = EngineError::io(match role {
            Role::Monitor => "start the container's monitor",
            Role::Rescue => "start another monitor for the container",
            Role::Exec => "start a program in the container",
        });
        let plan = sys::sealed::seal("ketch-plan", plan).map_err(&failed)?;
        let (ours, theirs) = sys::socket::pair().map_err(|errno| failed(errno.into()))?;
        let session = Session::new(ours);
        if let Some(wanted) = wanted {
            session.ask_streams(wanted)?;
        }
        let init = self
            .executables
            .init_path(&self.layout.exe())
            .map_err(&failed)?;
        let mut command = Command::new(init);
        match role {
            Role::Monitor => {}
            Role::Rescue => {
                command.arg("rescue");
            }
            Role::Exec => {
                command.arg("exec");
            }
        }
        let child = command
            .env_clear()
            .stdin(Stdio::from(plan))
            .stdout(Stdio::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .map_err(&failed)?;
        // It outlives this process; it is nobody's child for long.
        drop(child);
        Ok(session)
    }

    /// Removes a container that does not run; a running one when `force` is set.
    ///
    /// # Errors
    /// When it runs and may not be killed, or something of it cannot be removed.
    pub fn remove(&self, container: &Container, force: Force) -> Result<(), EngineError> {
        let config = &container.config;
        if container.is_running() {
            if force == Force::No {
                return Err(EngineError::Running {
                    what: "remove",
                    name: config.name.clone(),
                });
            }
            match self.ask(container, &Request::Remove) {
                // It has ended before it could be asked, and may be gone with that.
                Err(EngineError::NotRunning(_)) => {
                    if !self.layout.container(&config.id).exists() {
                        return Ok(());
                    }
                }
                other => return other,
            }
        }
        self.remove_records(config)?;
        self.record_container_event(config, "destroy", &[]);
        Ok(())
    }

    pub(crate) fn remove_records(&self, config: &ContainerConfig) -> Result<(), EngineError> {
        let failed = EngineError::io("remove the container");
        let trashed = durable::discard(&self.layout.container(&config.id), &self.layout.trash());
        let trashed = trashed.map_err(&failed)?;
        durable::remove_tree(&self.layout.container_names().join(&config.name)).map_err(&failed)?;
        durable::remove_tree(&self.layout.container_run(&config.id)).map_err(&failed)?;
        match trashed {
            Some(trashed) => durable::remove_tree(&trashed).map_err(failed),
            None => Ok(()),
        }
    }
}

/// What `ketch-init` is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To own a container.
    Monitor,
    /// To own one that runs and whose monitor was killed.
    Rescue,
    /// To run a further program in one.
    Exec,
}

/// Whether a running container may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It stays.
    No,
    /// It is killed.
    Yes,
}
