//! Devices by name: files of the Container Device Interface (CDI specification 1.0, `SPEC.md`)
//! say what a container needs to use one. JSON or YAML, looked for in directories of the host, of
//! which a later one counts more. An image has no say in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hook, HookBuilder, Hooks, LinuxDevice, LinuxDeviceType, LinuxNetDevice, MountBuilder, Spec,
};
use serde::Deserialize;

use super::apply::{Context, refused};
use super::devices::{Given, rule};
use super::options::{DeviceAccess, DeviceRequest};
use super::security::chain;
use crate::EngineError;

/// No specification is longer: it is read by whoever asks for a device.
const MAX_SIZE: u64 = 16 << 20;

/// A file of a vendor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
    #[expect(
        dead_code,
        reason = "a part of the format without effect on containers"
    )]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
    #[expect(
        dead_code,
        reason = "a part of the format without effect on containers"
    )]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// What is changed in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    net_devices: Vec<NetDevice>,
    hooks: Vec<CdiHook>,
    mounts: Vec<CdiMount>,
    intel_rdt: Option<serde_json::Value>,
    #[serde(alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<i64>,
    minor: Option<i64>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetDevice {
    host_interface_name: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CdiHook {
    hook_name: String,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CdiMount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Applies the devices that were asked for by name.
pub(super) fn apply(context: &Context<'_>, spec: &mut Spec) -> Result<(), EngineError> {
    let options = &context.options.isolation;
    let names: Vec<&str> = options.devices.iter().filter_map(cdi_name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let found = Found::read(&options.cdi_dirs);
    let mut given = Given::new(context.binds_devices());
    let mut used: Vec<&Path> = Vec::new();
    for name in names {
        let (path, document, device) = found.device(name)?;
        // What holds for all devices of a file is applied once.
        if !used.contains(&path) {
            used.push(path);
            document.container_edits.apply(name, spec, &mut given)?;
        }
        device.container_edits.apply(name, spec, &mut given)?;
    }
    given.put_into(spec);
    Ok(())
}

/// Whether a CDI specification in one of these directories has the device, which may be ambiguous.
#[must_use]
pub fn is_cdi_device(name: &str, dirs: &[PathBuf]) -> bool {
    let (kind, wanted) = name.split_once('=').unwrap_or((name, ""));
    let found = Found::read(dirs);
    found.dirs.iter().flatten().any(|(_, document)| {
        let mut devices = document.devices.iter();
        document.kind == kind && devices.any(|device| device.name == wanted)
    })
}

fn cdi_name(request: &DeviceRequest) -> Option<&str> {
    match request {
        DeviceRequest::Cdi(name) => Some(name),
        DeviceRequest::Path { .. } => None,
    }
}

/// What lies in the directories, the most important directory first.
#[derive(Default)]
struct Found {
    dirs: Vec<Vec<(PathBuf, Document)>>,
    /// Why files could not be used.
    unusable: Vec<String>,
    searched: String,
}

impl Found {
    fn read(dirs: &[PathBuf]) -> Self {
        let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let mut found = Self {
            searched: names.join(", "),
            ..Self::default()
        };
        for dir in dirs.iter().rev() {
            let documents = found.read_dir(dir);
            found.dirs.push(documents);
        }
        found
    }

    fn read_dir(&mut self, dir: &Path) -> Vec<(PathBuf, Document)> {
        // A directory that is not there has no devices.
        let Ok(entries) = fs::read_dir(dir) else {
            return Vec::new();
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut documents = Vec::new();
        for path in paths {
            let extension = path.extension().and_then(std::ffi::OsStr::to_str);
            let Some(format @ ("json" | "yaml")) = extension else {
                continue;
            };
            match parse(&path, format) {
                Ok(document) => documents.push((path, document)),
                Err(why) => self.unusable.push(format!("`{}` {why}", path.display())),
            }
        }
        documents
    }

    fn device(&self, name: &str) -> Result<(&Path, &Document, &Device), EngineError> {
        let named = format!("--device `{name}`");
        let (kind, wanted) = name.split_once('=').unwrap_or((name, ""));
        for dir in &self.dirs {
            let mut matches = dir.iter().flat_map(|(path, document)| {
                let devices = document.devices.iter();
                devices
                    .filter(move |device| document.kind == kind && device.name == wanted)
                    .map(move |device| (path.as_path(), document, device))
            });
            let Some(found) = matches.next() else {
                continue;
            };
            return match matches.next() {
                None => Ok(found),
                Some((other, ..)) => {
                    let (one, other) = (found.0.display(), other.display());
                    Err(refused(
                        &named,
                        &format!("`{one}` and `{other}` both have it"),
                    ))
                }
            };
        }
        let mut why = format!("no CDI specification in {} has it", self.searched);
        for unusable in &self.unusable {
            why.push_str("; ");
            why.push_str(unusable);
        }
        Err(refused(&named, &why))
    }
}

fn parse(path: &Path, format: &str) -> Result<Document, String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, MAX_SIZE), &mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    let document: Document = match format {
        "json" => serde_json::from_str(&text).map_err(|error| format!("is not one: {error}"))?,
        _ => serde_yaml_ng::from_str(&text).map_err(|error| format!("is not one: {error}"))?,
    };
    let version = document.cdi_version.split('.').next();
    if !matches!(version, Some("0" | "1")) {
        return Err(format!("has the unknown version {}", document.cdi_version));
    }
    if !is_kind(&document.kind) {
        return Err(format!(
            "has the kind `{}`, not vendor/class",
            document.kind
        ));
    }
    for device in &document.devices {
        if !is_device_name(&device.name) {
            return Err(format!("has a device with the name `{}`", device.name));
        }
        let same = document
            .devices
            .iter()
            .filter(|other| other.name == device.name);
        if same.count() > 1 {
            return Err(format!("has two devices with the name `{}`", device.name));
        }
    }
    Ok(document)
}

/// `vendor.com/class`.
fn is_kind(text: &str) -> bool {
    let is_part = |part: &str, more: &str| {
        let mut bytes = part.bytes();
        let end = part.bytes().next_back();
        bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
            && end.is_some_and(|last| last.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(vendor, class)| is_part(vendor, "_-.") && is_part(class, "_-."))
}

fn is_device_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter()
        .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte))
}

