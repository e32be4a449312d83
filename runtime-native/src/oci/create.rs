//! `create` and `run`: everything up to the clone that can be looked up, parsed or refused.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use runtime::{
    Console, Extent, LineEnds, LogTarget, OciContainer, OciPlan, OciVerb, Program, RootChange,
    RootfsPlan, ScopeHold, Terminal, VERSION, WasmPlan,
};
use sys::durable::{self, Durability};

use super::record::{CONFIG, Record, Scope};
use super::{Bundle, OciError, Root, host_mounts, pipe};
use crate::cgroup::Group;
use crate::plan::{self, Hierarchy, Options};
use crate::systemd::Held;

/// Makes what the wasm host needs, when a bundle holds WebAssembly.
pub type Wasm<'a> = &'a dyn Fn(&Bundle) -> Result<Option<WasmPlan>, OciError>;

/// Who makes the control group of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// This program, by the files of cgroupfs.
    #[default]
    Cgroupfs,
    /// systemd, as a scope (`--systemd-cgroup`).
    Systemd {
        /// `ketch-init`, which holds the scope until the container is in it.
        init: PathBuf,
    },
}

/// Options of `create` and `run`.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// How far to go.
    pub extent: Extent,
    /// Where a terminal's master side goes.
    pub console_socket: Option<PathBuf>,
    /// Where the number of the init is written.
    pub pid_file: Option<PathBuf>,
    /// A socket that the pidfd of the init is sent to.
    pub pidfd_socket: Option<PathBuf>,
    /// So many descriptors from 3 on stay open for the program.
    pub preserve_fds: u32,
    /// Who makes the control group.
    pub driver: CgroupDriver,
    /// Move the root instead of pivoting.
    pub no_pivot: bool,
    /// Leave the container's directory when it has ended.
    pub keep: bool,
    /// A file that the steps of the start and their times are added to.
    pub trace: Option<PathBuf>,
    /// Where errors go besides standard error.
    pub log: LogTarget,
}

/// Claims the id and makes the plan that [`super::hand_over`] takes.
///
/// # Errors
/// What is wrong with the id, the bundle or its specification. Nothing is left then.
pub fn create(
    root: &Root,
    id: &str,
    bundle: &Bundle,
    options: &CreateOptions,
    wasm: Wasm<'_>,
) -> Result<OciPlan, OciError> {
    let terminal = terminal(&bundle.spec, options)?;
    let dir = root.claim(id)?;
    let made = fill(&dir, id, bundle, options, terminal, wasm);
    if made.is_err() {
        // The first error is the one to report.
        drop(root.discard(id));
    }
    Ok(OciPlan {
        version: VERSION,
        log: options.log.clone(),
        verb: OciVerb::Create(Box::new(made?)),
    })
}

fn fill(
    dir: &Path,
    id: &str,
    bundle: &Bundle,
    options: &CreateOptions,
    terminal: Terminal,
    wasm: Wasm<'_>,
) -> Result<OciContainer, OciError> {
    let spec = &with_process(&bundle.spec, options.extent);
    let hierarchy = plan::detect();
    let root = spec.root().as_ref();
    let readonly = root.and_then(oci_spec::runtime::Root::readonly);
    let held = match &options.driver {
        CgroupDriver::Systemd { init } => Some(Held::start(spec, id, init)?),
        CgroupDriver::Cgroupfs => {
            refuse_unusable_group(spec, id, &hierarchy)?;
            None
        }
    };
    let mut init = plan::plan(
        spec,
        Options {
            rootfs: RootfsPlan::Directory {
                path: c_path(&bundle.rootfs)?,
                readonly: readonly.unwrap_or(false),
            },
            id,
            hierarchy: &hierarchy,
            scope: held.as_ref().map(|held| held.control_group.as_str()),
            user_namespace: None,
            wasm: wasm(bundle)?,
            create_cwd: true,
            seccomp: None,
            bundle: &bundle.dir.to_string_lossy(),
            root_change: match options.no_pivot {
                true => RootChange::Move,
                false => RootChange::Pivot,
            },
            preserve_descriptors: options.preserve_fds,
            init: None,
        },
    )?;
    init.trace = options.trace.as_deref().map(c_path).transpose()?;
    if bundle.spec.process().is_none() {
        init.process.program = Program::Path(Vec::new());
    }
    let config = dir.join(CONFIG);
    durable::replace_file(&config, &bundle.config, Durability::Atomic)
        .map_err(OciError::io("write", config))?;
    if options.extent == Extent::Create {
        pipe::make(dir)?;
    }
    let mut record = Record::new(spec, id, &bundle.dir, &bundle.rootfs);
    record.scope = held.as_ref().map(|held| Scope {
        unit: held.unit.clone(),
        control_group: held.control_group.clone(),
    });
    if init.root_change == RootChange::Chroot {
        let before = host_mounts::below(&bundle.rootfs);
        record.mounts_before =
            Some(before.map_err(OciError::io("list the mounts below", &bundle.rootfs))?);
    }
    let record = serde_json::to_vec(&record).map_err(io::Error::other);
    Ok(OciContainer {
        init,
        state_dir: c_path(dir)?,
        record: record.map_err(OciError::io("encode the state of", dir))?,
        extent: options.extent,
        terminal,
        pid_file: options.pid_file.as_deref().map(c_path).transpose()?,
        pidfd_socket: options.pidfd_socket.as_deref().map(c_path).transpose()?,
        keep: options.keep,
        // Last, for what fails before it ends the holder and with it the scope.
        scope: held.map(|held| pass_on(held, options)).transpose()?,
    })
}

