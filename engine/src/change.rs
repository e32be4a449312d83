//! A container that exists is changed: paused and let go on while it runs, given other limits or
//! another restart policy at any time.

use std::path::Path;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPidsBuilder, LinuxResources};
use runtime::{Request, RestartPolicy};
use runtime_native::cgroup::{Change, Group, detect};
use state::Status;
use sys::durable::{Durability, replace_file};

use crate::query::Container;
use crate::{Engine, EngineError, memory};

/// A quota's period, in microseconds, where none is given.
const CPU_PERIOD_US: u64 = 100_000;

/// What of a container is changed; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Memory limit in bytes.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes, -1 without limit.
    pub memory_swap_bytes: Option<i64>,
    /// Memory that is left to it when the host runs short of it, in bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// Processors, in billionths.
    pub nano_cpus: Option<i64>,
    /// Its weight against other containers.
    pub cpu_shares: Option<u64>,
    /// The period of its quota, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Its quota, in microseconds of each period.
    pub cpu_quota_us: Option<i64>,
    /// Processors, as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// How many processes; -1 without limit.
    pub pids_limit: Option<i64>,
    /// What happens when its program has ended by itself.
    pub restart: Option<RestartPolicy>,
}

impl Changes {
    /// The limits beside those that the container has.
    fn resources(&self, old: &LinuxResources) -> Result<LinuxResources, EngineError> {
        let mut changed = LinuxResources::default();
        changed.set_devices(None);
        if let Some(memory) = self.memory(old)? {
            changed.set_memory(Some(memory));
        }
        if let Some(cpu) = self.cpu(old)? {
            changed.set_cpu(Some(cpu));
        }
        if let Some(limit) = self.pids_limit {
            let limit = if limit > 0 { limit } else { -1 };
            let pids = LinuxPidsBuilder::default().limit(limit).build();
            changed.set_pids(Some(pids.map_err(|error| {
                EngineError::Unsupported(format!("cannot describe the limits: {error}"))
            })?));
        }
        Ok(changed)
    }

    fn memory(&self, old: &LinuxResources) -> Result<Option<LinuxMemory>, EngineError> {
        let (limit, swap) = (self.memory_bytes, self.memory_swap_bytes);
        if limit.is_none() && swap.is_none() && self.memory_reservation_bytes.is_none() {
            return Ok(None);
        }
        memory::check(limit)?;
        let old = old.memory().unwrap_or_default();
        // As with Docker, a limit above the one that holds for memory and swap together needs a
        // new one of those too.
        let sum = swap.or(old.swap());
        if let (Some(limit), Some(sum)) = (limit.or(old.limit()), sum)
            && sum != -1
            && limit > sum
        {
            return Err(EngineError::Unsupported(format!(
                "cannot set the memory limit to {limit} bytes: memory and swap together have {sum} (see --memory-swap)"
            )));
        }
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(limit)
            .set_swap(swap)
            .set_reservation(self.memory_reservation_bytes)
            .set_check_before_update(Some(true));
        if limit.is_some() && swap.is_none() {
            // v1 wants both in order; the old sum is written again.
            memory.set_swap(old.swap());
        }
        Ok(Some(memory))
    }

    fn cpu(&self, old: &LinuxResources) -> Result<Option<LinuxCpu>, EngineError> {
        let given = self.nano_cpus.is_some()
            || self.cpu_shares.is_some()
            || self.cpu_period_us.is_some()
            || self.cpu_quota_us.is_some()
            || self.cpuset_cpus.is_some()
            || self.cpuset_mems.is_some();
        if !given {
            return Ok(None);
        }
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_shares)
            .set_period(self.cpu_period_us)
            .set_quota(self.cpu_quota_us)
            .set_cpus(self.cpuset_cpus.clone())
            .set_mems(self.cpuset_mems.clone());
        if let Some(nano) = self.nano_cpus {
            if self.cpu_period_us.is_some() || self.cpu_quota_us.is_some() {
                let text = "cannot use --cpus with --cpu-period or --cpu-quota: it sets both";
                return Err(EngineError::Unsupported(text.to_owned()));
            }
            let quota = i128::from(nano) * i128::from(CPU_PERIOD_US) / 1_000_000_000;
            cpu.set_period(Some(CPU_PERIOD_US))
                .set_quota(i64::try_from(quota).ok());
        } else if self.cpu_quota_us.is_some() && self.cpu_period_us.is_none() {
            let period = old.cpu().as_ref().and_then(LinuxCpu::period);
            cpu.set_period(Some(period.unwrap_or(CPU_PERIOD_US)));
        }
        Ok(Some(cpu))
    }
}

