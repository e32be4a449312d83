//! `ketch bench` through the real program. Times are not judged here: what is checked is who was measured, how often, and
//! what is said of what could not be.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{CHROMIUM, Need, Run, Sandbox, Subordinate, UserNamespaces};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// How long a run may take to get somewhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// Programs that a run may need, and no engine.
const PATH: &str = "/usr/sbin:/usr/bin:/bin";

fn bench(cx: &Sandbox, path: &str, args: &[&str]) -> Run {
    let mut command = cx.command();
    command.arg("bench").args(args).env("PATH", path);
    let output = command.stdin(Stdio::null()).output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A run that must succeed, without peers, and its record.
fn record(cx: &Sandbox, args: &[&str]) -> Value {
    let args = [&["--peers", "none", "--format", "json"], args].concat();
    let run = bench(cx, PATH, &args);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

fn named<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let list = list.as_array().unwrap();
    let found = list.iter().find(|one| one[key] == name);
    found.unwrap_or_else(|| panic!("there is no `{name}` in {list:?}"))
}

fn outcome<'a>(record: &'a Value, measure: &str, subject: &str) -> &'a Value {
    let measured = named(&record["measures"], "name", measure);
    named(&measured["outcomes"], "subject", subject)
}

fn samples(outcome: &Value) -> usize {
    let samples = outcome["samples"].as_array().unwrap();
    assert!(samples.iter().all(|value| value.as_f64().unwrap() > 0.0));
    samples.len()
}

/// Nothing of a run is left: no container, no image, no file.
fn assert_tidy(cx: &Sandbox) {
    assert_eq!(cx.ketch(["ps", "-a", "-q"]).stdout, "");
    assert_eq!(cx.ketch(["images", "-q"]).stdout, "");
    let left = std::fs::read_dir(cx.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "files of the run are left");
}

/// A sandbox with a directory for the run's files, which is looked at afterwards.
fn sandbox(needs: &[Need]) -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, needs)?;
    std::fs::create_dir(cx.path().join("tmp")).unwrap();
    Some(cx)
}

/// The same run, its files in the sandbox.
fn record_in(cx: &Sandbox, args: &[&str]) -> Value {
    let mut command = cx.command();
    command
        .args(["bench", "--peers", "none", "--format", "json"])
        .args(args)
        .env("PATH", PATH)
        .env("TMPDIR", cx.path().join("tmp"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn starts_are_measured_at_every_level_and_nothing_is_left() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };

    let record = record_in(
        &cx,
        &["--runs", "2", "--only", "start.warm,start.cold,stop"],
    );

    for level in ["process", "linux", "wasm", "wasm-only"] {
        let subject = named(&record["subjects"], "name", level);
        assert_eq!(subject["unavailable"], Value::Null, "{subject}");
        for (measure, count) in [("start.warm", 6), ("start.cold", 1), ("stop", 1)] {
            let outcome = outcome(&record, measure, level);
            assert_eq!(samples(outcome), count, "{measure} of {level}: {outcome}");
        }
        let ratio = &outcome(&record, "start.warm", level)["ratio"];
        assert!(ratio["median"].as_f64().unwrap() > 0.0);
        assert!(ratio["interval"]["low"].as_f64() <= ratio["median"].as_f64());
    }
    assert_eq!(record["base"], "process");
    assert_eq!(record["rounds"], 2);
    assert!(record["own_overhead"]["ratio"]["median"].as_f64().unwrap() > 0.0);
    assert!(record["images"][0].as_str().unwrap().contains("sha256:"));
    assert_tidy(&cx);
}

#[test]
fn work_comes_to_the_same_results_in_every_world() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    let only = "cpu,memory.bandwidth,memory.random,syscall,fs,pipe,net.loopback";

    let record = record_in(&cx, &["--runs", "1", "--only", only]);

    assert_eq!(record["wrong"], false, "{}", record["warnings"]);
    let mut refused = Vec::new();
    for measured in record["measures"].as_array().unwrap() {
        for outcome in measured["outcomes"].as_array().unwrap() {
            let name = format!("{}/{}", measured["name"], outcome["subject"]).replace('"', "");
            match outcome["unavailable"].as_str() {
                None => assert_eq!(samples(outcome), 1, "{name}"),
                Some(reason) => refused.push((name, reason.to_owned())),
            }
        }
    }
    // WASI has no process ids; without a container nothing can be written.
    let expected = |name: &str| {
        name.starts_with("syscall.getpid/wasm")
            || name.starts_with("fs.") && name.ends_with("/wasm-only")
    };
    for (name, reason) in &refused {
        assert!(expected(name), "{name}: {reason}");
    }
    assert_eq!(refused.len(), 2 + 21, "{refused:?}");
    assert_tidy(&cx);
}

