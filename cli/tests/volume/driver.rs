//! Volumes of other programs, over Docker's plugin protocol.

use std::time::{Duration, Instant};

use testkit::{Behaviour, Sandbox, VolumeDriver};

use crate::{done, refused, sandbox, shell};

/// How long a monitor may take to give a volume back.
const PATIENCE: Duration = Duration::from_secs(20);

fn driver(cx: &Sandbox, name: &str, behaviour: Behaviour) -> VolumeDriver {
    let socket = cx.path().join(format!("run/plugins/{name}.sock"));
    VolumeDriver::start(&socket, &cx.path().join(name), behaviour)
}

fn wait_unused(driver: &VolumeDriver, volume: &str) {
    let deadline = Instant::now() + PATIENCE;
    while driver.users(volume) > 0 {
        assert!(Instant::now() < deadline, "{:?}", driver.calls());
    }
}

#[test]
fn volume_of_a_driver_lives_with_the_driver_and_is_mounted_for_each_start() {
    let Some(cx) = sandbox() else { return };
    let store = driver(&cx, "store", Behaviour::Good);
    done(&cx, "volume create -d store -o bucket=b7 data");
    let shown = done(&cx, "volume inspect data");
    for part in [
        "\"Driver\": \"store\"",
        "\"bucket\": \"b7\"",
        "\"Scope\": \"global\"",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    // A new one is filled from the image as any other.
    let run = shell(
        &cx,
        "-v data:/data",
        "/busybox cat /data/seed && echo kept >/data/new",
    );
    assert_eq!(run.stdout, "from the image\n", "{}", run.stderr);
    wait_unused(&store, "data");
    assert!(store.path("data").join("new").exists());
    let run = shell(&cx, "-v data:/v:ro", "/busybox cat /v/new");
    assert_eq!(run.stdout, "kept\n", "{}", run.stderr);
    wait_unused(&store, "data");

    done(
        &cx,
        "run -d --name one -v data:/v --entrypoint /busybox files sleep 600",
    );
    assert_eq!(store.users("data"), 1);
    done(
        &cx,
        "run -d --name two -v data:/v --entrypoint /busybox files sleep 600",
    );
    assert_eq!(store.users("data"), 2);
    // Started again while it runs it is refused, and the running one keeps its mount.
    assert_ne!(cx.ketch(["start", "one", "-a"]).code, 0);
    assert_eq!(done(&cx, "exec one /busybox cat /v/new"), "kept\n");
    refused(&cx, "volume rm data", "in use by");
    done(&cx, "rm -f one two");
    wait_unused(&store, "data");
    done(&cx, "volume rm data");
    assert!(!store.path("data").exists());
    assert!(store.calls().contains(&"Remove data".to_owned()));
}

#[test]
fn driver_of_new_volumes_is_chosen_by_flag_and_by_mount() {
    let Some(cx) = sandbox() else { return };
    let store = driver(&cx, "store", Behaviour::Good);
    let options = "--volume-driver store -v one:/one --mount type=volume,src=two,dst=/two,volume-driver=store,volume-opt=key=value";
    let run = shell(&cx, options, "echo x >/one/x && echo x >/two/x");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(store.path("one").join("x").exists() && store.path("two").join("x").exists());
    let listed = done(&cx, "volume ls");
    assert_eq!(listed.matches("store").count(), 2, "{listed}");
    assert_eq!(
        done(&cx, "volume ls -q --filter driver=store"),
        "one\ntwo\n"
    );
    // What it has besides is shown too.
    std::fs::create_dir(store.path("three")).unwrap();
    wait_unused(&store, "one");
    let exported = cx.ketch(["volume", "export", "one"]);
    assert!(
        exported.code == 0 && exported.stdout.contains("x\0"),
        "{}",
        exported.stderr
    );
    wait_unused(&store, "one");
    let part = "--mount type=volume,src=two,dst=/p,volume-subpath=x";
    assert_eq!(shell(&cx, part, "/busybox cat /p").stdout, "x\n");
}

#[test]
fn failed_start_and_killed_monitor_give_the_mount_back() {
    let Some(cx) = sandbox() else { return };
    let store = driver(&cx, "store", Behaviour::Good);
    done(&cx, "volume create -d store data");
    let run = cx.ketch(["run", "-v", "data:/v", "--entrypoint", "/nothing", "files"]);
    assert_eq!(run.code, 127, "{}", run.stderr);
    wait_unused(&store, "data");
    done(
        &cx,
        "run -d --name one -v data:/v --entrypoint /busybox files sleep 600",
    );
    let text = done(&cx, "inspect -f {{.State.Pid}} one");
    let pid = text.trim();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let monitor = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned();
    for victim in [monitor.as_str(), pid] {
        let killed = std::process::Command::new("kill")
            .args(["-9", victim])
            .status();
        assert!(killed.unwrap().success());
    }
    assert_eq!(store.users("data"), 1);
    // Another monitor writes its end down; until then it runs, and starting it is nothing to do.
    done(&cx, "wait one");
    let deadline = Instant::now() + PATIENCE;
    while cx.ketch(["start", "one"]).code != 0 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(store.users("data"), 1, "{:?}", store.calls());
    done(&cx, "rm -f one");
    wait_unused(&store, "data");
}

#[test]
fn dead_silent_or_unwilling_driver_is_one_line_and_changes_nothing() {
    let Some(cx) = sandbox() else { return };
    // A socket whose program is gone.
    let dead = cx.path().join("run/plugins/dead.sock");
    std::fs::create_dir_all(dead.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let _other = driver(&cx, "other", Behaviour::OtherKind);
    let _no = driver(&cx, "unwilling", Behaviour::RefusesMounts);
    refused(
        &cx,
        "volume create -d none data",
        "no such volume driver: none",
    );
    refused(&cx, "volume create -d dead data", "`dead` does not answer");
    refused(
        &cx,
        "volume create -d other data",
        "it is no volume driver but authz",
    );
    done(&cx, "volume create -d unwilling data");
    refused(
        &cx,
        "run -v data:/v files read /",
        "the driver `unwilling` says: the storage; is on fire",
    );
    assert_eq!(done(&cx, "ps -aq"), "");
    // The other volumes are shown all the same, and what is dead is named.
    let run = cx.ketch(["volume", "ls", "-q"]);
    assert!(run.code == 1 && run.stdout == "data\n", "{run:?}");
    assert!(
        run.stderr.contains("`dead` does not answer"),
        "{}",
        run.stderr
    );

    std::fs::remove_file(&dead).unwrap();
    let silent = driver(&cx, "silent", Behaviour::Silent);
    refused(
        &cx,
        "volume create -d silent data2",
        "`silent` does not answer",
    );
    drop(silent);
}

#[test]
fn volume_of_a_driver_that_is_gone_can_be_forgotten() {
    let Some(cx) = sandbox() else { return };
    let _store = driver(&cx, "store", Behaviour::Good);
    done(&cx, "volume create -d store data");
    let socket = cx.path().join("run/plugins/store.sock");
    std::fs::remove_file(socket).unwrap();
    refused(&cx, "volume rm data", "no such volume driver: store");
    assert_eq!(done(&cx, "volume ls -q"), "data\n");
    done(&cx, "volume rm -f data");
    assert_eq!(done(&cx, "volume ls -q"), "");
}
