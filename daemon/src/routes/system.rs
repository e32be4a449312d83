//! `/_ping`, `/version`, `/info`, `/auth`, `/system/df`.

use std::collections::BTreeSet;
use std::fs;

use engine::Engine;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use http::{Response, StatusCode};
use image::{AuthConfig, Credentials, Reference};
use runtime_native::plan::{Hierarchy, detect};
use serde_json::{Value, json};
use state::Status;

use crate::body;
use crate::call::{Call, Reply, ok};
use crate::error::ApiError;
use crate::routes::{build, containers, images, volumes};
use crate::scope::Scope;
use crate::version::{DISK_USAGE_BY_KIND, NEWEST, NO_LEGACY_DISK_USAGE, OLDEST};
use crate::wire::times;

/// `/_ping`.
pub(crate) fn ping(call: &Call) -> Reply {
    let text = if call.method == http::Method::HEAD {
        ""
    } else {
        "OK"
    };
    let mut response = Response::new(body::full(text));
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, text: &'static str| {
        headers.insert(name, HeaderValue::from_static(text));
    };
    set(CONTENT_TYPE, "text/plain; charset=utf-8");
    set(CACHE_CONTROL, "no-cache, no-store, must-revalidate");
    set(PRAGMA, "no-cache");
    set(HeaderName::from_static("swarm"), "inactive");
    // Clients that find 2 speak BuildKit's protocol; those that cannot build the classic way.
    set(HeaderName::from_static("builder-version"), "2");
    Ok(response)
}

/// `/version`.
pub(crate) fn version(call: &Call) -> Reply {
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy().into_owned();
    let version = call.daemon.options.version;
    let arch = image::Platform::host().architecture().to_owned();
    let details = json!({
        "ApiVersion": NEWEST.to_string(),
        "Arch": arch,
        "BuildTime": times::NEVER,
        "Experimental": "false",
        "KernelVersion": kernel,
        "MinAPIVersion": OLDEST.to_string(),
        "Os": "linux",
    });
    ok(&json!({
        "Platform": { "Name": "ketch" },
        "Components": [{ "Name": "Engine", "Version": version, "Details": details }],
        "Version": version,
        "ApiVersion": NEWEST.to_string(),
        "MinAPIVersion": OLDEST.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": arch,
        "KernelVersion": kernel,
        "BuildTime": times::NEVER,
    }))
}

/// `/info`.
pub(crate) async fn info(call: Call) -> Reply {
    let (daemon, scope) = (call.daemon, call.scope);
    let version = daemon.options.version;
    let record = daemon.run(move |engine| record(engine, version, scope.as_deref()));
    ok(&record.await?)
}

fn record(engine: &Engine, version: &str, scope: Option<&Scope>) -> Result<Value, ApiError> {
    let mut containers = engine.containers()?;
    if let Some(scope) = scope {
        containers.retain(|container| scope.sees(&container.config.labels));
    }
    let count = |wanted: &dyn Fn(Status) -> bool| {
        let fitting = containers.iter().filter(|c| wanted(c.state.status));
        fitting.count()
    };
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let (groups, warnings) = match detect() {
        Hierarchy::None => ("", vec!["WARNING: no control groups: no limits"]),
        Hierarchy::Unified { .. } => ("2", Vec::new()),
        Hierarchy::Legacy { .. } => ("1", Vec::new()),
    };
    let mut security = vec!["name=seccomp,profile=builtin"];
    if !rustix::process::geteuid().is_root() {
        security.push("name=rootless");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "ID": machine_id(),
        "Name": text(system.nodename()),
        "ServerVersion": version,
        "Containers": containers.len(),
        "ContainersRunning": count(&|status| status == Status::Running),
        "ContainersPaused": count(&|status| status == Status::Paused),
        "ContainersStopped": count(&|status| !status.is_owned()),
        "Images": engine.store().list()?.len(),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlay"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": null,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": !groups.is_empty(), "SwapLimit": !groups.is_empty(),
        "CpuCfsPeriod": !groups.is_empty(), "CpuCfsQuota": !groups.is_empty(),
        "CPUShares": !groups.is_empty(), "CPUSet": !groups.is_empty(),
        "PidsLimit": !groups.is_empty(), "OomKillDisable": false,
        "IPv4Forwarding": true, "BridgeNfIptables": false, "BridgeNfIp6tables": false,
        "Debug": false, "NFd": 0, "NGoroutines": 0, "NEventsListener": 0,
        "SystemTime": state::clock::now(),
        "LoggingDriver": "json-file",
        "CgroupDriver": if groups.is_empty() { "none" } else { "cgroupfs" },
        "CgroupVersion": groups,
        "KernelVersion": text(system.release()),
        "OperatingSystem": release("PRETTY_NAME="),
        "OSVersion": release("VERSION_ID="),
        "OSType": "linux",
        "Architecture": text(system.machine()),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}, "Mirrors": [],
        },
        "NCPU": processors,
        "MemTotal": memory_total(),
        "GenericResources": null,
        "DockerRootDir": engine.layout().root(),
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        // `runc` is what clients call the native one when they name it.
        "Runtimes": {
            "native": { "path": "ketch" }, "runc": { "path": "ketch" }, "wasm": { "path": "ketch" },
        },
        "DefaultRuntime": "native",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive",
            "ControlAvailable": false, "Error": "", "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "", "InitBinary": "",
        "ContainerdCommit": { "ID": "" }, "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" },
        "SecurityOptions": security,
        "CDISpecDirs": [],
        "Warnings": warnings,
    }))
}

