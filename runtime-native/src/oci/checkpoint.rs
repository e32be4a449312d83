//! `checkpoint` and `restore`: the processes of a container written to files and read back, by
//! criu, where `criu check` says that it works with this kernel. Otherwise both are refused with
//! what criu says, before anything is touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oci_spec::runtime::{Mount, Spec};
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use sys::durable::{self, Durability};

use super::record::{CONFIG, Record};
use super::{Bundle, Container, OciError, Root, Status};
use crate::cgroup;

/// What is saved, and how.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// Where criu's files are.
    pub image_path: PathBuf,
    /// Where criu logs; with its files when absent.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are saved.
    pub tcp_established: bool,
    /// Sockets that lead outside are saved.
    pub ext_unix_sk: bool,
    /// A terminal from outside is no obstacle.
    pub shell_job: bool,
    /// File locks are saved.
    pub file_locks: bool,
    /// The container goes on.
    pub leave_running: bool,
}

/// Writes a running container to files; it ends, unless it is left running.
///
/// # Errors
/// When criu is not there, does not work with this kernel, or fails: with the place of its log.
pub fn checkpoint(container: &Container, options: &CheckpointOptions) -> Result<(), OciError> {
    require_criu("checkpoint a container")?;
    let status = container.status();
    let pid = container.pid().ok_or_else(|| OciError::Status {
        verb: "checkpoint",
        id: container.id().to_owned(),
        status,
    })?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(OciError::Status {
            verb: "checkpoint",
            id: container.id().to_owned(),
            status,
        });
    }
    let spec = container.spec()?;
    let mut criu = criu("dump", options)?;
    criu.arg("--tree").arg(pid.to_string());
    criu.arg("--root").arg(&container.record.rootfs);
    for mount in bind_mounts(&spec) {
        let at = mount.destination().display();
        criu.arg("--external").arg(format!("mnt[{at}]:{at}"));
    }
    if options.leave_running {
        criu.arg("--leave-running");
    }
    finish("checkpoint the container", criu, options)
}

/// Makes a container of a bundle whose processes are those that were saved; gives its process.
///
/// # Errors
/// As [`checkpoint`], and what is wrong with the id or the bundle. Nothing is left then.
pub fn restore(
    root: &Root,
    id: &str,
    bundle: &Bundle,
    options: &CheckpointOptions,
) -> Result<i32, OciError> {
    require_criu("restore a container")?;
    let dir = root.claim(id)?;
    let restored = restore_into(&dir, id, bundle, options);
    if restored.is_err() {
        // The first error is the one to report.
        drop(root.discard(id));
    }
    restored
}

fn restore_into(
    dir: &Path,
    id: &str,
    bundle: &Bundle,
    options: &CheckpointOptions,
) -> Result<i32, OciError> {
    let config = dir.join(CONFIG);
    durable::replace_file(&config, &bundle.config, Durability::Atomic)
        .map_err(OciError::io("write", config))?;
    let mut record = Record::new(&bundle.spec, id, &bundle.dir, &bundle.rootfs);
    record
        .write(dir)
        .map_err(OciError::io("write the state in", dir))?;
    let groups = crate::plan::cgroup_of(&bundle.spec, id, &crate::plan::detect())?;
    cgroup::create(&groups).map_err(OciError::Start)?;
    let pid = in_groups(dir, bundle, options, &groups);
    match pid {
        Ok(pid) => {
            record.pid = Some(pid);
            record.start_time = sys::process::start_time(pid).ok();
            record
                .write(dir)
                .map_err(OciError::io("write the state in", dir))?;
            Ok(pid)
        }
        Err(error) => {
            drop(cgroup::remove(&groups));
            Err(error)
        }
    }
}