#[test]
fn idle_instances_have_memory_and_share_some() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };

    let record = record_in(
        &cx,
        &[
            "--runs",
            "1",
            "--only",
            "memory.idle,memory.more,memory.hundredth,memory.density,start.load",
        ],
    );

    for level in ["process", "linux", "wasm", "wasm-only"] {
        assert_eq!(samples(outcome(&record, "start.load", level)), 1);
        assert_eq!(samples(outcome(&record, "memory.idle", level)), 1);
        assert_eq!(samples(outcome(&record, "memory.more", level)), 1);
        // A busy machine may start fewer in the time that is given.
        let hundredth = outcome(&record, "memory.hundredth", level);
        match hundredth["unavailable"].as_str() {
            None => assert_eq!(samples(hundredth), 1),
            Some(reason) => assert!(reason.contains("of 100 instances"), "{reason}"),
        }
        let density = outcome(&record, "memory.density", level);
        match density["unavailable"].as_str() {
            None => assert_eq!(samples(density), 1),
            Some(reason) => assert!(reason.contains("gave back more memory"), "{reason}"),
        }
    }
    // Each container has a monitor beside its process, and all share the pages of its program.
    let mib = |measure, level| {
        outcome(&record, measure, level)["samples"][0]
            .as_f64()
            .unwrap()
    };
    assert!(mib("memory.idle", "linux") > mib("memory.idle", "process"));
    assert!(mib("memory.more", "linux") < mib("memory.idle", "linux"));
    assert_tidy(&cx);
}

