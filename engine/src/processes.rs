//! What runs in a container, and what it uses: its control group where it has one, else the
//! processes of its pid namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use runtime_native::cgroup::{Group, Stats};
use runtime_native::plan::detect;

use crate::{Container, Engine, EngineError};

/// What a container uses and has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of processor time.
    pub cpu_ns: u64,
    /// Bytes of memory, without page cache that the kernel can drop.
    pub memory: u64,
    /// The most that it may have: its limit, or the host's memory.
    pub memory_limit: u64,
    /// Bytes that came in over its network links, and that went out; none where its network is not
    /// its own.
    pub network: Option<(u64, u64)>,
    /// Bytes read from and written to block devices; none without a control group.
    pub block: Option<(u64, u64)>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of linear memory of a wasm container's guests.
    pub linear_memory: Option<u64>,
}

/// A usage, and when it was so.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// What.
    pub usage: Usage,
}

impl Sample {
    /// How much of one processor was used since an earlier sample, in percent.
    #[must_use]
    pub fn cpu_percent_since(&self, before: &Self) -> f64 {
        let elapsed = self.at.saturating_duration_since(before.at).as_secs_f64();
        let used = self.usage.cpu_ns.saturating_sub(before.usage.cpu_ns);
        if elapsed <= 0.0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let used = used as f64;
        used / 1e9 / elapsed * 100.0
    }
}

impl Engine {
    /// The control group of a container, whether it is there or not.
    pub(crate) fn group(&self, container: &Container) -> Result<Group, EngineError> {
        let spec = self.spec_of(&container.config.id)?;
        let path = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().clone());
        Ok(Group::new(
            &detect(),
            path.as_deref(),
            &container.config.id,
        )?)
    }

    /// The processes of a running container, as the host numbers them.
    ///
    /// # Errors
    /// When it does not run, or is a wasm container, which has none.
    pub fn processes(&self, container: &Container) -> Result<Vec<i32>, EngineError> {
        let config = &container.config;
        if config.runtime == "wasm" {
            return Err(EngineError::NoProcesses {
                what: "list the processes of",
                name: config.name.clone(),
            });
        }
        self.all_processes(container)
    }

    fn all_processes(&self, container: &Container) -> Result<Vec<i32>, EngineError> {
        let stopped = || EngineError::NotRunning(container.config.name.clone());
        let pid = container.state.pid.ok_or_else(stopped)?;
        let group = self.group(container)?;
        let failed = EngineError::io("list the processes of the container");
        let mut pids = group
            .processes()
            .map_err(|error| failed(io::Error::other(error)))?;
        if pids.is_empty() {
            // An ordinary user's own containers stand in user namespaces beside this process's, which
            // hides their namespaces from it.
            pids = of_namespace(pid)
                .or_else(|_| descendants(pid))
                .map_err(failed)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// What a running container uses now.
    ///
    /// # Errors
    /// When it does not run, or the kernel does not say.
    pub fn sample(&self, container: &Container) -> Result<Sample, EngineError> {
        let config = &container.config;
        let pids = self.all_processes(container)?;
        let failed = EngineError::io("read what the container uses");
        let stats = self.group(container)?.stats();
        let stats = stats.map_err(|error| failed(io::Error::other(error)))?;
        let at = Instant::now();
        let network = match container.state.pid {
            Some(pid) if has_own_network(pid) => {
                let text = fs::read_to_string(format!("/proc/{pid}/net/dev"));
                Some(network_bytes(&text.unwrap_or_default()))
            }
            _ => None,
        };
        Ok(Sample {
            at,
            usage: Usage {
                network,
                linear_memory: match config.runtime.as_str() {
                    "wasm" => pids
                        .iter()
                        .find_map(|pid| linear_memory(*pid))
                        .or_else(|| self.linear_memory_by_monitor(container)),
                    _ => None,
                },
                ..usage(&stats, &pids)
            },
        })
    }
}

impl Engine {
    /// An ordinary user's container stands in a user namespace beside this process's, where only its
    /// monitor can look into it.
    fn linear_memory_by_monitor(&self, container: &Container) -> Option<u64> {
        let asked = self
            .connect(container)
            .and_then(|session| session.linear_memory());
        match asked {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, "the monitor does not say how much linear memory there is");
                None
            }
        }
    }
}

