//! What a question gets: an answer from the names of containers, a refusal, or the way to the
//! host's resolvers. Pure functions of bytes; questions come from containers and are trusted with
//! nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::names::Names;

/// How long an answer may be kept, in seconds: an address may change hands at any time.
const TTL: u32 = 10;

/// The header of a message (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Response codes (RFC 1035 section 4.1.1).
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Somebody outside may know.
    Forward,
    /// It is no question.
    Drop,
}

/// Where questions about other names go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// To resolvers.
    Reachable,
    /// Nowhere: all networks of the container are internal.
    Barred,
}

/// Settles one question.
pub(crate) fn settle(question: &[u8], names: &mut Names, outside: Outside) -> Outcome {
    if !is_plain_query(question) {
        // A response is never answered, so that two responders cannot keep each other busy.
        let is_response = question.get(2).is_none_or(|flags| flags & 0x80 != 0);
        return match (is_response, outside) {
            (true, _) => Outcome::Drop,
            (false, Outside::Reachable) => Outcome::Forward,
            (false, Outside::Barred) => refusal(question, SERVER_FAILURE),
        };
    }
    let Ok(packet) = Packet::parse(question) else {
        return match outside {
            Outside::Reachable => Outcome::Forward,
            Outside::Barred => refusal(question, FORMAT_ERROR),
        };
    };
    let Some(asked) = packet.questions.first() else {
        return refusal(question, FORMAT_ERROR);
    };
    let name = asked.qname.to_string().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    if let QTYPE::TYPE(TYPE::PTR) = asked.qtype
        && let Some(address) = reverse(name)
        && let Some(found) = names.name_of(address)
    {
        let target = Name::new_unchecked(&found).into_owned();
        return reply(&packet, vec![RData::PTR(PTR(target))], RCODE::NoError);
    }
    if let Some(found) = names.addresses(name) {
        let data = match asked.qtype {
            QTYPE::TYPE(TYPE::A) => found.ipv4.iter().filter_map(record).collect(),
            QTYPE::TYPE(TYPE::AAAA) => found.ipv6.iter().filter_map(record).collect(),
            QTYPE::ANY => found
                .ipv4
                .iter()
                .chain(&found.ipv6)
                .filter_map(record)
                .collect(),
            // The name exists, and has no such record.
            _ => Vec::new(),
        };
        return reply(&packet, data, RCODE::NoError);
    }
    match outside {
        Outside::Reachable => Outcome::Forward,
        // A failure would be asked again; in an internal network there is no such name.
        Outside::Barred => reply(&packet, Vec::new(), RCODE::NameError),
    }
}

/// An answer that nobody outside could give.
pub(crate) fn failure(question: &[u8]) -> Option<Vec<u8>> {
    match refusal(question, SERVER_FAILURE) {
        Outcome::Answer(bytes) => Some(bytes),
        _ => None,
    }
}

/// A standard query with one question and little else: what a stub resolver sends.
fn is_plain_query(bytes: &[u8]) -> bool {
    let number = |at: usize| {
        bytes
            .get(at..at + 2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    };
    let flags = number(2).unwrap_or(u16::MAX);
    // QR and OPCODE.
    flags & 0xf800 == 0
        && number(4) == Some(1)
        && number(6) == Some(0)
        && number(8) == Some(0)
        && number(10).is_some_and(|count| count <= 2)
}

fn record(address: &IpAddr) -> Option<RData<'static>> {
    Some(match address {
        IpAddr::V4(address) => RData::A(A {
            address: address.to_bits(),
        }),
        IpAddr::V6(address) => RData::AAAA(AAAA {
            address: address.to_bits(),
        }),
    })
}

fn reply(question: &Packet<'_>, data: Vec<RData<'_>>, code: RCODE) -> Outcome {
    let mut reply = Packet::new_reply(question.id());
    *reply.rcode_mut() = code;
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.clone_from(&question.questions);
    if let Some(asked) = question.questions.first() {
        reply.answers = data
            .into_iter()
            .map(|data| ResourceRecord::new(asked.qname.clone(), CLASS::IN, TTL, data))
            .collect();
    }
    reply
        .build_bytes_vec_compressed()
        .map_or(Outcome::Drop, Outcome::Answer)
}