#[test]
fn networks_are_measured_from_a_host_of_their_own() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    // The bridge is made in a namespace that goes with the run.
    let ketch = cx.command();
    let mut command = std::process::Command::new("unshare");
    command
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$@\"",
            "sh",
        ])
        .arg(ketch.get_program())
        .args(["bench", "--peers", "none", "--format", "json"])
        .args(["--runs", "1", "--only", "net"])
        .env_clear()
        .envs(
            ketch
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env("PATH", PATH)
        .env("TMPDIR", cx.path().join("tmp"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();

    let measures = [
        "net.loopback.trip",
        "net.loopback.stream",
        "net.bridge.trip",
        "net.bridge.stream",
        "net.host.trip",
        "net.host.stream",
        "net.http",
    ];
    for measure in measures {
        for level in ["process", "linux", "wasm", "wasm-only"] {
            let outcome = outcome(&record, measure, level);
            if level == "wasm-only" && measure.starts_with("net.bridge.") {
                let reason = "--isolation wasm-only has no network of its own";
                assert_eq!(outcome["unavailable"], reason);
                continue;
            }
            assert_eq!(samples(outcome), 1, "{measure} of {level}: {outcome}");
        }
    }
    assert!(
        record["images"][1]
            .as_str()
            .unwrap()
            .starts_with("ketch-bench-net: sha256:")
    );
    assert_tidy(&cx);
}

#[test]
fn overhead_alone_starts_no_container() {
    let Some(cx) = Sandbox::new(KETCH, &[]) else {
        return;
    };

    let record = record(&cx, &["--only", "overhead"]);

    let overhead = &record["own_overhead"];
    assert!(overhead["bare_ms"].as_f64().unwrap() > 0.0);
    assert!(overhead["ratio"]["interval"]["low"].as_f64().unwrap() > 0.0);
    assert_eq!(record["measures"].as_array().unwrap().len(), 0);
    assert_eq!(record["rounds_wanted"], 0);
    assert!(!cx.path().join("root").exists());
}

#[test]
fn peer_that_fails_or_is_absent_leaves_the_rest_measured() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let bin = cx.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let crun = bin.join("crun");
    std::fs::File::create(&crun).unwrap();
    std::fs::copy("/bin/false", &crun).unwrap();
    std::fs::set_permissions(&crun, PermissionsExt::from_mode(0o755)).unwrap();
    let args = ["--runs", "1", "--only", "start.warm", "--levels", "process"];

    let run = bench(
        &cx,
        &bin.display().to_string(),
        &[&args[..], &["--peers", "crun,youki"]].concat(),
    );

    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout.contains("crun was not measured: `crun` failed"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout
            .contains("youki was not measured: `youki` is not installed")
    );
    assert!(
        run.stdout
            .contains("start.warm  from the command line to the exit code (ms)")
    );
}

#[test]
fn real_oci_runtime_is_measured_beside() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Runc]) else {
        return;
    };
    let only = "start.warm,stop,memory.idle,cpu.integer,fs.volume,pipe";
    let args = [
        "--runs", "1", "--only", only, "--levels", "process", "--format", "json",
    ];

    let run = bench(
        &cx,
        "/usr/bin:/usr/sbin:/bin",
        &[&args[..], &["--peers", "runc"]].concat(),
    );

    assert_eq!(run.code, 0, "{}", run.stderr);
    let record: Value = serde_json::from_str(&run.stdout).unwrap();
    let subject = named(&record["subjects"], "name", "runc");
    assert_eq!(subject["unavailable"], Value::Null, "{subject}");
    for measure in [
        "start.warm",
        "stop",
        "memory.idle",
        "cpu.integer",
        "fs.volume.create",
        "pipe.echo",
    ] {
        let outcome = outcome(&record, measure, "runc");
        assert!(samples(outcome) > 0, "{measure}: {outcome}");
    }
}

#[test]
fn image_of_one_kind_makes_the_other_levels_unavailable() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let program = include_bytes!("../../fixtures/guests/built/args.x86_64");
    let files = [("args", program.as_slice(), 0o755)];
    cx.image("mine", &files, &["ENTRYPOINT [\"/args\"]"]);

    let record = record(
        &cx,
        &[
            "--runs", "1", "--only", "start", "--image", "mine", "--cmd", "0", "word",
        ],
    );

    for level in ["process", "linux"] {
        for measure in ["start.warm", "start.cold", "start.load"] {
            let outcome = outcome(&record, measure, level);
            assert!(samples(outcome) > 0, "{measure} of {level}: {outcome}");
        }
    }
    for level in ["wasm", "wasm-only"] {
        let reason = named(&record["subjects"], "name", level)["unavailable"].as_str();
        assert!(
            reason.unwrap().starts_with("there is no wasm image"),
            "{reason:?}"
        );
    }
    // The user's image stays.
    assert!(cx.ketch(["images"]).stdout.contains("mine"));
}

#[test]
fn index_with_both_kinds_is_measured_at_every_level() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/images/hello.tar");
    assert_eq!(cx.ketch(["load", "-i", archive]).code, 0);

    let record = record_in(&cx, &["--runs", "1", "--only", "start", "--image", "hello"]);

    for level in ["process", "linux", "wasm", "wasm-only"] {
        for measure in ["start.warm", "start.cold", "start.load"] {
            let outcome = outcome(&record, measure, level);
            assert!(samples(outcome) > 0, "{measure} of {level}: {outcome}");
        }
    }
    assert!(cx.ketch(["images"]).stdout.contains("hello"));
}

