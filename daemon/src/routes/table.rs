//! The one table of routes: what each path does, which verb allows it, and whose object it names.
//! Dispatch, policies of sockets, metrics and the access log all read it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a client may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// To ask whether somebody is there; every socket allows it.
    Ping,
    /// To see what the host is and how much room things take.
    Info,
    /// To follow events.
    Events,
    /// To list containers and look at them.
    Inspect,
    /// To read what containers have written.
    Logs,
    /// To wait for an end.
    Wait,
    /// To join the streams of a container.
    Attach,
    /// To run further programs in containers.
    Exec,
    /// To create containers.
    Create,
    /// To start containers, and let them go on.
    Start,
    /// To stop, kill and pause containers.
    Stop,
    /// To stop containers and start them again.
    Restart,
    /// To change limits and names of containers.
    Update,
    /// To remove containers.
    Rm,
    /// To copy files in and out.
    Copy,
    /// To look at images.
    Images,
    /// To get images as archives.
    Save,
    /// To get images from registries.
    Pull,
    /// To send images to registries.
    Push,
    /// To try credentials.
    Login,
    /// To build images.
    Build,
    /// To make an image of a container.
    Commit,
    /// To load images from archives.
    Load,
    /// To give images names.
    Tag,
    /// To remove images and caches of builds.
    Rmi,
    /// Networks: to look at them, make, join and remove them.
    Networks,
    /// Volumes: to look at them, make and remove them.
    Volumes,
    /// To hand parts of the host to containers: bind mounts, devices, its namespaces, privileges.
    Host,
}

/// All verbs with their names.
const VERBS: [(Verb, &str); 28] = [
    (Verb::Ping, "ping"),
    (Verb::Info, "info"),
    (Verb::Events, "events"),
    (Verb::Inspect, "inspect"),
    (Verb::Logs, "logs"),
    (Verb::Wait, "wait"),
    (Verb::Attach, "attach"),
    (Verb::Exec, "exec"),
    (Verb::Create, "create"),
    (Verb::Start, "start"),
    (Verb::Stop, "stop"),
    (Verb::Restart, "restart"),
    (Verb::Update, "update"),
    (Verb::Rm, "rm"),
    (Verb::Copy, "copy"),
    (Verb::Images, "images"),
    (Verb::Save, "save"),
    (Verb::Pull, "pull"),
    (Verb::Push, "push"),
    (Verb::Login, "login"),
    (Verb::Build, "build"),
    (Verb::Commit, "commit"),
    (Verb::Load, "load"),
    (Verb::Tag, "tag"),
    (Verb::Rmi, "rmi"),
    (Verb::Networks, "networks"),
    (Verb::Volumes, "volumes"),
    (Verb::Host, "host"),
];

/// A word that is no verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no verb: there are {known}", known = Verb::names())]
pub struct UnknownVerb(String);

impl Verb {
    /// All names, for messages.
    fn names() -> String {
        let names: Vec<&str> = VERBS.iter().map(|(_, name)| *name).collect();
        names.join(", ")
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = VERBS.iter().find(|(verb, _)| verb == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        let found = VERBS.iter().find(|(_, name)| *name == text);
        found
            .map(|(verb, _)| *verb)
            .ok_or_else(|| UnknownVerb(text.to_owned()))
    }
}

/// Whether a route changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Changes,
}

/// Whose object a route is about: what a socket for containers with a label looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Nothing that has an owner: images, the daemon.
    Shared,
    /// The container in the path.
    Container,
    /// The container in the query.
    QueryContainer,
    /// The network in the path.
    Network,
    /// The volume in the path.
    Volume,
    /// The `exec` instance in the path, and so its container.
    Exec,
    /// A list, which the filter `label` narrows.
    List,
    /// What the body or the answer has: the route's own code looks at the policy.
    Own,
    /// The network in the path, and a container in the body.
    NetworkAndOwn,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Ping,
    Version,
    Info,
    DiskUsage,
    Events,
    Auth,
    Commit,
    Build,
    BuildPrune,
    Grpc,
    Session,
    ContainerList,
    ContainerCreate,
    ContainerPrune,
    ContainerRemove,
    ContainerInspect,
    ContainerTop,
    ContainerLogs,
    ContainerChanges,
    ContainerExport,
    ContainerStats,
    ArchiveStat,
    ArchiveGet,
    ArchivePut,
    Attach,
    ExecCreate,
    Wait,
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Rename,
    Update,
    Resize,
    ExecStart,
    ExecResize,
    ExecInspect,
    ImageList,
    ImagePull,
    ImageLoad,
    ImagePrune,
    ImagesSave,
    ImageSearch,
    ImageRemove,
    ImageInspect,
    ImageHistory,
    ImageSave,
    ImagePush,
    ImageTag,
    Distribution,
    NetworkList,
    NetworkCreate,
    NetworkPrune,
    NetworkInspect,
    NetworkRemove,
    NetworkConnect,
    NetworkDisconnect,
    VolumeList,
    VolumeCreate,
    VolumePrune,
    VolumeInspect,
    VolumeRemove,
    Refuse,
    #[cfg(test)]
    Fault,
}

