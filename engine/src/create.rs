//! A container is created: image resolved, runtime chosen, specification written, name claimed.
//! Its directory is built under `tmp/` and appears complete or not at all.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::{LayeredRoot, RunConfig};
use oci_spec::runtime::Spec;
use runtime::RestartPolicy;
use runtime_native::real_signal;
use state::{ContainerConfig, ContainerSettings, ContainerState, VERSION, clock};
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::health::HealthCheck;
use crate::isolation::{self, IpcMode, Share, SharedNamespace, UserMode};
use crate::log::{LogOptions, LogSubject};
use crate::mounts::{self, ContainerMount};
use crate::network::{ContainerNetwork, NetworkMode, first_files};
use crate::options::ContainerOptions;
use crate::runtime_choice::WasmModule;
use crate::settle_mounts::Settled;
use crate::subject::Subject;
use crate::{Engine, EngineError, full_socket, memory, plug, spec, user};

/// Ids are given out in milliseconds; a caller that was stopped meanwhile is not waited for.
const IDS_TIMEOUT: Duration = Duration::from_secs(10);

/// Docker's pattern for names, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && text.len() > 1
        && text.len() < 200
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// A container that was created, with what its start needs.
#[derive(Debug)]
pub struct Created {
    /// Its record.
    pub config: ContainerConfig,
    /// Its specification.
    pub(crate) spec: Spec,
    /// How it is started.
    pub(crate) launch: Launch,
    /// Its network.
    pub(crate) network: ContainerNetwork,
    /// What is mounted into it.
    pub(crate) mounts: Vec<ContainerMount>,
    /// What will not work as its author may think, one line each.
    pub warnings: Vec<String>,
}

/// What a start needs besides the specification: `launch.json` in the container's directory.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Launch {
    /// Read-only layers, uppermost first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) interactive: bool,
    pub(crate) terminal: bool,
    pub(crate) stop_signal: i32,
    /// Milliseconds between that signal and SIGKILL.
    #[serde(default)]
    pub(crate) stop_timeout_ms: Option<u64>,
    /// The module of a wasm container.
    pub(crate) wasm: Option<WasmModule>,
    /// A working directory that was asked for is made when it is missing.
    pub(crate) create_cwd: bool,
    /// Its files need not survive a power cut.
    #[serde(default)]
    pub(crate) volatile: bool,
    /// Namespaces of other containers.
    #[serde(default)]
    pub(crate) shared: Vec<SharedNamespace>,
    /// Others may share its IPC namespace.
    #[serde(default)]
    pub(crate) shareable_ipc: bool,
    /// Docker's filter of system calls; otherwise the specification's, or none.
    #[serde(default = "default_filter")]
    pub(crate) default_filter: bool,
    /// A built-in first process stands before the program.
    #[serde(default)]
    pub(crate) init: bool,
    /// Where the steps of the first start go.
    #[serde(skip)]
    pub(crate) trace: Option<PathBuf>,
    #[serde(default)]
    pub(crate) restart: RestartPolicy,
    #[serde(default)]
    pub(crate) log: LogOptions,
    #[serde(default)]
    pub(crate) health: Option<HealthCheck>,
}

/// Of a container that was made before there was a choice.
fn default_filter() -> bool {
    true
}

impl Engine {
    /// Creates a container of an image in the store.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be done; then nothing is left of it.
    pub fn create(&self, options: &ContainerOptions) -> Result<Created, EngineError> {
        if options.auto_remove && options.restart != RestartPolicy::No {
            let text = "cannot use --rm with --restart: what is removed cannot be started again";
            return Err(EngineError::Unsupported(text.to_owned()));
        }
        let nobody = LogSubject {
            config: None,
            env: &[],
        };
        options.log.plan(self, nobody)?;
        memory::check(options.memory_bytes)?;
        // Until the container's record is there, nothing else says that its layers are needed.
        let _use = self.use_images()?;
        let subject = self.subject(options)?;
        let volumes = subject.config.volumes.keys().cloned();
        let settled = self.settle_mounts(&options.mounts, &options.volumes_from, volumes)?;
        let created = self.create_of(options, subject, &settled);
        if created.is_err() {
            self.unsettle(&settled);
        }
        created
    }

