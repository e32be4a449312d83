//! A step of a build: a container of layers instead of an image, whose upper directory is what is
//! wanted of it. It is listed while it runs, as every container is, and nothing stays of it. What it was
//! started with, where secrets may stand, is not written down.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use image::{DiffId, LayeredRoot, RunConfig};
use runtime::detect::{BinaryKind, HEADER_LEN, binary_kind};
use runtime::{Request, RestartPolicy};
use state::{ContainerConfig, ContainerSettings, ContainerState, VERSION, clock};
use sys::durable::{self, Durability};

use crate::create::{Created, Launch, random_id};
use crate::log::LogOptions;
use crate::mounts::ContainerMount;
use crate::network::{NetworkMode, first_files};
use crate::options::{ContainerOptions, Network, NetworkOptions, WasmOptions};
use crate::runtime_choice::{self, WasmModule};
use crate::{Engine, EngineError, IsolationOptions, Session, Wanted, isolation, spec, user};

/// What a step is started with.
#[derive(Debug, Clone, Default)]
pub struct StepOptions {
    /// What the build calls the image that it starts from.
    pub image: String,
    /// Read-only layers, uppermost first; at least one.
    pub layers: Vec<PathBuf>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Environment, user and working directory.
    pub config: RunConfig,
    /// Further variables, which win.
    pub env: Vec<String>,
    /// What is mounted besides.
    pub mounts: Vec<StepMount>,
    /// The network.
    pub network: Network,
    /// Its details.
    pub network_options: NetworkOptions,
    /// Memory limit in bytes.
    pub memory_bytes: Option<i64>,
    /// What of its isolation is not the usual one.
    pub isolation: IsolationOptions,
    /// Its host name, instead of that which all steps have.
    pub hostname: Option<String>,
}

/// Something that is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepMount {
    /// In the container, absolute.
    pub target: PathBuf,
    /// What is mounted.
    pub source: StepSource,
    /// Nothing below it can be written.
    pub readonly: bool,
}

/// What is mounted into a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepSource {
    /// A path of the host.
    Path(PathBuf),
    /// Memory, with mount options.
    Memory(Vec<String>),
}

/// A step that was created.
#[derive(Debug)]
pub struct Step {
    created: Created,
}

/// The host name of steps: it may be seen by what is built.
const HOSTNAME: &str = "build";

