//! The plan: everything that `ketch-init` needs to know to make one container, prepared by the
//! front end, so that nothing is parsed, looked up or allocated between `clone3` and `execve`.
//!
//! It travels as one [`postcard`] message in a sealed memfd (DESIGN section 1). Strings that reach
//! a system call are [`CString`]s already.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::health::HealthPlan;
use crate::hooks::{ContainerFacts, HooksPlan};
use crate::log::LogPlan;
use crate::restart::RestartPolicy;

/// The version of this format. Front end and `ketch-init` are built together; a mismatch means that
/// an old `ketch-init` is still in the run directory.
pub const VERSION: u32 = 1;

/// Why a plan could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The bytes are no plan.
    #[error("cannot decode the container's plan")]
    Decode(#[source] postcard::Error),
    /// The plan could not be encoded.
    #[error("cannot encode the container's plan")]
    Encode(#[source] postcard::Error),
    /// Written by another version of ketch.
    #[error("the container's plan has version {found}, this program reads {VERSION}")]
    Version {
        /// The version that was found.
        found: u32,
    },
}

/// One container: what the monitor does around it, and what its init does inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// The monitor's part.
    pub monitor: MonitorPlan,
    /// The container's part.
    pub init: InitPlan,
}

impl Plan {
    /// Encodes the plan for the memfd.
    ///
    /// # Errors
    /// When a field cannot be represented, which would be a bug of this crate.
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        postcard::to_stdvec(self).map_err(PlanError::Encode)
    }

    /// Decodes what [`Plan::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no plan or one of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        decode(bytes)
    }
}

/// What the monitor owns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MonitorPlan {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// `containers/<id>` under the state root: `state.json` and the log live here.
    pub state_dir: CString,
    /// `containers/<id>` under the run directory: lock, control socket.
    pub run_dir: CString,
    /// Where the state directory goes first when the container is removed.
    pub trash_dir: CString,
    /// Where it is written down how a container ended that is removed then.
    pub exits_dir: CString,
    /// The name claim to release when the container is removed.
    pub name_claim: Option<CString>,
    /// Remove the container when it has ended (`--rm`).
    pub auto_remove: bool,
    /// What to do with standard input.
    pub stdin: StdinMode,
    /// A pseudo-terminal for the container, or pipes.
    pub console: Option<Console>,
    /// Where output is recorded.
    pub log: LogPlan,
    /// The signal that asks the container to stop.
    pub stop_signal: i32,
    /// Milliseconds between that signal and SIGKILL.
    pub stop_timeout_ms: u64,
    /// What happens when the program has ended by itself.
    pub restart: RestartPolicy,
    /// How it is found out whether it is healthy.
    pub health: Option<HealthPlan>,
    /// The directory of the log of events.
    pub events_dir: CString,
    /// What every event of the container says about it.
    pub event_attributes: Vec<(String, String)>,
    /// What is written there about others when the program has started.
    pub start_events: Vec<EventPlan>,
    /// The same when it has ended.
    pub end_events: Vec<EventPlan>,
    /// `network::NetworkPlan`, encoded; opaque to everything between engine and monitor. Without it
    /// the container has no network of its own beyond its namespaces.
    pub network: Option<Vec<u8>>,
    /// Directories of volumes that go with the container when it is removed at its end, as long as
    /// each has its file `owned`.
    pub own_volumes: Vec<CString>,
    /// The record of what volume drivers have mounted for this start, to be given back at its end.
    pub volumes: Option<CString>,
}

/// An event of something that a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPlan {
    /// `network` or `volume`.
    pub kind: String,
    /// What happens to it.
    pub action: String,
    /// Its id, or its name where names are ids.
    pub id: String,
    /// What is said about it.
    pub attributes: Vec<(String, String)>,
}

/// What happens to the container's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinMode {
    /// `/dev/null`.
    Null,
    /// Open; closed when the first client that attached to it leaves.
    Once,
    /// Open for as long as the container lives.
    Keep,
}

/// The size of the terminal when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Rows; 0 when unknown.
    pub rows: u16,
    /// Columns; 0 when unknown.
    pub columns: u16,
    /// What becomes of a line feed that a program prints.
    pub line_ends: LineEnds,
}

impl Console {
    /// Of no known size.
    pub const UNKNOWN: Self = Self {
        rows: 0,
        columns: 0,
        line_ends: LineEnds::Translated,
    };
}

