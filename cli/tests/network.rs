//! Networks through the real processes, each test in network namespaces of its own: one is the host,
//! another stands outside.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::{Need, Run, Sandbox};

const KETCH: &str = env!("CARGO_BIN_EXE_ketch");

/// A static program that serves and asks.
const BUSYBOX: &str = "/usr/bin/busybox";

/// How long something may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces that are joined by a link: 10.99.0.1 and fd99::1 is the host, 10.99.0.2 and fd99::2
/// is outside.
struct Hosts {
    cx: Sandbox,
    host: String,
    outside: String,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {text}");
}

impl Hosts {
    /// The namespaces, and the image `box` with one program.
    fn new() -> Option<Self> {
        let cx = Sandbox::new(KETCH, &[Need::Root])?;
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

    fn within<T>(&self, name: &str, run: impl FnOnce() -> T) -> T {
        let netns = File::open(Path::new("/run/netns").join(name)).unwrap();
        sys::net::within(netns.as_fd(), run).unwrap()
    }

    /// Runs `ketch` on the host.
    fn ketch(&self, args: &str) -> Run {
        self.within(&self.host, || self.cx.ketch(args.split(' ')))
    }

    /// The same, and it must succeed.
    fn done(&self, args: &str) -> String {
        let run = self.ketch(args);
        assert_eq!(run.code, 0, "{args}: {}", run.stderr);
        run.stdout
    }

    /// Starts a server of TCP that says `hello` to everybody.
    fn serve(&self, options: &str) -> String {
        self.done(&format!(
            "run -d {options} box nc -ll -p 80 -e /busybox echo hello"
        ))
    }

    /// What a server of TCP says; nothing when it cannot be reached within two seconds.
    fn hear(&self, from: &str, address: &str) -> Option<String> {
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
    fn expect_hello(&self, from: &str, address: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.hear(from, address).as_deref() != Some("hello\n") {
            assert!(
                Instant::now() < deadline,
                "nothing from {address} in {from}"
            );
        }
    }

    fn nft(&self, args: &str) -> String {
        let run = || Command::new("nft").args(args.split(' ')).output().unwrap();
        String::from_utf8(self.within(&self.host, run).stdout).unwrap()
    }

    fn links(&self) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.host, "-o", "link"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// The container's address on its first network.
    fn address(&self, container: &str) -> String {
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
    fn pid(&self, container: &str) -> i64 {
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

#[test]
fn published_port_is_reached_from_everywhere_and_leaves_nothing() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.nft("add table inet foreign");
    hosts.nft("add chain inet foreign input { type filter hook input priority 0 ; }");
    let foreign = hosts.nft("list table inet foreign");
    hosts.serve("--name web --network bridge -p 8080:80");
    let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
    for address in [
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.99.0.1:8080",
        "[fd99::1]:8080",
    ] {
        hosts.expect_hello(&host, address);
    }
    for address in ["10.99.0.1:8080", "[fd99::1]:8080"] {
        hosts.expect_hello(&outside, address);
    }
    // From another container, and from itself, by the host's address.
    let ask = "nc 10.99.0.1 8080";
    assert_eq!(
        hosts.done(&format!("run --rm --network bridge box {ask}")),
        "hello\n"
    );
    assert_eq!(hosts.done(&format!("exec web /busybox {ask}")), "hello\n");
    assert!(
        hosts
            .done("ps")
            .contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp")
    );
    assert_eq!(hosts.done("port web 80"), "0.0.0.0:8080\n[::]:8080\n");

    hosts.done("rm -f web");
    assert_eq!(hosts.hear(&host, "127.0.0.1:8080"), None);
    assert_eq!(hosts.hear(&outside, "10.99.0.1:8080"), None);
    assert!(!hosts.nft("list table inet ketch").contains("8080"));
    let deadline = Instant::now() + PATIENCE;
    while hosts.links().contains(": kv") {
        assert!(
            Instant::now() < deadline,
            "a link is left: {}",
            hosts.links()
        );
    }
    assert_eq!(hosts.nft("list table inet foreign"), foreign);
}

#[test]
fn published_udp_port_answers_from_outside_and_from_loopback() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("run -d --name names --network bridge -p 5300:53/udp box sleep 60");
    // A server in the container's network that sends back what it gets.
    let netns = File::open(format!("/proc/{}/ns/net", hosts.pid("names"))).unwrap();
    let server =
        sys::net::within(netns.as_fd(), || UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, peer)) = server.recv_from(&mut buffer) {
            drop(server.send_to(&buffer[..length], peer));
        }
    });
    for (from, own, address) in [
        (&hosts.host, "127.0.0.1:0", "127.0.0.1:5300"),
        (&hosts.outside, "0.0.0.0:0", "10.99.0.1:5300"),
    ] {
        hosts.within(from, || {
            let socket = UdpSocket::bind(own).unwrap();
            socket.connect(address).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let deadline = Instant::now() + PATIENCE;
            let mut buffer = [0; 16];
            loop {
                drop(socket.send(b"ping"));
                if socket
                    .recv(&mut buffer)
                    .is_ok_and(|length| &buffer[..length] == b"ping")
                {
                    break;
                }
                assert!(Instant::now() < deadline, "no answer from {address}");
            }
        });
    }
}

