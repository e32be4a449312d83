//! The steps of a container's init, and how a failed one crosses the process boundary: eight bytes
//! of fixed size, because the child may not allocate; the parent makes the message.

use std::ffi::CStr;

use runtime::{HookPlan, InitPlan, MountSource, Program, StartFailure, code};
use rustix::io::Errno;
use sys::exec::Ended;

/// What the child was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Waiting for the parent.
    Sync,
    /// Joining the namespace `index`.
    JoinNamespace,
    /// Becoming root of the user namespace.
    UserNamespace,
    /// A session of its own.
    Session,
    /// Cutting mount propagation.
    Propagation,
    /// Mounting the root file system.
    Rootfs,
    /// A private procfs.
    Procfs,
    /// Resolving the target of mount `index`.
    MountTarget,
    /// Making mount `index`.
    Mount,
    /// Attaching mount `index`.
    MountAttach,
    /// Making device `index`.
    Device,
    /// Making the symbolic link `index`.
    Symlink,
    /// The terminal.
    Console,
    /// The host name.
    Hostname,
    /// The domain name.
    Domainname,
    /// The sysctl `index`.
    Sysctl,
    /// The loopback link.
    Loopback,
    /// Masking path `index`.
    MaskPath,
    /// Making path `index` read-only.
    ReadonlyPath,
    /// The control group namespace.
    CgroupNamespace,
    /// Leaving the old root.
    PivotRoot,
    /// Making the root read-only.
    ReadonlyRoot,
    /// Making the working directory.
    MakeCwd,
    /// Entering the working directory.
    Chdir,
    /// A working directory outside the container.
    CwdOutside,
    /// Opening the wasm host.
    WasmHost,
    /// Making the wasm guest's own view of the mount tree.
    GuestRoot,
    /// Opening the compiled module.
    WasmArtifact,
    /// Resource limit `index`.
    Rlimit,
    /// `oom_score_adj`.
    OomScoreAdj,
    /// Dropping capabilities.
    Capabilities,
    /// Supplementary groups.
    Groups,
    /// Group and user.
    User,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// The seccomp filter.
    Seccomp,
    /// Placing descriptors 0 to 2.
    Stdio,
    /// Closing descriptors.
    CloseDescriptors,
    /// Scheduling policy, I/O priority, execution domain or CPUs.
    Scheduling,
    /// The label of AppArmor or SELinux.
    ExecLabel,
    /// Filling the tmpfs of mount `index`.
    CopyUp,
    /// Handing the filter's notifications over.
    SeccompListener,
    /// Running hook `index` of `createContainer`.
    CreateContainerHook,
    /// Running hook `index` of `startContainer`.
    StartContainerHook,
    /// Waiting to be started.
    Gate,
    /// Becoming the container's first process.
    Init,
    /// Entering the control group `index`.
    EnterGroup,
    /// Executing the program.
    Exec,
}

/// All steps, to decode one from its number.
const STEPS: [Step; 47] = [
    Step::Sync,
    Step::JoinNamespace,
    Step::UserNamespace,
    Step::Session,
    Step::Propagation,
    Step::Rootfs,
    Step::Procfs,
    Step::MountTarget,
    Step::Mount,
    Step::MountAttach,
    Step::Device,
    Step::Symlink,
    Step::Console,
    Step::Hostname,
    Step::Domainname,
    Step::Sysctl,
    Step::Loopback,
    Step::MaskPath,
    Step::ReadonlyPath,
    Step::CgroupNamespace,
    Step::PivotRoot,
    Step::ReadonlyRoot,
    Step::MakeCwd,
    Step::Chdir,
    Step::CwdOutside,
    Step::WasmHost,
    Step::GuestRoot,
    Step::WasmArtifact,
    Step::Rlimit,
    Step::OomScoreAdj,
    Step::Capabilities,
    Step::Groups,
    Step::User,
    Step::NoNewPrivileges,
    Step::Seccomp,
    Step::Stdio,
    Step::CloseDescriptors,
    Step::Scheduling,
    Step::ExecLabel,
    Step::CopyUp,
    Step::SeccompListener,
    Step::CreateContainerHook,
    Step::StartContainerHook,
    Step::Gate,
    Step::Init,
    Step::EnterGroup,
    Step::Exec,
];

