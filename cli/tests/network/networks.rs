//! Networks: names, walls between them, subnets, rules.

use std::time::Instant;

use crate::hosts::{Hosts, PATIENCE, ip};

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
    hosts.done("rm -f web");
    hosts.done("network rm red");
    let filter = "--filter type=network --filter network=red --format {{.Action}}";
    let events = hosts.done(&format!("events --since 1h --until 0s {filter}"));
    // Two short containers come and go; their ends are written down a moment after they are told.
    let mut events: Vec<&str> = events.lines().collect();
    assert_eq!(
        (events.first(), events.last()),
        (Some(&"create"), Some(&"destroy"))
    );
    events.retain(|event| *event == "connect");
    assert_eq!(events.len(), 4);
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
    hosts.ketch("run --rm --network bridge box nc -w 20 10.99.0.2 7000");
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
fn bad_requests_are_one_line_each_and_change_nothing() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create --subnet 10.50.0.0/24 net");
    hosts.done("run -d --name web --network net --ip 10.50.0.9 -p 8080:80 box sleep 600");
    let networks = hosts.done("network ls -q");
    let rules = hosts.nft("list ruleset");
    for (args, says) in [
        (
            "run --rm --network net --ip 10.51.0.1 box true",
            "10.51.0.1",
        ),
        (
            "run --rm --network net --ip 10.50.0.9 box true",
            "in use by",
        ),
        (
            "run --rm --network net --ip 10.50.0.255 box true",
            "10.50.0.255",
        ),
        (
            "run --rm --network nowhere box true",
            "no such network: nowhere",
        ),
        ("run --rm --network net --network net box true", "twice"),
        (
            "run --rm --network net -p 8080:80 box true",
            "in use by container `web`",
        ),
        ("run --rm --network net -p 99999:80 box true", "--publish"),
        (
            "run --rm --network net -p 10.99.0.77:80:80 box true",
            "address not available",
        ),
        (
            "run --rm --network none -p 80:80 box true",
            "cannot publish ports on network `none`",
        ),
        ("run --rm --network net,ip=1.2.3.4 box true", "--network"),
        (
            "network create --subnet 10.50.0.0/16 other",
            "overlaps `10.50.0.0/24` of network `net`",
        ),
        (
            "network create --subnet 10.99.0.0/16 other",
            "the route to `10.99.0.0/24` by `up0`",
        ),
        (
            "network create --subnet 10.60.0.0/24 --gateway 10.61.0.1 other",
            "outside the subnet",
        ),
        (
            "network create --subnet 10.60.0.0/24 --ip-range 10.61.0.0/25 other",
            "outside the subnet",
        ),
        (
            "network create --subnet 10.60.0.0/33 other",
            "is not a subnet",
        ),
        ("network create net", "a network of this name exists"),
        (
            "network create -d overlay other",
            "bridge, macvlan or ipvlan",
        ),
        ("network create -o com.example=1 other", "com.example"),
        ("network create -d macvlan other", "parent=LINK"),
        ("network create -d macvlan -o parent=gone0 other", "gone0"),
        ("network rm net", "in use by web"),
        ("network rm bridge", "built in"),
        ("network rm nowhere", "no such network: nowhere"),
        ("network connect net web", "on it already"),
        ("network disconnect bridge web", "is not on it"),
    ] {
        let run = hosts.ketch(args);
        assert!(run.code == 125 || run.code == 1, "{args}: {run:?}");
        assert!(run.stderr.contains(says), "{args}: {}", run.stderr);
        assert_eq!(
            run.stderr.matches("error:").count(),
            1,
            "{args}: {}",
            run.stderr
        );
    }
    assert_eq!(hosts.done("ps -aq").lines().count(), 1);
    assert_eq!(hosts.done("network ls -q"), networks);
    assert_eq!(hosts.nft("list ruleset"), rules);
}
