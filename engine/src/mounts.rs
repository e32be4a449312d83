//! What is mounted into a container besides its own file system: paths of the host, volumes, tmpfs.
//! Settled when the container is created, and written down as `mounts.json` in its directory.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount, MountBuilder};
use runtime::{InitPlan, MountSource};
use serde::{Deserialize, Serialize};
use state::{read_record, write_record};
use sys::durable::Durability;

use crate::EngineError;
use crate::remote_mounts::settle_address;
use crate::start::c_path;
use crate::user::User;
use crate::volume::is_empty;
use crate::volume_driver::DriverMounts;

const FILE: &str = "mounts.json";

/// A mount that a user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// In the container, absolute.
    pub target: PathBuf,
    /// What is mounted.
    pub source: MountKind,
    /// Nothing below it can be written.
    pub readonly: bool,
    /// Propagation, as `rprivate`, `rslave`, `rshared`, and the same without `r`.
    pub propagation: Option<String>,
    /// Without what is mounted below the source.
    pub single: bool,
    /// Read-only holds for what is mounted below too.
    pub recursive_readonly: bool,
    /// The files' owner appears as the container's user.
    pub owner_shift: bool,
    /// Only this part of a volume or an image, relative.
    pub subpath: Option<PathBuf>,
}

impl MountRequest {
    /// A mount without wishes.
    #[must_use]
    pub fn new(target: PathBuf, source: MountKind) -> Self {
        Self {
            target,
            source,
            readonly: false,
            propagation: None,
            single: false,
            recursive_readonly: true,
            owner_shift: false,
            subpath: None,
        }
    }
}

/// What a mount request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the host, absolute.
    Bind {
        /// The path.
        source: PathBuf,
        /// Make it, as a directory, when it is missing.
        create: bool,
    },
    /// A volume.
    Volume {
        /// Its name; an anonymous one when absent.
        name: Option<String>,
        /// Do not fill it with what the image has there.
        no_copy: bool,
        /// Labels of a new one.
        labels: BTreeMap<String, String>,
        /// Driver options of a new one.
        options: BTreeMap<String, String>,
        /// Who keeps a new one; the local driver when absent.
        driver: Option<String>,
    },
    /// An image's files, which cannot be written.
    Image {
        /// The image.
        reference: String,
    },
    /// Memory.
    Tmpfs {
        /// Mount options, such as `size=64m`.
        options: Vec<String>,
    },
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// `bind`, `volume`, `image` or `tmpfs`.
    pub kind: String,
    /// The volume's name.
    pub volume: Option<String>,
    /// The file system's type.
    pub filesystem: String,
    /// What is mounted.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Mount options (runtime-spec v1.2 `config.md#linux-mount-options`).
    pub options: Vec<String>,
    /// Nothing below it can be written.
    pub readonly: bool,
    /// Fill it with what the image has there as long as it is empty.
    pub copy: bool,
    /// Only this part of the source, relative.
    #[serde(default)]
    pub subpath: Option<PathBuf>,
    /// The user and group that the files belong to and that appear as the container's own.
    #[serde(default)]
    pub owner_shift: Option<(u32, u32)>,
    /// The driver of the volume, when it is another program's: it says where the source is.
    #[serde(default)]
    pub driver: Option<String>,
    /// The image's identifier.
    #[serde(default)]
    pub image: Option<String>,
}

impl ContainerMount {
    /// Its entry in the specification of a container of this user.
    pub(crate) fn to_spec(&self, user: &User) -> Result<Mount, OciSpecError> {
        let mut mount = MountBuilder::default()
            .destination(self.target.clone())
            .typ(self.filesystem.clone())
            .source(self.source.clone())
            .options(self.options.clone());
        if let Some((uid, gid)) = self.owner_shift
            && (uid, gid) != (user.uid, user.gid)
        {
            mount = mount
                .uid_mappings(swapped(uid, user.uid)?)
                .gid_mappings(swapped(gid, user.gid)?);
        }
        mount.build()
    }
}

/// All ids as they are, but these two in each other's place: on the disk, and as seen.
fn swapped(disk: u32, seen: u32) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let (low, high) = (disk.min(seen), disk.max(seen));
    let range = |inside: u32, outside: u32, count: u32| {
        LinuxIdMappingBuilder::default()
            .container_id(inside)
            .host_id(outside)
            .size(count)
            .build()
    };
    let mut all = Vec::with_capacity(5);
    if low > 0 {
        all.push(range(0, 0, low)?);
    }
    if low == high {
        all.push(range(low, low, 1)?);
    } else {
        all.push(range(low, high, 1)?);
        if high - low > 1 {
            all.push(range(low + 1, low + 1, high - low - 1)?);
        }
        all.push(range(high, low, 1)?);
    }
    // 4294967295 means "no id" to the kernel.
    if high < u32::MAX - 1 {
        all.push(range(high + 1, high + 1, u32::MAX - 1 - high)?);
    }
    Ok(all)
}

/// The mounts of a container, by its directory.
pub(crate) fn read(dir: &Path) -> Result<Vec<ContainerMount>, EngineError> {
    Ok(read_record(&dir.join(FILE))?)
}

/// Writes the mounts down in a container's directory.
pub(crate) fn write(dir: &Path, mounts: &[ContainerMount]) -> Result<(), EngineError> {
    Ok(write_record(&dir.join(FILE), &mounts, Durability::Atomic)?)
}

/// Brings into the plan what the specification does not say: parts of sources, sources that drivers
/// name, and which volumes are still empty, to be filled by the container's init, which alone sees
/// the image's files in one tree.
pub(crate) fn complete(
    init: &mut InitPlan,
    mounts: &[ContainerMount],
    drivers: &DriverMounts,
) -> Result<(), EngineError> {
    for mount in mounts {
        let target = mount.target.as_os_str().as_bytes();
        let planned = init
            .mounts
            .iter_mut()
            .rev()
            .find(|planned| planned.target.to_bytes() == target);
        let Some(planned) = planned else { continue };
        let mut source = mount.source.as_path();
        if let MountSource::FileSystem {
            kind,
            options,
            name,
        } = &mut planned.source
        {
            settle_address(kind, name, options)?;
        }
        if let Some(mountpoint) = drivers.mountpoint(mount)
            && let MountSource::Bind { path, .. } = &mut planned.source
        {
            source = mountpoint;
            *path = c_path(mountpoint)?;
        }
        if let Some(subpath) = &mount.subpath {
            planned.beneath = Some(c_path(subpath)?);
        }
        if mount.copy && is_empty(source).unwrap_or(false) {
            planned.copy_up = true;
        }
    }
    Ok(())
}
