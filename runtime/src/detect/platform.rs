//! Platform strings.

/// Brings the spellings of a wasm platform to one: `wasi/wasm`, or `wasi/wasm64`. Others are
/// returned in lower case.
///
/// ```
/// use runtime::detect::normalise_platform;
/// assert_eq!(normalise_platform("Wasip1", "wasm32"), ("wasi".into(), "wasm".into()));
/// assert_eq!(normalise_platform("linux", "arm64"), ("linux".into(), "arm64".into()));
/// ```
#[must_use]
pub fn normalise_platform(os: &str, architecture: &str) -> (String, String) {
    let os = os.to_ascii_lowercase();
    let architecture = architecture.to_ascii_lowercase();
    let os = match os.as_str() {
        "wasip1" | "wasip2" | "wasip3" => "wasi".to_owned(),
        _ => os,
    };
    let architecture = match architecture.as_str() {
        "wasm32" => "wasm".to_owned(),
        _ => architecture,
    };
    (os, architecture)
}

/// Whether a platform is one of WebAssembly's, however it is spelt.
#[must_use]
pub fn is_wasm_platform(os: &str, architecture: &str) -> bool {
    let (os, _) = normalise_platform(os, architecture);
    os == "wasi" || is_wasm_architecture(architecture)
}

pub(super) fn is_wasm_architecture(architecture: &str) -> bool {
    ["wasm", "wasm32", "wasm64"]
        .iter()
        .any(|name| architecture.eq_ignore_ascii_case(name))
}
