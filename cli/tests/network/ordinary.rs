//! Networks of ordinary users, with and without subordinate ids: by pasta, by slirp4netns, and by
//! the monitor alone.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Need, Sandbox, Subordinate, UserNamespaces};

use crate::hosts::{Hosts, KETCH, PATIENCE, ip};
use crate::names::Resolver;

fn user(subordinate: Subordinate) -> Option<Hosts> {
    let cx = Sandbox::new(KETCH, &[Need::Root, Need::IdMapPrograms])?;
    let cx = cx.as_user(subordinate, UserNamespaces::Allowed);
    let hosts = Hosts::of(cx)?;
    ip(&format!(
        "-n {} route add default via 10.99.0.2",
        hosts.host
    ));
    Some(hosts)
}

fn both() -> impl Iterator<Item = Hosts> {
    [Subordinate::Ids, Subordinate::None]
        .into_iter()
        .filter_map(user)
}

fn is_installed(program: &str) -> bool {
    let is_there = Path::new("/usr/bin").join(program).exists();
    if !is_there {
        testkit::skip(&format!("needs `{program}`"));
    }
    is_there
}

/// Who reaches port 81 of a container, as a server in it sees it.
fn seen_client(hosts: &Hosts, container: &str, address: &str) -> SocketAddr {
    let netns = File::open(format!("/proc/{}/ns/net", hosts.pid(container))).unwrap();
    let server =
        sys::net::within(netns.as_fd(), || TcpListener::bind("0.0.0.0:81").unwrap()).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let _client = hosts.within(&hosts.outside, || TcpStream::connect(address).unwrap());
    server.accept().unwrap().1
}

/// Whether the container reaches a server that stands outside, and as whom.
fn reaches_outside(hosts: &Hosts, container: &str) -> bool {
    let server = hosts.within(&hosts.outside, || {
        TcpListener::bind("10.99.0.2:7000").unwrap()
    });
    server.set_nonblocking(true).unwrap();
    hosts.ketch(&format!(
        "exec {container} /busybox nc -w 2 10.99.0.2 7000 -e /busybox true"
    ));
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if let Ok((_, peer)) = server.accept() {
            return peer.ip().to_string() == "10.99.0.1";
        }
    }
    false
}

fn wait_for_end(pid: &str) {
    let deadline = Instant::now() + PATIENCE;
    while Path::new("/proc").join(pid).exists() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.contains("State:\tZ") {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid} goes on");
    }
}

/// The processes of a program in a network namespace, by what they have as arguments.
fn processes(program: &str, argument: &str) -> Vec<String> {
    let is_one = |pid: &String| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        // pasta goes on as the build for this processor, under that one's name.
        let is_called = arguments.starts_with(&format!("/usr/bin/{program}"));
        (is_called || name.starts_with(program)) && arguments.contains(argument)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(is_one)
        .collect()
}

#[test]
fn pasta_carries_users_packets_and_ends_with_the_container() {
    if !is_installed("pasta") {
        return;
    }
    let version = Command::new("pasta").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    for hosts in both() {
        let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
        hosts.serve("--name web --network default -p 8080:80 -p 8081:81 -p 127.0.0.1:8082:80");
        for (from, address) in [
            (&host, "127.0.0.1:8080"),
            (&outside, "10.99.0.1:8080"),
            (&host, "127.0.0.1:8082"),
        ] {
            hosts.expect_hello(from, address);
        }
        assert_eq!(hosts.hear(&outside, "10.99.0.1:8082"), None);
        let client = seen_client(&hosts, "web", "10.99.0.1:8081");
        // One that does not know its version is not trusted with ports: the monitor passes them on.
        let seen = match version.contains("unknown version") {
            true => "10.0.2.100",
            false => "10.99.0.2",
        };
        assert_eq!(client.ip().to_string(), seen);
        assert!(reaches_outside(&hosts, "web"));
        assert!(hosts.done("port web 80").contains("0.0.0.0:8080\n"));
        let network = hosts.done("inspect -f {{.HostConfig.NetworkMode}} web");
        assert_eq!(network, "pasta\n");
        let helpers = processes("pasta", hosts.cx.path().to_str().unwrap());
        assert_eq!(helpers.len(), 1, "{helpers:?}");
        hosts.done("rm -f web");
        wait_for_end(&helpers[0]);
        assert_eq!(hosts.hear(&host, "127.0.0.1:8080"), None);
    }
}

