//! The container's init, from `clone3` to `execve`: a fixed sequence of kernel steps on a plan that
//! was prepared before. Nothing here allocates, locks or unwinds; a failed step is reported as
//! [`Failure`] and the process ends.
//!
//! ```text
//! cgroups ── maps ready ── namespaces ── rootfs ── mounts ── /dev ── names, sysctl, lo
//!   ── masked and read-only paths ── hooks ── pivot_root ── parent ready ── limits ── seccomp,
//!   user, capabilities ── wait for `start` ── hooks ── execve
//! ```

mod console;
mod copy_up;
mod devices;
mod gate;
mod identity;
mod mounts;
mod paths;
mod rootfs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{InitPlan, Namespace, Program};
use rustix::io::Errno;
use sys::clone::{Side, namespace};
use sys::exec::{CStringArray, execve, execve_fd, exit_now};

use crate::cgroup::Entrances;
use crate::prepare::Prepared;
use crate::step::{Failure, Message, Step};
use crate::trace::Begin;

/// A step's result.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Turns a system call's error into the failure of a step.
pub(crate) trait At<T> {
    /// Of the only item.
    fn at(self, step: Step) -> Result<T>;
    /// Of item `index`.
    fn at_item(self, step: Step, index: usize) -> Result<T>;
}

impl<T> At<T> for std::result::Result<T, Errno> {
    fn at(self, step: Step) -> Result<T> {
        self.at_item(step, 0)
    }

    fn at_item(self, step: Step, index: usize) -> Result<T> {
        self.map_err(|errno| Failure {
            step,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            errno,
        })
    }
}

/// Enters the control groups of v1.
pub(crate) fn enter_groups(groups: &Entrances) -> Result<()> {
    let entered = groups.enter();
    entered.or_else(|(index, errno)| Err(errno).at_item(Step::EnterGroup, index))
}

/// How an init hands its filter's notifications over, before the filter can hold a call back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announce<'a> {
    pub(crate) report: BorrowedFd<'a>,
    pub(crate) go: BorrowedFd<'a>,
}

impl Announce<'_> {
    /// Tells the parent the number, and waits until it has taken the descriptor.
    fn listener(&self, notifications: &OwnedFd) -> Result<()> {
        use std::os::fd::AsRawFd;
        let message = Message::Listener(notifications.as_raw_fd());
        rustix::io::write(self.report, &message.encode()).at(Step::SeccompListener)?;
        let mut byte = [0; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.go, &mut byte)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Errno::PIPE).at(Step::SeccompListener),
            Err(errno) => Err(errno).at(Step::SeccompListener),
        }
    }
}

