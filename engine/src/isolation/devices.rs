//! Devices of the host, by their paths.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount, MountBuilder, Spec,
};

use super::apply::{Context, refused};
use super::options::{DeviceAccess, DeviceRequest};
use crate::EngineError;

/// What a container has anyway, or has one of its own of.
const OWN: [&str; 8] = [
    "/dev/console",
    "/dev/full",
    "/dev/null",
    "/dev/ptmx",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// Directories below `/dev` that are no part of the host's devices.
const SKIPPED: [&str; 7] = [".lxc", ".lxd-mounts", ".udev", "fd", "mqueue", "pts", "shm"];

/// Applies `--device`, `--device-cgroup-rule` and what of `--privileged` is about devices.
pub(super) fn apply(context: &Context<'_>, spec: &mut Spec) -> Result<(), EngineError> {
    let options = &context.options.isolation;
    let mut given = Given::new(context.binds_devices());
    if options.privileged {
        for path in below(Path::new("/dev")) {
            // One that is gone meanwhile is not the host's any more.
            if let Ok(metadata) = fs::metadata(&path)
                && !OWN.iter().any(|own| path == Path::new(own))
            {
                given.add(&path, path.clone(), &metadata, None)?;
            }
        }
        given
            .rules
            .push(rule(LinuxDeviceType::A, None, None, DeviceAccess::ALL));
    }
    for request in &options.devices {
        if let DeviceRequest::Path {
            source,
            target,
            access,
        } = request
        {
            given.request(source, target, *access)?;
        }
    }
    for allowed in &options.device_rules {
        if context.engine.is_in_user_namespace() {
            return Err(refused(
                "--device-cgroup-rule",
                "in a user namespace no device list is in force, and no device can be made",
            ));
        }
        let number = |number: Option<u32>| number.map(i64::from);
        let (major, minor) = (number(allowed.major), number(allowed.minor));
        given
            .rules
            .push(rule(allowed.kind, major, minor, allowed.access));
    }
    given.put_into(spec);
    Ok(())
}

/// Devices on their way into a specification.
#[derive(Default)]
pub(super) struct Given {
    /// Nodes cannot be made: the host's are bound.
    binds: bool,
    devices: Vec<LinuxDevice>,
    rules: Vec<LinuxDeviceCgroup>,
    mounts: Vec<Mount>,
}

impl Given {
    pub(super) fn new(binds: bool) -> Self {
        Self {
            binds,
            ..Self::default()
        }
    }

    /// A device, or every device in a directory.
    fn request(
        &mut self,
        source: &Path,
        target: &Path,
        access: DeviceAccess,
    ) -> Result<(), EngineError> {
        let named = format!("--device `{}`", source.display());
        let metadata = fs::metadata(source).map_err(|error| refused(&named, &error.to_string()))?;
        if !metadata.is_dir() {
            return self.add(source, target.to_path_buf(), &metadata, Some(access));
        }
        let found = below(source);
        if found.is_empty() {
            return Err(refused(&named, "the directory has no device"));
        }
        for path in found {
            let rest = path.strip_prefix(source).unwrap_or(&path);
            let metadata =
                fs::metadata(&path).map_err(|error| refused(&named, &error.to_string()))?;
            self.add(&path, target.join(rest), &metadata, Some(access))?;
        }
        Ok(())
    }

    /// One device; its rule too, when it has an access of its own.
    pub(super) fn add(
        &mut self,
        source: &Path,
        target: PathBuf,
        metadata: &Metadata,
        access: Option<DeviceAccess>,
    ) -> Result<(), EngineError> {
        let kind = metadata.file_type();
        let kind = if kind.is_block_device() {
            LinuxDeviceType::B
        } else if kind.is_char_device() {
            LinuxDeviceType::C
        } else {
            let named = format!("--device `{}`", source.display());
            return Err(refused(&named, "it is not a device"));
        };
        let number = metadata.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let mut device = LinuxDevice::default();
        device
            .set_path(target)
            .set_typ(kind)
            .set_major(i64::from(major))
            .set_minor(i64::from(minor))
            .set_file_mode(Some(metadata.mode() & 0o7777))
            .set_uid(Some(metadata.uid()))
            .set_gid(Some(metadata.gid()));
        self.place(source, device)?;
        if let Some(access) = access {
            let (major, minor) = (Some(i64::from(major)), Some(i64::from(minor)));
            self.rules.push(rule(kind, major, minor, access));
        }
        Ok(())
    }

    /// The node, or a mount of the host's. The last one for a path counts.
    pub(super) fn place(&mut self, source: &Path, device: LinuxDevice) -> Result<(), EngineError> {
        if !self.binds {
            self.devices.retain(|other| other.path() != device.path());
            self.devices.push(device);
            return Ok(());
        }
        let target = device.path().clone();
        self.mounts.retain(|other| *other.destination() != target);
        let options = ["bind", "nosuid", "noexec"].map(str::to_owned).to_vec();
        let mount = MountBuilder::default()
            .destination(target)
            .typ("bind")
            .source(source)
            .options(options)
            .build();
        let failed = |error: oci_spec::OciSpecError| refused("--device", &error.to_string());
        self.mounts.push(mount.map_err(failed)?);
        Ok(())
    }

    pub(super) fn allow(&mut self, rule: LinuxDeviceCgroup) {
        self.rules.push(rule);
    }

    pub(super) fn put_into(self, spec: &mut Spec) {
        if !self.mounts.is_empty() {
            let mut mounts = spec.mounts().clone().unwrap_or_default();
            mounts.extend(self.mounts);
            spec.set_mounts(Some(mounts));
        }
        let Some(linux) = spec.linux_mut() else {
            return;
        };
        if !self.devices.is_empty() {
            let mut all = linux.devices().clone().unwrap_or_default();
            all.retain(|old| self.devices.iter().all(|new| new.path() != old.path()));
            all.extend(self.devices);
            linux.set_devices(Some(all));
        }
        if let Some(resources) = linux.resources_mut() {
            let mut rules = resources.devices().clone().unwrap_or_default();
            rules.extend(self.rules);
            resources.set_devices(Some(rules));
        }
    }
}

/// A rule that allows.
pub(super) fn rule(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: DeviceAccess,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.text()));
    rule
}

/// Every device in a directory and below it; links are not followed.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What cannot be read has nothing to give.
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let name = entry.file_name();
        if kind.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                found.extend(below(&entry.path()));
            }
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
