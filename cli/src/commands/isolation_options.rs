//! The options of `run` and `create` that decide what stands between the container and the host.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use engine::{
    DeviceAccess, DeviceRequest, DeviceRule, IpcMode, IsolationOptions, SeccompProfile,
    SecurityOptions, Share, Ulimit, UserMode,
};
use oci_spec::runtime::PosixRlimitType;

use super::limit_options::LimitArgs;
use super::options::bytes_of;
use crate::render::Usage;
use crate::settings::{self, Settings};

/// Isolation options, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct IsolationArgs {
    /// Give the container every capability and device, and hide nothing from it
    #[arg(long)]
    privileged: bool,
    /// Add a capability, or ALL (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Security option: no-new-privileges, seccomp=unconfined|builtin|FILE, apparmor=PROFILE|unconfined, label=disable|PART:VALUE, systempaths=unconfined, writable-cgroups (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give the container a device of the host: `HOST[:CONTAINER][:rwm]`, or its CDI name vendor.com/class=name (can be repeated)
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Allow devices: `a|b|c MAJOR:MINOR rwm`, * for every number (can be repeated)
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Whose processes it sees: its own (default), host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Whose shared memory it has: private (default), shareable, none, host, or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Whose host name it has: its own (default), or host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Whose control groups it sees: private (default), or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Whose ids its users are: host (default), auto[:size=N], or keep-id
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Set a kernel parameter of the container's namespaces (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    /// Resource limit of each process: `NAME=SOFT[:HARD]`, -1 for none (can be repeated)
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Size of /dev/shm, in bytes or with a unit: b, k, m, g (default: 64m)
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Further group of the user, by name or number (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// How eagerly the kernel kills it for want of memory: -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Control group that the container's own lies in
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Start a first process that reaps others and passes signals on
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

pub(super) fn wrong(option: &str, text: &str, why: &str) -> anyhow::Error {
    Usage(format!("cannot use {option} `{text}`: {why}")).into()
}

impl IsolationArgs {
    /// `--security-opt no-new-privileges`.
    pub(crate) fn no_new_privileges(&self) -> anyhow::Result<bool> {
        Ok(self.security()?.1)
    }

    /// The engine's options.
    pub(crate) fn resolve(&self, settings: &Settings) -> anyhow::Result<IsolationOptions> {
        let (security, _) = self.security()?;
        let score = self.oom_score_adj;
        if let Some(score) = score.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(wrong(
                "--oom-score-adj",
                &score.to_string(),
                "it is -1000 to 1000",
            ));
        }
        Ok(IsolationOptions {
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            security,
            devices: all(&self.device, device)?,
            device_rules: all(&self.device_cgroup_rule, device_rule)?,
            cdi_dirs: cdi_dirs(settings),
            pid: share("--pid", self.pid.as_deref())?,
            ipc: ipc(self.ipc.as_deref())?,
            uts: own_or_host("--uts", self.uts.as_deref())?,
            cgroup_namespace: own_or_host("--cgroupns", self.cgroupns.as_deref())?,
            users: users(self.userns.as_deref())?,
            sysctl: all(&self.sysctl, sysctl)?,
            ulimits: all(&self.ulimit, ulimit)?,
            shm_bytes: shm_size(self.shm_size.as_deref())?,
            groups: self.group_add.clone(),
            oom_score_adj: score,
            limits: self.limits.resolve()?,
            cgroup_parent: self.cgroup_parent.clone().filter(|p| !p.is_empty()),
            init: self.init,
        })
    }

    /// The security options, and whether no new privileges are wanted.
    fn security(&self) -> anyhow::Result<(SecurityOptions, bool)> {
        let mut security = SecurityOptions::default();
        let mut no_new_privileges = false;
        for text in &self.security_opt {
            let bad = |why| wrong("--security-opt", text, why);
            // `:` is the separator of Docker's first versions.
            let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (text.as_str(), None),
            };
            match (key, value) {
                ("no-new-privileges", value) => no_new_privileges = flag(value, text)?,
                ("writable-cgroups", value) => security.writable_cgroups = flag(value, text)?,
                ("systempaths", Some("unconfined")) => security.all_system_paths = true,
                ("seccomp", Some(value)) => security.seccomp = seccomp(value)?,
                ("apparmor", Some(profile)) => {
                    security.apparmor = Some(profile.to_owned()).filter(|p| p != "unconfined");
                }
                ("label", Some("disable")) => security.labels.clear(),
                ("label", Some(part)) => {
                    const PARTS: [&str; 5] = ["user:", "role:", "type:", "level:", "filetype:"];
                    if !PARTS.iter().any(|known| part.starts_with(known)) {
                        return Err(bad("a label has user:, role:, type:, level: and filetype:"));
                    }
                    security.labels.push(part.to_owned());
                }
                _ => {
                    return Err(bad(
                        "it is no-new-privileges, seccomp=, apparmor=, label=, systempaths=unconfined or writable-cgroups",
                    ));
                }
            }
        }
        Ok((security, no_new_privileges))
    }
}

