//! The OCI runtime command line: its verbs, what it refuses, hooks, and what callers rely on.

use std::fs;

use crate::bundle::Bundle;
use serde_json::json;

#[test]
fn run_gives_output_and_code_and_leaves_nothing() {
    let Some(bundle) = Bundle::shell("echo out; echo err >&2; exit 7") else {
        return;
    };
    let run = bundle.run();
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (7, "out\n"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr, "err\n");
    assert_eq!(bundle.oci(&["list", "-q"]).stdout, "");
}

#[test]
fn created_container_waits_for_its_start() {
    let Some(bundle) = Bundle::shell("echo started > /ran; sleep 1000") else {
        return;
    };
    assert_eq!(bundle.create().code, 0);
    assert_eq!(bundle.state("status"), "created");
    assert!(!bundle.rootfs().join("ran").exists());
    assert_eq!(bundle.create().code, 1, "the id is taken");
    assert_eq!(bundle.oci(&["start", "one"]).code, 0);
    assert_eq!(bundle.state("status"), "running");
    assert_eq!(bundle.oci(&["start", "one"]).code, 1);
    assert_eq!(bundle.oci(&["delete", "one"]).code, 1, "it runs");
    assert_eq!(bundle.oci(&["kill", "one", "KILL"]).code, 0);
    bundle.wait_for("stopped");
    let late = bundle.oci(&["kill", "one", "TERM"]);
    assert!(
        late.stderr.contains("container not running"),
        "{}",
        late.stderr
    );
    assert_eq!(bundle.oci(&["delete", "one"]).code, 0);
    assert_eq!(bundle.oci(&["state", "one"]).code, 1);
    assert_eq!(bundle.oci(&["delete", "--force", "one"]).code, 0);
}

#[test]
fn created_container_ends_by_a_signal_that_asks() {
    let Some(bundle) = Bundle::shell("true") else {
        return;
    };
    assert_eq!(bundle.create().code, 0);
    assert_eq!(bundle.oci(&["kill", "one", "TERM"]).code, 0);
    bundle.wait_for("stopped");
}

#[test]
fn paused_container_is_seen_and_resumed() {
    let Some(bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    bundle.create();
    bundle.oci(&["start", "one"]);
    let pause = bundle.oci(&["pause", "one"]);
    assert_eq!(pause.code, 0, "{}", pause.stderr);
    assert_eq!(bundle.state("status"), "paused");
    assert_eq!(bundle.oci(&["exec", "one", "true"]).code, 255);
    assert_eq!(bundle.oci(&["resume", "one"]).code, 0);
    assert_eq!(bundle.state("status"), "running");
    assert_eq!(bundle.oci(&["resume", "one"]).code, 1);
}

#[test]
fn exec_has_its_own_code_user_directory_and_variables() {
    let Some(mut bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=spec"]);
    bundle.create();
    bundle.oci(&["start", "one"]);
    let run = bundle.oci(&[
        "exec",
        "-e",
        "A=exec",
        "--cwd",
        "/bin",
        "-u",
        "5:6",
        "one",
        "sh",
        "-c",
        "echo $A $PWD $(id -u):$(id -g); exit 9",
    ]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (9, "exec /bin 5:6\n"),
        "{}",
        run.stderr
    );
    assert_eq!(bundle.oci(&["exec", "one", "/nothing"]).code, 127);
    assert_eq!(bundle.oci(&["exec", "one", "/etc"]).code, 126);
}

#[test]
fn missing_program_is_reported_by_create_and_nothing_stays() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    bundle.config["process"]["args"] = json!(["/nothing"]);
    bundle.write();
    let log = bundle.cx.path().join("log.json");
    let log_text = log.to_str().unwrap();
    let run = bundle.oci(&["--log", log_text, "--log-format", "json", "create", "one"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("no such file or directory"),
        "{}",
        run.stderr
    );
    let line = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(!bundle.is_there());
    assert_eq!(bundle.oci(&["run", "one"]).code, 127);
}

#[test]
fn hooks_run_in_order_with_the_state_on_standard_input() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let log = bundle.cx.path().join("hooks");
    let hook = |name: &str, out: &str| {
        let script = format!("read -r state; echo {name} $state >> {out}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let out = log.to_str().unwrap();
    bundle.config["hooks"] = json!({
        "prestart": hook("prestart", out),
        "createRuntime": hook("createRuntime", out),
        "createContainer": hook("createContainer", out),
        "startContainer": hook("startContainer", "/inside"),
        "poststart": hook("poststart", out),
        "poststop": hook("poststop", out),
    });
    let run = bundle.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<(&str, serde_json::Value)> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, state)| (name, serde_json::from_str(state).unwrap()))
        .collect();
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop"
        ]
    );
    assert_eq!(lines[0].1["status"], "created");
    assert_eq!(lines[1].1["status"], "creating");
    assert_eq!(lines[2].1["pid"], 1, "as the container sees itself");
    assert_eq!(lines[3].1["status"], "running");
    assert_eq!(lines[4].1["status"], "stopped");
    let inside = fs::read_to_string(bundle.rootfs().join("inside")).unwrap();
    assert!(inside.starts_with("startContainer {"), "{inside}");
}

