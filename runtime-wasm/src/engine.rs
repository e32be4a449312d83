//! The settings of the engine, made in one place for compiler and host.
//!
//! An artifact carries the settings it was compiled with, and an engine with others refuses it.
//! Cargo features of `wasmtime` change defaults (a build without `threads` disagrees with one that
//! has it), so every proposal is set here.

use std::fmt;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, ProfilingStrategy, WasmBacktraceDetails,
};

/// The wasmtime release that this crate is pinned to (`Cargo.toml`): part of the cache's key.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Raised whenever [`config`] changes, so that a newer build does not read an older cache.
pub const PROFILE_REVISION: u32 = 1;

/// Largest stack of a guest, in bytes. Recursion beyond it is a trap.
const MAX_WASM_STACK: usize = 1 << 20;

/// The host's side of that stack: the guest's and room for host calls.
const ASYNC_STACK: usize = 2 << 20;

/// Frames in the backtrace of a trap.
const BACKTRACE_FRAMES: usize = 64;

/// For what kind of container the engine is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// One instance that runs to its end and is stopped by a signal. No epochs and no fuel: they
    /// cost 15 to 45 % of the guest's speed.
    Command,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
        })
    }
}

/// Makes the settings for `profile`.
#[must_use]
pub fn config(profile: Profile) -> Config {
    let mut config = Config::new();
    proposals(&mut config);
    config
        // The whole 32-bit memory is reserved with guard pages: no bounds check is compiled in.
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .guard_before_linear_memory(true)
        .memory_init_cow(true)
        .table_lazy_init(true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .signals_based_traps(true)
        .concurrency_support(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(true)
        .debug_info(false)
        // Frames are found by frame pointers. Registering unwind tables crashes in a static musl
        // program and costs time at every load.
        .native_unwind_info(false)
        .profiler(ProfilingStrategy::None);
    match profile {
        Profile::Command => config.epoch_interruption(false).consume_fuel(false),
    };
    #[cfg(feature = "compiler")]
    config
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .cranelift_nan_canonicalization(false)
        .parallel_compilation(true);
    config
}

/// Every proposal by name: those that wasmtime 48 has on by default, and no other. Threads stay
/// off: shared memory is a tier 2 feature without security updates.
fn proposals(config: &mut Config) {
    config
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_reference_types(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(false)
        .wasm_tail_call(true)
        .wasm_function_references(true)
        .wasm_gc(true)
        .wasm_exceptions(true)
        .wasm_extended_const(true)
        .wasm_multi_memory(true)
        .wasm_memory64(true)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_shared_everything_threads(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .wasm_component_model_more_async_builtins(false)
        .wasm_component_model_async_stackful(false)
        .wasm_component_model_threading(false)
        .wasm_component_model_error_context(false)
        .wasm_component_model_gc(false)
        .wasm_component_model_map(false)
        .wasm_component_model_memory64(false)
        .wasm_component_model_fixed_length_lists(false)
        .wasm_component_model_implements(false);
}

/// Makes an engine for `profile`.
///
/// # Errors
/// When this machine cannot run what the settings ask for.
pub fn engine(profile: Profile) -> wasmtime::Result<Engine> {
    Engine::new(&config(profile))
}

/// Names what compiled code depends on besides the module: wasmtime's version, the profile, and a
/// hash of every setting and of this CPU's features. It is the name of the cache's directory.
#[cfg(feature = "compiler")]
#[must_use]
pub fn engine_key(engine: &Engine, profile: Profile) -> String {
    use std::hash::{Hash, Hasher};

    /// SHA-256 behind `Hasher`: the standard one may change between Rust releases.
    struct Digest(sha2::Sha256);
    impl Hasher for Digest {
        fn write(&mut self, bytes: &[u8]) {
            sha2::Digest::update(&mut self.0, bytes);
        }
        fn finish(&self) -> u64 {
            let hash: [u8; 32] = sha2::Digest::finalize(self.0.clone()).into();
            let (head, _) = hash.split_first_chunk().expect("32 bytes have a head of 8");
            u64::from_be_bytes(*head)
        }
    }
    let mut digest = Digest(sha2::Digest::new());
    PROFILE_REVISION.hash(&mut digest);
    engine.precompile_compatibility_hash().hash(&mut digest);
    format!("{WASMTIME_VERSION}-{profile}-{:016x}", digest.finish())
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    use super::*;

    #[test]
    fn engine_key_of_two_engines_is_the_same() {
        let key = || engine_key(&engine(Profile::Command).unwrap(), Profile::Command);
        assert_eq!(key(), key());
        assert!(key().starts_with("48.0.8-command-"), "{}", key());
    }

    #[test]
    fn wasmtime_version_is_the_one_in_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"");
        assert!(lock.contains(&entry));
    }
}
