//! The values of options of `build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use builder::{
    Allowed, AllowedDevices, CacheMode, CachePlace, CacheSource, CacheTarget, NamedContext,
    Repository, SecretSource,
};
use engine::{Join, Network};
use image::{LayoutReference, Reference};
use tempfile::TempDir;

use super::context::Means;
use crate::render::Usage;
use crate::settings::{self, Settings};

/// `NAME=VALUE`, once each.
pub(super) fn pairs(option: &str, list: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for text in list {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        // `manifest:` and `index:` say what an annotation is for; the manifest is where it goes.
        let name = name.strip_prefix("manifest:").unwrap_or(name);
        if name.is_empty() {
            return Err(Usage(format!("cannot use {option} `{text}`: it has no name")).into());
        }
        pairs.insert(name.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// Further contexts.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    pub(super) by_name: BTreeMap<String, NamedContext>,
    /// What was fetched goes when the build is done.
    pub(super) fetched: Vec<TempDir>,
}

/// `NAME=DIRECTORY`, `NAME=docker-image://IMAGE`, `NAME=oci-layout://DIRECTORY[:TAG|@DIGEST]`,
/// `NAME=REPOSITORY`, or the URL of an archive.
pub(super) fn contexts(list: &[String], means: &Means<'_>) -> anyhow::Result<Contexts> {
    let mut contexts = Contexts::default();
    for text in list {
        let wrong = |why: &str| Usage(format!("cannot use --build-context `{text}`: {why}"));
        let (name, place) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| wrong("it is NAME=PLACE"))?;
        if let Some(repository) = Repository::parse(place).map_err(|why| wrong(&why))? {
            let out = means.check_out(&repository)?;
            let context = NamedContext::Directory(out.found);
            contexts.by_name.insert(name.to_owned(), context);
            contexts.fetched.push(out.dir);
            continue;
        }
        let context = match place.split_once("://") {
            Some(("docker-image", image)) => NamedContext::Image(image.to_owned()),
            Some(("oci-layout", rest)) => {
                let (dir, reference) = LayoutReference::split(rest).map_err(|why| wrong(&why))?;
                NamedContext::Layout(directory(&dir, &wrong)?, reference)
            }
            Some(("http" | "https", _)) => {
                let dir = means.fetch_archive(place)?;
                let path = dir.path().to_path_buf();
                contexts.fetched.push(dir);
                NamedContext::Directory(path)
            }
            Some((scheme, _)) => {
                return Err(wrong(&format!(
                    "`{scheme}` is no kind of context: there are directories, repositories, URLs of archives, docker-image and oci-layout"
                ))
                .into());
            }
            None => NamedContext::Directory(directory(Path::new(place), &wrong)?),
        };
        contexts.by_name.insert(name.to_owned(), context);
    }
    Ok(contexts)
}

fn directory(path: &Path, wrong: &dyn Fn(&str) -> Usage) -> anyhow::Result<PathBuf> {
    let path =
        std::path::absolute(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    if !path.is_dir() {
        return Err(wrong("there is no such directory").into());
    }
    Ok(path)
}

/// `network.host`, `security.insecure`, `device` or `device=NAME`.
pub(super) fn allowed(list: &[String]) -> anyhow::Result<Allowed> {
    let mut allowed = Allowed::default();
    for text in list.iter().flat_map(|list| list.split(',')) {
        match text.split_once('=').unwrap_or((text, "")) {
            ("network.host", "") => allowed.network_host = true,
            ("security.insecure", "") => allowed.security_insecure = true,
            ("device", "") => allowed.devices = AllowedDevices::All,
            ("device", name) => {
                let name = name.strip_prefix("name=").unwrap_or(name);
                if let AllowedDevices::Named(names) = &mut allowed.devices {
                    names.push(name.to_owned());
                }
            }
            _ => {
                return Err(Usage(format!(
                    "cannot use --allow `{text}`: there are network.host, security.insecure, device and device=NAME"
                ))
                .into());
            }
        }
    }
    Ok(allowed)
}

/// `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME` for a variable or a file of this name.
pub(super) fn secrets(list: &[String]) -> anyhow::Result<BTreeMap<String, SecretSource>> {
    let mut secrets = BTreeMap::new();
    for text in list {
        let wrong = |why: &str| Usage(format!("cannot use --secret `{text}`: {why}"));
        let (mut id, mut file, mut env) = (None, None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => file = Some(PathBuf::from(value)),
                Some(("env", value)) => env = Some(value.to_owned()),
                Some(("type", "file" | "env")) => {}
                _ => return Err(wrong("its fields are id, src and env").into()),
            }
        }
        let id = id.ok_or_else(|| wrong("it has no id"))?;
        let source = match (file, env) {
            (Some(_), Some(_)) => return Err(wrong("it is either a file or a variable").into()),
            (Some(file), None) => secret_file(&file)?,
            (None, Some(name)) => {
                let value =
                    settings::variable(&name)?.ok_or_else(|| wrong("there is no such variable"))?;
                SecretSource::Value(value.into_bytes())
            }
            (None, None) => match settings::variable(&id)? {
                Some(value) => SecretSource::Value(value.into_bytes()),
                None => secret_file(Path::new(&id))?,
            },
        };
        secrets.insert(id, source);
    }
    Ok(secrets)
}

fn secret_file(path: &Path) -> anyhow::Result<SecretSource> {
    let path =
        std::path::absolute(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    if !path.is_file() {
        return Err(Usage(format!(
            "cannot use the secret `{}`: there is no such file",
            path.display()
        ))
        .into());
    }
    Ok(SecretSource::File(path))
}

/// `default`, or `NAME=SOCKET`.
pub(super) fn agents(list: &[String]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut agents = BTreeMap::new();
    for text in list {
        let (name, socket) = match text.split_once('=') {
            Some((name, socket)) => (name, PathBuf::from(socket)),
            None => {
                let socket = settings::variable("SSH_AUTH_SOCK")?;
                let socket = socket.ok_or_else(|| {
                    Usage("cannot use --ssh: SSH_AUTH_SOCK names no agent".to_owned())
                })?;
                (text.as_str(), PathBuf::from(socket))
            }
        };
        if !socket.exists() {
            return Err(Usage(format!(
                "cannot use --ssh `{text}`: there is no socket `{}`",
                socket.display()
            ))
            .into());
        }
        agents.insert(name.to_owned(), socket);
    }
    Ok(agents)
}

/// The time that nothing is newer than: the build argument's or the environment's, if there is one.
pub(super) fn epoch(argument: Option<&String>) -> anyhow::Result<Option<i64>> {
    let text = match argument {
        Some(text) => Some(text.clone()),
        None => settings::variable("SOURCE_DATE_EPOCH")?,
    };
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text
        .parse::<i64>()
        .ok()
        .filter(|seconds| (0..=253_402_300_799).contains(seconds));
    seconds.map(Some).ok_or_else(|| {
        Usage(format!(
            "`SOURCE_DATE_EPOCH` is `{text}`, which is no number of seconds"
        ))
        .into()
    })
}

/// The fields of a cache's place.
struct CacheFields {
    kind: String,
    place: Option<String>,
    mode: Option<CacheMode>,
}

/// `type=local,src=DIRECTORY`, `type=registry,ref=NAME`, `type=inline`; a path or a name alone.
fn cache(option: &str, key: &str, text: &str) -> anyhow::Result<CacheFields> {
    let wrong = |why: &str| Usage(format!("cannot use {option} `{text}`: {why}"));
    let mut fields = CacheFields {
        kind: "registry".to_owned(),
        place: None,
        mode: None,
    };
    if !text.contains('=') {
        if text.starts_with(['/', '.']) {
            "local".clone_into(&mut fields.kind);
        }
        fields.place = Some(text.to_owned());
        return Ok(fields);
    }
    let mut named = None;
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", kind @ ("local" | "registry" | "inline"))) => {
                kind.clone_into(&mut fields.kind);
            }
            Some(("type", other @ ("gha" | "s3" | "azblob"))) => {
                return Err(wrong(&format!(
                    "caches of type `{other}` are not supported: there are local, registry and inline"
                ))
                .into());
            }
            Some(("type", other)) => {
                return Err(wrong(&format!(
                    "`{other}` is no type of cache: there are local, registry and inline"
                ))
                .into());
            }
            Some(("mode", "min")) => fields.mode = Some(CacheMode::Min),
            Some(("mode", "max")) => fields.mode = Some(CacheMode::Max),
            // What there is no other way to do.
            Some(("image-manifest" | "oci-mediatypes", "true") | ("compression", "zstd")) => {}
            Some((name, value)) if name == key || name == "ref" => {
                named = Some(name);
                fields.place = Some(value.to_owned());
            }
            _ => return Err(wrong(&format!("`{field}` is nothing that can be set")).into()),
        }
    }
    let needed = match fields.kind.as_str() {
        "local" => Some(key),
        "registry" => Some("ref"),
        _ => None,
    };
    match (needed, named) {
        (Some(needed), Some(named)) if needed == named => {}
        (None, None) => {}
        (_, Some(named)) => {
            let why = format!("a cache of type {} has no {named}", fields.kind);
            return Err(wrong(&why).into());
        }
        (Some(needed), None) => return Err(wrong(&format!("it has no {needed}")).into()),
    }
    Ok(fields)
}

