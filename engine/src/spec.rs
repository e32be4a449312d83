//! From an image and a user's options to an OCI runtime [`Spec`]: the container as Docker gives
//! it by default. Nothing below the engine knows about images, names or users.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RunConfig;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount,
    MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use runtime_native::capability;

use crate::mounts::ContainerMount;
use crate::options::{ContainerOptions, Network};
use crate::user::User;
use crate::{EngineError, UserNamespace};

/// Masked in Docker's way: what tells about the host or its kernel's memory.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only in Docker's way.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// `PATH` where the image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The quota's period, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// The parts that are settled by the time a specification is made.
pub(crate) struct Parts<'a> {
    pub(crate) options: &'a ContainerOptions,
    pub(crate) config: &'a RunConfig,
    pub(crate) user: &'a User,
    pub(crate) args: Vec<String>,
    pub(crate) hostname: &'a str,
    /// What is mounted besides the image.
    pub(crate) mounts: &'a [ContainerMount],
    /// `hosts`, `hostname` and `resolv.conf` on the host.
    pub(crate) files: &'a Path,
    /// Where the container's ids come from, for an ordinary user.
    pub(crate) user_namespace: Option<UserNamespace>,
    /// The program is the wasm host, which needs no capability and little of a Linux system.
    pub(crate) wasm: bool,
}

impl Parts<'_> {
    /// The last group that may open ICMP sockets: all of them, as far as they are mapped.
    fn last_group(&self) -> u32 {
        const LAST: u32 = 2_147_483_647;
        self.user_namespace
            .map_or(LAST, |ids| (ids.gids - 1).min(LAST))
    }
}

/// Makes the specification.
pub(crate) fn make(parts: &Parts<'_>) -> Result<Spec, EngineError> {
    build(parts).map_err(|error| {
        EngineError::Unsupported(format!("cannot describe the container: {error}"))
    })
}

fn build(parts: &Parts<'_>) -> Result<Spec, OciSpecError> {
    let options = parts.options;
    let mut kinds = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    let own_network = matches!(
        options.network,
        Network::None | Network::Default | Network::Joined(_)
    );
    if own_network {
        kinds.push(LinuxNamespaceType::Network);
    }
    let namespaces = kinds
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let owned = |paths: &[&str]| {
        paths
            .iter()
            .map(|&path| path.to_owned())
            .collect::<Vec<_>>()
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources(options)?);
    // The wasm host's procfs shows nothing but processes.
    linux = if parts.wasm {
        linux.masked_paths(Vec::new()).readonly_paths(Vec::new())
    } else {
        linux
            .masked_paths(owned(&MASKED))
            .readonly_paths(owned(&READONLY))
    };
    if own_network {
        // Only in a network namespace of its own: these are the host's otherwise.
        linux = linux.sysctl(HashMap::from([
            (
                "net.ipv4.ip_unprivileged_port_start".to_owned(),
                "0".to_owned(),
            ),
            (
                "net.ipv4.ping_group_range".to_owned(),
                format!("0 {}", parts.last_group()),
            ),
        ]));
    }
    let annotations = options.annotations.clone().into_iter().collect();
    let mut spec = SpecBuilder::default();
    if let Some(domain) = &options.network_options.domainname {
        spec = spec.domainname(domain.as_str());
    }
    spec.version("1.2.0")
        .annotations::<HashMap<String, String>>(annotations)
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(options.read_only)
                .build()?,
        )
        .hostname(parts.hostname)
        .process(process(parts)?)
        .mounts(mounts(parts)?)
        .linux(linux.build()?)
        .build()
}

