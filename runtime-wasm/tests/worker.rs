//! The compile worker as a process: this program starts itself as `ketch` would.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it does"
)]

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use runtime_wasm::cache::{ModuleCache, ModuleDigest, remembered_engine_key};
use runtime_wasm::engine::Profile;
use runtime_wasm::worker::{self, CompileRequest, Variant, WorkerError, ensure_compiled};
use runtime_wasm::{WasmInfo, World};
use state::Layout;

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next() == Some(OsString::from(worker::SUBCOMMAND)) {
        let input = std::io::stdin();
        let input = rustix::io::fcntl_dupfd_cloexec(&input, 3).unwrap();
        worker::main(args, File::from(input), std::io::stdout()).unwrap();
        return;
    }
    let tests: [Test; 6] = [
        (
            "module_is_compiled_once_and_recorded",
            module_is_compiled_once,
        ),
        ("module_that_cannot_run_is_refused", module_that_cannot_run),
        ("digest_of_other_bytes_is_refused", digest_of_other_bytes),
        ("forgotten_engine_key_is_found_again", forgotten_engine_key),
        ("callers_at_once_share_one_compilation", callers_at_once),
        ("failure_leaves_nothing_behind", failure_leaves_nothing),
    ];
    for (name, test) in tests {
        test(&Store::new());
        println!("test {name} ... ok");
    }
}

/// A name and what it checks, in a store of its own.
type Test = (&'static str, fn(&Store));

struct Store {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        Self { dir, layout }
    }

    fn module(&self, text: &str) -> (PathBuf, ModuleDigest) {
        let bytes = wat::parse_str(text).unwrap();
        let digest = ModuleDigest::of(&bytes);
        let path = self.dir.path().join(digest.hex());
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        (path, digest)
    }

    fn ensure(&self, module: &Path, digest: &ModuleDigest) -> Result<PathBuf, WorkerError> {
        let this = std::env::current_exe().unwrap();
        let request = CompileRequest {
            ketch: &this,
            module,
            digest: digest.hex(),
            variant: Variant::default(),
            invoke: None,
        };
        Ok(ensure_compiled(&self.layout, request)?.path)
    }

    fn compiled_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for dir in std::fs::read_dir(self.layout.compiled()).unwrap() {
            let entries = std::fs::read_dir(dir.unwrap().path()).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        files
    }
}

const HELLO: &str = r#"(module (func (export "_start")))"#;

fn module_is_compiled_once(store: &Store) {
    let (module, digest) = store.module(HELLO);
    let path = store.ensure(&module, &digest).unwrap();
    let made = path.metadata().unwrap().modified().unwrap();
    assert_eq!(store.ensure(&module, &digest).unwrap(), path);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), made);

    let key = remembered_engine_key(&store.layout, Profile::COMMAND).unwrap();
    let record = ModuleCache::new(&store.layout, &key)
        .record(&digest)
        .unwrap();
    assert_eq!(record.module_digest, format!("sha256:{}", digest.hex()));
    assert_eq!(record.artifact_bytes, path.metadata().unwrap().len());
    let artifact = std::fs::read(&path).unwrap();
    assert_eq!(record.artifact_sha256, ModuleDigest::of(&artifact).hex());
    let WasmInfo { world, exports, .. } = record.info;
    assert_eq!(
        (world, exports),
        (World::CommandP1, vec!["_start".to_owned()])
    );
}

fn module_that_cannot_run(store: &Store) {
    let (module, digest) = store.module(r#"(module (import "env" "f" (func)))"#);
    let error = store.ensure(&module, &digest).unwrap_err();
    assert!(matches!(&error, WorkerError::Refused(_)), "{error:?}");
    let (module, digest) = store.module(
        r#"(module (import "env" "f" (func)) (import "env" "g" (func)) (func (export "_start")))"#,
    );
    let error = store.ensure(&module, &digest).unwrap_err();
    let expected = "the module imports what nothing provides: env.f, env.g";
    assert_eq!(error.to_string(), expected);
}

fn digest_of_other_bytes(store: &Store) {
    let (module, _) = store.module(HELLO);
    let error = store
        .ensure(&module, &ModuleDigest::of(b"other"))
        .unwrap_err();
    assert!(matches!(&error, WorkerError::Failed(_)), "{error:?}");
    assert!(store.compiled_files().is_empty());
}

fn forgotten_engine_key(store: &Store) {
    let (module, digest) = store.module(HELLO);
    let path = store.ensure(&module, &digest).unwrap();
    let made = path.metadata().unwrap().modified().unwrap();
    for entry in std::fs::read_dir(store.layout.run()).unwrap() {
        let entry = entry.unwrap().path();
        if entry.is_file() {
            std::fs::remove_file(entry).unwrap();
        }
    }
    assert_eq!(store.ensure(&module, &digest).unwrap(), path);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), made);
}

fn callers_at_once(store: &Store) {
    let (module, digest) = store.module(HELLO);
    let paths: Vec<PathBuf> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| store.ensure(&module, &digest).unwrap()))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    // The module and its record.
    assert_eq!(store.compiled_files().len(), 2);
}

fn failure_leaves_nothing(store: &Store) {
    for text in ["(component)", "(module (memory 1 1 shared))"] {
        let (module, digest) = store.module(text);
        store.ensure(&module, &digest).unwrap_err();
    }
    assert!(store.compiled_files().is_empty());
    assert_eq!(std::fs::read_dir(store.layout.tmp()).unwrap().count(), 0);
}
