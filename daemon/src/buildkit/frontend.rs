//! What the options of BuildKit's `dockerfile.v0` ask for (`frontend/dockerui/config.go`).

use std::collections::BTreeMap;

use builder::{BuildOptions, CacheMode, CachePlace, CacheSource, CacheTarget, NoCache};
use engine::{Network, NetworkOptions};
use image::{Compression, Reference};
use serde::Deserialize;

use super::grpc::Status;
use super::wire::control::{CacheOptions, CacheOptionsEntry, Exporter};
use crate::routes::create::{extra_host, network_of_build};
use crate::routes::images::platform;

/// The frontend itself, and the one that runs an image with a frontend in it.
pub(super) const DOCKERFILE: &str = "dockerfile.v0";
pub(super) const GATEWAY: &str = "gateway.v0";

/// Limits that steps do not have.
const NOT_APPLIED: [&str; 10] = [
    "cgroup-parent",
    "shm-size",
    "ulimit",
    "hostname",
    "memswap",
    "cpushares",
    "cpuperiod",
    "cpuquota",
    "cpusetcpus",
    "cpusetmems",
];

/// Options that say nothing about the result.
const INFORMATION: [&str; 5] = [
    "frontend.caps",
    "multi-platform",
    "source",
    "cmdline",
    "requestid",
];

/// An option that is a list of caches.
#[derive(Debug, Deserialize)]
struct CacheImport {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attrs: BTreeMap<String, String>,
}

/// What a build is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The Dockerfile's name in its directory.
    pub(super) filename: String,
    /// The address of the context; a directory of the client when absent.
    pub(super) remote: Option<String>,
    /// The client's directory with the context.
    pub(super) context: String,
    /// The client's directory with the Dockerfile.
    pub(super) dockerfile: String,
    /// The Dockerfile comes from the client though the context does not.
    pub(super) is_dockerfile_local: bool,
    /// Further contexts.
    pub(super) contexts: BTreeMap<String, String>,
    /// Sessions other than that of the build, by directory.
    pub(super) sessions: BTreeMap<String, String>,
    /// What is wanted instead of a build: `frontend.lint`.
    pub(super) request: Option<String>,
    /// What is asked for and not done.
    pub(super) warnings: Vec<String>,
    /// The builder's options, without contexts, caches and results.
    pub(super) options: BuildOptions,
    imports: Vec<CacheSource>,
}

impl Asked {
    /// Reads the options of a frontend.
    pub(super) fn read(frontend: &str, attrs: &BTreeMap<String, String>) -> Result<Self, Status> {
        match frontend {
            DOCKERFILE => {}
            GATEWAY => {
                let source = attrs.get("source").map(String::as_str).unwrap_or_default();
                if !builder::is_known_syntax(source) {
                    return Err(Status::unimplemented(format!(
                        "cannot run the frontend `{source}`: docker/dockerfile:1 is built in, and no other is run"
                    )));
                }
            }
            other => {
                return Err(Status::unimplemented(format!(
                    "cannot run the frontend `{other}`: there is {DOCKERFILE}"
                )));
            }
        }
        let mut asked = Self {
            filename: "Dockerfile".to_owned(),
            context: "context".to_owned(),
            dockerfile: "dockerfile".to_owned(),
            // An image is kept when a result is one.
            options: BuildOptions {
                record: builder::Record::No,
                ..BuildOptions::default()
            },
            ..Self::default()
        };
        let mut local_name = "context";
        for (key, value) in attrs {
            if key == "contextkey" {
                local_name = value;
            } else {
                asked.attribute(key, value)?;
            }
        }
        asked.remote = attrs
            .get(local_name)
            .filter(|text| !text.is_empty())
            .cloned();
        asked.options.epoch =
            match asked.options.args.get("SOURCE_DATE_EPOCH") {
                Some(text) if !text.is_empty() => {
                    let seconds = text.parse();
                    Some(seconds.map_err(|_| {
                        Status::invalid(format!("invalid SOURCE_DATE_EPOCH: {text}"))
                    })?)
                }
                _ => None,
            };
        Ok(asked)
    }

