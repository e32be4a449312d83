//! The process around [`run`]: descriptors in, exit code out.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use runtime::{GuestReport, code};
use rustix::process::Signal;

use crate::host::load::LoadError;
use crate::host::{run, walls};
use crate::spec::{ARTIFACT_FD, Entry, REPORT_FD, SPEC_FD, SpecError, WasmSpec};

/// The largest spec that is read: arguments and environment have the kernel's own limit below it.
const MAX_SPEC: u64 = 16 << 20;

/// What asks a container to end. Nothing can be delivered to the guest, so it ends at once.
pub(super) const SIGNALS: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];

/// Why the host did not come to run anything.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("cannot read the wasm container's spec")]
    ReadSpec(#[source] io::Error),
    #[error("cannot read the compiled module")]
    ReadArtifact(#[source] io::Error),
    #[error("cannot prepare the process")]
    Prepare(#[source] io::Error),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Runs the wasm host: spec on descriptor 3, compiled module on descriptor 4, standard streams on
/// 0 to 2, the container's root at `/`. Ends the process with the guest's exit code.
pub fn main() -> ! {
    let Err(error) = serve();
    let error = chain(&error);
    report(&GuestReport {
        out_of_memory: false,
        error: error.clone(),
    });
    end(&format!("ketch: {error}\n"), code::ENGINE)
}

/// Tells the container's monitor, if it wants to know.
fn report(report: &GuestReport) {
    let pipe = sys::inherit::duplicate_inherited(REPORT_FD).map(File::from);
    if let (Ok(mut pipe), Some(bytes)) = (pipe, report.encode()) {
        // The exit code and standard error say it as well.
        let _lost = pipe.write_all(&bytes);
    }
}

/// `_exit`, because a thread may sit in a read of standard input, and because nothing that is still
/// in memory has to be written.
fn end(message: &str, code: u8) -> ! {
    // Nobody is left to hear of a failure.
    let _lost = io::stderr().write_all(message.as_bytes());
    sys::signal::exit_now(i32::from(code))
}

fn serve() -> Result<Infallible, HostError> {
    let signals = SIGNALS.map(Signal::as_raw);
    sys::signal::end_process_on(&signals).map_err(HostError::Prepare)?;
    let spec = read_spec().map_err(HostError::ReadSpec)?;
    let spec = WasmSpec::decode(&spec)?;
    let artifact = sys::inherit::duplicate_inherited(ARTIFACT_FD);
    let artifact = File::from(artifact.map_err(HostError::ReadArtifact)?);
    let confine = || {
        walls::put_up(&spec)?;
        match (spec.timeout_ms, &spec.entry) {
            (Some(limit), Entry::Command | Entry::Export(_)) => end_after(limit),
            _ => Ok(()),
        }
    };
    let finished = run(&spec, artifact, confine, |outcome| {
        if let Some(ending) = outcome.report() {
            report(&ending);
        }
        end(&outcome.message(), outcome.code)
    });
    Ok(finished?)
}

/// Ends the process when the guest has had its time.
fn end_after(limit_ms: u64) -> io::Result<()> {
    std::thread::Builder::new()
        .name("timeout".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            std::thread::sleep(Duration::from_millis(limit_ms));
            let text = format!("ketch: the guest ran longer than {limit_ms} ms (--wasm-timeout)\n");
            end(&text, code::KILLED)
        })
        .map(drop)
}

fn read_spec() -> io::Result<Vec<u8>> {
    let file = File::from(sys::inherit::duplicate_inherited(SPEC_FD)?);
    let mut bytes = Vec::new();
    file.take(MAX_SPEC).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
