//! Networks.

use engine::{Engine, Join};
use http::StatusCode;
use network::{CreateNetwork, Driver, NetworkConfig, Subnet};
use serde_json::{Value, json};

use crate::call::{Call, Reply, json as json_reply, no_content, ok, status};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::routes::create::join;
use crate::routes::images::bound_time;
use crate::wire::network::{self as wire, Pool};
use crate::wire::times;

const FILTERS: [&str; 8] = [
    "driver", "id", "name", "label", "label!", "type", "scope", "dangling",
];
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

fn is_built_in(config: &NetworkConfig) -> bool {
    config.is_default() || matches!(config.driver, Driver::Host | Driver::Null)
}

/// All networks; the default one is made when it is first used, and listed where it can be.
fn all(engine: &Engine) -> Result<Vec<NetworkConfig>, ApiError> {
    let mut all = engine.networks().list()?;
    if !all.iter().any(NetworkConfig::is_default) {
        all.extend(engine.networks().find(network::DEFAULT_NETWORK));
    }
    Ok(all)
}

/// `GET /networks`.
pub(crate) async fn list(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let list = call.daemon.run(move |engine| {
        let used = engine.networks_in_use()?;
        let is_wanted = |config: &NetworkConfig| {
            let unused = !is_built_in(config) && !used.contains(&config.id);
            let kind = if is_built_in(config) {
                "builtin"
            } else {
                "custom"
            };
            filters.any("driver", |driver| config.driver.name() == driver)
                && filters.any("id", |id| config.id.starts_with(id))
                && filters.any("name", |name| config.name.contains(name))
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |wanted| wanted == kind)
                && filters.labels(&config.labels)
                && dangling.is_none_or(|wanted| wanted == unused)
        };
        let all = all(engine)?;
        let wanted = all.iter().filter(|config| is_wanted(config));
        Ok(wanted
            .map(|config| wire::record(config, None))
            .collect::<Vec<Value>>())
    });
    ok(&list.await?)
}

/// `GET /networks/{id}`.
pub(crate) async fn inspect(call: Call, name: &str) -> Reply {
    let name = name.to_owned();
    if call
        .query
        .get("scope")
        .is_some_and(|scope| scope != "local")
    {
        return Err(ApiError::not_found(format!("network {name} not found")));
    }
    let record = call.daemon.run(move |engine| {
        let config = engine.networks().find(&name)?;
        let endpoints = engine.networks().endpoints(&config)?;
        Ok(wire::record(&config, Some(&endpoints)))
    });
    ok(&record.await?)
}

/// `POST /networks/create`.
pub(crate) async fn create(call: Call) -> Reply {
    let daemon = call.daemon.clone();
    let scope = call.scope.clone();
    let mut request: wire::CreateNetwork = call.json().await?;
    if let Some(scope) = scope {
        scope.create_network(&request.driver, &request.options, &mut request.labels)?;
    }
    let options = options(request)?;
    let created = daemon.run(move |engine| {
        let config = engine.networks().create(&options)?;
        record_event(engine, &config, "create", None);
        Ok(config.id)
    });
    let id = created.await?;
    json_reply(StatusCode::CREATED, &json!({ "Id": id, "Warning": "" }))
}

