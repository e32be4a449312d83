//! `restart`, `rename`, `top`, `stats`, `container prune`, `system prune`, of both kinds of container.

#![expect(clippy::unwrap_used, reason = "test code")]

use testkit::{Need, Run, Sandbox, Subordinate, UserNamespaces};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

const SLEEP: &[u8] = include_bytes!("../../fixtures/guests/built/sleep.x86_64");
const SPIN: &[u8] = include_bytes!("../../fixtures/guests/built/spin.x86_64");
const WASM_SPIN: &[u8] = include_bytes!("../../fixtures/guests/built/spin.wasm");

fn make_images(cx: &Sandbox) {
    let files = [("sleep", SLEEP, 0o755), ("spin", SPIN, 0o755)];
    cx.image("guests", &files, &["CMD [\"/sleep\", \"600\"]"]);
    let files = [("app.wasm", WASM_SPIN, 0o644)];
    cx.image("app", &files, &["ENTRYPOINT [\"/app.wasm\"]"]);
}

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    make_images(&cx);
    Some(cx)
}

#[track_caller]
fn ok(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

#[test]
fn restart_stops_and_starts_again() {
    let Some(cx) = sandbox() else { return };
    for image in ["guests", "app"] {
        ok(&cx.ketch(["run", "-d", "--name", "c", image]));
        let started = || {
            cx.ketch([
                "inspect",
                "-f",
                "{{.State.StartedAt}} {{.State.Running}}",
                "c",
            ])
            .stdout
        };
        let before = started();
        let run = cx.ketch(["restart", "-t", "0", "c"]);
        ok(&run);
        assert_eq!(run.stdout, "c\n");
        let after = started();
        assert!(
            after.ends_with("true\n") && after != before,
            "{before} {after}"
        );
        ok(&cx.ketch(["kill", "c"]));
        ok(&cx.ketch(["wait", "c"]));
        ok(&cx.ketch(["container", "restart", "c"]));
        assert!(started().ends_with("true\n"));
        ok(&cx.ketch(["rm", "-f", "c"]));
    }
    ok(&cx.ketch(["run", "-d", "--rm", "--name", "gone", "guests"]));
    let run = cx.ketch(["restart", "-t", "0", "gone", "missing"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("it is removed when it ends")
            && run.stderr.contains("no such container")
    );
    assert!(cx.ketch(["ps"]).stdout.contains("gone"));
    ok(&cx.ketch(["rm", "-f", "gone"]));
}

#[test]
fn renamed_container_is_found_by_its_new_name_alone() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "old", "guests"]));
    ok(&cx.ketch(["create", "--name", "other", "guests"]));
    for (name, why) in [
        ("other", "in use"),
        ("old", "its name already"),
        ("-x", "only [a-zA-Z0-9]"),
    ] {
        let run = cx.ketch(["rename", "old", name]);
        assert_eq!(run.code, 1);
        assert!(run.stderr.contains(why), "{name}: {}", run.stderr);
    }
    ok(&cx.ketch(["rename", "old", "new"]));
    assert_eq!(
        cx.ketch(["inspect", "-f", "{{.Name}} {{.State.Running}}", "new"])
            .stdout,
        "/new true\n"
    );
    assert_eq!(cx.ketch(["stop", "-t", "0", "old"]).code, 1);
    // The old name is free again.
    ok(&cx.ketch(["create", "--name", "old", "guests"]));
    ok(&cx.ketch(["rm", "-f", "new", "old", "other"]));
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}

#[test]
fn name_of_a_container_that_vanished_under_another_is_free() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--rm", "--name", "first", "guests"]));
    ok(&cx.ketch(["rename", "first", "second"]));
    ok(&cx.ketch(["stop", "-t", "0", "second"]));
    for name in ["first", "second"] {
        assert_eq!(cx.ketch(["inspect", "--type", "container", name]).code, 1);
        ok(&cx.ketch(["create", "--name", name, "guests"]));
    }
    ok(&cx.ketch(["rename", "first", "third"]));
    ok(&cx.ketch(["rm", "second", "third"]));
}

