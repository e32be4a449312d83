//! Parts of the specification that take a kernel's help from outside the container: a user namespace
//! that is there already, network devices, processes on the disk, and what a start spends its time on.

use std::fs;
use std::process::Command;

use crate::bundle::Bundle;
use serde_json::json;

#[test]
fn user_namespace_of_another_process_is_joined() {
    let Some(mut bundle) =
        Bundle::shell("cat /proc/self/uid_map; readlink /proc/self/ns/user; id -u")
    else {
        return;
    };
    let mut holder = Command::new("unshare")
        .args(["--user", "sleep", "1000"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/user", holder.id());
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    while fs::read_link(&path).unwrap() == own {
        std::thread::yield_now();
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.id()), "0 500000 1000").unwrap();
    }
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user", "path": path}));
    bundle.open_to_everybody();
    let run = bundle.run();
    let theirs = fs::read_link(&path).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let map: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(map, ["0", "500000", "1000"]);
    assert_eq!(lines[1..], [theirs.to_str().unwrap(), "0"]);
}

#[test]
fn time_namespace_of_another_process_is_joined_from_a_user_namespace_as_well() {
    let Some(mut bundle) = Bundle::shell("readlink /proc/self/ns/time; cat /proc/uptime") else {
        return;
    };
    let mut holder = Command::new("unshare")
        .args(["--time", "--boottime", "1000000", "--fork", "sleep", "1000"])
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", holder.id());
    let child = loop {
        let text = fs::read_to_string(&children).unwrap();
        match text.split_whitespace().next() {
            Some(pid) => break pid.to_owned(),
            None => std::thread::yield_now(),
        }
    };
    let path = format!("/proc/{child}/ns/time");
    let theirs = fs::read_link(&path).unwrap();
    bundle.open_to_everybody();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "time", "path": path}));
    let plain = bundle.run();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    for map in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][map] = json!([{"containerID": 0, "hostID": 400_000, "size": 1000}]);
    }
    let mapped = bundle.run();
    let ended = Command::new("kill").args(["-9", &child]).status().unwrap();
    holder.wait().unwrap();
    assert!(ended.success());
    for run in [plain, mapped] {
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines.first(), theirs.to_str().as_ref(), "{}", run.stderr);
        let seconds: f64 = lines[1].split(' ').next().unwrap().parse().unwrap();
        assert!(seconds > 1_000_000.0, "{}", run.stdout);
    }
}

#[test]
fn network_of_another_owner_is_joined_from_a_user_namespace_as_well() {
    let Some(mut bundle) = Bundle::shell("readlink /proc/self/ns/net; cat /proc/self/uid_map")
    else {
        return;
    };
    let mut holder = Command::new("unshare")
        .args(["--net", "sleep", "1000"])
        .spawn()
        .unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    while fs::read_link(&path).unwrap() == own {
        std::thread::yield_now();
    }
    let theirs = fs::read_link(&path).unwrap();
    bundle.open_to_everybody();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({"type": "network", "path": path}));
    namespaces.push(json!({"type": "user"}));
    for map in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][map] = json!([{"containerID": 0, "hostID": 400_000, "size": 1000}]);
    }
    let run = bundle.run();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(lines[0], theirs.to_str().unwrap());
    assert!(lines[1].contains("400000"), "{}", run.stdout);
    // What is no namespace is named.
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({"type": "network", "path": "/proc/self/ns/uts"}));
    let run = bundle.run();
    assert!(
        run.code == 1
            && run
                .stderr
                .contains("cannot join the namespace `/proc/self/ns/uts`"),
        "{}",
        run.stderr
    );
    assert!(!bundle.is_there());
}

