//! What a container has of the network when its monitor was killed.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::{Hosts, PATIENCE};

/// Kills the monitor of a container.
fn kill_monitor(hosts: &Hosts, container: &str) {
    let id = hosts.done(&format!("inspect -f {{{{.Id}}}} {container}"));
    let socket = format!("run/containers/{}/ctl.sock", id.trim());
    let socket = sys::socket::connect(&hosts.cx.path().join(socket)).unwrap();
    let monitor: Pid = rustix::net::sockopt::socket_peercred(&socket).unwrap().pid;
    kill_process(monitor, Signal::KILL).unwrap();
    let lock = hosts
        .cx
        .path()
        .join(format!("run/containers/{}/lock", id.trim()));
    let deadline = Instant::now() + PATIENCE;
    while sys::lock::is_held(&lock).unwrap() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn ports_addresses_and_names_go_on_with_the_next_monitor_and_are_given_back_by_it() {
    let Some(hosts) = Hosts::new() else { return };
    let (host, outside) = (hosts.host.clone(), hosts.outside.clone());
    hosts.done("network create net");
    hosts.serve("--name web --network net -p 8080:80");
    hosts.done("run -d --name other --network net box sleep 600");
    hosts.expect_hello(&host, "127.0.0.1:8080");
    let address = hosts.address("web");
    for container in ["web", "other"] {
        kill_monitor(&hosts, container);
    }
    // Who comes in between gets another address.
    let lookup = "run --rm --network net box ip -4 addr show eth0";
    assert!(!hosts.done(lookup).contains(&format!("inet {address}/")));
    assert!(hosts.done("ps").contains("8080->80/tcp"));
    assert_eq!(hosts.address("web"), address);
    // By the monitor, by the kernel, by name, from the container that another monitor answers for too.
    hosts.expect_hello(&host, "127.0.0.1:8080");
    hosts.expect_hello(&outside, "10.99.0.1:8080");
    let ask = "exec other /busybox nc web 80";
    assert_eq!(hosts.done(ask), "hello\n");
    hosts.done("network disconnect net other");
    hosts.done("network connect net other");
    assert_eq!(hosts.done(ask), "hello\n");
    hosts.done("rm -f web other");
    assert_eq!(hosts.hear(&host, "127.0.0.1:8080"), None);
    assert_eq!(hosts.hear(&outside, "10.99.0.1:8080"), None);
    assert!(!hosts.nft("list table inet ketch").contains("8080"));
    hosts.done("network rm net");
}

#[test]
fn port_that_another_process_has_taken_ends_the_container_with_the_reason() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.serve("--name web --network bridge -p 8081:80");
    let pid = hosts.pid("web");
    kill_monitor(&hosts, "web");
    let taken = hosts.within(&hosts.host, || {
        std::net::TcpListener::bind("0.0.0.0:8081").unwrap()
    });
    let listed = hosts.done("ps -a");
    assert!(listed.contains("Exited (137)"), "{listed}");
    let error = hosts.done("inspect -f {{.State.Error}} web");
    assert!(
        error.contains("its monitor was gone") && error.contains("0.0.0.0:8081"),
        "{error}"
    );
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    assert!(status.is_ok_and(|status| status.contains("State:\tZ")) || !is_there(pid));
    assert!(!hosts.nft("list table inet ketch").contains("8081"));
    drop(taken);
    hosts.done("start web");
    hosts.expect_hello(&hosts.host, "127.0.0.1:8081");
}

fn is_there(pid: i64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
