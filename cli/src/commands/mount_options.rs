//! The options of `run` and `create` that mount something.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use engine::{MountKind, MountRequest};

use crate::render::Usage;

/// Mount options, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Mount a path of the host or a volume; a target alone is an anonymous volume (can be repeated)
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount something: type=bind|volume|tmpfs|image,source=…,target=…,… (can be repeated)
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount memory (can be repeated)
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Mount what another container has (can be repeated)
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Driver of the new volumes of --volume: local, or a plugin
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
}

fn wrong(option: &str, text: &str, why: &str) -> anyhow::Error {
    Usage(format!("cannot use {option} `{text}`: {why}")).into()
}

impl MountArgs {
    /// What is to be mounted.
    pub(crate) fn mounts(&self) -> anyhow::Result<Vec<MountRequest>> {
        let volumes = self.volume.iter().map(|text| {
            let mut request = volume(text)?;
            if let MountKind::Volume { driver, .. } = &mut request.source {
                driver.clone_from(&self.volume_driver);
            }
            Ok(request)
        });
        let mounts = self.mount.iter().map(|text| mount(text));
        let memory = self.tmpfs.iter().map(|text| tmpfs(text));
        volumes.chain(mounts).chain(memory).collect()
    }

    /// Whose mounts are taken over, and whether read-only.
    pub(crate) fn volumes_from(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let one = |text: &String| match text.rsplit_once(':') {
            Some((name, "ro")) => Ok((name.to_owned(), true)),
            Some((name, "rw")) => Ok((name.to_owned(), false)),
            Some(_) => Err(wrong("--volumes-from", text, "it is CONTAINER[:ro]")),
            None => Ok((text.clone(), false)),
        };
        self.volumes_from.iter().map(one).collect()
    }
}

fn target(option: &str, text: &str, target: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(target);
    if !path.is_absolute() || path == Path::new("/") {
        return Err(wrong(
            option,
            text,
            "the target must be absolute, and not the root",
        ));
    }
    Ok(path.to_path_buf())
}

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// `--volume`.
pub(crate) fn volume(text: &str) -> anyhow::Result<MountRequest> {
    let bad = |why| wrong("--volume", text, why);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, at, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(bad("it is [SOURCE:]TARGET[:OPTIONS]")),
    };
    let anonymous = MountKind::Volume {
        name: None,
        no_copy: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        driver: None,
    };
    let mut request = MountRequest::new(target("--volume", text, at)?, anonymous);
    match source {
        None => {}
        Some("") => return Err(bad("the source is empty")),
        Some(source) if source.starts_with(['/', '.', '~']) || source.contains('/') => {
            request.source = MountKind::Bind {
                source: std::path::absolute(source)?,
                create: false,
            };
        }
        Some(name) => set_name(&mut request, name),
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option, &mut request.source) {
            ("ro", _) => request.readonly = true,
            ("rw" | "consistent" | "cached" | "delegated", _) => {}
            ("nocopy", MountKind::Volume { no_copy, .. }) => *no_copy = true,
            (kind, MountKind::Bind { .. }) if PROPAGATIONS.contains(&kind) => {
                request.propagation = Some(kind.to_owned());
            }
            // Without SELinux there is no label to change.
            ("z" | "Z", _) if !has_selinux() => {}
            ("z" | "Z", _) => return Err(bad("SELinux labels are not built yet")),
            ("U", _) => request.owner_shift = true,
            _ => {
                return Err(bad(
                    "the options after the target are ro, rw, nocopy, U, z, Z and propagation",
                ));
            }
        }
    }
    Ok(request)
}

/// Whether the kernel labels files for SELinux.
fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn set_name(request: &mut MountRequest, text: &str) {
    if let MountKind::Volume { name, .. } = &mut request.source {
        *name = Some(text.to_owned());
    }
}

/// `--tmpfs`.
fn tmpfs(text: &str) -> anyhow::Result<MountRequest> {
    let (at, options) = text.split_once(':').unwrap_or((text, ""));
    let options = options.split(',').filter(|option| !option.is_empty());
    let source = MountKind::Tmpfs {
        options: options.map(str::to_owned).collect(),
    };
    Ok(MountRequest::new(target("--tmpfs", text, at)?, source))
}

