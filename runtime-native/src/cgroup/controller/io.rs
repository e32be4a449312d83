//! Block devices: `blkio` of v1, `io` of v2.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use crate::cgroup::group::Group;
use crate::cgroup::hierarchy::Hierarchy;
use crate::cgroup::limits::{Limits, not_in};
use crate::cgroup::read;
use crate::plan::PlanError;

const WEIGHT: &str = "linux.resources.blockIO.weight (--blkio-weight)";
const LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice (--blkio-weight-device)";

/// What a group has read and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Each device that it used.
    pub devices: Vec<IoDeviceStats>,
}

/// What a group has read from and written to one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoDeviceStats {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

/// One of the four kinds of throttle.
struct Throttle<'a> {
    devices: Option<&'a Vec<LinuxThrottleDevice>>,
    legacy_file: &'static str,
    unified_key: &'static str,
    option: &'static str,
}

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    let throttle = |devices, legacy_file, unified_key, option| Throttle {
        devices,
        legacy_file,
        unified_key,
        option,
    };
    [
        throttle(
            io.throttle_read_bps_device().as_ref(),
            "blkio.throttle.read_bps_device",
            "rbps",
            "linux.resources.blockIO.throttleReadBpsDevice (--device-read-bps)",
        ),
        throttle(
            io.throttle_write_bps_device().as_ref(),
            "blkio.throttle.write_bps_device",
            "wbps",
            "linux.resources.blockIO.throttleWriteBpsDevice (--device-write-bps)",
        ),
        throttle(
            io.throttle_read_iops_device().as_ref(),
            "blkio.throttle.read_iops_device",
            "riops",
            "linux.resources.blockIO.throttleReadIOPSDevice (--device-read-iops)",
        ),
        throttle(
            io.throttle_write_iops_device().as_ref(),
            "blkio.throttle.write_iops_device",
            "wiops",
            "linux.resources.blockIO.throttleWriteIOPSDevice (--device-write-iops)",
        ),
    ]
}

pub(super) fn legacy(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(io) = resources.block_io() else {
        return Ok(());
    };
    // Which scheduler has weights depends on the kernel: BFQ since 5.0, CFQ before.
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        let weight = weight.to_string();
        let files = [
            ("blkio.bfq.weight", weight.clone()),
            ("blkio.weight", weight),
        ];
        out.set_first(files, WEIGHT)?;
    }
    if let Some(weight) = io.leaf_weight().filter(|&weight| weight != 0) {
        out.set("blkio.leaf_weight", weight, LEAF_WEIGHT)?;
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let line = format!("{number} {weight}");
            let files = [
                ("blkio.bfq.weight_device", line.clone()),
                ("blkio.weight_device", line),
            ];
            out.set_first(files, WEIGHT_DEVICE)?;
        }
        if let Some(weight) = device.leaf_weight() {
            let line = format!("{number} {weight}");
            out.set("blkio.leaf_weight_device", line, LEAF_WEIGHT)?;
        }
    }
    for throttle in throttles(io) {
        for device in throttle.devices.into_iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            out.set(throttle.legacy_file, line, throttle.option)?;
        }
    }
    Ok(())
}

pub(super) fn unified(resources: &LinuxResources, out: &mut Limits<'_>) -> Result<(), PlanError> {
    let Some(io) = resources.block_io() else {
        return Ok(());
    };
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        let files = [
            ("io.bfq.weight", weight.to_string()),
            ("io.weight", unified_weight(weight).to_string()),
        ];
        out.set_first(files, WEIGHT)?;
    }
    if io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(not_in("cgroup v2", LEAF_WEIGHT));
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if device.leaf_weight().is_some() {
            return Err(not_in("cgroup v2", LEAF_WEIGHT));
        }
        if let Some(weight) = device.weight() {
            let files = [
                ("io.bfq.weight", format!("{number} {weight}")),
                ("io.weight", format!("{number} {}", unified_weight(weight))),
            ];
            out.set_first(files, WEIGHT_DEVICE)?;
        }
    }
    for throttle in throttles(io) {
        for device in throttle.devices.into_iter().flatten() {
            // A rate of 0 takes the limit away, as in v1.
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let (major, minor) = (device.major(), device.minor());
            let line = format!("{major}:{minor} {}={rate}", throttle.unified_key);
            out.set("io.max", line, throttle.option)?;
        }
    }
    Ok(())
}