/// What a container's init says while it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// A step has failed: the last message.
    Failed(Failure),
    /// The mounts are there and the old root too: the hooks of the runtime's side come now.
    Mounted,
    /// The descriptor that the filter's notifications are read from, in the init.
    Listener(i32),
    /// Everything is done but the program's start.
    Ready,
    /// A step was over so many nanoseconds after the start began, when it is traced.
    Over(Step, u64),
}

impl Message {
    const MOUNTED: u8 = 0x80;
    const LISTENER: u8 = 0x81;
    const READY: u8 = 0x82;
    const OVER: u8 = 0x83;

    /// The bytes that go through the pipe.
    pub(crate) fn encode(self) -> [u8; Failure::SIZE] {
        let notice = |kind, value: i32| {
            let [v0, v1, v2, v3] = value.to_ne_bytes();
            [kind, 0, 0, 0, v0, v1, v2, v3]
        };
        match self {
            Self::Failed(failure) => failure.encode(),
            Self::Mounted => notice(Self::MOUNTED, 0),
            Self::Listener(descriptor) => notice(Self::LISTENER, descriptor),
            Self::Ready => notice(Self::READY, 0),
            Self::Over(step, ns) => {
                // Six bytes of nanoseconds are three days.
                let [n0, n1, n2, n3, n4, n5, _, _] = ns.to_le_bytes();
                [Self::OVER, step as u8, n0, n1, n2, n3, n4, n5]
            }
        }
    }

    /// What [`Message::encode`] made.
    pub(crate) fn decode(bytes: [u8; Failure::SIZE]) -> Option<Self> {
        let [kind, step, n0, n1, v0, v1, v2, v3] = bytes;
        Some(match kind {
            Self::OVER => {
                let ns = u64::from_le_bytes([n0, n1, v0, v1, v2, v3, 0, 0]);
                Self::Over(*STEPS.get(usize::from(step))?, ns)
            }
            Self::MOUNTED => Self::Mounted,
            Self::LISTENER => Self::Listener(i32::from_ne_bytes([v0, v1, v2, v3])),
            Self::READY => Self::Ready,
            _ => Self::Failed(Failure::decode(bytes)?),
        })
    }
}

/// A failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub step: Step,
    /// Of which item.
    pub index: u16,
    /// Why.
    pub errno: Errno,
}

impl Failure {
    /// The size of an encoded failure.
    pub const SIZE: usize = 8;

    /// The bytes that go through the pipe.
    #[must_use]
    pub fn encode(self) -> [u8; Self::SIZE] {
        let [i0, i1] = self.index.to_ne_bytes();
        let [e0, e1, e2, e3] = self.errno.raw_os_error().to_ne_bytes();
        [self.step as u8, 0, i0, i1, e0, e1, e2, e3]
    }

    /// What [`Failure::encode`] made.
    #[must_use]
    pub fn decode(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let [step, _, i0, i1, e0, e1, e2, e3] = bytes;
        Some(Self {
            step: *STEPS.get(usize::from(step))?,
            index: u16::from_ne_bytes([i0, i1]),
            errno: Errno::from_raw_os_error(i32::from_ne_bytes([e0, e1, e2, e3])),
        })
    }

    /// The message about the hook of `hooks` that has failed.
    pub(crate) fn describe_hook(self, hooks: &[HookPlan]) -> String {
        hook(hooks.get(usize::from(self.index)), self.errno)
    }

