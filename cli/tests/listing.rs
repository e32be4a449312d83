//! What commands show: filters, templates, JSON in Docker's shape; and what `run` and `create` keep
//! as records.

#![expect(clippy::unwrap_used, reason = "test code")]

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

const SLEEP: &[u8] = include_bytes!("../../fixtures/guests/built/sleep.x86_64");
const ARGS: &[u8] = include_bytes!("../../fixtures/guests/built/args.x86_64");

/// A sandbox with the image `guests:1`, which has a label.
fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root])?;
    let files = [("sleep", SLEEP, 0o755), ("args", ARGS, 0o755)];
    let changes = [
        "LABEL of=image",
        "ENV FROM=image",
        "CMD [\"/sleep\", \"600\"]",
    ];
    cx.image("guests:1", &files, &changes);
    Some(cx)
}

#[track_caller]
fn ok(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// Three containers: `one` and `two` ended with 0 and 7, `web` runs.
fn with_three() -> Option<Sandbox> {
    let cx = sandbox()?;
    ok(&cx.ketch([
        "run",
        "--name",
        "one",
        "-l",
        "tier=front",
        "guests:1",
        "/args",
        "0",
    ]));
    assert_eq!(
        cx.ketch([
            "run",
            "--name",
            "two",
            "-l",
            "tier=back",
            "guests:1",
            "/args",
            "7"
        ])
        .code,
        7
    );
    ok(&cx.ketch([
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        "-v",
        "data:/data",
        "guests:1",
    ]));
    Some(cx)
}

#[test]
fn ps_filters_choose_containers() {
    let Some(cx) = with_three() else { return };
    let id = cx.ketch(["inspect", "-f", "{{.Id}}", "one"]).stdout;
    let by_id = format!("id={}", id.trim().get(..12).unwrap());
    let table: [(&[&str], &[&str]); 21] = [
        (&[], &["web"]),
        (&["-a"], &["web", "two", "one"]),
        (&["-n", "2"], &["web", "two"]),
        (&["-l"], &["web"]),
        (&["-a", "-f", &by_id], &["one"]),
        (&["-a", "-f", "name=o"], &["two", "one"]),
        (
            &["-a", "-f", "name=^/one$", "-f", "name=web"],
            &["web", "one"],
        ),
        (&["-a", "-f", "label=tier=front"], &["web", "one"]),
        (&["-a", "-f", "label=of", "-f", "label=tier=back"], &["two"]),
        (&["-a", "-f", "label=none"], &[]),
        (&["-f", "status=exited"], &["two", "one"]),
        (&["-a", "-f", "exited=7"], &["two"]),
        (&["-a", "-f", "exited=0", "-f", "exited=7"], &["two", "one"]),
        (&["-a", "-f", "ancestor=guests:1"], &["web", "two", "one"]),
        (&["-a", "-f", "ancestor=other"], &[]),
        (&["-a", "-f", "before=two"], &["one"]),
        (&["-a", "-f", "since=one"], &["web", "two"]),
        (&["-a", "-f", "volume=data"], &["web"]),
        (&["-a", "-f", "volume=/data"], &["web"]),
        (&["-a", "-f", "network=none", "-f", "name=w"], &["web"]),
        (&["-a", "-f", "publish=80", "-f", "health=none"], &[]),
    ];
    for (args, names) in table {
        let mut all = vec!["ps", "--format", "{{.Names}}"];
        all.extend(args);
        let run = cx.ketch(all);
        ok(&run);
        assert_eq!(lines(&run.stdout), names, "{args:?}");
    }
    for bad in [
        "nope=1",
        "name",
        "status=fine",
        "exited=many",
        "before=missing",
        "health=well",
    ] {
        let run = cx.ketch(["ps", "-f", bad]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{bad}");
        assert!(run.stderr.starts_with("error: "), "{bad}: {}", run.stderr);
    }
    ok(&cx.ketch(["rm", "-f", "web"]));
}

#[test]
fn ps_shows_what_a_template_asks_for() {
    let Some(cx) = with_three() else { return };
    let full = cx.ketch(["ps", "-q", "--no-trunc"]).stdout;
    assert_eq!(full.trim().len(), 64);
    let run = cx.ketch([
        "ps",
        "-a",
        "--format",
        r#"table {{.Names}}\t{{.Image}}\t{{.Label "tier"}}\t{{.State}}"#,
    ]);
    let expected = [
        "NAMES   IMAGE      TIER    STATE",
        "web     guests:1   front   running",
        "two     guests:1   back    exited",
        "one     guests:1   front   exited",
    ];
    assert_eq!(lines(&run.stdout), expected, "{}", run.stderr);
    let json = cx.ketch(["ps", "--format", "json"]).stdout;
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(record["Names"], "web");
    assert_eq!(record["Command"], "\"/sleep 600\"");
    assert_eq!(record["Mounts"], "data");
    assert_eq!(record["Networks"], "none");
    assert!(record["Labels"].as_str().unwrap().contains("of=image"));
    assert!(
        record["Status"].as_str().unwrap().starts_with("Up "),
        "{json}"
    );
    let wide = cx.ketch(["ps", "-s"]).stdout;
    assert!(
        wide.contains("SIZE") && wide.contains("(virtual "),
        "{wide}"
    );
    let run = cx.ketch(["ps", "--format", "{{.Names}} {{.Nope}}"]);
    assert_eq!(run.code, 64);
    assert!(
        run.stderr.contains("column 14: there is no field `Nope`"),
        "{}",
        run.stderr
    );
    ok(&cx.ketch(["container", "rm", "-f", "web"]));
}

#[test]
fn inspect_has_the_shape_of_dockers() {
    let Some(cx) = sandbox() else { return };
    let args = [
        "create",
        "--name",
        "c",
        "-h",
        "host1",
        "--domainname",
        "example.org",
        "-u",
        "7:8",
        "-w",
        "/work",
        "-e",
        "A=b",
        "-l",
        "k=v",
        "--annotation",
        "note=x",
        "--stop-signal",
        "INT",
        "--stop-timeout",
        "3",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "9",
        "--read-only",
        "--expose",
        "53/udp",
        "-v",
        "data:/data:ro",
        "guests:1",
        "/args",
        "1",
    ];
    ok(&cx.ketch(args));
    let table = [
        (
            "{{.State.Status}} {{.State.Running}} {{.State.Pid}}",
            "created false 0",
        ),
        ("{{.Name}} {{.Path}} {{.Args}}", "/c /args [1]"),
        (
            "{{.Config.Hostname}}.{{.Config.Domainname}}",
            "host1.example.org",
        ),
        (
            "{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Image}}",
            "7:8 /work guests:1",
        ),
        ("{{.Config.Cmd}} {{.Config.Entrypoint}}", "[/args 1] []"),
        (
            "{{range .Config.Env}}{{if eq (slice . 0 1) `A`}}{{.}}{{end}}{{end}}",
            "A=b",
        ),
        (
            "{{index .Config.Labels \"k\"}} {{.Config.Labels.of}}",
            "v image",
        ),
        ("{{.Config.StopSignal}} {{.Config.StopTimeout}}", "INT 3"),
        (
            "{{json .Config.ExposedPorts}} {{.Config.Tty}}",
            "{\"53/udp\":{}} false",
        ),
        (
            "{{.HostConfig.Annotations.note}} {{.HostConfig.ReadonlyRootfs}}",
            "x true",
        ),
        (
            "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}",
            "67108864 500000000 9",
        ),
        (
            "{{.HostConfig.Binds}} {{.HostConfig.NetworkMode}}",
            "[data:/data:ro] none",
        ),
        (
            "{{.HostConfig.AutoRemove}} {{.HostConfig.LogConfig.Type}}",
            "false json-file",
        ),
        (
            "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}",
            "volume data /data false",
        ),
        (
            "{{.State.StartedAt}} {{if .State.Health}}a{{else}}b{{end}}",
            "0001-01-01T00:00:00Z b",
        ),
        (
            "{{.NetworkSettings.IPAddress}}{{len .NetworkSettings.Networks}}",
            "0",
        ),
    ];
    for (template, expected) in table {
        let run = cx.ketch(["inspect", "-f", template, "c"]);
        assert_eq!(
            run.stdout.trim_end(),
            expected,
            "{template}: {}",
            run.stderr
        );
    }
    let whole = cx.ketch(["container", "inspect", "-s", "c"]).stdout;
    let record: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(record[0]["SizeRw"], 0);
    assert!(whole.starts_with("[\n    {\n        \""), "{whole}");
    assert_eq!(
        cx.ketch(["inspect", "-f", "json", "c"])
            .stdout
            .lines()
            .count(),
        1
    );
}

#[test]
fn inspect_finds_each_kind_and_says_what_is_missing() {
    let Some(cx) = sandbox() else { return };
    ok(&cx.ketch(["create", "--name", "c", "guests:1"]));
    ok(&cx.ketch(["volume", "create", "-l", "a=b", "data"]));
    let run = cx.ketch(["inspect", "-f", "{{.Name}}", "c", "data", "host"]);
    assert_eq!(lines(&run.stdout), ["/c", "data", "host"], "{}", run.stderr);
    let run = cx.ketch(["inspect", "missing"]);
    assert_eq!((run.code, run.stdout.as_str()), (1, "[]\n"));
    assert_eq!(run.stderr, "error: no such object: missing\n");
    assert_eq!(cx.ketch(["inspect", "--type", "volume", "c"]).code, 1);
    assert_eq!(cx.ketch(["inspect", "--type", "moon", "c"]).code, 125);
    let run = cx.ketch(["inspect", "-f", "{{.Id", "c"]);
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert!(run.stderr.contains("line 1, column 1"), "{}", run.stderr);
    let run = cx.ketch([
        "volume",
        "inspect",
        "-f",
        "{{.Labels.a}} {{.Scope}}",
        "data",
    ]);
    assert_eq!(run.stdout, "b local\n");
    let run = cx.ketch(["network", "inspect", "-f", "{{.Driver}}", "none"]);
    assert_eq!(run.stdout, "null\n");
}

#[test]
fn lists_of_images_volumes_and_networks_take_filters_and_templates() {
    let Some(cx) = sandbox() else { return };
    cx.image("other/app:2", &[("x", b"x", 0o644)], &["LABEL k=v"]);
    let names = |args: &[&str]| {
        let mut all = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
        all.extend(args);
        let run = cx.ketch(all);
        ok(&run);
        let mut names: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["guests:1", "other/app:2"]);
    assert_eq!(names(&["guests"]), ["guests:1"]);
    assert_eq!(names(&["-f", "reference=*/a*"]), ["other/app:2"]);
    assert_eq!(names(&["-f", "label=k=v"]), ["other/app:2"]);
    assert!(names(&["-f", "dangling=true"]).is_empty());
    assert!(names(&["-f", "until=2000-01-01"]).is_empty());
    assert_eq!(cx.ketch(["images", "-f", "nope=1"]).code, 1);
    assert_eq!(cx.ketch(["images", "-f", "dangling=maybe"]).code, 1);
    let table = cx.ketch(["images", "--digests"]).stdout;
    assert!(
        table.starts_with("REPOSITORY") && table.contains("sha256:"),
        "{table}"
    );
    assert_eq!(cx.ketch(["images", "-q"]).stdout.lines().count(), 2);

    ok(&cx.ketch(["volume", "create", "-l", "a=b", "one"]));
    ok(&cx.ketch(["volume", "create", "two"]));
    let run = cx.ketch([
        "volume",
        "ls",
        "-f",
        "label=a",
        "--format",
        "{{.Name}} {{.Label \"a\"}}",
    ]);
    assert_eq!(run.stdout, "one b\n");
    assert_eq!(
        cx.ketch(["volume", "ls", "-q", "-f", "dangling=true"])
            .stdout,
        "one\ntwo\n"
    );
    assert_eq!(cx.ketch(["volume", "ls", "-f", "nope=1"]).code, 1);
    let run = cx.ketch([
        "network",
        "ls",
        "-f",
        "name=host",
        "--format",
        "{{.Name}} {{.Driver}}",
    ]);
    assert_eq!(run.stdout, "host host\n");

    let run = cx.ketch([
        "history",
        "--format",
        "{{.Size}}",
        "--human=false",
        "guests:1",
    ]);
    assert!(
        run.stdout.trim().parse::<u64>().unwrap() > 0,
        "{}",
        run.stdout
    );
    let run = cx.ketch(["version", "--format", "{{.Server.Version}}"]);
    assert_eq!(run.stdout.trim(), env!("CARGO_PKG_VERSION"));
    let run = cx.ketch([
        "system",
        "info",
        "-f",
        "{{.Images}} {{.OSType}} {{.DefaultRuntime}}",
    ]);
    assert_eq!(run.stdout, "2 linux native\n", "{}", run.stderr);
    let run = cx.ketch(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert_eq!(
        lines(&run.stdout)[..3],
        ["Images=2", "Containers=0", "Local Volumes=2"]
    );
    assert!(
        cx.ketch(["system", "df", "-v"])
            .stdout
            .contains("Local Volumes space usage:")
    );
}

#[test]
fn label_files_and_cid_files_are_read_and_written() {
    let Some(cx) = sandbox() else { return };
    let labels = cx.path().join("labels");
    std::fs::copy("/dev/null", &labels).unwrap();
    use std::io::Write;
    let mut file = std::fs::File::options().append(true).open(&labels).unwrap();
    file.write_all(b"# comment\nfrom=file\nof=file\n").unwrap();
    let cid = cx.path().join("cid");
    let create = || {
        cx.ketch([
            "create",
            "--label-file",
            labels.to_str().unwrap(),
            "--cidfile",
            cid.to_str().unwrap(),
            "-l",
            "flag",
            "guests:1",
        ])
    };
    let run = create();
    ok(&run);
    let id = std::fs::read_to_string(&cid).unwrap();
    assert_eq!(id, run.stdout.trim());
    let format = "{{json .Config.Labels}} {{.HostConfig.ContainerIDFile}}";
    let record = cx.ketch(["inspect", "-f", format, &id]).stdout;
    let expected = format!(
        r#"{{"flag":"","from":"file","of":"file"}} {}"#,
        cid.display()
    );
    assert_eq!(record.trim(), expected);
    let run = create();
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("cannot write the container's id"),
        "{}",
        run.stderr
    );
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout.lines().count(), 1);
    for bad in [
        ["--label", "=x"],
        ["--stop-signal", "NOPE"],
        ["--annotation", "x"],
        ["--label-file", "/none"],
    ] {
        let run = cx.ketch(["create", bad[0], bad[1], "guests:1"]);
        assert_eq!(run.code, 125, "{bad:?}: {}", run.stderr);
    }
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout.lines().count(), 1);
}
