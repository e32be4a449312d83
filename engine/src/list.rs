//! Which containers a list shows.

use std::collections::BTreeMap;

use image::Image;
use network::PortRange;
use state::Status;

use crate::filter::{Filters, name_fits};
use crate::{Container, Engine, EngineError};

/// The keys that containers are filtered by.
const KEYS: [&str; 14] = [
    "id", "name", "label", "status", "exited", "ancestor", "before", "since", "volume", "network",
    "publish", "expose", "health", "is-task",
];

/// Docker's words for where a container is.
const STATUSES: [&str; 7] = [
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];

/// Docker's words for how a container is.
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// Which containers are wanted.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Those that do not run too.
    pub all: bool,
    /// Only so many, the newest, running or not.
    pub last: Option<usize>,
    /// Filters, as [`ListOptions::filtered`] reads them.
    pub filters: Filters,
}

impl ListOptions {
    /// Reads the filters.
    ///
    /// # Errors
    /// [`EngineError::BadFilter`] for an unknown key or a value that its key does not have.
    pub fn filtered(mut self, texts: &[String]) -> Result<Self, EngineError> {
        self.filters = Filters::parse("containers", texts, &KEYS)?;
        self.check("status", |value| STATUSES.contains(&value))?;
        self.check("health", |value| HEALTHS.contains(&value))?;
        self.check("exited", |value| value.parse::<u8>().is_ok())?;
        for key in ["publish", "expose"] {
            self.check(key, |value| PortRange::parse(value).is_ok())?;
        }
        self.filters.flag("containers", "is-task")?;
        Ok(self)
    }

    fn check(&self, key: &str, knows: impl Fn(&str) -> bool) -> Result<(), EngineError> {
        match self.filters.values(key).iter().find(|value| !knows(value)) {
            None => Ok(()),
            Some(value) => Err(EngineError::BadFilter {
                what: "containers",
                filter: format!("{key}={value}"),
                why: format!("`{value}` is no value of {key}"),
            }),
        }
    }
}

/// The word for where a container is.
#[must_use]
pub fn status_word(status: Status) -> String {
    let word = serde_json::to_value(status).ok();
    let word = word.as_ref().and_then(serde_json::Value::as_str);
    word.unwrap_or_default().to_owned()
}

impl Engine {
    /// The containers that are wanted, the newest first.
    ///
    /// # Errors
    /// When they cannot be listed, or a filter names what is not there.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Container>, EngineError> {
        let filters = &options.filters;
        let bounds = Bounds::find(self, filters)?;
        let ancestors = Ancestors::find(self, filters)?;
        // As Docker does it: who asks for a state wants to see it.
        let all = options.all || options.last.is_some() || filters.has("status");
        let mut found = Vec::new();
        for container in self.containers()? {
            if (all || container.is_running())
                && self.is_wanted(&container, filters)
                && bounds.hold(&container)
                && ancestors.include(&container)
            {
                found.push(container);
            }
        }
        found.truncate(options.last.unwrap_or(usize::MAX));
        Ok(found)
    }

    fn is_wanted(&self, container: &Container, filters: &Filters) -> bool {
        let (config, state) = (&container.config, &container.state);
        let status = status_word(state.status);
        let exited = || state.status == Status::Exited;
        filters.any("id", |id| config.id.contains(id))
            && filters.any("name", |name| name_fits(&config.name, name))
            && filters.labels(&config.labels)
            && filters.any("status", |wanted| wanted == status)
            && filters.any("exited", |code| {
                exited() && state.exit_code.map(|own| own.to_string()).as_deref() == Some(code)
            })
            && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && filters.any("health", |wanted| wanted == self.health_word(container))
            && filters.any("volume", |wanted| self.has_mount(container, wanted))
            && self.is_on_wanted_network(container, filters)
            && self.has_wanted_ports(container, filters)
    }

    /// Docker's word for how a container is.
    #[must_use]
    pub fn health_word(&self, container: &Container) -> &'static str {
        self.health(container)
            .map_or("none", |health| health.status.name())
    }

    /// A volume's name, or where something is mounted.
    fn has_mount(&self, container: &Container, wanted: &str) -> bool {
        let mounts = self.container_mounts(&container.config.id);
        mounts.unwrap_or_default().iter().any(|mount| {
            mount.volume.as_deref() == Some(wanted) || mount.target.to_str() == Some(wanted)
        })
    }

    fn is_on_wanted_network(&self, container: &Container, filters: &Filters) -> bool {
        if !filters.has("network") {
            return true;
        }
        let Ok(network) = self.container_network(container) else {
            return false;
        };
        filters.any("network", |wanted| {
            network.mode_text() == wanted
                || network.endpoints.iter().any(|endpoint| {
                    endpoint.name == wanted
                        || (!wanted.is_empty() && endpoint.network.starts_with(wanted))
                })
        })
    }

    fn has_wanted_ports(&self, container: &Container, filters: &Filters) -> bool {
        if !filters.has("publish") && !filters.has("expose") {
            return true;
        }
        let Ok(network) = self.container_network(container) else {
            return false;
        };
        let state = self.network_state(container);
        let range = |text: &str| PortRange::parse(text).ok();
        let covers = |wanted: &PortRange, port: u16| (wanted.first..=wanted.last).contains(&port);
        filters.any("publish", |wanted| {
            range(wanted).is_some_and(|wanted| {
                state.ports.iter().any(|port| {
                    port.transport == wanted.transport && covers(&wanted, port.host.port())
                })
            })
        }) && filters.any("expose", |wanted| {
            range(wanted).is_some_and(|wanted| {
                network
                    .exposed
                    .iter()
                    .filter_map(|text| range(text))
                    .any(|own| {
                        own.transport == wanted.transport
                            && own.first <= wanted.last
                            && wanted.first <= own.last
                    })
            })
        })
    }
}