#[test]
fn slirp4netns_carries_users_packets_and_ends_with_the_container() {
    if !is_installed("slirp4netns") {
        return;
    }
    for hosts in both() {
        let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
        hosts.serve("--name web --network slirp4netns -p 8080:80");
        for (from, address) in [
            (&host, "127.0.0.1:8080"),
            (&host, "[::1]:8080"),
            (&outside, "10.99.0.1:8080"),
            (&outside, "[fd99::1]:8080"),
        ] {
            hosts.expect_hello(from, address);
        }
        assert!(reaches_outside(&hosts, "web"));
        let helpers = processes("slirp4netns", &format!("/proc/{}/ns/net", hosts.pid("web")));
        assert_eq!(helpers.len(), 1, "{helpers:?}");
        hosts.done("rm -f web");
        wait_for_end(&helpers[0]);
    }
}

#[test]
fn names_are_resolved_for_users_as_for_the_host() {
    for hosts in both() {
        let resolver = Resolver::start(&hosts, "10.99.0.2", [192, 0, 2, 77]);
        hosts.cx.set_resolv_conf("nameserver 10.99.0.2\n");
        for network in ["pasta", "slirp4netns"] {
            if !is_installed(network) {
                continue;
            }
            let run = hosts.ketch(&format!(
                "run --rm --network {network} box nslookup name.test"
            ));
            assert!(run.stdout.contains("192.0.2.77"), "{network}: {run:?}");
        }
        assert!(resolver.questions() > 0);
    }
}

#[test]
fn without_a_helper_the_monitor_serves_ports_above_1024() {
    for hosts in both() {
        hosts.cx.set_tun(false);
        let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
        hosts.serve("--name web --network default -p 8080:80");
        hosts.expect_hello(&host, "127.0.0.1:8080");
        hosts.expect_hello(&outside, "10.99.0.1:8080");
        hosts.expect_hello(&outside, "[fd99::1]:8080");
        let run = hosts.ketch("run --network default -p 8080:80 box true");
        assert_eq!(run.code, 125);
        assert!(
            run.stderr.contains("in use by container `web`"),
            "{}",
            run.stderr
        );
        let run = hosts.ketch("run --network default -p 80:80 box true");
        assert_eq!(run.code, 125);
        assert!(run.stderr.contains("begin at 1024"), "{}", run.stderr);
        // Without ports it has none, and says so.
        let run = hosts.ketch("run --rm --network default box true");
        assert_eq!(run.code, 0);
        assert!(
            run.stderr.contains("the container has no network"),
            "{}",
            run.stderr
        );
        assert_eq!(hosts.ketch("run --rm --network none box true").stderr, "");
        hosts.done("rm -f web");
        assert_eq!(hosts.hear(&host, "127.0.0.1:8080"), None);
    }
}

#[test]
fn user_shares_the_network_of_another_container() {
    let Some(hosts) = user(Subordinate::Ids) else {
        return;
    };
    hosts.serve("--name web --network none");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = hosts.ketch("run --rm --network container:web box nc 127.0.0.1 80");
        if run.stdout == "hello\n" {
            break;
        }
        assert!(Instant::now() < deadline, "{run:?}");
    }
}

#[test]
fn networks_that_a_user_cannot_have_are_refused() {
    let Some(hosts) = user(Subordinate::None) else {
        return;
    };
    for (args, says) in [
        ("run --network bridge box true", "network `bridge`"),
        ("run --network pasta --ip 10.0.0.1 box true", "no address"),
        ("network create net", "cannot make or change networks"),
        (
            "run --rm --network default -p 9000:80/sctp box true",
            "SCTP",
        ),
    ] {
        let run = hosts.ketch(args);
        assert!(run.code == 125 || run.code == 1, "{args}: {run:?}");
        assert!(run.stderr.contains(says), "{args}: {}", run.stderr);
        assert_eq!(run.stderr.matches("error:").count(), 1, "{}", run.stderr);
    }
    assert_eq!(hosts.done("ps -aq"), "");
    let shown = hosts.done("info");
    assert!(
        shown.contains("Networks: pasta") || shown.contains("Networks: slirp"),
        "{shown}"
    );
}