/// One route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// `*` stands for all.
    pub(crate) method: &'static str,
    /// `{name}` stands for one part, `{name*}` for one or more.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    pub(crate) verb: Verb,
    pub(crate) effect: Effect,
    pub(crate) subject: Subject,
}

const fn route(
    method: &'static str,
    path: &'static str,
    operation: Operation,
    class: (Verb, Effect, Subject),
) -> Route {
    Route {
        method,
        path,
        operation,
        verb: class.0,
        effect: class.1,
        subject: class.2,
    }
}

use Effect::{Changes, Reads};
use Subject::{Container, Exec, List, Network, NetworkAndOwn, Own, QueryContainer, Shared, Volume};

/// All of them; the first that fits is taken.
#[rustfmt::skip]
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "_ping", Operation::Ping, (Verb::Ping, Reads, Shared)),
    route("HEAD", "_ping", Operation::Ping, (Verb::Ping, Reads, Shared)),
    route("GET", "version", Operation::Version, (Verb::Ping, Reads, Shared)),
    route("GET", "info", Operation::Info, (Verb::Info, Reads, Own)),
    route("GET", "system/df", Operation::DiskUsage, (Verb::Info, Reads, Own)),
    route("GET", "events", Operation::Events, (Verb::Events, Reads, List)),
    route("POST", "auth", Operation::Auth, (Verb::Login, Changes, Shared)),
    route("POST", "commit", Operation::Commit, (Verb::Commit, Changes, QueryContainer)),
    route("POST", "build", Operation::Build, (Verb::Build, Changes, Own)),
    route("POST", "build/prune", Operation::BuildPrune, (Verb::Rmi, Changes, Shared)),
    // What goes through these cannot be looked at here: it can ask for the host's network.
    route("POST", "grpc", Operation::Grpc, (Verb::Host, Changes, Shared)),
    route("POST", "session", Operation::Session, (Verb::Host, Changes, Shared)),
    route("GET", "containers/json", Operation::ContainerList, (Verb::Inspect, Reads, List)),
    route("POST", "containers/create", Operation::ContainerCreate, (Verb::Create, Changes, Own)),
    route("POST", "containers/prune", Operation::ContainerPrune, (Verb::Rm, Changes, List)),
    route("DELETE", "containers/{id}", Operation::ContainerRemove, (Verb::Rm, Changes, Container)),
    route("GET", "containers/{id}/json", Operation::ContainerInspect, (Verb::Inspect, Reads, Container)),
    route("GET", "containers/{id}/top", Operation::ContainerTop, (Verb::Inspect, Reads, Container)),
    route("GET", "containers/{id}/logs", Operation::ContainerLogs, (Verb::Logs, Reads, Container)),
    route("GET", "containers/{id}/changes", Operation::ContainerChanges, (Verb::Inspect, Reads, Container)),
    route("GET", "containers/{id}/export", Operation::ContainerExport, (Verb::Copy, Reads, Container)),
    route("GET", "containers/{id}/stats", Operation::ContainerStats, (Verb::Inspect, Reads, Container)),
    route("HEAD", "containers/{id}/archive", Operation::ArchiveStat, (Verb::Copy, Reads, Container)),
    route("GET", "containers/{id}/archive", Operation::ArchiveGet, (Verb::Copy, Reads, Container)),
    route("PUT", "containers/{id}/archive", Operation::ArchivePut, (Verb::Copy, Changes, Container)),
    route("POST", "containers/{id}/attach", Operation::Attach, (Verb::Attach, Changes, Container)),
    route("POST", "containers/{id}/exec", Operation::ExecCreate, (Verb::Exec, Changes, Container)),
    route("POST", "containers/{id}/wait", Operation::Wait, (Verb::Wait, Reads, Container)),
    route("POST", "containers/{id}/start", Operation::Start, (Verb::Start, Changes, Container)),
    route("POST", "containers/{id}/stop", Operation::Stop, (Verb::Stop, Changes, Container)),
    route("POST", "containers/{id}/restart", Operation::Restart, (Verb::Restart, Changes, Container)),
    route("POST", "containers/{id}/kill", Operation::Kill, (Verb::Stop, Changes, Container)),
    route("POST", "containers/{id}/pause", Operation::Pause, (Verb::Stop, Changes, Container)),
    route("POST", "containers/{id}/unpause", Operation::Unpause, (Verb::Start, Changes, Container)),
    route("POST", "containers/{id}/rename", Operation::Rename, (Verb::Update, Changes, Container)),
    route("POST", "containers/{id}/update", Operation::Update, (Verb::Update, Changes, Container)),
    route("POST", "containers/{id}/resize", Operation::Resize, (Verb::Attach, Changes, Container)),
    route("POST", "exec/{id}/start", Operation::ExecStart, (Verb::Exec, Changes, Exec)),
    route("POST", "exec/{id}/resize", Operation::ExecResize, (Verb::Exec, Changes, Exec)),
    route("GET", "exec/{id}/json", Operation::ExecInspect, (Verb::Exec, Reads, Exec)),
    route("GET", "images/json", Operation::ImageList, (Verb::Images, Reads, Shared)),
    route("POST", "images/create", Operation::ImagePull, (Verb::Pull, Changes, Own)),
    route("POST", "images/load", Operation::ImageLoad, (Verb::Load, Changes, Shared)),
    route("POST", "images/prune", Operation::ImagePrune, (Verb::Rmi, Changes, Shared)),
    route("GET", "images/get", Operation::ImagesSave, (Verb::Save, Reads, Shared)),
    route("GET", "images/search", Operation::ImageSearch, (Verb::Images, Reads, Shared)),
    route("DELETE", "images/{name*}", Operation::ImageRemove, (Verb::Rmi, Changes, Shared)),
    route("GET", "images/{name*}/json", Operation::ImageInspect, (Verb::Images, Reads, Shared)),
    route("GET", "images/{name*}/history", Operation::ImageHistory, (Verb::Images, Reads, Shared)),
    route("GET", "images/{name*}/get", Operation::ImageSave, (Verb::Save, Reads, Shared)),
    route("POST", "images/{name*}/push", Operation::ImagePush, (Verb::Push, Changes, Shared)),
    route("POST", "images/{name*}/tag", Operation::ImageTag, (Verb::Tag, Changes, Shared)),
    route("GET", "distribution/{name*}/json", Operation::Distribution, (Verb::Images, Reads, Shared)),
    route("GET", "networks", Operation::NetworkList, (Verb::Networks, Reads, List)),
    route("POST", "networks/create", Operation::NetworkCreate, (Verb::Networks, Changes, Own)),
    route("POST", "networks/prune", Operation::NetworkPrune, (Verb::Networks, Changes, List)),
    route("GET", "networks/{name}", Operation::NetworkInspect, (Verb::Networks, Reads, Network)),
    route("DELETE", "networks/{name}", Operation::NetworkRemove, (Verb::Networks, Changes, Network)),
    route("POST", "networks/{name}/connect", Operation::NetworkConnect, (Verb::Networks, Changes, NetworkAndOwn)),
    route("POST", "networks/{name}/disconnect", Operation::NetworkDisconnect, (Verb::Networks, Changes, NetworkAndOwn)),
    route("GET", "volumes", Operation::VolumeList, (Verb::Volumes, Reads, List)),
    route("POST", "volumes/create", Operation::VolumeCreate, (Verb::Volumes, Changes, Own)),
    route("POST", "volumes/prune", Operation::VolumePrune, (Verb::Volumes, Changes, List)),
    route("GET", "volumes/{name}", Operation::VolumeInspect, (Verb::Volumes, Reads, Volume)),
    route("DELETE", "volumes/{name}", Operation::VolumeRemove, (Verb::Volumes, Changes, Volume)),
    // What there is none of: swarms and managed plugins.
    route("PUT", "volumes/{name}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("GET", "plugins", Operation::Refuse, (Verb::Info, Reads, Shared)),
    route("*", "plugins", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "plugins/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "swarm", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "swarm/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "nodes", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "nodes/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "services", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "services/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "tasks", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "tasks/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "secrets", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "secrets/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "configs", Operation::Refuse, (Verb::Info, Changes, Shared)),
    route("*", "configs/{rest*}", Operation::Refuse, (Verb::Info, Changes, Shared)),
    #[cfg(test)]
    route("GET", "_fault", Operation::Fault, (Verb::Ping, Reads, Shared)),
];

