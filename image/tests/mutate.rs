//! The fuzz targets on a stable toolchain: their seeds, and seeds changed at random, the same ones
//! each time. `KETCH_FUZZ_ITERATIONS` makes it longer; `fuzz/run` looks for new paths.
#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library for the fuzzer")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use targets::seeds;

/// Changes for each seed.
const ITERATIONS: u64 = 300;

/// A generator that gives the same numbers each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// Changes some bytes, cuts something out, or repeats something.
fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = b"\0/.0179\xff"[random.below(8)],
            3 => bytes.truncate(at),
            _ => {
                let end = (at + random.below(1024)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn run(name: &str, seeds: &[Vec<u8>], share: u64, target: fn(&[u8])) {
    #[expect(clippy::disallowed_methods, reason = "the tests' own switch")]
    let wanted = std::env::var("KETCH_FUZZ_ITERATIONS").ok();
    let iterations = wanted.map_or(ITERATIONS, |text| text.parse().unwrap()) / share;
    for (number, seed) in seeds.iter().enumerate() {
        target(seed);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 + number as u64);
        for iteration in 0..iterations {
            let mut bytes = mutate(seed, &mut random);
            if iteration % 4 != 0 {
                seeds::sign(&mut bytes);
            }
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                panic!(
                    "{name}, seed {number}, iteration {iteration}: {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }
}

#[test]
fn tar_of_any_bytes_is_read_in_one_way() {
    run("tar", &seeds::tars(), 1, targets::tar);
}

#[test]
fn documents_of_any_bytes_are_one_thing_or_refused() {
    run("documents", &seeds::documents(), 1, targets::documents);
}

#[test]
fn references_of_any_bytes_have_one_meaning() {
    run("references", &seeds::references(), 1, targets::references);
}

#[test]
fn archive_of_any_bytes_is_loaded_whole_or_leaves_nothing() {
    run("archive", &seeds::archives(), 10, targets::archive);
}
