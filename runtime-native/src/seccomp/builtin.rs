//! The profile that a container gets unless it asks for another.
//!
//! It allows and refuses exactly what Docker's default profile does (as of June 2026), because
//! images are built against that; the tables say it in terms of what calls are for. Everything
//! that is not named gets `EPERM`, and what is newer than the profile `ENOSYS`.
//!
//! The names become rows of the table of calls at compile time: a misspelt one does not build,
//! and making the filter at run time needs no search.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::arch::Arch;
use super::rule::{Action, Condition, NewerCalls, Policy, Rule, Test};
use super::{calls, compile, oci};
use crate::capability;

/// `EPERM`.
const EPERM: u16 = 1;

/// Calls with one fate under one condition on the container.
struct Group {
    when: When,
    rows: &'static [u16],
    action: Action,
    conditions: &'static [Condition],
}

/// The containers that a group is for.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Those that hold the capability.
    With(u64),
    /// Those that do not.
    Without(u64),
    /// Those on a machine with x86 processors.
    OnX86,
    /// Those on a machine with 64-bit x86 processors.
    OnX86_64,
    /// Those on a machine with Arm processors.
    OnArm,
}

/// Flags of clone(2) that make namespaces: `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`,
/// `NEWUSER`, `NEWPID`, `NEWNET`.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// `AF_ALG` and `AF_VSOCK`: kernel cryptography, and the hypervisor, which no namespace
/// isolates. What lies between them is `AF_NFC`.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Values of personality(2): `PER_LINUX`, `PER_LINUX32`, `UNAME26`, both, and "only ask".
const PER_LINUX: u64 = 0;
const PER_LINUX32: u64 = 0x0008;
const UNAME26: u64 = 0x0002_0000;
const PER_ASK: u64 = 0xffff_ffff;

/// Signals.
#[rustfmt::skip]
const SIGNALS: &[u16] = &rows([
    "alarm", "kill", "pause", "pidfd_send_signal", "restart_syscall", "rt_sigaction",
    "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd",
    "signalfd4", "sigprocmask", "sigreturn", "tgkill", "tkill",
]);

/// Users, groups and capabilities of the caller.
#[rustfmt::skip]
const IDENTITY: &[u16] = &rows([
    "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32",
    "getuid", "getuid32", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid",
    "setgid32", "setgroups", "setgroups32", "setregid", "setregid32", "setresgid",
    "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32",
]);

/// Scheduling, priorities and limits.
#[rustfmt::skip]
const SCHEDULING: &[u16] = &rows([
    "getcpu", "getpriority", "getrlimit", "getrusage", "ioprio_get", "ioprio_set", "prlimit64",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "setpriority", "setrlimit", "times", "ugetrlimit",
]);

/// Clocks and timers.
#[rustfmt::skip]
const TIME: &[u16] = &rows([
    "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64",
    "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "getitimer", "gettimeofday", "nanosleep", "setitimer", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64",
]);

/// Sockets, except `socket` itself.
#[rustfmt::skip]
const SOCKETS: &[u16] = &rows([
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt",
    "listen", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg",
    "sendmsg", "sendto", "setsockopt", "shutdown", "socketcall", "socketpair",
]);

/// System V and POSIX queues, semaphores and shared memory.
#[rustfmt::skip]
const IPC: &[u16] = &rows([
    "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
    "semctl", "semget", "semop", "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt",
    "shmget",
]);

/// Waiting for descriptors: poll, epoll, inotify, asynchronous I/O.
#[rustfmt::skip]
const WAITING: &[u16] = &rows([
    "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
    "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select",
]);

/// Memory.
#[rustfmt::skip]
const MEMORY: &[u16] = &rows([
    "brk", "cachestat", "madvise", "map_shadow_stack", "membarrier", "memfd_create",
    "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect",
    "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "process_mrelease", "remap_file_pages",
]);

/// Processes and threads.
#[rustfmt::skip]
const PROCESSES: &[u16] = &rows([
    "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue",
    "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list",
    "get_thread_area", "getpgid", "getpgrp", "getpid", "getppid", "getrandom", "getsid",
    "gettid", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
    "pidfd_open", "prctl", "rseq", "seccomp", "set_robust_list", "set_thread_area",
    "set_tid_address", "setpgid", "setsid", "sysinfo", "umask", "uname", "uretprobe", "vfork",
    "wait4", "waitid", "waitpid",
]);

/// Extended attributes.
#[rustfmt::skip]
const ATTRIBUTES: &[u16] = &rows([
    "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat",
    "lgetxattr", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lsetxattr",
    "removexattr", "removexattrat", "setxattr", "setxattrat",
]);

