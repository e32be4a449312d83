//! `restart`, `rename`, `top`, `stats`, `container prune`, `system prune`, of both kinds of container.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::path::Path;

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
        ok(&cx.ketch(["run", "-d", "--name", "box1", image]));
        let started = || {
            cx.ketch([
                "inspect",
                "-f",
                "{{.State.StartedAt}} {{.State.Running}}",
                "box1",
            ])
            .stdout
        };
        let before = started();
        let run = cx.ketch(["restart", "-t", "0", "box1"]);
        ok(&run);
        assert_eq!(run.stdout, "box1\n");
        let after = started();
        assert!(
            after.ends_with("true\n") && after != before,
            "{before} {after}"
        );
        ok(&cx.ketch(["kill", "box1"]));
        ok(&cx.ketch(["wait", "box1"]));
        ok(&cx.ketch(["container", "restart", "box1"]));
        assert!(started().ends_with("true\n"));
        ok(&cx.ketch(["rm", "-f", "box1"]));
    }
    // One that goes with its end stays for this one, with what it has written.
    ok(&cx.ketch(["run", "-d", "--rm", "--name", "gone", "guests"]));
    let id = || cx.ketch(["ps", "-q", "--no-trunc"]).stdout;
    let before = id();
    let run = cx.ketch(["restart", "-t", "0", "gone", "missing"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.stdout, "gone\n");
    assert!(run.stderr.contains("no such container"), "{}", run.stderr);
    assert_eq!(id(), before);
    ok(&cx.ketch(["stop", "-t", "0", "gone"]));
    cx.until(["ps", "-aq"], |run| run.stdout.is_empty());
}

#[test]
fn renamed_container_is_found_by_its_new_name_alone() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "old", "guests"]));
    ok(&cx.ketch(["create", "--name", "other", "guests"]));
    for (name, why) in [
        ("other", "in use"),
        ("old", "its name already"),
        ("x/y", "only [a-zA-Z0-9]"),
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
fn container_that_is_removed_when_it_ends_gives_back_the_name_that_it_has_then() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--rm", "--name", "first", "guests"]));
    ok(&cx.ketch(["rename", "first", "second"]));
    ok(&cx.ketch(["create", "--name", "first", "guests"]));
    ok(&cx.ketch(["kill", "second"]));
    assert_eq!(cx.ketch(["wait", "second"]).stdout, "137\n");
    cx.until(["ps", "-a", "--format", "{{.Names}}"], |run| {
        run.stdout == "first\n"
    });
    // The one name is free, the other one is still another container's.
    ok(&cx.ketch(["create", "--name", "second", "guests"]));
    assert_eq!(cx.ketch(["create", "--name", "first", "guests"]).code, 125);
    ok(&cx.ketch(["rm", "first", "second"]));
}

#[test]
fn name_that_a_dead_process_claimed_is_free() {
    let Some(cx) = sandbox() else { return };
    let claim = cx.path().join("root/containers/names/ghost");
    std::fs::copy("/etc/hostname", claim).unwrap();
    assert_eq!(
        cx.ketch(["inspect", "--type", "container", "ghost"]).code,
        1
    );
    ok(&cx.ketch(["create", "--name", "ghost", "guests"]));
    assert_eq!(cx.ketch(["create", "--name", "ghost", "guests"]).code, 125);
    ok(&cx.ketch(["rm", "ghost"]));
}

#[test]
fn top_shows_the_processes_as_ps_does() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "box1", "guests"]));
    let pid = cx.ketch(["inspect", "-f", "{{.State.Pid}}", "box1"]).stdout;
    let full = cx.ketch(["top", "box1"]).stdout;
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
    let run = cx.ketch(["top", "box1", "-eo", "pid,comm=NAME"]);
    let words: Vec<&str> = run.stdout.split_whitespace().collect();
    assert_eq!(words, ["PID", "NAME", pid.trim(), "sleep"]);
    assert!(
        cx.ketch(["container", "top", "box1", "aux"])
            .stdout
            .starts_with("USER")
    );
    assert_eq!(cx.ketch(["top", "box1", "--forest"]).code, 125);
    assert_eq!(cx.ketch(["top", "box1", "-o", "nope"]).code, 125);
    ok(&cx.ketch(["rm", "-f", "box1"]));
    let run = cx.ketch(["top", "box1"]);
    assert!(run.stderr.contains("no such container"), "{}", run.stderr);
}

