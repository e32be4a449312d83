//! What happens is written down once, in order, and can be asked for.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use testkit::{Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    cx.guests(&["args", "sleep"]);
    Some(cx)
}

/// What has happened so far, filtered.
fn events(cx: &Sandbox, filters: &[&str]) -> Vec<Value> {
    let mut args = vec![
        "events", "--since", "1h", "--until", "0s", "--format", "json",
    ];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["Action"].as_str().unwrap())
        .collect()
}

/// The events of a container's end come a moment after its end is reported.
fn until_last(cx: &Sandbox, filters: &[&str], action: &str) -> Vec<Value> {
    cx.until(["version"], |_| {
        actions(&events(cx, filters)).last() == Some(&action)
    });
    events(cx, filters)
}

#[test]
fn life_of_a_container_is_written_down_in_order() {
    let Some(cx) = sandbox() else { return };
    let steps: [&[&str]; 7] = [
        &["create", "--name", "c1", "guests", "/sleep", "1000"],
        &["start", "c1"],
        &["pause", "c1"],
        &["unpause", "c1"],
        &["update", "--restart", "no", "c1"],
        &["stop", "-t", "0", "c1"],
        &["rm", "c1"],
    ];
    for step in steps {
        let run = cx.ketch(step);
        assert_eq!(run.code, 0, "{step:?}: {}", run.stderr);
    }
    let events = until_last(&cx, &["container=c1"], "destroy");
    let wanted = [
        "create", "start", "pause", "unpause", "update", "kill", "die", "stop", "destroy",
    ];
    assert_eq!(actions(&events), wanted);
    let die = &events[6];
    assert_eq!(die["Type"], "container");
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "137");
    assert_eq!(die["Actor"]["Attributes"]["image"], "guests");
    assert_eq!(die["from"], "guests");
    let times: Vec<i64> = events
        .iter()
        .map(|e| e["timeNano"].as_i64().unwrap())
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn container_that_vanishes_leaves_its_events() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(
        cx.ketch(["run", "--rm", "--name", "c1", "guests", "/args", "3"])
            .code,
        3
    );
    let events = until_last(&cx, &["container=c1"], "destroy");
    assert_eq!(
        actions(&events),
        ["create", "start", "attach", "die", "destroy"]
    );
    let die = until_last(&cx, &["container=c1", "event=die"], "die");
    assert_eq!(die[0]["Actor"]["Attributes"]["exitCode"], "3");
}

#[test]
fn filters_and_templates_choose() {
    let Some(cx) = sandbox() else { return };
    for name in ["one", "two"] {
        assert_eq!(
            cx.ketch(["create", "--name", name, "guests", "/args"]).code,
            0
        );
    }
    let names = |filters: &[&str]| {
        let events = events(&cx, filters);
        let names = events
            .iter()
            .map(|e| e["Actor"]["Attributes"]["name"].clone());
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&["type=container"]), ["one", "two"]);
    assert_eq!(names(&["container=two", "event=create"]), ["two"]);
    assert_eq!(names(&["container=one", "container=two"]), ["one", "two"]);
    assert_eq!(
        names(&["container=one", "event=start"]),
        Vec::<String>::new()
    );
    assert_eq!(names(&["image=guests", "type=container"]), ["one", "two"]);
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "type=container",
    ];
    let run = cx.ketch(args.iter().chain(&["--format", "{{.Type}} {{.Action}}"]));
    assert_eq!(run.stdout, "container create\ncontainer create\n");
    let line = cx.ketch(args).stdout;
    let line = line.lines().next().unwrap();
    assert!(
        line.contains(" container create ") && line.ends_with("(image=guests, name=one)"),
        "{line}"
    );
    let run = cx.ketch(["events", "--filter", "colour=blue"]);
    assert_eq!(run.code, 125, "{}", run.stderr);
}

#[test]
fn follower_sees_what_happens_from_now_on() {
    let Some(cx) = sandbox() else { return };
    assert_eq!(
        cx.ketch(["create", "--name", "before", "guests", "/args"])
            .code,
        0
    );
    let mut follower = cx
        .command()
        .args([
            "events",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ])
        .args(["--filter", "type=container"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // It says nothing when it is ready: something happens until it has heard of it.
    let number = std::sync::atomic::AtomicU32::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let first = std::thread::scope(|scope| {
        let creator = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let name = format!("after{number}");
                assert_eq!(
                    cx.ketch(["create", "--name", &name, "guests", "/args"])
                        .code,
                    0
                );
            }
        });
        let first = lines.next().unwrap().unwrap();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        creator.join().unwrap();
        first
    });
    assert!(first.starts_with("create after"), "{first}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn restart_is_a_death_and_a_start() {
    let Some(cx) = sandbox() else { return };
    let args = ["run", "-d", "--name", "c1", "--restart", "on-failure:1"];
    assert_eq!(
        cx.ketch(args.iter().chain(&["guests", "/args", "1"])).code,
        0
    );
    cx.until(["version"], |_| {
        actions(&events(&cx, &["container=c1"])) == ["create", "start", "die", "start", "die"]
    });
}

