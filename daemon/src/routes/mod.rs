//! One file a group of operations; here is which path leads where.

mod archive;
pub(crate) mod build;
mod containers;
pub(crate) mod create;
mod events;
mod exec;
pub(crate) mod images;
mod lifecycle;
mod networks;
mod stats;
mod swarm;
mod system;
mod transfer;
mod volumes;
mod wait;

use crate::buildkit;
use crate::call::{Call, Reply, page_not_found};

/// Answers a request.
pub(crate) async fn route(call: Call) -> Reply {
    let path = call.path.clone();
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["containers", rest @ ..] => container(call, rest).await,
        ["images", rest @ ..] => image(call, rest).await,
        ["exec", id, verb] => exec(call, id, verb).await,
        ["networks", rest @ ..] => network(call, rest).await,
        ["volumes", rest @ ..] => volume(call, rest).await,
        [one] => top(call, one).await,
        ["system", "df"] if is(&call, "GET") => system::disk_usage(call).await,
        ["build", "prune"] if is(&call, "POST") => build::prune(call).await,
        [first, ..] if swarm::is_of_swarm(first) => swarm::refuse(&call, &parts),
        _ => page_not_found(),
    }
}

fn is(call: &Call, method: &str) -> bool {
    call.method.as_str() == method
}

async fn top(call: Call, name: &str) -> Reply {
    match (call.method.as_str(), name) {
        ("GET" | "HEAD", "_ping") => system::ping(&call),
        ("GET", "version") => system::version(&call),
        ("GET", "info") => system::info(call).await,
        ("GET", "events") => events::events(&call),
        ("POST", "auth") => system::auth(call).await,
        ("POST", "commit") => images::commit(call).await,
        ("POST", "build") if buildkit::classic::is_meant(&call.query) => {
            buildkit::classic::build(call).await
        }
        ("POST", "build") => build::build(call),
        ("POST", "grpc") => buildkit::grpc(call),
        ("POST", "session") => buildkit::session(call),
        (_, name) if swarm::is_of_swarm(name) => swarm::refuse(&call, &[name]),
        _ => page_not_found(),
    }
}

async fn container(call: Call, rest: &[&str]) -> Reply {
    match (call.method.as_str(), rest) {
        ("GET", ["json"]) => containers::list(call).await,
        ("POST", ["create"]) => create::create(call).await,
        ("POST", ["prune"]) => containers::prune(call).await,
        ("DELETE", [id]) => lifecycle::remove(call, id).await,
        ("GET", [id, "json"]) => containers::inspect(call, id).await,
        ("GET", [id, "top"]) => containers::top(call, id).await,
        ("GET", [id, "logs"]) => containers::logs(call, id).await,
        ("GET", [id, "changes"]) => archive::changes(call, id).await,
        ("GET", [id, "export"]) => archive::export(call, id).await,
        ("GET", [id, "stats"]) => stats::stats(call, id).await,
        ("HEAD", [id, "archive"]) => archive::stat(call, id).await,
        ("GET", [id, "archive"]) => archive::get(call, id).await,
        ("PUT", [id, "archive"]) => archive::put(call, id).await,
        ("POST", [id, "attach"]) => exec::attach(call, id).await,
        ("POST", [id, "exec"]) => exec::create(call, id).await,
        ("POST", [id, "wait"]) => wait::wait(call, id).await,
        ("POST", [id, "start"]) => lifecycle::start(call, id).await,
        ("POST", [id, "stop"]) => lifecycle::stop(call, id).await,
        ("POST", [id, "restart"]) => lifecycle::restart(call, id).await,
        ("POST", [id, "kill"]) => lifecycle::kill(call, id).await,
        ("POST", [id, "pause"]) => lifecycle::pause(call, id).await,
        ("POST", [id, "unpause"]) => lifecycle::unpause(call, id).await,
        ("POST", [id, "rename"]) => lifecycle::rename(call, id).await,
        ("POST", [id, "update"]) => lifecycle::update(call, id).await,
        ("POST", [id, "resize"]) => exec::resize_container(call, id).await,
        _ => page_not_found(),
    }
}

/// Names of images have slashes: what stands between is the name.
async fn image(call: Call, rest: &[&str]) -> Reply {
    let method = call.method.as_str();
    match (method, rest) {
        ("GET", ["json"]) => return images::list(call).await,
        ("POST", ["create"]) => return transfer::create(call).await,
        ("POST", ["load"]) => return transfer::load(call).await,
        ("POST", ["prune"]) => return images::prune(call).await,
        ("GET", ["get"]) => return transfer::save(call, Vec::new()).await,
        ("GET", ["search"]) => return images::search(call).await,
        _ => {}
    }
    if method == "DELETE" && !rest.is_empty() {
        return images::remove(call, &rest.join("/")).await;
    }
    let Some((verb, name)) = rest.split_last().filter(|(_, name)| !name.is_empty()) else {
        return page_not_found();
    };
    let name = name.join("/");
    match (method, *verb) {
        ("GET", "json") => images::inspect(call, &name).await,
        ("GET", "history") => images::history(call, &name).await,
        ("GET", "get") => transfer::save(call, vec![name]).await,
        ("POST", "push") => transfer::push(call, &name).await,
        ("POST", "tag") => images::tag(call, &name).await,
        _ => page_not_found(),
    }
}

async fn exec(call: Call, id: &str, verb: &str) -> Reply {
    match (call.method.as_str(), verb) {
        ("POST", "start") => exec::start(call, id).await,
        ("POST", "resize") => exec::resize(&call, id),
        ("GET", "json") => exec::inspect(&call, id),
        _ => page_not_found(),
    }
}

async fn network(call: Call, rest: &[&str]) -> Reply {
    match (call.method.as_str(), rest) {
        ("GET", []) => networks::list(call).await,
        ("POST", ["create"]) => networks::create(call).await,
        ("POST", ["prune"]) => networks::prune(call).await,
        ("GET", [name]) => networks::inspect(call, name).await,
        ("DELETE", [name]) => networks::remove(call, name).await,
        ("POST", [name, "connect"]) => networks::connect(call, name).await,
        ("POST", [name, "disconnect"]) => networks::disconnect(call, name).await,
        _ => page_not_found(),
    }
}

async fn volume(call: Call, rest: &[&str]) -> Reply {
    match (call.method.as_str(), rest) {
        ("GET", []) => volumes::list(call).await,
        ("POST", ["create"]) => volumes::create(call).await,
        ("POST", ["prune"]) => volumes::prune(call).await,
        ("GET", [name]) => volumes::inspect(call, name).await,
        ("DELETE", [name]) => volumes::remove(call, name).await,
        ("PUT", [_]) => swarm::refuse(&call, &["volumes"]),
        _ => page_not_found(),
    }
}
