//! Control groups of containers that callers do not leave alone: frozen before, below another's,
//! kept afterwards, and without a pid namespace.

use std::fs;
use std::path::PathBuf;

use crate::bundle::Bundle;
use serde_json::json;

/// Where the groups of a v1 controller are; none on a host without.
fn hierarchy(controller: &str) -> Option<PathBuf> {
    let dir = PathBuf::from("/sys/fs/cgroup").join(controller);
    dir.join("cgroup.procs").exists().then_some(dir)
}

/// The group that the bundle's container is put into.
fn name(bundle: &Bundle) -> String {
    let name = bundle.cx.path().file_name().unwrap();
    format!("/ketch-{}", name.to_str().unwrap())
}

#[test]
fn group_that_is_frozen_is_refused_and_not_waited_for() {
    let (Some(mut bundle), Some(freezer)) = (Bundle::shell("true"), hierarchy("freezer")) else {
        return;
    };
    let name = name(&bundle);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("{name}/below"));
    let dir = freezer.join(&name[1..]);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("freezer.state"), "FROZEN").unwrap();
    let run = bundle.run();
    fs::remove_dir(&dir).unwrap();
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("unexpectedly frozen"), "{}", run.stderr);
    assert!(!bundle.is_there());
}

#[test]
fn exec_enters_the_group_of_one_controller() {
    let (Some(mut bundle), Some(memory)) = (Bundle::shell("sleep 1000"), hierarchy("memory"))
    else {
        return;
    };
    let name = name(&bundle);
    bundle.config["linux"]["cgroupsPath"] = json!(name);
    bundle.create();
    bundle.oci(&["start", "one"]);
    fs::create_dir(memory.join(&name[1..]).join("sub")).unwrap();
    let run = bundle.oci(&[
        "exec",
        "--cgroup",
        "memory:sub",
        "one",
        "cat",
        "/proc/self/cgroup",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.contains(&format!(":memory:{name}/sub\n")),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains(&format!(":pids:{name}\n")),
        "{}",
        run.stdout
    );
    for (wrong, why) in [
        ("..", "bad sub cgroup path"),
        ("memory:a/../..", "bad sub cgroup path"),
        ("whaat:/", "unknown controller `whaat`"),
        ("memory:absent", "no such file or directory"),
    ] {
        let run = bundle.oci(&["exec", "--cgroup", wrong, "one", "true"]);
        assert!(
            run.code == 255 && run.stderr.to_lowercase().contains(why),
            "{}",
            run.stderr
        );
    }
    bundle.oci(&["delete", "--force", "one"]);
    assert!(!memory.join(&name[1..]).exists());
}

#[test]
fn kill_reaches_what_outlives_an_init_without_a_pid_namespace() {
    let Some(mut bundle) = Bundle::shell("sleep 1000 & exec sleep 1001") else {
        return;
    };
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bundle.create();
    bundle.oci(&["start", "one"]);
    let processes = || {
        let run = bundle.oci(&["ps", "--format", "json", "one"]);
        let pids: Vec<i32> = serde_json::from_str(&run.stdout).unwrap_or_default();
        pids
    };
    while processes().len() < 2 {
        std::thread::yield_now();
    }
    let init = bundle.state("pid");
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &init])
            .status()
            .unwrap()
            .success()
    );
    bundle.wait_for("stopped");
    assert_eq!(bundle.oci(&["kill", "one", "KILL"]).code, 0);
    while !processes().is_empty() {
        std::thread::yield_now();
    }
    let late = bundle.oci(&["kill", "one", "KILL"]);
    assert!(
        late.stderr.contains("container not running"),
        "{}",
        late.stderr
    );
}

#[test]
fn container_has_all_its_cpus_whoever_starts_it() {
    let Some(bundle) = Bundle::shell("grep Cpus_allowed: /proc/self/status") else {
        return;
    };
    bundle.write();
    let wide = bundle.oci(&["run", "one"]).stdout;
    let ketch = bundle.command(&["run", "one"]);
    let narrow = std::process::Command::new("taskset")
        .args(["-c", "0"])
        .arg(ketch.get_program())
        .args(ketch.get_args())
        .envs(
            ketch
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .current_dir(bundle.dir())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&narrow.stdout), wide);
}

#[test]
fn limit_of_no_processes_leaves_the_one_that_is_there() {
    let (Some(mut bundle), Some(pids)) = (Bundle::shell("true"), hierarchy("pids")) else {
        return;
    };
    let name = name(&bundle);
    bundle.config["linux"]["cgroupsPath"] = json!(name);
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 0});
    assert_eq!(bundle.create().code, 0);
    let limit = fs::read_to_string(pids.join(&name[1..]).join("pids.max")).unwrap();
    assert_eq!(limit, "1\n");
}

#[test]
fn kept_container_keeps_its_group_until_it_is_deleted() {
    let (Some(mut bundle), Some(pids)) = (Bundle::shell("true"), hierarchy("pids")) else {
        return;
    };
    let name = name(&bundle);
    bundle.config["linux"]["cgroupsPath"] = json!(name);
    bundle.write();
    assert_eq!(bundle.oci(&["run", "--keep", "one"]).code, 0);
    assert_eq!(bundle.state("status"), "stopped");
    assert!(pids.join(&name[1..]).is_dir());
    assert_eq!(bundle.oci(&["delete", "one"]).code, 0);
    assert!(!pids.join(&name[1..]).exists());
}
