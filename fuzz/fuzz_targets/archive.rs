#![no_main]

#[path = "../src/change.rs"]
mod change;

use std::sync::LazyLock;

use ketch_fuzz::seeds;

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(seeds::archives);

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change::change(&SEEDS, data, size, seed, |data| {
        libfuzzer_sys::fuzzer_mutate(data, size, max_size)
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ketch_fuzz::archive(bytes));