    fn create_of(
        &self,
        options: &ContainerOptions,
        subject: Subject,
        settled: &Settled,
    ) -> Result<Created, EngineError> {
        let http_port = subject.http_port(&options.network_options.ports);
        let args = subject.args;
        let Some(program) = args.first() else {
            return Err(EngineError::NoCommand(options.image.clone()));
        };
        let root = LayeredRoot::new(subject.layers.clone());
        let id = random_id().map_err(EngineError::io("make an id"))?;
        let short = id.get(..12).unwrap_or_default().to_owned();
        let run = &subject.config;
        let hosts_name = self.shared_hostname(options)?;
        let hostname = options.hostname.as_deref().or(hosts_name.as_deref());
        let hostname = hostname.unwrap_or(&short);
        let mut warnings = Vec::new();
        let exposed: Vec<String> = run.exposed_ports.keys().cloned().collect();
        let network = self.settle_network(
            &options.network,
            &options.network_options,
            &exposed,
            hostname,
            &mut warnings,
        )?;
        let mut wasm = match &subject.module {
            Some(path) => {
                let (module, info) = self.module_at(path, program, &subject.wasm)?;
                warnings.extend(socket_warning(&info));
                Some(WasmModule {
                    port: http_port,
                    network: network.mode != NetworkMode::None,
                    readonly: options.read_only,
                    memory_bytes: options.memory_bytes.map(guest_memory),
                    ..module
                })
            }
            None => None,
        };
        let user = options.user.as_deref().unwrap_or(&run.user);
        let mut user = user::resolve(user, &root)?;
        user::add_groups(&mut user, &options.isolation.groups, &root)?;
        if let Some(namespace) = self.user_namespace {
            user.require_mapped(namespace)?;
        }
        // Who shares a network shares the files that belong to it.
        let files_of = match &network.mode {
            NetworkMode::Container(other) => other,
            _ => &id,
        };
        let dir = self.layout.container(files_of);
        let mut spec = spec::make(&spec::Parts {
            options,
            config: run,
            user: &user,
            args: args.clone(),
            hostname,
            mounts: &settled.mounts,
            files: &dir,
            user_namespace: self.user_namespace,
            wasm: wasm.is_some(),
        })?;
        // Until the record is there nothing else says which ids are taken.
        let _ids = match options.isolation.users {
            UserMode::Auto { .. } => Some(self.lock_ids()?),
            UserMode::Host | UserMode::KeepId => None,
        };
        let applied = isolation::apply(
            &isolation::Context {
                engine: self,
                options,
                id: &id,
                wasm: wasm.as_ref().map(|_| subject.choice.reason.to_string()),
            },
            &mut spec,
        )?;
        if let (Some(module), Some(_)) = (&mut wasm, &subject.composed) {
            module.path = self.layout.container(&id).join(plug::FILE);
        }
        let is_wasm = wasm.is_some();
        warnings.extend(options.health.warning(run, is_wasm));
        warnings.extend(full_socket::warning(&self.layout, &settled.mounts));
        let health = options.health.check(run, is_wasm)?;
        let restarts = health.as_ref().is_some_and(|h| h.restart_on_unhealthy);
        if options.auto_remove && restarts {
            let text = "cannot use --rm with --restart-on-unhealthy: what is removed cannot be started again";
            return Err(EngineError::Unsupported(text.to_owned()));
        }
        let launch = Launch {
            shared: applied.shared,
            shareable_ipc: options.isolation.ipc == IpcMode::Shareable,
            default_filter: applied.default_filter,
            init: options.isolation.init,
            trace: options.trace.clone(),
            layers: subject.layers,
            interactive: options.interactive,
            terminal: options.console.is_some(),
            stop_signal: stop_signal(options, run)?,
            stop_timeout_ms: stop_timeout(options, run).map(|seconds| seconds.saturating_mul(1000)),
            wasm,
            create_cwd: true,
            restart: options.restart,
            log: options.log.clone(),
            health,
            volatile: options.auto_remove,
        };
        // Made before the name is claimed: a claim without a directory belongs to nobody.
        let tmp = self.layout.tmp().join(&id);
        let made = DirBuilder::new().mode(0o700).create(&tmp);
        made.map_err(EngineError::io("make the container's directory"))?;
        if let Some(file) = subject.composed
            && let Err(error) = file.persist(tmp.join(plug::FILE))
        {
            drop(durable::remove_tree(&tmp));
            return Err(EngineError::io("keep the module with its plugs")(
                error.error,
            ));
        }
        let name = self.claim_name(options.name.as_deref(), &id);
        if name.is_err() {
            drop(durable::remove_tree(&tmp));
        }
        let name = name?;
        let config = ContainerConfig {
            version: VERSION,
            id,
            name,
            image: options.image.clone(),
            image_id: subject.id,
            created: clock::now(),
            runtime: subject.choice.runtime.to_string(),
            command: args,
            auto_remove: options.auto_remove,
            labels: labels(options, run),
            settings: settings(options, run),
        };
        if let Err(error) = self.write(&config, &spec, &launch, &network, &settled.mounts) {
            // The claim is given back; a claim that stays is found by the next check.
            drop(durable::remove_tree(
                &self.layout.container_names().join(&config.name),
            ));
            return Err(error);
        }
        self.record_container_event(&config, "create", &[]);
        Ok(Created {
            config,
            spec,
            launch,
            network,
            mounts: settled.mounts.clone(),
            warnings,
        })
    }