/// What a terminal makes of a line feed (`ONLCR` of termios(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineEnds {
    /// A carriage return and a line feed, as the kernel makes a terminal.
    Translated,
    /// A line feed: what is shown goes on to another terminal, or into a file.
    Plain,
}

/// What the container's init does, in this order, inside its namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitPlan {
    /// Namespaces to create or join.
    pub namespaces: Vec<Namespace>,
    /// The id maps of a new user namespace.
    pub user_map: Option<UserMap>,
    /// Control groups to make, limits to write, groups to enter.
    pub cgroup: CgroupPlan,
    /// The root file system.
    pub rootfs: RootfsPlan,
    /// Mounts below it, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes to make in `/dev`, or to bind from the host when nodes are not allowed.
    pub devices: Vec<DevicePlan>,
    /// Symbolic links to make in the root: target, path. What exists stays.
    pub symlinks: Vec<(CString, CString)>,
    /// Paths that read as empty.
    pub masked_paths: Vec<CString>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<CString>,
    /// `sethostname`.
    pub hostname: Option<CString>,
    /// `setdomainname`.
    pub domainname: Option<CString>,
    /// Paths below `/proc/sys` and what to write.
    pub sysctl: Vec<(CString, CString)>,
    /// Links of the host that are moved into the container's network: their names there, and inside.
    pub net_devices: Vec<(String, String)>,
    /// Bring the loopback link of a new network namespace up.
    pub loopback_up: bool,
    /// What is written to `/proc/self/timens_offsets` of a new time namespace.
    pub time_offsets: Option<CString>,
    /// How mounts spread between the container and the host.
    pub propagation: RootPropagation,
    /// How the container gets its root.
    pub root_change: RootChange,
    /// With [`RootChange::Move`]: the host's mounts of procfs and sysfs, which would stay reachable
    /// for the kernel's check of what a new one may show. They are unmounted.
    pub hidden: Vec<CString>,
    /// Programs to run on the way.
    pub hooks: HooksPlan,
    /// The program.
    pub process: ProcessPlan,
    /// A file that the steps of the start and their times are added to.
    pub trace: Option<CString>,
}

/// How mounts spread between the container and the host (`linux.rootfsPropagation`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPropagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE` for the container's root; 0 leaves
    /// it as the host's mounts arrive: as their slaves.
    pub flag: u64,
    /// With `MS_SHARED`, the mount that the root is attached to, which must not be shared:
    /// pivot_root(2) refuses that, and the attaching would be seen on the host.
    pub parent_mount: Option<CString>,
}

/// How the container gets its root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootChange {
    /// `pivot_root(2)`.
    #[default]
    Pivot,
    /// The new root is moved over the old one and entered by `chroot(2)`: for a host whose root is
    /// its initial ramfs, which cannot be pivoted (`--no-pivot`).
    Move,
    /// `chroot(2)` alone: the container shares the host's mount namespace.
    Chroot,
}

/// One namespace: created, or joined by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `CLONE_NEW*` of `linux/sched.h`.
    pub flag: u64,
    /// The namespace file to join; a new namespace when absent.
    pub path: Option<CString>,
}

/// One line of `/proc/<pid>/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The maps of a new user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserMap {
    /// Users.
    pub uid: Vec<IdMap>,
    /// Groups.
    pub gid: Vec<IdMap>,
    /// Write `deny` to `/proc/<pid>/setgroups` first: a single-id map without privilege needs it.
    pub deny_setgroups: bool,
}

/// Control groups of one container. Made by the monitor, removed by it when the container has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Directories of ketch's own that hold the groups of all containers: made when they are missing,
    /// parents first, and never removed.
    pub parents: Vec<CString>,
    /// What to write once a parent was made: `cpuset.cpus` of v1, `cgroup.subtree_control` of v2.
    pub parent_writes: Vec<CgroupWrite>,
    /// Directories to make, one in each hierarchy, and to remove at the end.
    pub make: Vec<CString>,
    /// `tasks` of each v1 group that the container enters.
    pub enter: Vec<CString>,
    /// The v2 group that the container is cloned into (`CLONE_INTO_CGROUP`).
    pub clone_into: Option<CString>,
    /// Limits, in order.
    pub writes: Vec<CgroupWrite>,
    /// v1 `memory.oom_control` or v2 `memory.events`: where `oom_kill` is counted.
    pub oom_counter: Option<CString>,
    /// A directory with `cgroup.kill`, or else a list of processes to kill one by one.
    pub kill: Option<CString>,
    /// `freezer.state` of v1: what is killed while it is frozen dies when it is thawed.
    pub freezer: Option<CString>,
    /// A device filter for the v2 group, `struct bpf_insn` after `struct bpf_insn` in this machine's
    /// byte order; empty without one.
    pub device_filter: Vec<u8>,
}

