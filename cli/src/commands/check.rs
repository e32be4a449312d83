//! `ketch system check`.

use clap::Args;
use engine::Finding;
use image::{Damage, Repair};

use super::Invocation;
use crate::render;

/// Options of `system check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Remove what belongs to nobody, unpack damaged layers again, remove damaged blobs
    #[arg(long)]
    repair: bool,
}

/// Verifies what is on disk. The exit code is 1 when something is wrong and was not repaired.
pub(crate) fn check(context: &Invocation, args: &CheckArgs) -> anyhow::Result<u8> {
    let repair = if args.repair { Repair::Yes } else { Repair::No };
    let found = context.engine()?.check(repair)?;
    let mut code = 0;
    for finding in &found {
        let (what, done) = words(finding);
        let done = match (args.repair, done) {
            (true, Some(done)) => format!(": {done}"),
            _ => {
                code = 1;
                String::new()
            }
        };
        render::print(&render::clean(&format!("{what}{done}")))?;
    }
    if found.is_empty() {
        render::print("everything is as it should be")?;
    }
    Ok(code)
}

/// What was found, and what a repair does about it.
fn words(finding: &Finding) -> (String, Option<&'static str>) {
    match finding {
        Finding::Image(Damage::Blob(digest)) => (
            format!("blob {digest} has other bytes than its digest says"),
            Some("removed, pull its image again"),
        ),
        Finding::Image(Damage::Layer { layer, path }) => (
            format!("layer {layer} differs from its archive at `{path}`"),
            Some("unpacked again"),
        ),
        Finding::Image(Damage::Missing { image, blob }) => (
            format!("image {image} lacks blob {blob}: pull it again"),
            None,
        ),
        Finding::Image(Damage::Record { path, reason }) => (
            format!("`{}` cannot be read: {reason}", path.display()),
            None,
        ),
        Finding::Network(id) => (format!("network {id} has no record that can be read"), None),
        Finding::Container(id) => (
            format!("container {id} has no records that can be read"),
            None,
        ),
        Finding::Name { name, id } => (
            format!("name `{name}` is claimed for container {id}, which does not have it"),
            Some("removed"),
        ),
        Finding::RunDirectory(dir) => (
            format!("`{}` belongs to no container", dir.display()),
            Some("removed"),
        ),
        Finding::Volume(name) => (
            format!("volume `{name}` has no record that can be read"),
            None,
        ),
    }
}
