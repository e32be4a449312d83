//! What a user asks to be mounted becomes what a container has: paths are looked for, volumes made,
//! images unpacked.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::ImageError;

use crate::mounts::{ContainerMount, MountKind, MountRequest, read};
use crate::start::c_path;
use crate::volume::{Backing, CreateVolume};
use crate::{Engine, EngineError};

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
            let source = MountKind::Volume {
                name: None,
                no_copy: false,
                labels: BTreeMap::new(),
                options: BTreeMap::new(),
                driver: None,
            };
            let request = MountRequest::new(target, source);
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
        let mut mount = match &request.source {
            MountKind::Bind { source, create } => {
                if *create && !source.exists() {
                    std::fs::create_dir_all(source)
                        .map_err(EngineError::io("make the mount's source"))?;
                }
                if !source.exists() {
                    return Err(EngineError::NoSuchSource(source.display().to_string()));
                }
                bind(request, "bind", source.clone())
            }
            MountKind::Volume { .. } => self.settle_volume(request, settled)?,
            MountKind::Image { reference } => self.settle_image(request, reference)?,
            MountKind::Tmpfs { options } => {
                let mut all: Vec<String> = ["nosuid", "nodev", "noexec"]
                    .into_iter()
                    .filter(|flag| !options.iter().any(|own| own == &flag[2..]))
                    .map(str::to_owned)
                    .collect();
                all.extend(options.iter().cloned());
                file_system(request, "tmpfs", "tmpfs", PathBuf::from("tmpfs"), all)
            }
        };
        if request.owner_shift {
            mount.owner_shift = self.shown_owner(&mount)?;
            // Through the shifted mount the image's owners would be shifted the other way.
            mount.copy = false;
        }
        if let Some(subpath) = &request.subpath {
            check_subpath(&mount, subpath)?;
            mount.subpath = Some(subpath.clone());
            // What the image has at the target belongs to the whole volume.
            mount.copy = false;
        }
        Ok(mount)
    }

    fn settle_volume(
        &self,
        request: &MountRequest,
        settled: &mut Settled,
    ) -> Result<ContainerMount, EngineError> {
        let MountKind::Volume {
            name,
            no_copy,
            labels,
            options,
            driver,
        } = &request.source
        else {
            unreachable!("the caller has looked");
        };
        let there = name.as_ref().is_some_and(|name| self.volume(name).is_ok());
        let volume = self.create_volume(&CreateVolume {
            name: name.clone(),
            labels: labels.clone(),
            options: options.clone(),
            driver: driver.clone(),
        })?;
        if !there {
            settled.made.push(volume.name.clone());
        }
        let copy = !no_copy && !request.readonly;
        let mut mount = match volume.backing()? {
            Backing::Own => ContainerMount {
                copy,
                ..bind(request, "volume", self.volume_data(&volume.name))
            },
            // Where it is, the driver says at each start.
            Backing::Driver(driver) => ContainerMount {
                copy,
                driver: Some(driver),
                ..bind(request, "volume", self.volume_data(&volume.name))
            },
            Backing::Bind(device) => {
                if !device.exists() {
                    let device = device.display().to_string();
                    return Err(EngineError::NoSuchSource(device));
                }
                bind(request, "volume", device)
            }
            Backing::FileSystem(kind, device, flags) => {
                file_system(request, "volume", &kind, PathBuf::from(device), flags)
            }
        };
        mount.volume = Some(volume.name);
        Ok(mount)
    }

    /// An image's layers in one tree, without a layer to write to.
    fn settle_image(
        &self,
        request: &MountRequest,
        reference: &str,
    ) -> Result<ContainerMount, EngineError> {
        let image = self.store().resolve(reference, None).map_err(|error| {
            if matches!(error, ImageError::NotFound(_)) {
                return EngineError::Unsupported(format!(
                    "cannot mount the image `{reference}`: it is not in the local store (pull it first)"
                ));
            }
            error.into()
        })?;
        let layers = self.store().ensure_unpacked(&image, &())?;
        let mut mount = match layers.as_slice() {
            // An overlay without an upper directory needs two lower ones.
            [layer] => bind(request, "image", layer.clone()),
            layers => {
                let mut options: Vec<String> = layers
                    .iter()
                    .map(|layer| format!("lowerdir+={}", layer.display()))
                    .collect();
                if self.is_in_user_namespace() {
                    options.push("userxattr".to_owned());
                }
                file_system(
                    request,
                    "image",
                    "overlay",
                    PathBuf::from("overlay"),
                    options,
                )
            }
        };
        if !mount.readonly {
            mount.readonly = true;
            mount.options.push("ro".to_owned());
        }
        mount.image = Some(image.id.to_string());
        Ok(mount)
    }

    /// Whom the files of a mount belong to, to be shown as the container's user.
    fn shown_owner(&self, mount: &ContainerMount) -> Result<Option<(u32, u32)>, EngineError> {
        let target = mount.target.display();
        let refused = |why: &str| {
            EngineError::Unsupported(format!("cannot shift the owner of `{target}` (U): {why}"))
        };
        if mount.filesystem != "bind" || mount.driver.is_some() {
            return Err(refused(
                "only a directory of the host or a volume of its own can be shown with other owners",
            ));
        }
        if self.is_in_user_namespace() {
            return Err(refused("mounts with mapped ids need root"));
        }
        let meta = std::fs::metadata(&mount.source)
            .map_err(EngineError::io("look at the mount's source"))?;
        Ok(Some((meta.uid(), meta.gid())))
    }
}

/// A part of a volume must be there. The container's init looks again, beneath the volume's root.
fn check_subpath(mount: &ContainerMount, subpath: &Path) -> Result<(), EngineError> {
    let target = mount.target.display();
    let part = subpath.display();
    if mount.driver.is_some() || mount.filesystem != "bind" {
        // It is not mounted yet.
        return Ok(());
    }
    let root = sys::path::open_root(&mount.source);
    let root = root.map_err(EngineError::io("open the mount's source"))?;
    let path = c_path(subpath)?;
    let flags = rustix::fs::OFlags::PATH;
    match sys::path::open_in_root(root.as_fd(), &path, flags, rustix::fs::Mode::empty()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(EngineError::Unsupported(format!(
            "cannot mount `{part}` of the {} on `{target}`: {}",
            mount.kind,
            runtime_native::reason(errno)
        ))),
    }
}

/// A mount of a file system of its own.
fn file_system(
    request: &MountRequest,
    kind: &str,
    filesystem: &str,
    source: PathBuf,
    options: Vec<String>,
) -> ContainerMount {
    ContainerMount {
        filesystem: filesystem.to_owned(),
        options: with_readonly(options, request.readonly),
        ..bind(request, kind, source)
    }
}

fn with_readonly(mut options: Vec<String>, readonly: bool) -> Vec<String> {
    if readonly {
        options.push("ro".to_owned());
    }
    options
}

fn bind(request: &MountRequest, kind: &str, source: PathBuf) -> ContainerMount {
    let depth = if request.single { "bind" } else { "rbind" };
    let propagation = request.propagation.as_deref().unwrap_or("rprivate");
    let mut options = vec![depth.to_owned(), propagation.to_owned()];
    if request.readonly {
        let all = !request.single && request.recursive_readonly;
        options.push(if all { "rro" } else { "ro" }.to_owned());
    }
    ContainerMount {
        kind: kind.to_owned(),
        volume: None,
        filesystem: "bind".to_owned(),
        source,
        target: request.target.clone(),
        options,
        readonly: request.readonly,
        copy: false,
        subpath: None,
        owner_shift: None,
        driver: None,
        image: None,
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
