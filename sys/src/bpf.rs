//! Programs of the kernel's virtual machine that decide which devices a v2 control group may use:
//! `bpf(2)` (`linux/bpf.h`, `BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const PROG_TYPE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_TYPE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: all programs of a group have to agree, and those of groups below it.
const ALLOW_MULTI: u32 = 2;
/// The size of `struct bpf_insn`.
const INSTRUCTION: usize = 8;
/// The most programs that the kernel takes for one group (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: u32 = 64;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part that `BPF_PROG_ATTACH` and `BPF_PROG_DETACH` read.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// The part that `BPF_PROG_QUERY` reads and writes.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The part that `BPF_PROG_GET_FD_BY_ID` reads.
#[repr(C)]
struct ById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a device filter: `struct bpf_insn` after `struct bpf_insn`.
///
/// # Errors
/// As `bpf(2)`: `EPERM` without `CAP_SYS_ADMIN` in the first user namespace, `EINVAL` when the
/// kernel's verifier refuses the program.
pub fn load_device_filter(program: &[u8]) -> io::Result<OwnedFd> {
    // The kernel reads instructions where they may not be aligned as bytes are.
    let words: Vec<u64> = program
        .chunks_exact(INSTRUCTION)
        .map(|chunk| {
            let mut bytes = [0; INSTRUCTION];
            bytes.copy_from_slice(chunk);
            u64::from_ne_bytes(bytes)
        })
        .collect();
    let mut attributes = Load {
        prog_type: PROG_TYPE,
        insn_cnt: u32::try_from(words.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: words.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: `words` and the licence live over the call, and `insn_cnt` counts `words`; there is no
    // log buffer. The kernel copies both and writes nothing.
    let fd = unsafe { bpf(PROG_LOAD, &mut attributes)? };
    // SAFETY: BPF_PROG_LOAD returned a new close-on-exec descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a filter to a group and detaches those that were there before. The new one is in force
/// before the old ones are gone, so nothing is allowed meanwhile that either denies.
///
/// # Errors
/// As `bpf(2)`.
pub fn replace_device_filter(group: BorrowedFd<'_>, filter: BorrowedFd<'_>) -> io::Result<()> {
    let before = attached(group)?;
    change(PROG_ATTACH, group, filter, ALLOW_MULTI)?;
    for id in before {
        let old = open(id)?;
        change(PROG_DETACH, group, borrow(&old), 0)?;
    }
    Ok(())
}

fn borrow(fd: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(fd)
}

fn change(
    command: libc::c_int,
    group: BorrowedFd<'_>,
    filter: BorrowedFd<'_>,
    flags: u32,
) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: number(group)?,
        attach_bpf_fd: number(filter)?,
        attach_type: ATTACH_TYPE,
        attach_flags: flags,
    };
    // SAFETY: both descriptors are open over the call; the structure holds no pointer.
    unsafe { bpf(command, &mut attributes)? };
    Ok(())
}

/// The ids of the filters that are attached to a group itself.
fn attached(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; MAX_PROGRAMS as usize];
    let mut attributes = Query {
        target_fd: number(group)?,
        attach_type: ATTACH_TYPE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().addr() as u64,
        prog_cnt: MAX_PROGRAMS,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `prog_cnt` numbers to `prog_ids`, which has room for them
    // and lives over the call.
    unsafe { bpf(PROG_QUERY, &mut attributes)? };
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

fn open(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = ById {
        prog_id: id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: the structure holds no pointer.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes)? };
    // SAFETY: BPF_PROG_GET_FD_BY_ID returned a new close-on-exec descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The system call.
///
/// # Safety
/// `attributes` is the part of `union bpf_attr` that `command` uses, and every pointer in it is
/// valid for what the command reads and writes there.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the pointers inside; the size is that of the structure, and the
    // kernel takes what is missing of the union as zero (bpf(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}
