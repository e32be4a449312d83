//! Devices by path, by number and by CDI name.

use std::fs;

use super::{printed, sandbox, shell};
use testkit::Sandbox;

/// Opens what stands in the place of `/dev/fuse`, which no container may open by itself.
const READ: &str = "busybox head -c0 /dev/mine && echo read";

#[test]
fn device_of_the_host_is_there_with_the_rights_that_were_given() {
    let Some(cx) = sandbox() else { return };
    let device = "/dev/fuse:/dev/mine:r";
    assert_eq!(printed(&cx, &["--device", device], READ), "read");
    let run = shell(&cx, &["--device", device], "echo x > /dev/mine");
    assert!(run.stderr.contains("not permitted"), "{}", run.stderr);
    let run = shell(&cx, &["--device", "/dev/absent"], "true");
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("`/dev/absent`"), "{}", run.stderr);
    let run = shell(&cx, &["--device", "/etc/passwd"], "true");
    assert!(run.stderr.contains("not a device"), "{}", run.stderr);
}

#[test]
fn rule_alone_lets_a_node_be_made_and_opened() {
    let Some(cx) = sandbox() else { return };
    let script = format!("busybox mknod /dev/mine c 10 229 && {READ}");
    let run = shell(&cx, &[], &script);
    assert!(run.stderr.contains("not permitted"), "{}", run.stderr);
    let rule = ["--device-cgroup-rule", "c 10:229 rw"];
    assert_eq!(printed(&cx, &rule, &script), "read");
}

/// A CDI directory with one specification of a device that needs everything.
fn cdi(cx: &Sandbox) -> String {
    let dir = cx.path().join("cdi");
    fs::create_dir(&dir).unwrap();
    let data = cx.path().join("library");
    write(&data, "drivers\n");
    let text = format!(
        "cdiVersion: \"0.6.0\"
kind: vendor.example/thing
containerEdits:
  env: [ALL=1]
devices:
- name: one
  containerEdits:
    env: [ONE=1]
    deviceNodes:
    - path: /dev/mine
      hostPath: /dev/fuse
      permissions: r
    mounts:
    - hostPath: {}
      containerPath: /library
      options: [ro, bind]
    hooks:
    - hookName: createContainer
      path: /bin/sh
      args: [sh, -c, \"echo $0 > {}/hooked\", hook]
",
        data.display(),
        cx.path().display()
    );
    write(&dir.join("vendor.yaml"), &text);
    dir.to_str().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "test code")]
fn write(path: &std::path::Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn with_cdi(cx: &Sandbox, dir: &str, device: &str, script: &str) -> std::process::Output {
    cx.command()
        .env("KETCH_CDI_SPEC_DIRS", dir)
        .args([
            "run", "--rm", "--device", device, "box", "busybox", "sh", "-c",
        ])
        .arg(script)
        .output()
        .unwrap()
}

#[test]
fn cdi_device_brings_what_its_specification_says() {
    let Some(cx) = sandbox() else { return };
    let dir = cdi(&cx);
    let script = format!("echo $ALL $ONE; busybox cat /library; {READ}");
    let output = with_cdi(&cx, &dir, "vendor.example/thing=one", &script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.stdout, b"1 1\ndrivers\nread\n", "{error}");
    assert_eq!(fs::read(cx.path().join("hooked")).unwrap(), b"hook\n");
}

#[test]
fn cdi_device_that_nobody_has_is_refused_with_the_directories() {
    let Some(cx) = sandbox() else { return };
    let dir = cdi(&cx);
    let output = with_cdi(&cx, &dir, "vendor.example/thing=two", "true");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        error.contains("thing=two") && error.contains(&dir),
        "{error}"
    );
}