/// Files: descriptors, contents, names, ownership.
#[rustfmt::skip]
const FILES: &[u16] = &rows([
    "_llseek", "access", "chdir", "chmod", "chown", "chown32", "close", "close_range",
    "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64",
    "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "flock", "fstat", "fstat64",
    "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futimesat",
    "getcwd", "getdents", "getdents64", "ioctl", "lchown", "lchown32", "link", "linkat",
    "listmount", "lseek", "lstat", "lstat64", "mkdir", "mkdirat", "mknod", "mknodat",
    "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "pipe", "pipe2", "pread64",
    "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "sendfile", "sendfile64",
    "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "unlink",
    "unlinkat", "utime", "utimensat", "utimensat_time64", "utimes", "vmsplice", "write",
    "writev",
]);

/// The whole profile. Order matters only among rules with conditions.
const GROUPS: &[Group] = &[
    allow(When::Always, SIGNALS),
    allow(When::Always, IDENTITY),
    allow(When::Always, SCHEDULING),
    allow(When::Always, TIME),
    allow(When::Always, SOCKETS),
    allow(When::Always, IPC),
    allow(When::Always, WAITING),
    allow(When::Always, MEMORY),
    allow(When::Always, PROCESSES),
    allow(When::Always, ATTRIBUTES),
    allow(When::Always, FILES),
    // Before Linux 4.8 a tracer could step around a filter; this program needs a newer one.
    allow(
        When::Always,
        &rows(["process_vm_readv", "process_vm_writev", "ptrace"]),
    ),
    allow_if(
        When::Always,
        &rows(["socket"]),
        &[first(Test::Less(AF_ALG))],
    ),
    allow_if(
        When::Always,
        &rows(["socket"]),
        &[first(Test::Equal(AF_ALG + 1))],
    ),
    allow_if(
        When::Always,
        &rows(["socket"]),
        &[first(Test::Greater(AF_VSOCK))],
    ),
    allow_if(
        When::Always,
        &rows(["personality"]),
        &[first(Test::Equal(PER_LINUX))],
    ),
    allow_if(
        When::Always,
        &rows(["personality"]),
        &[first(Test::Equal(PER_LINUX32))],
    ),
    allow_if(
        When::Always,
        &rows(["personality"]),
        &[first(Test::Equal(UNAME26))],
    ),
    allow_if(
        When::Always,
        &rows(["personality"]),
        &[first(Test::Equal(UNAME26 | PER_LINUX32))],
    ),
    allow_if(
        When::Always,
        &rows(["personality"]),
        &[first(Test::Equal(PER_ASK))],
    ),
    allow(
        When::OnArm,
        &rows([
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ]),
    ),
    allow(When::OnX86_64, &rows(["arch_prctl"])),
    allow(When::OnX86, &rows(["modify_ldt"])),
    allow(
        When::With(capability::DAC_READ_SEARCH),
        &rows(["open_by_handle_at"]),
    ),
    allow(
        When::With(capability::SYS_ADMIN),
        &rows([
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ]),
    ),
    allow_if(
        When::Without(capability::SYS_ADMIN),
        &rows(["clone"]),
        &[first(Test::MaskedEqual {
            mask: NAMESPACE_FLAGS,
            value: 0,
        })],
    ),
    // Its flags are in memory, out of a filter's sight; libraries fall back to clone.
    Group {
        when: When::Without(capability::SYS_ADMIN),
        rows: &rows(["clone3"]),
        action: Action::ENOSYS,
        conditions: &[],
    },
    allow(When::With(capability::SYS_BOOT), &rows(["reboot"])),
    allow(When::With(capability::SYS_CHROOT), &rows(["chroot"])),
    allow(
        When::With(capability::SYS_MODULE),
        &rows(["delete_module", "init_module", "finit_module"]),
    ),
    allow(When::With(capability::SYS_PACCT), &rows(["acct"])),
    allow(
        When::With(capability::SYS_PTRACE),
        &rows(["kcmp", "pidfd_getfd", "process_madvise"]),
    ),
    allow(When::With(capability::SYS_RAWIO), &rows(["iopl", "ioperm"])),
    allow(
        When::With(capability::SYS_TIME),
        &rows(["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ),
    allow(When::With(capability::SYS_TTY_CONFIG), &rows(["vhangup"])),
    allow(
        When::With(capability::SYS_NICE),
        &rows([
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ]),
    ),
    allow(When::With(capability::SYSLOG), &rows(["syslog"])),
    allow(When::With(capability::BPF), &rows(["bpf"])),
    allow(When::With(capability::PERFMON), &rows(["perf_event_open"])),
];

/// The built-in profile's filter for a container that holds `capabilities` (its bounding set)
/// on a machine of architecture `arch`: an array of `struct sock_filter`.
///
/// Load it with [`DEFAULT_FLAGS`](super::DEFAULT_FLAGS).
///
/// ```
/// use runtime_native::{capability, seccomp};
///
/// let filter = seccomp::default_profile(capability::DEFAULT, seccomp::Arch::X86_64);
/// assert!(filter.len() < 500 * 8);
/// ```
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "the tests compile it for each capability"
)]
pub fn default_profile(capabilities: u64, arch: Arch) -> Vec<u8> {
    let mut rules = Vec::with_capacity(512);
    for group in groups(capabilities, arch) {
        let (action, conditions) = (group.action, group.conditions);
        rules.extend(group.rows.iter().map(|&row| Rule {
            row,
            action,
            conditions,
        }));
    }
    let policy = Policy {
        default: Action::errno(EPERM),
        newer_calls: NewerCalls::NotImplemented,
        arches: arch.family(),
        rules,
    };
    compile::compile(&policy).expect("the built-in profile has a tenth of the kernel's limit")
}

/// The built-in profile in the form of a runtime specification, for a bundle's `config.json`.
///
/// It compiles to what [`default_profile`] returns.
#[must_use]
pub fn default_spec(capabilities: u64, arch: Arch) -> LinuxSeccomp {
    let mut spec = LinuxSeccomp::default();
    spec.set_default_action(LinuxSeccompAction::ScmpActErrno);
    spec.set_default_errno_ret(Some(u32::from(EPERM)));
    spec.set_architectures(Some(
        arch.family().iter().map(|arch| arch.to_spec()).collect(),
    ));
    spec.set_syscalls(Some(groups(capabilities, arch).map(group_spec).collect()));
    spec
}

fn groups(capabilities: u64, arch: Arch) -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().filter(move |group| match group.when {
        When::Always => true,
        When::With(capability) => capabilities & capability != 0,
        When::Without(capability) => capabilities & capability == 0,
        When::OnX86 => matches!(arch, Arch::X86_64 | Arch::X32 | Arch::X86),
        When::OnX86_64 => matches!(arch, Arch::X86_64 | Arch::X32),
        When::OnArm => matches!(arch, Arch::Aarch64 | Arch::Arm),
    })
}