    /// The message and the exit code.
    #[must_use]
    pub fn describe(self, plan: &InitPlan) -> StartFailure {
        if self.step == Step::Exec {
            return exec_failure(plan.process.args.first().map(AsRef::as_ref), self.errno);
        }
        let index = usize::from(self.index);
        let hooks = match self.step {
            Step::CreateContainerHook => Some(&plan.hooks.create_container),
            Step::StartContainerHook => Some(&plan.hooks.start_container),
            _ => None,
        };
        if let Some(hooks) = hooks {
            return StartFailure {
                code: code::ENGINE,
                message: self.describe_hook(hooks),
            };
        }
        let what = match self.step {
            Step::MountTarget | Step::Mount | Step::MountAttach => mount_text(plan, self),
            Step::JoinNamespace => named(
                "join the namespace",
                plan.namespaces.get(index).and_then(|n| n.path.as_deref()),
            ),
            Step::Device => named("make the device", plan.devices.get(index).map(|d| &*d.path)),
            Step::Symlink => named("make the link", plan.symlinks.get(index).map(|l| &*l.1)),
            Step::Sysctl => named("set the sysctl", plan.sysctl.get(index).map(|s| &*s.0)),
            Step::MaskPath => named("mask", plan.masked_paths.get(index).map(|p| &**p)),
            Step::ReadonlyPath => named(
                "make read-only",
                plan.readonly_paths.get(index).map(|p| &**p),
            ),
            Step::MakeCwd | Step::Chdir => {
                named("enter the working directory", Some(&plan.process.cwd))
            }
            Step::CwdOutside => named(
                "use the working directory (outside the container)",
                Some(&plan.process.cwd),
            ),
            Step::EnterGroup => named(
                "enter the cgroup",
                plan.cgroup.enter.get(index).map(|tasks| &**tasks),
            ),
            Step::CopyUp => named(
                "copy up",
                plan.mounts.get(index).map(|mount| &*mount.target),
            ),
            Step::Rlimit => {
                let limit = plan.process.rlimits.get(index).map(|limit| limit.resource);
                format!("set the resource limit `{}`", rlimit_name(limit))
            }
            Step::OomScoreAdj => {
                let value = plan.process.oom_score_adj.unwrap_or_default();
                format!("set the OOM score to {value}")
            }
            Step::Hostname => named("set the host name", plan.hostname.as_deref()),
            Step::User => format!("become user {}:{}", plan.process.uid, plan.process.gid),
            Step::WasmHost | Step::WasmArtifact => match &plan.process.program {
                Program::Wasm(wasm) if self.step == Step::WasmHost => {
                    named("open the wasm host", Some(&wasm.host))
                }
                Program::Wasm(wasm) => named("open the module", Some(&wasm.artifact)),
                Program::Path(_) => self.step.text().to_owned(),
            },
            step => step.text().to_owned(),
        };
        StartFailure {
            code: code::ENGINE,
            message: format!("cannot {what}: {}", reason(self.errno)),
        }
    }
}

impl Step {
    /// The step in words, after "cannot".
    fn text(self) -> &'static str {
        match self {
            Self::Sync => "talk to the container's monitor",
            Self::JoinNamespace => "join a namespace",
            Self::UserNamespace => "become root of the user namespace",
            Self::Session => "start a session",
            Self::Propagation => "make the mounts private",
            Self::Rootfs => "mount the root file system",
            Self::Procfs => "mount procfs",
            Self::Console => "set up the terminal",
            Self::Domainname => "set the domain name",
            Self::Loopback => "bring the loopback link up",
            Self::CgroupNamespace => "create the cgroup namespace",
            Self::PivotRoot => "change the root file system",
            Self::ReadonlyRoot => "make the root file system read-only",
            Self::GuestRoot => "give the wasm guest its root file system",
            Self::Capabilities => "drop capabilities",
            Self::Groups => "set the supplementary groups",
            Self::NoNewPrivileges => "set no-new-privileges",
            Self::Seccomp => "load the seccomp filter",
            Self::Stdio => "place the standard streams",
            Self::CloseDescriptors => "close the inherited descriptors",
            Self::Scheduling => "set the scheduling, I/O priority, personality or CPUs",
            Self::ExecLabel => "set the security label",
            Self::SeccompListener => "hand the seccomp listener over",
            Self::CreateContainerHook => "run a createContainer hook",
            Self::StartContainerHook => "run a startContainer hook",
            Self::Gate => "wait for the start",
            Self::Init => "start the container's first process (--init)",
            _ => "set up the container",
        }
    }
}

/// The name of `RLIMIT_*` of `asm-generic/resource.h`, as `--ulimit` spells it.
fn rlimit_name(resource: Option<u32>) -> &'static str {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    let index = resource.and_then(|number| usize::try_from(number).ok());
    index
        .and_then(|index| NAMES.get(index))
        .copied()
        .unwrap_or("?")
}

/// The message and exit code of a program that could not be executed.
#[must_use]
pub fn exec_failure(name: Option<&CStr>, errno: Errno) -> StartFailure {
    let name = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (code, why) = match errno {
        Errno::NOENT => (
            code::NOT_FOUND,
            "no such file or directory in the container, or its interpreter is missing",
        ),
        Errno::NOTDIR => (code::NOT_FOUND, "a part of its path is not a directory"),
        Errno::ACCESS => (
            code::NOT_EXECUTABLE,
            "permission denied: it is not an executable file",
        ),
        Errno::ISDIR => (code::NOT_EXECUTABLE, "it is a directory"),
        Errno::NOEXEC => (
            code::NOT_EXECUTABLE,
            "exec format error: not a program of this machine",
        ),
        Errno::LOOP => (code::NOT_EXECUTABLE, "too many symbolic links"),
        Errno::TOOBIG => (
            code::NOT_EXECUTABLE,
            "arguments and environment are too long",
        ),
        other => {
            let why = reason(other);
            let message = format!("cannot execute `{name}`: {why}");
            return StartFailure {
                code: code::NOT_EXECUTABLE,
                message,
            };
        }
    };
    StartFailure {
        code,
        message: format!("cannot execute `{name}`: {why}"),
    }
}

