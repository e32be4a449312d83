//! `ketch logs`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::Invocation;

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

/// Options of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Container, by name or id
    container: String,
}

/// One line of the `json-file` log.
#[derive(Deserialize)]
struct Record {
    log: String,
    stream: String,
    time: String,
}

/// Shows what a container wrote, each line to the stream that it was written to.
pub(crate) fn logs(context: &Invocation, args: &LogsArgs) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.container(&args.container)?;
    let path = engine
        .layout()
        .container(&container.config.id)
        .join("container.log");
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        // Asked before reading: what is written before the end is read after the question.
        let running = args.follow
            && engine
                .container(&args.container)
                .is_ok_and(|container| container.is_running());
        while reader.read_line(&mut line)? > 0 {
            // A line that is still being written has no end yet.
            if !line.ends_with('\n') {
                break;
            }
            show(&line, args)?;
            line.clear();
        }
        if !running {
            return Ok(0);
        }
        thread::sleep(FOLLOW_INTERVAL);
    }
}

fn show(line: &str, args: &LogsArgs) -> anyhow::Result<()> {
    let record: Record = serde_json::from_str(line)?;
    let text = if args.timestamps {
        format!("{} {}", record.time, record.log)
    } else {
        record.log
    };
    match record.stream.as_str() {
        "stderr" => io::stderr().write_all(text.as_bytes())?,
        _ => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(())
}