/// From the group's counters, or from the processes where the group has none.
fn usage(stats: &Stats, pids: &[i32]) -> Usage {
    let host = meminfo_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let processes: Vec<Process> = pids.iter().filter_map(|pid| Process::read(*pid)).collect();
    let sum = |of: fn(&Process) -> u64| -> u64 { processes.iter().map(of).sum() };
    let memory = match &stats.memory {
        Some(memory) => memory.usage.saturating_sub(droppable(&memory.detail)),
        None => sum(|process| process.memory),
    };
    let limit = stats.memory.as_ref().and_then(|memory| memory.limit);
    Usage {
        cpu_ns: match &stats.cpu {
            Some(cpu) => cpu.usage_ns,
            None => sum(|process| process.cpu_ns),
        },
        memory,
        memory_limit: limit.map_or(host, |limit| limit.min(host)),
        network: None,
        block: stats.io.as_ref().map(|io| {
            let read = io
                .devices
                .iter()
                .map(|device| device.read_bytes)
                .sum::<u64>();
            let written = io
                .devices
                .iter()
                .map(|device| device.write_bytes)
                .sum::<u64>();
            (read, written)
        }),
        pids: match &stats.pids {
            Some(pids) => pids.current,
            None => sum(|process| process.threads),
        },
        linear_memory: None,
    }
}

/// What a wasm host shows of its guests' memory, in a file among its descriptors.
fn linear_memory(pid: i32) -> Option<u64> {
    let file = sys::sealed::find(pid, runtime::LINEAR_MEMORY).ok()?;
    let mut bytes = [0; 8];
    sys::file::read_exact_at(&file, &mut bytes, 0).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Page cache that nothing uses (`memory.stat`): Docker does not count it.
fn droppable(detail: &BTreeMap<String, u64>) -> u64 {
    let keys = ["total_inactive_file", "inactive_file"];
    keys.iter()
        .find_map(|key| detail.get(*key))
        .copied()
        .unwrap_or(0)
}

fn meminfo_total(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// What one process has used.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    cpu_ns: u64,
    memory: u64,
    threads: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&stat)
    }

    /// proc(5): fields 14 and 15 are ticks, 20 threads, 24 resident pages.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<u64> = rest
            .split(' ')
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Some(Self {
            cpu_ns: (field(14)? + field(15)?).saturating_mul(tick_ns),
            memory: field(24)?.saturating_mul(page),
            threads: field(20)?,
        })
    }
}

/// The processes that stand in the pid namespace of `pid`.
fn of_namespace(pid: i32) -> io::Result<Vec<i32>> {
    let namespace = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/pid"));
    let wanted = namespace(&pid.to_string())?;
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        // What is no process, or another user's, has no such link.
        if let Ok(number) = name.parse()
            && namespace(name).is_ok_and(|own| own == wanted)
        {
            pids.push(number);
        }
    }
    Ok(pids)
}

/// A process and everything that it started, or that was left to it.
fn descendants(pid: i32) -> io::Result<Vec<i32>> {
    let mut parents: BTreeMap<i32, i32> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) = number
            && let Ok(stat) = fs::read_to_string(format!("/proc/{number}/stat"))
            && let Some((_, rest)) = stat.rsplit_once(") ")
            && let Some(parent) = rest.split(' ').nth(1).and_then(|text| text.parse().ok())
        {
            parents.insert(number, parent);
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = parents.iter().filter(|(_, of)| **of == parent);
        found.extend(children.map(|(child, _)| *child));
        at += 1;
    }
    Ok(found)
}

fn has_own_network(pid: i32) -> bool {
    let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    link(&pid.to_string()) != link("self")
}

/// The bytes of all links but the loopback (proc(5), `/proc/net/dev`).
fn network_bytes(text: &str) -> (u64, u64) {
    let mut sum = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let Some((link, numbers)) = line.split_once(':') else {
            continue;
        };
        if link.trim() == "lo" {
            continue;
        }
        let number = |index| {
            let word = numbers.split_whitespace().nth(index);
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        sum = (
            sum.0.saturating_add(number(0)),
            sum.1.saturating_add(number(8)),
        );
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn network_bytes_are_those_of_all_links_but_the_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(text), (105, 26));
        assert_eq!(network_bytes(""), (0, 0));
    }

    #[test]
    fn cpu_percent_is_of_one_processor() {
        let at = Instant::now();
        let sample = |seconds, cpu_ns| Sample {
            at: at + Duration::from_secs(seconds),
            usage: Usage {
                cpu_ns,
                ..Usage::default()
            },
        };
        let percent = sample(2, 3_000_000_000).cpu_percent_since(&sample(0, 0));
        assert!((percent - 150.0).abs() < 0.001, "{percent}");
        assert!(sample(0, 1).cpu_percent_since(&sample(0, 0)).abs() < 0.001);
    }

    #[test]
    fn process_is_read_past_a_name_with_a_parenthesis() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 3 0 9 4096 2 18446";
        let process = Process::parse(stat).unwrap();
        assert_eq!(process.threads, 3);
        assert_eq!(
            process.cpu_ns,
            150 * (1_000_000_000 / rustix::param::clock_ticks_per_second())
        );
        assert!(Process::parse("7 (a").is_none());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(of_namespace(own).unwrap().contains(&own));
    }
}