/// The question's header as an answer without records.
fn refusal(question: &[u8], code: u8) -> Outcome {
    let Some(header) = question.get(..HEADER) else {
        return Outcome::Drop;
    };
    let mut bytes = header.to_vec();
    // QR, what was asked of OPCODE and RD; RA and the code; no records.
    bytes[2] = bytes[2] & 0x79 | 0x80;
    bytes[3] = 0x80 | code;
    bytes[4..HEADER].fill(0);
    Outcome::Answer(bytes)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = rest.split('.').rev().map(str::parse::<u8>);
        let mut next = || octets.next()?.ok();
        let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
        return octets.next().is_none().then_some(address.into());
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let digits: Vec<&str> = rest.split('.').rev().collect();
    if digits.len() != 32 || digits.iter().any(|digit| digit.len() != 1) {
        return None;
    }
    let bits = u128::from_str_radix(&digits.concat(), 16).ok()?;
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Endpoint;
    use simple_dns::{QCLASS, Question};
    use state::Layout;
    use sys::durable::Durability;
    use sys::lock::{FileLock, Mode};

    struct Fixture {
        _dir: tempfile::TempDir,
        _alive: FileLock,
        names: Names,
    }

    /// A network `net` with a container `web` whose monitor lives.
    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let endpoints = crate::lease::directory(&layout, "n1");
        std::fs::create_dir_all(&endpoints).unwrap();
        std::fs::create_dir_all(layout.container_run("c1")).unwrap();
        let lock = layout.container_run("c1").join("lock");
        let alive = FileLock::try_acquire(&lock, Mode::Exclusive)
            .unwrap()
            .unwrap();
        let endpoint = Endpoint {
            network: "n1".to_owned(),
            network_name: "net".to_owned(),
            container: "c1".to_owned(),
            name: "Web".to_owned(),
            names: vec!["Web".to_owned(), "alias".to_owned()],
            aliases: vec!["alias".to_owned()],
            ipv4: Some(("10.0.0.2".parse().unwrap(), 24)),
            ipv6: None,
            gateway4: None,
            gateway6: None,
            mac: String::new(),
            link: "eth0".to_owned(),
            host_link: String::new(),
        };
        let path = endpoints.join("10.0.0.2_-_c1");
        state::write_record(&path, &endpoint, Durability::Atomic).unwrap();
        let names = Names::new(layout, ["n1".to_owned()].into_iter());
        Fixture {
            _dir: dir,
            _alive: alive,
            names,
        }
    }

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name);
        packet.questions.push(Question::new(
            name,
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().unwrap()
    }

    fn answers(outcome: &Outcome) -> (RCODE, usize) {
        let Outcome::Answer(bytes) = outcome else {
            panic!("{outcome:?}")
        };
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!(packet.id(), 77);
        (packet.rcode(), packet.answers.len())
    }

    #[test]
    fn name_alias_and_full_name_have_the_address() {
        let mut fixture = fixture();
        for name in ["web", "WEB", "alias", "web.net"] {
            let outcome = settle(
                &query(name, TYPE::A),
                &mut fixture.names,
                Outside::Reachable,
            );
            assert_eq!(answers(&outcome), (RCODE::NoError, 1), "{name}");
        }
    }

    #[test]
    fn missing_family_is_no_data_and_not_forwarded() {
        let mut fixture = fixture();
        let outcome = settle(
            &query("web", TYPE::AAAA),
            &mut fixture.names,
            Outside::Reachable,
        );
        assert_eq!(answers(&outcome), (RCODE::NoError, 0));
    }

    #[test]
    fn address_has_its_name() {
        let mut fixture = fixture();
        let question = query("2.0.0.10.in-addr.arpa", TYPE::PTR);
        let outcome = settle(&question, &mut fixture.names, Outside::Barred);
        assert_eq!(answers(&outcome), (RCODE::NoError, 1));
    }

    #[test]
    fn other_names_go_outside_unless_that_is_barred() {
        let mut fixture = fixture();
        let question = query("example.com", TYPE::A);
        let outcome = settle(&question, &mut fixture.names, Outside::Reachable);
        assert_eq!(outcome, Outcome::Forward);
        let outcome = settle(&question, &mut fixture.names, Outside::Barred);
        assert_eq!(answers(&outcome), (RCODE::NameError, 0));
    }

    #[test]
    fn garbage_and_responses_are_not_answered() {
        let mut fixture = fixture();
        for bytes in [&[][..], &[1, 2], &[0, 77, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]] {
            let outcome = settle(bytes, &mut fixture.names, Outside::Barred);
            assert_eq!(outcome, Outcome::Drop, "{bytes:?}");
        }
        let mut lying = query("web", TYPE::A);
        lying[7] = 0xff;
        assert!(settle(&lying, &mut fixture.names, Outside::Barred) != Outcome::Forward);
    }

    #[test]
    fn reverse_names_are_addresses() {
        assert_eq!(reverse("4.3.2.1.in-addr.arpa"), "1.2.3.4".parse().ok());
        let one = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";
        assert_eq!(reverse(one), "::1".parse().ok());
        assert_eq!(reverse("3.2.1.in-addr.arpa"), None);
    }
}
