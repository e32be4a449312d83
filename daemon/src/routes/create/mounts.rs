//! The mounts of a request: `Binds`, `Mounts`, `Tmpfs`, `Volumes`, `VolumesFrom`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::{MountKind, MountRequest};

use crate::error::ApiError;
use crate::version::{ApiVersion, IMAGE_MOUNT, VOLUME_SUBPATH};
use crate::wire::create::CreateContainer;
use crate::wire::host_config::{Mount, text};

/// All of them.
pub(super) fn mounts(
    request: &CreateContainer,
    version: ApiVersion,
) -> Result<Vec<MountRequest>, ApiError> {
    let host = &request.host_config;
    let driver = text(&host.volume_driver);
    let mut all = Vec::new();
    for text in &host.binds {
        all.push(bind(text, driver.as_ref())?);
    }
    for mount in &host.mounts {
        all.push(one(mount, version)?);
    }
    for (target, options) in &host.tmpfs {
        let options = options.split(',').filter(|option| !option.is_empty());
        let options = options.map(str::to_owned).collect();
        all.push(request_at(target, MountKind::Tmpfs { options })?);
    }
    for target in request.volumes.keys() {
        if !all.iter().any(|mount| mount.target == Path::new(target)) {
            all.push(request_at(target, volume(None, driver.as_ref()))?);
        }
    }
    Ok(all)
}

fn volume(name: Option<String>, driver: Option<&String>) -> MountKind {
    MountKind::Volume {
        name,
        no_copy: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        driver: driver.cloned(),
    }
}

fn request_at(target: &str, source: MountKind) -> Result<MountRequest, ApiError> {
    if !target.starts_with('/') {
        return Err(ApiError::bad(format!(
            "invalid mount config: mount path must be absolute: '{target}'"
        )));
    }
    Ok(MountRequest::new(PathBuf::from(target), source))
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn bind(text: &str, driver: Option<&String>) -> Result<MountRequest, ApiError> {
    let bad = || ApiError::bad(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad()),
    };
    let kind = match source {
        "" => volume(None, driver),
        path if path.starts_with('/') => MountKind::Bind {
            source: PathBuf::from(path),
            create: true,
        },
        name => volume(Some(name.to_owned()), driver),
    };
    let mut mount = request_at(target, kind)?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => mount.readonly = true,
            // Labels of SELinux, which does nothing where it is not there.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "nocopy" => match &mut mount.source {
                MountKind::Volume { no_copy, .. } => *no_copy = true,
                _ => return Err(bad()),
            },
            "bind" => mount.single = true,
            "rbind" => {}
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                mount.propagation = Some(option.to_owned());
            }
            _ => {
                return Err(ApiError::bad(format!(
                    "invalid volume specification: '{text}': invalid mode: {option}"
                )));
            }
        }
    }
    Ok(mount)
}

fn one(mount: &Mount, version: ApiVersion) -> Result<MountRequest, ApiError> {
    let invalid = |why: &str| {
        ApiError::bad(format!(
            "invalid mount config for type \"{}\": {why}",
            mount.kind
        ))
    };
    let wrong = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
    ];
    if let Some((name, ..)) = wrong
        .iter()
        .find(|(_, is, kind)| *is && mount.kind != *kind)
    {
        return Err(invalid(&format!("{name} must not be specified")));
    }
    if !["", "default", "consistent", "cached", "delegated"].contains(&mount.consistency.as_str()) {
        return Err(invalid("invalid consistency"));
    }
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let mut request = match mount.kind.as_str() {
        "bind" => bound(mount, &invalid)?,
        "volume" => named_volume(mount, version, &invalid)?,
        "tmpfs" => request_at(&mount.target, tmpfs(mount, &invalid)?)?,
        "image" if version < IMAGE_MOUNT => {
            return Err(invalid("mounts of images need API version 1.48"));
        }
        "image" => files_of_image(mount, &invalid)?,
        "npipe" | "cluster" => return Err(invalid("it is not supported by ketch")),
        _ => return Err(ApiError::bad("mount type unknown")),
    };
    request.readonly |= mount.read_only;
    Ok(request)
}

