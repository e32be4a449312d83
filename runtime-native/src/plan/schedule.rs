//! How the kernel treats the program: scheduling policy, I/O priority, execution domain, CPUs
//! (runtime-spec v1.2 `config.md#linux-process`, `config-linux.md#personality`).

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Scheduler as Specified,
};
use runtime::{CpuAffinity, MemoryPolicy, Scheduler};

use super::PlanError;

/// CPUs that a list may name: as many as `CONFIG_NR_CPUS` allows on any machine.
const MAX_CPUS: usize = 8192;

/// Plans a scheduling policy.
pub(super) fn scheduler(specified: &Specified) -> Result<Scheduler, PlanError> {
    // `linux/sched.h`.
    let policy = match specified.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let priority = specified.priority().unwrap_or(0);
    Ok(Scheduler {
        policy,
        flags: specified.flags().iter().flatten().map(flag).sum(),
        nice: specified.nice().unwrap_or(0),
        priority: u32::try_from(priority).map_err(|_| PlanError::Unknown {
            field: "process.scheduler.priority",
            value: priority.to_string(),
        })?,
        runtime: specified.runtime().unwrap_or(0),
        deadline: specified.deadline().unwrap_or(0),
        period: specified.period().unwrap_or(0),
    })
}

/// Plans an I/O priority: class in the upper three bits, level below (ioprio_set(2)).
pub(super) fn io_priority(specified: &LinuxIOPriority) -> Result<u16, PlanError> {
    let class = match specified.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(specified.priority()).ok().filter(|l| *l <= 7);
    let level = level.ok_or_else(|| PlanError::Unknown {
        field: "process.ioPriority.priority",
        value: specified.priority().to_string(),
    })?;
    Ok(class << 13 | level)
}

/// Plans an execution domain (personality(2)). The specification knows no flag yet.
pub(super) fn personality(specified: &LinuxPersonality) -> Result<u64, PlanError> {
    if let Some(flag) = specified.flags().iter().flatten().next() {
        return Err(PlanError::Unknown {
            field: "linux.personality.flags",
            value: flag.clone(),
        });
    }
    Ok(match specified.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// Plans a NUMA memory policy (runtime-spec v1.3 `config-linux.md#memory-policy`).
pub(super) fn memory_policy(specified: &LinuxMemoryPolicy) -> Result<MemoryPolicy, PlanError> {
    // `linux/mempolicy.h`.
    let mode: u32 = match specified.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags = specified.flags().iter().flatten().map(flag);
    let list = specified.nodes().as_deref().unwrap_or_default().trim();
    let mask = match list {
        "" => Vec::new(),
        list => cpu_mask(list).ok_or_else(|| PlanError::Unknown {
            field: "linux.memoryPolicy.nodes",
            value: list.to_owned(),
        })?,
    };
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_le_bytes(word)
    };
    Ok(MemoryPolicy {
        mode: flags.fold(mode, |mode, flag| mode | flag),
        nodes: mask.chunks(8).map(word).collect(),
    })
}

/// Plans the CPUs of a further program.
pub(crate) fn affinity(specified: &ExecCPUAffinity) -> Result<CpuAffinity, PlanError> {
    let mask = |list: &Option<String>, field| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => cpu_mask(list).map(Some).ok_or_else(|| PlanError::Unknown {
            field,
            value: list.to_owned(),
        }),
    };
    Ok(CpuAffinity {
        initial: mask(specified.initial(), "process.execCPUAffinity.initial")?,
        last: mask(
            specified.cpu_affinity_final(),
            "process.execCPUAffinity.final",
        )?,
    })
}

/// The mask of a list like `0-3,7`.
pub(crate) fn cpu_mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        for cpu in first..=last {
            if mask.len() <= cpu / 8 {
                mask.resize(cpu / 8 + 1, 0);
            }
            *mask.get_mut(cpu / 8)? |= 1 << (cpu % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_mask_of_ranges_and_single_cpus() {
        assert_eq!(cpu_mask("0-2,9"), Some(vec![0b111, 0b10]));
        assert_eq!(cpu_mask("0, 1"), Some(vec![0b11]));
        for bad in ["", "a", "3-1", "-1", "0-99999", "1,"] {
            assert_eq!(cpu_mask(bad), None, "{bad}");
        }
    }
}