fn process(parts: &Parts<'_>) -> Result<Process, OciSpecError> {
    let user = UserBuilder::default()
        .uid(parts.user.uid)
        .gid(parts.user.gid)
        .additional_gids(parts.user.groups.clone())
        .build()?;
    // The program of another user has no capability in force, as after any change of user.
    let granted = if parts.wasm { 0 } else { capability::DEFAULT };
    let set: std::collections::HashSet<Capability> =
        capability::to_spec(granted).into_iter().collect();
    let in_force = if parts.user.uid == 0 {
        set.clone()
    } else {
        Default::default()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .permitted(in_force.clone())
        .effective(in_force)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()?;
    let cwd = parts
        .options
        .workdir
        .as_ref()
        .unwrap_or(&parts.config.working_dir);
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    ProcessBuilder::default()
        .terminal(parts.options.console.is_some())
        .user(user)
        .args(parts.args.clone())
        .env(environment(parts))
        .cwd(cwd)
        .capabilities(capabilities)
        .rlimits(Vec::new())
        .no_new_privileges(parts.wasm || parts.options.no_new_privileges)
        .build()
}

/// The environment, each key once: defaults, then the image's, then the user's.
fn environment(parts: &Parts<'_>) -> Vec<String> {
    // A wasm guest knows neither programs nor users.
    let mut env: Vec<String> = match parts.wasm {
        true => Vec::new(),
        false => vec![
            DEFAULT_PATH.to_owned(),
            format!("HOSTNAME={}", parts.hostname),
        ],
    };
    if parts.options.console.is_some() {
        env.push("TERM=xterm".to_owned());
    }
    if !parts.wasm {
        env.push(format!("HOME={}", parts.user.home));
    }
    overlay_environment(&mut env, &parts.config.env);
    overlay_environment(&mut env, &parts.options.env);
    env
}

/// Puts `KEY=value` pairs into an environment, each key once; a `KEY` alone removes it.
pub(crate) fn overlay_environment(env: &mut Vec<String>, pairs: &[String]) {
    for pair in pairs {
        let key = pair.split('=').next().unwrap_or(pair);
        let place = env
            .iter()
            .position(|old| old.split('=').next() == Some(key));
        match (place, pair.contains('=')) {
            (Some(at), true) => env[at].clone_from(pair),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(pair.clone()),
            (None, false) => {}
        }
    }
}

fn mount(
    destination: &str,
    kind: &str,
    source: &str,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(
            options
                .iter()
                .map(|&option| option.to_owned())
                .collect::<Vec<_>>(),
        )
        .build()
}

fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = if parts.wasm {
        wasm_mounts()?
    } else {
        linux_mounts()?
    };
    for name in ["resolv.conf", "hostname", "hosts"] {
        let source = parts.files.join(name);
        mounts.push(bind(&source, Path::new(&format!("/etc/{name}")), false)?);
    }
    // Somebody's own `/dev` is taken as it is, with what lies below it.
    let hides = |own: &ContainerMount, mount: &Mount| {
        own.target == Path::new("/dev") && mount.destination().starts_with("/dev")
    };
    // A shared memory of its own size takes the place of the usual one.
    let replaced = |mount: &Mount| {
        parts
            .mounts
            .iter()
            .any(|own| own.target == *mount.destination() || hides(own, mount))
    };
    mounts.retain(|mount| !replaced(mount));
    for mount in parts.mounts {
        mounts.push(mount.to_spec(parts.user)?);
    }
    Ok(mounts)
}

/// What a wasm guest knows of a Linux system: devices and a scratch directory. The procfs is the
/// wasm host's own and not in the guest's tree.
fn wasm_mounts() -> Result<Vec<Mount>, OciSpecError> {
    Ok(vec![
        mount(
            "/proc",
            "proc",
            "proc",
            &["nosuid", "noexec", "nodev", "subset=pid"],
        )?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        )?,
        pts()?,
    ])
}

fn pts() -> Result<Mount, OciSpecError> {
    mount(
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    )
}

fn linux_mounts() -> Result<Vec<Mount>, OciSpecError> {
    Ok(vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        pts()?,
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        )?,
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["ro", "nosuid", "noexec", "nodev"],
        )?,
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        )?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )?,
    ])
}

fn bind(source: &Path, target: &Path, readonly: bool) -> Result<Mount, OciSpecError> {
    let mut options = vec!["rbind".to_owned(), "rprivate".to_owned()];
    if readonly {
        options.push("rro".to_owned());
    }
    MountBuilder::default()
        .destination(PathBuf::from(target))
        .typ("bind")
        .source(PathBuf::from(source))
        .options(options)
        .build()
}

fn resources(options: &ContainerOptions) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices()?);
    if let Some(bytes) = options.memory_bytes {
        // As much swap again, as Docker gives.
        let memory = LinuxMemoryBuilder::default()
            .limit(bytes)
            .swap(bytes.saturating_mul(2));
        resources = resources.memory(memory.build()?);
    }
    if let Some(nano) = options.nano_cpus {
        let quota = i128::from(nano) * i128::from(CPU_PERIOD_US) / 1_000_000_000;
        let cpu = LinuxCpuBuilder::default()
            .period(CPU_PERIOD_US)
            .quota(i64::try_from(quota).unwrap_or(i64::MAX));
        resources = resources.cpu(cpu.build()?);
    }
    if let Some(limit) = options.pids_limit {
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    resources.build()
}

/// No device but those that every container has (the control group adds their rules).
fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let nothing = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .typ(LinuxDeviceType::A)
        .access("rwm");
    Ok(vec![nothing.build()?])
}
