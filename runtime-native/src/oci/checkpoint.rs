//! `checkpoint`: the processes of a container written to files. Refused with what criu says where it
//! does not work with this kernel, before anything is touched.

use std::fs;
use std::path::PathBuf;

use sys::durable::{self, Durability};

use super::criu::{CriuOptions, external_mounts, refuse_terminal};
use super::{Container, OciError, Status};

/// What a container's standard streams were, so that a restored one gets its caller's in their
/// place. The name and the form are those that runc writes.
pub(super) const DESCRIPTORS: &str = "descriptors.json";

const WHAT: &str = "checkpoint the container";

/// What is saved, and how.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// How criu is used.
    pub criu: CriuOptions,
    /// The container goes on.
    pub leave_running: bool,
    /// Only memory is saved, for a later checkpoint to build upon; the container goes on.
    pub pre_dump: bool,
    /// Earlier files that these build upon, relative to them.
    pub parent_path: Option<PathBuf>,
    /// Where pages are sent instead of being written: address and port.
    pub page_server: Option<(String, u16)>,
}

/// Writes a running container to files; it ends, unless it is left running.
///
/// # Errors
/// When criu is not there, does not work with this kernel, or fails: with what its log says.
pub fn checkpoint(container: &Container, options: &CheckpointOptions) -> Result<(), OciError> {
    options.criu.require("checkpoint a container")?;
    let status = container.status();
    let refuse = || OciError::Status {
        verb: "checkpoint",
        id: container.id().to_owned(),
        status,
    };
    let pid = container.pid().ok_or_else(refuse)?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(refuse());
    }
    let spec = container.spec()?;
    refuse_terminal(&spec, WHAT)?;
    let plan = container.plan(&spec)?;
    let verb = match options.pre_dump {
        true => "pre-dump",
        false => "dump",
    };
    let mut criu = options.criu.command(verb)?;
    criu.stdin(std::process::Stdio::null());
    criu.arg("--tree").arg(pid.to_string());
    criu.arg("--root").arg(&container.record.rootfs);
    for (place, _) in external_mounts(&plan) {
        criu.arg("--external").arg(format!("mnt[{place}]:{place}"));
    }
    if let Some(parent) = &options.parent_path {
        refuse_bad_parent(options, parent)?;
        criu.arg("--prev-images-dir").arg(parent);
    }
    if options.pre_dump || options.parent_path.is_some() {
        criu.arg("--track-mem");
    }
    if let Some((address, port)) = &options.page_server {
        criu.args(["--page-server", "--address", address, "--port"])
            .arg(port.to_string());
    }
    if options.leave_running && !options.pre_dump {
        criu.arg("--leave-running");
    }
    if !options.pre_dump {
        write_descriptors(pid, options)?;
    }
    options.criu.finish(WHAT, verb, criu)
}

/// criu takes what is not there for an empty set, and saves everything.
fn refuse_bad_parent(options: &CheckpointOptions, parent: &PathBuf) -> Result<(), OciError> {
    let dir = options.criu.image_path.join(parent);
    if parent.is_relative() && dir.is_dir() {
        return Ok(());
    }
    Err(OciError::Unsupported {
        what: format!("use `--parent-path {}`", parent.display()),
        why: format!(
            "it must be a directory, as a path relative to `{}`",
            options.criu.image_path.display()
        ),
    })
}

fn write_descriptors(pid: i32, options: &CheckpointOptions) -> Result<(), OciError> {
    let name = |number: i32| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
        link.to_string_lossy().into_owned()
    };
    let names = [0, 1, 2].map(name);
    let path = options.criu.image_path.join(DESCRIPTORS);
    let text = serde_json::to_vec(&names).map_err(std::io::Error::other);
    text.and_then(|text| durable::replace_file(&path, &text, Durability::Atomic))
        .map_err(OciError::io("write", path))
}
