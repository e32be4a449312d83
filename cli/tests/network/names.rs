//! Names: the responder inside a container, and the resolvers of the host behind it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::hosts::{Hosts, ip};

/// A resolver that stands outside and gives every name one address.
pub(crate) struct Resolver {
    questions: Arc<AtomicUsize>,
}

impl Resolver {
    pub(crate) fn start(hosts: &Hosts, address: &str, answer: [u8; 4]) -> Self {
        let socket = hosts.within(&hosts.outside, || UdpSocket::bind((address, 53)).unwrap());
        let questions = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&questions);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                drop(socket.send_to(&reply(&buffer[..length], answer), peer));
            }
        });
        Self { questions }
    }

    /// How many it was asked.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

/// The question with one address; nothing for other types than A (RFC 1035 section 4).
fn reply(question: &[u8], answer: [u8; 4]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut bytes = question[..end].to_vec();
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    let is_a = bytes[end - 4..end - 2] == [0, 1];
    bytes[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        bytes.extend(answer);
    }
    bytes
}

/// A question for the addresses of a name.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, kind, 0, 1]);
    bytes
}

#[test]
fn hosts_resolvers_are_read_again_when_they_change() {
    let Some(hosts) = Hosts::new() else { return };
    ip(&format!(
        "-n {} addr add 10.99.0.3/24 dev up0",
        hosts.outside
    ));
    let _first = Resolver::start(&hosts, "10.99.0.2", [192, 0, 2, 1]);
    let _second = Resolver::start(&hosts, "10.99.0.3", [192, 0, 2, 2]);
    hosts.done("network create net");
    hosts.set_resolv_conf("nameserver 10.99.0.2\n");
    let started = hosts.ketch_with_resolv_conf("run -d --name asker --network net box sleep 600");
    assert_eq!(started.code, 0, "{}", started.stderr);
    let ask = || hosts.ketch("exec asker /busybox nslookup name.test").stdout;
    assert!(ask().contains("192.0.2.1"), "{}", ask());
    hosts.set_resolv_conf("nameserver 10.99.0.3\n");
    assert!(ask().contains("192.0.2.2"), "{}", ask());
}

#[test]
fn containers_have_names_by_udp_and_tcp_and_addresses_have_theirs() {
    let Some(hosts) = Hosts::new() else { return };
    hosts.done("network create net");
    let id = hosts.done("run -d --name web --network net --network-alias alias box sleep 600");
    let address = hosts.address("web");
    hosts.done("run -d --name asker --network net box sleep 600");
    let ask = |name: &str| {
        hosts
            .ketch(&format!("exec asker /busybox nslookup {name}"))
            .stdout
    };
    for name in ["web", "WEB", "alias", "web.net", &id[..12]] {
        assert!(ask(name).contains(&address), "{name}: {}", ask(name));
    }
    assert!(ask(&address).contains("web.net"), "{}", ask(&address));

    let netns = std::fs::File::open(format!("/proc/{}/ns/net", hosts.pid("asker"))).unwrap();
    let mut stream = sys::net::within(netns.as_fd(), || {
        TcpStream::connect((Ipv4Addr::new(127, 0, 0, 11), 53)).unwrap()
    })
    .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // Two questions on one connection.
    for kind in [1, 28] {
        let asked = question("web", kind);
        let length = u16::try_from(asked.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &asked].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..2], asked[..2]);
        assert_eq!(answer[7], 1, "one record of type {kind}: {answer:?}");
    }
}

#[test]
fn nothing_of_an_internal_network_asks_outside() {
    let Some(hosts) = Hosts::new() else { return };
    let resolver = Resolver::start(&hosts, "10.99.0.2", [192, 0, 2, 1]);
    hosts.set_resolv_conf("nameserver 10.99.0.2\n");
    hosts.done("network create --internal dark");
    hosts.done("network create bright");
    let run = hosts.ketch_with_resolv_conf("run -d --name asker --network dark box sleep 600");
    assert_eq!(run.code, 0, "{}", run.stderr);
    let ask = || hosts.ketch("exec asker /busybox nslookup name.test");
    assert_ne!(ask().code, 0);
    assert_eq!(resolver.questions(), 0);
    // On another network as well it may ask.
    hosts.done("network connect bright asker");
    assert!(ask().stdout.contains("192.0.2.1"), "{:?}", ask());
    assert!(resolver.questions() > 0);
}