#[test]
fn top_shows_the_processes_as_ps_does() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "c", "guests"]));
    let pid = cx.ketch(["inspect", "-f", "{{.State.Pid}}", "c"]).stdout;
    let full = cx.ketch(["top", "c"]).stdout;
    let rows: Vec<&str> = full.lines().collect();
    let header: Vec<&str> = rows[0].split_whitespace().collect();
    assert_eq!(
        header,
        ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    );
    assert_eq!(rows.len(), 2);
    let cells: Vec<&str> = rows[1].split_whitespace().collect();
    assert_eq!((cells[0], cells[1]), ("root", pid.trim()));
    assert!(rows[1].ends_with("/sleep 600"), "{full}");
    let run = cx.ketch(["top", "c", "-eo", "pid,comm=NAME"]);
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(words, ["PID", "NAME", pid.trim(), "sleep"]);
    assert!(
        cx.ketch(["container", "top", "c", "aux"])
            .stdout
            .starts_with("USER")
    );
    assert_eq!(cx.ketch(["top", "c", "--forest"]).code, 125);
    assert_eq!(cx.ketch(["top", "c", "-o", "nope"]).code, 125);
    ok(&cx.ketch(["rm", "-f", "c"]));
    let run = cx.ketch(["top", "c"]);
    assert!(run.stderr.contains("no such container"), "{}", run.stderr);
}

#[test]
fn wasm_container_has_no_processes_and_says_what_to_use_instead() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "c", "app"]));
    for args in [&["top", "c"][..], &["exec", "c", "ls"]] {
        let run = cx.ketch(args);
        assert_ne!(run.code, 0);
        assert!(
            run.stderr.contains("a wasm container has no processes")
                && run.stderr.contains("hint: see what it prints"),
            "{}",
            run.stderr
        );
    }
    ok(&cx.ketch(["rm", "-f", "c"]));
}

#[test]
fn stats_of_both_kinds_count_processor_time_and_memory() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::MemoryCgroup]) else {
        return;
    };
    make_images(&cx);
    ok(&cx.ketch([
        "run", "-d", "--name", "busy", "--memory", "64m", "guests", "/spin",
    ]));
    ok(&cx.ketch(["run", "-d", "--name", "wasm", "app"]));
    ok(&cx.ketch(["run", "-d", "--name", "idle", "guests"]));
    ok(&cx.ketch(["create", "--name", "waits", "guests"]));
    let run = cx.ketch(["stats", "--no-stream", "--format", "json"]);
    ok(&run);
    let mut seen = 0;
    for line in run.stdout.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let percent: f64 = record["CPUPerc"]
            .as_str()
            .unwrap()
            .trim_end_matches('%')
            .parse()
            .unwrap();
        match record["Name"].as_str().unwrap() {
            "idle" => assert!(percent < 5.0, "{line}"),
            "busy" => {
                assert!(percent > 5.0, "{line}");
                assert!(
                    record["MemUsage"].as_str().unwrap().ends_with("/ 64MiB"),
                    "{line}"
                );
                assert_eq!(record["PIDs"], "1");
            }
            "wasm" => assert!(percent > 5.0 && record["MemUsage"] != "0B / 0B", "{line}"),
            other => panic!("{other}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
    let run = cx.ketch(["container", "stats", "--no-stream", "waits", "idle"]);
    assert!(
        run.stdout.starts_with("CONTAINER ID") && run.stdout.contains("-- / --"),
        "{}",
        run.stdout
    );
    assert_eq!(cx.ketch(["stats", "--no-stream", "missing"]).code, 1);
    ok(&cx.ketch(["rm", "-f", "busy", "wasm", "idle", "waits"]));
}

#[test]
fn ordinary_user_sees_processes_and_what_they_use() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::IdMapPrograms]) else {
        return;
    };
    let cx = cx.as_user(Subordinate::Ids, UserNamespaces::Allowed);
    make_images(&cx);
    ok(&cx.ketch(["run", "-d", "--name", "busy", "guests", "/spin"]));
    let run = cx.ketch(["top", "busy", "-o", "comm"]);
    assert_eq!(run.stdout, "COMMAND\nspin\n", "{}", run.stderr);
    let run = cx.ketch([
        "stats",
        "--no-stream",
        "--format",
        "{{.CPUPerc}} {{.PIDs}} {{.BlockIO}}",
    ]);
    let percent: f64 = run.stdout.split('%').next().unwrap().parse().unwrap();
    assert!(
        percent > 5.0 && run.stdout.ends_with("1 -- / --\n"),
        "{}",
        run.stdout
    );
    ok(&cx.ketch(["rename", "busy", "busier"]));
    ok(&cx.ketch(["restart", "-t", "0", "busier"]));
    ok(&cx.ketch(["rm", "-f", "busier"]));
}