/// Runs the bundle in a network of its own, where the link `outside` is.
fn run_beside_a_link(bundle: &Bundle) -> std::process::Output {
    const ENTER: &str = "ip link add outside type veth peer name far &&
        ip addr add 198.51.100.7/24 dev outside || exit 99
        \"$@\"; code=$?
        ip link show outside >/dev/null 2>&1 && echo outside >&2
        exit $code";
    bundle.write();
    let ketch = bundle.command(&["run", "one"]);
    Command::new("unshare")
        .args(["--net", "sh", "-c", ENTER, "sh"])
        .arg(ketch.get_program())
        .args(ketch.get_args())
        .current_dir(bundle.dir())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(
            ketch
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn network_device_moves_with_its_addresses_under_its_new_name() {
    let Some(mut bundle) = Bundle::shell("cat /sys/class/net/inside/flags; cat /proc/net/fib_trie")
    else {
        return;
    };
    bundle.config["linux"]["netDevices"] = json!({"outside": {"name": "inside"}});
    let run = run_beside_a_link(&bundle);
    let (out, error) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert_eq!((run.status.code(), error.as_ref()), (Some(0), ""));
    // IFF_UP is the lowest bit.
    let flags = out.lines().next().unwrap().trim_start_matches("0x");
    assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1);
    assert!(out.contains("198.51.100.7"), "{out}");
    for (devices, words) in [
        (json!({"absent0": {}}), "`absent0`"),
        (
            json!({"outside": {"name": "a/b"}}),
            "linux.netDevices[outside]",
        ),
    ] {
        bundle.config["linux"]["netDevices"] = devices;
        let run = run_beside_a_link(&bundle);
        let error = String::from_utf8_lossy(&run.stderr);
        assert_ne!(run.status.code(), Some(0));
        assert!(
            error.contains(words) && error.contains("outside\n"),
            "{error}"
        );
        assert!(!bundle.is_there());
    }
}

#[test]
fn checkpoint_is_what_criu_can_do_here() {
    let Some(bundle) = Bundle::shell("sleep 1000") else {
        return;
    };
    bundle.create();
    bundle.oci(&["start", "one"]);
    let check = Command::new("criu").arg("check").output();
    let works = check.is_ok_and(|output| output.status.success());
    let run = bundle.oci(&["checkpoint", "--image-path", "saved", "one"]);
    if works {
        assert_eq!(run.code, 0, "{}", run.stderr);
        bundle.wait_for("stopped");
        assert_eq!(bundle.oci(&["delete", "one"]).code, 0);
        let run = bundle.oci(&["restore", "--detach", "--image-path", "saved", "one"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    } else {
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains("criu"), "{}", run.stderr);
        let run = bundle.oci(&["restore", "--detach", "--image-path", "saved", "other"]);
        assert!(run.stderr.contains("criu"), "{}", run.stderr);
    }
    // What cannot be saved goes on.
    assert_eq!(bundle.state("status"), "running");
}

#[test]
fn steps_of_a_start_are_told_in_the_order_in_which_they_end() {
    let Some(bundle) = Bundle::shell("true") else {
        return;
    };
    bundle.write();
    let run = bundle.oci(&["run", "--trace-steps", "steps", "one"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let text = fs::read_to_string(bundle.dir().join("steps")).unwrap();
    for side in ["parent", "init"] {
        let ends: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(side))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(ends.len() > 4 && ends.is_sorted(), "{text}");
    }
    assert!(text.contains("init PivotRoot ") && text.contains("parent running "));
}

#[test]
fn bundle_of_a_wasm_file_runs_in_the_sandbox() {
    let Some(mut bundle) = Bundle::shell("true") else {
        return;
    };
    let module = include_bytes!("../../../fixtures/guests/built/hello.wasm");
    fs::write(bundle.rootfs().join("app.wasm"), module).unwrap();
    // Decided by the file's bytes, not by its name or an annotation.
    bundle.config["process"]["args"] = json!(["/app.wasm"]);
    bundle.config["process"]["env"] = json!(["NAME=bundle"]);
    let run = bundle.run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("Hello, bundle!") && run.stdout.contains("wasm sandbox"));
    bundle.config["process"]["args"] = json!(["/bin/true"]);
    bundle.config["annotations"] = json!({"run.oci.handler": "wasm"});
    let run = bundle.run();
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("not a wasm file"), "{}", run.stderr);
}
