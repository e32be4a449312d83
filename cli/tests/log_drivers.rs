//! Logs that are sent elsewhere, to servers of these protocols, and logs with a ring.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::{BUSYBOX, Need, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// Two lines, one to each stream, in this order.
const TWO_LINES: &str = "echo out; sleep 0.1; echo err >&2";

fn sandbox() -> Option<Sandbox> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::Busybox])?;
    let busybox = std::fs::read(BUSYBOX).unwrap();
    cx.image("box", &[("bin/sh", &busybox, 0o755)], &[]);
    Some(cx)
}

/// Runs a script in a container `c1`, to its end.
fn script(cx: &Sandbox, options: &[&str], script: &str) {
    let mut args = vec![
        "run",
        "-d",
        "--name",
        "c1",
        "-l",
        "tier=one",
        "-e",
        "COLOUR=blue",
    ];
    args.extend_from_slice(options);
    args.extend(["box", "/bin/sh", "-c", script]);
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(cx.ketch(["wait", "c1"]).stdout, "0\n");
}

fn patient(socket: &UnixDatagram) {
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
}

fn receive(mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> String {
    let mut buffer = [0; 64 * 1024];
    let length = read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn syslog_gets_each_line_with_its_severity_and_logs_shows_them_too() {
    let Some(cx) = sandbox() else { return };
    let path = cx.path().join("log.sock");
    let server = UnixDatagram::bind(&path).unwrap();
    patient(&server);
    let address = format!("syslog-address=unixgram://{}", path.display());
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-facility=local3",
        "--log-opt",
        "tag=x/{{.Name}}",
    ];
    script(&cx, &options, TWO_LINES);
    let first = receive(|buffer| server.recv(buffer));
    let second = receive(|buffer| server.recv(buffer));
    // local3 is 19; 6 is information, 3 an error.
    assert!(
        first.starts_with("<158>") && first.contains(" x/c1["),
        "{first}"
    );
    assert!(first.ends_with("]: out\n"), "{first}");
    assert!(
        second.starts_with("<155>") && second.ends_with("]: err\n"),
        "{second}"
    );
    let logs = cx.ketch(["logs", "c1"]);
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("out\n", "err\n")
    );
}

#[test]
fn syslog_over_networks_has_the_form_that_was_asked_for() {
    let Some(cx) = sandbox() else { return };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = format!("syslog-address=tcp://{}", tcp.local_addr().unwrap());
    let reader = std::thread::spawn(move || {
        // The first one only looks whether somebody is there.
        let mut texts = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = tcp.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            texts.push(text);
        }
        texts.pop().unwrap()
    });
    let format = "syslog-format=rfc5424micro";
    let driver = ["--log-driver", "syslog", "--log-opt", format, "--log-opt"];
    script(&cx, &[&driver[..], &[&address]].concat(), TWO_LINES);
    let text = reader.join().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("<30>1 20") && lines[0].ends_with(" - out"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("<27>1 20") && lines[1].ends_with(" - err"),
        "{text}"
    );
    assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    let address = format!("syslog-address=udp://{}", udp.local_addr().unwrap());
    script(&cx, &[&driver[..], &[&address]].concat(), "echo one");
    let text = receive(|buffer| udp.recv(buffer));
    assert!(text.ends_with(" - one\n"), "{text}");
}

/// The next value of a MessagePack stream, as text for people.
fn unpack(bytes: &mut &[u8]) -> String {
    let mut take = |length: usize| {
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken.to_vec()
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum * 256 + usize::from(*byte))
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match take(1)[0] {
        head @ 0xa0..=0xbf => text(take(usize::from(head & 0x1f))),
        0xda => {
            let length = number(&take(2));
            text(take(length))
        }
        0xce => {
            take(4);
            "TIME".to_owned()
        }
        0xd7 => {
            take(9);
            "EXACT".to_owned()
        }
        0x93 => (0..3).map(|_| unpack(bytes)).collect::<Vec<_>>().join(" "),
        head @ 0x80..=0x8f => (0..head & 0xf)
            .map(|_| format!("{}={}", unpack(bytes), unpack(bytes)))
            .collect::<Vec<_>>()
            .join(" "),
        head => panic!("{head:#x}"),
    }
}

#[test]
fn fluentd_gets_records_with_labels_and_variables() {
    let Some(cx) = sandbox() else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("fluentd-address={}", server.local_addr().unwrap());
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for _ in 0..2 {
            server.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        }
        bytes
    });
    let options = [
        "--log-driver",
        "fluentd",
        "--log-opt",
        &address,
        "--log-opt",
        "tag=t",
        "--log-opt",
        "labels=tier",
        "--log-opt",
        "env=COLOUR",
        "--log-opt",
        "fluentd-sub-second-precision=true",
    ];
    script(&cx, &options, TWO_LINES);
    let id = cx.ketch(["inspect", "-f", "{{.Id}}", "c1"]).stdout;
    let bytes = reader.join().unwrap();
    let mut rest = &bytes[..];
    for (source, line) in [("stdout", "out"), ("stderr", "err")] {
        assert_eq!(
            unpack(&mut rest),
            format!(
                "t EXACT container_id={} container_name=/c1 source={source} log={line} COLOUR=blue tier=one",
                id.trim()
            )
        );
    }
    assert!(rest.is_empty());
}