/// One value written to one control file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupWrite {
    /// The file.
    pub path: CString,
    /// The value, without a line end.
    pub value: String,
    /// The option that asked for it, for the message when it fails.
    pub option: String,
    /// What to write instead where there is no such file.
    pub otherwise: Option<Box<Self>>,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootfsPlan {
    /// An overlay of layers, uppermost first.
    Overlay {
        /// Read-only layers, uppermost first.
        lower: Vec<CString>,
        /// The writable layer.
        upper: CString,
        /// overlayfs's own directory, on the same file system.
        work: CString,
        /// Never sync the upper layer: for containers that are thrown away.
        volatile: bool,
        /// `user.overlay.*` attributes: needed in a user namespace.
        userxattr: bool,
        /// A directory of the host that the root is attached to, in the container's own mount
        /// namespace only.
        mountpoint: CString,
        /// The same as one option string, for kernels before 6.8 (no `lowerdir+`).
        options: CString,
        /// Remount read-only when all is in place.
        readonly: bool,
    },
    /// A directory of the host (an OCI bundle's `root.path`).
    Directory {
        /// The directory.
        path: CString,
        /// Remount read-only when all is in place.
        readonly: bool,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// What is mounted.
    pub source: MountSource,
    /// Where, resolved beneath the root; made when it is missing.
    pub target: CString,
    /// `MOUNT_ATTR_*` to set (`mount_setattr(2)`).
    pub set_flags: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear_flags: u64,
    /// Apply the flags to the whole tree.
    pub recursive_flags: bool,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, each with `MS_REC` or not; 0 leaves it.
    pub propagation: u64,
    /// Whose ids the files are shown with.
    pub id_map: Option<MountIdMap>,
    /// Fill a new tmpfs with what it hides (`tmpcopyup`).
    pub copy_up: bool,
    /// Only this of the source, resolved beneath it.
    pub beneath: Option<CString>,
}

/// An id-mapped mount (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdMap {
    /// The mapping: ids on the disk are the inner ones.
    pub map: UserMap,
    /// The user namespace whose mapping it is instead: that of another process.
    pub namespace: Option<CString>,
    /// With everything mounted below it.
    pub recursive: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A new instance of a file system.
    FileSystem {
        /// `tmpfs`, `proc`, `sysfs`, `devpts`, `mqueue`, …
        kind: CString,
        /// Keys with values and flags without.
        options: Vec<(CString, Option<CString>)>,
        /// What `/proc/mounts` shows.
        name: CString,
    },
    /// A file or a directory of the host.
    Bind {
        /// Its path.
        path: CString,
        /// With everything mounted below it.
        recursive: bool,
    },
    /// A file or a directory of the container's own root, with what earlier mounts have put there.
    Inside {
        /// Its path, resolved beneath the root.
        path: CString,
        /// With everything mounted below it.
        recursive: bool,
    },
    /// A directory that another mount namespace shows.
    OtherNamespace {
        /// The namespace's file.
        namespace: CString,
        /// The directory, as that namespace names it; no link is followed.
        path: CString,
    },
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Where.
    pub path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` and the permission bits.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The program and what it may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// What is executed.
    pub program: Program,
    /// Arguments; `argv[0]` is the first.
    pub args: Vec<CString>,
    /// `KEY=value`.
    pub env: Vec<CString>,
    /// The working directory inside the root.
    pub cwd: CString,
    /// Make it when it is missing.
    pub create_cwd: bool,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Mask of new files' modes.
    pub umask: u32,
    /// Capabilities.
    pub capabilities: CapabilitySets,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// A cBPF program, `struct sock_filter` after `struct sock_filter` in this machine's byte order.
    pub seccomp: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub seccomp_flags: u32,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Who is handed the filter's notifications.
    pub seccomp_listener: Option<SeccompListener>,
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// Class and level of I/O priority as ioprio_set(2) takes them.
    pub io_priority: Option<u16>,
    /// Execution domain (personality(2)).
    pub personality: Option<u64>,
    /// Where its memory comes from.
    pub memory_policy: Option<MemoryPolicy>,
    /// The CPUs it may run on.
    pub affinity: CpuAffinity,
    /// What is written to `attr/…/exec` in the process's own directory of procfs: the file, the label.
    pub exec_label: Option<(CString, CString)>,
    /// So many descriptors from 3 on stay open.
    pub preserve_descriptors: u32,
    /// An executable of the host that becomes the container's first process, as the parent of the
    /// program: it reaps what loses its parent and passes signals on.
    pub init: Option<CString>,
}

/// Who is handed the notifications of a seccomp filter (runtime-spec v1.2
/// `config-linux.md#containerprocessstate`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// The path of its socket.
    pub path: CString,
    /// What it is told besides the state.
    pub metadata: String,
    /// The container, for a further program of it: an init's plan has the whole state.
    pub about: ContainerFacts,
}

