//! TCP and HTTP: within a guest, and between this process and a server in a subject. What is sent and what must come
//! back is known here, so that a wrong answer is seen.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::call::Interrupted;
use crate::job::{self, Job, Line, Which, Wrong};
use crate::load;
use crate::measure;
use crate::service::{Kind, Service, Via};
use crate::subject::{Means, Subject};
use crate::watch::Waiting;

/// How long a server may take until it listens, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(1);
/// Round trips that are not counted, and those that are.
const FIRST_TRIPS: u32 = 50;
const TRIPS: u32 = 1000;
/// Bytes that are sent at once, and how often.
const CHUNK: usize = 64 << 10;
const CHUNKS: u32 = 512;
/// One of so many bytes counts in a stream's check (`fixtures/guests/net.rs`).
const STEP: usize = 4 << 10;

/// Both ends in the guest.
pub(crate) fn loopback(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    let args = ["loopback".to_owned()];
    let job = Job {
        program: Which::Net,
        ..Job::plain(&args)
    };
    let lines = job::parse(&subject.run(means, job)?.output(means.until)?)?;
    if lines.is_empty() {
        bail!("the guest has measured nothing");
    }
    Ok(lines)
}

/// A byte to and fro, and many in one direction, from this process to a server in the subject.
pub(crate) fn tcp(
    means: &Means,
    subject: &dyn Subject,
    via: Via,
    [trip, stream]: [&'static str; 2],
) -> anyhow::Result<Vec<Line>> {
    with_service(means, subject, Kind::Tcp, via, |address| {
        let (trips, took) = trips(connect(address, means.until)?, trip)?;
        let first = value(trip, trips, took)?;
        let (bytes, took) = send(connect(address, means.until)?, stream)?;
        Ok(vec![first, value(stream, bytes, took)?])
    })
}

/// Requests a second.
pub(crate) fn http(means: &Means, subject: &dyn Subject) -> anyhow::Result<Vec<Line>> {
    with_service(means, subject, Kind::Http, Via::Host, |address| {
        let connections = (0..load::CONNECTIONS).map(|_| connect(address, means.until));
        let connections = connections.collect::<anyhow::Result<Vec<TcpStream>>>()?;
        let (requests, took) = load::requests(connections, "net.http", means.until)?;
        Ok(vec![value("net.http", requests, took)?])
    })
}

fn with_service(
    means: &Means,
    subject: &dyn Subject,
    kind: Kind,
    via: Via,
    work: impl FnOnce(SocketAddr) -> anyhow::Result<Vec<Line>>,
) -> anyhow::Result<Vec<Line>> {
    let served = subject.serve(means, Service::new(kind, via)?)?;
    let lines = work(served.address);
    let ended = subject.end_service(means, served);
    let lines = lines?;
    ended?;
    Ok(lines)
}

fn value(name: &'static str, operations: u64, took: Duration) -> anyhow::Result<Line> {
    let measure = measure::find(name).context("there is no such measure")?;
    // Bytes and requests of one turn are far below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let operations = operations as f64;
    Ok(Line::Value(
        name,
        measure.value(operations, took.as_secs_f64() * 1e9),
    ))
}

/// Connects when the server listens.
fn connect(address: SocketAddr, until: Waiting) -> anyhow::Result<TcpStream> {
    let began = Instant::now();
    loop {
        let error = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => error,
        };
        if until.is_over() {
            return Err(Interrupted.into());
        }
        if began.elapsed() >= PATIENCE {
            return Err(error).with_context(|| format!("nobody listens at {address}"));
        }
        std::thread::sleep(PAUSE);
    }
}

fn trips(mut stream: TcpStream, measure: &'static str) -> anyhow::Result<(u64, Duration)> {
    let failed = "cannot send a byte to and fro";
    stream.write_all(b"e").context(failed)?;
    let mut began = Instant::now();
    for trip in 0..FIRST_TRIPS + TRIPS {
        if trip == FIRST_TRIPS {
            began = Instant::now();
        }
        let [byte, ..] = trip.to_le_bytes();
        let mut back = [0];
        stream.write_all(&[byte]).context(failed)?;
        stream.read_exact(&mut back).context(failed)?;
        if back != [byte] {
            let what = format!("{back:?} came back, not {byte}");
            return Err(Wrong { measure, what }.into());
        }
    }
    Ok((TRIPS.into(), began.elapsed()))
}

/// Sends bytes until the other side has counted them all.
fn send(mut stream: TcpStream, measure: &'static str) -> anyhow::Result<(u64, Duration)> {
    let failed = "cannot send bytes";
    let mut chunk = vec![b'k'; CHUNK];
    for (byte, number) in chunk.iter_mut().step_by(STEP).zip(1_u8..) {
        *byte = number;
    }
    let mut expected = (0_u64, 0_u64);
    for _ in 0..CHUNKS {
        expected.0 += chunk.len() as u64;
        for byte in chunk.iter().step_by(STEP) {
            expected.1 = expected.1.wrapping_mul(31).wrapping_add((*byte).into());
        }
    }
    stream.write_all(b"s").context(failed)?;
    let began = Instant::now();
    for _ in 0..CHUNKS {
        stream.write_all(&chunk).context(failed)?;
    }
    stream.shutdown(Shutdown::Write).context(failed)?;
    let mut number = || -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).context(failed)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let found = (number()?, number()?);
    let took = began.elapsed();
    if found != expected {
        let what = format!("{found:x?} of {expected:x?} bytes came");
        return Err(Wrong { measure, what }.into());
    }
    Ok((expected.0, took))
}
