//! What travels inside `ketch`: the small executables and the images `hello`, `ketch-bench` and `ketch-bench-net`.

use engine::Executables;

/// The small executables, built by `build.rs`.
pub(crate) const EXECUTABLES: Executables = Executables {
    init: include_bytes!(concat!(env!("OUT_DIR"), "/ketch-init")),
    wasm_host: include_bytes!(concat!(env!("OUT_DIR"), "/ketch-wasm-host")),
    pid1: include_bytes!(concat!(env!("OUT_DIR"), "/ketch-pid1")),
    version: env!("KETCH_EXECUTABLES"),
};

/// The image `hello`: an OCI layout as a tar archive (`fixtures/images/build.py`).
pub(crate) const HELLO: &[u8] = include_bytes!("../../fixtures/images/hello.tar");

/// The image of the program that `bench` times: the same.
pub(crate) const BENCH: &[u8] = include_bytes!("../../fixtures/images/bench.tar");

/// The image of the programs that it talks to over networks: the same.
pub(crate) const BENCH_NET: &[u8] = include_bytes!("../../fixtures/images/net.tar");