/// What of the walls of a build's steps is not the usual one.
pub(super) fn isolation_of_steps(
    settings: &Settings,
    shm: Option<&str>,
    ulimits: &[String],
    cgroup_parent: Option<&str>,
) -> anyhow::Result<IsolationOptions> {
    Ok(IsolationOptions {
        cdi_dirs: cdi_dirs(settings),
        ulimits: all(ulimits, ulimit)?,
        shm_bytes: shm_size(shm)?,
        cgroup_parent: cgroup_parent
            .filter(|parent| !parent.is_empty())
            .map(str::to_owned),
        ..IsolationOptions::default()
    })
}

fn cdi_dirs(settings: &Settings) -> Vec<PathBuf> {
    let dirs = settings.get(&settings::CDI_SPEC_DIRS).split(',');
    dirs.filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .collect()
}

fn shm_size(text: Option<&str>) -> anyhow::Result<Option<u64>> {
    let text = text.filter(|text| *text != "0");
    let bytes = text.map(|text| bytes_of("--shm-size", text)).transpose()?;
    Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
}

fn all<T>(texts: &[String], parse: fn(&str) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    texts.iter().map(|text| parse(text)).collect()
}

fn flag(value: Option<&str>, text: &str) -> anyhow::Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(wrong("--security-opt", text, "the value is true or false")),
    }
}

fn seccomp(value: &str) -> anyhow::Result<SeccompProfile> {
    Ok(match value {
        "unconfined" => SeccompProfile::Unconfined,
        "builtin" => SeccompProfile::Default,
        file => {
            let json = std::fs::read(file)
                .with_context(|| format!("cannot read the seccomp profile `{file}`"))?;
            SeccompProfile::Profile(json)
        }
    })
}

/// `HOST[:CONTAINER][:rwm]`, or a CDI name.
fn device(text: &str) -> anyhow::Result<DeviceRequest> {
    if DeviceRequest::is_cdi_name(text) {
        return Ok(DeviceRequest::Cdi(text.to_owned()));
    }
    let bad = |why| wrong("--device", text, why);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, second] if DeviceAccess::parse(second).is_some() => (*source, *source, *second),
        [source, target] => (*source, *target, "rwm"),
        [source, target, access] => (*source, *target, *access),
        _ => return Err(bad("it is HOST[:CONTAINER][:rwm] or a CDI name")),
    };
    let is_inside = |path: &str| Path::new(path).is_absolute() && path != "/";
    if !is_inside(source) || !is_inside(target) {
        return Err(bad("both paths must be absolute"));
    }
    Ok(DeviceRequest::Path {
        source: source.into(),
        target: target.into(),
        access: DeviceAccess::parse(access)
            .ok_or_else(|| bad("what may be done is some of r, w and m"))?,
    })
}

/// `c 10:200 rwm`.
fn device_rule(text: &str) -> anyhow::Result<DeviceRule> {
    let why = "it is `a|b|c MAJOR:MINOR rwm`";
    DeviceRule::parse(text).ok_or_else(|| wrong("--device-cgroup-rule", text, why))
}

fn share(option: &str, text: Option<&str>) -> anyhow::Result<Share> {
    Ok(match text {
        None | Some("" | "private") => Share::Private,
        Some("host") => Share::Host,
        Some(text) => match text.strip_prefix("container:").filter(|n| !n.is_empty()) {
            Some(name) => Share::Container(name.to_owned()),
            None => return Err(wrong(option, text, "it is host or container:NAME")),
        },
    })
}

fn own_or_host(option: &str, text: Option<&str>) -> anyhow::Result<Share> {
    match text {
        None | Some("" | "private") => Ok(Share::Private),
        Some("host") => Ok(Share::Host),
        Some(text) => Err(wrong(option, text, "it is private or host")),
    }
}

