//! The second seccomp filter: what the wasm host may still call when the guest's code is loaded.
//!
//! It stands behind the container's own filter; the kernel takes the stricter answer of both. It is
//! a list of calls that WASI needs, in a plain chain of comparisons: the kernel remembers which
//! calls are always allowed and does not run the filter for them (seccomp(2), Linux 5.11).

use libc::c_long;

/// Which sockets may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None at all.
    None,
    /// IPv4 and IPv6.
    Internet,
}

/// `linux/audit.h`: `AUDIT_ARCH_*` of the machine that this is built for.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

// Instructions of classic BPF (`linux/bpf_common.h`).
const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

// Answers (`linux/seccomp.h`).
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0000 | 1;
const ENOSYS: u32 = 0x0005_0000 | 38;

// Offsets in `struct seccomp_data`; arguments are 64 bits, the lower half first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Memory, files, time and threads.
#[rustfmt::skip]
const CALLS: &[c_long] = &[
    // Files that are open.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_close, libc::SYS_lseek, libc::SYS_fstat, libc::SYS_fcntl, libc::SYS_dup, libc::SYS_fsync,
    libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64,
    libc::SYS_getdents64, libc::SYS_sendfile, libc::SYS_copy_file_range, libc::SYS_pipe2,
    // Files by their names.
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_newfstatat, libc::SYS_statx,
    libc::SYS_readlinkat, libc::SYS_unlinkat, libc::SYS_mkdirat, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_linkat, libc::SYS_symlinkat, libc::SYS_utimensat,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_getcwd,
    // Memory, except what is executable.
    libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_membarrier,
    // Waiting.
    libc::SYS_ppoll, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_socketpair, libc::SYS_futex,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_restart_syscall,
    libc::SYS_signalfd4,
    // Time and chance.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_gettimeofday, libc::SYS_getrandom,
    // This process and its threads.
    libc::SYS_getpid, libc::SYS_gettid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getegid, libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_prlimit64,
    libc::SYS_tgkill, libc::SYS_exit, libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
];

/// What only older machines' numbering has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLDER_CALLS: &[c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_access,
    libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_time,
];
#[cfg(target_arch = "aarch64")]
const OLDER_CALLS: &[c_long] = &[];

/// Sockets, besides `socket` itself.
#[rustfmt::skip]
const SOCKET_CALLS: &[c_long] = &[
    libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect,
    libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_recvmmsg, libc::SYS_sendto,
    libc::SYS_sendmsg, libc::SYS_sendmmsg, libc::SYS_setsockopt, libc::SYS_getsockopt,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_shutdown,
];

/// What nothing of WASI leads to: whoever calls one of these is no guest in its sandbox, and ends.
#[rustfmt::skip]
const FATAL: &[c_long] = &[
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root,
    libc::SYS_chroot, libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen,
    libc::SYS_mount_setattr, libc::SYS_setns, libc::SYS_unshare, libc::SYS_bpf,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_userfaultfd, libc::SYS_perf_event_open, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_kexec_load, libc::SYS_keyctl, libc::SYS_add_key,
    libc::SYS_request_key, libc::SYS_memfd_create, libc::SYS_pidfd_getfd,
];

/// `PROT_EXEC`.
const EXECUTABLE: u32 = 4;
/// `CLONE_THREAD`.
const THREAD: u32 = 0x0001_0000;
/// `PR_SET_NAME`, and the name of a mapping.
const PRCTL: [u32; 2] = [15, 0x5356_4d41];
/// `TCGETS`, `TCGETS2`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIOCLEX`, and `PAGEMAP_SCAN` of procfs.
const IOCTL: [u32; 7] = [
    0x5401,
    0x802c_542a,
    0x5413,
    0x541b,
    0x5421,
    0x5451,
    0xc060_6610,
];
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u32; 2] = [2, 10];

