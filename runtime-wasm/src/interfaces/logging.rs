//! `wasi:logging/logging`: lines with a level, to the container's standard error and so to its log.

use std::io::Write;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use crate::link::Guest;

/// A message's level.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[expect(dead_code, reason = "a guest's levels are made by `Lift`")]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }
}

pub(super) fn define(linker: &mut Linker<Guest>, import: &str) -> wasmtime::Result<()> {
    linker.instance(import)?.func_wrap(
        "log",
        |_store: StoreContextMut<'_, Guest>, (level, context, message): (Level, String, String)| {
            // One write a message: lines of instances that log at once do not mix.
            let mut line = String::from(level.name());
            if !context.is_empty() {
                line.push(' ');
                line.push_str(&context);
            }
            line.push_str(": ");
            line.push_str(message.trim_end_matches('\n'));
            line.push('\n');
            // Logging has no way to say that nobody reads.
            let _lost = std::io::stderr().write_all(line.as_bytes());
            Ok(())
        },
    )?;
    Ok(())
}
