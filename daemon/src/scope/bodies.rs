//! What requests ask for: parts of the host need the verb `host`, other objects must have the
//! socket's labels, and new ones get them.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{CreateVolume, Engine, EngineError};
use serde_json::{Value, json};

use super::Scope;
use crate::call::Call;
use crate::error::ApiError;
use crate::routes::table::Verb;

/// Fields of `HostConfig` that give a container nothing of the host, whatever they say. Everything
/// that is neither here nor looked at below needs the verb `host`: what is new is refused until
/// somebody has thought about it.
const HARMLESS: [&str; 38] = [
    "AutoRemove",
    "BlkioWeight",
    "CapDrop",
    "ConsoleSize",
    "ContainerIDFile",
    "CpuCount",
    "CpuPercent",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IOMaximumBandwidth",
    "IOMaximumIOps",
    "Init",
    "Isolation",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "NanoCpus",
    "NanoCPUs",
    "OomKillDisable",
    "PidsLimit",
    "PortBindings",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "RestartPolicy",
    "Runtime",
    "ShmSize",
    "Sysctls",
    "Tmpfs",
    "Ulimits",
];

/// Options of a bridge that touch nothing but its own containers.
const HARMLESS_OPTIONS: [&str; 3] = [
    "com.docker.network.driver.mtu",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
];

/// Networks that are there for everyone.
const OF_ALL: [&str; 4] = ["", "default", "none", network::DEFAULT_NETWORK];

/// Logs that stay where the container is.
const HARMLESS_LOGS: [&str; 4] = ["", "json-file", "local", "none"];

impl Scope {
    fn needs_host(&self, what: &str) -> Result<(), ApiError> {
        self.needs(Verb::Host, what)
    }

    /// Looks at a container that is to be created, and gives it the labels.
    pub(crate) fn create(&self, engine: &Engine, request: &mut Value) -> Result<(), ApiError> {
        let host = request["HostConfig"].take();
        self.host_config(engine, &host)?;
        request["HostConfig"] = host;
        let endpoints = &request["NetworkingConfig"]["EndpointsConfig"];
        for name in endpoints.as_object().into_iter().flat_map(|all| all.keys()) {
            self.joined(engine, name)?;
        }
        self.label(request)
    }

    fn host_config(&self, engine: &Engine, host: &Value) -> Result<(), ApiError> {
        let Some(fields) = host.as_object() else {
            return Ok(());
        };
        for (key, value) in fields {
            match key.as_str() {
                "Binds" => strings(value).try_for_each(|text| self.bind(engine, text))?,
                "Mounts" => {
                    let mut mounts = value.as_array().into_iter().flatten();
                    mounts.try_for_each(|mount| self.mount(engine, mount))?;
                }
                "VolumesFrom" | "Links" => {
                    let mut names = strings(value);
                    names.try_for_each(|text| {
                        let name = text.split(':').next().unwrap_or(text);
                        self.other(engine, name, key)
                    })?;
                }
                "NetworkMode" => self.joined(engine, value.as_str().unwrap_or_default())?,
                "PidMode" | "IpcMode" => self.namespace(engine, key, value)?,
                "CgroupnsMode" | "UTSMode" | "UsernsMode" => {
                    let own = matches!(value.as_str(), None | Some("" | "private" | "auto"));
                    if !own {
                        self.needs_host(&format!("HostConfig.{key}"))?;
                    }
                }
                "LogConfig" => {
                    let kind = value["Type"].as_str().unwrap_or_default();
                    if !HARMLESS_LOGS.contains(&kind) {
                        self.needs_host(&format!("the log driver `{kind}`"))?;
                    }
                }
                "SecurityOpt" => {
                    for option in strings(value) {
                        if !option.starts_with("no-new-privileges") {
                            self.needs_host(&format!("the security option `{option}`"))?;
                        }
                    }
                }
                // Empty lists take the walls away.
                "MaskedPaths" | "ReadonlyPaths" => self.needs_host(&format!("HostConfig.{key}"))?,
                key if HARMLESS.contains(&key) || is_nothing(value) => {}
                key => self.needs_host(&format!("HostConfig.{key}"))?,
            }
        }
        Ok(())
    }

