//! The machine as it is found: what numbers depend on and nobody remembers later.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The load at which a processor is taken to be another one's.
const BUSY: f64 = 0.3;
/// The part of time that another virtual machine may have taken.
const STOLEN: f64 = 0.01;

/// What is known of the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that are online.
    pub processors: usize,
    /// The frequency governor, or that there is none to be seen.
    pub governor: String,
    /// `on`, `off` or `unknown`.
    pub turbo: String,
    /// Simultaneous multithreading: `on`, `off`, or the kernel's other words.
    pub smt: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Memory that is available in bytes.
    pub available_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroup: String,
    /// Mitigations of processor faults that are in force, a line each.
    pub mitigations: Vec<String>,
    /// Whether the processor says that it is a virtual one.
    pub is_virtual: bool,
    /// The file system of the run's own files.
    pub file_system: String,
    /// Load (one minute) before the run.
    pub load_before: f64,
    /// Load after it, which the run itself has made.
    pub load_after: f64,
    /// The part of all processors' time that others than this virtual machine had meanwhile.
    pub stolen: f64,
}

/// Times of all processors, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    total: u64,
    stolen: u64,
}

impl Machine {
    /// Looks at it; what cannot be read is `unknown`.
    pub(crate) fn look(scratch: &Path) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let names = ["model name", "Processor", "CPU part"];
        let processor = names.iter().find_map(|name| field(&cpuinfo, name));
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        Self {
            processor: processor.unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, Into::into),
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            turbo: turbo(),
            smt: word("/sys/devices/system/cpu/smt/control"),
            memory_bytes: kib(&meminfo, "MemTotal"),
            available_bytes: kib(&meminfo, "MemAvailable"),
            kernel: word("/proc/sys/kernel/osrelease"),
            cgroup: cgroup().to_owned(),
            mitigations: mitigations(),
            is_virtual: flags.split(' ').any(|flag| flag == "hypervisor"),
            file_system: file_system(scratch),
            load_before: load(),
            load_after: 0.0,
            stolen: 0.0,
        }
    }

    /// Adds what the run has seen.
    pub(crate) fn close(&mut self, began: Ticks) {
        let now = ticks();
        self.load_after = load();
        let total = now.total.saturating_sub(began.total);
        let stolen = now.stolen.saturating_sub(began.stolen);
        if total > 0 {
            self.stolen = number(stolen) / number(total);
        }
    }

    /// What makes numbers of this machine doubtful.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let processors = self.processors;
        if self.load_before > BUSY * f64::from(u32::try_from(processors).unwrap_or(u32::MAX)) {
            doubts.push(format!(
                "the machine was busy before the run: load {:.2} on {processors} processors",
                self.load_before
            ));
        }
        if self.stolen > STOLEN {
            doubts.push(format!(
                "other virtual machines had {:.1} % of the processors' time meanwhile",
                self.stolen * 100.0
            ));
        }
        if self.governor == "powersave" || self.governor == "ondemand" {
            let governor = &self.governor;
            doubts.push(format!(
                "the frequency governor is `{governor}`: times depend on how busy the processor was"
            ));
        }
        doubts
    }
}

/// Times up to now (`/proc/stat` of proc(5): the eighth number is stolen time).
pub(crate) fn ticks() -> Ticks {
    let text = read("/proc/stat");
    let line = text.lines().next().unwrap_or_default();
    let numbers = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.take(8).collect();
    Ticks {
        total: numbers.iter().sum(),
        stolen: numbers.get(7).copied().unwrap_or(0),
    }
}

fn number(ticks: u64) -> f64 {
    // Ticks of one run are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let number = ticks as f64;
    number
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn word(path: &str) -> String {
    match read(path).trim() {
        "" => "unknown".to_owned(),
        text => text.to_owned(),
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kib(meminfo: &str, name: &str) -> u64 {
    let value = field(meminfo, name).and_then(|text| text.split(' ').next());
    value.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn turbo() -> String {
    let no_turbo = word("/sys/devices/system/cpu/intel_pstate/no_turbo");
    let boost = word("/sys/devices/system/cpu/cpufreq/boost");
    match (no_turbo.as_str(), boost.as_str()) {
        ("0", _) | (_, "1") => "on",
        ("1", _) | (_, "0") => "off",
        _ => "unknown",
    }
    .to_owned()
}

fn cgroup() -> &'static str {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let beside = Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists();
    match (unified, beside) {
        (true, _) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
    }
}

fn mitigations() -> Vec<String> {
    let dir = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut lines: Vec<String> = dir
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let text = text.trim();
            let name = entry.file_name().to_string_lossy().into_owned();
            (text != "Not affected").then(|| format!("{name}: {text}"))
        })
        .collect();
    lines.sort();
    lines
}

fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or(0.0)
}

/// The type of the mount that has the path, by the longest mount point (proc(5), `mountinfo`).
fn file_system(path: &Path) -> String {
    let text = read("/proc/self/mountinfo");
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?;
        path.starts_with(point)
            .then(|| (point.len(), right.split(' ').next().unwrap_or("unknown")))
    });
    let longest = mounts.max_by_key(|(length, _)| *length);
    longest.map_or("unknown", |(_, name)| name).to_owned()
}