#[test]
fn port_in_use_names_its_owner_and_changes_nothing() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--name one --network bridge -p 8080:80");
    let run = hosts.ketch("run --name two --network bridge -p 8080:80 box true");
    assert_eq!(run.code, 125);
    assert!(
        run.stderr.contains("in use by container `one`"),
        "{}",
        run.stderr
    );
    let name = hosts.host.clone();
    hosts.within(&name, || {
        let _own = std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
        let run = hosts
            .cx
            .ketch(["run", "--network", "bridge", "-p", "8081:80", "box", "true"]);
        assert_eq!(run.code, 125);
        assert!(run.stderr.contains("in use by process"), "{}", run.stderr);
    });
    // The network of the failed start is free again.
    assert_eq!(
        hosts
            .done("network inspect bridge")
            .matches("\"IPv4Address\"")
            .count(),
        1
    );
    hosts.expect_hello(&hosts.host.clone(), "127.0.0.1:8080");
}

#[test]
fn loopback_only_is_not_reached_from_outside() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--network bridge -p 127.0.0.1:8080:80");
    hosts.expect_hello(&hosts.host.clone(), "127.0.0.1:8080");
    assert_eq!(hosts.hear(&hosts.outside, "10.99.0.1:8080"), None);
}

#[test]
fn containers_of_one_network_know_each_other_and_others_are_cut_off() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create blue");
    hosts.done("network create red");
    hosts.serve("--name web --network blue --network-alias alias");
    let address = hosts.address("web");
    hosts.expect_hello(&hosts.host.clone(), &format!("{address}:80"));
    for name in ["web", "alias", "web.blue"] {
        let run = hosts.ketch(&format!("run --rm --network blue box nc {name} 80"));
        assert_eq!(run.stdout, "hello\n", "{name}: {}", run.stderr);
    }
    let run = hosts.ketch(&format!("run --rm --network red box nc -w 1 {address} 80"));
    assert_ne!(run.code, 0, "{}", run.stdout);
    let run = hosts.ketch("run --rm --network red box nslookup web");
    assert!(!run.stdout.contains(&address), "{}", run.stdout);
    // On both networks at once it is reached by either name.
    hosts.done("network connect red web");
    assert_eq!(
        hosts.done("run --rm --network red box nc web 80"),
        "hello\n"
    );
    hosts.done("network disconnect red web");
    let run = hosts.ketch("network rm blue");
    assert!(run.stderr.contains("in use by web"), "{}", run.stderr);
}

#[test]
fn internal_network_has_no_way_out() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create --internal dark");
    let outside = hosts.outside.clone();
    let (send, receive) = std::sync::mpsc::channel();
    hosts.within(&outside, || {
        let listener = std::net::TcpListener::bind("10.99.0.2:7000").unwrap();
        std::thread::spawn(move || {
            drop(send.send(listener.accept().map(|(_, peer)| peer.ip())));
        });
    });
    let run = hosts.ketch("run --rm --network dark box nc -w 1 10.99.0.2 7000");
    assert_ne!(run.code, 0);
    let run = hosts.ketch("run --rm --network dark box nslookup example.com");
    assert_ne!(run.code, 0, "{}", run.stdout);
    assert!(receive.try_recv().is_err());
    // The default network reaches outside, with the host's address.
    hosts.ketch("run --rm --network bridge box nc -w 1 10.99.0.2 7000");
    let peer = receive.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(peer.to_string(), "10.99.0.1");
}