/// criu is started in the container's groups, and so is what it restores. This process, which ends
/// soon, enters them for that, and a mount namespace in which the root is a mount, as criu wants.
fn in_groups(
    dir: &Path,
    bundle: &Bundle,
    options: &CheckpointOptions,
    groups: &runtime::CgroupPlan,
) -> Result<i32, OciError> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let entrances = cgroup::Entrances::open(&groups.enter).map_err(OciError::Start)?;
    entrances
        .enter()
        .map_err(|(_, errno)| OciError::io("enter the groups of", &bundle.dir)(errno.into()))?;
    if let Some(dir) = &groups.clone_into {
        let file = PathBuf::from(format!("{}/cgroup.procs", dir.to_string_lossy()));
        fs::File::options()
            .write(true)
            .open(&file)
            .and_then(|mut procs| io::Write::write_all(&mut procs, own.to_string().as_bytes()))
            .map_err(OciError::io("enter the control group by", file))?;
    }
    let failed = |errno: rustix::io::Errno| {
        OciError::io("mount the root file system", &bundle.rootfs)(errno.into())
    };
    sys::clone::unshare_mounts().map_err(failed)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed)?;
    mount_bind_recursive(&bundle.rootfs, &bundle.rootfs).map_err(failed)?;
    let number = dir.join("restored");
    let mut criu = criu("restore", options)?;
    criu.args(["--restore-detached", "--pidfile"]).arg(&number);
    criu.arg("--root").arg(&bundle.rootfs);
    for mount in bind_mounts(&bundle.spec) {
        let at = mount.destination().display();
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        let source = bundle.dir.join(source);
        criu.arg("--external")
            .arg(format!("mnt[{at}]:{}", source.display()));
    }
    finish("restore the container", criu, options)?;
    let text = fs::read_to_string(&number).map_err(OciError::io("read", &number))?;
    durable::remove_tree(&number).map_err(OciError::io("remove", &number))?;
    text.trim().parse().map_err(|_| OciError::Unsupported {
        what: "restore the container".to_owned(),
        why: "criu gave no process".to_owned(),
    })
}

/// The mounts whose source is outside of what criu saves.
fn bind_mounts(spec: &Spec) -> impl Iterator<Item = &Mount> {
    let is_bind = |mount: &&Mount| {
        let options = mount.options().iter().flatten();
        mount.typ().as_deref() == Some("bind")
            || options
                .into_iter()
                .any(|option| option == "bind" || option == "rbind")
    };
    spec.mounts().iter().flatten().filter(is_bind)
}

/// criu with the options that both directions share.
fn criu(verb: &str, options: &CheckpointOptions) -> Result<Command, OciError> {
    fs::create_dir_all(&options.image_path)
        .map_err(OciError::io("make the directory", &options.image_path))?;
    let mut criu = Command::new("criu");
    criu.arg(verb)
        .args(["--manage-cgroups=ignore", "-v2", "--log-file"])
        .arg(format!("{verb}.log"))
        .arg("--images-dir")
        .arg(&options.image_path)
        .arg("--work-dir")
        .arg(log_dir(options))
        .stdin(Stdio::null());
    for (given, option) in [
        (options.tcp_established, "--tcp-established"),
        (options.ext_unix_sk, "--ext-unix-sk"),
        (options.shell_job, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ] {
        if given {
            criu.arg(option);
        }
    }
    Ok(criu)
}

fn log_dir(options: &CheckpointOptions) -> &Path {
    options.work_path.as_ref().unwrap_or(&options.image_path)
}

fn finish(what: &str, mut criu: Command, options: &CheckpointOptions) -> Result<(), OciError> {
    let output = criu.output().map_err(|error| absent(what, &error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(OciError::Unsupported {
        what: what.to_owned(),
        why: format!(
            "criu failed ({}); its log is in `{}`",
            output.status,
            log_dir(options).display()
        ),
    })
}

/// Asks criu whether it works here.
fn require_criu(what: &str) -> Result<(), OciError> {
    let mut check = Command::new("criu");
    check.arg("check").stdin(Stdio::null());
    let output = check.output().map_err(|error| absent(what, &error))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(OciError::Unsupported {
            what: what.to_owned(),
            why: format!("`criu check` fails: {}", first_error(&output)),
        }),
    }
}

fn absent(what: &str, error: &io::Error) -> OciError {
    OciError::Unsupported {
        what: what.to_owned(),
        why: match error.kind() {
            io::ErrorKind::NotFound => "it takes criu, which is not installed".to_owned(),
            _ => format!("criu cannot be started: {error}"),
        },
    }
}

/// The first line that criu calls an error, which is the cause of those after it.
fn first_error(output: &Output) -> String {
    let all = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&all);
    let line = text.lines().find(|line| line.starts_with("Error"));
    line.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())
}
