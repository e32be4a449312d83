//! Logs: what a container writes is read back, whole and once, whatever is rotated meanwhile.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::Read;
use std::process::Stdio;

use testkit::{BUSYBOX, Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A sandbox with an image `box` that has a shell.
fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    let busybox = std::fs::read(BUSYBOX).unwrap();
    cx.image("box", &[("bin/sh", &busybox, 0o755)], &[]);
    Some(cx)
}

/// Runs a script in a container `c1`, to its end.
fn script(cx: &Sandbox, options: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", "c1"];
    args.extend_from_slice(options);
    args.extend(["box", "/bin/sh", "-c", script]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(cx.ketch(["wait", "c1"]).stdout, "0\n");
}

fn field(cx: &Sandbox, field: &str) -> String {
    let format = format!("{{{{{field}}}}}");
    let run = cx.ketch(["inspect", "-f", &format, "c1"]);
    run.stdout.trim().to_owned()
}

/// The files of the log of `c1`.
fn files(cx: &Sandbox) -> Vec<String> {
    let dir = cx.path().join("root/containers").join(field(cx, ".Id"));
    let names = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("container.log"))
        .collect();
    names.sort();
    names
}

const COUNT_TO_2000: &str = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done";

fn is_count_to_2000(text: &str) -> bool {
    let lines = (1..=2000).map(|number| format!("line {number}"));
    text.lines().eq(lines)
}

#[test]
fn rotation_keeps_so_many_files_of_so_many_bytes_and_the_newest_lines() {
    let Some(cx) = sandbox() else { return };
    let options = ["--log-opt", "max-size=16k", "--log-opt", "max-file=3"];
    script(&cx, &options, COUNT_TO_2000);
    let files = files(&cx);
    assert_eq!(files.len(), 4, "three and the link: {files:?}");
    let log = std::path::PathBuf::from(field(&cx, ".LogPath"));
    for file in &files {
        let size = std::fs::metadata(log.with_file_name(file)).unwrap().len();
        assert!(size <= 16 << 10, "{file}: {size}");
    }
    let logs = cx.ketch(["logs", "c1"]).stdout;
    let lines: Vec<&str> = logs.lines().collect();
    assert!(lines.len() > 300 && lines.len() < 2000, "{}", lines.len());
    let wanted: Vec<String> = (2001 - lines.len()..=2000)
        .map(|number| format!("line {number}"))
        .collect();
    assert_eq!(lines, wanted);
}

#[test]
fn every_driver_with_files_gives_back_what_was_written() {
    let Some(cx) = sandbox() else { return };
    for options in [
        &["--log-driver", "json-file"][..],
        &["--log-driver", "local"],
        &[
            "--log-driver",
            "local",
            "--log-opt",
            "max-size=8k",
            "--log-opt",
            "max-file=99",
        ],
        &[
            "--log-opt",
            "max-size=8k",
            "--log-opt",
            "max-file=99",
            "--log-opt",
            "compress=true",
        ],
    ] {
        script(&cx, options, COUNT_TO_2000);
        let logs = cx.ketch(["logs", "c1"]).stdout;
        assert!(is_count_to_2000(&logs), "{options:?}: {logs}");
        let tail = cx.ketch(["logs", "-n", "1500", "c1"]).stdout;
        assert_eq!(tail.lines().next(), Some("line 501"), "{options:?}");
        assert_eq!(tail.lines().count(), 1500);
        assert_eq!(cx.ketch(["logs", "--tail", "0", "c1"]).stdout, "");
        assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    }
}

