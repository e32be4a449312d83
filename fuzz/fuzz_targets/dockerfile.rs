#![no_main]

// Beside the others, whose functions also run in the tests of a crate that knows no builder.
#[path = "../src/dockerfile.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::dockerfile(bytes));
