//! The namespaces of a test: one is the host, another stands outside.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::{Need, Run, Sandbox};

pub(crate) const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A static program that serves and asks.
pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";

/// How long something may take to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces that are joined by a link: 10.99.0.1 and fd99::1 is the host, 10.99.0.2 and fd99::2
/// is outside.
pub(crate) struct Hosts {
    pub(crate) cx: Sandbox,
    pub(crate) host: String,
    pub(crate) outside: String,
}

pub(crate) fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {text}");
}

impl Hosts {
    /// The namespaces, and the image `box` with one program.
    pub(crate) fn new() -> Option<Self> {
        Self::of(Sandbox::new(KETCH, &[Need::Root])?)
    }

    /// The same for a sandbox of an ordinary user.
    pub(crate) fn of(cx: Sandbox) -> Option<Self> {
        for program in ["ip", "nft", BUSYBOX] {
            if Command::new(program).arg("--help").output().is_err() {
                testkit::skip(&format!("needs `{program}`"));
                return None;
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("kt-{}-{number}-{end}", std::process::id());
        let hosts = Self {
            cx,
            host: name("host"),
            outside: name("out"),
        };
        let (host, outside) = (&hosts.host, &hosts.outside);
        ip(&format!("netns add {host}"));
        ip(&format!("netns add {outside}"));
        ip(&format!(
            "-n {host} link add up0 type veth peer name up0 netns {outside}"
        ));
        for (name, number) in [(host, 1), (outside, 2)] {
            ip(&format!("-n {name} addr add 10.99.0.{number}/24 dev up0"));
            ip(&format!(
                "-n {name} addr add fd99::{number}/64 dev up0 nodad"
            ));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set up0 up"));
        }
        let program = std::fs::read(BUSYBOX).unwrap();
        hosts.cx.image(
            "box",
            &[("busybox", &program, 0o755)],
            &["ENTRYPOINT [\"/busybox\"]"],
        );
        Some(hosts)
    }

    pub(crate) fn within<T>(&self, name: &str, run: impl FnOnce() -> T) -> T {
        let netns = File::open(Path::new("/run/netns").join(name)).unwrap();
        sys::net::within(netns.as_fd(), run).unwrap()
    }

    /// Runs `ketch` on the host.
    pub(crate) fn ketch(&self, args: &str) -> Run {
        self.within(&self.host, || self.cx.ketch(args.split(' ')))
    }

    /// What [`Hosts::ketch_with_resolv_conf`] sees as the host's resolvers; written in place.
    pub(crate) fn set_resolv_conf(&self, text: &str) {
        let mut file = File::create(self.cx.path().join("resolv.conf")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Runs `ketch` on the host, with resolvers of the test's own.
    pub(crate) fn ketch_with_resolv_conf(&self, args: &str) -> Run {
        let ketch = self.cx.command();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(self.cx.path().join("resolv.conf"))
            .arg(ketch.get_program())
            .args(args.split(' '))
            .envs(
                ketch
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            );
        let output = self.within(&self.host, || command.output().unwrap());
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same as [`Hosts::ketch`], and it must succeed.
    pub(crate) fn done(&self, args: &str) -> String {
        let run = self.ketch(args);
        assert_eq!(run.code, 0, "{args}: {}", run.stderr);
        run.stdout
    }

    /// Starts a server of TCP that says `hello` to everybody.
    pub(crate) fn serve(&self, options: &str) -> String {
        self.done(&format!(
            "run -d {options} box nc -ll -p 80 -e /busybox echo hello"
        ))
    }

    /// What a server of TCP says; nothing when it cannot be reached within two seconds.
    pub(crate) fn hear(&self, from: &str, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(from, || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    /// Waits until a server says `hello`: it listens a moment after its container has started.
    pub(crate) fn expect_hello(&self, from: &str, address: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.hear(from, address).as_deref() != Some("hello\n") {
            assert!(
                Instant::now() < deadline,
                "nothing from {address} in {from}"
            );
        }
    }

    pub(crate) fn nft(&self, args: &str) -> String {
        let run = || Command::new("nft").args(args.split(' ')).output().unwrap();
        String::from_utf8(self.within(&self.host, run).stdout).unwrap()
    }

    pub(crate) fn links(&self) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.host, "-o", "link"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// The container's address on its first network.
    pub(crate) fn address(&self, container: &str) -> String {
        let text = self.done(&format!("inspect {container}"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let networks = json[0]["NetworkSettings"]["Networks"].as_object().unwrap();
        networks.values().next().unwrap()["IPAddress"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl Hosts {
    /// The number of a container's init.
    pub(crate) fn pid(&self, container: &str) -> i64 {
        let text = self.done(&format!("inspect {container}"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json[0]["State"]["Pid"].as_i64().unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let list = self.ketch("ps -aq").stdout;
        for id in list.lines() {
            self.ketch(&format!("rm -f {id}"));
        }
        for name in [&self.host, &self.outside] {
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}