fn machine_id() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    id.trim().to_owned()
}

/// A line of os-release(5).
fn release(key: &str) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// `/auth`: whether a registry takes the credentials.
pub(crate) async fn auth(call: Call) -> Reply {
    let daemon = call.daemon.clone();
    let value: Value = call.value().await?.unwrap_or_default();
    let server = value.get("serveraddress").and_then(Value::as_str);
    let server = server.filter(|server| !server.is_empty());
    let host = server.map_or("docker.io", |server| {
        let bare = server.split("://").last().unwrap_or(server);
        bare.split('/').next().unwrap_or(bare)
    });
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let (host, options) = (host.to_owned(), daemon.options.registry.clone());
    let bad = || ApiError::bad("the request has no credentials");
    let config: AuthConfig = crate::auth::config(&value, &host).ok_or_else(bad)?;
    daemon
        .run(move |_| {
            let reference = Reference::parse(&format!("{host}/x"))?;
            let credentials = config
                .credentials(&reference)
                .map_err(|error| ApiError::bad(error.to_string()))?;
            if credentials == Credentials::Anonymous {
                return Err(bad());
            }
            image::check_credentials(&host, &credentials, &options).map_err(|error| {
                let mut error = ApiError::from(error);
                if error.status == StatusCode::FORBIDDEN {
                    error.status = StatusCode::UNAUTHORIZED;
                }
                error
            })
        })
        .await?;
    ok(&json!({ "Status": "Login Succeeded", "IdentityToken": "" }))
}

/// `/system/df`.
pub(crate) async fn disk_usage(call: Call) -> Reply {
    let (version, scope) = (call.version, call.scope.clone());
    let kinds: BTreeSet<String> = call.query.all("type").map(str::to_owned).collect();
    let verbose = call.query.is_set("verbose") || version < DISK_USAGE_BY_KIND;
    let value = call
        .daemon
        .run(move |engine| {
            let scope = scope.as_deref();
            let wants = |kind: &str| kinds.is_empty() || kinds.contains(kind);
            let mut value = json!({});
            if wants("image") {
                let list = images::usage(engine)?;
                let total = engine.store().usage()?.total;
                let size = |item: &Value| item["Size"].as_i64().unwrap_or(0);
                let free = |item: &Value| match item["Containers"].as_i64() {
                    Some(0) => size(item) - item["SharedSize"].as_i64().unwrap_or(0),
                    _ => 0,
                };
                let used = |item: &Value| item["Containers"].as_i64().unwrap_or(0) > 0;
                if version < NO_LEGACY_DISK_USAGE {
                    value["LayersSize"] = json!(total);
                    value["Images"] = json!(list);
                }
                if version >= DISK_USAGE_BY_KIND {
                    value["ImageUsage"] = kind(&list, verbose, used, &json!(total), free);
                }
            }
            if wants("container") {
                let list = containers::usage(engine, version, scope)?;
                let size = |item: &Value| item["SizeRw"].as_i64().unwrap_or(0);
                let used = |item: &Value| item["State"] == "running";
                let free = |item: &Value| if used(item) { 0 } else { size(item) };
                let total: i64 = list.iter().map(size).sum();
                if version < NO_LEGACY_DISK_USAGE {
                    value["Containers"] = json!(list);
                }
                if version >= DISK_USAGE_BY_KIND {
                    value["ContainerUsage"] = kind(&list, verbose, used, &json!(total), free);
                }
            }
            if wants("volume") {
                let list = volumes::usage(engine, scope)?;
                let size = |item: &Value| item["UsageData"]["Size"].as_i64().unwrap_or(0);
                let used = |item: &Value| item["UsageData"]["RefCount"].as_i64() != Some(0);
                let free = |item: &Value| if used(item) { 0 } else { size(item) };
                let total: i64 = list.iter().map(size).sum();
                if version < NO_LEGACY_DISK_USAGE {
                    value["Volumes"] = json!(list);
                }
                if version >= DISK_USAGE_BY_KIND {
                    value["VolumeUsage"] = kind(&list, verbose, used, &json!(total), free);
                }
            }
            if wants("build-cache") {
                let list = build::usage(engine)?;
                let size = |item: &Value| item["Size"].as_i64().unwrap_or(0);
                let total: i64 = list.iter().map(size).sum();
                if version < NO_LEGACY_DISK_USAGE {
                    value["BuildCache"] = json!(list);
                }
                if version >= DISK_USAGE_BY_KIND {
                    value["BuildCacheUsage"] = kind(&list, verbose, |_| false, &json!(total), size);
                }
            }
            Ok(value)
        })
        .await?;
    ok(&value)
}

/// Totals of one kind of object.
fn kind(
    items: &[Value],
    verbose: bool,
    used: impl Fn(&Value) -> bool,
    total: &Value,
    free: impl Fn(&Value) -> i64,
) -> Value {
    json!({
        "ActiveCount": items.iter().filter(|item| used(item)).count(),
        "TotalCount": items.len(),
        "Reclaimable": items.iter().map(free).sum::<i64>(),
        "TotalSize": total,
        "Items": if verbose { json!(items) } else { Value::Null },
    })
}
