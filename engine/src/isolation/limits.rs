//! Limits of the container's control group, checked as Docker checks them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder, Spec,
};

use super::apply::refused;
use super::options::{ResourceLimits, ThrottledDevice};
use crate::EngineError;
use crate::options::ContainerOptions;

/// Applies them.
pub(super) fn apply(options: &ContainerOptions, spec: &mut Spec) -> Result<(), EngineError> {
    let limits = &options.isolation.limits;
    let Some(resources) = spec
        .linux_mut()
        .as_mut()
        .and_then(|l| l.resources_mut().as_mut())
    else {
        return Ok(());
    };
    check_cpu(options, limits)?;
    let mut cpu = resources.cpu().clone().unwrap_or_default();
    if set_cpu(&mut cpu, limits) {
        resources.set_cpu(Some(cpu));
    }
    check_memory(options, limits)?;
    let mut memory = (*resources.memory()).unwrap_or_default();
    if set_memory(&mut memory, limits) {
        resources.set_memory(Some(memory));
    }
    let io = block_io(limits)?;
    if io != LinuxBlockIo::default() {
        resources.set_block_io(Some(io));
    }
    Ok(())
}

fn check_cpu(options: &ContainerOptions, limits: &ResourceLimits) -> Result<(), EngineError> {
    let both = options.nano_cpus.is_some();
    for (option, given) in [
        ("--cpu-period", limits.cpu_period_us.is_some()),
        ("--cpu-quota", limits.cpu_quota_us.is_some()),
    ] {
        if both && given {
            return Err(refused(option, "--cpus says the same in another way"));
        }
    }
    for (option, file, wanted) in [
        ("--cpuset-cpus", "cpu/online", &limits.cpuset_cpus),
        ("--cpuset-mems", "node/online", &limits.cpuset_mems),
    ] {
        let Some(wanted) = wanted else { continue };
        let named = format!("{option} `{wanted}`");
        let list = list(wanted).ok_or_else(|| refused(&named, "it is a list such as 0-3,7"))?;
        let path = format!("/sys/devices/system/{file}");
        let online = std::fs::read_to_string(path).unwrap_or_else(|_| "0".to_owned());
        let has = |id: &u32| ranges(&online).any(|(first, last)| (first..=last).contains(id));
        if !list.iter().all(has) {
            let why = format!("this host has {}", online.trim());
            return Err(refused(&named, &why));
        }
    }
    Ok(())
}

/// The ranges of a list as the kernel writes it (cpuset(7), "List format").
fn ranges(text: &str) -> impl Iterator<Item = (u32, u32)> {
    text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    })
}

/// The ids of a list that a user wrote; more than a machine can have are no list.
fn list(text: &str) -> Option<Vec<u32>> {
    const MOST: u32 = 8192;
    let mut ids = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        ids.extend(first..=last);
    }
    Some(ids)
}

fn set_cpu(cpu: &mut LinuxCpu, limits: &ResourceLimits) -> bool {
    let before = cpu.clone();
    if limits.cpu_shares.is_some() {
        cpu.set_shares(limits.cpu_shares);
    }
    if limits.cpu_period_us.is_some() {
        cpu.set_period(limits.cpu_period_us);
    }
    if limits.cpu_quota_us.is_some() {
        cpu.set_quota(limits.cpu_quota_us);
    }
    if limits.cpuset_cpus.is_some() {
        cpu.set_cpus(limits.cpuset_cpus.clone());
    }
    if limits.cpuset_mems.is_some() {
        cpu.set_mems(limits.cpuset_mems.clone());
    }
    *cpu != before
}

