//! What is open where: a created container, and the sockets that descriptors are sent over.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use serde_json::json;

/// What a process has open.
fn open_files(pid: &str) -> Vec<PathBuf> {
    let dir = Path::new("/proc").join(pid).join("fd");
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn created_container_holds_no_file_of_the_host() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    // With hooks there is more to be kept open.
    let hook = json!([{"path": "/bin/true"}]);
    bundle.config["hooks"] = json!({"createRuntime": hook, "startContainer": hook});
    assert_eq!(bundle.create().code, 0);
    let own = bundle.cx.path().join("oci");
    for file in open_files(&bundle.state("pid")) {
        let text = file.to_string_lossy();
        let is_gate =
            file.starts_with(&own) && (file.ends_with("start") || file.ends_with("report"));
        let is_anonymous = text.starts_with("pipe:") || text.starts_with("/memfd:ketch-state");
        assert!(is_gate || is_anonymous || text == "/dev/null", "{text}");
    }
    assert_eq!(bundle.oci(&["start", "one"]).code, 0);
    bundle.wait_for("stopped");
}

#[test]
fn pidfd_of_the_init_is_sent_to_the_caller() {
    let Some(bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    bundle.write();
    let path = bundle.cx.path().join("pidfd.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let status = bundle
        .command(&["create", "--pidfd-socket", path.to_str().unwrap(), "one"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (stream, _) = socket.accept().unwrap();
    let mut buffer = [0; 16];
    let received = sys::socket::receive(std::os::fd::AsFd::as_fd(&stream), &mut buffer).unwrap();
    let pidfd = received.descriptors.into_iter().next().unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let pid = format!("Pid:\t{}\n", bundle.state("pid"));
    assert!(about.contains(&pid), "{about}");
}

#[test]
fn warning_without_a_log_is_on_standard_error() {
    let Some(mut bundle) = Bundle::shell("grep CapAmb /proc/self/status") else {
        return;
    };
    bundle.config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    let run = bundle.run();
    assert_eq!(run.stdout, "CapAmb:\t0000000000000020\n", "{}", run.stderr);
    assert!(
        run.stderr.contains("CAP_CHOWN: it is not inheritable"),
        "{}",
        run.stderr
    );
    let log = bundle.cx.path().join("log");
    let logged = bundle.oci(&["--debug", "--log", log.to_str().unwrap(), "run", "one"]);
    assert_eq!(logged.stderr, "");
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("level=warning") && text.contains("level=debug"),
        "{text}"
    );
}