#[test]
fn two_references_and_a_command_are_measured_at_every_level() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    let native = include_bytes!("../../fixtures/guests/built/args.x86_64");
    let files = [("args", native.as_slice(), 0o755)];
    cx.image("native", &files, &["ENTRYPOINT [\"/args\"]"]);
    // `Sandbox::image` makes images for this machine.
    let module = include_bytes!("../../fixtures/guests/built/args.wasm");
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(module.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive
        .append_data(&mut header, "args.wasm", &module[..])
        .unwrap();
    let entry = "ENTRYPOINT [\"/args.wasm\"]";
    let import = [
        "import",
        "--platform",
        "wasi/wasm",
        "--change",
        entry,
        "-",
        "module",
    ];
    let run = cx.ketch_with_input(import, &archive.into_inner().unwrap());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let images = [
        "--runs",
        "1",
        "--only",
        "start.warm",
        "--image",
        "native,module",
    ];

    let good = record_in(&cx, &[&images[..], &["--cmd", "0", "word"]].concat());
    let bad = record_in(&cx, &[&images[..], &["--cmd", "7"]].concat());

    for level in ["process", "linux", "wasm", "wasm-only"] {
        assert_eq!(samples(outcome(&good, "start.warm", level)), 3);
        // The command has reached the program of each kind.
        let reason = named(&bad["subjects"], "name", level)["unavailable"].as_str();
        assert!(reason.unwrap().contains("exit status: 7"), "{reason:?}");
    }
}

#[test]
fn program_that_fails_is_unavailable_with_its_reason() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let program = include_bytes!("../../fixtures/guests/built/args.x86_64");
    let files = [("args", program.as_slice(), 0o755)];
    cx.image("mine", &files, &["ENTRYPOINT [\"/args\"]"]);

    let record = record(
        &cx,
        &[
            "--runs",
            "1",
            "--only",
            "start.warm",
            "--image",
            "mine",
            "--cmd",
            "7",
        ],
    );

    for level in ["process", "linux"] {
        let reason = named(&record["subjects"], "name", level)["unavailable"].as_str();
        assert!(reason.unwrap().contains("exit status: 7"), "{reason:?}");
    }
}

#[test]
fn ordinary_user_without_subordinate_ids_is_measured() {
    let needs = [Need::Root];
    let Some(cx) = Sandbox::new(KETCH, &needs) else {
        return;
    };
    let cx = cx.as_user(Subordinate::None, UserNamespaces::Allowed);

    let record = record(&cx, &["--runs", "1", "--only", "start.warm,stop,net"]);

    for level in ["process", "linux", "wasm", "wasm-only"] {
        assert_eq!(samples(outcome(&record, "start.warm", level)), 3);
        assert_eq!(samples(outcome(&record, "stop", level)), 1);
        for measure in ["net.loopback.trip", "net.host.stream", "net.http"] {
            let outcome = outcome(&record, measure, level);
            assert_eq!(samples(outcome), 1, "{measure} of {level}: {outcome}");
        }
    }
    for level in ["linux", "wasm"] {
        let outcome = outcome(&record, "net.bridge.trip", level);
        assert_eq!(outcome["unavailable"], "an ordinary user has no bridge");
    }
}

#[test]
fn address_space_that_is_too_small_costs_the_wasm_levels_only() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    let ketch = cx.command();
    let mut command = std::process::Command::new("prlimit");
    command
        .arg("--as=3221225472")
        .arg(ketch.get_program())
        .args(["bench", "--peers", "none", "--format", "json"])
        .args(["--runs", "1", "--only", "start.warm"])
        .env_clear()
        .envs(
            ketch
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env("PATH", PATH)
        .env("TMPDIR", cx.path().join("tmp"));

    let output = command.stdin(Stdio::null()).output().unwrap();

    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    for level in ["process", "linux"] {
        assert_eq!(samples(outcome(&record, "start.warm", level)), 3);
    }
    for level in ["wasm", "wasm-only"] {
        let reason = named(&record["subjects"], "name", level)["unavailable"].as_str();
        assert!(reason.unwrap().contains("emory"), "{reason:?}");
    }
    assert_tidy(&cx);
}