/// The route of a request, with what stands for `{name}`.
pub(crate) fn find(method: &str, parts: &[String]) -> Option<(&'static Route, String)> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    ROUTES.iter().find_map(|route| {
        let is_method = route.method == "*" || route.method == method;
        let name = parameter(route.path, &parts).filter(|_| is_method)?;
        Some((route, name))
    })
}

/// What stands for the parameter of a pattern; nothing where it has none.
fn parameter(pattern: &str, parts: &[&str]) -> Option<String> {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let Some(at) = pattern.iter().position(|part| part.starts_with('{')) else {
        return (pattern == parts).then(String::new);
    };
    let (before, rest) = pattern.split_at(at);
    let (parameter, after) = rest.split_first()?;
    let length = parts.len().checked_sub(before.len() + after.len())?;
    if length == 0 || (length > 1 && !parameter.ends_with("*}")) {
        return None;
    }
    let (head, rest) = parts.split_at(at);
    let (name, tail) = rest.split_at(length);
    (head == before && tail == after).then(|| name.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> Option<(Operation, String)> {
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        find(method, &parts).map(|(route, name)| (route.operation, name))
    }

    #[test]
    fn paths_lead_to_their_operations() {
        let name = |text: &str| text.to_owned();
        assert_eq!(
            at("GET", "containers/json"),
            Some((Operation::ContainerList, name("")))
        );
        assert_eq!(
            at("GET", "containers/json/json"),
            Some((Operation::ContainerInspect, name("json")))
        );
        assert_eq!(
            at("GET", "images/h:5/a/b:1/json"),
            Some((Operation::ImageInspect, name("h:5/a/b:1")))
        );
        assert_eq!(
            at("DELETE", "images/a/b"),
            Some((Operation::ImageRemove, name("a/b")))
        );
        assert_eq!(
            at("GET", "images/get"),
            Some((Operation::ImagesSave, name("")))
        );
        assert_eq!(
            at("POST", "swarm/init"),
            Some((Operation::Refuse, name("init")))
        );
        for (method, path) in [
            ("GET", "nowhere"),
            ("GET", "containers/a/b/json"),
            ("PUT", "containers/a/json"),
            ("GET", "images/json/"),
            ("GET", ""),
            ("GET", "images//"),
        ] {
            assert_eq!(at(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn no_route_hides_another_one() {
        for (index, route) in ROUTES.iter().enumerate() {
            let method = if route.method == "*" {
                "PATCH"
            } else {
                route.method
            };
            let path = route
                .path
                .replace("{name*}", "a/b")
                .replace("{rest*}", "a/b");
            let path = path.replace("{name}", "x").replace("{id}", "x");
            let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
            let (found, _) = find(method, &parts).unwrap();
            assert!(std::ptr::eq(found, &raw const ROUTES[index]) || found.path == route.path);
            assert_eq!(found.operation, route.operation, "{method} {path}");
        }
    }

    #[test]
    fn verbs_have_one_spelling() {
        for (verb, name) in VERBS {
            assert_eq!(name.parse::<Verb>().unwrap(), verb);
            assert_eq!(verb.to_string(), name);
            assert_eq!(serde_json::to_value(verb).unwrap(), name);
        }
        assert!(
            "nope"
                .parse::<Verb>()
                .unwrap_err()
                .to_string()
                .contains("inspect")
        );
    }

    /// What only reads is asked with GET or HEAD, but for the wait; everything else changes something.
    #[test]
    fn effects_follow_methods() {
        for route in ROUTES {
            let reads =
                ["GET", "HEAD"].contains(&route.method) || route.operation == Operation::Wait;
            assert_eq!(
                reads,
                route.effect == Reads,
                "{} {}",
                route.method,
                route.path
            );
        }
    }

    /// A path that names an object has a subject that looks at it.
    #[test]
    fn named_objects_are_looked_at() {
        for route in ROUTES {
            let wanted = match route.path.split('/').next() {
                Some("containers") if route.path.contains("{id}") => Container,
                Some("exec") => Exec,
                Some("networks") if route.path.ends_with("connect") => NetworkAndOwn,
                Some("networks") if route.path.contains('{') => Network,
                Some("volumes") if route.operation == Operation::Refuse => Shared,
                Some("volumes") if route.path.contains('{') => Volume,
                _ => continue,
            };
            assert_eq!(route.subject, wanted, "{} {}", route.method, route.path);
        }
    }
}