/// A container may be created without a process, which its start then lacks (runtime-spec v1.2
/// `runtime.md#start`): until then it is any that needs nothing.
fn with_process(spec: &Spec, extent: Extent) -> Spec {
    let mut spec = spec.clone();
    if spec.process().is_none() && extent == Extent::Create {
        let mut process = Process::default();
        process.set_capabilities(None);
        process.set_rlimits(None);
        spec.set_process(Some(process));
    }
    spec
}

fn pass_on(held: Held, options: &CreateOptions) -> Result<ScopeHold, OciError> {
    let dir = PathBuf::from(format!("/sys/fs/cgroup{}", held.control_group));
    // Out of the way of the descriptors that the program keeps.
    let lowest = i32::try_from(options.preserve_fds).unwrap_or(0) + 3;
    let (holder, end) = held
        .pass_on(lowest)
        .map_err(OciError::io("hold the scope of", &dir))?;
    Ok(ScopeHold {
        dir: c_path(&dir)?,
        holder,
        end,
    })
}

/// A control group with processes is somebody else's: a kill of this container would be theirs. In
/// a frozen one its init would stand still before it has said anything.
fn refuse_unusable_group(spec: &Spec, id: &str, hierarchy: &Hierarchy) -> Result<(), OciError> {
    let path = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.filter(|path| !path.as_os_str().is_empty());
    let group = Group::new(hierarchy, path, id)?;
    let why = if !group.processes()?.is_empty() {
        "container's cgroup is not empty: its processes are not of this container"
    } else if group.would_freeze()? {
        "container's cgroup unexpectedly frozen, itself or one above it"
    } else {
        return Ok(());
    };
    Err(OciError::Unsupported {
        what: format!("use the control group `{}`", group.path()),
        why: why.to_owned(),
    })
}

/// What becomes of the terminal that the specification asks for.
fn terminal(spec: &Spec, options: &CreateOptions) -> Result<Terminal, OciError> {
    let process = spec.process().as_ref();
    let wanted = process.and_then(Process::terminal).unwrap_or(false);
    let size = process.map_or(Console::UNKNOWN, console_size);
    choose_terminal(
        wanted,
        options.console_socket.as_deref(),
        options.extent == Extent::Run,
        size,
    )
}

/// A terminal goes to the caller's socket, or with a command that stays to the caller's own.
pub(super) fn choose_terminal(
    wanted: bool,
    socket: Option<&Path>,
    stays: bool,
    size: Console,
) -> Result<Terminal, OciError> {
    let refuse = |what: &str, why: &str| {
        Err(OciError::Unsupported {
            what: what.to_owned(),
            why: why.to_owned(),
        })
    };
    match (wanted, socket) {
        (true, Some(path)) => Ok(Terminal::Socket {
            path: c_path(path)?,
            size,
        }),
        // Set by the init: a program may print before this command comes to it.
        (true, None) if stays => Ok(Terminal::Relay {
            size: Console {
                line_ends: LineEnds::Plain,
                ..size
            },
        }),
        (true, None) => refuse(
            "allocate a terminal",
            "a command that does not stay needs `--console-socket`",
        ),
        (false, Some(_)) if stays => refuse(
            "use `--console-socket`",
            "the container has no terminal, or the command stays",
        ),
        (false, Some(_)) => refuse(
            "use `--console-socket`",
            "the container has no terminal (`process.terminal`)",
        ),
        (false, None) => Ok(Terminal::None),
    }
}

pub(super) fn console_size(process: &Process) -> Console {
    let size = process.console_size();
    let number = |value: u64| u16::try_from(value).unwrap_or(0);
    size.map_or(Console::UNKNOWN, |size| Console {
        rows: number(size.height()),
        columns: number(size.width()),
        ..Console::UNKNOWN
    })
}

pub(super) fn c_path(path: &Path) -> Result<CString, OciError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| OciError::Io {
        what: "use the path",
        path: path.to_path_buf(),
        source: io::Error::other(error),
    })
}