/// A scheduling policy (sched_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub period: u64,
}

/// A NUMA memory policy (set_mempolicy(2)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` with its `MPOL_F_*`.
    pub mode: u32,
    /// The nodes, bit n of word n / 64 being node n.
    pub nodes: Vec<u64>,
}

/// The CPUs of a further program, bit n of byte n / 8 being CPU n (runtime-spec v1.2
/// `config.md#linux-process`, `execCPUAffinity`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuAffinity {
    /// Before it enters the container's cgroup.
    pub initial: Option<Vec<u8>>,
    /// Afterwards.
    pub last: Option<Vec<u8>>,
}

/// What `execve` gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Candidates in the order in which they are tried: one path, or the name in each directory of
    /// the container's `PATH`.
    Path(Vec<CString>),
    /// The wasm host, opened before the root is left, with what it needs on descriptors 3 and 4.
    Wasm(WasmPlan),
}

/// What the wasm host is started with. Descriptor 3 is a sealed memfd with `spec`, descriptor 4 the
/// compiled module, opened for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmPlan {
    /// The wasm host's executable on the host.
    pub host: CString,
    /// The compiled module on the host.
    pub artifact: CString,
    /// `runtime_wasm::WasmSpec`, encoded: opaque to everything between engine and wasm host.
    pub spec: Vec<u8>,
}

/// Capability sets as bit masks, bit n being capability n of `linux/capability.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// What any program of the container can ever have.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Can be put in force.
    pub permitted: u64,
    /// Kept over `execve` of a program with inheritable file capabilities. Empty by default
    /// (CVE-2022-24769).
    pub inheritable: u64,
    /// Kept over `execve` by a user other than root.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` of `sys/resource.h`.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
    /// Lower both to what this process may set, instead of failing.
    pub clamp: bool,
}

/// A further program in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecPlan {
    /// [`VERSION`].
    pub version: u32,
    /// The container's init, on the host.
    pub pid: i32,
    /// Its start time (field 22 of `/proc/<pid>/stat`), so that a reused pid is noticed.
    pub start_time: u64,
    /// `CLONE_NEW*` of the namespaces to enter.
    pub namespaces: u64,
    /// `tasks` of each v1 group to enter.
    pub cgroup_enter: Vec<CString>,
    /// The v2 group to be cloned into.
    pub cgroup_clone_into: Option<CString>,
    /// A pseudo-terminal, or the caller's own descriptors 0 to 2.
    pub console: Option<Console>,
    /// The program.
    pub process: ProcessPlan,
}

impl ExecPlan {
    /// Encodes the plan for the memfd.
    ///
    /// # Errors
    /// As [`Plan::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, PlanError> {
        postcard::to_stdvec(self).map_err(PlanError::Encode)
    }

    /// Decodes what [`ExecPlan::encode`] wrote.
    ///
    /// # Errors
    /// As [`Plan::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        decode(bytes)
    }
}

/// Decodes a plan of any kind; all begin with their version.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, PlanError> {
    let (version, _) = postcard::take_from_bytes::<u32>(bytes).map_err(PlanError::Decode)?;
    if version != VERSION {
        return Err(PlanError::Version { found: version });
    }
    postcard::from_bytes(bytes).map_err(PlanError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_of_another_version_is_named() {
        let bytes = postcard::to_stdvec(&(VERSION + 1)).unwrap();
        let error = Plan::decode(&bytes).unwrap_err();
        assert!(matches!(error, PlanError::Version { found } if found == VERSION + 1));
        assert!(matches!(ExecPlan::decode(&[]), Err(PlanError::Decode(_))));
    }
}
