//! The options of `run` and `create` that limit the container's control group.

use clap::Args;
use engine::{ResourceLimits, ThrottledDevice};

use super::isolation_options::wrong;
use super::options::bytes_of;

/// Limits, spelt as Docker's.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Processors that it may run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use, such as 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Share of the processors against others: 2 to 262144 (default: 1024)
    #[arg(short = 'c', long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Length of a period of --cpu-quota, in microseconds: 1000 to 1000000 (default: 100000)
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds: at least 1000, or -1
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Memory that it is left with when the host is short of it
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together, -1 for none (default: twice --memory)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// How eagerly its memory is swapped out: 0 to 100 (cgroup v1 only)
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(..=100))]
    memory_swappiness: Option<u64>,
    /// Share of the disks against others: 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// The same for one disk (can be repeated)
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Bytes that it may read from a disk in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Bytes that it may write to a disk in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Reads of a disk in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<String>,
    /// Writes to a disk in a second (can be repeated)
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<String>,
}

impl LimitArgs {
    /// The engine's limits. As with Docker, 0 is none.
    pub(crate) fn resolve(&self) -> anyhow::Result<ResourceLimits> {
        let shares = in_range("--cpu-shares", self.cpu_shares, 2, 262_144)?;
        let period = in_range("--cpu-period", self.cpu_period, 1_000, 1_000_000)?;
        let quota = self.cpu_quota.filter(|quota| *quota != 0);
        if let Some(quota) = quota.filter(|quota| *quota != -1 && *quota < 1_000) {
            let why = "it is at least 1000 microseconds, or -1";
            return Err(wrong("--cpu-quota", &quota.to_string(), why));
        }
        let weight = in_range(
            "--blkio-weight",
            self.blkio_weight.map(u64::from),
            10,
            1_000,
        )?;
        let size = |option: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| *text != "0");
            text.map(|text| bytes_of(option, text)).transpose()
        };
        let bytes = |option: &str, texts: &[String]| {
            devices(option, texts, |rate| {
                bytes_of(option, rate)
                    .ok()
                    .and_then(|rate| u64::try_from(rate).ok())
            })
        };
        let count = |option: &str, texts: &[String]| {
            devices(option, texts, |rate| rate.parse().ok().filter(|r| *r > 0))
        };
        Ok(ResourceLimits {
            cpuset_cpus: self.cpuset_cpus.clone().filter(|list| !list.is_empty()),
            cpuset_mems: self.cpuset_mems.clone().filter(|list| !list.is_empty()),
            cpu_shares: shares,
            cpu_period_us: period,
            cpu_quota_us: quota,
            memory_reservation: size("--memory-reservation", &self.memory_reservation)?,
            memory_swap: match self.memory_swap.as_deref() {
                Some("-1") => Some(-1),
                _ => size("--memory-swap", &self.memory_swap)?,
            },
            memory_swappiness: self.memory_swappiness,
            blkio_weight: weight.and_then(|weight| u16::try_from(weight).ok()),
            blkio_weight_device: devices(
                "--blkio-weight-device",
                &self.blkio_weight_device,
                |weight| weight.parse().ok().filter(|w| (10..=1_000).contains(w)),
            )?,
            read_bps: bytes("--device-read-bps", &self.device_read_bps)?,
            write_bps: bytes("--device-write-bps", &self.device_write_bps)?,
            read_iops: count("--device-read-iops", &self.device_read_iops)?,
            write_iops: count("--device-write-iops", &self.device_write_iops)?,
        })
    }
}

fn in_range(
    option: &str,
    value: Option<u64>,
    least: u64,
    most: u64,
) -> anyhow::Result<Option<u64>> {
    let Some(value) = value.filter(|value| *value != 0) else {
        return Ok(None);
    };
    if (least..=most).contains(&value) {
        Ok(Some(value))
    } else {
        let why = format!("it is {least} to {most}");
        Err(wrong(option, &value.to_string(), &why))
    }
}

/// `DEVICE:RATE`, the device by its path.
fn devices(
    option: &str,
    texts: &[String],
    rate: impl Fn(&str) -> Option<u64>,
) -> anyhow::Result<Vec<ThrottledDevice>> {
    let one = |text: &String| {
        let parts = text.rsplit_once(':');
        let parts = parts.filter(|(path, _)| path.starts_with("/dev/"));
        let device = parts.and_then(|(path, text)| {
            Some(ThrottledDevice {
                path: path.into(),
                rate: rate(text)?,
            })
        });
        device.ok_or_else(|| wrong(option, text, "it is /dev/DEVICE:NUMBER"))
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_has_a_path_and_a_rate() {
        let found = devices("--x", &["/dev/sda:1".to_owned()], |r| r.parse().ok()).unwrap();
        assert_eq!(
            (found[0].path.to_str(), found[0].rate),
            (Some("/dev/sda"), 1)
        );
        for bad in ["sda:1", "/dev/sda", "/dev/sda:x", "/etc/x:1"] {
            let texts = [bad.to_owned()];
            assert!(devices("--x", &texts, |r| r.parse().ok()).is_err(), "{bad}");
        }
    }

    #[test]
    fn range_is_named_in_the_refusal() {
        assert_eq!(in_range("--x", Some(0), 2, 5).unwrap(), None);
        assert_eq!(in_range("--x", Some(2), 2, 5).unwrap(), Some(2));
        let error = in_range("--x", Some(1), 2, 5).unwrap_err().to_string();
        assert!(error.contains("2 to 5"), "{error}");
    }
}