    fn attribute(&mut self, key: &str, value: &str) -> Result<(), Status> {
        if let Some((prefix, name)) = key.split_once(':') {
            return self.named(prefix, name, value);
        }
        let options = &mut self.options;
        match key {
            "filename" => value.clone_into(&mut self.filename),
            "dockerfilekey" => {
                value.clone_into(&mut self.dockerfile);
                self.is_dockerfile_local = true;
            }
            "requestid" => self.request = Some(value.to_owned()),
            "target" => options.target = Some(value.to_owned()).filter(|text| !text.is_empty()),
            "platform" => {
                let platforms = value.split(',').filter(|text| !text.is_empty());
                options.platforms = platforms
                    .map(|text| platform(text).map_err(|error| Status::invalid(error.message)))
                    .collect::<Result<_, _>>()?;
            }
            "no-cache" if value.is_empty() => options.no_cache = NoCache::Always,
            "no-cache" => {
                let names = value.split(',').map(str::to_owned);
                options.no_cache = NoCache::Stages(names.collect());
            }
            "image-resolve-mode" => options.pull = value == "pull",
            "force-network-mode" => options.network = network(value)?,
            "add-hosts" => {
                let hosts = value.split(',').filter(|text| !text.is_empty());
                options.network_options = NetworkOptions {
                    extra_hosts: hosts
                        .map(|text| extra_host(text).map_err(|e| Status::invalid(e.message)))
                        .collect::<Result<_, _>>()?,
                    ..NetworkOptions::default()
                };
            }
            "memory" => {
                let bytes = value.parse();
                let bytes =
                    bytes.map_err(|_| Status::invalid(format!("invalid memory: {value}")))?;
                options.memory_bytes = Some(bytes);
            }
            "cache-from" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    self.import(
                        "registry",
                        &BTreeMap::from([("ref".to_owned(), name.to_owned())]),
                    )?;
                }
            }
            "cache-imports" => {
                let list: Vec<CacheImport> = serde_json::from_str(value)
                    .map_err(|error| Status::invalid(format!("invalid cache-imports: {error}")))?;
                for entry in &list {
                    self.import(&entry.kind, &entry.attrs)?;
                }
            }
            "contextsubdir" => {
                return Err(Status::unimplemented(
                    "contextsubdir is not supported: name the directory in the context",
                ));
            }
            // Read with the others.
            "context" => {}
            key if NOT_APPLIED.contains(&key) => self
                .warnings
                .push(format!("{key} is not applied to the steps of builds")),
            key if INFORMATION.contains(&key) => {}
            key => self
                .warnings
                .push(format!("the frontend's option `{key}` is not known")),
        }
        Ok(())
    }

    fn named(&mut self, prefix: &str, name: &str, value: &str) -> Result<(), Status> {
        let options = &mut self.options;
        let pair = (name.to_owned(), value.to_owned());
        match prefix {
            "build-arg" => drop(options.args.insert(pair.0, pair.1)),
            "label" => drop(options.labels.insert(pair.0, pair.1)),
            "context" => drop(self.contexts.insert(pair.0, pair.1)),
            "local-sessionid" => drop(self.sessions.insert(pair.0, pair.1)),
            "attest" => {
                return Err(Status::unimplemented(format!(
                    "attest:{name} is not supported over BuildKit's protocol: `ketch build --attest` has it"
                )));
            }
            // What tells apart synchronised directories, and where the sources come from.
            "sharedkey" | "vcs" => {}
            _ => self.warnings.push(format!(
                "the frontend's option `{prefix}:{name}` is not known"
            )),
        }
        Ok(())
    }

    fn import(&mut self, kind: &str, attrs: &BTreeMap<String, String>) -> Result<(), Status> {
        let source = match (kind, attrs.get("ref")) {
            ("registry", Some(name)) => CacheSource::Registry(reference(name)?),
            ("registry", None) => {
                return Err(Status::invalid("a cache of a registry needs a ref"));
            }
            (kind, _) => {
                self.warnings.push(format!(
                    "caches of type {kind} are not read: there is type=registry"
                ));
                return Ok(());
            }
        };
        if !self.imports.contains(&source) {
            self.imports.push(source);
        }
        Ok(())
    }

    /// Adds the caches that the request itself names. Images that are here need not be asked for:
    /// what was built here is in the cache already.
    pub(super) fn caches(
        &mut self,
        asked: Option<&CacheOptions>,
        is_here: impl Fn(&Reference) -> bool,
    ) -> Result<(), Status> {
        let none = CacheOptions::default();
        let asked = asked.unwrap_or(&none);
        for entry in &asked.imports {
            self.import(&entry.kind, &entry.attrs)?;
        }
        for name in &asked.import_refs_deprecated {
            self.import(
                "registry",
                &BTreeMap::from([("ref".to_owned(), name.clone())]),
            )?;
        }
        let mut targets = Vec::new();
        for entry in &asked.exports {
            targets.push(cache_target(entry)?);
        }
        if !asked.export_ref_deprecated.is_empty() {
            targets.push(CacheTarget {
                place: CachePlace::Registry(reference(&asked.export_ref_deprecated)?),
                mode: CacheMode::Min,
            });
        }
        let is_away = |source: &&CacheSource| match source {
            CacheSource::Registry(name) => !is_here(name),
            CacheSource::Directory(_) => true,
        };
        self.options.cache_from = self.imports.iter().filter(is_away).cloned().collect();
        self.options.cache_to = targets;
        Ok(())
    }

    /// Adds what the results ask of the image.
    pub(super) fn results(&mut self, exporters: &[Exporter]) -> Result<(), Status> {
        for exporter in exporters {
            if is_image(&exporter.kind) {
                self.options.record = builder::Record::Yes;
                for name in names(exporter) {
                    let name = reference(name)?;
                    if !self.options.tags.contains(&name) {
                        self.options.tags.push(name);
                    }
                }
            }
            for (key, value) in &exporter.attrs {
                if let Some(name) = key
                    .strip_prefix("annotation.")
                    .or_else(|| key.strip_prefix("annotation-manifest."))
                {
                    let pair = (name.to_owned(), value.clone());
                    self.options.annotations.insert(pair.0, pair.1);
                } else if key.starts_with("annotation") {
                    return Err(Status::unimplemented(format!(
                        "{key} is not supported: annotations are those of manifests"
                    )));
                } else if key == "compression" {
                    self.options.compression = Some(compression(value)?);
                }
            }
        }
        Ok(())
    }
}