impl Engine {
    /// Creates the container of a step.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be done; then nothing is left of it.
    pub fn create_step(&self, options: &StepOptions) -> Result<Step, EngineError> {
        let Some(program) = options.args.first() else {
            return Err(EngineError::NoCommand(options.image.clone()));
        };
        let root = LayeredRoot::new(options.layers.clone());
        let id = random_id().map_err(EngineError::io("make an id"))?;
        let user = user::resolve(&options.config.user, &root)?;
        if let Some(namespace) = self.user_namespace {
            user.require_mapped(namespace)?;
        }
        let container = ContainerOptions {
            image: options.image.clone(),
            env: options.env.clone(),
            network: options.network.clone(),
            network_options: options.network_options.clone(),
            memory_bytes: options.memory_bytes,
            isolation: options.isolation.clone(),
            ..ContainerOptions::default()
        };
        let mut warnings = Vec::new();
        let hostname = options.hostname.as_deref().unwrap_or(HOSTNAME);
        let network = self.settle_network(
            &options.network,
            &options.network_options,
            &[],
            hostname,
            &mut warnings,
        )?;
        let wasm = self.wasm_step(&root, options, program, &network.mode)?;
        let mounts: Vec<_> = options.mounts.iter().map(StepMount::settled).collect();
        let dir = self.layout.container(&id);
        let mut spec = spec::make(&spec::Parts {
            options: &container,
            config: &options.config,
            user: &user,
            args: options.args.clone(),
            hostname,
            mounts: &mounts,
            files: &dir,
            user_namespace: self.user_namespace,
            wasm: wasm.is_some(),
        })?;
        let applied = isolation::apply(
            &isolation::Context {
                engine: self,
                options: &container,
                id: &id,
                wasm: wasm
                    .as_ref()
                    .map(|_| "the program of the step is WebAssembly".to_owned()),
            },
            &mut spec,
        )?;
        let launch = Launch {
            layers: options.layers.clone(),
            interactive: false,
            terminal: false,
            stop_signal: 15,
            stop_timeout_ms: None,
            wasm,
            create_cwd: true,
            volatile: true,
            shared: applied.shared,
            shareable_ipc: false,
            default_filter: applied.default_filter,
            init: false,
            trace: None,
            restart: RestartPolicy::No,
            log: LogOptions::default(),
            health: None,
        };
        // Made before the name is claimed: a claim without a directory belongs to nobody.
        let tmp = self.layout.tmp().join(&id);
        let made = DirBuilder::new().mode(0o700).create(&tmp);
        made.map_err(EngineError::io("make the step's directory"))?;
        let name = format!("build-{}", id.get(..12).unwrap_or_default());
        let name = self.claim_name(Some(&name), &id);
        if name.is_err() {
            drop(durable::remove_tree(&tmp));
        }
        let name = name?;
        let config = ContainerConfig {
            version: VERSION,
            id,
            name,
            image: options.image.clone(),
            image_id: String::new(),
            created: clock::now(),
            runtime: if launch.wasm.is_some() {
                "wasm"
            } else {
                "native"
            }
            .to_owned(),
            command: options.args.clone(),
            auto_remove: false,
            labels: BTreeMap::new(),
            settings: ContainerSettings::default(),
        };
        let created = Created {
            config,
            spec,
            launch,
            network,
            mounts,
            warnings,
        };
        if let Err(error) = self.write_step(&created, &root) {
            drop(self.remove_records(&created.config));
            return Err(error);
        }
        Ok(Step { created })
    }

    /// The module of a step whose program is WebAssembly: its first bytes say so.
    fn wasm_step(
        &self,
        root: &LayeredRoot,
        options: &StepOptions,
        program: &str,
        network: &NetworkMode,
    ) -> Result<Option<WasmModule>, EngineError> {
        let Some(path) = runtime_choice::find(root, program, &options.config.env) else {
            return Ok(None);
        };
        let head = root
            .read_bounded(&path, HEADER_LEN as u64)
            .unwrap_or_default();
        if !head.starts_with(b"\0asm") {
            return Ok(None);
        }
        let _kind: BinaryKind =
            binary_kind(program, &head).map_err(|reason| EngineError::Start {
                code: runtime::code::NOT_EXECUTABLE,
                message: format!("cannot run `{program}`: {reason}"),
            })?;
        let file = root.lookup(&path)?.host_path;
        let (module, _) = self.module_at(&file, program, &WasmOptions::default())?;
        Ok(Some(WasmModule {
            network: *network != NetworkMode::None,
            ..module
        }))
    }

    fn write_step(&self, created: &Created, root: &LayeredRoot) -> Result<(), EngineError> {
        let failed = EngineError::io("write the step's files");
        let tmp = self.layout.tmp().join(&created.config.id);
        let written = step_files(&tmp, created, root)
            .map_err(failed)
            .and_then(|()| {
                durable::publish(
                    &tmp,
                    &self.layout.container(&created.config.id),
                    Durability::Atomic,
                )
                .map_err(EngineError::io("put the step in place"))
            });
        if written.is_err() {
            drop(durable::remove_tree(&tmp));
        }
        written
    }

    /// Starts a step, its output attached.
    ///
    /// # Errors
    /// As [`Engine::start_created`].
    pub fn start_step(&self, step: &Step, wanted: Wanted) -> Result<Session, EngineError> {
        self.start_created(&step.created, None, Some(wanted))
    }