/// The fields of `changed` over those of `all`.
fn merge(all: &mut LinuxResources, changed: &LinuxResources) -> serde_json::Result<()> {
    let mut merged = serde_json::to_value(&*all)?;
    overlay(&mut merged, serde_json::to_value(changed)?);
    *all = serde_json::from_value(merged)?;
    Ok(())
}

fn overlay(base: &mut serde_json::Value, over: serde_json::Value) {
    use serde_json::Value;
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

impl Engine {
    /// Stops all processes of a running container where they are.
    ///
    /// # Errors
    /// When it does not run, is paused, or there is no control group to do it with.
    pub fn pause(&self, container: &Container) -> Result<(), EngineError> {
        match container.state.status {
            Status::Paused => Err(EngineError::Paused {
                what: "pause",
                name: container.config.name.clone(),
            }),
            _ => self.ask(container, &Request::Pause),
        }
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn unpause(&self, container: &Container) -> Result<(), EngineError> {
        match container.state.status {
            Status::Paused => self.ask(container, &Request::Unpause),
            _ => Err(EngineError::NotPaused(container.config.name.clone())),
        }
    }

    /// Changes a container's limits and its restart policy: at once when it runs, and for every
    /// later start.
    ///
    /// # Errors
    /// A limit that this host cannot give, or that is below what is in use; then nothing has
    /// changed.
    pub fn update(&self, container: &Container, changes: &Changes) -> Result<(), EngineError> {
        let config = &container.config;
        let policy = changes.restart;
        if config.auto_remove && policy.is_some_and(|policy| policy != RestartPolicy::No) {
            let text = "cannot use --restart: the container is removed when it ends (--rm)";
            return Err(EngineError::Unsupported(text.to_owned()));
        }
        let (mut spec, mut launch) = (self.spec_of(&config.id)?, self.launch_of(&config.id)?);
        let mut linux = spec.linux().clone().unwrap_or_default();
        let mut all = linux.resources().clone().unwrap_or_default();
        let changed = changes.resources(&all)?;
        let failed = EngineError::io("write the container's limits");
        merge(&mut all, &changed).map_err(|error| failed(error.into()))?;
        let change = self.plan_change(config.id.as_str(), linux.cgroups_path(), &changed, &all)?;
        if container.is_running() {
            let update = Request::Update {
                now: change.now,
                later: change.later,
                restart: policy,
            };
            self.ask(container, &update)?;
        }
        linux.set_resources(Some(all));
        spec.set_linux(Some(linux));
        launch.restart = policy.unwrap_or(launch.restart);
        let dir = self.layout().container(&config.id);
        let write = |name: &str, bytes: serde_json::Result<Vec<u8>>| {
            let bytes = bytes.map_err(std::io::Error::from)?;
            replace_file(&dir.join(name), &bytes, Durability::Atomic)
        };
        write("spec.json", serde_json::to_vec(&spec)).map_err(&failed)?;
        write("launch.json", serde_json::to_vec(&launch)).map_err(&failed)?;
        self.record_container_event(config, "update", &[]);
        Ok(())
    }

    fn plan_change(
        &self,
        id: &str,
        path: &Option<std::path::PathBuf>,
        changed: &LinuxResources,
        all: &LinuxResources,
    ) -> Result<Change, EngineError> {
        let mut all = all.clone();
        // A container's device filter does not change.
        all.set_devices(None);
        let hierarchy = detect();
        let path = path.as_deref().filter(|path| *path != Path::new(""));
        let group = Group::new(&hierarchy, path, id)?;
        Ok(group.plan_change(changed, &all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_stays() {
        let mut all: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":1000,"swap":2000},"pids":{"limit":5}}"#)
                .unwrap();
        let changed: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":1500},"cpu":{"shares":7}}"#).unwrap();
        merge(&mut all, &changed).unwrap();
        let memory = all.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(1500), Some(2000)));
        assert_eq!(all.cpu().as_ref().unwrap().shares(), Some(7));
        assert_eq!(all.pids().as_ref().unwrap().limit(), 5);
    }

    #[test]
    fn limit_above_memory_and_swap_together_is_refused() {
        let old: LinuxResources =
            serde_json::from_str(r#"{"memory":{"limit":64000000,"swap":128000000}}"#).unwrap();
        let changes = Changes {
            memory_bytes: Some(256_000_000),
            ..Changes::default()
        };
        let error = changes.resources(&old).unwrap_err().to_string();
        assert!(error.contains("--memory-swap"), "{error}");
    }
}
