//! Namespaces that are not the container's own: the host's, another container's, and the user
//! namespaces that root gives to containers.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    MountBuilder, Spec,
};
use runtime::{InitPlan, MountPlan, MountSource, Namespace};
use serde::{Deserialize, Serialize};
use sys::clone::namespace as flag;

use super::apply::{Context, refused, without_namespace};
use super::options::{IpcMode, Share, UserMode};
use crate::start::c_path;
use crate::{Engine, EngineError};

/// Ids for containers whose users have none of the host's: above those that systemd and
/// `/etc/subuid` give out, below the ones that the kernel keeps (`systemd.io/UIDS-GIDS`).
const FIRST_ID: u32 = 1_879_048_192;
const SLOT: u32 = 1 << 16;
const SLOTS: u32 = 4096;

/// A namespace of another container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SharedNamespace {
    kind: SharedKind,
    /// The other container's id.
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SharedKind {
    Pid,
    /// With its `/dev/shm`.
    Ipc,
}

/// Applies `--pid`, `--ipc`, `--uts`, `--cgroupns` and `--userns`.
pub(super) fn apply(
    context: &Context<'_>,
    spec: &mut Spec,
) -> Result<Vec<SharedNamespace>, EngineError> {
    let options = &context.options.isolation;
    let mut shared = Vec::new();
    match &options.pid {
        Share::Private => {}
        Share::Host => {
            without_namespace(spec, LinuxNamespaceType::Pid);
            if context.binds_devices() {
                // A procfs of the host's processes cannot be mounted from a user namespace.
                bind_instead(spec, "/proc", &["rbind", "nosuid", "noexec", "nodev"])?;
            }
        }
        Share::Container(name) => {
            let id = other(context, "--pid", name)?;
            without_namespace(spec, LinuxNamespaceType::Pid);
            shared.push(SharedNamespace {
                kind: SharedKind::Pid,
                id,
            });
        }
    }
    match &options.ipc {
        IpcMode::Private | IpcMode::Shareable => {}
        IpcMode::None => without_mount(spec, "/dev/shm"),
        IpcMode::Host => {
            without_namespace(spec, LinuxNamespaceType::Ipc);
            for target in ["/dev/shm", "/dev/mqueue"] {
                match Path::new(target).is_dir() {
                    true => bind_instead(spec, target, &["rbind", "nosuid", "noexec", "nodev"])?,
                    false => without_mount(spec, target),
                }
            }
        }
        IpcMode::Container(name) => {
            let id = other(context, "--ipc", name)?;
            if !context.engine.has_shareable_ipc(&id)? {
                return Err(refused(
                    &format!("--ipc container:{name}"),
                    "that container was not made with --ipc shareable",
                ));
            }
            without_namespace(spec, LinuxNamespaceType::Ipc);
            without_mount(spec, "/dev/shm");
            shared.push(SharedNamespace {
                kind: SharedKind::Ipc,
                id,
            });
        }
    }
    if options.uts == Share::Host {
        without_namespace(spec, LinuxNamespaceType::Uts);
        spec.set_hostname(None).set_domainname(None);
    }
    if options.cgroup_namespace == Share::Host {
        without_namespace(spec, LinuxNamespaceType::Cgroup);
    }
    users(context, spec)?;
    Ok(shared)
}

/// The other container's id.
fn other(context: &Context<'_>, option: &str, name: &str) -> Result<String, EngineError> {
    let named = format!("{option} container:{name}");
    if context.engine.is_in_user_namespace() {
        return Err(refused(
            &named,
            "the containers of an ordinary user stand in user namespaces of their own",
        ));
    }
    if context.options.isolation.users != UserMode::Host {
        return Err(refused(
            &named,
            "a container with --userns may not enter what belongs to another one",
        ));
    }
    let container = context.engine.container(name)?;
    if container.config.runtime == "wasm" {
        return Err(refused(&named, "it is a wasm container"));
    }
    Ok(container.config.id)
}

fn without_mount(spec: &mut Spec, target: &str) {
    for mounts in spec.mounts_mut().iter_mut() {
        mounts.retain(|mount| mount.destination() != Path::new(target));
    }
}

/// The host's directory in the place of a new file system.
fn bind_instead(spec: &mut Spec, target: &str, options: &[&str]) -> Result<(), EngineError> {
    let bound = MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(target)
        .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| refused("the host's namespaces", &error.to_string()))?;
    let is_target = |mount: &&mut Mount| mount.destination() == Path::new(target);
    if let Some(mount) = spec.mounts_mut().iter_mut().flatten().find(is_target) {
        *mount = bound;
    }
    Ok(())
}

