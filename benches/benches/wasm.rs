//! The wasm host from the inside: compiled code made executable, and an instance made of it. What a whole start
//! costs is for `cargo run --release -p benches`.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use runtime_wasm::compile::compile;
use runtime_wasm::engine::{Profile, engine};
use runtime_wasm::host::{Ending, LoadError, run};
use runtime_wasm::{GuestRoot, WasmSpec};

/// The smallest command.
const EMPTY: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// A module in the form in which the store's cache has it.
struct Artifact {
    spec: WasmSpec,
    path: PathBuf,
}

impl Artifact {
    fn new(dir: &Path, name: &str, bytes: &[u8]) -> Self {
        let compiled = compile(&engine(Profile::COMMAND).unwrap(), bytes, None).unwrap();
        let path = dir.join(name);
        File::create(&path)
            .unwrap()
            .write_all(&compiled.artifact)
            .unwrap();
        let mut spec = WasmSpec::new(compiled.info.kind, vec![name.to_owned()]);
        spec.guest_root = GuestRoot::None;
        Self { spec, path }
    }

    fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }
}

fn modules(dir: &Path) -> [(&'static str, Artifact); 3] {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/guests/built");
    let read = |name: &str| std::fs::read(built.join(name)).unwrap();
    [
        ("empty", wat::parse_str(EMPTY).unwrap()),
        ("bench", read("bench.wasm")),
        ("component", read("component.wasm")),
    ]
    .map(|(name, bytes)| (name, Artifact::new(dir, name, &bytes)))
}

/// From the compiled file to code that could run, and back; the engine is made with it, as in every container.
fn deserialise(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("module");
    for (name, artifact) in &modules(dir.path()) {
        group.bench_function(format!("deserialise/{name}"), |bench| {
            bench.iter(|| {
                let enough = || Err(io::Error::other("enough"));
                let ended = run(&artifact.spec, artifact.open(), enough, |_| ());
                assert!(matches!(ended, Err(LoadError::Confine(_))));
            });
        });
    }
    group.finish();
}

/// From code that could run to the end of a command that does nothing: event loop, store, linker, instance, call.
fn instantiate(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let empty = Artifact::new(dir.path(), "empty", &wat::parse_str(EMPTY).unwrap());
    let mut group = criterion.benchmark_group("module");
    group.bench_function("instantiate/empty", |bench| {
        bench.iter_custom(|rounds| {
            let once = || {
                let mut loaded = None;
                let note = || {
                    loaded = Some(Instant::now());
                    Ok(())
                };
                let (ended, outcome) = run(&empty.spec, empty.open(), note, |outcome| {
                    (Instant::now(), outcome)
                })
                .unwrap();
                assert!(
                    matches!(outcome.ending, Ending::Exited),
                    "{}",
                    outcome.message()
                );
                ended - loaded.unwrap()
            };
            (0..rounds).map(|_| once()).sum::<Duration>()
        });
    });
    group.finish();
}

criterion_group!(benches, deserialise, instantiate);
criterion_main!(benches);