/// Whether a result is an image in the store, or made of one.
pub(super) fn is_image(kind: &str) -> bool {
    matches!(kind, "moby" | "image" | "oci" | "docker")
}

/// The names of a result.
pub(super) fn names(exporter: &Exporter) -> impl Iterator<Item = &str> {
    let names = exporter.attrs.get("name").map(String::as_str);
    names
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
}

fn reference(text: &str) -> Result<Reference, Status> {
    Reference::parse(text).map_err(|error| Status::invalid(error.to_string()))
}

fn network(mode: &str) -> Result<Network, Status> {
    match mode {
        "" | "default" | "sandbox" | "none" | "host" => Ok(network_of_build(match mode {
            "sandbox" => "default",
            mode => mode,
        })),
        other => Err(Status::invalid(format!("invalid network mode {other}"))),
    }
}

fn compression(text: &str) -> Result<Compression, Status> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "uncompressed" => Ok(Compression::None),
        other => Err(Status::unimplemented(format!(
            "compression={other} is not supported: there are gzip, zstd and uncompressed"
        ))),
    }
}

fn cache_target(entry: &CacheOptionsEntry) -> Result<CacheTarget, Status> {
    let mode = match entry.attrs.get("mode").map(String::as_str) {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => return Err(Status::invalid(format!("invalid mode of a cache: {other}"))),
    };
    let place = match (entry.kind.as_str(), entry.attrs.get("ref")) {
        ("inline", _) => CachePlace::Inline,
        ("registry", Some(name)) => CachePlace::Registry(reference(name)?),
        ("registry", None) => return Err(Status::invalid("a cache for a registry needs a ref")),
        (kind, _) => {
            return Err(Status::unimplemented(format!(
                "cannot write a cache of type {kind}: there are inline and registry"
            )));
        }
    };
    Ok(CacheTarget { place, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn options_of_buildx_are_read() {
        let given = attrs(&[
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("build-arg:V", "7"),
            (
                "cache-imports",
                r#"[{"Type":"registry","Attrs":{"ref":"r/c"}},{"Type":"gha"}]"#,
            ),
            ("context:lib", "local:lib"),
            ("filename", "Dockerfile.x"),
            ("force-network-mode", "none"),
            ("frontend.caps", "x"),
            ("image-resolve-mode", "pull"),
            ("label:l", "m"),
            ("no-cache", "a,b"),
            ("platform", "linux/amd64,linux/arm64"),
            ("shm-size", "1"),
            ("target", "t"),
            ("vcs:revision", "x"),
        ]);
        let mut asked = Asked::read(DOCKERFILE, &given).unwrap();
        asked.caches(None, |_| false).unwrap();
        let options = &asked.options;
        assert_eq!(asked.filename, "Dockerfile.x");
        assert_eq!(options.args["V"], "7");
        assert_eq!(options.labels["l"], "m");
        assert_eq!(options.platforms.len(), 2);
        assert_eq!(options.network_options.extra_hosts.len(), 2);
        assert_eq!(options.cache_from.len(), 1);
        assert_eq!(options.target.as_deref(), Some("t"));
        assert_eq!(
            options.no_cache,
            NoCache::Stages(vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(options.pull);
        assert_eq!(asked.warnings.len(), 2);
        assert_eq!(asked.contexts["lib"], "local:lib");
    }

    #[test]
    fn results_name_the_image() {
        let mut asked = Asked::read(DOCKERFILE, &attrs(&[("no-cache", "")])).unwrap();
        assert_eq!(asked.options.no_cache, NoCache::Always);
        let exporter = Exporter {
            kind: "moby".to_owned(),
            attrs: attrs(&[
                ("name", "a:1,b"),
                ("annotation.k", "v"),
                ("compression", "zstd"),
            ]),
        };
        asked.results(&[exporter]).unwrap();
        assert_eq!(asked.options.tags.len(), 2);
        assert_eq!(asked.options.annotations["k"], "v");
        assert_eq!(asked.options.compression, Some(Compression::Zstd));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (frontend, given) in [
            ("buildpacks.v0", vec![]),
            (GATEWAY, vec![("source", "example.org/x")]),
            (DOCKERFILE, vec![("attest:provenance", "mode=max")]),
            (DOCKERFILE, vec![("platform", "a/b/c/d")]),
            (DOCKERFILE, vec![("add-hosts", "x")]),
            (DOCKERFILE, vec![("force-network-mode", "bridge0")]),
            (DOCKERFILE, vec![("cache-imports", "x")]),
            (DOCKERFILE, vec![("build-arg:SOURCE_DATE_EPOCH", "now")]),
        ] {
            assert!(Asked::read(frontend, &attrs(&given)).is_err(), "{given:?}");
        }
        assert!(Asked::read(GATEWAY, &attrs(&[("source", "docker/dockerfile:1.7")])).is_ok());
    }
}
