//! Sockets that allow a part of the API. A policy says which; here it is applied, before an operation
//! sees its request.
//!
//! ```text
//! policy   what a socket allows, and where that is kept
//! bodies   what requests ask for: the host, other containers, networks and volumes
//! serve    the sockets of the policies, as these come and go
//! ```
//!
//! A socket for containers with a label looks every name up once and passes the id on, so that what
//! is renamed in between is not mistaken for another.

mod bodies;
mod policy;
mod serve;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Engine, EngineError};
use http::StatusCode;
use network::NetworkError;

use crate::call::Call;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::routes::table::{Operation, Route, Subject, Verb};
use crate::wire::messages;

pub use policy::{Mode, Policies, Policy, PolicyError};
pub(crate) use serve::Sockets;

/// The policy of a connection.
#[derive(Debug)]
pub(crate) struct Scope {
    policy: Policy,
}

impl Scope {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy }
    }

    /// The socket's name, for the access log.
    pub(crate) fn name(&self) -> &str {
        &self.policy.name
    }

    /// Whether its clients may build by BuildKit's protocol.
    pub(crate) fn speaks_buildkit(&self) -> bool {
        self.policy.has(Verb::Host) && self.policy.mode == Mode::ReadWrite
    }

    /// Whether something with these labels is there.
    pub(crate) fn sees(&self, labels: &BTreeMap<String, String>) -> bool {
        self.policy.sees(labels)
    }

    /// Lets a request through, or refuses it. Gives the name that its operation is to use.
    pub(crate) async fn admit(
        self: Arc<Self>,
        call: &mut Call,
        route: &Route,
        name: String,
    ) -> Result<String, ApiError> {
        if !self.policy.admits(route) {
            let what = format!("{} /{}", route.method, route.path);
            return Err(self.refusal(route.verb, &what));
        }
        if route.operation == Operation::ImagePull && call.query.get("fromSrc").is_some() {
            self.needs(Verb::Load, "to import an archive")?;
        }
        if route.operation == Operation::Build {
            self.admit_build(call).await?;
        }
        if self.policy.labels.is_empty() {
            return Ok(name);
        }
        let daemon = call.daemon.clone();
        match route.subject {
            Subject::Shared | Subject::Own => Ok(name),
            Subject::Container => {
                daemon
                    .run(move |engine| self.container(engine, &name))
                    .await
            }
            Subject::QueryContainer => {
                let other = call.query.get("container").unwrap_or_default().to_owned();
                let found = daemon.run(move |engine| self.container(engine, &other));
                call.query.set("container", found.await?);
                Ok(name)
            }
            Subject::Network | Subject::NetworkAndOwn => {
                daemon.run(move |engine| self.network(engine, &name)).await
            }
            Subject::Volume => {
                let looked = daemon.run(move |engine| {
                    self.volume(engine, &name)?;
                    Ok(name)
                });
                looked.await
            }
            Subject::Exec => {
                let missing = || ApiError::not_found(messages::no_such_exec(&name));
                let exec = daemon.execs.get(&name).ok_or_else(missing)?;
                let found = daemon.run(move |engine| self.container(engine, &exec.container));
                found.await.map_err(|_| missing())?;
                Ok(name)
            }
            Subject::List => {
                let filters = Filters::of(&call.query)?;
                let narrowed = filters.narrowed(&self.policy.labels);
                call.query.set("filters", narrowed);
                if route.operation == Operation::ContainerList {
                    let bounds = [filters.values("before"), filters.values("since")].concat();
                    let looked = daemon.run(move |engine| {
                        let mut bounds = bounds.iter();
                        bounds.try_for_each(|name| self.container(engine, name).map(drop))
                    });
                    looked.await?;
                }
                Ok(name)
            }
        }
    }

    /// The error for what a socket does not allow.
    fn refusal(&self, verb: Verb, what: &str) -> ApiError {
        let why = match self.policy.has(verb) {
            true => "it is read-only".to_owned(),
            false => format!("it does not have the verb `{verb}`"),
        };
        let name = &self.policy.name;
        ApiError::new(
            StatusCode::FORBIDDEN,
            format!("authorization denied by the socket `{name}`: {why}, which {what} needs"),
        )
    }

    /// Refuses unless a further verb is there.
    fn needs(&self, verb: Verb, what: &str) -> Result<(), ApiError> {
        match self.policy.has(verb) {
            true => Ok(()),
            false => Err(self.refusal(verb, what)),
        }
    }

    /// The id of a container; one without the labels is not there.
    pub(crate) fn container(&self, engine: &Engine, name: &str) -> Result<String, ApiError> {
        let missing = || ApiError::not_found(messages::no_such_container(name));
        let found = match engine.container(name) {
            // That there are several that one does not see is nobody's business.
            Err(EngineError::Ambiguous(_)) => return Err(missing()),
            found => found?,
        };
        match self.sees(&found.config.labels) {
            true => Ok(found.config.id),
            false => Err(missing()),
        }
    }

    /// The id of a network; one without the labels is not there.
    pub(crate) fn network(&self, engine: &Engine, name: &str) -> Result<String, ApiError> {
        let found = engine.networks().find(name)?;
        match self.sees(&found.labels) {
            true => Ok(found.id),
            false => Err(NetworkError::NotFound(name.to_owned()).into()),
        }
    }

    /// A volume; one without the labels is not there.
    pub(crate) fn volume(&self, engine: &Engine, name: &str) -> Result<(), ApiError> {
        let found = engine.volume(name)?;
        match self.sees(&found.labels) {
            true => Ok(()),
            false => Err(EngineError::NoSuchVolume(name.to_owned()).into()),
        }
    }
}