#[test]
fn interrupt_prints_what_is_there_and_tidies_up() {
    let Some(cx) = sandbox(&[Need::Root]) else {
        return;
    };
    let mut command = cx.command();
    command
        .args([
            "bench",
            "--peers",
            "none",
            "--format",
            "json",
            "--only",
            "start.warm",
        ])
        .args(["--levels", "linux", "--runs", "100000"])
        .env("PATH", PATH)
        .env("TMPDIR", cx.path().join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // The first containers' directories show that it measures.
    let containers = cx.path().join("root/containers");
    let began = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        assert!(began.elapsed() < PATIENCE, "it does not begin");
        let entries = std::fs::read_dir(&containers)
            .into_iter()
            .flatten()
            .flatten();
        seen.extend(
            entries
                .map(|entry| entry.file_name())
                .filter(|name| name.len() == 64),
        );
    }

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();

    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = record["warnings"].to_string();
    assert!(warnings.contains("it was interrupted"), "{warnings}");
    assert!(record["rounds"].as_u64().unwrap() < 100_000);
    assert_tidy(&cx);
}

#[test]
fn report_is_one_page_with_charts_and_every_value() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let dir = cx.path().join("report");
    let args = ["--runs", "1", "--only", "start.warm", "--peers", "none"];

    let run = bench(
        &cx,
        PATH,
        &[&args[..], &["--report", dir.to_str().unwrap()]].concat(),
    );

    assert_eq!(run.code, 0, "{}", run.stderr);
    let page = std::fs::read_to_string(dir.join("index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("wasm-only"));
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(
            !page.contains(outside),
            "the page wants something else: {outside}"
        );
    }
    let csv = std::fs::read_to_string(dir.join("results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 4 * 3);
    // The record is all that a report is made of.
    let record = dir.join("results.json");
    let show = ["show", record.to_str().unwrap()];
    assert_eq!(bench(&cx, PATH, &show).stdout, run.stdout);
    let table = bench(&cx, PATH, &[&show[..], &["--format", "markdown"]].concat());
    let head = "| | unit | process | linux | wasm | wasm-only |";
    assert!(table.stdout.contains(head), "{}", table.stdout);
    assert!(
        table.stdout.contains("| `start.warm` | ms | "),
        "{}",
        table.stdout
    );
    let none = bench(&cx, PATH, &["show", "/nowhere"]);
    assert_eq!(none.code, 1);
    assert!(
        none.stderr.contains("cannot read the record `/nowhere`"),
        "{}",
        none.stderr
    );
}

/// Shows the report in a frame as wide as a phone, and says how wide and high its page is there.
const PHONE: &str = "<!doctype html><html style='overflow:hidden'><body style='margin:0'>\
<iframe src='report/index.html' style='border:0;width:390px;height:6000px'></iframe><script>\
document.querySelector('iframe').onload=event=>{\
const page=event.target.contentDocument.documentElement;\
document.body.dataset.size=page.scrollWidth+'x'+page.scrollHeight;}</script></body></html>";

/// Chromium without a display or a sandbox of its own, which root cannot have.
fn chromium(cx: &Sandbox, args: &[&str]) -> String {
    let output = std::process::Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args([
            "--allow-file-access-from-files",
            "--virtual-time-budget=10000",
        ])
        .arg(format!(
            "--user-data-dir={}",
            cx.path().join("chromium").display()
        ))
        .args(args)
        .env("HOME", cx.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn report_fits_a_phone() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root, Need::Chromium]) else {
        return;
    };
    let report = cx.path().join("report");
    let only = "start.warm,cpu.integer,fs.volume.create";
    let args = ["--runs", "3", "--only", only, "--peers", "youki"];
    let run = bench(
        &cx,
        PATH,
        &[&args[..], &["--report", report.to_str().unwrap()]].concat(),
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    let phone = cx.path().join("phone.html");
    std::io::Write::write_all(
        &mut std::fs::File::create(&phone).unwrap(),
        PHONE.as_bytes(),
    )
    .unwrap();
    let url = format!("file://{}", phone.display());
    let picture = cx.path().join("phone.png");

    let page = chromium(&cx, &["--dump-dom", &url]);
    let shot = format!("--screenshot={}", picture.display());
    chromium(&cx, &["--window-size=600,3000", &shot, &url]);

    let size = page
        .split_once("data-size=\"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let (width, height) = size.unwrap().0.split_once('x').unwrap();
    // Nothing is beside the screen: tables that are too wide move within themselves.
    assert_eq!(width, "390", "{page}");
    assert!(height.parse::<u32>().unwrap() > 1000, "{height}");
    let picture = std::fs::read(picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    // One colour alone would be a hundredth of that.
    assert!(
        picture.len() > 50_000,
        "the picture is empty: {} bytes",
        picture.len()
    );
}

#[test]
fn compare_fails_for_a_significant_change_beyond_the_limit_only() {
    let Some(cx) = Sandbox::new(KETCH, &[Need::Root]) else {
        return;
    };
    let before = record(
        &cx,
        &["--runs", "2", "--only", "start.warm", "--levels", "linux"],
    );
    let mut after = before.clone();
    let outcome = &mut after["measures"][0]["outcomes"][0];
    for sample in outcome["samples"].as_array_mut().unwrap() {
        *sample = Value::from(sample.as_f64().unwrap() * 1000.0);
    }
    outcome["summary"]["median"] =
        Value::from(outcome["summary"]["median"].as_f64().unwrap() * 1000.0);
    let write = |name: &str, value: &Value| {
        let path = cx.path().join(name);
        serde_json::to_writer(std::fs::File::create(&path).unwrap(), value).unwrap();
        path.display().to_string()
    };
    let (old, new) = (write("old.json", &before), write("new.json", &after));
    let mut future = before.clone();
    future["version"] = Value::from(2);
    let future = write("future.json", &future);
    let compare = |args: &[&str]| bench(&cx, PATH, &[&["compare"], args].concat());

    let slower = compare(&[&old, &new, "--fail-if", "start > 1.2x"]);
    let same = compare(&[&old, &old, "--fail-if", "start > 1.2x"]);
    let nothing = compare(&[&old, &new, "--fail-if", "stop > 1.2x"]);
    let newer = compare(&[&old, &future]);
    let unclear = compare(&[&old, &new, "--fail-if", "start > fast"]);

    assert_eq!(slower.code, 1, "{}", slower.stdout);
    assert!(
        slower.stdout.contains("slower or larger"),
        "{}",
        slower.stdout
    );
    assert!(
        slower.stderr.contains("costs 1000.00 times as much"),
        "{}",
        slower.stderr
    );
    assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
    assert!(same.stdout.contains("not significant"), "{}", same.stdout);
    assert_eq!(nothing.code, 1);
    assert!(
        nothing.stderr.contains("cannot check `stop`"),
        "{}",
        nothing.stderr
    );
    assert_eq!(unclear.code, 125);
    assert!(
        unclear
            .stderr
            .contains("cannot read the limit `start > fast`"),
        "{}",
        unclear.stderr
    );
    assert_eq!(newer.code, 1);
    assert!(
        newer.stderr.contains("it has version 2"),
        "{}",
        newer.stderr
    );
}

#[test]
fn names_that_do_not_exist_are_refused_before_anything_is_started() {
    let Some(cx) = Sandbox::new(KETCH, &[]) else {
        return;
    };
    for (args, text) in [
        ("--levels moon", "`moon` is no level"),
        ("--peers moon", "`moon` is no peer"),
        ("--only start.co", "`start.co` is no measure"),
        ("--runs 0", "cannot measure with 0 runs"),
        ("--cmd word", "--cmd needs --image"),
        ("--image a,b,c", "--image takes one reference, or two"),
        (
            "--image a --only cpu",
            "`cpu` is measured with the built-in image",
        ),
        ("--levels none --peers none", "there is nothing to measure"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let run = bench(&cx, PATH, &args);

        assert_eq!(run.code, 125, "{args:?}");
        assert!(run.stderr.contains(text), "{}", run.stderr);
        assert!(!cx.path().join("root").exists());
    }
}