    /// Ends a step that runs, at once.
    ///
    /// # Errors
    /// When its monitor is gone.
    pub fn kill_step(&self, session: &Session) -> Result<(), EngineError> {
        session.tell(&Request::Stop {
            signal: Some(9),
            timeout_ms: Some(0),
        })
    }

    /// Where the step's changes are.
    #[must_use]
    pub fn step_upper(&self, step: &Step) -> PathBuf {
        self.layout.container(&step.created.config.id).join("upper")
    }

    /// Removes what is left of a step that has ended.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove_step(&self, step: &Step) -> Result<(), EngineError> {
        self.remove_records(&step.created.config)
    }

    /// The user and group that a text means in the image of these layers, for files that are given
    /// to them: a user without a group gives its number to both.
    ///
    /// # Errors
    /// When there is no such user or group, or an ordinary user has no such id to give.
    pub fn owner_of(&self, text: &str, root: &LayeredRoot) -> Result<(u32, u32), EngineError> {
        let mut found = user::resolve(text, root)?;
        if !text.contains(':') {
            found.gid = found.uid;
        }
        found.groups.clear();
        if let Some(namespace) = self.user_namespace
            && !namespace.is_single()
        {
            found.require_mapped(namespace)?;
        }
        Ok((found.uid, found.gid))
    }

    /// Lets go of layers of the builder's cache, and removes those that no image needs.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn unpin_layers(&self, layers: &[DiffId]) -> Result<u64, EngineError> {
        Ok(self.store.unpin_layers(layers)?)
    }
}

impl StepMount {
    fn settled(&self) -> ContainerMount {
        let (kind, source, mut options) = match &self.source {
            StepSource::Path(path) => (
                "bind",
                path.clone(),
                vec!["rbind".to_owned(), "rprivate".to_owned()],
            ),
            StepSource::Memory(own) => {
                let mut options: Vec<String> = ["nosuid", "nodev"].map(str::to_owned).to_vec();
                options.extend(own.iter().cloned());
                ("tmpfs", PathBuf::from("tmpfs"), options)
            }
        };
        if self.readonly {
            options.push(if kind == "bind" { "rro" } else { "ro" }.to_owned());
        }
        ContainerMount {
            kind: kind.to_owned(),
            volume: None,
            filesystem: kind.to_owned(),
            source,
            target: self.target.clone(),
            options,
            readonly: self.readonly,
            copy: false,
            subpath: None,
            owner_shift: None,
            driver: None,
            image: None,
        }
    }
}

/// Whether a text names a signal: `TERM`, `SIGTERM` or `15`.
#[must_use]
pub fn is_signal(text: &str) -> bool {
    runtime_native::signal_number(text).is_some_and(|number| number > 0)
}

fn step_files(dir: &Path, created: &Created, root: &LayeredRoot) -> io::Result<()> {
    for name in ["upper", "work"] {
        DirBuilder::new().mode(0o755).create(dir.join(name))?;
    }
    // The uppermost layer decides what the root directory looks like, and this will be it.
    let found = root.lookup(Path::new("/")).map_err(io::Error::other)?;
    let upper = dir.join("upper");
    if (found.uid, found.gid) != (0, 0) {
        chown(&upper, Some(found.uid), Some(found.gid))?;
    }
    fs::set_permissions(&upper, Permissions::from_mode(found.mode & 0o7777))?;
    let write = |name: &str, bytes: &[u8]| durable::create_file(&dir.join(name), bytes, 0o644);
    let (hosts, resolv_conf) = first_files(&created.network);
    let hostname = created.spec.hostname().as_deref().unwrap_or(HOSTNAME);
    write("hostname", format!("{hostname}\n").as_bytes())?;
    write("hosts", hosts.as_bytes())?;
    write("resolv.conf", resolv_conf.as_bytes())?;
    created.network.write(dir).map_err(io::Error::other)?;
    crate::mounts::write(dir, &[]).map_err(io::Error::other)?;
    ContainerState::created()
        .write(dir)
        .map_err(io::Error::other)?;
    created.config.write(dir).map_err(io::Error::other)
}
