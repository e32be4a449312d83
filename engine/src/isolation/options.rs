//! The options, parsed and not yet looked up.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDeviceType, PosixRlimitType};

/// What of a container's isolation a user may change; the default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IsolationOptions {
    /// `--privileged`: every capability and device, nothing masked, no filter.
    pub privileged: bool,
    /// Capabilities besides the usual ones.
    pub cap_add: Vec<String>,
    /// Capabilities that are taken away.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security: SecurityOptions,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// Further rules of the device list.
    pub device_rules: Vec<DeviceRule>,
    /// Directories with CDI specifications, the most important last.
    pub cdi_dirs: Vec<PathBuf>,
    /// Whose processes it sees.
    pub pid: Share,
    /// Whose shared memory it has.
    pub ipc: IpcMode,
    /// Whose host name it has: `Private` or `Host`.
    pub uts: Share,
    /// Whose control groups it sees: `Private` or `Host`.
    pub cgroup_namespace: Share,
    /// Whose ids its users are.
    pub users: UserMode,
    /// Kernel parameters of its namespaces.
    pub sysctl: Vec<(String, String)>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm`; 64 MiB when absent.
    pub shm_bytes: Option<u64>,
    /// Further groups of its user, by name or number.
    pub groups: Vec<String>,
    /// How eagerly the kernel kills it for want of memory, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Limits of its control group.
    pub limits: ResourceLimits,
    /// The control group that its own lies in.
    pub cgroup_parent: Option<String>,
    /// A built-in first process that reaps others and passes signals on.
    pub init: bool,
}

/// `--security-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// The filter of system calls.
    pub seccomp: SeccompProfile,
    /// The AppArmor profile; none with `unconfined`.
    pub apparmor: Option<String>,
    /// SELinux: `user:…`, `role:…`, `type:…`, `level:…`.
    pub labels: Vec<String>,
    /// Nothing of `/proc` and `/sys` is hidden or read-only.
    pub all_system_paths: bool,
    /// `/sys/fs/cgroup` can be written.
    pub writable_cgroups: bool,
}

/// A filter of system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// Docker's.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's format, JSON.
    Profile(Vec<u8>),
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRequest {
    /// By its path; with a directory everything below it.
    Path {
        /// On the host.
        source: PathBuf,
        /// In the container.
        target: PathBuf,
        /// What may be done.
        access: DeviceAccess,
    },
    /// By its name in a CDI specification, `vendor.com/class=name`.
    Cdi(String),
}

impl DeviceRequest {
    /// Whether a text is a name in CDI specifications, `vendor.com/class=name`, and no path.
    #[must_use]
    pub fn is_cdi_name(text: &str) -> bool {
        super::cdi::is_qualified(text)
    }
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// `r`.
    pub read: bool,
    /// `w`.
    pub write: bool,
    /// `m`.
    pub make: bool,
}

impl DeviceAccess {
    /// All three.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        make: true,
    };

    /// Reads `rwm` and parts of it, each letter once.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut access = Self {
            read: false,
            write: false,
            make: false,
        };
        for letter in text.chars() {
            let bit = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.make,
                _ => return None,
            };
            if std::mem::replace(bit, true) {
                return None;
            }
        }
        (!text.is_empty()).then_some(access)
    }

    pub(crate) fn text(self) -> String {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        let given = letters.iter().filter(|(given, _)| *given);
        given.map(|(_, letter)| *letter).collect()
    }
}

/// A rule of the device list that allows something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Every kind, character or block devices.
    pub kind: LinuxDeviceType,
    /// The major number; every one when absent.
    pub major: Option<u32>,
    /// The minor number; every one when absent.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// `a|b|c MAJOR:MINOR rwm`, as Docker and the kernel's list have it; `*` is every number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [kind, numbers, access] = parts.as_slice() else {
            return None;
        };
        let kind = match *kind {
            "a" => LinuxDeviceType::A,
            "b" => LinuxDeviceType::B,
            "c" => LinuxDeviceType::C,
            _ => return None,
        };
        let number = |text: &str| match text {
            "*" => Some(None),
            number => number.parse::<u32>().ok().map(Some),
        };
        let (major, minor) = numbers.split_once(':')?;
        Some(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access: DeviceAccess::parse(access)?,
        })
    }
}

/// Whose namespace a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Share {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Whose System V and POSIX shared memory a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, which others may share.
    Shareable,
    /// Its own, without `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Whose ids the users of a container are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UserMode {
    /// The caller's.
    #[default]
    Host,
    /// Ids that no other container of this kind has.
    Auto {
        /// How many.
        size: u32,
    },
    /// A namespace of its own in which every id is what it is outside.
    KeepId,
}

/// A resource limit (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Of what.
    pub resource: PosixRlimitType,
    /// In force.
    pub soft: u64,
    /// As far as the soft one can be raised.
    pub hard: u64,
}