#[test]
fn files_that_are_complete_are_compressed() {
    let Some(cx) = sandbox() else { return };
    let options = [
        "--log-opt",
        "max-size=16k",
        "--log-opt",
        "max-file=4",
        "--log-opt",
        "compress=true",
    ];
    script(&cx, &options, COUNT_TO_2000);
    cx.until(["version"], |_| {
        let files = files(&cx);
        files.iter().filter(|name| name.ends_with(".gz")).count() == 3 && files.len() == 5
    });
    let logs = cx.ketch(["logs", "c1"]).stdout;
    assert!(logs.ends_with("line 2000\n"));
    let numbers: Vec<usize> = logs
        .lines()
        .map(|line| line.strip_prefix("line ").unwrap().parse().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn follower_gets_every_line_once_over_rotations() {
    let Some(cx) = sandbox() else { return };
    let slow = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.002; done";
    for max_file in ["1", "2"] {
        let option = format!("max-file={max_file}");
        let args = ["run", "-d", "--name", "c1", "--log-opt", "max-size=8k"];
        let rest = ["--log-opt", &option, "box", "/bin/sh", "-c", slow];
        assert_eq!(cx.ketch(args.iter().chain(&rest)).code, 0);
        let run = cx.ketch(["logs", "-f", "c1"]);
        let wanted: Vec<String> = (1..=400).map(|number| format!("line {number}")).collect();
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines, wanted, "{}", run.stderr);
        assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
    }
}

#[test]
fn follower_ends_with_the_container_and_also_when_that_is_removed() {
    let Some(cx) = sandbox() else { return };
    let args = [
        "run", "-d", "--rm", "-i", "--name", "c1", "box", "/bin/sh", "-c",
    ];
    let run = cx.ketch(args.iter().chain(&["echo ready; sleep 1000"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mut follower = cx
        .command()
        .args(["logs", "-f", "c1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 6];
    let mut stdout = follower.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    assert_eq!(cx.ketch(["kill", "c1"]).code, 0);
    assert!(follower.wait().unwrap().success());
}

#[test]
fn line_longer_than_a_record_is_one_line() {
    let Some(cx) = sandbox() else { return };
    for driver in ["json-file", "local"] {
        // 40,000 characters, the unit of docker's complaint.
        let long = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short";
        script(&cx, &["--log-driver", driver], long);
        let logs = cx.ketch(["logs", "-t", "c1"]).stdout;
        let lines: Vec<&str> = logs.lines().collect();
        assert_eq!(lines.len(), 2, "{driver}");
        let (time, line) = lines[0].split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert!(!line.contains('Z'), "a time within the line");
        assert!(line.len() >= 40_000, "{}", line.len());
        assert_eq!(cx.ketch(["logs", "-n", "1", "c1"]).stdout, "short\n");
        let two = cx.ketch(["logs", "-n", "2", "c1"]).stdout;
        assert_eq!(two.len(), line.len() + "\nshort\n".len());
        assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    }
}

#[test]
fn times_choose_lines() {
    let Some(cx) = sandbox() else { return };
    script(
        &cx,
        &[],
        "echo one; sleep 0.3; echo two; sleep 0.3; echo three",
    );
    let logs = cx.ketch(["logs", "-t", "c1"]).stdout;
    let times: Vec<&str> = logs
        .lines()
        .map(|line| line.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(
        cx.ketch(["logs", "--since", times[1], "c1"]).stdout,
        "two\nthree\n"
    );
    assert_eq!(
        cx.ketch(["logs", "--until", times[1], "c1"]).stdout,
        "one\ntwo\n"
    );
    let both = cx.ketch(["logs", "--since", times[1], "--until", times[1], "c1"]);
    assert_eq!(both.stdout, "two\n");
    assert_eq!(
        cx.ketch(["logs", "--since", "1h", "c1"]).stdout,
        "one\ntwo\nthree\n"
    );
    assert_eq!(cx.ketch(["logs", "--until", "1h", "c1"]).stdout, "");
    assert_eq!(cx.ketch(["logs", "--since", "soon", "c1"]).code, 1);
}

#[test]
fn streams_keep_their_order_and_go_to_their_own() {
    let Some(cx) = sandbox() else { return };
    let talk = "for i in 1 2 3 4; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done";
    script(&cx, &["--log-driver", "local"], talk);
    let run = cx.ketch(["logs", "c1"]);
    assert_eq!(run.stdout, "out 1\nout 2\nout 3\nout 4\n");
    assert_eq!(run.stderr, "err 1\nerr 2\nerr 3\nerr 4\n");
    let together = cx
        .command()
        .args(["logs", "c1"])
        .stdout(std::fs::File::create(cx.path().join("out")).unwrap())
        .stderr(Stdio::piped())
        .output();
    assert!(together.unwrap().status.success());
    let both = "\"$0\" logs c1 2>&1";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", both, KETCH]);
    for (key, value) in cx.command().get_envs() {
        command.env(key, value.unwrap());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted: String = (1..5).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(text, wanted);
}

#[test]
fn details_are_what_was_asked_for() {
    let Some(cx) = sandbox() else { return };
    for driver in ["json-file", "local"] {
        let options = [
            "-e",
            "COLOUR=blue",
            "--log-driver",
            driver,
            "--log-opt",
            "env=COLOUR",
        ];
        script(&cx, &options, "echo hello");
        let logs = cx.ketch(["logs", "--details", "c1"]).stdout;
        assert_eq!(logs, "COLOUR=blue hello\n", "{driver}");
        assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    }
}

#[test]
fn log_goes_on_in_the_same_file_after_another_start() {
    let Some(cx) = sandbox() else { return };
    script(&cx, &[], "echo again");
    assert_eq!(cx.ketch(["start", "-a", "c1"]).stdout, "again\n");
    assert_eq!(cx.ketch(["logs", "c1"]).stdout, "again\nagain\n");
    assert_eq!(files(&cx), ["container.log", "container.log.1"]);
    let json = std::fs::read_to_string(field(&cx, ".LogPath")).unwrap();
    assert!(
        json.starts_with(r#"{"log":"again\n","stream":"stdout","time":"20"#),
        "{json}"
    );
}

#[test]
fn driver_none_keeps_nothing_and_says_so() {
    let Some(cx) = sandbox() else { return };
    script(&cx, &["--log-driver", "none"], "echo lost");
    let run = cx.ketch(["logs", "c1"]);
    assert_ne!(run.code, 0);
    assert!(
        run.stderr.contains("its log driver is none"),
        "{}",
        run.stderr
    );
    assert_eq!(files(&cx), Vec::<String>::new());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let Some(cx) = sandbox() else { return };
    for options in [
        &["--log-driver", "papyrus"][..],
        &["--log-opt", "colour=blue"],
        &["--log-opt", "max-size"],
        &["--log-opt", "max-size=big"],
        &["--log-opt", "max-file=3"],
        &["--log-opt", "max-size=1m", "--log-opt", "max-file=0"],
        &["--log-opt", "compress=true"],
        &["--log-driver", "none", "--log-opt", "max-size=1m"],
    ] {
        let mut args = vec!["run"];
        args.extend_from_slice(options);
        args.extend(["box", "/bin/sh"]);
        let run = cx.ketch(args);
        assert_eq!(run.code, 125, "{options:?}: {}", run.stderr);
        assert!(run.stderr.contains("--log-"), "{}", run.stderr);
    }
    assert_eq!(cx.ketch(["ps", "-aq"]).stdout, "");
}
