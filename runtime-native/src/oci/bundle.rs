//! A bundle: a directory with `config.json` and a root file system (runtime-spec v1.2 `bundle.md`).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Process, Spec};
use rustix::fs::OFlags;
use serde_json::Value;

use super::record::CONFIG;
use super::{OciError, capability_sets, home};

/// No specification is longer.
const MAX_CONFIG: u64 = 16 << 20;

/// What in a specification was passed over because this kernel has no such thing.
pub type Warnings = Vec<String>;

/// A bundle that was read.
#[derive(Debug)]
pub struct Bundle {
    /// Its directory, absolute.
    pub dir: PathBuf,
    /// The bytes of `config.json`.
    pub config: Vec<u8>,
    /// The specification, with absolute paths.
    pub spec: Spec,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// What was passed over.
    pub warnings: Warnings,
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// The file that is missing, or the field that is wrong.
    pub fn read(dir: &Path) -> Result<Self, OciError> {
        let dir = dir
            .canonicalize()
            .map_err(OciError::io("find the bundle", dir))?;
        let path = dir.join(CONFIG);
        let mut config = Vec::new();
        // A pipe in its place must not be waited for.
        let file = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path)
            .map_err(OciError::io("open", &path))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(OciError::Bundle {
                path: dir,
                why: "its `config.json` is not a file".to_owned(),
            });
        }
        file.take(MAX_CONFIG + 1)
            .read_to_end(&mut config)
            .map_err(OciError::io("read", &path))?;
        let broken = |why: &str| OciError::Bundle {
            path: dir.clone(),
            why: why.to_owned(),
        };
        if config.len() as u64 > MAX_CONFIG {
            return Err(broken("its `config.json` is longer than 16 MiB"));
        }
        let (mut spec, warnings) = parse(&path, &config)?;
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| broken("`root` is missing"))?;
        let rootfs = dir.join(root.path());
        let rootfs = rootfs
            .canonicalize()
            .map_err(OciError::io("find the root file system", rootfs))?;
        if !rootfs.is_dir() {
            return Err(broken("`root.path` is not a directory"));
        }
        if rootfs == Path::new("/") {
            return Err(broken("`root.path` must not be the host's root"));
        }
        make_absolute(&mut spec, &dir, &rootfs);
        set_home(&mut spec, &rootfs)?;
        Ok(Self {
            dir,
            config,
            spec,
            rootfs,
            warnings,
        })
    }
}

fn set_home(spec: &mut Spec, rootfs: &Path) -> Result<(), OciError> {
    let root = sys::path::open_root(rootfs).map_err(OciError::io("open", rootfs))?;
    if let Some(process) = spec.process_mut() {
        home::set(process, root.as_fd());
    }
    Ok(())
}

/// Parses a process object: that of `exec --process`, and what of it is passed over.
///
/// # Errors
/// The field that is wrong.
pub fn parse_process(path: &Path, bytes: &[u8]) -> Result<(Process, Warnings), OciError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(|source| OciError::Json {
        path: path.to_path_buf(),
        source,
    })?;
    let mut warnings = Warnings::new();
    complete(&mut value, &mut warnings);
    let mut process = from_value(path, value)?;
    capability_sets::drop_unusable_ambient(&mut process, &mut warnings);
    Ok((process, warnings))
}