fn check_memory(options: &ContainerOptions, limits: &ResourceLimits) -> Result<(), EngineError> {
    if let Some(swap) = limits.memory_swap {
        match options.memory_bytes {
            // Without any limit there is none to be lifted.
            None if swap == -1 => {}
            None => {
                return Err(refused(
                    "--memory-swap",
                    "it is the sum of memory and swap, and no --memory is given",
                ));
            }
            Some(memory) if swap != -1 && swap < memory => {
                return Err(refused(
                    "--memory-swap",
                    "it is the sum of memory and swap, and less than --memory",
                ));
            }
            Some(_) => {}
        }
    }
    match (options.memory_bytes, limits.memory_reservation) {
        (Some(memory), Some(reservation)) if reservation > memory => {
            Err(refused("--memory-reservation", "it is more than --memory"))
        }
        _ => Ok(()),
    }
}

fn set_memory(memory: &mut LinuxMemory, limits: &ResourceLimits) -> bool {
    let before = *memory;
    if limits.memory_swap.is_some() {
        memory.set_swap(limits.memory_swap);
    }
    if limits.memory_reservation.is_some() {
        memory.set_reservation(limits.memory_reservation);
    }
    if limits.memory_swappiness.is_some() {
        memory.set_swappiness(limits.memory_swappiness);
    }
    *memory != before
}

fn block_io(limits: &ResourceLimits) -> Result<LinuxBlockIo, EngineError> {
    let mut io = LinuxBlockIo::default();
    if limits.blkio_weight.is_some() {
        io.set_weight(limits.blkio_weight);
    }
    let mut weights = Vec::new();
    for device in &limits.blkio_weight_device {
        let (major, minor) = number("--blkio-weight-device", device)?;
        let mut weight = LinuxWeightDeviceBuilder::default()
            .major(major)
            .minor(minor);
        if let Ok(value) = u16::try_from(device.rate) {
            weight = weight.weight(value);
        }
        let weight = weight
            .build()
            .map_err(|error| refused("--blkio-weight-device", &error.to_string()))?;
        weights.push(weight);
    }
    if !weights.is_empty() {
        io.set_weight_device(Some(weights));
    }
    let throttle = |option: &str, devices: &[ThrottledDevice]| {
        let one = |device: &ThrottledDevice| {
            let (major, minor) = number(option, device)?;
            LinuxThrottleDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .rate(device.rate)
                .build()
                .map_err(|error| refused(option, &error.to_string()))
        };
        let all: Vec<_> = devices
            .iter()
            .map(one)
            .collect::<Result<_, EngineError>>()?;
        Ok::<_, EngineError>((!all.is_empty()).then_some(all))
    };
    io.set_throttle_read_bps_device(throttle("--device-read-bps", &limits.read_bps)?);
    io.set_throttle_write_bps_device(throttle("--device-write-bps", &limits.write_bps)?);
    io.set_throttle_read_iops_device(throttle("--device-read-iops", &limits.read_iops)?);
    io.set_throttle_write_iops_device(throttle("--device-write-iops", &limits.write_iops)?);
    Ok(io)
}

/// The number of a block device.
fn number(option: &str, device: &ThrottledDevice) -> Result<(i64, i64), EngineError> {
    let named = format!("{option} `{}`", device.path.display());
    let metadata =
        std::fs::metadata(&device.path).map_err(|error| refused(&named, &error.to_string()))?;
    if !metadata.file_type().is_block_device() {
        return Err(refused(&named, "it is not a block device"));
    }
    let number = metadata.rdev();
    let part = |value: u32| i64::from(value);
    Ok((
        part(rustix::fs::major(number)),
        part(rustix::fs::minor(number)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_the_user_is_strict() {
        assert_eq!(list("0-2,7").unwrap(), [0, 1, 2, 7]);
        for bad in ["", "a", "3-1", "0-", "1,,2", "0-99999"] {
            assert_eq!(list(bad), None, "{bad}");
        }
    }

    #[test]
    fn swap_without_memory_is_refused() {
        let limits = ResourceLimits {
            memory_swap: Some(1 << 30),
            ..ResourceLimits::default()
        };
        let options = ContainerOptions::default();
        assert!(check_memory(&options, &limits).is_err());
        let less = ContainerOptions {
            memory_bytes: Some(2 << 30),
            ..options
        };
        assert!(check_memory(&less, &limits).is_err());
    }
}