/// `--cache-from`.
pub(super) fn cache_source(text: &str) -> anyhow::Result<CacheSource> {
    let fields = cache("--cache-from", "src", text)?;
    if fields.mode.is_some() {
        let why = "all of a cache is used; mode says how much is written";
        return Err(Usage(format!("cannot use --cache-from `{text}`: {why}")).into());
    }
    let place = fields.place.unwrap_or_default();
    match fields.kind.as_str() {
        "local" => Ok(CacheSource::Directory(PathBuf::from(place))),
        "registry" => Ok(CacheSource::Registry(Reference::parse(&place)?)),
        _ => Err(Usage(
            "cannot use --cache-from type=inline: name the image with type=registry,ref=NAME"
                .to_owned(),
        )
        .into()),
    }
}

/// `--cache-to`.
pub(super) fn cache_target(text: &str) -> anyhow::Result<CacheTarget> {
    let fields = cache("--cache-to", "dest", text)?;
    let place = fields.place.unwrap_or_default();
    let mode = fields.mode.unwrap_or_default();
    Ok(CacheTarget {
        mode,
        place: match fields.kind.as_str() {
            "local" => CachePlace::Directory(PathBuf::from(place)),
            "registry" => CachePlace::Registry(Reference::parse(&place)?),
            _ if mode == CacheMode::Max => {
                return Err(Usage(
                    "cannot use --cache-to type=inline,mode=max: an image holds its own layers only"
                        .to_owned(),
                )
                .into());
            }
            _ => CachePlace::Inline,
        },
    })
}

/// The network of RUN.
pub(super) fn network(given: Option<&str>, settings: &Settings) -> anyhow::Result<Network> {
    let name = match given {
        Some("default") | None if settings.is_default(&settings::NETWORK) => {
            return Ok(super::default_network());
        }
        Some("default") | None => settings.get(&settings::NETWORK),
        Some(name) => name,
    };
    Ok(match name {
        "none" => Network::None,
        "host" => Network::Host,
        "default" => super::default_network(),
        name => Network::Joined(vec![Join {
            network: name.to_owned(),
            ..Join::default()
        }]),
    })
}

/// A memory limit with a suffix in powers of 1024.
pub(crate) fn memory(text: Option<&str>) -> anyhow::Result<Option<i64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let wrong = || {
        Usage(format!(
            "cannot use --memory `{text}`: it is a number with b, k, m or g"
        ))
    };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, shift) = match lower.chars().last() {
        Some('k') => (lower.trim_end_matches('k'), 10),
        Some('m') => (lower.trim_end_matches('m'), 20),
        Some('g') => (lower.trim_end_matches('g'), 30),
        _ => (lower, 0),
    };
    let number = number
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_shl(shift));
    Ok(Some(number.filter(|bytes| *bytes > 0).ok_or_else(wrong)?))
}