fn users(context: &Context<'_>, spec: &mut Spec) -> Result<(), EngineError> {
    let options = &context.options.isolation;
    let (first, size) = match options.users {
        UserMode::Host => return Ok(()),
        _ if context.engine.is_in_user_namespace() => {
            return Err(refused(
                "--userns",
                "the kernel lets only root show an image's files with other ids (mount_setattr(2), MOUNT_ATTR_IDMAP), and ketch copies no image; an ordinary user's container has a user namespace already",
            ));
        }
        _ if options.privileged => {
            return Err(refused(
                "--userns with --privileged",
                "one takes away what the other gives",
            ));
        }
        UserMode::KeepId => (0, u32::MAX),
        UserMode::Auto { size } => {
            if !(1..=SLOT).contains(&size) {
                let named = format!("--userns auto:size={size}");
                return Err(refused(&named, &format!("it is 1 to {SLOT}")));
            }
            (free_ids(context)?, size)
        }
    };
    let map = LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(first)
        .size(size)
        .build()
        .map_err(|error| refused("--userns", &error.to_string()))?;
    let namespace = LinuxNamespaceBuilder::default()
        .typ(LinuxNamespaceType::User)
        .build()
        .map_err(|error| refused("--userns", &error.to_string()))?;
    if let Some(linux) = spec.linux_mut() {
        linux
            .namespaces_mut()
            .get_or_insert_default()
            .push(namespace);
        linux.set_uid_mappings(Some(vec![map]));
        linux.set_gid_mappings(Some(vec![map]));
        if let Some(sysctl) = linux.sysctl_mut()
            && let Some(range) = sysctl.get_mut("net.ipv4.ping_group_range")
        {
            *range = format!("0 {}", (size - 1).min(2_147_483_647));
        }
    }
    if first != 0 {
        map_own_mounts(context, spec);
    }
    Ok(())
}

/// What ketch itself keeps for the container has the container's ids on the disk.
fn map_own_mounts(context: &Context<'_>, spec: &mut Spec) {
    let root = context.layout().root();
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let is_own = mount.source().as_ref().is_some_and(|s| s.starts_with(root));
        if is_own && let Some(options) = mount.options_mut() {
            options.push("idmap".to_owned());
        }
    }
}

/// The first of the ids that no other container has.
fn free_ids(context: &Context<'_>) -> Result<u32, EngineError> {
    let mut taken = HashSet::new();
    for container in context.engine.containers()? {
        let spec = context.engine.spec_of(&container.config.id)?;
        let linux = spec.linux().as_ref();
        let maps = linux.and_then(|linux| linux.uid_mappings().as_ref());
        taken.extend(maps.into_iter().flatten().map(LinuxIdMapping::host_id));
    }
    // Two that are made at the same moment start at different places.
    let seed = context
        .id
        .get(..8)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let seed = seed.unwrap_or(0) % SLOTS;
    (0..SLOTS)
        .map(|step| FIRST_ID + (seed + step) % SLOTS * SLOT)
        .find(|first| !taken.contains(first))
        .ok_or_else(|| refused("--userns auto", "all ids are in use"))
}

impl Engine {
    fn has_shareable_ipc(&self, id: &str) -> Result<bool, EngineError> {
        Ok(self.launch_of(id)?.shareable_ipc)
    }

    /// Puts the namespaces of other containers into a plan; they must run.
    pub(crate) fn join_shared(
        &self,
        shared: &[SharedNamespace],
        init: &mut InitPlan,
    ) -> Result<(), EngineError> {
        for namespace in shared {
            let other = self.container(&namespace.id)?;
            let running = other.state.pid.filter(|_| other.is_running());
            let pid = running.ok_or_else(|| EngineError::NotRunning(other.config.name.clone()))?;
            let (flag, name) = match namespace.kind {
                SharedKind::Pid => (flag::PID, "pid"),
                SharedKind::Ipc => (flag::IPC, "ipc"),
            };
            init.namespaces.push(Namespace {
                flag,
                path: Some(c_path(Path::new(&format!("/proc/{pid}/ns/{name}")))?),
            });
            if namespace.kind == SharedKind::Ipc {
                init.mounts.push(shared_memory(pid)?);
            }
        }
        Ok(())
    }
}

/// The other container's `/dev/shm`.
fn shared_memory(pid: i32) -> Result<MountPlan, EngineError> {
    const NOSUID_NODEV_NOEXEC: u64 = 0x2 | 0x4 | 0x8;
    Ok(MountPlan {
        source: MountSource::OtherNamespace {
            namespace: c_path(Path::new(&format!("/proc/{pid}/ns/mnt")))?,
            path: c"/dev/shm".to_owned(),
        },
        target: c"/dev/shm".to_owned(),
        set_flags: NOSUID_NODEV_NOEXEC,
        clear_flags: 0,
        recursive_flags: false,
        propagation: 0,
        id_map: None,
        copy_up: false,
        beneath: None,
    })
}