/// The fields of a line of comma-separated values; a field in quotes may hold commas (RFC 4180).
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    (!quoted).then_some(fields)
}

/// What `--mount` says so far.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    readonly: bool,
    propagation: Option<String>,
    single: bool,
    /// What is mounted below stays writable.
    writable_below: bool,
    /// What is mounted below must be read-only, and stay so.
    readonly_below: bool,
    owner_shift: bool,
    create: bool,
    no_copy: bool,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    driver: Option<String>,
    subpath: Option<PathBuf>,
    memory: Vec<String>,
    /// The kinds that the keys belong to, with the key.
    belongs: Vec<(&'static str, String)>,
}

/// `--mount`.
fn mount(text: &str) -> anyhow::Result<MountRequest> {
    let bad = |why: &str| wrong("--mount", text, why);
    let mut found = Fields::default();
    for field in fields(text).ok_or_else(|| bad("a quote is not closed"))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        found.take(key, value).map_err(|why| bad(&why))?;
    }
    let kind = found.kind.clone().unwrap_or_else(|| "volume".to_owned());
    if let Some((_, key)) = found.belongs.iter().find(|(of, _)| *of != kind) {
        return Err(bad(&format!("`{key}` does not belong to type {kind}")));
    }
    let at = found
        .target
        .clone()
        .ok_or_else(|| bad("it names no target"))?;
    let source = match kind.as_str() {
        "bind" => {
            let source = found.source.ok_or_else(|| bad("it names no source"))?;
            MountKind::Bind {
                source: std::path::absolute(source)?,
                create: found.create,
            }
        }
        "volume" => MountKind::Volume {
            name: found.source,
            no_copy: found.no_copy,
            labels: found.labels,
            options: found.options,
            driver: found.driver,
        },
        "image" => MountKind::Image {
            reference: found.source.ok_or_else(|| bad("it names no image"))?,
        },
        "tmpfs" if found.source.is_some() => return Err(bad("a tmpfs has no source")),
        "tmpfs" => MountKind::Tmpfs {
            options: found.memory,
        },
        "npipe" | "cluster" => {
            return Err(bad(&format!("there is no type {kind} on this system")));
        }
        _ => return Err(bad("the type is bind, volume, image or tmpfs")),
    };
    let private = found.propagation.as_deref() == Some("rprivate");
    if found.readonly_below && !(found.readonly && private) {
        return Err(bad(
            "`bind-recursive=readonly` needs `readonly` and `bind-propagation=rprivate`",
        ));
    }
    if found.writable_below && !found.readonly {
        return Err(bad("`bind-recursive=writable` needs `readonly`"));
    }
    if found.owner_shift && !matches!(kind.as_str(), "bind" | "volume") {
        return Err(bad(&format!("`U` does not belong to type {kind}")));
    }
    Ok(MountRequest {
        readonly: found.readonly,
        propagation: found.propagation,
        single: found.single,
        recursive_readonly: !found.writable_below,
        owner_shift: found.owner_shift,
        subpath: found.subpath,
        ..MountRequest::new(target("--mount", text, &at)?, source)
    })
}

/// A path inside of a volume or an image.
fn inside(key: &str, text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if text.is_empty() || !plain {
        return Err(format!("`{key}` is a relative path without `..`"));
    }
    Ok(path.to_path_buf())
}

fn switch(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("`{key}` is true or false")),
    }
}