/// Limits of a control group besides memory, processors and processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-period`, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// `--cpu-quota`, in microseconds; negative without one.
    pub cpu_quota_us: Option<i64>,
    /// `--memory-reservation`.
    pub memory_reservation: Option<i64>,
    /// `--memory-swap`: memory and swap together, -1 without a limit.
    pub memory_swap: Option<i64>,
    /// `--memory-swappiness`: 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// `--blkio-weight`.
    pub blkio_weight: Option<u16>,
    /// `--blkio-weight-device`.
    pub blkio_weight_device: Vec<ThrottledDevice>,
    /// `--device-read-bps`.
    pub read_bps: Vec<ThrottledDevice>,
    /// `--device-write-bps`.
    pub write_bps: Vec<ThrottledDevice>,
    /// `--device-read-iops`.
    pub read_iops: Vec<ThrottledDevice>,
    /// `--device-write-iops`.
    pub write_iops: Vec<ThrottledDevice>,
}

/// A limit for one block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottledDevice {
    /// Its path on the host.
    pub path: PathBuf,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

impl IsolationOptions {
    /// The first option that a wasm container cannot honour, as the user writes it, and why.
    pub(crate) fn first_only_native(&self) -> Option<(&'static str, &'static str)> {
        const NO_PROCESS: &str = "a wasm guest sees no processes";
        const NO_CAPABILITY: &str = "a wasm guest has no capabilities";
        const NO_DEVICE: &str = "a wasm guest opens no devices";
        const OWN_FILTER: &str = "the filter of the wasm host is part of the sandbox";
        const NO_MEMORY: &str = "a wasm guest has no shared memory";
        const NO_NAMES: &str = "a wasm guest sees neither the host's name nor control groups";
        let security = &self.security;
        let given = [
            ("--privileged", self.privileged, NO_CAPABILITY),
            ("--cap-add", !self.cap_add.is_empty(), NO_CAPABILITY),
            (
                "--security-opt seccomp",
                security.seccomp != SeccompProfile::Default,
                OWN_FILTER,
            ),
            (
                "--security-opt systempaths",
                security.all_system_paths,
                NO_PROCESS,
            ),
            (
                "--security-opt writable-cgroups",
                security.writable_cgroups,
                NO_NAMES,
            ),
            ("--device", !self.devices.is_empty(), NO_DEVICE),
            (
                "--device-cgroup-rule",
                !self.device_rules.is_empty(),
                NO_DEVICE,
            ),
            ("--pid", self.pid != Share::Private, NO_PROCESS),
            ("--ipc", self.ipc != IpcMode::Private, NO_MEMORY),
            ("--uts", self.uts != Share::Private, NO_NAMES),
            (
                "--cgroupns",
                self.cgroup_namespace != Share::Private,
                NO_NAMES,
            ),
            (
                "--userns",
                self.users != UserMode::Host,
                "a wasm guest has no users",
            ),
            ("--shm-size", self.shm_bytes.is_some(), NO_MEMORY),
            ("--init", self.init, NO_PROCESS),
        ];
        given
            .into_iter()
            .find(|(_, given, _)| *given)
            .map(|(option, _, why)| (option, why))
    }

    /// The first option that needs a container, as the user writes it.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let limits = &self.limits;
        let given = [
            ("--cap-drop", !self.cap_drop.is_empty()),
            (
                "--security-opt",
                self.security != SecurityOptions::default(),
            ),
            ("--sysctl", !self.sysctl.is_empty()),
            ("--ulimit", !self.ulimits.is_empty()),
            ("--group-add", !self.groups.is_empty()),
            ("--oom-score-adj", self.oom_score_adj.is_some()),
            ("--cpuset-cpus", limits.cpuset_cpus.is_some()),
            ("--cpuset-mems", limits.cpuset_mems.is_some()),
            ("--cpu-shares", limits.cpu_shares.is_some()),
            ("--cpu-period", limits.cpu_period_us.is_some()),
            ("--cpu-quota", limits.cpu_quota_us.is_some()),
            ("--memory-reservation", limits.memory_reservation.is_some()),
            ("--memory-swap", limits.memory_swap.is_some()),
            ("--memory-swappiness", limits.memory_swappiness.is_some()),
            ("--blkio-weight", limits.blkio_weight.is_some()),
            (
                "--blkio-weight-device",
                !limits.blkio_weight_device.is_empty(),
            ),
            ("--device-read-bps", !limits.read_bps.is_empty()),
            ("--device-write-bps", !limits.write_bps.is_empty()),
            ("--device-read-iops", !limits.read_iops.is_empty()),
            ("--device-write-iops", !limits.write_iops.is_empty()),
            ("--cgroup-parent", self.cgroup_parent.is_some()),
        ];
        let first = given.into_iter().find(|(_, given)| *given);
        let native = self.first_only_native().map(|(option, _)| option);
        native.or(first.map(|(option, _)| option))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_letters_each_once() {
        assert_eq!(DeviceAccess::parse("rwm"), Some(DeviceAccess::ALL));
        assert_eq!(DeviceAccess::parse("mr").unwrap().text(), "rm");
        for bad in ["", "rr", "x", "rwmx"] {
            assert_eq!(DeviceAccess::parse(bad), None, "{bad}");
        }
    }
}