/// An errno as the C library words it, without its number.
#[must_use]
pub fn reason(errno: Errno) -> String {
    let text = sys::reason::without_numbers(&std::io::Error::from(errno).to_string());
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}

/// A hook that did not succeed, in the place of an error number: these are below 4096.
pub(crate) fn hook_errno(ended: Result<Ended, Errno>) -> Errno {
    Errno::from_raw_os_error(match ended {
        Ok(Ended::Exited(code)) => code & 0xff,
        Ok(Ended::Signalled(signal)) => HOOK_SIGNAL + signal,
        Ok(Ended::TimedOut) => HOOK_TIMED_OUT,
        Err(errno) => HOOK_ERRNO + errno.raw_os_error(),
    })
}

const HOOK_SIGNAL: i32 = 1000;
const HOOK_TIMED_OUT: i32 = 2000;
const HOOK_ERRNO: i32 = 3000;

/// The message about a hook that [`hook_errno`] speaks of.
fn hook(hook: Option<&HookPlan>, errno: Errno) -> String {
    let why = match errno.raw_os_error() {
        number if number >= HOOK_ERRNO => reason(Errno::from_raw_os_error(number - HOOK_ERRNO)),
        HOOK_TIMED_OUT => "it took longer than its timeout".to_owned(),
        number if number >= HOOK_SIGNAL => format!("signal {} ended it", number - HOOK_SIGNAL),
        code => format!("exit code {code}"),
    };
    hook_failure(hook, &why)
}

/// The message about a hook that failed.
pub(crate) fn hook_failure(hook: Option<&HookPlan>, why: &str) -> String {
    let path = hook.map(|hook| hook.path.to_string_lossy().into_owned());
    let field = hook.map_or("hook", |hook| &hook.field);
    format!("cannot run {field} `{}`: {why}", path.unwrap_or_default())
}

fn named(verb: &str, path: Option<&CStr>) -> String {
    format!(
        "{verb} `{}`",
        path.map(CStr::to_string_lossy).unwrap_or_default()
    )
}

fn mount_text(plan: &InitPlan, failure: Failure) -> String {
    let Some(mount) = plan.mounts.get(usize::from(failure.index)) else {
        return "mount".to_owned();
    };
    let target = mount.target.to_string_lossy();
    let part = mount.beneath.as_ref().map_or_else(String::new, |part| {
        format!("`{}` of ", part.to_string_lossy())
    });
    match &mount.source {
        MountSource::Bind { path, .. } | MountSource::Inside { path, .. } => {
            format!("mount {part}`{}` on `{target}`", path.to_string_lossy())
        }
        MountSource::FileSystem { kind, .. } if failure.errno == Errno::LOOP => {
            format!(
                "mount {} on `{target}`, which must be mounted on ordinary directory and is a symbolic link in the image",
                kind.to_string_lossy()
            )
        }
        MountSource::FileSystem { kind, .. } => {
            format!("mount {part}{} on `{target}`", kind.to_string_lossy())
        }
        MountSource::OtherNamespace { path, .. } => {
            let path = path.to_string_lossy();
            format!("mount the other container's `{path}` on `{target}`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_encoded_and_decoded_is_the_same() {
        for step in STEPS {
            let failure = Failure {
                step,
                index: 513,
                errno: Errno::NOSPC,
            };
            assert_eq!(Failure::decode(failure.encode()), Some(failure));
        }
        assert_eq!(STEPS.len(), Step::Exec as usize + 1);
    }

    #[test]
    fn exec_failure_maps_errno_to_code() {
        assert_eq!(exec_failure(Some(c"x"), Errno::NOENT).code, 127);
        assert_eq!(exec_failure(Some(c"x"), Errno::ACCESS).code, 126);
        assert_eq!(exec_failure(Some(c"x"), Errno::NOEXEC).code, 126);
    }
}
