//! `ketch system start` and `ketch system install-units`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use engine::{BroughtBack, EngineError};
use sys::durable::{Durability, replace_file};

use super::Invocation;
use crate::render::{self, Usage};
use crate::settings::{ROOT, RUN, variable};

/// What this program is started for to take over one container of an ordinary user.
pub(crate) const RESCUE: &str = "rescue-container";

/// The name of the unit.
const UNIT: &str = "ketch.service";

/// Options of `system start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {}

/// Options of `system install-units`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Where units are (default: /etc/systemd/system, or the user's own)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Brings back what ran when the host went down, as its restart policy says.
pub(crate) fn start(context: &Invocation, _args: &StartArgs) -> anyhow::Result<u8> {
    let mut code = 0;
    for BroughtBack { container, started } in context.engine()?.bring_back()? {
        match started {
            Ok(()) => render::print(&container.config.name)?,
            Err(error) => {
                render::report(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Takes over a container whose monitor was killed, from within its user namespace.
pub(crate) fn rescue(context: &Invocation, args: &[&str]) -> anyhow::Result<u8> {
    let [id] = args else {
        return Err(Usage("one id of a container is needed".to_owned()).into());
    };
    let (layout, _) = context.places()?;
    let Some(orphan) = engine::orphans(&layout)?.into_iter().find(|o| o.id == *id) else {
        // Somebody else was faster.
        return Ok(0);
    };
    let engine = context.engine_for_rescue(orphan.pid)?;
    match engine.container(&orphan.id) {
        // It was removed with its end.
        Ok(_) | Err(EngineError::NoSuchContainer(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Writes the unit that does so after each boot.
pub(crate) fn install_units(context: &Invocation, args: &InstallArgs) -> anyhow::Result<u8> {
    let is_root = rustix::process::geteuid().is_root();
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None if is_root => PathBuf::from("/etc/systemd/system"),
        None => {
            let home =
                variable("HOME")?.context("cannot find the user's units: HOME is not set")?;
            let config = variable("XDG_CONFIG_HOME")?.unwrap_or_else(|| format!("{home}/.config"));
            Path::new(&config).join("systemd/user")
        }
    };
    let settings = &context.settings;
    let mut command = vec![std::env::current_exe().context("cannot find my own program")?];
    for setting in [&ROOT, &RUN] {
        if !settings.is_default(setting) {
            command.push(format!("--{}", setting.key).into());
            command.push(std::path::absolute(settings.get(setting))?);
        }
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let text = unit(&words.join(" "), is_root);
    std::fs::create_dir_all(&dir)
        .and_then(|()| replace_file(&dir.join(UNIT), text.as_bytes(), Durability::Synced))
        .with_context(|| format!("cannot write `{}`", dir.join(UNIT).display()))?;
    render::print(&dir.join(UNIT).display().to_string())?;
    let user = if is_root { "" } else { " --user" };
    render::line(&format!(
        "ketch: `systemctl{user} enable {UNIT}` makes it run at every boot"
    ));
    Ok(0)
}

/// A word as systemd.service(5) takes it.
fn quoted(word: &Path) -> String {
    let text = word.display().to_string().replace('%', "%%");
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn unit(command: &str, is_root: bool) -> String {
    let target = if is_root {
        "multi-user.target"
    } else {
        "default.target"
    };
    // Containers belong to their monitors, which outlive the unit: nothing is killed with it.
    format!(
        "[Unit]
Description=Containers of ketch that come back after a boot
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} system start
KillMode=process
Delegate=yes

[Install]
WantedBy={target}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_systemd() {
        assert_eq!(quoted(Path::new("/a b/\"c\"%d")), "\"/a b/\\\"c\\\"%%d\"");
        let text = unit("\"/usr/bin/ketch\"", true);
        assert!(text.contains("\nExecStart=\"/usr/bin/ketch\" system start\n"));
        assert!(text.ends_with("WantedBy=multi-user.target\n"));
    }
}