fn group_spec(group: &Group) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(
        group
            .rows
            .iter()
            .map(|&row| calls::call(row).name.to_owned())
            .collect(),
    );
    if group.action == Action::ENOSYS {
        rule.set_action(LinuxSeccompAction::ScmpActErrno);
        rule.set_errno_ret(Some(group.action.0 & 0xffff));
    } else {
        rule.set_action(LinuxSeccompAction::ScmpActAllow);
    }
    if !group.conditions.is_empty() {
        rule.set_args(Some(group.conditions.iter().map(argument_spec).collect()));
    }
    rule
}

fn argument_spec(condition: &Condition) -> LinuxSeccompArg {
    let (op, value, second) = match condition.test {
        Test::Equal(value) => (LinuxSeccompOperator::ScmpCmpEq, value, None),
        Test::NotEqual(value) => (LinuxSeccompOperator::ScmpCmpNe, value, None),
        Test::Less(value) => (LinuxSeccompOperator::ScmpCmpLt, value, None),
        Test::LessOrEqual(value) => (LinuxSeccompOperator::ScmpCmpLe, value, None),
        Test::Greater(value) => (LinuxSeccompOperator::ScmpCmpGt, value, None),
        Test::GreaterOrEqual(value) => (LinuxSeccompOperator::ScmpCmpGe, value, None),
        Test::MaskedEqual { mask, value } => {
            (LinuxSeccompOperator::ScmpCmpMaskedEq, mask, Some(value))
        }
    };
    oci::argument(usize::from(condition.argument), op, value, second)
}

const fn allow(when: When, rows: &'static [u16]) -> Group {
    allow_if(when, rows, &[])
}

const fn allow_if(when: When, rows: &'static [u16], conditions: &'static [Condition]) -> Group {
    Group {
        when,
        rows,
        action: Action::ALLOW,
        conditions,
    }
}

const fn first(test: Test) -> Condition {
    Condition { argument: 0, test }
}

/// Looks names up while this program is compiled.
const fn rows<const N: usize>(names: [&str; N]) -> [u16; N] {
    let mut rows = [0; N];
    let mut at = 0;
    while at < N {
        rows[at] = match calls::find(names[at]) {
            Some(row) => row,
            None => panic!("a call of the built-in profile is not in the table"),
        };
        at += 1;
    }
    rows
}