    /// `SOURCE:TARGET[:OPTIONS]`; a source without a slash is a volume.
    fn bind(&self, engine: &Engine, text: &str) -> Result<(), ApiError> {
        match text.split_once(':') {
            // An anonymous volume.
            None => Ok(()),
            Some((source, _)) if source.contains('/') || source.starts_with(['.', '~']) => {
                self.needs_host(&format!("the bind mount of `{source}`"))
            }
            Some((name, _)) => self.mounted_volume(engine, name),
        }
    }

    fn mount(&self, engine: &Engine, mount: &Value) -> Result<(), ApiError> {
        let source = mount["Source"].as_str().unwrap_or_default();
        match mount["Type"].as_str().unwrap_or_default() {
            "tmpfs" | "image" => Ok(()),
            "volume" => {
                if !is_nothing(&mount["VolumeOptions"]["DriverConfig"]) {
                    self.needs_host("a volume with driver options")?;
                }
                match source {
                    "" => Ok(()),
                    name => self.mounted_volume(engine, name),
                }
            }
            kind => self.needs_host(&format!("the {kind} mount of `{source}`")),
        }
    }

    /// A volume that a container mounts. One that is not there yet is made with the labels.
    fn mounted_volume(&self, engine: &Engine, name: &str) -> Result<(), ApiError> {
        if self.policy.labels.is_empty() {
            return Ok(());
        }
        if matches!(engine.volume(name), Err(EngineError::NoSuchVolume(_))) {
            let options = CreateVolume {
                name: Some(name.to_owned()),
                labels: self.policy.labels.clone(),
                ..CreateVolume::default()
            };
            engine.create_volume(&options)?;
            return Ok(());
        }
        self.volume(engine, name)
    }

    /// Another container that is named in a request. Without labels nothing is known of what it has
    /// of the host.
    fn other(&self, engine: &Engine, name: &str, what: &str) -> Result<(), ApiError> {
        if self.policy.labels.is_empty() {
            return self.needs_host(&format!("HostConfig.{what} of another container"));
        }
        self.container(engine, name).map(drop)
    }

    /// A network that a container is put on.
    pub(super) fn joined(&self, engine: &Engine, name: &str) -> Result<(), ApiError> {
        if OF_ALL.contains(&name) {
            return Ok(());
        }
        if name == "host" {
            return self.needs_host("the host's network");
        }
        if let Some(other) = name.strip_prefix("container:") {
            return self.other(engine, other, "NetworkMode");
        }
        if self.policy.labels.is_empty() {
            return Ok(());
        }
        self.network(engine, name).map(drop)
    }

    fn namespace(&self, engine: &Engine, key: &str, value: &Value) -> Result<(), ApiError> {
        let mode = value.as_str().unwrap_or_default();
        if let Some(other) = mode.strip_prefix("container:") {
            return self.other(engine, other, key);
        }
        match mode {
            "" | "private" | "shareable" | "none" => Ok(()),
            _ => self.needs_host(&format!("HostConfig.{key}")),
        }
    }

    /// Gives an object the labels, whatever it says itself.
    fn label(&self, request: &mut Value) -> Result<(), ApiError> {
        if self.policy.labels.is_empty() {
            return Ok(());
        }
        if request["Labels"].is_null() {
            request["Labels"] = json!({});
        }
        let Value::Object(labels) = &mut request["Labels"] else {
            return Err(ApiError::bad("invalid request: Labels: not an object"));
        };
        for (key, value) in &self.policy.labels {
            labels.insert(key.clone(), json!(value));
        }
        Ok(())
    }

    /// A further program in a container.
    pub(crate) fn exec(&self, is_privileged: bool) -> Result<(), ApiError> {
        match is_privileged {
            true => self.needs_host("a privileged program"),
            false => Ok(()),
        }
    }

