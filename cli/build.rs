//! Builds the small executables that travel inside `ketch`: `ketch-init`, the wasm host, and the
//! first process of containers with `--init`.
//!
//! They are linked statically, by the musl target where it is installed and by the host's C library
//! otherwise, so that starting one costs no dynamic linking (ARCHITECTURE.md, "Small executables").
//! The build is nested: its own target directory, and none of this build's settings.
//!
//! `KETCH_PREBUILT` names a directory that has both already: a packager builds them once, and who
//! works on a front end does not wait for them. They must come from the same sources.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo talks to build scripts by the environment"
)]

use std::env;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package, binary and arguments of each small executable.
const EXECUTABLES: [(&str, &str, Libc, &[&str]); 3] = [
    ("monitor", "ketch-init", Libc::MuslIfInstalled, &[]),
    // wasmtime compiles C, for which the musl target needs a C compiler of its own.
    (
        "runtime-wasm",
        "ketch-wasm-host",
        Libc::Own,
        &["--no-default-features", "--features", "host"],
    ),
    (
        "pid1",
        "ketch-pid1",
        Libc::None,
        &["--features", "standalone"],
    ),
];

/// Which C library an executable is linked with, statically in both cases.
#[derive(Clone, Copy, PartialEq)]
enum Libc {
    /// musl where its target is installed: it starts 0.4 ms sooner.
    MuslIfInstalled,
    /// The one of the machine's own target.
    Own,
    /// None: the program is its own start, in as few pages as it can be.
    None,
}

/// Static, without relocations to write at each start; random numbers come from the system call,
/// since a container's root need not have `/dev/urandom`.
const FLAGS: &str = "-Ctarget-feature=+crt-static -Crelocation-model=static \
                     --cfg getrandom_backend=\"linux_getrandom\"";

/// For a program without a C library.
const BARE_FLAGS: &str = "-Ctarget-feature=+crt-static -Crelocation-model=static \
                          -Clink-arg=-nostartfiles -Clink-arg=-nostdlib -Clink-arg=-static \
                          -Clink-arg=-Wl,--build-id=none,-z,noseparate-code,-z,norelro";

/// What a change of rebuilds them for.
const SOURCES: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "monitor",
    "network",
    "pid1",
    "runtime",
    "runtime-native",
    "runtime-wasm",
    "state",
    "sys",
    "volume",
];

fn main() {
    // Containers, and what runs in them, are Linux's.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // Asked for when it runs: a build script that was built in another copy of the workspace and came
    // here with its target directory would build that copy's programs.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let manifest = manifest.expect("cargo sets CARGO_MANIFEST_DIR");
    let root = manifest.parent().expect("cli stands in the workspace");
    println!("cargo:rerun-if-env-changed=KETCH_PREBUILT");
    let prebuilt = env::var_os("KETCH_PREBUILT").map(PathBuf::from);
    for source in SOURCES.iter().filter(|_| prebuilt.is_none()) {
        if root.join(source).exists() {
            println!("cargo:rerun-if-changed={}", root.join(source).display());
        }
    }
    // A position-independent program of this size relocates 0.9 MB at each start: 1 ms.
    println!("cargo:rustc-link-arg-bin=ketch=-no-pie");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let (own, musl) = targets();
    let mut hasher = DefaultHasher::new();
    for (package, binary, libc, features) in EXECUTABLES {
        let target = match libc {
            Libc::MuslIfInstalled => &musl,
            Libc::Own | Libc::None => &own,
        };
        let flags = match libc {
            Libc::None => BARE_FLAGS,
            Libc::MuslIfInstalled | Libc::Own => FLAGS,
        };
        let built = match &prebuilt {
            Some(dir) => {
                println!("cargo:rerun-if-changed={}", dir.join(binary).display());
                dir.join(binary)
            }
            None => build(root, &out, [target, flags], package, binary, features),
        };
        std::fs::copy(&built, out.join(binary)).expect("the built executable can be copied");
        hasher.write(&std::fs::read(out.join(binary)).expect("the built executable can be read"));
    }
    println!("cargo:rustc-env=KETCH_EXECUTABLES={:016x}", hasher.finish());
}

/// The machine's own target, and the musl one where it is installed.
fn targets() -> (String, String) {
    let own = env::var("TARGET").expect("cargo sets TARGET");
    let musl = own.replace("-gnu", "-musl");
    let libdir = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"))
        .args(["--print", "target-libdir", "--target", &musl])
        .output();
    let installed = libdir.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(text.trim()).is_dir()
    });
    let musl = if installed { musl } else { own.clone() };
    (own, musl)
}

fn build(
    root: &Path,
    out: &Path,
    [target, flags]: [&str; 2],
    package: &str,
    binary: &str,
    extra: &[&str],
) -> PathBuf {
    // Shared by all profiles and kept over builds; a lock of its own, so it cannot wait for ours.
    let target_dir = target_dir(out);
    let profile = match env::var("PROFILE").as_deref() {
        Ok("release") => "small",
        _ => "small-dev",
    };
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    cargo
        .current_dir(root)
        .args([
            "build",
            "--locked",
            "--profile",
            profile,
            "--package",
            package,
            "--bin",
            binary,
        ])
        .args(["--target", target])
        .args(extra)
        .arg("--target-dir")
        .arg(&target_dir);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign =
            text.starts_with("CARGO_") && text != "CARGO_HOME" && !text.starts_with("CARGO_NET");
        if foreign
            || text.starts_with("RUSTC")
            || text == "RUSTFLAGS"
            || text == "RUSTDOCFLAGS"
            || text == "__CARGO_FIX_YOLO"
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env("RUSTFLAGS", flags);
    let status = cargo.status().expect("cargo can be run");
    assert!(status.success(), "cannot build {binary}");
    target_dir.join(target).join(profile).join(binary)
}

/// `<target>/embedded`, four levels above `<target>/<profile>/build/<package>/out`.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("embedded")
}
