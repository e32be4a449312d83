//! One file a group of operations; here is what each route of the table runs.

mod archive;
pub(crate) mod build;
mod containers;
pub(crate) mod create;
mod distribution;
mod events;
mod exec;
pub(crate) mod images;
mod lifecycle;
mod networks;
mod stats;
mod swarm;
mod system;
pub(crate) mod table;
mod transfer;
mod volumes;
mod wait;

use crate::buildkit;
use crate::call::{Call, Reply, page_not_found, with_header};
use crate::scope::Scope;
use table::{Operation, Route};

/// Answers a request.
pub(crate) async fn route(mut call: Call) -> Reply {
    let Some((route, name)) = call.route.take() else {
        return page_not_found();
    };
    let name = match call.scope.clone() {
        Some(scope) => scope.admit(&mut call, route, name).await?,
        None => name,
    };
    run(call, route, &name).await
}

/// Runs an operation that was allowed. One arm an operation: the compiler finds one that is forgotten.
async fn run(call: Call, route: &Route, name: &str) -> Reply {
    match route.operation {
        Operation::Ping => classic(&call, system::ping(&call)),
        Operation::Version => system::version(&call),
        Operation::Info => system::info(call).await,
        Operation::DiskUsage => system::disk_usage(call).await,
        Operation::Events => events::events(&call),
        Operation::Auth => system::auth(call).await,
        Operation::Build if buildkit::classic::is_meant(&call.query) => {
            buildkit::classic::build(call).await
        }
        Operation::Build => build::build(call),
        Operation::BuildPrune => build::prune(call).await,
        Operation::Grpc => buildkit::grpc(call),
        Operation::Session => buildkit::session(call),
        Operation::ExecStart => exec::start(call, name).await,
        Operation::ExecResize => exec::resize(&call, name),
        Operation::ExecInspect => exec::inspect(&call, name),
        Operation::Refuse => swarm::refuse(&call, route.path, name),
        #[cfg(test)]
        Operation::Fault => panic!("a fault that a test has asked for"),
        Operation::ContainerList => containers::list(call).await,
        Operation::ContainerCreate => create::create(call).await,
        Operation::ContainerPrune => containers::prune(call).await,
        Operation::ContainerRemove => lifecycle::remove(call, name).await,
        Operation::ContainerInspect => containers::inspect(call, name).await,
        Operation::ContainerTop => containers::top(call, name).await,
        Operation::ContainerLogs => containers::logs(call, name).await,
        Operation::ContainerChanges => archive::changes(call, name).await,
        Operation::ContainerExport => archive::export(call, name).await,
        Operation::ContainerStats => stats::stats(call, name).await,
        Operation::ArchiveStat => archive::stat(call, name).await,
        Operation::ArchiveGet => archive::get(call, name).await,
        Operation::ArchivePut => archive::put(call, name).await,
        Operation::Attach => exec::attach(call, name).await,
        Operation::ExecCreate => exec::create(call, name).await,
        Operation::Wait => wait::wait(call, name).await,
        Operation::Start => lifecycle::start(call, name).await,
        Operation::Stop => lifecycle::stop(call, name).await,
        Operation::Restart => lifecycle::restart(call, name).await,
        Operation::Kill => lifecycle::kill(call, name).await,
        Operation::Pause => lifecycle::pause(call, name).await,
        Operation::Unpause => lifecycle::unpause(call, name).await,
        Operation::Rename => lifecycle::rename(call, name).await,
        Operation::Update => lifecycle::update(call, name).await,
        Operation::Resize => exec::resize_container(call, name).await,
        Operation::Commit => images::commit(call).await,
        Operation::ImageList => images::list(call).await,
        Operation::ImagePull => transfer::create(call).await,
        Operation::ImageLoad => transfer::load(call).await,
        Operation::ImagePrune => images::prune(call).await,
        Operation::ImagesSave => transfer::save(call, Vec::new()).await,
        Operation::ImageSave => transfer::save(call, vec![name.to_owned()]).await,
        Operation::ImageSearch => images::search(call).await,
        Operation::ImageRemove => images::remove(call, name).await,
        Operation::ImageInspect => images::inspect(call, name).await,
        Operation::ImageHistory => images::history(call, name).await,
        Operation::ImagePush => transfer::push(call, name).await,
        Operation::ImageTag => images::tag(call, name).await,
        Operation::Distribution => distribution::inspect(call, name).await,
        Operation::NetworkList => networks::list(call).await,
        Operation::NetworkCreate => networks::create(call).await,
        Operation::NetworkPrune => networks::prune(call).await,
        Operation::NetworkInspect => networks::inspect(call, name).await,
        Operation::NetworkRemove => networks::remove(call, name).await,
        Operation::NetworkConnect => networks::connect(call, name).await,
        Operation::NetworkDisconnect => networks::disconnect(call, name).await,
        Operation::VolumeList => volumes::list(call).await,
        Operation::VolumeCreate => volumes::create(call).await,
        Operation::VolumePrune => volumes::prune(call).await,
        Operation::VolumeInspect => volumes::inspect(call, name).await,
        Operation::VolumeRemove => volumes::remove(call, name).await,
    }
}

/// Tells clients of a socket that does not allow BuildKit's protocol to build without it.
fn classic(call: &Call, pong: Reply) -> Reply {
    match call.scope.as_deref().is_none_or(Scope::speaks_buildkit) {
        true => pong,
        false => with_header(pong, "builder-version", "1"),
    }
}