/// Whether a text is a qualified CDI name, `vendor.com/class=name`.
pub(super) fn is_qualified(text: &str) -> bool {
    text.split_once('=')
        .is_some_and(|(kind, name)| is_kind(kind) && is_device_name(name))
}

impl Edits {
    fn apply(&self, name: &str, spec: &mut Spec, given: &mut Given) -> Result<(), EngineError> {
        let named = format!("--device `{name}`");
        if self.intel_rdt.is_some() {
            return Err(refused(
                &named,
                "it needs Intel RDT, which is not supported",
            ));
        }
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            crate::spec::overlay_environment(&mut env, &self.env);
            process.set_env(Some(env));
            let user = process.user_mut();
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(self.additional_gids.iter().filter(|gid| **gid != 0));
            groups.sort_unstable();
            groups.dedup();
            user.set_additional_gids(Some(groups));
        }
        if let Some(linux) = spec
            .linux_mut()
            .as_mut()
            .filter(|_| !self.net_devices.is_empty())
        {
            let mut all = linux.net_devices().clone().unwrap_or_default();
            for device in &self.net_devices {
                let mut inside = LinuxNetDevice::default();
                inside.set_name(Some(device.name.clone()));
                all.insert(device.host_interface_name.clone(), inside);
            }
            linux.set_net_devices(Some(all));
        }
        for node in &self.device_nodes {
            node.place(&named, given)?;
        }
        let wrong = |error: oci_spec::OciSpecError| refused(&named, &error.to_string());
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for mount in &self.mounts {
            let built = MountBuilder::default()
                .destination(&mount.container_path)
                .source(&mount.host_path)
                .typ(mount.kind.as_deref().unwrap_or("bind"))
                .options(mount.options.clone())
                .build();
            mounts.push(built.map_err(wrong)?);
        }
        spec.set_mounts(Some(mounts));
        if !self.hooks.is_empty() {
            let mut hooks = spec.hooks().clone().unwrap_or_default();
            for hook in &self.hooks {
                hook.add_to(&named, &mut hooks)?;
            }
            spec.set_hooks(Some(hooks));
        }
        Ok(())
    }
}

