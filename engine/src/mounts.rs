//! What is mounted into a container besides its own file system: paths of the host, volumes, tmpfs.
//! Settled when the container is created, and written down as `mounts.json` in its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};
use runtime::{InitPlan, MountSource};
use serde::{Deserialize, Serialize};
use state::{read_record, write_record};
use std::os::unix::ffi::OsStrExt;
use sys::durable::Durability;

use crate::volume::{Backing, CreateVolume, is_empty};
use crate::{Engine, EngineError};

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
    /// `bind`, `volume` or `tmpfs`.
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
}

impl ContainerMount {
    /// Its entry in the specification.
    pub(crate) fn to_spec(&self) -> Result<Mount, OciSpecError> {
        MountBuilder::default()
            .destination(self.target.clone())
            .typ(self.filesystem.clone())
            .source(self.source.clone())
            .options(self.options.clone())
            .build()
    }
}

/// The mounts of a container, by its directory.
pub(crate) fn read(dir: &Path) -> Result<Vec<ContainerMount>, EngineError> {
    Ok(read_record(&dir.join(FILE))?)
}

/// Writes the mounts down in a container's directory.
pub(crate) fn write(dir: &Path, mounts: &[ContainerMount]) -> Result<(), EngineError> {
    Ok(write_record(&dir.join(FILE), &mounts, Durability::Atomic)?)
}

/// Marks the mounts of volumes that are still empty, to be filled by the container's init, which
/// alone sees the image's files in one tree.
pub(crate) fn mark_copies(init: &mut InitPlan, mounts: &[ContainerMount]) {
    for mount in mounts.iter().filter(|mount| mount.copy) {
        if !is_empty(&mount.source).unwrap_or(false) {
            continue;
        }
        let source = mount.source.as_os_str().as_bytes();
        let planned = init.mounts.iter_mut().find(|planned| {
            matches!(&planned.source, MountSource::Bind { path, .. } if path.to_bytes() == source)
                && planned.target.to_bytes() == mount.target.as_os_str().as_bytes()
        });
        if let Some(planned) = planned {
            planned.copy_up = true;
        }
    }
}

impl Engine {
    /// The mounts of a container: what was asked for, what `--volumes-from` brings, and an anonymous
    /// volume for each of the image's volumes that nothing else is mounted on. With the names of the
    /// volumes that were made for it.
    pub(crate) fn settle_mounts(
        &self,
        requests: &[MountRequest],
        volumes_from: &[(String, bool)],
        image_volumes: impl Iterator<Item = String>,
    ) -> Result<Settled, EngineError> {
        let mut settled = Settled::default();
        let done = self.settle_into(&mut settled, requests, volumes_from, image_volumes);
        if let Err(error) = done {
            self.unsettle(&settled);
            return Err(error);
        }
        Ok(settled)
    }

    /// Gives back what was made for a container that was not created.
    pub(crate) fn unsettle(&self, settled: &Settled) {
        for name in &settled.made {
            // What stays is an unused volume, which `volume prune` finds.
            drop(self.remove_volume(name));
        }
    }

    fn settle_into(
        &self,
        settled: &mut Settled,
        requests: &[MountRequest],
        volumes_from: &[(String, bool)],
        image_volumes: impl Iterator<Item = String>,
    ) -> Result<(), EngineError> {
        for (reference, readonly) in volumes_from {
            let other = self.container(reference)?;
            for mut mount in read(&self.layout().container(&other.config.id))? {
                if let Some(volume) = &mount.volume {
                    // Two have it now: it no longer goes with the first.
                    self.keep_volume(volume)?;
                }
                if *readonly && !mount.readonly {
                    mount.readonly = true;
                    mount.options.push("rro".to_owned());
                }
                settled.add(mount);
            }
        }
        for request in requests {
            if settled.asked.contains(&request.target) {
                let text = format!("cannot mount twice on `{}`", request.target.display());
                return Err(EngineError::Unsupported(text));
            }
            settled.asked.push(request.target.clone());
            let mount = self.settle_one(request, settled)?;
            settled.add(mount);
        }
        for target in image_volumes {
            let target = PathBuf::from(target);
            if settled.mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            let request = MountRequest {
                target,
                source: MountKind::Volume {
                    name: None,
                    no_copy: false,
                    labels: BTreeMap::new(),
                    options: BTreeMap::new(),
                },
                readonly: false,
                propagation: None,
                single: false,
            };
            let mount = self.settle_one(&request, settled)?;
            settled.add(mount);
        }
        Ok(())
    }

