//! Settings of ketch itself: flag, then environment variable, then config file, then default. The
//! only place that reads the environment.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;

/// One setting: its name in the config file, its variable, what it is for.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) variable: &'static str,
}

/// The lasting directory.
pub(crate) const ROOT: Setting = Setting {
    key: "root",
    variable: "KETCH_ROOT",
};
/// The directory that is gone after a reboot.
pub(crate) const RUN: Setting = Setting {
    key: "run",
    variable: "KETCH_RUN",
};
/// The network of a container that names none.
pub(crate) const NETWORK: Setting = Setting {
    key: "network",
    variable: "KETCH_NETWORK",
};
/// How ports are published: `kernel` (addresses are translated) or `proxy` (the monitor listens, so
/// that rules for the host's own ports apply).
pub(crate) const PUBLISH: Setting = Setting {
    key: "publish",
    variable: "KETCH_PUBLISH",
};
/// The host's address of published ports that name none: `0.0.0.0` stands for every address,
/// `127.0.0.1` for the loopback addresses.
pub(crate) const PUBLISH_DEFAULT: Setting = Setting {
    key: "publish-default",
    variable: "KETCH_PUBLISH_DEFAULT",
};
/// Registries that are spoken to without TLS, separated by commas.
pub(crate) const INSECURE: Setting = Setting {
    key: "insecure-registries",
    variable: "KETCH_INSECURE_REGISTRIES",
};

/// Mirrors, `registry=location` each, separated by commas, in the order in which they are asked.
pub(crate) const MIRRORS: Setting = Setting {
    key: "registry-mirrors",
    variable: "KETCH_REGISTRY_MIRRORS",
};

/// What layers are on disk: `directory`, `erofs` for one file each (root, Linux 6.12), or `auto` for
/// the latter where it can be used.
pub(crate) const LAYERS: Setting = Setting {
    key: "layers",
    variable: "KETCH_LAYERS",
};

/// Directories with CDI specifications, separated by commas, the most important last.
pub(crate) const CDI_SPEC_DIRS: Setting = Setting {
    key: "cdi-spec-dirs",
    variable: "KETCH_CDI_SPEC_DIRS",
};

/// The daemon that commands are for: `unix://PATH`, `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT][/PATH]`;
/// `local` for this host. Docker's own variable is not read: what it names may be this ketch.
pub(crate) const HOST: Setting = Setting {
    key: "host",
    variable: "KETCH_HOST",
};

/// The same by a name of docker's store.
pub(crate) const CONTEXT: Setting = Setting {
    key: "context",
    variable: "KETCH_CONTEXT",
};

/// The directory with `ca.pem`, `cert.pem` and `key.pem` for a tcp:// host.
pub(crate) const TLS_PATH: Setting = Setting {
    key: "tls-path",
    variable: "KETCH_TLS_PATH",
};

/// All of them, in the order in which `info` shows them.
const ALL: [&Setting; 12] = [
    &ROOT,
    &RUN,
    &NETWORK,
    &PUBLISH,
    &PUBLISH_DEFAULT,
    &INSECURE,
    &MIRRORS,
    &LAYERS,
    &CDI_SPEC_DIRS,
    &HOST,
    &CONTEXT,
    &TLS_PATH,
];

/// The settings that are flags before the command.
pub(crate) const FLAGS: [&str; 5] = [ROOT.key, RUN.key, HOST.key, CONTEXT.key, TLS_PATH.key];

/// Where the config file is, unless the variable says otherwise.
const CONFIG_VARIABLE: &str = "KETCH_CONFIG";
const CONFIG_FILE: &str = "/etc/ketch/config.json";

/// Where a value came from; what is said closer to the command is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Nobody has set it.
    Default,
    File,
    Environment,
    Flag,
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) text: String,
    pub(crate) source: Source,
    /// The same in words.
    pub(crate) place: String,
}

/// The effective settings.
#[derive(Debug)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Resolves every setting; `flags` are the global flags by key.
    pub(crate) fn resolve(flags: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let file = config_file()?;
        let mut values = BTreeMap::new();
        for setting in ALL {
            let value = if let Some(text) = flags.get(setting.key) {
                Value {
                    text: text.clone(),
                    source: Source::Flag,
                    place: format!("flag --{}", setting.key),
                }
            } else if let Some(text) = variable(setting.variable)? {
                Value {
                    text,
                    source: Source::Environment,
                    place: format!("environment {}", setting.variable),
                }
            } else if let Some(text) = file.1.get(setting.key) {
                Value {
                    text: text.clone(),
                    source: Source::File,
                    place: format!("file {}", file.0.display()),
                }
            } else {
                Value {
                    text: default(setting.key)?,
                    source: Source::Default,
                    place: "default".to_owned(),
                }
            };
            values.insert(setting.key, value);
        }
        Ok(Self { values })
    }

    /// One setting's text.
    pub(crate) fn get(&self, setting: &Setting) -> &str {
        self.values
            .get(setting.key)
            .map_or("", |value| value.text.as_str())
    }

    /// Whether nobody has set it.
    pub(crate) fn is_default(&self, setting: &Setting) -> bool {
        self.value(setting).source == Source::Default
    }

    /// One setting with its source.
    ///
    /// # Panics
    /// Never: every setting has a value from the start.
    pub(crate) fn value(&self, setting: &Setting) -> &Value {
        self.values
            .get(setting.key)
            .expect("Settings::resolve gives each setting a value")
    }

    /// All settings with their sources.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        ALL.into_iter()
            .filter_map(|s| Some((s.key, self.values.get(s.key)?)))
    }
}