fn ipc(text: Option<&str>) -> anyhow::Result<IpcMode> {
    Ok(match text {
        None | Some("" | "private") => IpcMode::Private,
        Some("shareable") => IpcMode::Shareable,
        Some("none") => IpcMode::None,
        Some("host") => IpcMode::Host,
        Some(text) => match text.strip_prefix("container:").filter(|n| !n.is_empty()) {
            Some(name) => IpcMode::Container(name.to_owned()),
            None => {
                let why = "it is private, shareable, none, host or container:NAME";
                return Err(wrong("--ipc", text, why));
            }
        },
    })
}

/// As many ids as nearly every image has users for.
const AUTO_SIZE: u32 = 65_536;

fn users(text: Option<&str>) -> anyhow::Result<UserMode> {
    let Some(text) = text else {
        return Ok(UserMode::Host);
    };
    let bad = || wrong("--userns", text, "it is host, auto[:size=N] or keep-id");
    match text.split_once(':') {
        None => match text {
            "" | "host" => Ok(UserMode::Host),
            "auto" => Ok(UserMode::Auto { size: AUTO_SIZE }),
            "keep-id" => Ok(UserMode::KeepId),
            _ => Err(bad()),
        },
        Some(("auto", size)) => {
            let size = size.strip_prefix("size=").and_then(|n| n.parse().ok());
            size.map(|size| UserMode::Auto { size }).ok_or_else(bad)
        }
        Some(_) => Err(bad()),
    }
}

fn sysctl(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(wrong("--sysctl", text, "it is KEY=VALUE")),
    }
}

/// The names of `--ulimit`, as Docker has them.
const ULIMITS: [(&str, PosixRlimitType); 15] = [
    ("core", PosixRlimitType::RlimitCore),
    ("cpu", PosixRlimitType::RlimitCpu),
    ("data", PosixRlimitType::RlimitData),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("locks", PosixRlimitType::RlimitLocks),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("rss", PosixRlimitType::RlimitRss),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("stack", PosixRlimitType::RlimitStack),
];

fn ulimit(text: &str) -> anyhow::Result<Ulimit> {
    let bad = |why| wrong("--ulimit", text, why);
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| bad("it is NAME=SOFT[:HARD]"))?;
    let known = ULIMITS.iter().find(|(known, _)| *known == name);
    let (_, resource) = known.ok_or_else(|| bad("there is no limit of this name"))?;
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number
            .parse::<u64>()
            .map_err(|_| bad("a limit is a number")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(bad("the soft limit is higher than the hard one"));
    }
    Ok(Ulimit {
        resource: *resource,
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_a_path_twice_or_a_cdi_name() {
        let parsed = device("/dev/fuse:/dev/x:rw").unwrap();
        let DeviceRequest::Path { target, access, .. } = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!((target, access.make), ("/dev/x".into(), false));
        assert!(device("/dev/fuse:rw").is_ok());
        assert!(matches!(
            device("a.com/b=c").unwrap(),
            DeviceRequest::Cdi(_)
        ));
        for bad in ["", "fuse", "/dev/a:/dev/b:z", "/dev/a:b:rwm", "/a:/b:r:w"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn device_rule_has_three_parts() {
        let rule = device_rule("c 10:* rm").unwrap();
        assert_eq!((rule.major, rule.minor), (Some(10), None));
        for bad in [
            "",
            "c",
            "c 1:3",
            "x 1:3 r",
            "c 1 r",
            "c 1:3 q",
            "c 1:3 r r",
            "c -1:3 r",
        ] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimit_without_a_hard_one_is_both() {
        let limit = ulimit("nofile=1024").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 1024));
        assert_eq!(ulimit("core=0:-1").unwrap().hard, u64::MAX);
        for bad in ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_dockers() {
        assert_eq!(share("--pid", Some("host")).unwrap(), Share::Host);
        assert!(share("--pid", Some("container:")).is_err());
        assert!(own_or_host("--uts", Some("container:a")).is_err());
        assert_eq!(ipc(Some("shareable")).unwrap(), IpcMode::Shareable);
        assert_eq!(
            users(Some("auto:size=1000")).unwrap(),
            UserMode::Auto { size: 1000 }
        );
        for bad in ["auto:", "auto:size=x", "nomap", "keep-id:uid=1"] {
            assert!(users(Some(bad)).is_err(), "{bad}");
        }
    }
}