    fn settle_one(
        &self,
        request: &MountRequest,
        settled: &mut Settled,
    ) -> Result<ContainerMount, EngineError> {
        match &request.source {
            MountKind::Bind { source, create } => {
                if *create && !source.exists() {
                    std::fs::create_dir_all(source)
                        .map_err(EngineError::io("make the mount's source"))?;
                }
                if !source.exists() {
                    return Err(EngineError::NoSuchSource(source.display().to_string()));
                }
                Ok(bind(request, "bind", None, source.clone(), false))
            }
            MountKind::Volume {
                name,
                no_copy,
                labels,
                options,
            } => {
                let there = name.as_ref().is_some_and(|name| self.volume(name).is_ok());
                let volume = self.create_volume(&CreateVolume {
                    name: name.clone(),
                    labels: labels.clone(),
                    options: options.clone(),
                })?;
                if !there {
                    settled.made.push(volume.name.clone());
                }
                let name = Some(volume.name.clone());
                Ok(match volume.backing()? {
                    Backing::Own => {
                        let data = self.volume_data(&volume.name);
                        let copy = !no_copy && !request.readonly;
                        bind(request, "volume", name, data, copy)
                    }
                    Backing::Bind(device) => {
                        if !device.exists() {
                            let device = device.display().to_string();
                            return Err(EngineError::NoSuchSource(device));
                        }
                        bind(request, "volume", name, device, false)
                    }
                    Backing::FileSystem(kind, device, flags) => ContainerMount {
                        kind: "volume".to_owned(),
                        volume: name,
                        filesystem: kind,
                        source: PathBuf::from(device),
                        target: request.target.clone(),
                        options: with_readonly(flags, request.readonly),
                        readonly: request.readonly,
                        copy: false,
                    },
                })
            }
            MountKind::Tmpfs { options } => {
                let mut all: Vec<String> = ["nosuid", "nodev", "noexec"]
                    .into_iter()
                    .filter(|flag| !options.iter().any(|own| own == &flag[2..]))
                    .map(str::to_owned)
                    .collect();
                all.extend(options.iter().cloned());
                Ok(ContainerMount {
                    kind: "tmpfs".to_owned(),
                    volume: None,
                    filesystem: "tmpfs".to_owned(),
                    source: PathBuf::from("tmpfs"),
                    target: request.target.clone(),
                    options: with_readonly(all, request.readonly),
                    readonly: request.readonly,
                    copy: false,
                })
            }
        }
    }
}

fn with_readonly(mut options: Vec<String>, readonly: bool) -> Vec<String> {
    if readonly {
        options.push("ro".to_owned());
    }
    options
}

fn bind(
    request: &MountRequest,
    kind: &str,
    volume: Option<String>,
    source: PathBuf,
    copy: bool,
) -> ContainerMount {
    let depth = if request.single { "bind" } else { "rbind" };
    let propagation = request.propagation.as_deref().unwrap_or("rprivate");
    let mut options = vec![depth.to_owned(), propagation.to_owned()];
    if request.readonly {
        options.push(if request.single { "ro" } else { "rro" }.to_owned());
    }
    ContainerMount {
        kind: kind.to_owned(),
        volume,
        filesystem: "bind".to_owned(),
        source,
        target: request.target.clone(),
        options,
        readonly: request.readonly,
        copy,
    }
}

/// The settled mounts of a container that is being created.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) mounts: Vec<ContainerMount>,
    asked: Vec<PathBuf>,
    made: Vec<String>,
}

impl Settled {
    /// Adds a mount, in place of one on the same target that came from another container.
    fn add(&mut self, mount: ContainerMount) {
        self.mounts.retain(|other| other.target != mount.target);
        self.mounts.push(mount);
        // Parents before what lies below them.
        self.mounts
            .sort_by_key(|mount| mount.target.components().count());
    }
}