fn bound(mount: &Mount, invalid: &dyn Fn(&str) -> ApiError) -> Result<MountRequest, ApiError> {
    if !mount.source.starts_with('/') {
        return Err(invalid(&format!(
            "mount path must be absolute: '{}'",
            mount.source
        )));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if (options.read_only_force_recursive || options.read_only_non_recursive) && !mount.read_only {
        return Err(invalid(
            "ReadOnlyForceRecursive and ReadOnlyNonRecursive need ReadOnly",
        ));
    }
    let kind = MountKind::Bind {
        source: PathBuf::from(&mount.source),
        create: options.create_mountpoint,
    };
    let mut request = request_at(&mount.target, kind)?;
    request.single = options.non_recursive;
    request.recursive_readonly = !options.read_only_non_recursive;
    request.propagation = (!options.propagation.is_empty()).then_some(options.propagation);
    Ok(request)
}

fn named_volume(
    mount: &Mount,
    version: ApiVersion,
    invalid: &dyn Fn(&str) -> ApiError,
) -> Result<MountRequest, ApiError> {
    let options = mount.volume_options.clone().unwrap_or_default();
    if !options.subpath.is_empty() && version < VOLUME_SUBPATH {
        return Err(invalid("Subpath needs API version 1.45"));
    }
    let driver = options.driver_config.unwrap_or_default();
    let kind = MountKind::Volume {
        name: text(&mount.source),
        no_copy: options.no_copy,
        labels: options.labels,
        options: driver.options,
        driver: text(&driver.name),
    };
    let mut request = request_at(&mount.target, kind)?;
    request.subpath = text(&options.subpath).map(PathBuf::from);
    Ok(request)
}

fn files_of_image(
    mount: &Mount,
    invalid: &dyn Fn(&str) -> ApiError,
) -> Result<MountRequest, ApiError> {
    let reference = text(&mount.source);
    let reference = reference.ok_or_else(|| invalid("field Source must not be empty"))?;
    let mut request = request_at(&mount.target, MountKind::Image { reference })?;
    let options = mount.image_options.clone().unwrap_or_default();
    request.subpath = text(&options.subpath).map(PathBuf::from);
    request.readonly = true;
    Ok(request)
}

fn tmpfs(mount: &Mount, invalid: &dyn Fn(&str) -> ApiError) -> Result<MountKind, ApiError> {
    if !mount.source.is_empty() {
        return Err(invalid("field Source must not be specified"));
    }
    let given = mount.tmpfs_options.clone().unwrap_or_default();
    let mut options = Vec::new();
    if given.size_bytes > 0 {
        options.push(format!("size={}", given.size_bytes));
    }
    if given.mode > 0 {
        options.push(format!("mode={:o}", given.mode));
    }
    for words in &given.options {
        options.push(words.join("="));
    }
    Ok(MountKind::Tmpfs { options })
}

/// `CONTAINER[:ro|rw]`.
pub(super) fn volumes_from(texts: &[String]) -> Result<Vec<(String, bool)>, ApiError> {
    let one = |text: &String| match text.split_once(':') {
        None => Ok((text.clone(), false)),
        Some((name, "rw" | "z")) => Ok((name.to_owned(), false)),
        Some((name, "ro")) => Ok((name.to_owned(), true)),
        Some((_, mode)) => Err(ApiError::bad(format!(
            "invalid mode for volumes-from: {mode}"
        ))),
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_is_a_path_a_name_or_neither() {
        let path = bind("/a:/b:ro", None).unwrap();
        assert!(path.readonly && matches!(path.source, MountKind::Bind { create: true, .. }));
        let named = bind("v:/b:nocopy", None).unwrap();
        assert!(matches!(
            named.source,
            MountKind::Volume {
                no_copy: true,
                name: Some(_),
                ..
            }
        ));
        assert!(matches!(
            bind("/b", None).unwrap().source,
            MountKind::Volume { name: None, .. }
        ));
        for bad in ["a:b:c:d", "/a:b", "/a:/b:nope", "/a:/b:nocopy"] {
            assert!(bind(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        let mount = Mount {
            kind: "bind".to_owned(),
            source: "/a".to_owned(),
            target: "/b".to_owned(),
            tmpfs_options: Some(Default::default()),
            ..Mount::default()
        };
        let error = one(&mount, IMAGE_MOUNT).unwrap_err();
        assert!(error.message.contains("TmpfsOptions"), "{}", error.message);
    }
}