#[test]
fn server_that_was_away_is_told_what_it_has_missed() {
    let Some(cx) = sandbox() else { return };
    let path = cx.path().join("log.sock");
    let server = UnixDatagram::bind(&path).unwrap();
    let address = format!("syslog-address=unixgram://{}", path.display());
    let (go, wait) = (
        cx.path().join("go"),
        "while ! test -e /way/go; do sleep 0.1; done",
    );
    let mount = format!("{}:/way", cx.path().display());
    let loud = format!(
        "echo before; {wait}; i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.3; done"
    );
    let args = [
        "run",
        "-d",
        "--name",
        "c1",
        "-v",
        &mount,
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "mode=non-blocking",
        "--log-opt",
        "max-buffer-size=100",
        "box",
        "/bin/sh",
        "-c",
        &loud,
    ];
    let run = cx.ketch(args);
    assert_eq!(run.code, 0, "{}", run.stderr);
    patient(&server);
    assert!(receive(|buffer| server.recv(buffer)).ends_with("before\n"));
    drop(server);
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&go).unwrap();
    // Nobody is there for longer than the first line waits.
    cx.until(["logs", "c1"], |run| run.stdout.lines().count() > 45);
    let server = UnixDatagram::bind(&path).unwrap();
    patient(&server);
    let text = receive(|buffer| server.recv(buffer));
    assert!(
        text.contains("lines were lost while this server was away"),
        "{text}"
    );
    assert_eq!(cx.ketch(["rm", "-f", "c1"]).code, 0);
}

#[test]
fn container_whose_log_goes_to_nobody_is_not_started() {
    let Some(cx) = sandbox() else { return };
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let fluentd = format!("fluentd-address={free}");
    let syslog = format!("syslog-address=tcp://{free}");
    for (driver, option) in [
        ("fluentd", fluentd.as_str()),
        ("syslog", &syslog),
        ("syslog", "syslog-address=unix:///nowhere"),
    ] {
        let args = ["run", "-d", "--log-driver", driver, "--log-opt", option];
        let run = cx.ketch(args.iter().chain(&["box", "/bin/sh"]));
        assert_eq!(run.code, 125, "{}", run.stderr);
        assert!(
            run.stderr
                .contains(&format!("cannot use the log driver {driver}")),
            "{}",
            run.stderr
        );
    }
    for (driver, option) in [
        ("syslog", "syslog-address=tcp+tls://h"),
        ("syslog", "syslog-facility=nobody"),
        ("fluentd", "fluentd-async=maybe"),
        ("journald", "max-size=1m"),
        ("json-file", "max-buffer-size=1m"),
        ("json-file", "mode=never"),
        ("json-file", "tag={{.Nothing}}"),
        ("gelf", "x=y"),
    ] {
        let args = ["create", "--log-driver", driver, "--log-opt", option];
        let run = cx.ketch(args.iter().chain(&["box", "/bin/sh"]));
        assert_eq!(run.code, 125, "{driver} {option}: {}", run.stderr);
        assert!(
            run.stderr.starts_with("error: cannot use --log"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn ring_writes_files_that_are_complete_when_the_container_has_ended() {
    let Some(cx) = sandbox() else { return };
    let count = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done";
    for driver in ["json-file", "local"] {
        let options = [
            "--log-driver",
            driver,
            "--log-opt",
            "mode=non-blocking",
            "--log-opt",
            "max-buffer-size=4m",
            "--log-opt",
            "max-size=32k",
            "--log-opt",
            "max-file=99",
        ];
        script(&cx, &options, count);
        let logs = cx.ketch(["logs", "c1"]).stdout;
        let wanted = (1..=3000).map(|number| format!("line {number}"));
        assert!(
            logs.lines().eq(wanted),
            "{driver}: {} lines",
            logs.lines().count()
        );
        assert_eq!(cx.ketch(["rm", "c1"]).code, 0);
    }
}

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";

#[test]
fn journal_gets_lines_with_the_fields_of_docker() {
    let Some(cx) = sandbox() else { return };
    if !Path::new(JOURNALD).exists() || !Path::new("/bin/journalctl").exists() {
        testkit::skip("needs systemd-journald and journalctl");
        return;
    }
    let run = cx.ketch([
        "run",
        "--log-driver",
        "journald",
        "box",
        "/bin/sh",
        "-c",
        "exit",
    ]);
    if !Path::new("/run/systemd/journal/socket").exists() {
        assert!(
            run.stderr.contains("there is no such socket"),
            "{}",
            run.stderr
        );
    }
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && \
         {{ {JOURNALD} & }} && while ! test -S /run/systemd/journal/socket; do sleep 0.05; done && \
         \"$0\" run -d --name c1 -l tier=one --log-driver journald --log-opt labels=tier --log-opt tag=t \
         box /bin/sh -c '{TWO_LINES}' && \"$0\" wait c1 && \
         while test $(journalctl -o json CONTAINER_NAME=c1 | wc -l) -lt 2; do sleep 0.05; done && \
         journalctl -o json CONTAINER_NAME=c1; kill $!"
    );
    let mut command = Command::new("unshare");
    command.args([
        "-m",
        "--propagation",
        "private",
        "timeout",
        "30",
        "/bin/sh",
        "-c",
        &script,
        KETCH,
    ]);
    command.env("KETCH_ROOT", cx.path().join("root"));
    command.env("KETCH_RUN", cx.path().join("run-of-journal"));
    command.env("KETCH_NETWORK", "none");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let records: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|value: &serde_json::Value| value.is_object())
        .collect();
    assert_eq!(
        records.len(),
        2,
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (record, (message, priority)) in records.iter().zip([("out", "6"), ("err", "3")]) {
        assert_eq!(record["MESSAGE"], message);
        assert_eq!(record["PRIORITY"], priority);
        assert_eq!(record["CONTAINER_TAG"], "t");
        assert_eq!(record["TIER"], "one");
        assert_eq!(record["IMAGE_NAME"], "box");
    }
}
