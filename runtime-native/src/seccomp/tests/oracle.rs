//! Asks libseccomp through a Python script: loading a C library needs unsafe code here.

use std::io::Write;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("oracle.py");

/// libseccomp's filter for a profile.
pub(super) struct Answer {
    /// Calls that are newer than the library.
    pub(super) unknown: Vec<String>,
    pub(super) filter: Vec<u8>,
}

/// Whether libseccomp can be asked. If not, the caller returns; it is said loudly, and an error
/// where every test is required.
#[expect(
    clippy::disallowed_methods,
    reason = "the switch of the test suite, not a setting"
)]
pub(super) fn is_available() -> bool {
    let probe = "import ctypes; ctypes.CDLL('libseccomp.so.2')";
    let found = Command::new("python3")
        .args(["-c", probe])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var("KETCH_TEST_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "python3 or libseccomp.so.2 is missing");
        eprintln!("skipped: python3 or libseccomp.so.2 is missing");
    }
    found
}

/// The filter that libseccomp makes of `profile`.
pub(super) fn filter(profile: &LinuxSeccomp) -> Answer {
    let answer = ask(&json!({ "profile": profile }));
    let unknown = answer["unknown"].as_array().expect("a list");
    Answer {
        unknown: unknown
            .iter()
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect(),
        filter: hex(answer["filter"].as_str().expect("hexadecimal digits")),
    }
}

/// The numbers that libseccomp gives to `names`, by architecture and name.
pub(super) fn numbers(names: &[&str]) -> Value {
    ask(&json!({ "resolve": names }))
}

fn ask(request: &Value) -> Value {
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut input = child.stdin.take().expect("a pipe");
    input
        .write_all(request.to_string().as_bytes())
        .expect("the script reads");
    drop(input);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "libseccomp refused");
    serde_json::from_slice(&output.stdout).expect("the script writes JSON")
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits")
        })
        .collect()
}
