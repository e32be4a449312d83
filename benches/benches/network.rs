//! Netlink: what a network costs at a container's start is one message of many requests (`sys/src/netlink/mod.rs`).
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sys::netlink::{Batch, Netlink, Protocol, address, link};

/// Requests in one batch.
const ADDRESSES: u32 = 64;
const BRIDGE: &str = "ktbench0";
const MAC: link::Mac = [2, 0, 0, 0, 0, 1];

/// A network namespace of nobody's, as long as its process lives.
struct Namespace {
    holder: Child,
    fd: OwnedFd,
}

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // What comes back shows that it is there.
        holder.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut byte = [0];
        let stdout = holder.stdout.as_mut().unwrap();
        stdout.read_exact(&mut byte).unwrap();
        let pid = i32::try_from(holder.id()).unwrap();
        let fd = sys::net::namespace_of(Some(pid)).unwrap();
        Self { holder, fd }
    }

    fn netlink(&self) -> Netlink {
        sys::net::within(self.fd.as_fd(), || Netlink::open(Protocol::Route).unwrap()).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// A bridge, for as long as it is wanted: its index.
fn with_bridge<T>(netlink: &Netlink, work: impl FnOnce(u32) -> T) -> T {
    let mut batch = Batch::route();
    link::create_bridge(&mut batch, BRIDGE, MAC, None);
    netlink.execute(batch).unwrap();
    let index = netlink.link_index(BRIDGE).unwrap();
    let result = work(index);
    let mut batch = Batch::route();
    link::delete(&mut batch, index);
    netlink.execute(batch).unwrap();
    result
}

fn address_of(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a63_0000 + number))
}

fn requests(criterion: &mut Criterion) {
    if !rustix::process::geteuid().is_root() {
        skipped("netlink needs root");
        return;
    }
    let namespace = Namespace::new();
    let netlink = namespace.netlink();
    let mut group = criterion.benchmark_group("netlink");
    group.throughput(Throughput::Elements(ADDRESSES.into()));
    group.sample_size(20);
    group.measurement_time(Duration::from_secs(3));
    for (name, at_once) in [("batch", ADDRESSES), ("one-by-one", 1)] {
        group.bench_function(format!("{name}/{ADDRESSES}-addresses"), |bench| {
            bench.iter_custom(|rounds| {
                let once = || with_bridge(&netlink, |index| add(&netlink, index, at_once));
                (0..rounds).map(|_| once()).sum()
            });
        });
    }
    with_bridge(&netlink, |index| {
        add(&netlink, index, ADDRESSES);
        group.bench_function(format!("dump/{ADDRESSES}-addresses"), |bench| {
            bench.iter(|| {
                let all = address::addresses(&netlink).unwrap();
                let own = all
                    .iter()
                    .filter(|(of, ip, _)| *of == index && ip.is_ipv4());
                assert_eq!(own.count(), ADDRESSES as usize);
            });
        });
    });
    group.finish();
}

/// Gives the link its addresses, so many in a message.
fn add(netlink: &Netlink, index: u32, at_once: u32) -> Duration {
    let began = Instant::now();
    for first in (0..ADDRESSES).step_by(at_once as usize) {
        let mut batch = Batch::route();
        for number in first..first + at_once {
            address::add_address(&mut batch, index, address_of(number), 32);
        }
        assert_eq!(batch.count(), at_once);
        netlink.execute(batch).unwrap();
    }
    began.elapsed()
}

#[expect(clippy::print_stderr, reason = "a benchmark says what it leaves out")]
fn skipped(what: &str) {
    eprintln!("left out: {what}");
}

criterion_group!(benches, requests);
criterion_main!(benches);