#[test]
fn hook_that_fails_stops_the_container_and_is_named() {
    for kind in [
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        let Some(mut bundle) = Bundle::shell("sleep 1000") else {
            return;
        };
        let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 5"]}]);
        bundle.config["hooks"] = json!({ kind: fails });
        let run = bundle.run();
        assert_eq!(run.code, 1, "{kind}");
        let name = format!("hooks.{kind}[0]");
        assert!(
            run.stderr.contains(&name) && run.stderr.contains('5'),
            "{}",
            run.stderr
        );
        assert!(!bundle.is_there());
    }
}

#[test]
fn hook_that_fails_on_a_terminal_shows_what_it_has_printed() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    bundle.config["process"]["terminal"] = json!(true);
    let script = "echo first; printf 'the \\033[1mreason' >&2; exit 5";
    let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    bundle.config["hooks"] = json!({ "startContainer": fails });
    let run = bundle.run();
    let expected = "exit code 5, output: first\nthe [1mreason";
    assert!(run.stderr.contains(expected), "{}", run.stderr);
}

#[test]
fn terminal_that_is_relayed_keeps_line_ends_from_the_first_byte() {
    let Some(mut bundle) = Bundle::shell("echo first; echo second") else {
        return;
    };
    bundle.config["process"]["terminal"] = json!(true);
    assert_eq!(bundle.run().stdout, "first\nsecond\n");
}

#[test]
fn field_that_cannot_be_had_is_named() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let cases = [
        ("/process/cwd", json!("relative"), "`process.cwd`"),
        (
            "/process/user",
            json!({"uid": u32::MAX, "gid": 0}),
            "`process.user.uid`",
        ),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "additionalGids": [u32::MAX]}),
            "`process.user.additionalGids`",
        ),
        ("/process/oomScoreAdj", json!(1001), "`process.oomScoreAdj`"),
        (
            "/mounts/0/destination",
            json!(""),
            "`mounts[0].destination`",
        ),
        (
            "/linux/namespaces/0",
            json!({"type": "pid", "path": "/proc/self/ns/absent"}),
            "pid namespace",
        ),
        (
            "/linux/namespaces/1",
            json!({"type": "network", "path": "/proc/self/ns/absent"}),
            "join the namespace `/proc/self/ns/absent`",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": "x"}]),
            "`process.rlimits[0].soft`",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "x"}),
            "`linux.sysctl[kernel.core_pattern]`",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "`linux.timeOffsets`",
        ),
        (
            "/process/apparmorProfile",
            json!("p"),
            "`process.apparmorProfile`",
        ),
        (
            "/linux/intelRdt",
            json!({"closID": "x"}),
            "`linux.intelRdt`",
        ),
        ("/ociVersion", json!("2.0.0"), "`ociVersion`"),
    ];
    for (pointer, value, expected) in cases {
        let before = bundle.config.clone();
        if let Some(place) = bundle.config.pointer_mut(pointer) {
            *place = value;
        } else {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            bundle.config.pointer_mut(parent).unwrap()[key] = value;
        }
        let run = bundle.run();
        // AppArmor may be there.
        if !(run.code == 0 && pointer.contains("apparmor")) {
            assert_eq!(run.code, 1, "{pointer}");
            assert!(run.stderr.contains(expected), "{pointer}: {}", run.stderr);
        }
        assert!(!bundle.is_there());
        bundle.config = before;
    }
}