#[test]
fn wasm_container_has_no_processes_and_says_what_to_use_instead() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["run", "-d", "--name", "box1", "app"]));
    for args in [&["top", "box1"][..], &["exec", "box1", "ls"]] {
        let run = cx.ketch(args);
        assert_ne!(run.code, 0);
        assert!(
            run.stderr.contains("a wasm container has no processes")
                && run.stderr.contains("hint: see what it prints"),
            "{}",
            run.stderr
        );
    }
    ok(&cx.ketch(["rm", "-f", "box1"]));
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
            "idle" => assert!(percent < 5.0 && record["WasmMemory"] == "--", "{line}"),
            "busy" => {
                assert!(percent > 0.5, "{line}");
                assert!(
                    record["MemUsage"].as_str().unwrap().ends_with("/ 64MiB"),
                    "{line}"
                );
                assert_eq!(record["PIDs"], "1");
            }
            "wasm" => {
                assert!(percent > 0.5 && record["MemUsage"] != "0B / 0B", "{line}");
                let linear = record["WasmMemory"].as_str().unwrap();
                assert!(linear.ends_with("iB") && !linear.starts_with('0'), "{line}");
            }
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
        percent > 0.5 && run.stdout.ends_with("1 -- / --\n"),
        "{}",
        run.stdout
    );
    // Only its monitor can look into it.
    ok(&cx.ketch(["run", "-d", "--name", "wasm", "app"]));
    let run = cx.ketch([
        "stats",
        "--no-stream",
        "--format",
        "{{.WasmMemory}}",
        "wasm",
    ]);
    assert!(
        run.stdout.ends_with("iB\n") && !run.stdout.starts_with('0'),
        "{run:?}"
    );
    ok(&cx.ketch(["rm", "-f", "wasm"]));
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

/// Adds bytes to the end of a file, which is made when it is missing.
fn append(path: &Path, bytes: &[u8]) {
    let mut options = std::fs::File::options();
    let mut file = options.create(true).append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
}

#[test]
fn check_finds_what_is_damaged_and_what_belongs_to_nobody_and_repairs_it() {
    for form in ["directory", "auto"] {
        let Some(cx) = sandbox() else { return };
        let ketch = |args: &[&str]| {
            let mut command = cx.command();
            let output = command.env("KETCH_LAYERS", form).args(args).output();
            let output = output.unwrap();
            Run {
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        };
        check_finds_and_repairs(&cx, form, &ketch);
    }
}

fn check_finds_and_repairs(cx: &Sandbox, form: &str, ketch: &dyn Fn(&[&str]) -> Run) {
    ok(&ketch(&["run", "--rm", "guests", "/sleep", "0"]));
    let run = ketch(&["system", "check"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (0, "everything is as it should be\n"),
        "{}",
        run.stderr
    );
    let root = cx.path().join("root");
    let layers = std::fs::read_dir(root.join("layers")).unwrap();
    let layers: Vec<_> = layers.map(|entry| entry.unwrap().path()).collect();
    let file = match form {
        "directory" => layers
            .iter()
            .map(|layer| layer.join("sleep"))
            .find(|file| file.exists()),
        _ => layers
            .iter()
            .find(|path| path.is_file() && !is_record(path))
            .cloned(),
    };
    append(&file.unwrap(), b"x");
    append(&root.join("containers/names/ghost"), b"0123");
    std::fs::create_dir(cx.path().join("run/containers/none")).unwrap();
    let found = ketch(&["system", "check"]);
    assert_eq!(found.code, 1, "{}", found.stderr);
    let place = match form {
        "directory" => "differs from its archive at `/sleep`",
        _ => "differs from its archive",
    };
    for text in [place, "name `ghost`", "belongs to no container"] {
        assert!(found.stdout.contains(text), "{text}: {}", found.stdout);
    }
    let run = ketch(&["system", "check", "--repair"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("unpacked again"), "{}", run.stdout);
    assert_eq!(ketch(&["system", "check"]).code, 0);
    ok(&ketch(&["run", "--rm", "guests", "/sleep", "0"]));
    // A damaged layer, config or manifest is named, and hides none of the others.
    let blobs = std::fs::read_dir(root.join("content/sha256")).unwrap();
    let blobs: Vec<_> = blobs.map(|entry| entry.unwrap().path()).collect();
    for blob in &blobs {
        append(blob, b"x");
    }
    let record = root.join("networks").join("0".repeat(64));
    std::fs::create_dir_all(&record).unwrap();
    append(&record.join("config.json"), b"{");
    let image = std::fs::read_dir(root.join("images")).unwrap();
    let image = image
        .map(|entry| entry.unwrap().path().join("image.json"))
        .find(|path| path.exists())
        .unwrap();
    append(&image, b"}");
    let run = ketch(&["system", "check"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    for blob in &blobs {
        let name = blob.file_name().unwrap().to_str().unwrap();
        let text = format!("blob sha256:{name} has other bytes than its digest says");
        assert!(run.stdout.contains(&text), "{text}: {}", run.stdout);
    }
    let damaged = format!("`{}` cannot be read", image.display());
    for text in [damaged.as_str(), "network 0000"] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
}

fn is_record(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}