impl DeviceNode {
    fn place(&self, named: &str, given: &mut Given) -> Result<(), EngineError> {
        let source = self.host_path.as_ref().unwrap_or(&self.path);
        let access = self.permissions.as_deref().unwrap_or("rwm");
        let access = DeviceAccess::parse(access)
            .ok_or_else(|| refused(named, &format!("`{access}` is not made of r, w and m")))?;
        let (Some(kind), Some(major)) = (self.kind.as_deref(), self.major) else {
            let metadata = fs::metadata(source)
                .map_err(|error| refused(named, &format!("`{}`: {error}", source.display())))?;
            return given.add(source, self.path.clone(), &metadata, Some(access));
        };
        let kind = match kind {
            "b" => LinuxDeviceType::B,
            "c" | "u" => LinuxDeviceType::C,
            "p" => LinuxDeviceType::P,
            other => return Err(refused(named, &format!("`{other}` is no type of device"))),
        };
        let minor = self.minor.unwrap_or(0);
        let mut device = LinuxDevice::default();
        device
            .set_path(self.path.clone())
            .set_typ(kind)
            .set_major(major)
            .set_minor(minor)
            .set_file_mode(self.file_mode)
            .set_uid(self.uid)
            .set_gid(self.gid);
        given.place(source, device)?;
        given.allow(rule(kind, Some(major), Some(minor), access));
        Ok(())
    }
}

impl CdiHook {
    fn add_to(&self, named: &str, hooks: &mut Hooks) -> Result<(), EngineError> {
        let mut hook = HookBuilder::default()
            .path(&self.path)
            .args(self.args.clone())
            .env(self.env.clone());
        if let Some(timeout) = self.timeout {
            hook = hook.timeout(timeout);
        }
        let hook: Hook = hook
            .build()
            .map_err(|error| refused(named, &chain(&error)))?;
        let list = match self.hook_name.as_str() {
            "prestart" => hooks.prestart_mut(),
            "createRuntime" => hooks.create_runtime_mut(),
            "createContainer" => hooks.create_container_mut(),
            "startContainer" => hooks.start_container_mut(),
            "poststart" => hooks.poststart_mut(),
            "poststop" => hooks.poststop_mut(),
            other => return Err(refused(named, &format!("`{other}` is no kind of hook"))),
        };
        list.get_or_insert_default().push(hook);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_names_are_those_of_the_specification() {
        for good in [
            "vendor.com/class=a",
            "nvidia.com/gpu=0",
            "a/b=all",
            "v_x/c-d=gpu0:1",
        ] {
            assert!(is_qualified(good), "{good}");
        }
        for bad in [
            "/dev/x=1", "a=b", "1a/b=c", "a/b=", "a/b=-x", "a/b/c=d", "a/b",
        ] {
            assert!(!is_qualified(bad), "{bad}");
        }
    }

    #[test]
    fn unknown_field_is_named() {
        let text = r#"{"cdiVersion":"0.6.0","kind":"a/b","devices":[],"gpus":1}"#;
        let error = serde_json::from_str::<Document>(text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("gpus"), "{error}");
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            let atomic = sys::durable::Durability::Atomic;
            sys::durable::replace_file(&path, text.as_bytes(), atomic).unwrap();
        };
        write(
            "one.yaml",
            "cdiVersion: 0.6.0\nkind: a/b\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1]\n",
        );
        write(
            "two.json",
            r#"{"cdiVersion":"1.0.0","kind":"a/c","devices":[{"name":"y"}]}"#,
        );
        write("bad.json", "{");
        let found = Found::read(&[dir.path().to_path_buf()]);
        assert_eq!(
            found.device("a/b=x").unwrap().2.container_edits.env,
            ["A=1"]
        );
        assert!(found.device("a/c=y").is_ok());
        let error = found.device("a/c=z").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("bad.json"), "{error}");
    }
}