/// What the child has besides the plan: all of it made before the clone.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    pub(crate) plan: &'a InitPlan,
    pub(crate) args: &'a CStringArray,
    pub(crate) env: &'a CStringArray,
    /// The hooks that run inside, ready to be executed.
    pub(crate) hooks: &'a InitHooks,
    /// What they read: those of `createContainer`, those of `startContainer`.
    pub(crate) hook_states: Option<[BorrowedFd<'a>; 2]>,
    /// Mounts that the parent has made.
    pub(crate) prepared: &'a Prepared,
    /// The kinds of namespaces that it was born into instead of having to join them.
    pub(crate) joined: u64,
    /// When the start began, if it is traced.
    pub(crate) begin: Begin,
    /// The executable that this process becomes, as the parent of the program.
    pub(crate) init: Option<BorrowedFd<'a>>,
    /// The control groups that are entered from inside.
    pub(crate) groups: &'a Entrances,
    /// Where the word to start comes from, and where a later failure goes.
    pub(crate) gate: Option<[BorrowedFd<'a>; 2]>,
    /// The bytes that come when the id maps are written, when the parent has made what it makes
    /// outside (network, records), when the hooks outside have run, when the filter's listener is
    /// handed over: in this order.
    pub(crate) go: BorrowedFd<'a>,
    /// Where a failure goes.
    pub(crate) report: BorrowedFd<'a>,
    /// stdin, stdout, stderr, or none of them with a terminal.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    /// Where the terminal's master side goes.
    pub(crate) console: Option<console::Request<'a>>,
    /// A sealed memfd with the wasm host's specification, and where it reports the guest's end.
    pub(crate) wasm: Option<[BorrowedFd<'a>; 2]>,
}

pub(crate) use console::{Request as ConsoleRequest, attach as attach_console};
pub(crate) use gate::InitHooks;
pub(crate) use identity::{assume_exec as assume_identity, join as join_namespace, return_to};

impl Child<'_> {
    /// Runs all steps. Never returns: the program runs, or the failure is reported.
    pub(crate) fn run(&self) -> ! {
        let failure = match self.steps() {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        // The parent may be gone; then there is nobody to tell.
        let _gone = rustix::io::write(self.report, &failure.encode());
        if let Some([_, report]) = self.gate {
            let _gone = rustix::io::write(report, &failure.encode());
        }
        exit_now(127)
    }

    fn wait_for_parent(&self) -> Result<()> {
        let mut byte = [0_u8; 1];
        match rustix::io::retry_on_intr(|| rustix::io::read(self.go, &mut byte)) {
            Ok(1) => Ok(()),
            Ok(_) => Err(Failure {
                step: Step::Sync,
                index: 0,
                errno: Errno::PIPE,
            }),
            Err(errno) => Err(errno).at(Step::Sync),
        }
    }

    /// A step is over.
    fn over(&self, step: Step) -> Result<()> {
        match self.begin.elapsed_ns() {
            Some(ns) => self.tell(Message::Over(step, ns)),
            None => Ok(()),
        }
    }

    fn tell(&self, message: Message) -> Result<()> {
        rustix::io::write(self.report, &message.encode()).at(Step::Sync)?;
        Ok(())
    }

    // A fixed sequence of kernel steps stays whole (HANDBOOK section 2).
    fn steps(&self) -> Result<std::convert::Infallible> {
        let plan = self.plan;
        // First of all: what the init itself uses is the container's.
        enter_groups(self.groups)?;
        // The container's CPUs are those of its cpuset, not those of whoever started it.
        sys::schedule::reset_cpu_affinity();
        // Without a written map every id is the overflow id, and files cannot be made.
        if plan.user_map.is_some() {
            self.wait_for_parent()?;
            identity::become_root()?;
        }
        for (index, joined) in plan.namespaces.iter().enumerate() {
            if let Some(path) = &joined.path {
                if self.joined & joined.flag != 0 {
                    continue;
                }
                if joined.flag == namespace::USER {
                    // This process was cloned inside.
                    identity::become_root()?;
                    continue;
                }
                identity::join(path, joined.flag).at_item(Step::JoinNamespace, index)?;
            }
        }
        // A session without a terminal: the container must not reach the caller's by /dev/tty.
        rustix::process::setsid().at(Step::Session)?;
        self.over(Step::Session)?;

        // Host files are opened while the host's tree is still there.
        let wasm = match &plan.process.program {
            Program::Wasm(wasm) => Some(self.open_wasm(wasm)?),
            Program::Path(_) => None,
        };

        rootfs::spread(plan).at(Step::Propagation)?;
        self.over(Step::Propagation)?;
        let root = rootfs::mount(plan, self.prepared.root()).at(Step::Rootfs)?;
        self.over(Step::Rootfs)?;
        // A procfs of our own, attached nowhere: the image cannot redirect what is written there
        // (CVE-2025-52881).
        let procfs = rootfs::private_procfs();
        self.over(Step::Procfs)?;

        // A cgroup namespace is rooted where its creator is.
        let namespaces = &plan.namespaces;
        let is_own = |n: &Namespace| n.flag == namespace::CGROUP && n.path.is_none();
        if namespaces.iter().any(is_own) {
            identity::unshare_cgroup().at(Step::CgroupNamespace)?;
        }
        self.over(Step::CgroupNamespace)?;
        let hooks = plan.hooks.interrupt_creation();
        if hooks {
            self.wait_for_parent()?;
        }
        let is_wasm = wasm.is_some();
        for (index, mount) in plan.mounts.iter().enumerate() {
            if !(is_wasm && mounts::shows_the_kernel(mount)) {
                mounts::mount(root.as_fd(), mount, index, self.prepared.mount(index))?;
            }
        }
        self.over(Step::Mount)?;
        devices::make(root.as_fd(), &plan.devices)?;
        self.over(Step::Device)?;
        devices::link(root.as_fd(), &plan.symlinks)?;
        self.over(Step::Symlink)?;
        let terminal = match &self.console {
            Some(request) => Some(console::open(root.as_fd(), request).at(Step::Console)?),
            None => None,
        };

        if let Some(name) = &plan.hostname {
            rustix::system::sethostname(name.to_bytes()).at(Step::Hostname)?;
        }
        if let Some(name) = &plan.domainname {
            rustix::system::setdomainname(name.to_bytes()).at(Step::Domainname)?;
        }
        if plan.loopback_up {
            sys::net::link_up(c"lo").at(Step::Loopback)?;
        }
        self.over(Step::Loopback)?;
        if !plan.sysctl.is_empty() {
            let procfs = procfs.as_ref().map_err(|errno| *errno).at(Step::Procfs)?;
            for (index, (key, value)) in plan.sysctl.iter().enumerate() {
                paths::write_proc(procfs.as_fd(), key, value.to_bytes())
                    .at_item(Step::Sysctl, index)?;
            }
        }
        self.over(Step::Sysctl)?;
        if plan.process.create_cwd {
            sys::path::make_in_root(
                root.as_fd(),
                &plan.process.cwd,
                sys::path::Missing::Directory,
            )
            .at(Step::MakeCwd)?;
        }
        let guest_root = match is_wasm {
            true => Some(self.guest_root(root.as_fd())?),
            false => None,
        };
        if !(plan.masked_paths.is_empty() && plan.readonly_paths.is_empty()) {
            paths::make_readonly(root.as_fd(), &plan.readonly_paths)?;
            self.over(Step::ReadonlyPath)?;
            paths::mask(root.as_fd(), &plan.masked_paths)?;
            self.over(Step::MaskPath)?;
        }
        if hooks {
            self.tell(Message::Mounted)?;
            self.wait_for_parent()?;
            if let Some([state, _]) = self.hook_states {
                // They find the container's files where they are.
                rustix::process::fchdir(root.as_fd()).at(Step::CreateContainerHook)?;
                self.hooks.create(&plan.hooks, state)?;
            }
        }
        rootfs::enter(root.as_fd(), plan).at(Step::PivotRoot)?;
        drop(root);
        rootfs::finish(plan)?;
        mounts::finish(&plan.mounts)?;
        self.over(Step::PivotRoot)?;

        if !hooks {
            self.wait_for_parent()?;
        }
        identity::set_limits(&plan.process)?;
        if let Some(value) = plan.process.oom_score_adj {
            let procfs = procfs.as_ref().map_err(|errno| *errno).at(Step::Procfs)?;
            identity::set_oom_score_adj(procfs.as_fd(), value).at(Step::OomScoreAdj)?;
        }
        if plan.process.exec_label.is_some() {
            let procfs = procfs.as_ref().map_err(|errno| *errno).at(Step::Procfs)?;
            identity::set_exec_label(procfs.as_fd(), &plan.process)?;
        }
        drop(procfs);
        match terminal {
            Some(terminal) => console::take_over(terminal.as_fd()).at(Step::Console)?,
            None => self.place_stdio()?,
        }
        self.finish(wasm, guest_root)
    }

    /// What a wasm guest sees as `/`: the mount tree without the kernel's own file systems, which
    /// are mounted for the wasm host alone. `/proc/1/mem` would be a door to the host's memory.
    fn guest_root(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        let tree = rootfs::guest_tree(root, &self.plan.rootfs).at(Step::GuestRoot)?;
        for (index, mount) in self.plan.mounts.iter().enumerate() {
            if mounts::shows_the_kernel(mount) {
                mounts::mount(root, mount, index, self.prepared.mount(index))?;
            }
        }
        sys::exec::move_descriptor_above(tree.as_fd(), 10).at(Step::GuestRoot)
    }

    /// The last part, which an exec into a running container shares.
    fn finish(
        &self,
        wasm: Option<[OwnedFd; 4]>,
        guest_root: Option<OwnedFd>,
    ) -> Result<std::convert::Infallible> {
        let process = &self.plan.process;
        let announce = Announce {
            report: self.report,
            go: self.go,
        };
        // What a filter may hold back comes before it.
        sys::exec::reset_signals();
        self.close_descriptors(wasm.as_ref(), guest_root.as_ref())?;
        identity::assume(process, &announce)?;
        self.over(Step::Capabilities)?;
        if let Some([start, _]) = self.gate {
            gate::check_program(&process.program)?;
            gate::end_on_signals()?;
            self.tell(Message::Ready)?;
            gate::wait(start)?;
        }
        if let Some([_, state]) = self.hook_states {
            self.hooks.start(&self.plan.hooks, state)?;
        }
        match (&process.program, wasm.zip(guest_root)) {
            (Program::Wasm(_), Some(([host, spec, artifact, report], guest_root))) => {
                sys::exec::place_descriptor(spec.as_fd(), 3).at(Step::Stdio)?;
                sys::exec::place_descriptor(artifact.as_fd(), 4).at(Step::Stdio)?;
                sys::exec::place_descriptor(report.as_fd(), 5).at(Step::Stdio)?;
                sys::exec::place_descriptor(guest_root.as_fd(), 6).at(Step::Stdio)?;
                sys::exec::close_on_exec_from(7).at(Step::CloseDescriptors)?;
                Err(execve_fd(host.as_fd(), self.args, self.env)).at(Step::Exec)
            }
            (Program::Path(candidates), _) => {
                if let Some(init) = self.init {
                    become_first(init)?;
                }
                Err(try_candidates(candidates, self.args, self.env)).at(Step::Exec)
            }
            (Program::Wasm(_), None) => Err(Errno::INVAL).at(Step::WasmHost),
        }
    }

    /// Closes the host's files before anybody else in the container may look at this process, and
    /// before it waits for its start.
    fn close_descriptors(
        &self,
        wasm: Option<&[OwnedFd; 4]>,
        guest_root: Option<&OwnedFd>,
    ) -> Result<()> {
        let [start, report] = self.gate.map_or([None; 2], |gate| gate.map(Some));
        let [host, spec, artifact, end] = match wasm {
            Some(files) => files.each_ref().map(|file| Some(file.as_fd())),
            None => [None; 4],
        };
        let keep = [
            Some(self.go),
            Some(self.report),
            start,
            report,
            self.hook_states.map(|[_, start]| start),
            self.init,
            host,
            spec,
            artifact,
            end,
            guest_root.map(AsFd::as_fd),
        ];
        let first = match wasm {
            Some(_) => 3,
            None => self.plan.process.preserve_descriptors.saturating_add(3),
        };
        sys::exec::close_all_but(first, &keep).at(Step::CloseDescriptors)?;
        match wasm {
            Some(_) => Ok(()),
            None => sys::exec::close_on_exec_from(first).at(Step::CloseDescriptors),
        }
    }

    /// Opens what the wasm host needs, at numbers that leave 0 to 9 free.
    fn open_wasm(&self, wasm: &runtime::WasmPlan) -> Result<[OwnedFd; 4]> {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let host = open(&*wasm.host, flags, Mode::empty()).at(Step::WasmHost)?;
        let artifact = open(&*wasm.artifact, flags | OFlags::NOFOLLOW, Mode::empty())
            .at(Step::WasmArtifact)?;
        let [spec, report] = self.wasm.ok_or(Errno::BADF).at(Step::WasmHost)?;
        Ok([
            sys::exec::move_descriptor_above(host.as_fd(), 10).at(Step::WasmHost)?,
            sys::exec::move_descriptor_above(spec, 10).at(Step::WasmHost)?,
            sys::exec::move_descriptor_above(artifact.as_fd(), 10).at(Step::WasmArtifact)?,
            sys::exec::move_descriptor_above(report, 10).at(Step::WasmHost)?,
        ])
    }

    fn place_stdio(&self) -> Result<()> {
        let Some(stdio) = &self.stdio else {
            return devices::reopen_null().at(Step::Stdio);
        };
        for (number, from) in (0..).zip(stdio) {
            sys::exec::place_descriptor(*from, number).at(Step::Stdio)?;
        }
        Ok(())
    }
}

/// This process becomes the container's first one; what returns is its child. A failure of either
/// goes through the one pipe, which ends when both have executed something.
fn become_first(init: BorrowedFd<'_>) -> Result<()> {
    match sys::clone::clone_again() {
        Ok(Side::Child) => Ok(()),
        Ok(Side::Parent { pid, .. }) => {
            Err(sys::exec::execve_fd_with_number(init, c"ketch-init", pid)).at(Step::Init)
        }
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)).at(Step::Init),
    }
}

/// Tries each path as a shell does (POSIX `execvp`): a missing one is passed over, one that may not
/// be executed is remembered.
pub(crate) fn try_candidates(
    candidates: &[std::ffi::CString],
    args: &CStringArray,
    env: &CStringArray,
) -> Errno {
    let mut result = Errno::NOENT;
    for path in candidates {
        match execve(path, args, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => {
                // The kernel says EACCES for a directory as well.
                result = Errno::ACCESS;
            }
            other => return other,
        }
    }
    result
}