#[test]
fn events_of_images_and_volumes_are_written_down() {
    let Some(cx) = sandbox() else { return };
    let steps: [&[&str]; 6] = [
        &["tag", "guests", "other"],
        &["rmi", "other"],
        &["volume", "create", "data"],
        &[
            "run",
            "--rm",
            "--name",
            "c1",
            "-v",
            "data:/data:ro",
            "guests",
            "/sleep",
            "0",
        ],
        &["volume", "rm", "data"],
        &["rmi", "guests"],
    ];
    for step in steps {
        let run = cx.ketch(step);
        assert_eq!(run.code, 0, "{step:?}: {}", run.stderr);
    }
    let images = events(&cx, &["type=image"]);
    assert_eq!(
        actions(&images),
        ["import", "tag", "untag", "untag", "delete"]
    );
    assert_eq!(images[1]["Actor"]["Attributes"]["name"], "other:latest");
    assert_eq!(images[1]["Actor"]["ID"], images[4]["Actor"]["ID"]);
    let volumes = events(&cx, &["volume=data"]);
    assert_eq!(actions(&volumes), ["create", "mount", "unmount", "destroy"]);
    assert_eq!(volumes[1]["Actor"]["Attributes"]["read/write"], "false");
    assert_eq!(volumes[1]["Actor"]["Attributes"]["destination"], "/data");
}

#[test]
fn further_programs_copies_and_new_names_are_written_down() {
    let Some(cx) = sandbox() else { return };
    let steps: [(&[&str], i32); 6] = [
        (
            &[
                "run", "-d", "--name", "c1", "-l", "tier=one", "guests", "/sleep", "1000",
            ],
            0,
        ),
        (&["exec", "c1", "/args", "7"], 7),
        (&["rename", "c1", "c2"], 0),
        (&["cp", "c2:/args", "-"], 0),
        (&["restart", "-t", "0", "c2"], 0),
        (&["rm", "-f", "c2"], 0),
    ];
    for (step, code) in steps {
        let run = cx.ketch(step);
        assert_eq!(run.code, code, "{step:?}: {}", run.stderr);
    }
    let events = until_last(&cx, &["type=container", "label=tier=one"], "destroy");
    let wanted = [
        "create",
        "start",
        "exec_create: /args 7",
        "exec_start: /args 7",
        "exec_die",
        "rename",
        "archive-path",
        "kill",
        "die",
        "stop",
        "start",
        "restart",
        "kill",
        "die",
        "destroy",
    ];
    // A start is written down beside the answer to whoever asked for it.
    let mut seen = actions(&events);
    let mut sorted = wanted;
    seen.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(seen, sorted);
    let of = |action: &str| {
        events
            .iter()
            .find(|event| event["Action"] == action)
            .unwrap()
    };
    assert_eq!(of("exec_die")["Actor"]["Attributes"]["exitCode"], "7");
    assert_eq!(of("rename")["Actor"]["Attributes"]["oldName"], "c1");
    assert_eq!(of("stop")["Actor"]["Attributes"]["name"], "c2");
}

#[test]
fn end_of_a_further_program_that_nobody_waits_for_is_written_down() {
    let Some(cx) = sandbox() else { return };
    let args = ["run", "-d", "--name", "c1", "guests", "/sleep", "1000"];
    assert_eq!(cx.ketch(args).code, 0);
    assert_eq!(cx.ketch(["exec", "-d", "c1", "/args", "4"]).code, 0);
    let ended = until_last(&cx, &["type=container", "container=c1"], "exec_die");
    assert_eq!(
        ended.last().unwrap()["Actor"]["Attributes"]["exitCode"],
        "4"
    );
    // One that runs when the container ends has no end of its own.
    assert_eq!(cx.ketch(["exec", "-d", "c1", "/sleep", "1000"]).code, 0);
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
    until_last(&cx, &["type=container", "container=c1"], "destroy");
}