/// A weight of v1 (10 to 1000) on v2's scale (1 to 10000), linear as the runtimes agreed.
pub(crate) fn unified_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

/// What the group has read and written; none without the controller.
pub(in crate::cgroup) fn stats(group: &Group) -> io::Result<Option<IoStats>> {
    match group.hierarchy() {
        Hierarchy::None => Ok(None),
        Hierarchy::Legacy { .. } => legacy_stats(group),
        Hierarchy::Unified { .. } => match group.file("io.stat") {
            Some(file) => Ok(read::text(&file)?.map(|text| unified_devices(&text))),
            None => Ok(None),
        },
    }
}

fn legacy_stats(group: &Group) -> io::Result<Option<IoStats>> {
    let Some(dir) = group.file("blkio.throttle") else {
        return Ok(None);
    };
    let read = |name: &str| -> io::Result<String> {
        let recursive = dir.with_file_name(format!("{name}_recursive"));
        let file = if recursive.exists() {
            recursive
        } else {
            dir.with_file_name(name)
        };
        Ok(read::text(Path::new(&file))?.unwrap_or_default())
    };
    let bytes = read("blkio.throttle.io_service_bytes")?;
    let operations = read("blkio.throttle.io_serviced")?;
    Ok(Some(legacy_devices(&bytes, &operations)))
}

fn legacy_devices(bytes: &str, operations: &str) -> IoStats {
    let mut devices = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        // `8:0 Read 4096`; the last line is a total without a device.
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let number = words.next().and_then(device_number);
            let (Some(number), Some(kind), Some(value)) = (number, words.next(), words.next())
            else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            let device = entry(&mut devices, number);
            match (kind, is_bytes) {
                ("Read", true) => device.read_bytes = value,
                ("Write", true) => device.write_bytes = value,
                ("Read", false) => device.reads = value,
                ("Write", false) => device.writes = value,
                _ => {}
            }
        }
    }
    IoStats {
        devices: devices.into_values().collect(),
    }
}

fn unified_devices(text: &str) -> IoStats {
    let mut devices = BTreeMap::new();
    for (name, values) in read::nested(text) {
        let Some(number) = device_number(name) else {
            continue;
        };
        let value = |key| {
            let value = values.get(key);
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let device = entry(&mut devices, number);
        device.read_bytes = value("rbytes");
        device.write_bytes = value("wbytes");
        device.reads = value("rios");
        device.writes = value("wios");
    }
    IoStats {
        devices: devices.into_values().collect(),
    }
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn entry(
    devices: &mut BTreeMap<(u32, u32), IoDeviceStats>,
    (major, minor): (u32, u32),
) -> &mut IoDeviceStats {
    devices
        .entry((major, minor))
        .or_insert_with(|| IoDeviceStats {
            major,
            minor,
            ..IoDeviceStats::default()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: IoDeviceStats = IoDeviceStats {
        major: 254,
        minor: 0,
        read_bytes: 8192,
        write_bytes: 4096,
        reads: 2,
        writes: 1,
    };

    #[test]
    fn stats_of_both_versions_say_the_same() {
        let unified = "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n";
        assert_eq!(unified_devices(unified).devices, [EXPECTED]);
        let bytes = "254:0 Read 8192\n254:0 Write 4096\n254:0 Discard 0\nTotal 12288\n";
        let operations = "254:0 Read 2\n254:0 Write 1\nTotal 3\n";
        assert_eq!(legacy_devices(bytes, operations).devices, [EXPECTED]);
    }

    #[test]
    fn weight_covers_the_range() {
        let ends = (unified_weight(10), unified_weight(1000), unified_weight(1));
        assert_eq!(ends, (1, 10_000, 1));
    }
}