    /// A network that is to be created.
    pub(crate) fn create_network(
        &self,
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &mut BTreeMap<String, String>,
    ) -> Result<(), ApiError> {
        if !["", "default", "bridge"].contains(&driver) {
            self.needs_host(&format!("the network driver `{driver}`"))?;
        }
        let mut options = options.keys();
        if let Some(key) = options.find(|key| !HARMLESS_OPTIONS.contains(&key.as_str())) {
            self.needs_host(&format!("the network option `{key}`"))?;
        }
        labels.extend(self.policy.labels.clone());
        Ok(())
    }

    /// A volume that is to be created, or is there and is asked for again.
    pub(crate) fn create_volume(
        &self,
        engine: &Engine,
        options: &mut CreateVolume,
    ) -> Result<(), ApiError> {
        let driver = options.driver.as_deref().unwrap_or(engine::LOCAL);
        if driver != engine::LOCAL || !options.options.is_empty() {
            self.needs_host("a volume with driver options")?;
        }
        if let Some(name) = &options.name
            && let Ok(found) = engine.volume(name)
            && !self.sees(&found.labels)
        {
            return Err(EngineError::VolumeExists(name.clone()).into());
        }
        options.labels.extend(self.policy.labels.clone());
        Ok(())
    }

    /// What the parameters of a build ask for.
    pub(super) async fn admit_build(self: &Arc<Self>, call: &Call) -> Result<(), ApiError> {
        for key in ["cgroupparent", "securityopt", "ulimits"] {
            if call
                .query
                .get(key)
                .is_some_and(|text| text != "null" && text != "[]")
            {
                self.needs_host(&format!("`{key}` of a build"))?;
            }
        }
        let mode = call.query.get("networkmode").unwrap_or_default().to_owned();
        let scope = Arc::clone(self);
        let looked = call.daemon.run(move |engine| scope.joined(engine, &mode));
        looked.await
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// What clients write for what they were not asked for.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| number == 0 || number == -1),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::policy::{Mode, Policy};
    use std::collections::BTreeSet;

    fn scope(allow: &[Verb]) -> Scope {
        let dir = tempfile::tempdir().unwrap();
        let layout = state::Layout::open(dir.path().join("root"), dir.path().join("run"));
        let allow: BTreeSet<Verb> = allow.iter().copied().collect();
        let labels = BTreeMap::new();
        let policy = Policy::new(&layout.unwrap(), "x", Mode::ReadWrite, labels, Some(allow));
        Scope::new(policy.unwrap())
    }

    /// The message of the refusal without the verb; with it nothing may be refused.
    fn refused(check: impl Fn(&Scope) -> Result<(), ApiError>) -> bool {
        check(&scope(&[Verb::Create, Verb::Host])).unwrap();
        let without = check(&scope(&[Verb::Create]));
        without.is_err_and(|error| {
            assert_eq!(error.status, http::StatusCode::FORBIDDEN);
            assert!(error.message.contains("`host`"), "{}", error.message);
            true
        })
    }

    #[test]
    fn what_is_new_in_a_host_config_needs_the_host() {
        assert!(!is_nothing(&json!({ "a": null, "b": [""] })));
        assert!(is_nothing(&json!({ "a": null, "b": [], "c": { "d": 0 } })));
        assert!(!is_nothing(&json!(true)) && !is_nothing(&json!(7)));
    }

    #[test]
    fn networks_and_programs_that_reach_the_host_need_the_verb() {
        assert!(refused(|scope| scope.exec(true)));
        assert!(!refused(|scope| scope.exec(false)));
        let network = |driver: &'static str, key: &str| {
            let options = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
            move |scope: &Scope| scope.create_network(driver, &options, &mut BTreeMap::new())
        };
        assert!(refused(network("macvlan", "com.docker.network.driver.mtu")));
        assert!(refused(network("bridge", "com.docker.network.bridge.name")));
        assert!(!refused(network("bridge", "com.docker.network.driver.mtu")));
    }
}
