//! The settings of the engine, made in one place for compiler and host.
//!
//! An artifact carries the settings it was compiled with, and an engine with others refuses it.
//! Cargo features of `wasmtime` change defaults (a build without `threads` disagrees with one that
//! has it), so every proposal is set here.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, ProfilingStrategy,
    WasmBacktraceDetails,
};

use crate::spec::Metering;

/// The wasmtime release that this crate is pinned to (`Cargo.toml`): part of the cache's key.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Raised whenever [`config`] changes, so that a newer build does not read an older cache.
pub const PROFILE_REVISION: u32 = 2;

/// Addresses reserved for each 32-bit memory.
const MEMORY_RESERVATION: u64 = 4 << 30;

/// Core instances and tables that a component is made of, in a pool. What needs more gets an error
/// at its instantiation.
const CORES_PER_COMPONENT: u32 = 16;

/// Elements of a table in a pool.
const TABLE_ELEMENTS: u64 = 100_000;

/// Largest stack of a guest, in bytes. Recursion beyond it is a trap.
const MAX_WASM_STACK: usize = 1 << 20;

/// The host's side of that stack: the guest's and room for host calls.
const ASYNC_STACK: usize = 2 << 20;

/// Frames in the backtrace of a trap.
const BACKTRACE_FRAMES: usize = 64;

/// What kind of program the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Serving {
    /// One instance that runs to its end and is stopped by a signal. No epochs: they cost 15 to
    /// 45 % of the guest's speed.
    Command,
    /// Many short instances in one process: epochs, so that none keeps a thread for itself.
    Http,
}

/// For what kind of container the engine is made: what decides over the compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Command or HTTP.
    pub serving: Serving,
    /// The guest's work is counted.
    pub fuel: bool,
    /// The same input gives the same output.
    pub deterministic: bool,
}

impl Profile {
    /// An ordinary command.
    pub const COMMAND: Self = Self {
        serving: Serving::Command,
        fuel: false,
        deterministic: false,
    };

    /// An ordinary HTTP world.
    pub const HTTP: Self = Self {
        serving: Serving::Http,
        ..Self::COMMAND
    };

    /// The profile of a container.
    #[must_use]
    pub fn new(serving: Serving, metering: Metering) -> Self {
        Self {
            serving,
            fuel: metering.fuel.is_some(),
            deterministic: metering.deterministic,
        }
    }
}

/// The profile's part of the engine's key: `command`, `http-fuel`, …
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.serving {
            Serving::Command => "command",
            Serving::Http => "http",
        })?;
        if self.fuel {
            f.write_str("-fuel")?;
        }
        if self.deterministic {
            f.write_str("-deterministic")?;
        }
        Ok(())
    }
}

/// Makes the settings for `profile`.
#[must_use]
pub fn config(profile: Profile) -> Config {
    let mut config = Config::new();
    proposals(&mut config);
    config
        // The whole 32-bit memory is reserved with guard pages: no bounds check is compiled in.
        .memory_reservation(MEMORY_RESERVATION)
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
        .profiler(ProfilingStrategy::None)
        .epoch_interruption(profile.serving == Serving::Http)
        .consume_fuel(profile.fuel)
        .relaxed_simd_deterministic(profile.deterministic);
    #[cfg(feature = "compiler")]
    config
        .strategy(wasmtime::Strategy::Cranelift)
        .cranelift_opt_level(wasmtime::OptLevel::Speed)
        .cranelift_nan_canonicalization(profile.deterministic)
        .parallel_compilation(true);
    config
}

/// How many instances a server has at once, and how much memory each may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Instances.
    pub instances: u32,
    /// Bytes of each linear memory.
    pub memory_bytes: u64,
}

/// Makes the engine of an HTTP world: its instances come from a pool, whose slots are cleaned by
/// looking at the pages that were written (`PAGEMAP_SCAN`, Linux 6.7), which is twice as fast as
/// asking the kernel for new ones. Where so many addresses cannot be reserved it has no pool.
///
/// # Errors
/// As [`engine`].
pub fn pooling_engine(profile: Profile, pool: Pool) -> wasmtime::Result<Engine> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = pool.memory_bytes.min(MEMORY_RESERVATION);
    // What slots keep between guests is at most a quarter of what the container may have.
    let share = pool.memory_bytes / u64::from(pool.instances.max(1)) / 4;
    let keep = share.clamp(16 << 10, 1 << 20);
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(pool.instances)
        .total_core_instances(pool.instances.saturating_mul(CORES_PER_COMPONENT))
        .total_memories(pool.instances)
        .total_tables(pool.instances.saturating_mul(CORES_PER_COMPONENT))
        .total_stacks(pool.instances)
        .total_gc_heaps(pool.instances)
        .max_memory_size(size(memory))
        .table_elements(size(TABLE_ELEMENTS))
        .max_unused_warm_slots(pool.instances)
        .linear_memory_keep_resident(size(keep))
        .table_keep_resident(size(keep.min(64 << 10)))
        .async_stack_keep_resident(size(keep.min(64 << 10)))
        .pagemap_scan(wasmtime::Enabled::Auto);
    let mut config = config(profile);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    Engine::new(&config).or_else(|_| engine(profile))
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
        let key = || engine_key(&engine(Profile::COMMAND).unwrap(), Profile::COMMAND);
        assert_eq!(key(), key());
        assert!(key().starts_with("48.0.8-command-"), "{}", key());
    }

    #[test]
    fn wasmtime_version_is_the_one_in_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"");
        assert!(lock.contains(&entry));
    }

    /// S48 (CVE-2026-34988): what a guest has written is gone before another one gets its place.
    #[test]
    fn pool_slot_of_an_earlier_guest_is_zero() {
        let pool = Pool {
            instances: 1,
            memory_bytes: 8 << 20,
        };
        let engine = pooling_engine(Profile::HTTP, pool).unwrap();
        let writer = r#"(module (memory (export "memory") 64)
            (func (export "run") (result i32)
              (memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 0x400000)) (i32.const 0)))"#;
        // The first byte that is not zero, or -1.
        let reader = r#"(module (memory (export "memory") 64)
            (func (export "run") (result i32) (local $at i32)
              (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
                  (then (return (local.get $at))))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 0x400000))))
              (i32.const -1)))"#;
        let run = |text: &str| {
            let module = wasmtime::Module::new(&engine, wat::parse_str(text).unwrap()).unwrap();
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_epoch_deadline(u64::MAX / 2);
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
            let run = instance.get_typed_func::<(), i32>(&mut store, "run");
            run.unwrap().call(&mut store, ()).unwrap()
        };
        for _ in 0..4 {
            assert_eq!(run(writer), 0);
            assert_eq!(run(reader), -1);
        }
    }

    #[test]
    fn profile_names_tell_all_profiles_apart() {
        let metering = |fuel, deterministic| Metering {
            fuel,
            deterministic,
        };
        let name = |serving, metering| Profile::new(serving, metering).to_string();
        assert_eq!(name(Serving::Command, metering(None, false)), "command");
        assert_eq!(
            name(Serving::Http, metering(Some(1), true)),
            "http-fuel-deterministic"
        );
    }
}
