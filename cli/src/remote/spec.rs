//! What `run` and `create` ask a daemon for. It is long because half of it is the list of options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::attach;
use crate::commands::{bytes_of, environment, nano_cpus, restart_policy};
use crate::render::Usage;

/// Options of `run` and `create` at a daemon, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Start it again when it ends: `no`, `on-failure[:N]`, `always` or `unless-stopped`
    #[arg(long, default_value = "no", value_name = "POLICY")]
    restart: String,
    /// Name of the container (default: made up)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set a variable, or take it over from this environment (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount `[SOURCE:]TARGET[:OPTIONS]`; a path is one of the daemon's host (can be repeated)
    #[arg(short, long, value_name = "MOUNT")]
    volume: Vec<String>,
    /// Mount `type=bind|volume|tmpfs,source=…,target=…[,readonly]` (can be repeated)
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Take over the mounts of a container: `NAME[:ro]` (can be repeated)
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Mount a tmpfs: `TARGET[:OPTIONS]` (can be repeated)
    #[arg(long, value_name = "MOUNT")]
    tmpfs: Vec<String>,
    /// Run this in place of the image's entrypoint
    #[arg(long)]
    entrypoint: Option<String>,
    /// Host name (default: the short id)
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Label: KEY[=VALUE] (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Signal that asks the container to end (default: the image's, or TERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds before a container that was asked to end is killed (default 10)
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Memory limit, in bytes or with a unit: b, k, m, g
    #[arg(short, long)]
    memory: Option<String>,
    /// How many processors, such as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// How many processes
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Run an init as the first process
    #[arg(long)]
    init: bool,
    /// Give it every privilege
    #[arg(long)]
    privileged: bool,
    /// Add a capability (can be repeated)
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away (can be repeated)
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// Security option (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Device of the daemon's host: `SOURCE[:TARGET[:rwm]]` (can be repeated)
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Kernel parameter of its namespaces (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<String>,
    /// Further group (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Network: a name, none, host or container:NAME
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Further name of the container on its network (can be repeated)
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address on its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Publish ports: `[ADDRESS:][HOST:]CONTAINER[/tcp|udp|sctp]` (can be repeated)
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Publish every exposed port on a free port of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Name a port that the container serves: `PORT[/tcp|udp|sctp]` (can be repeated)
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Resolver in place of the host's (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Line of /etc/hosts: NAME:ADDRESS (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// How output is recorded
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Option of the log driver (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Runtime of the daemon
    #[arg(long)]
    runtime: Option<String>,
    /// Which image of an index: os/arch[/variant]
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Get the image first: always, missing or never
    #[arg(long, default_value = "missing", value_name = "WHEN")]
    pub(crate) pull: String,
    /// Image, then the command and its arguments, which are not this program's
    #[arg(
        value_names = ["IMAGE", "COMMAND"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    image_and_command: Vec<String>,
}

fn wrong(option: &str, value: &str, form: &str) -> Usage {
    Usage(format!("cannot use {option} `{value}`: it is {form}"))
}

/// `KEY=VALUE` texts.
pub(crate) fn pairs(option: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Usage> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(wrong(option, text, "KEY=VALUE")),
    };
    texts.iter().map(pair).collect()
}

/// Labels; a key alone has an empty value.
pub(crate) fn labels(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

impl SpecArgs {
    pub(crate) fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// The body of the request, for a container whose streams are wanted or not.
    pub(crate) fn body(&self, attached: bool) -> anyhow::Result<Value> {
        let image = self.image();
        if image.starts_with('-') || image.is_empty() {
            return Err(Usage(format!("unknown flag `{image}` (see --help)")).into());
        }
        let command = self.image_and_command.get(1..).unwrap_or_default();
        let mut body = json!({
            "Image": image,
            "AttachStdin": attached && self.interactive,
            "AttachStdout": attached,
            "AttachStderr": attached,
            "OpenStdin": self.interactive,
            "StdinOnce": attached && self.interactive,
            "Tty": self.tty,
            "Env": environment(&self.env_file, &self.env)?,
            "Labels": labels(&self.label),
            "HostConfig": self.host_config()?,
        });
        let mut set = |key: &str, value: Value| body[key] = value;
        if !command.is_empty() {
            set("Cmd", json!(command));
        }
        if let Some(text) = &self.entrypoint {
            set("Entrypoint", json!([text]));
        }
        let texts = [
            ("WorkingDir", &self.workdir),
            ("User", &self.user),
            ("Hostname", &self.hostname),
            ("StopSignal", &self.stop_signal),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                set(key, json!(text));
            }
        }
        if let Some(seconds) = self.stop_timeout {
            set("StopTimeout", json!(seconds));
        }
        let mut exposed = Map::new();
        for text in &self.expose {
            exposed.insert(with_protocol(text), json!({}));
        }
        let (_, published) = self.ports()?;
        exposed.extend(published.into_iter().map(|port| (port, json!({}))));
        if !exposed.is_empty() {
            set("ExposedPorts", Value::Object(exposed));
        }
        let anonymous = self.volume.iter().filter(|text| !text.contains(':'));
        let anonymous: Map<String, Value> =
            anonymous.map(|text| (text.clone(), json!({}))).collect();
        if !anonymous.is_empty() {
            set("Volumes", Value::Object(anonymous));
        }
        if let Some(endpoint) = self.endpoint()? {
            set("NetworkingConfig", json!({ "EndpointsConfig": endpoint }));
        }
        Ok(body)
    }

    /// What is asked for on the network.
    fn endpoint(&self) -> Result<Option<Value>, Usage> {
        if self.ip.is_none() && self.network_alias.is_empty() {
            return Ok(None);
        }
        let Some(network) = &self.network else {
            return Err(Usage("--ip and --network-alias need --network".to_owned()));
        };
        let mut endpoint = json!({ "Aliases": self.network_alias });
        if let Some(ip) = &self.ip {
            endpoint["IPAMConfig"] = json!({ "IPv4Address": ip });
        }
        Ok(Some(json!({ network: endpoint })))
    }

    fn host_config(&self) -> anyhow::Result<Value> {
        let restart = restart_policy(&self.restart)?;
        let (bindings, _) = self.ports()?;
        let binds: Vec<String> = self
            .volume
            .iter()
            .filter(|text| text.contains(':'))
            .map(|text| bind(text))
            .collect::<anyhow::Result<_>>()?;
        let tmpfs: BTreeMap<&str, &str> = self
            .tmpfs
            .iter()
            .map(|text| text.split_once(':').unwrap_or((text, "")))
            .collect();
        let mut host = json!({
            "AutoRemove": self.rm,
            "RestartPolicy": { "Name": restart.name(), "MaximumRetryCount": restart.max_retries() },
            "Binds": binds,
            "Mounts": self.mount.iter().map(|text| mount(text)).collect::<Result<Vec<_>, _>>()?,
            "VolumesFrom": self.volumes_from,
            "Tmpfs": tmpfs,
            "PortBindings": bindings,
            "PublishAllPorts": self.publish_all,
            "ReadonlyRootfs": self.read_only,
            "Privileged": self.privileged,
            "CapAdd": self.cap_add,
            "CapDrop": self.cap_drop,
            "SecurityOpt": self.security_opt.iter().map(|text| security(text)).collect::<anyhow::Result<Vec<_>>>()?,
            "Devices": self.device.iter().map(|text| device(text)).collect::<Vec<_>>(),
            "Sysctls": pairs("--sysctl", &self.sysctl)?,
            "GroupAdd": self.group_add,
            "NetworkMode": self.network.as_deref().unwrap_or("default"),
            "Dns": self.dns,
            "ExtraHosts": self.add_host,
            "LogConfig": {
                "Type": self.log_driver.as_deref().unwrap_or_default(),
                "Config": pairs("--log-opt", &self.log_opt)?,
            },
        });
        let mut set = |key: &str, value: Value| host[key] = value;
        if self.tty {
            let size = attach::console();
            set("ConsoleSize", json!([size.rows, size.columns]));
        }
        if self.init {
            set("Init", json!(true));
        }
        if let Some(text) = &self.memory {
            set("Memory", json!(bytes_of("--memory", text)?));
        }
        if let Some(text) = &self.shm_size {
            set("ShmSize", json!(bytes_of("--shm-size", text)?));
        }
        if let Some(cpus) = self.cpus {
            set("NanoCpus", json!(nano_cpus(cpus)?));
        }
        if let Some(limit) = self.pids_limit {
            set("PidsLimit", json!(limit));
        }
        let texts = [
            ("PidMode", &self.pid),
            ("IpcMode", &self.ipc),
            ("Runtime", &self.runtime),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                set(key, json!(text));
            }
        }
        Ok(host)
    }

    /// The bindings by port of the container, and these ports.
    fn ports(&self) -> Result<(Value, Vec<String>), Usage> {
        let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for text in &self.publish {
            for (port, address, host) in published(text)? {
                let list = bindings.entry(port).or_default();
                list.push(json!({ "HostIp": address, "HostPort": host }));
            }
        }
        let ports = bindings.keys().cloned().collect();
        Ok((json!(bindings), ports))
    }
}

fn with_protocol(text: &str) -> String {
    match text.contains('/') {
        true => text.to_owned(),
        false => format!("{text}/tcp"),
    }
}

/// The first and the last of a range.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// `[ADDRESS:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]` as port, address and port of the host.
fn published(text: &str) -> Result<Vec<(String, String, String)>, Usage> {
    let bad = || {
        wrong(
            "--publish",
            text,
            "[ADDRESS:][HOST:]CONTAINER[/tcp|udp|sctp]",
        )
    };
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let mut parts = rest.rsplitn(3, ':');
    let container = parts.next().and_then(range).ok_or_else(bad)?;
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let count = container.1 - container.0;
    let host_range = match host {
        "" => None,
        text => Some(range(text).ok_or_else(bad)?),
    };
    if let Some((first, last)) = host_range
        && count > 0
        && last - first != count
    {
        return Err(bad());
    }
    let ports = (0..=count).map(|at| {
        let own = match host_range {
            None => String::new(),
            Some((first, last)) if count == 0 && first != last => format!("{first}-{last}"),
            Some((first, _)) => (first + at).to_string(),
        };
        (
            format!("{}/{protocol}", container.0 + at),
            address.to_owned(),
            own,
        )
    });
    Ok(ports.collect())
}

/// A source that begins with a dot is one of this directory, which only a daemon of this host has.
fn bind(text: &str) -> anyhow::Result<String> {
    match text.split_once(':') {
        Some((source, rest)) if source.starts_with('.') => {
            let source = std::path::absolute(source)?;
            Ok(format!("{}:{rest}", source.display()))
        }
        _ => Ok(text.to_owned()),
    }
}

/// `--mount`.
fn mount(text: &str) -> Result<Value, Usage> {
    let mut mount = json!({ "Type": "volume" });
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let is_on = ["", "true", "1"].contains(&value);
        match key {
            "type" => mount["Type"] = json!(value),
            "source" | "src" => mount["Source"] = json!(value),
            "target" | "dst" | "destination" => mount["Target"] = json!(value),
            "readonly" | "ro" => mount["ReadOnly"] = json!(is_on),
            "bind-propagation" => mount["BindOptions"]["Propagation"] = json!(value),
            "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = json!(is_on),
            "volume-subpath" => mount["VolumeOptions"]["Subpath"] = json!(value),
            "tmpfs-size" => {
                let size = bytes_of("tmpfs-size", value);
                let size = size.map_err(|error| Usage(error.to_string()))?;
                mount["TmpfsOptions"]["SizeBytes"] = json!(size);
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8);
                let mode = mode.map_err(|_| wrong("tmpfs-mode", value, "an octal number"))?;
                mount["TmpfsOptions"]["Mode"] = json!(mode);
            }
            _ => return Err(Usage(format!("cannot use `{part}` of --mount at a daemon"))),
        }
    }
    Ok(mount)
}

