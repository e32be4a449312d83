//! The wasm host: exec'd by a container's init, runs one guest. See [`runtime_wasm::host`].
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
fn main() {
    runtime_wasm::host::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> Result<(), &'static str> {
    Err("the wasm host is the first process of a container, which needs Linux")
}
