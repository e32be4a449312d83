//! The properties of a scope that its limits become (systemd.resource-control(5)), as runc maps
//! them. A property is sent to a systemd that knows it, by its version.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxResources};

use super::name::Manager;
use super::wire::Value;
use crate::cgroup::{self, DeviceAccess};
use crate::plan::{self, PlanError};

/// Its name and its value.
pub(super) type Property = (String, Value);

/// What a mapping depends on besides the resources.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Whose systemd it is: that of an ordinary user cannot restrict devices.
    pub(super) manager: Manager,
    /// Its version.
    pub(super) version: u32,
    /// The period of a quota that comes without one, in microseconds.
    pub(super) period_us: u64,
}

/// systemd's word for "no limit", and for "not set".
const INFINITY: u64 = u64::MAX;

/// The weight of a group that gets processor time which nobody else wants.
const IDLE: u64 = 0;

const FIRST_WITH_QUOTA_PERIOD: u32 = 242;
const FIRST_WITH_CPUSET: u32 = 244;
const FIRST_WITH_NUMBERED_DEVICES: u32 = 246;
const FIRST_WITH_IDLE: u32 = 252;

/// The properties of these resources.
pub(super) fn of_resources(
    resources: &LinuxResources,
    context: Context,
) -> Result<Vec<Property>, PlanError> {
    let mut out = Properties {
        context,
        list: Vec::new(),
    };
    out.devices(resources)?;
    if let Some(memory) = resources.memory() {
        out.set_signed("MemoryMax", memory.limit());
        out.set_signed("MemoryLow", memory.reservation());
        out.set_signed("MemorySwapMax", cgroup::swap_alone(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        out.cpu(cpu);
        out.cpuset(
            "AllowedCPUs",
            "linux.resources.cpu.cpus",
            cpu.cpus().as_deref(),
        )?;
        out.cpuset(
            "AllowedMemoryNodes",
            "linux.resources.cpu.mems",
            cpu.mems().as_deref(),
        )?;
    }
    if let Some(pids) = resources.pids() {
        // 0 would keep the container itself out: as the file is written.
        let limit = if pids.limit() == 0 { 1 } else { pids.limit() };
        out.set_signed("TasksMax", Some(limit));
    }
    let io = resources.block_io().as_ref();
    if let Some(weight) = io
        .and_then(LinuxBlockIo::weight)
        .filter(|&weight| weight != 0)
    {
        out.set("IOWeight", Value::U64(cgroup::io_weight(weight)));
    }
    out.unified(resources)?;
    Ok(out.list)
}

struct Properties {
    context: Context,
    list: Vec<Property>,
}

impl Properties {
    /// Sets a property, in the place of an earlier value.
    fn set(&mut self, name: &str, value: Value) {
        self.list.retain(|(earlier, _)| earlier != name);
        self.list.push((name.to_owned(), value));
    }

    /// A limit; one below zero is none.
    fn set_signed(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.set(name, Value::U64(u64::try_from(value).unwrap_or(INFINITY)));
        }
    }

    /// systemd's own list is only as strict as it can be said: our filter on the group is exact.
    fn devices(&mut self, resources: &LinuxResources) -> Result<(), PlanError> {
        if self.context.manager == Manager::User {
            return Ok(());
        }
        let access = cgroup::device_access(resources)?;
        let (policy, allowed) = match access {
            DeviceAccess::Unrestricted if resources.devices().iter().flatten().next().is_none() => {
                return Ok(());
            }
            DeviceAccess::Listed(list) if self.knows(FIRST_WITH_NUMBERED_DEVICES) => {
                ("strict", list)
            }
            DeviceAccess::Unrestricted | DeviceAccess::Other | DeviceAccess::Listed(_) => {
                ("auto", Vec::new())
            }
        };
        self.set("DevicePolicy", Value::text(policy));
        let entry = |(path, access): (String, String)| {
            Value::Struct(vec![Value::Text(path), Value::Text(access)])
        };
        let list = |entries: Vec<Value>| Value::Array("(ss)".to_owned(), entries);
        // An empty list takes the earlier entries away, another one adds to them.
        self.list.push(("DeviceAllow".to_owned(), list(Vec::new())));
        if !allowed.is_empty() {
            let entries = allowed.into_iter().map(entry).collect();
            self.list.push(("DeviceAllow".to_owned(), list(entries)));
        }
        Ok(())
    }

    fn knows(&self, first_version: u32) -> bool {
        self.context.version >= first_version
    }

    fn cpu(&mut self, cpu: &LinuxCpu) {
        let shares = cpu.shares().filter(|&shares| shares != 0);
        match (cpu.idle(), shares) {
            (Some(1), _) => self.idle(),
            (_, Some(shares)) => self.set("CPUWeight", Value::U64(cgroup::cpu_weight(shares))),
            (_, None) => {}
        }
        let quota = cpu.quota().filter(|&quota| quota != 0);
        let period = cpu.period().filter(|&period| period != 0);
        self.quota(quota, period);
    }

    fn idle(&mut self) {
        if self.knows(FIRST_WITH_IDLE) {
            self.set("CPUWeight", Value::U64(IDLE));
        }
    }

    fn quota(&mut self, quota: Option<i64>, period: Option<u64>) {
        if let Some(period) = period.filter(|_| self.knows(FIRST_WITH_QUOTA_PERIOD)) {
            self.set("CPUQuotaPeriodUSec", Value::U64(period));
        }
        if let Some(quota) = quota {
            let period = period.unwrap_or(self.context.period_us);
            self.set("CPUQuotaPerSecUSec", Value::U64(per_second(quota, period)));
        }
    }

    fn cpuset(
        &mut self,
        name: &str,
        field: &'static str,
        list: Option<&str>,
    ) -> Result<(), PlanError> {
        let Some(list) = list.filter(|list| !list.is_empty() && self.knows(FIRST_WITH_CPUSET))
        else {
            return Ok(());
        };
        let mask = plan::cpu_mask(list).ok_or_else(|| PlanError::Unknown {
            field,
            value: list.to_owned(),
        })?;
        self.set(name, Value::bytes(&mask));
        Ok(())
    }

    /// Files of v2 by name. What is no value of theirs the kernel refuses when it is written.
    fn unified(&mut self, resources: &LinuxResources) -> Result<(), PlanError> {
        let mut files: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
        files.sort_unstable();
        for (file, value) in files {
            let value = value.trim();
            let number = match value {
                "max" => Some(INFINITY),
                value => value.parse::<u64>().ok(),
            };
            let name = match file.as_str() {
                "memory.min" => "MemoryMin",
                "memory.low" => "MemoryLow",
                "memory.high" => "MemoryHigh",
                "memory.max" => "MemoryMax",
                "memory.swap.max" => "MemorySwapMax",
                "pids.max" => "TasksMax",
                "cpu.weight" => "CPUWeight",
                "cpu.idle" if value == "1" => {
                    self.idle();
                    continue;
                }
                "cpu.max" => {
                    self.cpu_max(value);
                    continue;
                }
                "cpuset.cpus" => {
                    self.cpuset(
                        "AllowedCPUs",
                        "linux.resources.unified `cpuset.cpus`",
                        Some(value),
                    )?;
                    continue;
                }
                "cpuset.mems" => {
                    let field = "linux.resources.unified `cpuset.mems`";
                    self.cpuset("AllowedMemoryNodes", field, Some(value))?;
                    continue;
                }
                _ => continue,
            };
            if let Some(number) = number {
                self.set(name, Value::U64(number));
            }
        }
        Ok(())
    }

    fn cpu_max(&mut self, value: &str) {
        let mut words = value.split_whitespace();
        let quota = match words.next() {
            Some("max") => Some(-1),
            Some(quota) => quota.parse().ok(),
            None => None,
        };
        self.quota(quota, words.next().and_then(|period| period.parse().ok()));
    }
}

/// A quota in a period as microseconds in a second. systemd keeps whole percents: what is between
/// two is given the larger one.
fn per_second(quota_us: i64, period_us: u64) -> u64 {
    const SECOND: u128 = 1_000_000;
    const PERCENT: u128 = SECOND / 100;
    let Ok(quota) = u128::try_from(quota_us) else {
        return INFINITY;
    };
    let micros = quota * SECOND / u128::from(period_us.max(1));
    u64::try_from(micros.next_multiple_of(PERCENT)).unwrap_or(INFINITY)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    const NOW: Context = Context {
        manager: Manager::System,
        version: 252,
        period_us: 100_000,
    };

    fn mapped_for(resources: Json, context: Context) -> Vec<Property> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        of_resources(&resources, context).unwrap()
    }

    fn mapped(resources: Json) -> Vec<(String, Value)> {
        mapped_for(resources, NOW)
    }

    fn number(name: &str, value: u64) -> Property {
        (name.to_owned(), Value::U64(value))
    }

    #[test]
    fn limits_become_properties() {
        let memory = mapped(json!({"memory": {"limit": 4096, "reservation": -1, "swap": 8192}}));
        assert_eq!(
            memory,
            [
                number("MemoryMax", 4096),
                number("MemoryLow", INFINITY),
                number("MemorySwapMax", 4096),
            ]
        );
        assert_eq!(
            mapped(json!({"pids": {"limit": 0}})),
            [number("TasksMax", 1)]
        );
        assert_eq!(
            mapped(json!({"pids": {"limit": -1}})),
            [number("TasksMax", INFINITY)]
        );
        assert_eq!(
            mapped(json!({"blockIO": {"weight": 1000}})),
            [number("IOWeight", 10_000)]
        );
        assert_eq!(mapped(json!({})), []);
    }

    #[test]
    fn processor_time_becomes_weight_and_percent() {
        let cpu = mapped(json!({"cpu": {"shares": 262_144, "quota": 50_000, "period": 200_000}}));
        assert_eq!(
            cpu,
            [
                number("CPUWeight", 10_000),
                number("CPUQuotaPeriodUSec", 200_000),
                number("CPUQuotaPerSecUSec", 250_000),
            ]
        );
        assert_eq!(
            mapped(json!({"cpu": {"idle": 1, "shares": 2}})),
            [number("CPUWeight", IDLE)]
        );
        let old = Context {
            version: 241,
            ..NOW
        };
        let cpu = json!({"cpu": {"idle": 1, "quota": -1, "period": 7, "cpus": "0"}});
        assert_eq!(
            mapped_for(cpu, old),
            [number("CPUQuotaPerSecUSec", INFINITY)]
        );
        assert_eq!(per_second(12_345, 100_000), 130_000);
        assert_eq!(per_second(1, 1_000_000), 10_000);
    }

    #[test]
    fn processors_become_a_mask() {
        let cpu = mapped(json!({"cpu": {"cpus": "0-2,9", "mems": "0"}}));
        assert_eq!(
            cpu,
            [
                ("AllowedCPUs".to_owned(), Value::bytes(&[0b111, 0b10])),
                ("AllowedMemoryNodes".to_owned(), Value::bytes(&[1])),
            ]
        );
        let bad = serde_json::from_value(json!({"cpu": {"cpus": "x"}})).unwrap();
        assert!(of_resources(&bad, NOW).is_err());
    }

    #[test]
    fn files_by_name_become_properties_and_come_last() {
        let all = mapped(json!({
            "memory": {"limit": 4096},
            "unified": {
                "memory.max": "8192", "memory.high": "max", "cpu.max": "max 5000", "io.max": "x",
                "cpu.weight": "no number",
            },
        }));
        assert_eq!(
            all,
            [
                number("CPUQuotaPeriodUSec", 5000),
                number("CPUQuotaPerSecUSec", INFINITY),
                number("MemoryHigh", INFINITY),
                number("MemoryMax", 8192),
            ]
        );
    }

    fn entries(properties: &[Property]) -> Vec<String> {
        let mut lists = properties.iter().filter(|(name, _)| name == "DeviceAllow");
        let Some((_, Value::Array(_, entries))) = lists.next_back() else {
            return Vec::new();
        };
        let text = |entry: &Value| match entry {
            Value::Struct(pair) => format!(
                "{} {}",
                pair[0].as_text().unwrap(),
                pair[1].as_text().unwrap()
            ),
            other => panic!("{other:?}"),
        };
        entries.iter().map(text).collect()
    }

    #[test]
    fn device_list_is_said_where_it_can_be() {
        let deny = json!({"allow": false, "access": "rwm"});
        let allow = |device: Json| json!({"devices": [deny, device]});
        let list = mapped(allow(
            json!({"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"}),
        ));
        assert_eq!(list[0], ("DevicePolicy".to_owned(), Value::text("strict")));
        let found = entries(&list);
        for line in [
            "/dev/block/8:1 r",
            "char-* m",
            "/dev/char/1:3 rwm",
            "char-136 rwm",
        ] {
            assert!(found.contains(&line.to_owned()), "{line}: {found:?}");
        }
        // A number for all majors, and a denial after something was allowed, cannot be said.
        for other in [
            json!({"allow": true, "type": "c", "minor": 1, "access": "r"}),
            json!({"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}),
        ] {
            let list = mapped(allow(other));
            assert_eq!(list[0], ("DevicePolicy".to_owned(), Value::text("auto")));
            assert!(entries(&list).is_empty());
        }
        let user = Context {
            manager: Manager::User,
            ..NOW
        };
        assert_eq!(mapped_for(json!({"devices": [deny]}), user), []);
    }
}
