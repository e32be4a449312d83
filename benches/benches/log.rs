//! Logs: records written as the monitor writes them, and followed as `logs -f` does.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::LogReader;
use runtime::LOG_NAME;
use state::{LogForm, Segments, nanoseconds_now};

/// Lines that are written at once, as much as a pipe holds of these.
const LINES: usize = 500;
const LINE: &[u8] =
    b"2026-01-01T00:00:00Z INFO request served path=/index.html status=200 bytes=5120 ms=3\n";

const FORMS: [(&str, LogForm); 2] = [("json-file", LogForm::JsonFile), ("local", LogForm::Local)];

/// Encodes the lines and gives them to the kernel, as `FileLog` of `monitor/src/log/file.rs`.
fn append(file: &mut File, form: LogForm, pending: &mut Vec<u8>) {
    for _ in 0..LINES {
        form.encode(pending, nanoseconds_now(), false, LINE, &[]);
    }
    file.write_all(pending).unwrap();
    pending.clear();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(LINES as u64));
    for (name, form) in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(dir.path(), LOG_NAME);
        let mut file = segments.create(1).unwrap();
        let mut pending = Vec::new();
        group.bench_function(format!("write/{name}/{LINES}-lines"), |bench| {
            bench.iter(|| append(&mut file, form, &mut pending));
        });
        let (record, _) = form
            .decode(&std::fs::read(segments.file(1)).unwrap())
            .unwrap();
        assert_eq!(record.unwrap().bytes, LINE);
    }
    group.finish();
}

/// From the moment at which lines are in the file until the follower has them all: it sleeps before.
fn follow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(LINES as u64));
    for (name, form) in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(dir.path(), LOG_NAME);
        let mut file = segments.create(1).unwrap();
        let mut pending = Vec::new();
        let mut reader = LogReader::at(dir.path(), form);
        // The first call only begins to watch.
        reader.wait(Duration::ZERO).unwrap();
        group.bench_function(format!("follow/{name}/{LINES}-lines"), |bench| {
            bench.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    append(&mut file, form, &mut pending);
                    let began = Instant::now();
                    let mut seen = 0;
                    while seen < LINES {
                        match reader.next_record().unwrap() {
                            Some(record) => {
                                assert_eq!(record.bytes, LINE);
                                seen += 1;
                            }
                            None => reader.wait(Duration::from_secs(1)).unwrap(),
                        }
                    }
                    took += began.elapsed();
                }
                took
            });
        });
        assert_eq!((reader.take_lost(), reader.damaged()), (0, 0));
    }
    group.finish();
}

criterion_group!(benches, write, follow);
criterion_main!(benches);
