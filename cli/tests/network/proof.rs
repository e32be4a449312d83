//! What must hold at all times: containers are reached from everywhere, whatever happens to those who
//! started them, and nothing outside of ketch's own is touched.

use std::fs::File;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, PATIENCE, ip};

/// Serves UDP in a container until it ends: what comes is sent back.
fn echo(hosts: &Hosts, container: &str) {
    let netns = File::open(format!("/proc/{}/ns/net", hosts.pid(container))).unwrap();
    let server = sys::net::within(netns.as_fd(), || {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).unwrap()
    })
    .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((length, peer)) = server.recv_from(&mut buffer) {
            drop(server.send_to(&buffer[..length], peer));
        }
    });
}

/// Waits until an echo comes back.
fn expect_echo(hosts: &Hosts, from: &str, address: &str) {
    let to: SocketAddr = address.parse().unwrap();
    let own: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
        .parse()
        .unwrap();
    hosts.within(from, || {
        let socket = UdpSocket::bind(own).unwrap();
        socket.connect(to).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 16];
        loop {
            drop(socket.send(b"ping"));
            if socket
                .recv(&mut buffer)
                .is_ok_and(|length| &buffer[..length] == b"ping")
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no answer from {address} in {from}"
            );
        }
    });
}

/// The container `web` is reached from everywhere: TCP and UDP, IPv4 and IPv6.
fn expect_reached(hosts: &Hosts) {
    let (host, outside) = (&hosts.host, &hosts.outside);
    for address in ["127.0.0.1", "[::1]", "10.99.0.1", "[fd99::1]"] {
        hosts.expect_hello(host, &format!("{address}:8080"));
        expect_echo(hosts, host, &format!("{address}:5300"));
    }
    for address in ["10.99.0.1", "[fd99::1]"] {
        hosts.expect_hello(outside, &format!("{address}:8080"));
        expect_echo(hosts, outside, &format!("{address}:5300"));
    }
    for (network, address) in [("net", "web 80"), ("bridge", "10.99.0.1 8080")] {
        let said = hosts.done(&format!("run --rm --network {network} box nc {address}"));
        assert_eq!(said, "hello\n", "{network}");
    }
    let other = hosts.done("run -d --network bridge box sleep 600");
    let netns = File::open(format!("/proc/{}/ns/net", hosts.pid(other.trim()))).unwrap();
    let socket = sys::net::within(netns.as_fd(), || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.99.0.1:5300").unwrap();
        socket
    })
    .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.send(b"ping").unwrap();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 4);
    hosts.done(&format!("rm -f {}", other.trim()));
}

#[test]
fn container_is_reached_after_its_front_end_is_killed_and_after_a_restart() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create net");
    let host = hosts.host.clone();
    let mut front_end = hosts.within(&host, || {
        let mut command = hosts.cx.command();
        command
            .args("run --name web --network net -p 8080:80 -p 5300:53/udp".split(' '))
            .args("box nc -ll -p 80 -e /busybox echo hello".split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    });
    hosts.expect_hello(&host, "127.0.0.1:8080");
    echo(&hosts, "web");
    expect_reached(&hosts);

    front_end.kill().unwrap();
    front_end.wait().unwrap();
    expect_reached(&hosts);

    hosts.done("stop -t 1 web");
    assert_eq!(hosts.hear(&host, "127.0.0.1:8080"), None);
    hosts.done("start web");
    echo(&hosts, "web");
    expect_reached(&hosts);
}

/// The rules without ketch's own table.
fn foreign_rules(hosts: &Hosts) -> String {
    let all = hosts.nft("list ruleset");
    let mut own = false;
    let mut foreign = String::new();
    for line in all.lines() {
        own |= line == "table inet ketch {";
        if !own {
            foreign.push_str(line);
            foreign.push('\n');
        }
        own &= line != "}";
    }
    foreign
}

#[test]
fn rules_of_others_stay_byte_for_byte() {
    let Some(hosts) = Hosts::new() else { return };
    for rule in [
        "add table inet wall",
        "add chain inet wall input { type filter hook input priority 0 ; policy accept ; }",
        "add chain inet wall forward { type filter hook forward priority 0 ; policy accept ; }",
        "add rule inet wall forward iifname virbr0 accept",
        "add set inet wall blocked { type ipv4_addr ; flags interval ; }",
        "add element inet wall blocked { 203.0.113.0/24 }",
        "add table ip nat",
        "add chain ip nat postrouting { type nat hook postrouting priority 100 ; }",
        "add rule ip nat postrouting ip saddr 192.168.122.0/24 masquerade",
        "add table ip6 ketch",
    ] {
        hosts.nft(rule);
    }
    let before = hosts.nft("list ruleset");
    assert!(
        before.contains("203.0.113.0/24") && before.contains("virbr0"),
        "{before}"
    );
    hosts.done("network create blue");
    hosts.done("network create --internal --ipv6=false dark");
    hosts.serve("--name web --network blue -p 8080:80 -p 127.0.0.1:8081:80");
    hosts.done("network connect dark web");
    hosts.expect_hello(&hosts.outside.clone(), "10.99.0.1:8080");
    assert_eq!(foreign_rules(&hosts), before);
    hosts.done("rm -f web");
    hosts.done("network rm blue dark");
    assert_eq!(foreign_rules(&hosts), before);
    // What is left of ketch's table is deleted as one, and then everything is as it was.
    hosts.nft("delete table inet ketch");
    assert_eq!(hosts.nft("list ruleset"), before);
}

#[test]
fn loopback_port_stays_local_while_rules_are_flushed() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--name web --network bridge -p 127.0.0.1:8080:80");
    let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
    hosts.expect_hello(&host, "127.0.0.1:8080");
    // Whoever stands outside may send to loopback addresses as well.
    ip(&format!("-n {outside} link set lo down"));
    ip(&format!(
        "-n {outside} route add 127.0.0.1/32 via 10.99.0.1"
    ));
    let flush = || {
        hosts.nft("flush ruleset");
        std::thread::sleep(Duration::from_millis(5));
    };
    testkit::race(flush, || {
        for _ in 0..100 {
            assert_eq!(hosts.hear(&outside, "10.99.0.1:8080"), None);
        }
        assert_eq!(hosts.hear(&outside, "127.0.0.1:8080"), None);
    });
    let deadline = Instant::now() + PATIENCE;
    while !hosts.nft("list ruleset").contains("table inet ketch") {
        assert!(Instant::now() < deadline, "the rules do not come back");
    }
    hosts.expect_hello(&host, "127.0.0.1:8080");
}

#[test]
fn network_without_ipv6_gives_no_address_of_it() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create --ipv6=false four");
    hosts.done("run -d --name web --network four box sleep 600");
    let addresses = std::fs::read_to_string(format!("/proc/{}/net/if_inet6", hosts.pid("web")));
    let addresses = addresses.unwrap();
    assert!(!addresses.contains("eth0"), "{addresses}");
}