impl Fields {
    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let text = || {
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("`{key}` has no value"))
        };
        let pair = || {
            let text = text()?;
            let (key, value) = text.split_once('=').unwrap_or((&text, ""));
            Ok::<_, String>((key.to_owned(), value.to_owned()))
        };
        match key {
            "type" => self.kind = Some(text()?),
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.readonly = switch(key, value)?,
            // It means something on other systems; all three are the same here.
            "consistency" => match text()?.as_str() {
                "consistent" | "cached" | "delegated" | "default" => {}
                _ => return Err("`consistency` is consistent, cached or delegated".to_owned()),
            },
            "bind-propagation" => {
                let text = text()?;
                if !PROPAGATIONS.contains(&text.as_str()) {
                    return Err(format!("`bind-propagation` is {}", PROPAGATIONS.join(", ")));
                }
                self.propagation = Some(text);
            }
            "bind-nonrecursive" => self.single = switch(key, value)?,
            "bind-recursive" => match text()?.as_str() {
                "enabled" => {}
                "readonly" => self.readonly_below = true,
                "disabled" => self.single = true,
                "writable" => self.writable_below = true,
                _ => {
                    return Err(
                        "`bind-recursive` is enabled, disabled, writable or readonly".to_owned(),
                    );
                }
            },
            "U" => self.owner_shift = switch(key, value)?,
            "bind-create-src" => self.create = switch(key, value)?,
            "volume-nocopy" => self.no_copy = switch(key, value)?,
            "volume-label" => self.labels.extend([pair()?]),
            "volume-opt" => self.options.extend([pair()?]),
            "volume-driver" => self.driver = Some(text()?),
            "volume-subpath" | "image-subpath" => self.subpath = Some(inside(key, &text()?)?),
            "tmpfs-size" => self.memory.push(format!(
                "size={}",
                super::options::bytes(&text()?).map_err(|_| "`tmpfs-size` is a size".to_owned())?
            )),
            "tmpfs-mode" => {
                let text = text()?;
                let mode = u32::from_str_radix(&text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                let mode = mode.ok_or("`tmpfs-mode` is an octal number")?;
                self.memory.push(format!("mode={mode:o}"));
            }
            _ => return Err(format!("the key `{key}` is not known")),
        }
        for (prefix, kind) in [
            ("bind-", "bind"),
            ("volume-", "volume"),
            ("tmpfs-", "tmpfs"),
            ("image-", "image"),
        ] {
            if key.starts_with(prefix) {
                self.belongs.push((kind, key.to_owned()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_forms() {
        let bind = volume("/a:/b:ro").unwrap();
        assert!(bind.readonly && bind.target == Path::new("/b"));
        assert!(matches!(bind.source, MountKind::Bind { source, .. } if source == Path::new("/a")));
        let named = volume("data:/b:nocopy").unwrap();
        assert!(
            matches!(named.source, MountKind::Volume { name: Some(n), no_copy: true, .. } if n == "data")
        );
        assert!(matches!(
            volume("/b").unwrap().source,
            MountKind::Volume { name: None, .. }
        ));
        for bad in [
            "/a:b",
            "/a:/b:x",
            ":/b",
            "a:/b:ro:x",
            "/a:/b:nocopy",
            "data:/",
        ] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_keys_are_dockers_and_unknown_ones_are_refused() {
        let request = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert!(
            matches!(request.source, MountKind::Tmpfs { options } if options == ["size=1048576", "mode=1770"])
        );
        let quoted = mount("source=data,target=/d,\"volume-opt=o=a,b\"").unwrap();
        assert!(
            matches!(quoted.source, MountKind::Volume { options, .. } if options["o"] == "a,b")
        );
        let image = mount("type=image,source=i,target=/b,image-subpath=a/b").unwrap();
        assert!(matches!(image.source, MountKind::Image { reference } if reference == "i"));
        assert_eq!(image.subpath.as_deref(), Some(Path::new("a/b")));
        let below = "type=bind,source=/a,target=/b,ro,bind-recursive=writable";
        assert!(!mount(below).unwrap().recursive_readonly);
        for bad in [
            "type=bind,source=/a",
            "type=bind,target=/a",
            "type=bind,source=/a,target=/b,volume-nocopy",
            "type=volume,target=/b,subpath=x",
            "type=volume,target=/b,volume-subpath=../x",
            "type=volume,target=/b,image-subpath=x",
            "type=image,target=/b",
            "type=image,source=i,target=/b,U",
            "type=bind,source=/a,target=/b,bind-recursive=readonly",
            "type=bind,source=/a,target=/b,bind-recursive=writable",
            "type=tmpfs,source=x,target=/b",
            "type=what,target=/b",
            "target=/b,\"x",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
