//! The table of everything that is measured.

use serde::{Deserialize, Serialize};

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A time, or memory.
    Lower,
    /// A rate.
    Higher,
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name: group and rest, with dots.
    pub name: &'static str,
    /// What it is, in words.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    pub(crate) group: Group,
    /// What a guest's workload must come to, the same in every world.
    pub(crate) check: Option<u64>,
}

/// What is run together to get the measures of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Group {
    /// From an archive to the exit of the first program.
    Cold,
    /// A start when everything is there.
    Warm,
    /// Many starts at once.
    Load,
    /// The end of one that is idle.
    Stop,
    /// Idle ones, one and many.
    Memory,
    /// What the guest program times itself.
    Guest,
    /// Bytes through standard input and output.
    Pipe,
    /// Both ends of a TCP connection in the guest.
    Loopback,
    /// TCP to a server in the guest, over its own network.
    Bridge,
    /// The same over the host's.
    Host,
    /// HTTP to a server in the guest.
    Http,
}

impl Group {
    /// All, in the order in which a round has them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Warm,
        Self::Guest,
        Self::Pipe,
        Self::Loopback,
        Self::Bridge,
        Self::Host,
        Self::Http,
        Self::Stop,
        Self::Load,
        Self::Cold,
        Self::Memory,
    ];

    /// In which rounds it is run: in each so-many-th. What takes long is run less often.
    pub(crate) fn every(self) -> u32 {
        match self {
            Self::Warm | Self::Guest => 1,
            Self::Pipe | Self::Stop => 2,
            Self::Cold | Self::Load => 3,
            Self::Loopback | Self::Bridge | Self::Host | Self::Http => 3,
            Self::Memory => 5,
        }
    }

    /// Turns in one round, each through all subjects.
    pub(crate) fn turns(self) -> u32 {
        if self == Self::Warm { 3 } else { 1 }
    }

    /// Whether the warm-up has it: what fills caches, or is quick.
    pub(crate) fn warms_up(self) -> bool {
        matches!(self, Self::Warm | Self::Guest | Self::Pipe) || self.is_network()
    }

    /// Whether it needs the programs that talk over networks.
    pub(crate) fn is_network(self) -> bool {
        matches!(
            self,
            Self::Loopback | Self::Bridge | Self::Host | Self::Http
        )
    }

    /// Whether the user's own program has it.
    pub(crate) fn fits_any_program(self) -> bool {
        matches!(self, Self::Cold | Self::Warm | Self::Load)
    }
}

/// Starts at once in [`Group::Load`].
pub(crate) const AT_ONCE: u32 = 16;
/// Idle instances in [`Group::Memory`].
pub(crate) const INSTANCES: usize = 100;
/// Bytes in [`Group::Pipe`].
pub(crate) const PIPE_BYTES: usize = 8 << 20;

const MS: &str = "ms";
const MIB: &str = "MiB";
const NS: &str = "ns";
const US: &str = "µs";
const RATE: &str = "MiB/s";
const REQUESTS: &str = "requests/s";
const COUNT: &str = "instances";

impl Measure {
    const fn new(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        group: Group,
    ) -> Self {
        Self {
            name,
            title,
            unit,
            group,
            check: None,
        }
    }

    const fn guest(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        check: u64,
    ) -> Self {
        Self {
            check: Some(check),
            ..Self::new(name, title, unit, Group::Guest)
        }
    }

