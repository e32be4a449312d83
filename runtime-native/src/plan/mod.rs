//! From an OCI runtime [`Spec`] to an [`InitPlan`]: everything that can be looked up, parsed or
//! refused before a process exists (runtime-spec v1.2 `config.md`, `config-linux.md`).

mod hook;
mod label;
mod mount;
mod namespace;
mod net_device;
mod process;
mod rootfs;
mod schedule;
mod sysctl;
mod validate;

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::Spec;
use runtime::{
    CgroupPlan, DevicePlan, HooksPlan, InitPlan, ProcessPlan, RootChange, RootfsPlan, WasmPlan,
};
use sys::clone::namespace as flag;

pub use crate::cgroup::{Hierarchy, detect};
pub(crate) use mount::OPTIONS as MOUNT_OPTIONS;
pub(crate) use rootfs::unescaped;
pub(crate) use schedule::cpu_mask;

/// Why a container cannot be described to the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A required part of the specification is missing.
    #[error("the container's specification has no `{0}`")]
    Missing(&'static str),
    /// A string with a NUL byte.
    #[error("`{0}` holds a NUL byte")]
    Nul(String),
    /// Something that is not known.
    #[error("{field} has the unknown value `{value}`")]
    Unknown {
        /// The field of the specification.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Something that this host or this user cannot give.
    #[error("cannot set {option}: {why}")]
    Unavailable {
        /// The option or field.
        option: String,
        /// What is missing.
        why: String,
    },
    /// A field that breaks a rule of the specification.
    #[error("`{path}` {rule}")]
    Rule {
        /// The field, as a path through the JSON document.
        path: String,
        /// What it must be or must not be.
        rule: &'static str,
    },
    /// The seccomp profile cannot be compiled.
    #[error("cannot compile the seccomp profile")]
    Seccomp(#[source] crate::seccomp::SeccompError),
}

/// What a plan needs besides the specification.
#[derive(Debug)]
pub struct Options<'a> {
    /// The root file system, which takes the place of the specification's `root.path`.
    pub rootfs: RootfsPlan,
    /// The container's id: the name of its control groups.
    pub id: &'a str,
    /// The control groups of this host.
    pub hierarchy: &'a Hierarchy,
    /// The group that systemd has made for the container: its path on v2, with a leading slash.
    pub scope: Option<&'a str>,
    /// The caller stands in a user namespace, with so many group ids mapped.
    pub user_namespace: Option<u32>,
    /// Run the wasm host instead of `process.args`.
    pub wasm: Option<WasmPlan>,
    /// Make the working directory when it is missing.
    pub create_cwd: bool,
    /// A compiled seccomp filter that takes the place of the specification's.
    pub seccomp: Option<Vec<u8>>,
    /// The bundle's directory, absolute; empty when there is none.
    pub bundle: &'a str,
    /// How the root is entered.
    pub root_change: RootChange,
    /// So many descriptors from 3 on stay open for the program.
    pub preserve_descriptors: u32,
    /// An executable that becomes the program's parent inside the container.
    pub init: Option<CString>,
}

impl<'a> Options<'a> {
    /// What most containers have: no bundle, no wasm, a root that is pivoted into.
    #[must_use]
    pub fn new(rootfs: RootfsPlan, id: &'a str, hierarchy: &'a Hierarchy) -> Self {
        Self {
            rootfs,
            id,
            hierarchy,
            scope: None,
            user_namespace: None,
            wasm: None,
            create_cwd: false,
            seccomp: None,
            bundle: "",
            root_change: RootChange::Pivot,
            preserve_descriptors: 0,
            init: None,
        }
    }
}

/// Makes the plan.
///
/// # Errors
/// The field that is missing, unknown or cannot be had here.
pub fn plan(spec: &Spec, options: Options<'_>) -> Result<InitPlan, PlanError> {
    let linux = spec.linux().as_ref().ok_or(PlanError::Missing("linux"))?;
    let process = spec
        .process()
        .as_ref()
        .ok_or(PlanError::Missing("process"))?;
    validate::check(spec, linux, process)?;
    let namespaces = namespace::plan(linux.namespaces().as_deref().unwrap_or_default())?;
    rootfs::check(&options.rootfs, &namespaces)?;
    let new = |flag| {
        namespaces
            .iter()
            .any(|n| n.flag == flag && n.path.is_none())
    };
    let loopback_up = new(flag::NET);
    let cgroup = crate::cgroup::plan(spec, &options)?;
    let mounts = mount::plan(
        spec.mounts().as_deref().unwrap_or_default(),
        &options,
        &cgroup,
        linux,
    )?;
    // A directory of the host that is `/dev` stays as it is.
    let has_own_dev = !spec.mounts().iter().flatten().any(is_bound_dev);
    Ok(InitPlan {
        user_map: namespace::user_map(linux, &namespaces)?,
        time_offsets: namespace::time_offsets(linux, &namespaces)?,
        propagation: namespace::propagation(linux, &options.rootfs)?,
        root_change: namespace::root_change(&namespaces, options.root_change),
        hidden: rootfs::hidden(&options)?,
        hooks: hook::plan(spec, options.id, options.bundle)?,
        loopback_up,
        net_devices: net_device::plan(linux, &namespaces)?,
        cgroup,
        mounts,
        devices: match has_own_dev {
            true => devices(linux.devices().as_deref().unwrap_or_default())?,
            false => Vec::new(),
        },
        symlinks: match has_own_dev {
            true => links()?,
            false => Vec::new(),
        },
        masked_paths: once(c_strings(
            linux.masked_paths().as_deref().unwrap_or_default(),
        )?),
        readonly_paths: c_strings(linux.readonly_paths().as_deref().unwrap_or_default())?,
        hostname: spec
            .hostname()
            .as_ref()
            .map(|name| c_string(name))
            .transpose()?,
        domainname: spec
            .domainname()
            .as_ref()
            .map(|name| c_string(name))
            .transpose()?,
        sysctl: sysctl::plan(linux, &namespaces)?,
        process: process::plan(process, linux, &options)?,
        rootfs: options.rootfs,
        namespaces,
        trace: None,
    })
}

fn is_bound_dev(mount: &oci_spec::runtime::Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.destination() == Path::new("/dev")
        && options
            .iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// The devices that every container has (runtime-spec `config-linux.md#default-devices`), then the
/// specified ones.
fn devices(specified: &[oci_spec::runtime::LinuxDevice]) -> Result<Vec<DevicePlan>, PlanError> {
    const DEFAULT: [(&str, u32, u32); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    const S_IFCHR: u32 = 0o020_000;
    const S_IFBLK: u32 = 0o060_000;
    const S_IFIFO: u32 = 0o010_000;
    let mut devices = Vec::with_capacity(DEFAULT.len() + specified.len());
    for (path, major, minor) in DEFAULT {
        // The specification's own entry for a path is the one that counts.
        if specified.iter().any(|d| d.path().as_os_str() == path) {
            continue;
        }
        let path = c_string(path)?;
        devices.push(DevicePlan {
            path,
            mode: S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
        });
    }
    for device in specified {
        let kind = match device.typ() {
            oci_spec::runtime::LinuxDeviceType::B => S_IFBLK,
            oci_spec::runtime::LinuxDeviceType::P => S_IFIFO,
            _ => S_IFCHR,
        };
        let number = |value: i64, field| {
            u32::try_from(value).map_err(|_| PlanError::Unknown {
                field,
                value: value.to_string(),
            })
        };
        devices.push(DevicePlan {
            path: c_string(&device.path().to_string_lossy())?,
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: number(device.major(), "linux.devices.major")?,
            minor: number(device.minor(), "linux.devices.minor")?,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    Ok(devices)
}

/// The links that every container has (runtime-spec `runtime-linux.md#dev-symbolic-links`).
fn links() -> Result<Vec<(CString, CString)>, PlanError> {
    [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/kcore", "/dev/core"),
    ]
    .into_iter()
    .map(|(target, path)| Ok((c_string(target)?, c_string(path)?)))
    .collect()
}

/// Options for a specification of which only a part is planned again.
pub(crate) fn bare_options<'a>(
    id: &'a str,
    hierarchy: &'a Hierarchy,
    bundle: &'a str,
) -> Options<'a> {
    Options {
        rootfs: RootfsPlan::Directory {
            path: c"/".to_owned(),
            readonly: false,
        },
        id,
        hierarchy,
        scope: None,
        user_namespace: None,
        wasm: None,
        create_cwd: false,
        seccomp: None,
        bundle,
        root_change: RootChange::Pivot,
        preserve_descriptors: 0,
        init: None,
    }
}

/// The control groups of a container, found again; `scope` as in [`Options`].
pub(crate) fn cgroup_of(
    spec: &Spec,
    id: &str,
    hierarchy: &Hierarchy,
    scope: Option<&str>,
) -> Result<CgroupPlan, PlanError> {
    let options = Options {
        scope,
        ..bare_options(id, hierarchy, "")
    };
    crate::cgroup::plan(spec, &options)
}

/// The hooks of a container, found again.
pub(crate) fn hooks_of(spec: &Spec, id: &str, bundle: &str) -> Result<HooksPlan, PlanError> {
    hook::plan(spec, id, bundle)
}

/// A further program for a container of this specification.
pub(crate) fn exec_process(
    spec: &Spec,
    process: &oci_spec::runtime::Process,
    options: &Options<'_>,
) -> Result<ProcessPlan, PlanError> {
    let linux = spec.linux().as_ref().ok_or(PlanError::Missing("linux"))?;
    validate::check_process(process)?;
    let mut plan = process::plan(process, linux, options)?;
    if let Some(affinity) = process.exec_cpu_affinity() {
        plan.affinity = schedule::affinity(affinity)?;
    }
    Ok(plan)
}

/// `CLONE_NEW*` of all namespaces of a specification.
pub(crate) fn namespace_flags(spec: &Spec) -> u64 {
    namespaces_of(spec)
        .iter()
        .fold(0, |flags, n| flags | n.flag)
}

/// Whether a specification asks for a new namespace of this kind.
pub(crate) fn has_new_namespace(spec: &Spec, kind: u64) -> bool {
    namespace::is_new(&namespaces_of(spec), kind)
}

fn namespaces_of(spec: &Spec) -> Vec<runtime::Namespace> {
    let linux = spec.linux().as_ref();
    let specified = linux.and_then(|linux| linux.namespaces().as_deref());
    // Those of a container that exists were planned before.
    namespace::plan(specified.unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn c_string(text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_| PlanError::Nul(text.replace('\0', "\\0")))
}

/// Each of them at its first place: masking a path twice would only stack mounts.
fn once(paths: Vec<CString>) -> Vec<CString> {
    let mut kept: Vec<CString> = Vec::with_capacity(paths.len());
    for path in paths {
        if !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, PlanError> {
    texts.iter().map(|text| c_string(text)).collect()
}
