//! Published ports.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, PATIENCE};

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