    /// Which way is good.
    #[must_use]
    pub fn better(&self) -> Better {
        match self.unit {
            RATE | REQUESTS | COUNT => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// The value in the measure's unit of what a guest has timed.
    pub(crate) fn value(&self, operations: f64, nanoseconds: f64) -> f64 {
        match self.unit {
            NS => nanoseconds / operations,
            US => nanoseconds / operations / 1e3,
            RATE => operations / f64::from(1 << 20) / (nanoseconds / 1e9),
            REQUESTS => operations / (nanoseconds / 1e9),
            _ => nanoseconds / 1e6,
        }
    }
}

/// A measure by its name.
pub(crate) fn find(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

/// The sum of the numbers below 1,000, each without what a byte cannot hold.
const TRIPS_CHECK: u64 = 3 * (255 * 256 / 2) + 231 * 232 / 2;
const CHUNKS: u64 = 512;
const FILES: u64 = 100;
const ENTRIES: u64 = 110;
const SMALL_BYTES: u64 = 4096;
const LARGE_BYTES: u64 = 8 << 20;

/// The rows for one place where files can be; a macro, since constants cannot be put together otherwise.
macro_rules! files {
    ($place:literal, $words:literal) => {
        [
            Measure::guest(
                concat!($place, ".create"),
                concat!("create a file of 4 KiB on ", $words),
                US,
                0,
            ),
            Measure::guest(
                concat!($place, ".stat"),
                concat!("stat a file on ", $words),
                US,
                FILES * SMALL_BYTES,
            ),
            Measure::guest(
                concat!($place, ".read"),
                concat!("open, read, close 4 KiB on ", $words),
                US,
                FILES * b'x' as u64,
            ),
            Measure::guest(
                concat!($place, ".walk"),
                concat!("walk directories on ", $words, ", an entry"),
                US,
                ENTRIES,
            ),
            Measure::guest(
                concat!($place, ".remove"),
                concat!("remove a file on ", $words),
                US,
                0,
            ),
            Measure::guest(
                concat!($place, ".write"),
                concat!("write one file on ", $words),
                RATE,
                LARGE_BYTES,
            ),
            Measure::guest(
                concat!($place, ".fsync"),
                concat!("write 4 KiB and fsync on ", $words),
                US,
                LARGE_BYTES,
            ),
        ]
    };
}

const ROOT: [Measure; 7] = files!("fs.root", "the root file system");
const VOLUME: [Measure; 7] = files!("fs.volume", "a volume");
const TMPFS: [Measure; 7] = files!("fs.tmpfs", "a tmpfs");

/// All measures, in the order of the report.
pub const MEASURES: [Measure; 47] = {
    let [r0, r1, r2, r3, r4, r5, r6] = ROOT;
    let [v0, v1, v2, v3, v4, v5, v6] = VOLUME;
    let [t0, t1, t2, t3, t4, t5, t6] = TMPFS;
    [
        Measure::new(
            "start.cold",
            "from an image archive to the exit of its first program",
            MS,
            Group::Cold,
        ),
        Measure::new(
            "start.warm",
            "from the command line to the exit code",
            MS,
            Group::Warm,
        ),
        Measure::new(
            "start.load",
            "16 starts at once, until the last has ended",
            MS,
            Group::Load,
        ),
        Measure::new(
            "stop",
            "from the request until nothing is left",
            MS,
            Group::Stop,
        ),
        Measure::new(
            "memory.idle",
            "one idle instance, with what belongs to it (PSS)",
            MIB,
            Group::Memory,
        ),
        Measure::new(
            "memory.more",
            "each further one, up to a hundred (PSS)",
            MIB,
            Group::Memory,
        ),
        Measure::new(
            "memory.hundredth",
            "the hundredth, with what belongs to it (PSS)",
            MIB,
            Group::Memory,
        ),
        Measure::new(
            "memory.taken",
            "each further one, with the kernel's part: what the machine has less",
            MIB,
            Group::Memory,
        ),
        Measure::new(
            "memory.density",
            "instances until the machine's memory is gone, extrapolated",
            COUNT,
            Group::Memory,
        ),
        Measure::guest(
            "cpu.integer",
            "sort 100,000 numbers, a number",
            NS,
            0xd115_f9d3_4e44_1494,
        ),
        Measure::guest(
            "cpu.float",
            "orbits of three bodies, a step",
            NS,
            0x52ba_d1c6_0891_2323,
        ),
        Measure::guest(
            "cpu.simd",
            "four lanes of 32 bits, a vector",
            NS,
            0x5d35_5003_bf9e_f007,
        ),
        // The digest of 2^20 zeros begins so.
        Measure::guest("cpu.hash", "SHA-256", RATE, 0x30e1_4955_ebf1_3522),
        Measure::guest(
            "memory.bandwidth",
            "copy 16 MiB",
            RATE,
            0x2ad8_2853_85ce_0000,
        ),
        Measure::guest(
            "memory.random",
            "read at random places of 32 MiB",
            NS,
            0x003e_2d20,
        ),
        Measure::guest("syscall.clock", "clock_gettime", NS, 0),
        Measure::guest("syscall.getpid", "getpid", NS, 0),
        Measure::guest("syscall.fstat", "fstat", NS, 0),
        Measure {
            check: Some(PIPE_BYTES as u64),
            ..Measure::new(
                "pipe.echo",
                "standard input to standard output",
                RATE,
                Group::Pipe,
            )
        },
        Measure {
            check: Some(TRIPS_CHECK),
            ..Measure::new(
                "net.loopback.trip",
                "a byte to and fro over TCP on loopback, both ends in the guest",
                US,
                Group::Loopback,
            )
        },
        Measure {
            check: Some(CHUNKS * 7),
            ..Measure::new(
                "net.loopback.stream",
                "bytes over TCP on loopback, both ends in the guest",
                RATE,
                Group::Loopback,
            )
        },
        Measure::new(
            "net.bridge.trip",
            "a byte from the host to a server and back, over its bridge",
            US,
            Group::Bridge,
        ),
        Measure::new(
            "net.bridge.stream",
            "bytes from the host to a server, over its bridge",
            RATE,
            Group::Bridge,
        ),
        Measure::new(
            "net.host.trip",
            "a byte from the host to a server and back, on the host's network",
            US,
            Group::Host,
        ),
        Measure::new(
            "net.host.stream",
            "bytes from the host to a server, on the host's network",
            RATE,
            Group::Host,
        ),
        Measure::new(
            "net.http",
            "GET / over 8 connections: a native server, or a wasi:http component",
            REQUESTS,
            Group::Http,
        ),
        r0,
        r1,
        r2,
        r3,
        r4,
        r5,
        r6,
        v0,
        v1,
        v2,
        v3,
        v4,
        v5,
        v6,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
    ]
};
