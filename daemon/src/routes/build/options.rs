//! What the query of `POST /build` asks for.

use std::collections::BTreeMap;

use builder::{BuildOptions, CacheMode, CachePlace, CacheSource, CacheTarget, NoCache};
use engine::NetworkOptions;
use image::{Platform, Reference};
use network::HostTarget;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;
use crate::query::Query;
use crate::routes::create::extra_host;
use crate::routes::images::platform;

/// The options of a build, as far as they do not need its context.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) dockerfile: Option<String>,
    pub(super) remote: Option<String>,
    pub(super) network: String,
    pub(super) quiet: bool,
    /// What is asked for and not done.
    pub(super) warnings: Vec<String>,
    tags: Vec<Reference>,
    args: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    cache_from: Vec<Reference>,
    no_cache: bool,
    pull: bool,
    platforms: Vec<Platform>,
    target: Option<String>,
    extra_hosts: Vec<(String, HostTarget)>,
    memory: Option<i64>,
}

impl Asked {
    pub(super) fn read(query: &Query) -> Result<Self, ApiError> {
        match query.get("version") {
            // Without a session BuildKit's protocol is the classic one.
            None | Some("1" | "2") => {}
            Some(other) => {
                return Err(ApiError::bad(format!(
                    "invalid version {other} of the builder"
                )));
            }
        }
        for name in ["squash", "outputs", "isolation", "session"] {
            let given = query.get(name).unwrap_or_default();
            if !["", "0", "false", "null", "[]", "default"].contains(&given) {
                return Err(ApiError::bad(format!(
                    "cannot use {name}: it is not supported by ketch's builder"
                )));
            }
        }
        let references = |texts: Vec<String>| -> Result<Vec<Reference>, ApiError> {
            let texts = texts.iter().filter(|text| !text.is_empty());
            Ok(texts
                .map(|text| Reference::parse(text))
                .collect::<Result<_, _>>()?)
        };
        let tags = query.all("t").map(str::to_owned).collect();
        Ok(Self {
            dockerfile: query.get("dockerfile").map(str::to_owned),
            remote: query.get("remote").map(str::to_owned),
            network: query.get("networkmode").unwrap_or_default().to_owned(),
            quiet: query.is_set("q"),
            warnings: not_done(query),
            tags: references(tags)?,
            args: document(query, "buildargs")?.unwrap_or_default(),
            labels: document(query, "labels")?.unwrap_or_default(),
            cache_from: references(document(query, "cachefrom")?.unwrap_or_default())?,
            no_cache: query.is_set("nocache"),
            pull: query.is_set("pull"),
            platforms: query
                .get("platform")
                .into_iter()
                .map(platform)
                .collect::<Result<_, _>>()?,
            target: query.get("target").map(str::to_owned),
            extra_hosts: extra_hosts(query)?,
            memory: query.number("memory").filter(|bytes| *bytes > 0),
        })
    }

    /// The names of images whose cache has to be fetched.
    pub(super) fn cache_from(&self, is_away: impl Fn(&Reference) -> bool) -> Vec<CacheSource> {
        let away = self.cache_from.iter().filter(|name| is_away(name));
        away.cloned().map(CacheSource::Registry).collect()
    }

    /// The builder's options, without the context.
    pub(super) fn build_options(&self) -> Result<BuildOptions, ApiError> {
        let given = self.args.iter();
        let args: BTreeMap<String, String> = given
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect();
        let epoch = args
            .get("SOURCE_DATE_EPOCH")
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::bad(format!("invalid SOURCE_DATE_EPOCH: {text}")))
            })
            .transpose()?;
        let is_inline = args.get("BUILDKIT_INLINE_CACHE").is_some_and(|v| v == "1");
        let inline = CacheTarget {
            place: CachePlace::Inline,
            mode: CacheMode::Min,
        };
        Ok(BuildOptions {
            target: self.target.clone(),
            platforms: self.platforms.clone(),
            tags: self.tags.clone(),
            labels: self.labels.clone(),
            no_cache: match self.no_cache {
                true => NoCache::Always,
                false => NoCache::Never,
            },
            network_options: NetworkOptions {
                extra_hosts: self.extra_hosts.clone(),
                ..NetworkOptions::default()
            },
            epoch,
            pull: self.pull,
            cache_to: is_inline.then_some(inline).into_iter().collect(),
            memory_bytes: self.memory,
            args,
            ..BuildOptions::default()
        })
    }
}

/// A parameter that is JSON.
fn document<T: DeserializeOwned>(query: &Query, name: &str) -> Result<Option<T>, ApiError> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    serde_json::from_str(text)
        .map_err(|error| ApiError::bad(format!("invalid {name} '{text}': {error}")))
}

/// Several parameters, or one that is a list with commas.
fn extra_hosts(query: &Query) -> Result<Vec<(String, HostTarget)>, ApiError> {
    let texts = query.all("extrahosts").flat_map(|list| list.split(','));
    texts
        .filter(|text| !text.is_empty())
        .map(extra_host)
        .collect()
}

/// Limits that steps do not have.
fn not_done(query: &Query) -> Vec<String> {
    let numbers = ["memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize"];
    let numbers = numbers
        .iter()
        .filter(|name| query.number(name).is_some_and(|number| number > 0));
    let texts = ["cpusetcpus", "cpusetmems", "cgroupparent"];
    let texts = texts.iter().filter(|name| query.get(name).is_some());
    let ulimits = query.get("ulimits").and_then(|text| {
        let value: Value = serde_json::from_str(text).ok()?;
        value
            .as_array()
            .filter(|list| !list.is_empty())
            .map(|_| &"ulimits")
    });
    numbers
        .chain(texts)
        .chain(ulimits)
        .map(|name| format!("{name} is not applied to the steps of builds"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_the_command_line_is_read() {
        let query = Query::parse(
            "buildargs=%7B%22V%22%3A%227%22%2C%22W%22%3Anull%7D&cachefrom=%5B%22a%22%5D&cpushares=0\
             &dockerfile=Dockerfile&labels=%7B%7D&memory=0&memswap=0&networkmode=default&rm=1\
             &shmsize=0&t=a%3A1&t=b&target=&ulimits=null&version=1&cpusetcpus=0",
        );
        let asked = Asked::read(&query).unwrap();
        let options = asked.build_options().unwrap();
        assert_eq!(options.tags.len(), 2);
        assert_eq!(
            options.args,
            BTreeMap::from([("V".to_owned(), "7".to_owned())])
        );
        assert_eq!(
            asked.warnings,
            ["cpusetcpus is not applied to the steps of builds"]
        );
        assert_eq!(
            (
                asked.cache_from(|_| true).len(),
                asked.cache_from(|_| false).len()
            ),
            (1, 0)
        );
    }

    #[test]
    fn what_the_builder_has_not_is_refused() {
        for (text, status) in [("version=3", 400), ("squash=1", 400)] {
            let error = Asked::read(&Query::parse(text)).unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{text}");
        }
        assert!(Asked::read(&Query::parse("buildargs=x")).is_err());
    }
}