    /// The host's own name, for a container that shares it.
    fn shared_hostname(&self, options: &ContainerOptions) -> Result<Option<String>, EngineError> {
        if options.isolation.uts != Share::Host {
            return Ok(None);
        }
        if options.hostname.is_some() || options.network_options.domainname.is_some() {
            let text =
                "cannot use --hostname and --domainname with --uts host: the names are the host's";
            return Err(EngineError::Unsupported(text.to_owned()));
        }
        let name = rustix::system::uname();
        Ok(Some(name.nodename().to_string_lossy().into_owned()))
    }

    fn lock_ids(&self) -> Result<FileLock, EngineError> {
        let path = self.layout.root().join("ids.lock");
        FileLock::acquire(&path, Mode::Exclusive, IDS_TIMEOUT)
            .map_err(EngineError::io("lock the ids of containers"))
    }

    fn write(
        &self,
        config: &ContainerConfig,
        spec: &Spec,
        launch: &Launch,
        network: &ContainerNetwork,
        mounts: &[ContainerMount],
    ) -> Result<(), EngineError> {
        let tmp = self.layout.tmp().join(&config.id);
        let built = write_files(&tmp, config, spec, launch, network, mounts)
            .map_err(EngineError::io("write the container's files"))
            .and_then(|()| {
                durable::publish(&tmp, &self.layout.container(&config.id), Durability::Atomic)
                    .map_err(EngineError::io("put the container in place"))
            });
        if built.is_err() {
            drop(durable::remove_tree(&tmp));
        }
        built
    }

    /// Claims the wanted name, or one that is free.
    pub(crate) fn claim_name(&self, wanted: Option<&str>, id: &str) -> Result<String, EngineError> {
        let names = self.layout.container_names();
        let claim =
            |name: &str| durable::claim_file(&names.join(name), id.as_bytes(), Durability::Atomic);
        if let Some(name) = wanted {
            if !is_name(name) {
                return Err(EngineError::BadName(name.to_owned()));
            }
            return match claim(name) {
                Ok(()) => Ok(name.to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let _lock = self.lock_names()?;
                    self.take_over_name(name)?;
                    claim(name).map_err(EngineError::io("claim the container's name"))?;
                    Ok(name.to_owned())
                }
                Err(error) => Err(EngineError::io("claim the container's name")(error)),
            };
        }
        let seed = u64::from_str_radix(id.get(..12).unwrap_or("0"), 16).unwrap_or(0);
        for attempt in 0..1000 {
            let name = made_up_name(seed.wrapping_add(attempt), attempt > 50);
            match claim(&name) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(EngineError::io("claim the container's name")(error)),
            }
        }
        Err(EngineError::io("find a free name")(
            io::ErrorKind::AlreadyExists.into(),
        ))
    }
}

/// A random container id: 64 hexadecimal digits.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Preview 1 has no way to make a socket: a module that imports socket calls may be meant for a host
/// that hands it one.
fn socket_warning(info: &runtime_wasm::WasmInfo) -> Option<String> {
    let calls = info.preview1_sockets();
    (!calls.is_empty()).then(|| {
        let calls = calls.join(", ");
        format!("the module imports {calls}; preview 1 has no sockets, so these calls fail")
    })
}

/// What of a memory limit is the guest's: the wasm host itself needs some, and a guest that reaches
/// its own bound fails with a message instead of being killed.
pub(crate) fn guest_memory(limit: i64) -> u64 {
    const HOST_BYTES: u64 = 8 << 20;
    let limit = u64::try_from(limit).unwrap_or(0);
    limit.saturating_sub(HOST_BYTES).max(limit / 2)
}

