//! Parts of a container's start: system call filters, and records of its state.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::ffi::CString;
use std::hint::black_box;
use std::os::unix::ffi::OsStringExt;

use criterion::{Criterion, criterion_group, criterion_main};
use runtime_native::seccomp::{Arch, compile, default_profile, default_spec};
use state::ContainerState;
use sys::durable::{Durability, replace_file};
use sys::mount::FileSystem;

/// `CAP_CHOWN`, `CAP_KILL` and `CAP_SETUID`: the profile has rules that depend on capabilities.
const CAPABILITIES: u64 = 1 << 0 | 1 << 5 | 1 << 7;

const ARCH: Arch = if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::X86_64
};

fn seccomp(criterion: &mut Criterion) {
    let profile = default_spec(CAPABILITIES, ARCH);
    let expected = default_profile(CAPABILITIES, ARCH);
    let mut group = criterion.benchmark_group("seccomp");
    group.bench_function("compile/default-profile", |bench| {
        bench.iter(|| compile(black_box(&profile), ARCH).unwrap());
    });
    group.bench_function("built-in/default-profile", |bench| {
        bench.iter(|| {
            let program = default_profile(black_box(CAPABILITIES), ARCH);
            assert_eq!(program.len(), expected.len());
            program
        });
    });
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let state = ContainerState {
        pid: Some(4711),
        started_at: Some(state::clock::now()),
        ..ContainerState::created()
    };
    let mut group = criterion.benchmark_group("state");
    group.bench_function("write/container", |bench| {
        bench.iter(|| black_box(&state).write(dir.path()).unwrap());
    });
    group.bench_function("read/container", |bench| {
        bench.iter(|| {
            let read = ContainerState::read(dir.path()).unwrap();
            assert_eq!(read.pid, Some(4711));
        });
    });
    group.sample_size(20);
    group.bench_function("write-synced/4KiB", |bench| {
        let bytes = vec![b'x'; 4096];
        let path = dir.path().join("synced");
        bench.iter(|| replace_file(&path, &bytes, Durability::Synced).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    });
    group.finish();
}

/// Layers of the overlay.
const LAYERS: usize = 5;

/// An overlay as a container's root is made: the calls of `runtime-native/src/layers.rs`. What is not attached goes with its
/// descriptor.
fn overlay(criterion: &mut Criterion) {
    if !rustix::process::geteuid().is_root() {
        skipped("overlay/set-up needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        CString::new(path.into_os_string().into_vec()).unwrap()
    };
    let lower: Vec<CString> = (0..LAYERS).map(|n| make(&format!("lower{n}"))).collect();
    let (upper, work) = (make("upper"), make("work"));
    let mut group = criterion.benchmark_group("overlay");
    group.bench_function(format!("set-up/{LAYERS}-layers"), |bench| {
        bench.iter(|| {
            let context = FileSystem::open(c"overlay").unwrap();
            for layer in &lower {
                context.set(c"lowerdir+", Some(layer)).unwrap();
            }
            context.set(c"upperdir", Some(&upper)).unwrap();
            context.set(c"workdir", Some(&work)).unwrap();
            context.set(c"volatile", None).unwrap();
            drop(context.mount(0).unwrap());
            // A volatile overlay marks its work directory, and is not mounted over the mark again.
            std::fs::remove_dir_all(dir.path().join("work/work")).unwrap();
        });
    });
    group.finish();
}

#[expect(clippy::print_stderr, reason = "a benchmark says what it leaves out")]
fn skipped(what: &str) {
    eprintln!("left out: {what}");
}

criterion_group!(benches, seccomp, records, overlay);
criterion_main!(benches);