/// Fills in what callers leave out and this runtime's types want, in their spelling.
fn complete(process: &mut Value, warnings: &mut Warnings) {
    capability_sets::drop_unknown(process, warnings);
    respell_scheduler(process);
    if let Some(fields) = process.as_object_mut() {
        fields
            .entry("user")
            .or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
}

fn from_value<T: serde::de::DeserializeOwned>(path: &Path, value: Value) -> Result<T, OciError> {
    serde_path_to_error::deserialize(value).map_err(|error| OciError::Field {
        path: path.to_path_buf(),
        field: error.path().to_string(),
        rule: error.inner().to_string(),
    })
}

/// Sources of bind mounts are relative to the bundle (runtime-spec v1.2 `config.md#mounts`), and
/// destinations to the root.
fn make_absolute(spec: &mut Spec, bundle: &Path, rootfs: &Path) {
    let Some(mut mounts) = spec.mounts().clone() else {
        return;
    };
    for mount in &mut mounts {
        let destination = mount.destination();
        // An empty one is an error, not the root.
        if !destination.is_absolute() && !destination.as_os_str().is_empty() {
            let absolute = Path::new("/").join(mount.destination());
            mount.set_destination(absolute);
        }
        // Some callers name the place on the host.
        if let Ok(inside) = mount.destination().strip_prefix(rootfs) {
            let inside = Path::new("/").join(inside);
            mount.set_destination(inside);
        }
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
        if (bind || mount.typ().as_deref() == Some("bind"))
            && let Some(source) = mount.source().clone()
        {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    spec.set_mounts(Some(mounts));
}

/// Parses a specification. What the types refuse is tried again with the spellings of the
/// specification that they do not know, and without the capabilities that nobody knows; the error
/// that then stays names its field.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<(Spec, Warnings), OciError> {
    let (mut spec, mut warnings) = parse_document(path, bytes)?;
    allow_default_devices(&mut spec);
    if let Some(process) = spec.process_mut() {
        capability_sets::drop_unusable_ambient(process, &mut warnings);
    }
    Ok((spec, warnings))
}

fn parse_document(path: &Path, bytes: &[u8]) -> Result<(Spec, Warnings), OciError> {
    if let Ok(spec) = serde_json::from_slice(bytes) {
        return Ok((spec, Warnings::new()));
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|source| OciError::Json {
        path: path.to_path_buf(),
        source,
    })?;
    let mut warnings = Warnings::new();
    if let Some(process) = value.get_mut("process") {
        complete(process, &mut warnings);
    }
    Ok((from_value(path, value)?, warnings))
}

/// Every container has some devices (runtime-spec v1.2 `config-linux.md#default-devices`), and may
/// make nodes of all: a list that denies everything before it allows something has to leave them.
fn allow_default_devices(spec: &mut Spec) {
    const DEFAULT: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
        (LinuxDeviceType::C, None, None, "m"),
        (LinuxDeviceType::B, None, None, "m"),
        (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
        (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
        (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
        (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
        (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
        (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
        (LinuxDeviceType::C, Some(5), Some(1), "rwm"),
        (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
        (LinuxDeviceType::C, Some(136), None, "rwm"),
    ];
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let mut resources = linux.resources().clone().unwrap_or_default();
    let Some(mut rules) = resources
        .devices()
        .clone()
        .filter(|rules| !rules.is_empty())
    else {
        return;
    };
    for (kind, major, minor, access) in DEFAULT {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true);
        rule.set_typ(Some(kind));
        rule.set_major(major);
        rule.set_minor(minor);
        rule.set_access(Some(access.to_owned()));
        rules.push(rule);
    }
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
}

/// Two flags of the scheduler have other names in the types than in the specification.
fn respell_scheduler(process: &mut Value) {
    let flags = process
        .get_mut("scheduler")
        .and_then(|scheduler| scheduler.get_mut("flags"))
        .and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = Value::String(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Spec, Warnings), OciError> {
        parse(Path::new("config.json"), text.as_bytes())
    }

    #[test]
    fn field_of_the_wrong_type_is_named_by_its_path() {
        let text = r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/a","options":["ro",7]}]}"#;
        let error = parsed(text).unwrap_err().to_string();
        assert!(error.contains("`mounts[0].options[1]`"), "{error}");
        let error = parsed("{\"ociVersion\":}").unwrap_err();
        assert!(matches!(error, OciError::Json { .. }));
    }

    #[test]
    fn scheduler_flags_have_the_names_of_the_specification() {
        let text = r#"{"ociVersion":"1.0.2","process":{"cwd":"/","user":{"uid":0,"gid":0},
            "scheduler":{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}}"#;
        parsed(text).unwrap();
    }
}
