//! Limits of a container: `Resources` to the engine's limits, in Docker's ranges and words.

use std::ops::RangeInclusive;

use engine::{ResourceLimits, ThrottledDevice, Ulimit};
use oci_spec::runtime::PosixRlimitType;

use crate::error::ApiError;
use crate::wire::host_config::{self, Resources, ThrottleDevice, WeightDevice, given, text};

const PERIODS: RangeInclusive<i64> = 1_000..=1_000_000;
const LEAST_QUOTA: i64 = 1_000;
const WEIGHTS: RangeInclusive<u16> = 10..=1_000;
const SHARES: RangeInclusive<i64> = 2..=262_144;

/// The limits besides memory, processors and processes.
pub(super) fn limits(resources: &Resources) -> Result<ResourceLimits, ApiError> {
    let quota = given(resources.cpu_quota);
    if quota.is_some_and(|quota| quota > 0 && quota < LEAST_QUOTA) {
        return Err(ApiError::bad(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    let period = given(resources.cpu_period);
    if period.is_some_and(|period| !PERIODS.contains(&period)) {
        return Err(ApiError::bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    let shares = given(resources.cpu_shares);
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        return Err(ApiError::bad(format!(
            "invalid CPU shares ({shares}): value must be a positive integer"
        )));
    }
    // The kernel's range; Docker's daemon leaves the rounding to it.
    let shares = shares.map(|shares| shares.clamp(*SHARES.start(), *SHARES.end()));
    if !matches!(resources.blkio_weight, 0) && !WEIGHTS.contains(&resources.blkio_weight) {
        return Err(ApiError::bad("Range of blkio weight is from 10 to 1000"));
    }
    let positive = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(ResourceLimits {
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        cpu_shares: positive(shares),
        cpu_period_us: positive(period),
        cpu_quota_us: quota,
        memory_reservation: given(resources.memory_reservation),
        memory_swap: given(resources.memory_swap),
        memory_swappiness: swappiness(resources)?,
        blkio_weight: (resources.blkio_weight != 0).then_some(resources.blkio_weight),
        blkio_weight_device: weights(&resources.blkio_weight_device)?,
        read_bps: rates(&resources.blkio_device_read_bps),
        write_bps: rates(&resources.blkio_device_write_bps),
        read_iops: rates(&resources.blkio_device_read_iops),
        write_iops: rates(&resources.blkio_device_write_iops),
    })
}

/// The command line writes -1 for what it was not given.
fn swappiness(resources: &Resources) -> Result<Option<u64>, ApiError> {
    let Some(value) = resources.memory_swappiness.filter(|value| *value != -1) else {
        return Ok(None);
    };
    let value = u64::try_from(value).ok().filter(|value| *value <= 100);
    value.map(Some).ok_or_else(|| {
        ApiError::bad(format!(
            "invalid value: {}, valid memory swappiness range is 0-100",
            resources.memory_swappiness.unwrap_or_default()
        ))
    })
}

fn weights(devices: &[WeightDevice]) -> Result<Vec<ThrottledDevice>, ApiError> {
    let one = |device: &WeightDevice| match WEIGHTS.contains(&device.weight) {
        true => Ok(ThrottledDevice {
            path: device.path.clone().into(),
            rate: device.weight.into(),
        }),
        false => Err(ApiError::bad("Range of blkio weight is from 10 to 1000")),
    };
    devices.iter().map(one).collect()
}

fn rates(devices: &[ThrottleDevice]) -> Vec<ThrottledDevice> {
    let one = |device: &ThrottleDevice| ThrottledDevice {
        path: device.path.clone().into(),
        rate: device.rate,
    };
    devices.iter().map(one).collect()
}

/// A resource limit; -1 is none.
pub(super) fn ulimit(limit: &host_config::Ulimit) -> Result<Ulimit, ApiError> {
    let name = &limit.name;
    let spec = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let resource: PosixRlimitType = serde_json::from_value(spec.into())
        .map_err(|_| ApiError::bad(format!("invalid ulimit type: {name}")))?;
    let value = |number: i64| match number {
        -1 => Ok(u64::MAX),
        number => u64::try_from(number)
            .map_err(|_| ApiError::bad(format!("invalid ulimit {name}: {number}"))),
    };
    let (soft, hard) = (value(limit.soft)?, value(limit.hard)?);
    if soft > hard {
        return Err(ApiError::bad(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit {
        resource,
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::read;
    use serde_json::json;

    #[test]
    fn ranges_are_dockers() {
        let of = |value| limits(&read(value).unwrap());
        assert_eq!(of(json!({})).unwrap(), ResourceLimits::default());
        assert_eq!(of(json!({ "CpuShares": 1 })).unwrap().cpu_shares, Some(2));
        for bad in [
            json!({ "CpuQuota": 5 }),
            json!({ "CpuPeriod": 5 }),
            json!({ "CpuShares": -5 }),
            json!({ "BlkioWeight": 5 }),
            json!({ "BlkioWeightDevice": [{ "Path": "/dev/sda", "Weight": 5 }] }),
        ] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_have_the_names_of_the_kernel() {
        let of = |value| ulimit(&read(value).unwrap());
        let limit = of(json!({ "Name": "nofile", "Soft": 5, "Hard": -1 })).unwrap();
        assert_eq!(limit.resource, PosixRlimitType::RlimitNofile);
        assert_eq!((limit.soft, limit.hard), (5, u64::MAX));
        assert!(of(json!({ "Name": "files", "Soft": 5, "Hard": 5 })).is_err());
        assert!(of(json!({ "Name": "nofile", "Soft": 6, "Hard": 5 })).is_err());
    }
}
