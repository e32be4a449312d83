//! `ketch`: the command line. It reads the environment, prints and exits; everything else is the
//! engine's. Where the system is not Linux there are no containers: what is left, images and guests
//! in a sandbox alone, is in `portable`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "the commands of Linux use more of what is shared")
)]

#[cfg(target_os = "linux")]
mod activation;
mod ahead;
#[cfg(target_os = "linux")]
mod attach;
#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod embedded;
#[cfg_attr(not(target_os = "linux"), path = "portable/failures.rs")]
mod failures;
mod format;
mod guest_options;
mod image_record;
mod module_file;
#[cfg(not(target_os = "linux"))]
mod portable;
mod progress;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod remote;
mod render;
#[cfg(target_os = "linux")]
mod service_log;
mod settings;
mod template;
mod times;
mod values;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use commands as front;
#[cfg(not(target_os = "linux"))]
use portable as front;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match front::dispatch(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => render::failure(&error, front::failure_code(&args)),
    }
}