/// A variable of the environment; one that is not UTF-8 is an error, not absent.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module the ban points to"
)]
pub(crate) fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the variable `{name}`")),
    }
}

/// The time of `SOURCE_DATE_EPOCH`, as configs have it.
pub(crate) fn source_date() -> anyhow::Result<Option<String>> {
    let Some(seconds) = source_epoch()? else {
        return Ok(None);
    };
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .with_context(|| format!("`SOURCE_DATE_EPOCH` is `{seconds}`, which is no time"))?;
    let form = &time::format_description::well_known::Rfc3339;
    Ok(Some(time.format(form).context("cannot write the time")?))
}

/// The seconds of `SOURCE_DATE_EPOCH`.
pub(crate) fn source_epoch() -> anyhow::Result<Option<u64>> {
    let Some(text) = variable("SOURCE_DATE_EPOCH")? else {
        return Ok(None);
    };
    let seconds = text.parse().ok().with_context(|| {
        format!("`SOURCE_DATE_EPOCH` is `{text}`, which is no number of seconds")
    })?;
    Ok(Some(seconds))
}

/// The user's own directory.
pub(crate) fn home() -> anyhow::Result<Option<String>> {
    match variable("HOME")? {
        None if cfg!(windows) => variable("USERPROFILE"),
        home => Ok(home),
    }
}

fn config_file() -> anyhow::Result<(PathBuf, BTreeMap<String, String>)> {
    let named = variable(CONFIG_VARIABLE)?;
    let path = PathBuf::from(named.as_deref().unwrap_or(CONFIG_FILE));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return Ok((path, BTreeMap::new()));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    let values: BTreeMap<String, String> = serde_json::from_str(&text)
        .with_context(|| format!("cannot use the config file `{}`", path.display()))?;
    if let Some(unknown) = values.keys().find(|key| ALL.iter().all(|s| s.key != **key)) {
        anyhow::bail!("`{}` has the unknown setting `{unknown}`", path.display());
    }
    Ok((path, values))
}

#[cfg(target_os = "linux")]
fn default(key: &str) -> anyhow::Result<String> {
    let is_root = rustix::process::geteuid().is_root();
    let user = |variable_name: &str, otherwise: String| -> anyhow::Result<String> {
        Ok(variable(variable_name)?.map_or(otherwise, |dir| format!("{dir}/ketch")))
    };
    Ok(match key {
        "root" if is_root => "/var/lib/ketch".to_owned(),
        "root" => {
            let home = variable("HOME")?.unwrap_or_else(|| "/".to_owned());
            user("XDG_DATA_HOME", format!("{home}/.local/share/ketch"))?
        }
        "run" if is_root => "/run/ketch".to_owned(),
        "run" => {
            let uid = rustix::process::geteuid().as_raw();
            user("XDG_RUNTIME_DIR", format!("/tmp/ketch-{uid}"))?
        }
        "network" if is_root => network::DEFAULT_NETWORK.to_owned(),
        "network" => network::Helper::choose()
            .map_or("none", network::Helper::name)
            .to_owned(),
        "cdi-spec-dirs" => "/etc/cdi,/var/run/cdi".to_owned(),
        "layers" => "auto".to_owned(),
        "publish" => "kernel".to_owned(),
        "publish-default" => "0.0.0.0".to_owned(),
        _ => String::new(),
    })
}

/// Everything is one user's own here.
#[cfg(not(target_os = "linux"))]
fn default(key: &str) -> anyhow::Result<String> {
    let data = match variable("XDG_DATA_HOME")? {
        Some(dir) => Some(dir),
        None if cfg!(windows) => variable("LOCALAPPDATA")?,
        None => home()?.map(|home| format!("{home}/Library/Application Support")),
    };
    let root = PathBuf::from(data.context("no directory of the user is known: set KETCH_ROOT")?);
    let root = root.join("ketch");
    Ok(match key {
        "root" => root.display().to_string(),
        "run" => root.join("run").display().to_string(),
        "network" => "none".to_owned(),
        "publish-default" => "127.0.0.1".to_owned(),
        _ => String::new(),
    })
}