#[test]
fn prune_removes_what_does_not_run_and_fits() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "runs", "guests"]));
    ok(&cx.ketch(["create", "--name", "kept", "-l", "keep=1", "guests"]));
    ok(&cx.ketch(["create", "--name", "waits", "guests"]));
    let run = cx.ketch(["container", "prune"]);
    assert_eq!(run.code, 125);
    assert!(run.stderr.contains("--force"), "{}", run.stderr);
    let names = || {
        let run = cx.ketch(["ps", "-a", "--format", "{{.Names}}"]);
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    ok(&cx.ketch(["container", "prune", "-f", "--filter", "until=24h"]));
    assert_eq!(names().len(), 3);
    let run = cx.ketch(["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(
        run.stdout.starts_with("Deleted Containers:\n"),
        "{}",
        run.stdout
    );
    assert_eq!(names(), ["kept", "runs"]);
    assert_eq!(
        cx.ketch(["container", "prune", "-f", "--filter", "nope=1"])
            .code,
        1
    );
    ok(&cx.ketch(["create", "-v", "/anonymous", "--name", "with", "guests"]));
    ok(&cx.ketch(["volume", "create", "named"]));
    let run = cx.ketch(["system", "prune", "-f", "-a", "--volumes"]);
    ok(&run);
    assert_eq!(names(), ["runs"]);
    assert_eq!(cx.ketch(["volume", "ls", "-q"]).stdout, "named\n");
    let images = cx.ketch(["images", "--format", "{{.Repository}}"]).stdout;
    assert_eq!(images, "guests\n", "{}", run.stdout);
    ok(&cx.ketch(["rm", "-f", "runs"]));
}

#[test]
fn check_finds_what_is_damaged_and_what_belongs_to_nobody_and_repairs_it() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "--rm", "guests", "/sleep", "0"]));
    let check = |args: &[&str]| {
        let mut all = vec!["system", "check"];
        all.extend(args);
        cx.ketch(all)
    };
    let run = check(&[]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "everything is as it should be\n"),
        "{}",
        run.stderr
    );
    let root = cx.path().join("root");
    let layers = root.join("layers");
    let layer = std::fs::read_dir(&layers)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("sleep").exists())
        .unwrap();
    let append = |path: &std::path::Path, bytes: &[u8]| {
        use std::io::Write;
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(bytes).unwrap();
    };
    append(&layer.join("sleep"), b"x");
    append(&root.join("containers/names/ghost"), b"0123");
    std::fs::create_dir(cx.path().join("run/containers/none")).unwrap();
    let found = check(&[]);
    assert_eq!(found.code, 1, "{}", found.stderr);
    for text in [
        "differs from its archive at `/sleep`",
        "name `ghost`",
        "belongs to no container",
    ] {
        assert!(found.stdout.contains(text), "{text}: {}", found.stdout);
    }
    let run = check(&["--repair"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("unpacked again"), "{}", run.stdout);
    assert_eq!(check(&[]).code, 0);
    ok(&cx.ketch(["run", "--rm", "guests", "/sleep", "0"]));
    let blob = std::fs::read_dir(root.join("content/sha256"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    append(&blob, b"x");
    let run = check(&[]);
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.contains("has other bytes than its digest says"),
        "{}",
        run.stdout
    );
}
