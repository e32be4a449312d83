//! `ketch info` and `ketch version`.

use runtime_native::plan::{Hierarchy, detect};

use super::Invocation;
use crate::render;

/// Shows every effective setting with its source, and what this host can do.
pub(crate) fn info(context: &Invocation) -> anyhow::Result<u8> {
    render::print("Settings:")?;
    for (key, value) in context.settings.all() {
        let text = if value.text.is_empty() {
            "-"
        } else {
            &value.text
        };
        render::print(&format!("  {key:<22}{text:<28}({})", value.source))?;
    }
    let groups = match detect() {
        Hierarchy::None => "none that this user may use".to_owned(),
        Hierarchy::Unified { .. } => "v2".to_owned(),
        Hierarchy::Legacy {
            controllers,
            unified,
        } => {
            let kind = if unified { "v1, hybrid" } else { "v1" };
            format!("{kind} ({})", controllers.join(" "))
        }
    };
    render::print(&format!("Control groups: {groups}"))?;
    let bridges = match network::bridge_obstacle() {
        None => "bridge, none, host".to_owned(),
        Some(why) => format!("none, host (no bridge networks: {why}; the default is none)"),
    };
    render::print(&format!("Networks: {bridges}"))?;
    if rustix::process::geteuid().is_root() {
        let (layout, _) = context.places()?;
        render::print(&format!("Layers: {}", context.layer_form(&layout)?))?;
    }
    let system = rustix::system::uname();
    render::print(&format!("Kernel: {}", system.release().to_string_lossy()))?;
    render::print(&format!(
        "Architecture: {}",
        system.machine().to_string_lossy()
    ))?;
    Ok(0)
}

/// Shows the version.
pub(crate) fn version() -> anyhow::Result<u8> {
    render::print(&format!("ketch {}", env!("CARGO_PKG_VERSION")))?;
    Ok(0)
}
