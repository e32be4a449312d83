//! A guest whose input alone decides its output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// How far a clock goes on each time it is read: a loop that waits for time to pass comes to its
/// end, and two reads differ.
const TICK_NS: u64 = 1_000_000;

/// What the wall clock shows at first: 2001-09-09T01:46:40Z.
const EPOCH_NS: u64 = 1_000_000_000_000_000_000;

/// The bytes that "random" numbers are made of, over and over.
const SEED: [u8; 32] = *b"\x9e\x37\x79\xb9\x7f\x4a\x7c\x15\xf3\x9c\xc0\x60\x5c\xed\xc8\x34\x10\x82\x27\x6b\xf3\xa2\x72\x51\xf8\x6c\x6a\x11\xd0\xc1\x8e\x95";

/// Clocks that count their readers, and random numbers from one seed.
pub(super) fn apply(builder: &mut WasiCtxBuilder) {
    builder
        .wall_clock(Clock(AtomicU64::new(EPOCH_NS)))
        .monotonic_clock(Clock(AtomicU64::new(0)))
        .secure_random(Deterministic::new(SEED.to_vec()))
        .insecure_random(Deterministic::new(SEED.to_vec()))
        .insecure_random_seed(u128::from_le_bytes([0x5a; 16]));
}

struct Clock(AtomicU64);

impl Clock {
    fn tick(&self) -> u64 {
        self.0.fetch_add(TICK_NS, Ordering::Relaxed)
    }
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(TICK_NS)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.tick())
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        TICK_NS
    }

    fn now(&self) -> u64 {
        self.tick()
    }
}