#[test]
fn bundle_whose_specification_is_a_pipe_is_refused() {
    let Some(bundle) = Bundle::shell("true") else {
        return;
    };
    let config = bundle.dir().join("config.json");
    fs::remove_file(&config).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&config).status();
    assert!(made.unwrap().success());
    let run = bundle.oci(&["run", "one"]);
    assert!(
        run.code == 1 && run.stderr.contains("not a file"),
        "{}",
        run.stderr
    );
}

#[test]
fn filter_that_refuses_even_the_end_still_ends_the_container() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    let run = bundle.run();
    assert!(run.code > 128, "{} {}", run.code, run.stderr);
    assert!(!bundle.is_there());
}

#[test]
fn user_namespace_maps_files_of_an_id_mapped_mount() {
    let Some(mut bundle) =
        Bundle::shell("id -u; stat -c %u:%g /data/file; readlink /proc/self/ns/user")
    else {
        return;
    };
    let data = bundle.cx.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "").unwrap();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/data", "type": "bind", "source": data,
        "options": ["rbind", "idmap"]}),
    );
    bundle.open_to_everybody();
    fs::create_dir(bundle.rootfs().join("data")).unwrap();
    let run = bundle.run();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        (run.code, &lines[..2]),
        (0, &["0", "0:0"][..]),
        "{}",
        run.stderr
    );
    let host = fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(lines[2], host.to_str().unwrap());
}

#[test]
fn tmpfs_starts_with_what_it_hides() {
    let Some(mut bundle) = Bundle::shell(
        "cat /etc/deep/file; stat -c %a /etc/deep; readlink /etc/link; echo x > /etc/new",
    ) else {
        return;
    };
    let etc = bundle.rootfs().join("etc");
    fs::create_dir(etc.join("deep")).unwrap();
    fs::write(etc.join("deep/file"), "from the image\n").unwrap();
    std::os::unix::fs::symlink("deep/file", etc.join("link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o751);
    fs::set_permissions(etc.join("deep"), mode).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup"]}),
    );
    let run = bundle.run();
    assert_eq!(
        run.stdout, "from the image\n751\ndeep/file\n",
        "{}",
        run.stderr
    );
    assert!(!etc.join("new").exists());
}

#[test]
fn time_namespace_has_its_offset() {
    let Some(mut bundle) = Bundle::shell("cat /proc/uptime") else {
        return;
    };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000}});
    let run = bundle.run();
    let seconds: f64 = run.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 1_000_000.0, "{} {}", run.stdout, run.stderr);
}

#[test]
fn container_without_a_process_is_created_and_not_started() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    bundle.config.as_object_mut().unwrap().remove("process");
    let run = bundle.run();
    assert!(
        run.code == 1 && run.stderr.contains("`process`"),
        "{}",
        run.stderr
    );
    assert!(!bundle.is_there());
    assert_eq!(bundle.create().code, 0);
    assert_eq!(bundle.state("status"), "created");
    let start = bundle.oci(&["start", "one"]);
    assert!(
        start.code == 1 && start.stderr.contains("`process`"),
        "{}",
        start.stderr
    );
    // It is as it was.
    assert_eq!(bundle.state("status"), "created");
    assert_eq!(bundle.oci(&["kill", "one", "KILL"]).code, 0);
    bundle.wait_for("stopped");
    assert_eq!(bundle.oci(&["delete", "one"]).code, 0);
}

#[test]
fn error_of_the_kernel_has_words_and_no_number() {
    let Some(bundle) = Bundle::shell("true") else {
        return;
    };
    let log = bundle.dir().join("log");
    let args = [
        "--log",
        log.to_str().unwrap(),
        "run",
        "--bundle",
        "/does/not/exist",
        "one",
    ];
    let run = bundle.oci(&args);
    assert_eq!(run.code, 1);
    let text = fs::read_to_string(log).unwrap();
    for text in [run.stderr, text] {
        assert!(text.contains("No such file or directory"), "{text}");
        assert!(!text.contains("os error"), "{text}");
    }
}
