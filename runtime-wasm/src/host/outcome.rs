//! How a guest ended, and which exit code and message that is.

use runtime::{GuestReport, code};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::limits::OutOfMemory;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The process's exit code.
    pub code: u8,
    /// Why.
    pub ending: Ending,
}

/// Why a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It returned, or asked to exit.
    Exited,
    /// It trapped: the trap's name, and the backtrace with one frame a line.
    Trapped {
        /// As wasmtime names it.
        name: String,
        /// Demangled; empty when there is none.
        backtrace: String,
    },
    /// It wanted more memory than it may have.
    OutOfMemory(String),
    /// It has done as much work as it may.
    OutOfFuel,
    /// It could not be started.
    NotStarted(String),
}

impl Outcome {
    /// The guest returned or exited with `code`.
    pub(super) fn exited(code: i32) -> Self {
        Self {
            code: u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            ending: Ending::Exited,
        }
    }

    /// Nothing of the guest ran.
    pub(super) fn not_started(error: &wasmtime::Error) -> Self {
        Self {
            code: code::NOT_EXECUTABLE,
            ending: Ending::NotStarted(one_line(error)),
        }
    }

    /// The guest's code, or a host call of it, ended with an error.
    pub(super) fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::exited(exit.0);
        }
        if let Some(out_of_memory) = error.downcast_ref::<OutOfMemory>() {
            return Self {
                code: code::KILLED,
                ending: Ending::OutOfMemory(out_of_memory.to_string()),
            };
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::OutOfFuel) {
            return Self {
                code: code::KILLED,
                ending: Ending::OutOfFuel,
            };
        }
        let name = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => one_line_without_backtrace(error),
        };
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(frames)
            .unwrap_or_default();
        Self {
            code: code::TRAP,
            ending: Ending::Trapped { name, backtrace },
        }
    }

    /// What the container's record says besides the exit code; nothing for a guest that exited.
    #[must_use]
    pub fn report(&self) -> Option<GuestReport> {
        let message = self.message();
        // The headline: a backtrace is for standard error alone.
        let error = message.lines().next()?;
        let error = error.strip_prefix("ketch: ").unwrap_or(error).to_owned();
        Some(GuestReport {
            out_of_memory: matches!(self.ending, Ending::OutOfMemory(_)),
            error,
        })
    }

    /// What is written to the container's standard error, line ends included; empty for a guest
    /// that exited.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.ending {
            Ending::Exited => String::new(),
            Ending::Trapped { name, backtrace } if backtrace.is_empty() => {
                format!("ketch: {name}\n")
            }
            Ending::Trapped { name, backtrace } => {
                format!("ketch: {name}\nwasm backtrace:\n{backtrace}")
            }
            Ending::OutOfMemory(reason) => format!("ketch: out of memory: {reason}\n"),
            Ending::OutOfFuel => "ketch: the guest has used up its fuel (--wasm-fuel)\n".to_owned(),
            Ending::NotStarted(reason) => format!("ketch: cannot start the guest: {reason}\n"),
        }
    }
}

/// The frames of a backtrace, innermost first, demangled, one a line.
fn frames(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    // wasmtime's own headline goes, whatever it says.
    match text.split_once('\n') {
        Some((_, frames)) if !frames.is_empty() => format!("{frames}\n"),
        _ => String::new(),
    }
}

fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// The causes without the backtrace, which wasmtime adds as a context of its own.
fn one_line_without_backtrace(error: &wasmtime::Error) -> String {
    let backtrace = error
        .downcast_ref::<WasmBacktrace>()
        .map(ToString::to_string);
    let causes: Vec<String> = error
        .chain()
        .map(ToString::to_string)
        .filter(|cause| Some(cause) != backtrace.as_ref())
        .collect();
    causes.join(": ").replace('\n', " ")
}
