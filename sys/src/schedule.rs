//! How the kernel treats a process: scheduling policy, I/O priority, CPUs, execution domain. All of
//! it is inherited over `execve(2)`, and nothing here uses the heap.

use rustix::io::Errno;

/// `struct sched_attr` without its size and its utilisation clamps (`linux/sched/types.h`, first
/// version).
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedulerAttributes {
    /// `SCHED_*` of `linux/sched.h`.
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

/// The attributes as the kernel reads them.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the scheduling policy of this thread (sched_setattr(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, `EINVAL` for values that do not go together.
pub fn set_scheduler(attributes: SchedulerAttributes) -> Result<(), Errno> {
    let attributes = SchedAttr {
        size: 48,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    };
    // SAFETY: the kernel reads `size` bytes of `attributes`, which lives over the call and is that
    // long; 0 is this thread and no flags are defined (sched_setattr(2)).
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    check(result)
}

/// Sets the I/O priority of this thread: class in the upper three of 16 bits, level in the lower 13
/// (ioprio_set(2)).
///
/// # Errors
/// `EPERM` for a class that this user may not have, `EINVAL` for one that does not exist.
pub fn set_io_priority(priority: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_set takes three integers; 0 is this thread.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            i32::from(priority),
        )
    };
    check(result)
}

/// The execution domain of this process (personality(2)).
///
/// # Errors
/// `EINVAL` when the kernel has no such domain.
pub fn set_personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: personality takes an integer.
    let result = unsafe { libc::syscall(libc::SYS_personality, domain) };
    check(result)
}

/// Lets this thread run on every CPU of its cpuset, whatever it has inherited.
pub fn reset_cpu_affinity() {
    // More than any kernel is built for; what does not exist is passed over.
    const ALL: [u8; 1024] = [0xff; 1024];
    // A machine that forbids the call keeps the caller's choice.
    let _kept = set_cpu_affinity(&ALL);
}

/// The CPUs that this thread may run on, bit n of byte n / 8 being CPU n (sched_setaffinity(2)).
///
/// # Errors
/// `EINVAL` when none of them is online or allowed by the cpuset.
pub fn set_cpu_affinity(mask: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `len` bytes of `mask`, which lives over the call; 0 is this thread.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
    check(result)
}

/// Where the memory of this thread, and of what it executes, comes from: `MPOL_*` with its flags, and
/// nodes, bit n of word n / 64 being node n (set_mempolicy(2)).
///
/// # Errors
/// `EINVAL` for a mode and nodes that do not go together, or nodes that are not there.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel reads one bit less than it is told.
    let bits = match nodes.len() {
        0 => 0,
        words => words * 64 + 1,
    };
    let mask = match nodes {
        [] => std::ptr::null(),
        nodes => nodes.as_ptr(),
    };
    // SAFETY: the kernel reads `bits` - 1 bits of `mask`, which lives over the call, or nothing.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(result)
}

fn check(result: libc::c_long) -> Result<(), Errno> {
    if result == -1 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_of_an_unknown_policy_is_refused() {
        let attributes = SchedulerAttributes {
            policy: 77,
            ..SchedulerAttributes::default()
        };
        assert_eq!(set_scheduler(attributes), Err(Errno::INVAL));
        assert_eq!(set_cpu_affinity(&[0]), Err(Errno::INVAL));
    }

    #[test]
    fn io_priority_of_the_best_effort_class_is_set() {
        set_io_priority(2 << 13 | 7).unwrap();
        assert_eq!(set_io_priority(7 << 13), Err(Errno::INVAL));
    }
}