/// The user's signal, else the image's, by name or number; SIGTERM otherwise.
fn stop_signal(options: &ContainerOptions, run: &RunConfig) -> Result<i32, EngineError> {
    const SIGTERM: i32 = 15;
    if let Some(text) = &options.stop_signal {
        return real_signal(text)
            .ok_or_else(|| EngineError::Unsupported(format!("`{text}` is not a signal")));
    }
    let own = run.stop_signal.as_deref();
    Ok(own.and_then(real_signal).unwrap_or(SIGTERM))
}

/// The user's seconds between that signal and SIGKILL, else the image's.
fn stop_timeout(options: &ContainerOptions, run: &RunConfig) -> Option<u64> {
    options.stop_timeout.or(run.stop_timeout.map(u64::from))
}

/// The image's labels, and over them the user's.
fn labels(options: &ContainerOptions, run: &RunConfig) -> BTreeMap<String, String> {
    let mut labels = run.labels.clone();
    labels.extend(options.labels.clone());
    labels
}

/// What only `inspect` and `commit` ask for.
fn settings(options: &ContainerOptions, run: &RunConfig) -> ContainerSettings {
    let user = options.user.as_deref().unwrap_or(&run.user);
    // As with the command itself: a new entrypoint drops the image's arguments.
    let image_cmd = || run.cmd.clone().filter(|_| options.entrypoint.is_none());
    let own_cmd = (!options.command.is_empty()).then(|| options.command.clone());
    ContainerSettings {
        entrypoint: options.entrypoint.clone().or(run.entrypoint.clone()),
        cmd: own_cmd.or_else(image_cmd),
        user: user.to_owned(),
        stop_signal: options.stop_signal.clone().or(run.stop_signal.clone()),
        stop_timeout: stop_timeout(options, run),
        cid_file: options.cid_file.clone(),
    }
}

fn write_files(
    dir: &Path,
    config: &ContainerConfig,
    spec: &Spec,
    launch: &Launch,
    network: &ContainerNetwork,
    mounts: &[ContainerMount],
) -> io::Result<()> {
    for name in ["upper", "work"] {
        DirBuilder::new().mode(0o755).create(dir.join(name))?;
    }
    // The mask of the caller does not decide what the container's root directory looks like.
    fs::set_permissions(dir.join("upper"), Permissions::from_mode(0o755))?;
    if let Some(first) = first_id(spec) {
        chown(dir.join("upper"), Some(first), Some(first))?;
    }
    let write = |name: &str, bytes: &[u8]| durable::create_file(&dir.join(name), bytes, 0o644);
    write("spec.json", &serde_json::to_vec(spec)?)?;
    write("launch.json", &serde_json::to_vec(launch)?)?;
    let (hosts, resolv_conf) = first_files(network);
    write("hostname", format!("{}\n", network.hostname).as_bytes())?;
    write("hosts", hosts.as_bytes())?;
    write("resolv.conf", resolv_conf.as_bytes())?;
    network.write(dir).map_err(io::Error::other)?;
    mounts::write(dir, mounts).map_err(io::Error::other)?;
    ContainerState::created()
        .write(dir)
        .map_err(io::Error::other)?;
    config.write(dir).map_err(io::Error::other)
}

/// The host's id that is the container's root, where it has users of its own.
fn first_id(spec: &Spec) -> Option<u32> {
    let maps = spec.linux().as_ref()?.uid_mappings().as_ref()?;
    maps.first().map(oci_spec::runtime::LinuxIdMapping::host_id)
}

/// A name like `brisk_cutter`, numbered when many are taken.
fn made_up_name(seed: u64, numbered: bool) -> String {
    const HOW: [&str; 16] = [
        "brisk", "calm", "bold", "keen", "swift", "steady", "bright", "quiet", "proud", "lively",
        "gentle", "hardy", "merry", "noble", "spry", "trim",
    ];
    const WHAT: [&str; 16] = [
        "cutter", "sloop", "ketch", "yawl", "brig", "schooner", "dory", "lugger", "pinnace",
        "tender", "skiff", "clipper", "galley", "dinghy", "barque", "trimaran",
    ];
    let pick = |list: &[&'static str; 16], shift: u32| {
        let index = usize::try_from((seed >> shift) % 16).unwrap_or(0);
        list.get(index).copied().unwrap_or("ketch")
    };
    let name = format!("{}_{}", pick(&HOW, 0), pick(&WHAT, 4));
    if numbered {
        format!("{name}_{}", seed % 10_000)
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        assert!(is_name("web-1.a_b"));
        for bad in ["", "a", "-a", "a/b", "..", "a b", "é1"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn made_up_names_are_names() {
        assert!((0..600).all(|seed| is_name(&made_up_name(seed, seed > 300))));
    }
}