/// `before=` and `since=`: when the named containers were created.
struct Bounds {
    before: Vec<(String, String)>,
    since: Vec<(String, String)>,
}

impl Bounds {
    fn find(engine: &Engine, filters: &Filters) -> Result<Self, EngineError> {
        let times = |key: &str| {
            let found = filters.values(key).iter().map(|name| {
                let config = engine.container(name)?.config;
                Ok((config.created, config.id))
            });
            found.collect::<Result<Vec<_>, EngineError>>()
        };
        Ok(Self {
            before: times("before")?,
            since: times("since")?,
        })
    }

    fn hold(&self, container: &Container) -> bool {
        let config = &container.config;
        let own = &config.created;
        self.before
            .iter()
            .all(|(at, id)| own < at && config.id != *id)
            && self
                .since
                .iter()
                .all(|(at, id)| own > at && config.id != *id)
    }
}

/// `ancestor=`: images that a container's image is, or was built upon.
struct Ancestors {
    /// What was asked for, with the image where there is one.
    wanted: Vec<(String, Option<Image>)>,
    /// Of each image in the store its layers, to look a container's up.
    layers: BTreeMap<String, Vec<String>>,
}

impl Ancestors {
    fn find(engine: &Engine, filters: &Filters) -> Result<Self, EngineError> {
        let wanted: Vec<(String, Option<Image>)> = filters
            .values("ancestor")
            .iter()
            .map(|name| (name.clone(), engine.store().resolve(name, None).ok()))
            .collect();
        let mut layers = BTreeMap::new();
        if wanted.iter().any(|(_, image)| image.is_some()) {
            for summary in engine.store().list()? {
                let id = summary.id.to_string();
                if let Ok(image) = engine.store().resolve(&id, None) {
                    layers.insert(id, image.config.rootfs.diff_ids);
                }
            }
        }
        Ok(Self { wanted, layers })
    }

    fn include(&self, container: &Container) -> bool {
        let config = &container.config;
        self.wanted.is_empty()
            || self.wanted.iter().any(|(name, image)| match image {
                None => config.image == *name,
                Some(image) => {
                    config.image_id == image.id.to_string()
                        || self.layers.get(&config.image_id).is_some_and(|own| {
                            let base = &image.config.rootfs.diff_ids;
                            !base.is_empty() && own.starts_with(base)
                        })
                }
            })
    }
}