/// The text of a profile goes to the daemon, not its path.
fn security(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix("seccomp=") {
        Some(path) if !["unconfined", "builtin"].contains(&path) => {
            let profile = std::fs::read_to_string(Path::new(path)).map_err(|error| {
                anyhow::anyhow!("cannot read the seccomp profile `{path}`: {error}")
            })?;
            Ok(format!("seccomp={profile}"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn device(text: &str) -> Value {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let (target, mode) = match (parts.next(), parts.next()) {
        (Some(mode), None) if !mode.starts_with('/') => (source, mode),
        (target, mode) => (target.unwrap_or(source), mode.unwrap_or("rwm")),
    };
    json!({ "PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_bound_one_by_one() {
        let one = |port: &str, address: &str, host: &str| {
            (port.to_owned(), address.to_owned(), host.to_owned())
        };
        assert_eq!(published("80").unwrap(), [one("80/tcp", "", "")]);
        assert_eq!(
            published("[::1]:8080:80/udp").unwrap(),
            [one("80/udp", "::1", "8080")]
        );
        assert_eq!(
            published("8000-8001:80").unwrap(),
            [one("80/tcp", "", "8000-8001")]
        );
        assert_eq!(
            published("127.0.0.1:10-11:20-21").unwrap(),
            [
                one("20/tcp", "127.0.0.1", "10"),
                one("21/tcp", "127.0.0.1", "11")
            ]
        );
        for bad in ["", "x", "1:2-3", "3-2", "70000"] {
            assert!(published(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_and_devices_are_read() {
        let value = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777,ro").unwrap();
        let options = json!({ "SizeBytes": 1 << 20, "Mode": 0o1777 });
        assert_eq!(
            value,
            json!({ "Type": "tmpfs", "Target": "/t", "ReadOnly": true, "TmpfsOptions": options })
        );
        assert!(mount("type=bind,nope=1").is_err());
        assert_eq!(device("/dev/a:r")["CgroupPermissions"], "r");
        assert_eq!(device("/dev/a:/dev/b")["PathInContainer"], "/dev/b");
    }
}