#[test]
fn flushed_rules_are_repaired() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--network bridge -p 8080:80");
    let outside = hosts.outside.clone();
    hosts.expect_hello(&outside, "10.99.0.1:8080");
    hosts.nft("flush ruleset");
    let deadline = Instant::now() + PATIENCE;
    while !hosts.nft("list ruleset").contains("tcp . 8080") {
        assert!(Instant::now() < deadline, "{}", hosts.nft("list ruleset"));
    }
    hosts.expect_hello(&outside, "10.99.0.1:8080");
}

#[test]
fn address_and_port_of_a_killed_monitor_are_free_again() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create --subnet 10.50.0.0/24 net");
    hosts.serve("--name web --network net --ip 10.50.0.9 -p 8080:80");
    let pid = hosts.pid("web");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let monitor = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .to_owned();
    for victim in [monitor, pid.to_string()] {
        let killed = Command::new("kill").args(["-9", &victim]).status().unwrap();
        assert!(killed.success());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = hosts.ketch("run -d --network net --ip 10.50.0.9 -p 8080:80 box sleep 60");
        if run.code == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{}", run.stderr);
    }
}

#[test]
fn three_hundred_networks_beside_a_vpn() {
    let Some(hosts) = Hosts::new() else { return };
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        ip(&format!("-n {} route add {half} via 10.99.0.2", hosts.host));
    }
    ip(&format!(
        "-n {} route add 172.30.1.0/24 via 10.99.0.2",
        hosts.host
    ));
    for number in 0..300 {
        hosts.done(&format!("network create n{number}"));
    }
    let all = hosts.done("network inspect n0 n150 n299");
    assert!(!all.contains("172.30.1.0/24"), "{all}");
    let run = hosts.ketch("network create --subnet 172.30.1.0/25 mine");
    assert!(
        run.stderr.contains("the route to `172.30.1.0/24` by `up0`"),
        "{}",
        run.stderr
    );
    let run = hosts.ketch("network create --subnet 172.30.2.0/24 mine");
    assert!(run.stderr.contains("overlaps"), "{}", run.stderr);
    hosts.done("network prune");
    assert_eq!(hosts.done("network ls -q --filter type=custom"), "");
    assert!(!hosts.links().contains(": kt-"));
}

#[test]
fn ten_thousand_ports_are_published_at_once() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done(
        "run -d --name many --network bridge -p 0.0.0.0:20000-29999:20000-29999/udp box sleep 60",
    );
    assert!(
        hosts
            .done("ps")
            .contains("0.0.0.0:20000-29999->20000-29999/udp")
    );
    assert_eq!(
        hosts
            .nft("list map inet ketch ports4")
            .matches("udp . 2")
            .count(),
        10_000
    );
    hosts.done("rm -f many");
    assert_eq!(
        hosts
            .nft("list map inet ketch ports4")
            .matches("udp . 2")
            .count(),
        0
    );
}

#[test]
fn shared_network_is_the_same_network() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--name web --network bridge");
    let address = hosts.address("web");
    hosts.expect_hello(&hosts.host.clone(), &format!("{address}:80"));
    assert_eq!(
        hosts.done("run --rm --network container:web box nc 127.0.0.1 80"),
        "hello\n"
    );
    let run = hosts.ketch("run --rm --network container:web -p 80:80 box true");
    assert_eq!(run.code, 125, "{}", run.stderr);
}

#[test]
fn proxy_mode_obeys_rules_for_the_hosts_own_ports() {
    let Some(hosts) = Hosts::new() else { return };
    let host = hosts.host.clone();
    let run = hosts.within(&host, || {
        let mut command = hosts.cx.command();
        command.env("KETCH_PUBLISH", "proxy");
        command.args(
            "run -d --network bridge -p 8080:80 box nc -ll -p 80 -e /busybox echo hello".split(' '),
        );
        command.output().unwrap()
    });
    assert!(run.status.success());
    hosts.expect_hello(&hosts.outside.clone(), "10.99.0.1:8080");
    hosts.nft("add table inet wall");
    hosts.nft("add chain inet wall input { type filter hook input priority 0 ; policy drop ; }");
    assert_eq!(hosts.hear(&hosts.outside, "10.99.0.1:8080"), None);
}