/// The filter as the kernel takes it: `struct sock_filter` after `struct sock_filter`.
#[must_use]
pub fn program(sockets: Sockets) -> Vec<u8> {
    let mut code = Code(Vec::new());
    code.push(LOAD_WORD, 0, 0, ARCHITECTURE);
    code.push(JUMP_EQUAL, 1, 0, ARCH);
    code.push(RETURN, 0, 0, KILL_PROCESS);
    code.push(LOAD_WORD, 0, 0, NUMBER);
    for call in CALLS.iter().chain(OLDER_CALLS) {
        code.answer(*call, ALLOW);
    }
    if sockets == Sockets::Internet {
        for call in SOCKET_CALLS {
            code.answer(*call, ALLOW);
        }
        code.if_one_of(libc::SYS_socket, 0, &FAMILIES);
    }
    for call in FATAL {
        code.answer(*call, KILL_PROCESS);
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        code.unless_bits(call, 2, EXECUTABLE, EPERM);
    }
    // Its flags lie in memory, where they cannot be seen; the C library then uses `clone`.
    code.answer(libc::SYS_clone3, ENOSYS);
    code.if_bits(libc::SYS_clone, 0, THREAD);
    code.if_one_of(libc::SYS_prctl, 0, &PRCTL);
    code.if_one_of(libc::SYS_ioctl, 1, &IOCTL);
    code.push(RETURN, 0, 0, EPERM);
    code.0
}

/// Instructions, encoded.
struct Code(Vec<u8>);

impl Code {
    fn push(&mut self, operation: u16, if_true: u8, if_false: u8, value: u32) {
        self.0.extend(operation.to_ne_bytes());
        self.0.extend([if_true, if_false]);
        self.0.extend(value.to_ne_bytes());
    }

    fn skip_unless(&mut self, call: c_long, instructions: u8) {
        // Numbers of calls are small and positive.
        let number = u32::try_from(call).unwrap_or(u32::MAX);
        self.push(JUMP_EQUAL, 0, instructions, number);
    }

    fn answer(&mut self, call: c_long, answer: u32) {
        self.skip_unless(call, 1);
        self.push(RETURN, 0, 0, answer);
    }

    /// Loads the lower half of an argument: flags and options are 32 bits.
    fn load_argument(&mut self, argument: u32) {
        self.push(LOAD_WORD, 0, 0, ARGUMENTS + 8 * argument);
    }

    /// Answers with `answer` when one of `bits` is set in the argument, and allows the rest.
    fn unless_bits(&mut self, call: c_long, argument: u32, bits: u32, answer: u32) {
        self.skip_unless(call, 4);
        self.load_argument(argument);
        self.push(JUMP_BITS, 0, 1, bits);
        self.push(RETURN, 0, 0, answer);
        self.push(RETURN, 0, 0, ALLOW);
    }

    /// Allows a call when one of `bits` is set in the argument.
    fn if_bits(&mut self, call: c_long, argument: u32, bits: u32) {
        self.skip_unless(call, 4);
        self.load_argument(argument);
        self.push(JUMP_BITS, 0, 1, bits);
        self.push(RETURN, 0, 0, ALLOW);
        self.push(RETURN, 0, 0, EPERM);
    }

    /// Allows a call when the argument is one of `values`.
    fn if_one_of(&mut self, call: c_long, argument: u32, values: &[u32]) {
        let length = u8::try_from(values.len() * 2 + 2).unwrap_or(u8::MAX);
        self.skip_unless(call, length);
        self.load_argument(argument);
        for value in values {
            self.push(JUMP_EQUAL, 0, 1, *value);
            self.push(RETURN, 0, 0, ALLOW);
        }
        self.push(RETURN, 0, 0, EPERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_fatal() {
        let allowed: Vec<_> = [CALLS, OLDER_CALLS, SOCKET_CALLS].concat();
        assert!(FATAL.iter().all(|call| !allowed.contains(call)));
    }

    #[test]
    fn program_is_within_the_kernel_s_limit() {
        // `BPF_MAXINSNS`.
        let size = program(Sockets::Internet).len();
        assert!(size.is_multiple_of(8) && size / 8 < 4096);
        assert!(program(Sockets::None).len() < size);
    }
}
