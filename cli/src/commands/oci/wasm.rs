//! A bundle that holds WebAssembly runs in the Wasmtime sandbox, inside the same namespaces: that
//! is how containerd, and Kubernetes with a RuntimeClass, get both kinds.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use runtime::WasmPlan;
use runtime::detect::HEADER_LEN;
use runtime_native::oci::{Bundle, OciError};
use rustix::fs::{Mode, OFlags};

use super::global::Global;

/// What other runtimes read to know that a bundle is WebAssembly: the bytes of the program say the
/// same, so these only make a missing module an error.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("module.wasm.image/variant", "compat"),
    ("run.oci.handler", "wasm"),
];

/// What the wasm host needs, when the bundle's program is a wasm file by its first bytes.
pub(super) fn plan(global: &Global, bundle: &Bundle) -> Result<Option<WasmPlan>, OciError> {
    let wanted = is_annotated(bundle);
    let Some((file, name)) = find(bundle)? else {
        return match wanted {
            true => Err(unusable("its program is not there")),
            false => Ok(None),
        };
    };
    let path = bundle.rootfs.join(name.trim_start_matches('/'));
    let failed = |source| OciError::Io {
        what: "read",
        path: path.clone(),
        source,
    };
    let mut head = Vec::new();
    let limit = HEADER_LEN as u64;
    (&file).take(limit).read_to_end(&mut head).map_err(failed)?;
    if !head.starts_with(b"\0asm") {
        return match wanted {
            true => Err(unusable("its program is not a wasm file")),
            false => Ok(None),
        };
    }
    // The descriptor, not the path: what was looked at is what is compiled.
    let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let process = bundle.spec.process().as_ref();
    let process = process.ok_or_else(|| unusable("`process` is missing"))?;
    let engine = global
        .context
        .engine()
        .map_err(|e| unusable(&format!("{e:#}")))?;
    engine
        .wasm_bundle(&opened, &name, process)
        .map(Some)
        .map_err(|error| unusable(&error.to_string()))
}

fn is_annotated(bundle: &Bundle) -> bool {
    let annotations = bundle.spec.annotations().as_ref();
    annotations.is_some_and(|annotations| {
        ANNOTATIONS.iter().any(|(key, value)| {
            annotations
                .get(*key)
                .is_some_and(|found| found.starts_with(value))
        })
    })
}

fn unusable(why: &str) -> OciError {
    OciError::Unsupported {
        what: "run the bundle in the wasm sandbox".to_owned(),
        why: why.to_owned(),
    }
}

fn c_path(path: &Path) -> Result<CString, OciError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| unusable(&error.to_string()))
}

/// The program's file, found as `execve` would find it, beneath the bundle's root.
fn find(bundle: &Bundle) -> Result<Option<(File, String)>, OciError> {
    let process = bundle.spec.process().as_ref();
    let args = process.and_then(|process| process.args().as_deref());
    let Some(program) = args.and_then(|args| args.first()) else {
        return Ok(None);
    };
    let root = sys::path::open_root(&bundle.rootfs).map_err(|source| OciError::Io {
        what: "open",
        path: bundle.rootfs.clone(),
        source,
    })?;
    let env = process.and_then(|process| process.env().as_deref());
    let path = env.unwrap_or_default().iter().rev();
    let path = path.clone().find_map(|pair| pair.strip_prefix("PATH="));
    let cwd = process.map(|process| process.cwd().display().to_string());
    let candidates: Vec<String> = match program.contains('/') {
        true if program.starts_with('/') => vec![program.clone()],
        true => vec![format!("{}/{program}", cwd.unwrap_or_default())],
        false => {
            let dirs = path.unwrap_or("/usr/local/bin:/usr/bin:/bin").split(':');
            dirs.map(|dir| format!("{dir}/{program}")).collect()
        }
    };
    for name in candidates {
        let c_name = c_path(Path::new(&name))?;
        // A pipe or device in the place of the program must not hold anybody up.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match sys::path::open_in_root(root.as_fd(), &c_name, flags, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                if file.metadata().is_ok_and(|meta| meta.is_file()) {
                    return Ok(Some((file, name)));
                }
            }
            // Whatever it is, `execve` will say.
            Err(_) => continue,
        }
    }
    Ok(None)
}