fn options(request: wire::CreateNetwork) -> Result<CreateNetwork, ApiError> {
    let refused = [
        ("Scope", !["", "local"].contains(&request.scope.as_str())),
        ("Ingress", request.ingress),
        ("ConfigOnly", request.config_only),
        (
            "ConfigFrom",
            request
                .config_from
                .as_ref()
                .and_then(|from| from.get("Network"))
                .and_then(Value::as_str)
                .is_some_and(|name| !name.is_empty()),
        ),
        (
            "IPAM.Driver",
            !["", "default"].contains(&request.ipam.driver.as_str()),
        ),
        ("IPAM.Options", !request.ipam.options.is_empty()),
    ];
    if let Some((name, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(ApiError::bad(format!(
            "cannot use {name}: it is not supported by ketch"
        )));
    }
    let driver = match request.driver.as_str() {
        "" | "default" => Driver::Bridge,
        name => Driver::parse(name).map_err(|_| {
            ApiError::not_found(format!(
                "could not find plugin {name} in v1 plugin registry: plugin not found"
            ))
        })?,
    };
    let mut options = CreateNetwork {
        driver,
        ipv4: request.enable_ipv4.unwrap_or(true),
        // As with Docker, who says nothing gets none; IPv6 addresses that are named speak for themselves.
        ipv6: match request.enable_ipv6 {
            Some(true) => Some(true),
            _ if request.ipam.config.iter().any(Pool::is_ipv6) => None,
            _ => Some(false),
        },
        internal: request.internal,
        labels: request.labels,
        options: request.options,
        ..CreateNetwork::named(&request.name)
    };
    let subnet = |text: &String| text.parse::<Subnet>().map_err(ApiError::from);
    let address = |text: &String| {
        text.parse()
            .map_err(|_| ApiError::bad(format!("invalid address: {text}")))
    };
    for pool in &request.ipam.config {
        if !pool.subnet.is_empty() {
            options.subnets.push(subnet(&pool.subnet)?);
        }
        if !pool.ip_range.is_empty() {
            options.ranges.push(subnet(&pool.ip_range)?);
        }
        if !pool.gateway.is_empty() {
            options.gateways.push(address(&pool.gateway)?);
        }
        for (name, text) in &pool.auxiliary_addresses {
            options.reserved.insert(name.clone(), address(text)?);
        }
    }
    Ok(options)
}

fn record_event(engine: &Engine, config: &NetworkConfig, action: &str, container: Option<&str>) {
    let mut attributes = vec![
        ("name", config.name.as_str()),
        ("type", config.driver.name()),
    ];
    attributes.extend(container.map(|id| ("container", id)));
    engine.record_event("network", action, &config.id, &attributes);
}

/// `POST /networks/{id}/connect`.
pub(crate) async fn connect(call: Call, name: &str) -> Reply {
    let daemon = call.daemon.clone();
    let scope = call.scope.clone();
    let request: wire::Connect = call.json().await?;
    let join: Join = join(name, &request.endpoint_config.unwrap_or_default())?;
    let connected = daemon.run(move |engine| {
        let config = engine.networks().find(&join.network)?;
        let wanted = match scope {
            Some(scope) => scope.container(engine, &request.container)?,
            None => request.container,
        };
        let container = engine.container(&wanted)?;
        engine.connect_network(&container, &join)?;
        record_event(engine, &config, "connect", Some(&container.config.id));
        Ok(())
    });
    connected.await?;
    status(StatusCode::OK)
}

/// `POST /networks/{id}/disconnect`.
pub(crate) async fn disconnect(call: Call, name: &str) -> Reply {
    let daemon = call.daemon.clone();
    let scope = call.scope.clone();
    let request: wire::Disconnect = call.json().await?;
    let name = name.to_owned();
    let disconnected = daemon.run(move |engine| {
        let config = engine.networks().find(&name)?;
        let wanted = match scope {
            Some(scope) => scope.container(engine, &request.container)?,
            None => request.container,
        };
        let container = match engine.container(&wanted) {
            // Nothing is left of it that could be taken off.
            Err(engine::EngineError::NoSuchContainer(_)) if request.force => return Ok(()),
            found => found?,
        };
        engine.disconnect_network(&container, &name)?;
        record_event(engine, &config, "disconnect", Some(&container.config.id));
        Ok(())
    });
    disconnected.await?;
    status(StatusCode::OK)
}

/// `DELETE /networks/{id}`.
pub(crate) async fn remove(call: Call, name: &str) -> Reply {
    let name = name.to_owned();
    let removed = call.daemon.run(move |engine| {
        let config = engine.networks().find(&name)?;
        if engine.networks_in_use()?.contains(&config.id)
            && !engine.networks().endpoints(&config)?.is_empty()
        {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!(
                    "error while removing network: network {} has active endpoints",
                    config.name
                ),
            ));
        }
        engine.networks().remove(&config)?;
        record_event(engine, &config, "destroy", None);
        Ok(())
    });
    removed.await?;
    no_content()
}

/// `POST /networks/prune`.
pub(crate) async fn prune(call: Call) -> Reply {
    let filters = Filters::read(&call.query, &PRUNE_FILTERS)?;
    let until = filters.values("until").first();
    let until = until.map(|text| bound_time(text)).transpose()?;
    let pruned = call.daemon.run(move |engine| {
        let used = engine.networks_in_use()?;
        let mut deleted = Vec::new();
        for config in engine.networks().list()? {
            let is_old =
                until.is_none_or(|until| times::seconds(&config.created) < until.unix_timestamp());
            let is_unused = !is_built_in(&config) && !used.contains(&config.id);
            if !is_unused || !is_old || !filters.labels(&config.labels) {
                continue;
            }
            match engine.networks().remove(&config) {
                Ok(()) => {
                    record_event(engine, &config, "destroy", None);
                    deleted.push(config.name);
                }
                Err(error) => tracing::debug!(%error, "a network is not pruned"),
            }
        }
        Ok(json!({ "NetworksDeleted": deleted }))
    });
    ok(&pruned.await?)
}
