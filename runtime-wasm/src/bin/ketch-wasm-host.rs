//! The wasm host: exec'd by a container's init, runs one guest. See [`runtime_wasm::host`].
#![forbid(unsafe_code)]

fn main() {
    runtime_wasm::host::main()
}
